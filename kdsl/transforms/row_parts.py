"""Folds over rows, or over a whole line: which there are, and in how many parts they are added.

In:  RowFacts with a line.  Out: the partial folds, the letters they drop, where each block's part lies.
A block adds up its own rows and a finisher (a plan of its own, transforms/group.py) the parts, in order.
Read before: row_line.py. Read next: row_passes.py, schedule/row_folds.py.
"""

from __future__ import annotations

from collections.abc import Container

from kdsl.ir.frame import Axes, Illegal, Letter, flat
from kdsl.ir.ops import Op
from kdsl.ir.sizes import Extent
from kdsl.ir.tensor import Equation, TensorType, Value
from kdsl.transforms.cost import estimate
from kdsl.transforms.row_line import RowFacts

DIRECT_ROWS = 16  # with so many rows that are kept, folds over other rows need no partial results
PARTS = 16  # parts of a fold over rows
LARGE_LINE = 32 * 1024  # elements of a whole fold that are cut in parts
# on a GPU
PART_ROWS = 16  # rows that one part adds at least where it has the line
FEW_PART_ROWS = 4  # where it is one number
PART_LINE = 4096  # elements of a whole fold, likewise
LINE_TILE = 128  # of a fold over rows alone: blocks share the line


def partial_folds(w: RowFacts) -> tuple[list[Equation], tuple[Letter, ...]]:
    """The folds over row letters, and those letters."""
    line, rows = set(w.line), set(w.rows)
    partial: list[Equation] = []
    reduced: frozenset[Letter] | set[Letter] | None = None
    for e, d in w.folds.items():
        if not d or d == line:
            continue
        over = d & rows
        if e.op in (Op.ARGMAX, Op.ARGMIN):
            raise Illegal("the place of a maximum along another loop than the line")
        if d & line and not line <= d:
            raise Illegal("a fold over some letters of the line")
        if e.result in w.used:
            raise Illegal("a fold over the rows whose result is used in the same kernel")
        if w.lane not in line:
            raise Illegal("a fold over rows with vectors along the rows")
        operand = set(flat(w.letters.of(e, 0))) & line
        if operand and operand != line:
            raise Illegal("a fold over rows of a value that has some letters of the line but not all")
        if reduced is not None and reduced != over:
            raise Illegal("folds over different rows")
        reduced = over
        partial.append(e)
    if reduced is None:
        return [], ()
    if w.used and any(crosses(axes, reduced, w.lane) for axes in w.letters.uses.values()):
        raise Illegal("an array would be read across its rows, to be added up over them")
    kept = [x for x in w.rows if x not in reduced]
    w.rows = (*kept, *(x for x in w.rows if x in reduced))
    return partial, tuple(x for x in w.rows if x in reduced)


def crosses(axes: Axes, reduced: Container[Letter], lane: Letter | None) -> bool:
    """Does an input lie along rows that are added up, while vectors lie along another of its axes?"""
    letters = flat(axes)
    return bool(letters) and letters[-1] in reduced and lane in letters


def parts_of(w: RowFacts, partial: list[Equation], reduced: tuple[Letter, ...]) -> tuple[dict[Equation, Value], int]:
    """Where the partial results of folds over rows, or of a whole fold, lie; and how many parts there are."""
    if not partial:
        whole = [e for e, d in w.folds.items() if d and d == set(w.line) and e.result not in w.used]
        single = len(w.line) == 1 and len(whole) == len([d for d in w.folds.values() if d])
        n = w.letters.size[w.line[0]] if w.line else 0
        rows = 1
        for x in w.rows:
            rows *= max(1, estimate(w.letters.size[x]))
        if (
            not whole
            or not single
            or (bool(w.rows) and not _few_rows(w, rows, n))
            or (isinstance(n, int) and n < (4 * PART_LINE if w.gpu else 2 * LARGE_LINE))
            or any(e.op in (Op.ARGMAX, Op.ARGMIN) for e in whole)
        ):
            return {}, 1
        if w.gpu:
            most = -(-2 * w.gpu.units // rows)
            count = min(most, n // PART_LINE) if isinstance(n, int) else most
        else:
            count = min(64, n // LARGE_LINE) if isinstance(n, int) else PARTS
        return {e: _part(e, count) for e in whole}, count
    kept = 1
    for x in w.rows:
        if x not in reduced:
            kept *= estimate(w.letters.size[x])
    exact = all(e.result.dtype.compute is e.result.dtype for e in partial)  # else sums would be rounded as they grow
    direct, most, each = DIRECT_ROWS, PARTS, 1
    if w.gpu:
        columns = any(set(flat(w.letters.values[e.result])) & set(w.line) for e in partial)
        direct, each = w.gpu.units, PART_ROWS if columns else FEW_PART_ROWS
        most = -(-2 * w.gpu.units // max(1, kept * blocks_of_line(w, partial)))
    if kept >= direct and exact:
        return {e: e.result for e in partial}, 0
    first = w.letters.size[reduced[0]]
    count = max(1, min(most, first // each)) if isinstance(first, int) else most
    if count == 1 and exact:
        return {e: e.result for e in partial}, 0
    return {e: _part(e, count) for e in partial}, count


def _few_rows(w: RowFacts, rows: int, n: Extent) -> bool:
    """Are there so few rows on a GPU that blocks must share each of them?"""
    known = isinstance(n, int) and all(isinstance(w.letters.size[x], int) for x in w.rows)
    return w.gpu is not None and known and w.lane in w.line and 2 * rows <= w.gpu.units


def blocks_of_line(w: RowFacts, partial: list[Equation]) -> int:
    """How many blocks share the line of a fold over rows."""
    if any(set(w.line) & d for d in w.folds.values()):
        return 1
    out = 1
    for x in w.line:
        out *= estimate(w.letters.size[x])
    return max(1, out // LINE_TILE)


def _part(e: Equation, count: int) -> Value:
    dtype = e.result.dtype.compute
    return Value(TensorType(dtype, (count, *e.result.shape)), "parts")
