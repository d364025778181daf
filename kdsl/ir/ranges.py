"""What can be proved about index expressions: is this expression never negative, given the loops around it?

In:  loop indices with their first and last values, which may mention sizes and outer indices.  Out: True, or False where it
cannot be told. The search takes one step at a time, innermost name first: a loop index becomes its least or greatest
value, a min, max, //, % becomes what bounds it from the side that matters.
Read before: ir/sizes.py, ir/loops.py. Read next: ir/loop_verify.py.
"""

from __future__ import annotations

from kdsl.ir.sizes import Extent, Size, at_least, divide, floordiv, names_in, substitute

DEPTH = 40  # steps of one proof


class Ranges:
    """The known names: sizes (0 and more) and bounded ones, in the order of their definition."""

    def __init__(self, sizes: frozenset[str] = frozenset(), facts: tuple[Extent, ...] = ()) -> None:
        self.sizes = sizes
        self.facts = facts  # expressions in the sizes that are at least 0
        self.bounds: dict[str, tuple[Extent, Extent]] = {}
        # a loop index is its first value plus a multiple of its tile
        self.steps: dict[str, tuple[Extent, int]] = {}
        self.answers: dict[object, bool] = {}

    def add(self, name: str, least: Extent, greatest: Extent) -> None:
        self.bounds.pop(name, None)
        self.bounds[name] = least, greatest

    def add_loop(self, name: str, lo: Extent, hi: Extent, tile: int) -> None:
        """A loop index: lo, lo + tile … below hi."""
        self.add(name, lo, self.last_step(lo, hi, tile))
        self.steps[name] = lo, tile

    def last_step(self, lo: Extent, hi: Extent, tile: int) -> Extent:
        """The greatest value that a loop index takes (or more, where it cannot be told)."""
        if isinstance(lo, int) and isinstance(hi, int):
            return lo + (hi - lo - 1) // tile * tile
        return hi - tile if self.is_multiple(hi - lo, tile) else hi - 1

    def is_multiple(self, e: Extent, tile: int) -> bool:
        """Whether e is a whole number of tiles for all values of its names."""
        if isinstance(e, int):
            return e % tile == 0
        opened: Extent = e  # x - x % b is b * (x // b)
        for monomial, factor in e.terms.items():
            if len(monomial) == 1 and monomial[0][0] == "%" and isinstance(monomial[0][2], int):
                _, a, b = monomial[0]
                opened = opened - Size({monomial: factor}) + factor * (a - Size({(("//", a, b),): b}))
        if isinstance(opened, int):
            return opened % tile == 0
        return all(
            f % tile == 0 or any(self._is_multiple_atom(a, tile) for a in m) for m, f in opened.terms.items()
        )

    def _is_multiple_atom(self, atom: tuple, tile: int) -> bool:
        if atom[0] == "name":
            lo, step = self.steps.get(atom[1], (0, 1))
            return step % tile == 0 and self.is_multiple(lo, tile)
        return (
            atom[0] in ("min", "max") and self.is_multiple(atom[1], tile) and self.is_multiple(atom[2], tile)
        )

    def inside(self, index: Extent, extent: Extent) -> bool:
        """Whether 0 <= index < extent for all values of the names; what was asked before is remembered."""
        known: dict[str, object] = {}
        self._collect(index, known)
        self._collect(extent, known)
        key = index, extent, frozenset(known.items())
        if key not in self.answers:
            self.answers[key] = self._inside(index, extent)
        return self.answers[key]

    def _collect(self, e: Extent, known: dict[str, object]) -> None:
        """The names of an expression with their bounds and steps, and the names of these."""
        for name in names_in(e):
            if name not in known and name in self.bounds:
                known[name] = self.bounds[name], self.steps.get(name)
                for bound in self.bounds[name]:
                    self._collect(bound, known)

    def _inside(self, index: Extent, extent: Extent) -> bool:
        if isinstance(extent, int):
            span = self.span(index)
            if span and span[0] >= 0 and span[1] < extent:
                return True
        return self.natural(index) and self.natural(extent - index - 1)

    # --- with numbers alone: quick, and enough where shapes are fixed -------------------------------------------------
    def span(self, e: Extent) -> tuple[int, int] | None:
        """The least and greatest value, by interval arithmetic, where all bounds are numbers."""
        if isinstance(e, int):
            return e, e
        low = high = 0
        for monomial, factor in e.terms.items():
            a, b = factor, factor
            for atom in monomial:
                x = self._span_of(atom)
                if x is None:
                    return None
                ends = (a * x[0], a * x[1], b * x[0], b * x[1])
                a, b = min(ends), max(ends)
            low, high = low + a, high + b
        return low, high

    def _span_of(self, atom: tuple) -> tuple[int, int] | None:
        if atom[0] == "name":
            bounds = self.bounds.get(atom[1])
            if bounds is None:
                return None
            low, high = self.span(bounds[0]), self.span(bounds[1])
            return (low[0], max(low[0], high[1])) if low and high else None
        x, y = self.span(atom[1]), self.span(atom[2])
        if x is None or y is None:
            return None
        if atom[0] == "min":
            return min(x[0], y[0]), min(x[1], y[1])
        if atom[0] == "max":
            return max(x[0], y[0]), max(x[1], y[1])
        if y[0] != y[1] or y[0] <= 0:
            return None
        if atom[0] == "//":
            return x[0] // y[0], x[1] // y[0]
        return x if 0 <= x[0] and x[1] < y[0] else (0, y[0] - 1)

    # --- with names -----------------------------------------------------------------------------------------------------
    def natural(self, e: Extent, depth: int = DEPTH) -> bool:
        """Whether e >= 0 can be proved."""
        if isinstance(e, int):
            return e >= 0
        span = self.span(e)
        if span and span[0] >= 0:
            return True
        if depth == 0 or not names_in(e) <= self.sizes | set(self.bounds):
            return False
        e = self._remainders(_canonical(e))
        if isinstance(e, int) or (at_least(e, 0) and names_in(e) <= self.sizes):
            return not isinstance(e, int) or e >= 0
        if any(at_least(e - fact * times, 0) for fact in self.facts for times in self._factors(e, fact)):
            return True
        for name in reversed(self.bounds):
            if name in names_in(e):
                direction = self._direction(e, name)
                if direction:
                    return self.natural(substitute(e, {name: self.bounds[name][direction < 0]}), depth - 1)
        return self._open_atom(e, depth - 1)

    def _remainders(self, e: Extent) -> Extent:
        """What is left of x % b is known where all of x but a number is a multiple of b: loop indices go in steps."""
        out = e
        for monomial, factor in e.terms.items() if isinstance(e, Size) else ():
            for atom in monomial:
                if atom[0] != "%" or not isinstance(atom[2], int) or not isinstance(atom[1], Size):
                    continue
                number = atom[1].terms.get((), 0)
                if self.is_multiple(atom[1] - number, atom[2]):
                    others = list(monomial)
                    others.remove(atom)
                    scale: Extent = Size({tuple(others): factor}) if others else factor
                    out = out - Size({monomial: factor}) + scale * (number % atom[2])
                    break
        return out

    def _factors(self, e: Size, fact: Extent) -> set[int]:
        """How many times a fact may have to be taken away from e: once, or the ratios of their terms of one sign."""
        if isinstance(fact, int):
            return set()
        ratios = {e.terms[m] // f for m, f in fact.terms.items() if m in e.terms and e.terms[m] * f > 0}
        return {r for r in ratios if r > 0} | {1}

    def _direction(self, e: Size, name: str) -> int:
        """1 where e grows with the name, -1 where it falls, 0 where that cannot be told."""
        signs = set()
        for monomial, factor in e.terms.items():
            for atom in monomial:
                inner = self._atom_direction(atom, name)
                if inner == 0:
                    continue
                others = list(monomial)
                others.remove(atom)
                if inner is None or not all(
                    a[0] == "name" and a[1] != name and self._is_natural(a[1]) for a in others
                ):
                    return 0
                signs.add(inner if factor > 0 else -inner)
        return signs.pop() if len(signs) == 1 else 0

    def _atom_direction(self, atom: tuple, name: str) -> int | None:
        """The same of an atom; 0 where it does not mention the name, None where it cannot be told."""
        if atom[0] == "name":
            return int(atom[1] == name)
        inside = [isinstance(x, Size) and name in names_in(x) for x in atom[1:]]
        if not any(inside):
            return 0
        if atom[0] == "%" or (atom[0] == "//" and inside[1]):
            return None
        signs = {self._direction(x, name) for x, there in zip(atom[1:], inside, strict=True) if there}
        return (signs.pop() or None) if len(signs) == 1 else None

    def _is_natural(self, name: str) -> bool:
        return name in self.sizes or self.natural(self.bounds[name][0])

    def _open_atom(self, e: Size, depth: int) -> bool:
        """Replace one min, max, // or % by its bounds: either will do, or both must hold."""
        choices = sorted(e.terms.items(), key=lambda item: not any(a[0] in ("min", "max") for a in item[0]))
        for monomial, factor in choices:  # those with a choice first: one of their sides may cancel the rest
            for atom in monomial:
                if atom[0] == "name":
                    continue
                others = list(monomial)
                others.remove(atom)
                if not all(a[0] == "name" and self._is_natural(a[1]) for a in others):
                    continue
                rest = e - Size({monomial: factor})
                scale: Extent = Size({tuple(others): factor}) if others else factor
                kind, a, b = atom
                if kind in ("min", "max"):
                    both = (kind == "min") == (factor > 0)
                    found = (self.natural(rest + scale * x, depth) for x in (a, b))
                    return all(found) if both else any(found)
                if not (self.natural(b - 1, depth) or names_in(b) <= self.sizes):
                    continue  # a size that divides is at least 1: where it is 0 there is nothing to index
                if kind == "//" and isinstance(b, int) and factor % b and self.natural(e * b, depth - 1):
                    return True  # b * (a // b) is a - a % b
                if kind == "%":
                    limits = [0] if factor > 0 else [b - 1] + ([a] if self.natural(a, depth) else [])
                elif factor > 0:
                    limits = [0] if self.natural(a, depth) else []
                else:
                    limits = [x for x in (self._quotient_limit(a, b, depth),) if x is not None]
                    limits += [floordiv(x, b) for x in _greater_choices(a)]
                return any(self.natural(rest + scale * x, depth) for x in limits)
        return False

    def _quotient_limit(self, a: Extent, b: Extent, depth: int) -> Extent | None:
        """Something that a // b never exceeds: for a <= k*b + r with a number r, that is k + r // b (b >= 1)."""
        greatest = a
        for name in reversed(self.bounds):
            if isinstance(greatest, Size) and name in names_in(greatest):
                direction = self._direction(greatest, name)
                if not direction:
                    return None
                greatest = substitute(greatest, {name: self.bounds[name][direction > 0]})
        if isinstance(greatest, int):
            return greatest // b if isinstance(b, int) else max(greatest, 0)
        constant = greatest.terms.get((), 0)
        whole = divide(greatest - constant, b)
        if whole is not None:
            return (
                whole + constant // b
                if isinstance(b, int)
                else whole - 1
                if constant < 0
                else whole + constant
            )
        return a if self.natural(a, depth) else None


def _canonical(e: Size) -> Extent:
    """b * (x // b) written as x - x % b, and (x + c) // b with 0 <= c < b, until nothing changes."""
    before: Extent = e
    out = _opened(e)
    while out != before and isinstance(out, Size):
        before, out = out, _opened(out)
    return out


def _opened(e: Size) -> Extent:
    out: Extent = e
    for monomial, factor in e.terms.items():
        for atom in monomial:
            if atom[0] != "//" or not isinstance(atom[2], int) or atom[2] <= 0:
                continue
            others = list(monomial)
            others.remove(atom)
            scale: Extent = Size({tuple(others): factor}) if others else factor
            _, x, b = atom
            constant = x.terms.get((), 0)
            if factor % b == 0:
                part: Extent = Size({tuple(others): factor // b}) if others else factor // b
                out = out - Size({monomial: factor}) + part * (x - x % b)
            elif not 0 <= constant < b:
                whole = constant // b
                out = out - Size({monomial: factor}) + scale * (floordiv(x - whole * b, b) + whole)
            break
    return out


def _greater_choices(a: Extent) -> list[Extent]:
    """Expressions that are at least a: its first min replaced by either side."""
    for monomial, factor in a.terms.items() if isinstance(a, Size) else ():
        if len(monomial) == 1 and monomial[0][0] == "min" and factor > 0:
            return [a - Size({monomial: factor}) + factor * x for x in monomial[0][1:]]
    return []
