"""Sizes and index expressions: polynomials with integer coefficients over named integers.

One class serves the whole compiler: the named sizes of a user's annotation ("N"), the shapes of the tensor IR, and the
indices of the loop IR (where loop indices, tile axes and loaded integers are further names). A constant is always a
Python int, never a Size; two Sizes are equal exactly when their normal forms are. Named sizes are at least 0.
Read next: ir/tensor.py.

    N = size("N");  (N + 1) * 4 - 4        ->  4*N
    (N * 64) // 64                         ->  N
    minimum(N, 128), N // 64, N % 64       ->  atoms
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Union, overload

Extent = Union[int, "Size"]
Atom = tuple  # ("name", text) | ("//" | "%" | "min" | "max", Extent, Extent)
Monomial = tuple  # sorted atoms


class Size:
    """An integer expression in named sizes that is not a constant. Its text and its names are made once."""

    __slots__ = ("_hash", "_names", "_text", "terms")
    terms: dict[Monomial, int]

    def __init__(self, terms: dict[Monomial, int]) -> None:
        self.terms = terms
        self._hash = hash(frozenset(terms.items()))
        self._names: frozenset[str] | None = None
        self._text = ""

    # --- arithmetic: results are normalised, so constants come back as ints --------------------------------------
    def __add__(self, other: Extent) -> Extent:
        if not isinstance(other, (int, Size)):
            return NotImplemented
        terms = dict(self.terms)
        for monomial, factor in _terms(other).items():
            terms[monomial] = terms.get(monomial, 0) + factor
        return _normal(terms)

    __radd__ = __add__

    def __neg__(self) -> Extent:
        return self * -1

    def __sub__(self, other: Extent) -> Extent:
        return self + other * -1 if isinstance(other, (int, Size)) else NotImplemented

    def __rsub__(self, other: Extent) -> Extent:
        return self * -1 + other

    def __mul__(self, other: Extent) -> Extent:
        if not isinstance(other, (int, Size)):
            return NotImplemented
        terms: dict[Monomial, int] = {}
        for a, p in self.terms.items():
            for b, q in _terms(other).items():
                monomial = tuple(sorted(a + b, key=repr)) if a and b else a or b
                terms[monomial] = terms.get(monomial, 0) + p * q
        return _normal(terms)

    __rmul__ = __mul__

    def __floordiv__(self, other: Extent) -> Extent:
        return floordiv(self, other)

    def __rfloordiv__(self, other: Extent) -> Extent:
        return floordiv(other, self)

    def __mod__(self, other: Extent) -> Extent:
        return modulo(self, other)

    def __rmod__(self, other: Extent) -> Extent:
        return modulo(other, self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Size) and self._hash == other._hash and self.terms == other.terms

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[type[Size], tuple[dict[Monomial, int]]]:
        return Size, (self.terms,)  # the hash of a text is another one in every process

    def __repr__(self) -> str:
        if not self._text:
            out = ""
            for monomial, factor in sorted(self.terms.items(), key=lambda item: (not item[0], repr(item[0]))):
                text = "*".join(([str(abs(factor))] if abs(factor) != 1 or not monomial else []) + [_show(a) for a in monomial])
                out += (" - " if factor < 0 else " + ") + text if out else ("-" if factor < 0 else "") + text
            self._text = out
        return self._text


def size(name: str) -> Size:
    """The named size, loop index or loaded integer `name`."""
    return Size({(("name", name),): 1})


def _terms(x: Extent) -> dict[Monomial, int]:
    return x.terms if isinstance(x, Size) else ({(): int(x)} if x else {})


def _normal(terms: dict[Monomial, int]) -> Extent:
    terms = {m: f for m, f in terms.items() if f}
    if not terms:
        return 0
    if len(terms) == 1 and () in terms:
        return terms[()]
    return Size(terms)


def _show(atom: Atom) -> str:
    if atom[0] == "name":
        return atom[1]
    if atom[0] in ("min", "max"):
        return f"{atom[0]}({atom[1]}, {atom[2]})"
    a, b = (
        f"({x})" if isinstance(x, Size) and (len(x.terms) > 1 or next(iter(x.terms.values())) != 1) else str(x) for x in atom[1:]
    )
    return f"({a} {atom[0]} {b})"


def _divides(x: Extent, d: int) -> bool:
    return all(f % d == 0 for f in _terms(x).values())


def floordiv(a: Extent, b: Extent) -> Extent:
    """a // b, exact parts taken out: (64*N + M) // 64 -> N + M // 64."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    if b == 1:
        return a
    if isinstance(b, int) and b > 1:
        whole = {m: f // b for m, f in _terms(a).items() if f % b == 0}
        rest = _normal({m: f for m, f in _terms(a).items() if f % b})
        if whole:
            return _normal(whole) + (floordiv(rest, b) if rest != 0 else 0)
    exact = divide(a, b)
    return exact if exact is not None else Size({(("//", a, b),): 1})


def modulo(a: Extent, b: Extent) -> Extent:
    """a % b; whole multiples of b vanish."""
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    if b == 1 or divide(a, b) is not None:
        return 0
    if isinstance(b, int) and b > 1:
        rest = _normal({m: f for m, f in _terms(a).items() if f % b})
        if rest != a:
            return modulo(rest, b)
    return Size({(("%", a, b),): 1})


def divide(a: Extent, b: Extent) -> Extent | None:
    """The exact quotient a / b where it is visible (b an int that divides every factor, or one common monomial), else None."""
    if a == 0:
        return 0
    if a == b:
        return 1
    if isinstance(b, int):
        return _normal({m: f // b for m, f in _terms(a).items()}) if b and _divides(a, b) else None
    if len(b.terms) != 1:
        return None
    ((divisor, factor),) = b.terms.items()
    out: dict[Monomial, int] = {}
    for monomial, f in _terms(a).items():
        left = list(monomial)
        for atom in divisor:
            if atom not in left:
                return None
            left.remove(atom)
        if f % factor:
            return None
        out[tuple(left)] = f // factor
    return _normal(out)


def minimum(a: Extent, b: Extent) -> Extent:
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    if a == b:
        return a
    known = at_least(a, b)
    if known:
        return b
    return a if at_least(b, a) else Size({(("min", a, b),): 1})


def maximum(a: Extent, b: Extent) -> Extent:
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    if a == b:
        return a
    if at_least(a, b):
        return a
    return b if at_least(b, a) else Size({(("max", a, b),): 1})


def ceildiv(a: Extent, b: Extent) -> Extent:
    """The smallest number of tiles of b that cover a."""
    return floordiv(a + b - 1, b)


@overload
def row_major(shape: Sequence[int]) -> tuple[int, ...]: ...
@overload
def row_major(shape: Sequence[Extent]) -> tuple[Extent, ...]: ...
def row_major(shape: Sequence[Extent]) -> tuple[Extent, ...]:
    """The strides of C order, in elements."""
    out: list[Extent] = []
    step: Extent = 1
    for n in reversed(shape):
        out.append(step)
        step = step * n
    return tuple(reversed(out))


def at_least(a: Extent, b: Extent) -> bool:
    """Whether a >= b holds for all values (names at least 0). False also where it cannot be told."""
    difference = a - b
    return (
        isinstance(difference, Size) and all(f >= 0 for f in difference.terms.values()) and all(map(_natural, difference.terms))
    ) or (isinstance(difference, int) and difference >= 0)


def _natural(monomial: Monomial) -> bool:
    def natural(x: Extent) -> bool:
        return at_least(x, 0)

    return all(a[0] == "name" or (natural(a[1]) and natural(a[2])) or (a[0] == "%" and natural(a[2])) for a in monomial)


def names_in(x: Extent) -> frozenset[str]:
    """The names that an expression mentions."""
    if not isinstance(x, Size):
        return frozenset()
    if x._names is None:
        out: set[str] = set()
        for monomial in x.terms:
            for atom in monomial:
                out |= {atom[1]} if atom[0] == "name" else names_in(atom[1]) | names_in(atom[2])
        x._names = frozenset(out)
    return x._names


def substitute(x: Extent, values: Mapping[str, Extent]) -> Extent:
    """The expression with names replaced."""
    if isinstance(x, int) or names_in(x).isdisjoint(values):
        return x
    total: Extent = 0
    operations: dict[str, Callable[[Extent, Extent], Extent]] = {"//": floordiv, "%": modulo, "min": minimum, "max": maximum}
    for monomial, factor in x.terms.items():
        product: Extent = factor
        for atom in monomial:
            if atom[0] == "name":
                value = values.get(atom[1])
                product = product * (Size({(atom,): 1}) if value is None else value)
            else:
                product = product * operations[atom[0]](substitute(atom[1], values), substitute(atom[2], values))
        total = total + product
    return total


def evaluate(x: Extent, values: Mapping[str, int]) -> int:
    """The value of an expression whose names are all given."""
    result = substitute(x, values)
    if not isinstance(result, int):
        raise KeyError(f"{result} has names without a value")
    return result


def split(x: Extent, names: set[str] | frozenset[str]) -> tuple[dict[str, Extent], Extent]:
    """x as ({name: factor}, rest), linear in `names`: the rest and the factors mention none of them.

    Raises ValueError where x is not linear in them.
    """
    factors: dict[str, Extent] = {}
    rest: Extent = 0
    for monomial, f in _terms(x).items():
        inside = [a for a in monomial if (a[1] in names if a[0] == "name" else names & (names_in(a[1]) | names_in(a[2])))]
        if not inside:
            rest = rest + Size({monomial: f}) if monomial else rest + f
            continue
        if len(inside) > 1 or inside[0][0] != "name":
            raise ValueError(f"{x} is not linear in {', '.join(sorted(names))}")
        left = list(monomial)
        left.remove(inside[0])
        factors[inside[0][1]] = factors.get(inside[0][1], 0) + (Size({tuple(left): f}) if left else f)
    return factors, rest
