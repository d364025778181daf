"""Letters that always stand side by side become one: one loop instead of two.

In:  equations and their letters.  Out: the same letters, or fewer.
Read before: letters.py. Read next: row_line.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from kdsl.ir.frame import Letter, Letters, flat
from kdsl.ir.ops import REDUCTIONS, Op
from kdsl.ir.tensor import Equation, Value
from kdsl.transforms.ties import moves, tied_axes


def dropped(equation: Equation, letters: Letters) -> frozenset[Letter]:
    """The letters that an equation sums (or folds) away."""
    if equation.op in REDUCTIONS:
        axes = letters.of(equation, 0)
        return frozenset(x for a in equation.attributes["axes"] for x in axes[a])
    if equation.op is Op.DOT:
        both = {*flat(letters.of(equation, 0)), *flat(letters.of(equation, 1))}
        return frozenset(both - set(flat(letters.values[equation.result])))
    return frozenset()


def joined_letters(
    equations: Sequence[Equation], letters: Letters, contiguous: Callable[[Value], bool], stacked: Iterable[Value] = ()
) -> Letters:
    """Join letters a, b that always stand side by side and are folded together: one loop instead of two.

    Not where an index counts one of them, nor where an input's memory or a moved axis keeps them apart; nor those of values
    that are `stacked` along an axis between theirs."""
    apart: set[Letter] = {x for v in stacked for x in flat(letters.values[v])}
    for (e, i), axes in letters.uses.items():
        if not contiguous(e.operands[i]):  # type: ignore[arg-type]
            apart.update(flat(axes))
    after: dict[Letter, Letter | None] = {}  # the only neighbour so far; None where there are several, or none
    before: dict[Letter, Letter | None] = {}
    for table in {*letters.values.values(), *letters.uses.values()}:
        last: Letter | None = None
        for axis in table:
            for x in axis:
                if last is not None and after.setdefault(last, x) != x:
                    after[last] = None
                if before.setdefault(x, last) != last:
                    before[x] = None
                last = x
        if last is not None:
            after[last] = None
    joinable = [(a, b) for a, b in after.items() if b is not None and before[b] == a and a not in apart and b not in apart]
    if not joinable:
        return letters
    groups: list[frozenset[Letter]] = []
    for e in equations:
        groups.extend(_kept_apart(e, letters, apart))
    joins = {
        a: b for a, b in joinable if a not in apart and b not in apart and all((a in g) == (b in g) for g in groups)
    }  # a -> the letter right of it that swallows it
    if not joins:
        return letters
    size = dict(letters.size)
    for a in joins:
        b = joins[a]
        while b in joins:
            b = joins[b]
        size[b] = size.pop(a) * size[b]
    cut = lambda t: tuple(tuple(x for x in axis if x not in joins) for axis in t)  # noqa: E731
    return Letters({v: cut(t) for v, t in letters.values.items()}, {k: cut(t) for k, t in letters.uses.items()}, size)


def _kept_apart(e: Equation, letters: Letters, apart: set[Letter]) -> list[frozenset[Letter]]:
    """Sets of letters that must be joined as a whole or not at all; letters that an equation counts go to `apart`."""
    if e.op in REDUCTIONS:
        out = dropped(e, letters)
        if e.op in (Op.ARGMAX, Op.ARGMIN):
            apart.update(out if len(out) > 1 else ())
        return [out]
    if e.op is Op.DOT:
        return [frozenset(flat(letters.of(e, 0))), frozenset(flat(letters.of(e, 1))), frozenset(flat(letters.values[e.result]))]
    if e.op is Op.IOTA:
        apart.update(letters.values[e.result][e.attributes["axis"]])
    elif e.op in (Op.SLICE, Op.PAD):
        for d in range(len(e.result.shape)):
            if moves(e, d):
                apart.update(letters.values[e.result][d])
                apart.update(letters.of(e, 0)[d])
    elif e.op in (Op.CONCAT, Op.WINDOW, Op.TAKE, Op.TAKE_ALONG):
        tied = {(i, d) for i, d, _ in tied_axes(e)}
        result = set(range(len(e.result.shape))) if e.op in (Op.TAKE, Op.TAKE_ALONG) else {r for _, _, r in tied_axes(e)}
        for r, axis in enumerate(letters.values[e.result]):
            if r not in result:
                apart.update(axis)
        for i, o in enumerate(e.operands):
            if isinstance(o, Value):
                for d, axis in enumerate(letters.of(e, i)):
                    if (i, d) not in tied:
                        apart.update(axis)
    elif e.op in (Op.SCATTER_ADD, Op.SCATTER_ALONG):
        apart.update(letters.values[e.result][e.attributes["axis"]])
        apart.update(flat(letters.of(e, 1)))
    elif e.op in (Op.SORT, Op.ARGSORT):
        apart.update(letters.values[e.result][e.attributes["axis"]])
    return []
