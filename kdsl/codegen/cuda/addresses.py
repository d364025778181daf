"""Index expressions and views as text of a kernel's source, and how wide the accesses of a view may be.

In:  views of the loop IR.  Out: source text such as `by4(at(x, i, edge(axis1 + c)))`.
An index that is a size plus whole multiples of tile axes is written as it is; any other becomes a tile of indices.
Read before: macros_views.py. Read next: views.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass

from kdsl.codegen.cuda.layout import Layout
from kdsl.codegen.cuda.records import BYTES
from kdsl.ir import loops as ir
from kdsl.ir.sizes import Extent, Size, names_in, split, substitute

AXES = tuple(f"#{k}" for k in range(8))
Rename = Callable[[str], str]


def show(e: Extent, name: Rename) -> str:
    """An index expression in the source's own words; `name` says what a name is called there."""
    if isinstance(e, int):
        return str(e)
    out = ""
    for monomial, factor in sorted(e.terms.items(), key=lambda item: (item[1] < 0, _order(item[0]))):
        atoms = [_atom(a, name) for a in monomial]
        words = ([str(abs(factor))] if abs(factor) != 1 or not monomial else []) + atoms
        text = "*".join(words)
        out += (" - " if factor < 0 else " + ") + text if out else (f"0 - {text}" if factor < 0 else text)
    return out


def _order(monomial: tuple) -> tuple:
    """Loop indices and sizes first, then positions in the tile, then numbers."""
    return not monomial, any(a[1].startswith("#") for a in monomial if a[0] == "name"), repr(monomial)


def _atom(a: tuple, name: Rename) -> str:
    if a[0] == "name":
        return f"axis{a[1][1:]}" if a[1].startswith("#") else name(a[1])
    x, y = (show(part, name) for part in a[1:])
    if a[0] in ("min", "max"):
        return f"{'smaller' if a[0] == 'min' else 'larger'}({x}, {y})"
    return f"({group(x)} {a[0]} {group(y)})"


def group(text: str) -> str:
    """The text as an operand of a product."""
    return f"({text})" if (" " in text or "*" in text) and not _enclosed(text) else text


def _enclosed(text: str) -> bool:
    """Whether one pair of parentheses encloses all of it."""
    depth = 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if depth == 0:
            return i == len(text) - 1 and text[0] == "("
    return False


def walk(e: Extent) -> tuple[dict[int, int], Extent] | None:
    """An index as whole multiples of tile axes and the rest; None where it is no such sum."""
    try:
        factors, rest = split(e, set(AXES))
    except ValueError:
        return None
    if any(not isinstance(f, int) for f in factors.values()):
        return None
    return {int(n[1:]): f for n, f in factors.items() if isinstance(f, int)}, rest


def stays_above_zero(e: Extent, natural: Callable[[str], bool]) -> bool:
    """Whether an index is never negative, for all its names that are `natural`."""
    if isinstance(e, int):
        return e >= 0
    return all(f >= 0 and all(_natural(a, natural) for a in m) for m, f in e.terms.items())


def _natural(a: tuple, natural: Callable[[str], bool]) -> bool:
    if a[0] == "name":
        return a[1].startswith("#") or natural(a[1])
    return all(stays_above_zero(x, natural) for x in a[1:])


@dataclass(frozen=True)
class Run:
    """How many neighbours along `axis` of a tile one access may take: `sure` of them always, `hoped` where they happen to lie in
    one piece of memory and inside, which is known when the kernel runs. Both are powers of two, 16 bytes at most."""

    sure: int = 1
    hoped: int = 1
    axis: int = 0

    def held(self, layout: Layout) -> tuple[int, bool]:
        """How many of them a thread has, and whether that is a hope."""
        sure, hoped = layout.run(self.sure, self.axis), layout.run(self.hoped, self.axis)
        return (hoped, True) if hoped > sure else (sure, False)


MOST_HOPED = 8  # elements of an access that may fall apart


def run_length(
    memory: ir.Memory,
    strides: tuple[Extent, ...],
    view: ir.View,
    shape: ir.TileShape,
    steps: Mapping[str, int],
    aligned: Container[str] = (),
) -> Run:
    """The accesses of a tile in a view: neighbours lie side by side along one axis of the tile, begin at a multiple of their
    number, and are inside or outside together.

    `steps` are the tiles of the loops around, and what is known of sizes; an index that names one of `aligned` begins at such a
    multiple in the memory that the schedule had in mind."""
    walks = [walk(e) for e in view.index]
    if any(w is None for w in walks):
        return Run()
    along: dict[int, list[int]] = {}  # tile axis -> memory axes
    for d, w in enumerate(walks):
        for k in w[0] if w else ():
            along.setdefault(k, []).append(d)
    axis = next(
        (k for k in reversed(range(len(shape))) if shape[k] > 1 and len(along.get(k, ())) == 1
         and walks[along[k][0]][0][k] == 1 and strides[along[k][0]] == 1),  # type: ignore[index]
        None,
    )  # fmt: skip
    if axis is None:
        return Run()
    own = along[axis][0]
    places: list[Extent] = []  # what must be a multiple, for the start of an access
    for d, (w, stride) in enumerate(zip(walks, strides)):
        assert w is not None
        factors, rest = w
        places.append(rest * stride)
        places += [f * stride for k, f in factors.items() if shape[k] > 1 and (d, k) != (own, axis)]
    ends: list[Extent] = [memory.shape[own], walks[own][1]] if view.checks[own] else []  # type: ignore[index]
    most = math.gcd(16 // BYTES[memory.dtype.name], shape[axis])
    sure = math.gcd(most, *(factor(e, steps) for e in (*places, *ends)))
    if any(n in aligned for e in view.index for n in names_in(e)):
        places = []
    hoped = math.gcd(most, MOST_HOPED, *(factor(e, _Hope(steps)) for e in places))
    return Run(sure, hoped, axis)


class _Hope(dict):  # type: ignore[type-arg]
    """What loops count by, where any other name may be a multiple of whatever is wanted."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> int:
        return 16


def one_thread_each(view: ir.View, shape: ir.TileShape, steps: Mapping[str, int], fixed: Container[str]) -> bool:
    """Whether every element that a statement writes is always written from the same place of its tile, so from one thread.

    So it is where a tile's places follow one another along each axis of memory, and loops go on by whole tiles.
    `fixed`: names that mean one number as long as the kernel runs."""
    for e in view.index:
        found = walk(e)
        if found is None:
            return False
        factors, rest = found
        span = 1
        for k, f in sorted(factors.items(), key=lambda item: item[1]):
            if f != span and shape[k] > 1:
                return False
            span *= shape[k]
        moving = rest - substitute(rest, {n: 0 for n in names_in(rest) if n not in fixed})
        if factor(moving, steps) % span:
            return False
    return True


def factor(e: Extent, steps: Mapping[str, int]) -> int:
    """A number that divides the expression whatever its names are."""
    scaled = substitute(e, {n: Size({(("name", n),): steps[n]}) for n in names_in(e) if n in steps})
    return math.gcd(*scaled.terms.values()) if isinstance(scaled, Size) else scaled
