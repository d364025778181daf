"""The tile of a kernel of maps and folds: how many rows, how much of the line, and whether it holds the whole line.

In:  a RowPlan.  Out: RowTile.
Short lines stand in one tile with several rows, lines up to RESIDENT elements in a tile of their own, so that every pass
finds its values in registers; longer ones and those of a named length are walked over.
Read before: ir/frame.py. Read next: rows.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kdsl.ir.frame import Letter, RowPlan
from kdsl.ir.sizes import Extent
from kdsl.schedule.gpu.nest import power_above

BLOCK = 2048  # elements of a tile
RESIDENT = 8192  # of a line that is one tile
COLUMNS = 64  # along the lanes of a tile whose line lies across
WIDE = 128  # of the line of a block that folds rows


@dataclass(frozen=True)
class RowTile:
    """`axes`: along which tile axis a letter lies; `resident`: the tile holds the whole line."""

    axes: Mapping[Letter, int]
    shape: tuple[int, int]
    resident: bool


def row_tile(plan: RowPlan, folds_line: bool, is_map: bool, splits_line: bool) -> RowTile:
    """The tile of a plan."""
    size = plan.letters.size
    line = plan.line[-1] if plan.line else None
    across = plan.rows[-1] if plan.rows else None
    upright = line is not None and plan.lane is not None and plan.lane not in plan.line
    n: Extent = 1 if line is None else size[line]
    m: Extent = 1 if across is None else size[across]
    if upright:
        columns = min(_cover(m), COLUMNS)
        rows = _part_of(n, BLOCK // columns)
        whole = len(plan.line) == 1 and isinstance(n, int) and _cover(n) * columns <= RESIDENT
        if whole and not is_map:
            rows = _cover(n)
        shape = (rows, columns)
    else:
        whole = len(plan.line) <= 1 and isinstance(n, int) and _cover(n) <= RESIDENT and not is_map and not splits_line
        columns = _cover(n) if whole else _part_of(n, WIDE if splits_line else BLOCK)
        shape = (min(_cover(m), max(1, BLOCK // columns)), columns)
    axes = {x: a for x, a in ((line, 0 if upright else 1), (across, 1 if upright else 0)) if x is not None}
    return RowTile(axes, shape, whole)


def _cover(n: Extent) -> int:
    """The power of two that covers an extent; a named one is taken to be long."""
    return power_above(n) if isinstance(n, int) else 1 << 30


def _part_of(n: Extent, most: int) -> int:
    """The tile of a long line: as little as possible hangs over its end, then as long as possible."""
    if not isinstance(n, int) or n == 0:
        return most
    sizes = [1 << i for i in range(most.bit_length()) if 1 << i <= min(most, power_above(n))]
    cost = {s: -(-n // s) * s for s in sizes}
    least = min(cost.values())
    return max(s for s in sizes if cost[s] <= least * 1.1 or cost[s] - n < 16)
