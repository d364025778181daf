"""The tile of a kernel of maps and folds: how many rows, how much of the line, and whether it holds the whole line.

In:  a RowPlan, the target.  Out: RowTile.
Short lines stand in one tile with several rows, longer ones in a tile of their own as long as registers hold what is live of
them, so that every pass finds its values there; the longest and those whose length nobody knows are walked over. Of a named
length a target may know the most (its class). Rows of odd length begin anywhere: their tiles begin at a piece of 16 bytes.
A thread has THREAD_BYTES of the widest array: two accesses of 16 bytes in flight for each array.
Read before: ir/frame.py. Read next: row_kind.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from kdsl.ir.frame import Letter, RowPlan, flat
from kdsl.ir.sizes import Extent
from kdsl.ir.tensor import Value
from kdsl.schedule.folds import PLACES
from kdsl.schedule.gpu.nest import power_above
from kdsl.target import Target

THREAD_BYTES = 32
THREADS = 256
FEW_THREADS = 128  # with few blocks
REGISTERS = 96  # of a thread, for what is live of a line
MOST_LINE = 8 * 1024, 16 * 1024  # the longer one with a single value between: 1024 threads have few registers
COLUMNS = 64  # along the lanes of a tile whose line lies across
LEAST_COLUMNS = 16
FEW_PARTS = 64  # of a line that every thread folds by itself
WIDE = 128  # of the line of a block that folds rows
LONG_ENOUGH = 512  # of a tile of one row that begins before it
MOST_PIECE = 8  # elements
CROSSED = 64, 32  # of a map some of whose arrays lie along the line and others across it
SQUARE = 4  # side of the square of elements that a thread has of it: either way neighbours go at once


@dataclass(frozen=True)
class RowTile:
    """`axes`: along which tile axis a letter lies; `resident`: the tile holds the whole line; `piece`: elements of the pieces of
    16 bytes at which tiles of a row begin although rows begin anywhere (1: they begin with the row); `down`: rows that a
    thread has below one another; `most`: the largest part of the tile that some value has."""

    axes: Mapping[Letter, int]
    shape: tuple[int, int]
    resident: bool
    thread_elements: int
    piece: int = 1
    down: int = 1
    most: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class Kind:
    """What decides about the tile besides extents."""

    is_map: bool
    splits_line: bool  # folds over rows alone
    columns: int  # folds over rows whose results have the line


def row_tile(plan: RowPlan, kind: Kind, target: Target) -> RowTile:
    """The tile of a plan."""
    size = plan.letters.size
    line = plan.line[-1] if plan.line else None
    across = plan.rows[-1] if plan.rows else None
    upright = line is not None and plan.lane is not None and plan.lane not in plan.line
    n: Extent = 1 if line is None else size[line]
    m: Extent = 1 if across is None else size[across]
    most = n if isinstance(n, int) else target.most(str(n))  # None: the line may be of any length
    each = max(2, target.choice("gpu thread bytes", THREAD_BYTES) // _widest(plan))
    threads = target.choice("gpu row threads", THREADS)
    block = _block(plan, target, threads, each) if kind.is_map else threads * each
    resident = len(plan.line) <= 1 and most is not None and not kind.is_map and not kind.splits_line
    before, down = 0, 1
    apart = False
    if upright:
        columns = _columns(plan, target, target.choice("gpu columns", COLUMNS), block // min(block, _cover(most)))
        apart = resident and _cover(most) <= FEW_PARTS and _are_apart(plan)
        columns = min(_cover(m), block) if apart else columns
        resident = resident and (apart or _cover(most) * columns <= _most(plan, kind))
        rows = _cover(most) if resident else _part_of(most, max(1, block // columns))
        shape = (rows, columns)
    else:
        resident = resident and _cover(most) <= _most(plan, kind)
        if kind.is_map and _crosses(plan):
            columns, down = min(CROSSED[1], _cover(most)), SQUARE
            block = CROSSED[0] * columns
        else:
            before = _odd_by(plan, kind, n, target)
            longest = None if most is None else most + before
            resident = resident and _cover(longest) <= _most(plan, kind)
            columns = _cover(longest) if resident else _part_of(longest, WIDE if kind.splits_line else block)
        shape = (min(_cover(m), max(1, block // columns)), columns)
        if before and columns >= LONG_ENOUGH:
            shape = (1, columns)
        else:
            before = 0
    axes = {x: a for x, a in ((line, 0 if upright else 1), (across, 1 if upright else 0)) if x is not None}
    each = down * down if down > 1 else min(each, max(1, block // FEW_THREADS))
    return RowTile(axes, shape, resident, each, before + 1, down, (1, shape[1]) if apart else shape)


def _columns(plan: RowPlan, target: Target, wanted: int, room: int) -> int:
    """Columns of a tile whose line lies across: more where the line is short, fewer where there would not be a block for each
    multiprocessor."""
    size = plan.letters.size
    columns = min(_cover(size[plan.rows[-1]]), max(wanted, room))
    extents = [size[x] for x in plan.rows if x not in plan.reduced]
    if all(isinstance(n, int) for n in extents):
        total = math.prod(n for n in extents if isinstance(n, int))
        while columns > LEAST_COLUMNS and total < target.units * columns:
            columns //= 2
    return columns


def _are_apart(plan: RowPlan) -> bool:
    """Has no array or value both the line and the rows beside each other? What is folded is then the same for a whole tile."""
    both = {plan.line[-1], plan.rows[-1]}
    every = (*plan.letters.uses.values(), *plan.letters.values.values())
    return not any(both <= set(flat(axes)) for axes in every)


def _odd_by(plan: RowPlan, kind: Kind, n: Extent, target: Target) -> int:
    """How many elements before a row the piece of 16 bytes may begin that holds its first: 0 where all rows begin at one, or
    where what is folded over rows must lie in the same threads."""
    rows = [x for x in plan.rows if x not in plan.reduced]
    places = any(e.op in PLACES for e in plan.equations)  # before a row there are places that no element may have
    if not rows or len(plan.line) != 1 or plan.reduced or kind.columns or places:
        return 0
    piece = min(MOST_PIECE, 16 // _narrowest(plan))
    known = n if isinstance(n, int) else target.multiple(str(n))
    return piece - 1 if known % piece else 0


def _on_line(plan: RowPlan) -> list[int]:
    """Bytes of an element of each array that has the line, and of the outputs."""
    values = [e.operands[i] for (e, i), axes in plan.letters.uses.items() if set(flat(axes)) & set(plan.line)]
    return [v.dtype.bytes for v in (*values, *plan.outputs) if isinstance(v, Value)]


def _widest(plan: RowPlan) -> int:
    return max(_on_line(plan), default=4)


def _narrowest(plan: RowPlan) -> int:
    return min(_on_line(plan), default=4)


def _block(plan: RowPlan, target: Target, threads: int, each: int) -> int:
    """Elements of a block of a map: fewer where there would not be a block for each multiprocessor, a piece of 16 bytes for
    each thread at least."""
    total = 1
    for x in (*plan.rows, *plan.line):
        n = plan.letters.size[x]
        if not isinstance(n, int):
            return threads * each
        total *= n
    block = threads * each
    while block > FEW_THREADS * max(1, each // 2) and total // block < target.units:
        block //= 2
    return block


def _most(plan: RowPlan, kind: Kind) -> int:
    """The longest line that registers hold: its inputs, the sums over rows, and one value between."""
    inputs = {e.operands[i] for (e, i), axes in plan.letters.uses.items() if set(flat(axes)) >= set(plan.line) and plan.rows}
    live = max(2, len(inputs) + kind.columns + 1)
    wide = max((v.dtype.compute.bytes for v in inputs if isinstance(v, Value)), default=4)
    return min(MOST_LINE[live == 2], 512 * max(2, REGISTERS * 4 // (live * wide)))


def _crosses(plan: RowPlan) -> bool:
    """Does some array lie along the rows in memory?"""
    every = [*plan.letters.uses.values(), *(plan.letters.values[v] for v in plan.outputs)]
    return any(axes[-1][-1] in plan.rows for axes in every if axes and axes[-1])


def _cover(n: Extent | None) -> int:
    """The power of two that covers an extent; one that is not known is taken to be long."""
    return power_above(n) if isinstance(n, int) else 1 << 30


def _part_of(n: Extent | None, most: int) -> int:
    """The tile of a long line: as little as possible hangs over its end, then as long as possible."""
    if not isinstance(n, int) or n == 0:
        return most
    sizes = [1 << i for i in range(most.bit_length()) if 1 << i <= min(most, power_above(n))]
    cost = {s: -(-n // s) * s for s in sizes}
    least = min(cost.values())
    return max(s for s in sizes if cost[s] <= least * 1.1 or cost[s] - n < 16)
