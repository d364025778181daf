"""What a schedule of rows knows of its plan: which folds go along the line, which over rows, in which pass; its tile.

In:  a RowPlan, the target.  Out: RowKind, the base of the nest; how a running maximum rescales.
Read before: nest.py, row_tiles.py. Read next: rows.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import kdsl.dtypes as dt
from kdsl.ir import loops as ir
from kdsl.ir.frame import Letter, RowPlan, flat
from kdsl.ir.ops import REDUCTIONS
from kdsl.ir.sizes import Extent
from kdsl.ir.tensor import Equation, Value
from kdsl.schedule.folds import LineFold
from kdsl.schedule.gpu.nest import Nest
from kdsl.schedule.gpu.row_tiles import Kind, RowTile, row_tile
from kdsl.schedule.positions import Memory
from kdsl.target import Target


@dataclass(eq=False)
class RowFold:
    """A fold of this kernel, what it walks over, and the shape of the tiles that it carries."""

    fold: LineFold
    over: tuple[Letter, ...]
    shape: ir.TileShape

    @property
    def equation(self) -> Equation:
        return self.fold.equation


class RowKind:
    """The plan, its tile, and questions about its equations."""

    def __init__(self, plan: RowPlan, memory: Callable[[Value], Memory], target: Target) -> None:
        self.p, self.memory, self.size = plan, memory, plan.letters.size
        self.line_folds = [e for e in plan.equations if self.drops(e) and set(plan.line) <= self.drops(e)]
        self.kept = [x for x in plan.rows if x not in plan.reduced]
        columns = sum(map(self.is_column, plan.partial))
        self.tiling: RowTile = row_tile(plan, Kind(self.is_map(), self.splits_line(), columns), target)
        self.t = Nest(plan, memory, self.tiling.axes, self.tiling.shape)
        if self.tiling.resident:
            self.t.whole |= set(plan.line)
        if self.tiling.piece > 1:
            self.t.edge.add(f"#{self.tiling.axes[plan.line[-1]]}")
        self.line_axis = self.tiling.axes[plan.line[-1]] if plan.line else 1
        self.online = plan.online if self.walks_online() else None
        self.when = self.online.when if self.online else plan.when
        self.part: Extent | None = None
        self.range_of: dict[Letter, tuple[Extent, Extent]] = {}

    def drops(self, e: Equation) -> set[Letter]:
        if e.op not in REDUCTIONS:
            return set()
        axes = self.p.letters.of(e, 0)
        return {x for a in e.attributes["axes"] for x in axes[a]}

    def on_line(self, v: Value) -> bool:
        return any(x in self.p.line for x in flat(self.p.letters.values[v]))

    def is_map(self) -> bool:
        """Is every tile of the line independent of the others?"""
        return not self.line_folds and not self.p.partial and all(map(self.on_line, self.p.outputs))

    def splits_line(self) -> bool:
        """Folds over rows alone, all of whose results and outputs have the line: blocks split the line too."""
        p = self.p
        if not p.partial or self.line_folds or not p.line:
            return False
        return all(self.on_line(v) for v in p.outputs) and all(self.is_column(e) for e in p.partial)

    def is_column(self, e: Equation) -> bool:
        """Is this a fold over rows whose result has the line?"""
        return e not in self.line_folds and bool(set(flat(self.p.letters.of(e, 0))) & set(self.p.line))

    def walks_online(self) -> bool:
        """Is the line walked over, and less often where sums are corrected?"""
        n, step = self.size[self.p.line[-1]] if self.p.line else 1, self.t.shape[self.line_axis]
        return self.p.online is not None and not self.tiling.resident and not (isinstance(n, int) and n <= step)

    def pass_of(self, e: Equation) -> int:
        """The pass in which a fold along the line is folded."""
        return self.online.folds[e] if self.online else self.p.when.get(e.values[0], 0)


def finite(top: ir.Tile) -> ir.Tile:
    """A maximum that may be subtracted: 0 where it is -inf."""
    low = ir.Map("eq", (top, ir.Constant(-math.inf, top.dtype)), dt.bool_)
    return ir.Map("where", (low, ir.Constant(0.0, top.dtype), top), top.dtype)


def grown(old: ir.Tile, new: ir.Tile, k: float) -> ir.Tile:
    """exp(k (new - old)), k < 0: what becomes of a sum as its maximum grows from old to new."""
    less: ir.Tile = ir.Map("sub", (old, new), old.dtype)
    if k != -1:
        less = ir.Map("mul", (less, ir.Constant(-k, old.dtype)), old.dtype)
    return ir.Map("exp", (less,), old.dtype)
