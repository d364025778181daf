"""What every part of a row schedule knows: the tile's shape, where values stand, loops over rows.

In:  a RowPlan, a target.  Out: RowFrame; line_walks.py, one_row.py, row_folds.py and rows.py build on it, in this
order.
Read before: tiles.py, gaps.py. Read next: line_walks.py.
"""

from __future__ import annotations

from collections.abc import Callable

from kdsl.dtypes import DType
from kdsl.ir import loops as ir
from kdsl.ir.frame import Letter, RowPlan, flat
from kdsl.ir.ops import REDUCTIONS
from kdsl.ir.sizes import Extent, size
from kdsl.ir.tensor import Equation, Value
from kdsl.schedule.gaps import RowTiles
from kdsl.schedule.positions import Known, Memory
from kdsl.target import Target

UNROLL = 4  # vectors of one tile
ONE_TILE = 8  # vectors of a line that is one tile
WIDE = 8  # vectors of one tile whose vectors lie along the rows


class RowFrame:
    """The plan, its tiles, and which folds go along the line or over the rows."""

    def __init__(self, plan: RowPlan, memory: Callable[[Value], Memory], target: Target) -> None:
        self.p, self.memory, self.t = plan, memory, RowTiles(plan, memory)
        self.size = plan.letters.size
        self.along = (
            1 if not plan.line or plan.lane == plan.line[-1] or plan.lane is None else 0
        )  # the line's tile axis
        self.vector = target.lanes(self.widest())
        self.rows_of_tile = 1  # line elements of a tile where the vectors lie along the rows
        self.width = self.vector * target.choice("row vectors", UNROLL)
        length = self.size[plan.line[-1]] if plan.line else 0
        if isinstance(length, int) and self.width < length <= ONE_TILE * self.vector:
            self.width = length  # a short line is one tile: each fold ends once
        if self.along == 0:
            self.rows_of_tile, self.width = self.upright()
        self.t.width = self.width if self.along == 1 and plan.rows else 0
        self.nears: dict[Value, ir.Near] = {}
        self.line_folds = [e for e in plan.equations if self.drops(e) and set(plan.line) <= self.drops(e)]
        self.columns = [e for e in plan.partial if e not in self.line_folds]
        self.part: Extent | None = None  # the number of this block's part
        self.totals: dict[Equation, ir.Tile] = {}

    def widest(self) -> int:
        """Bytes of an element of the widest array along the vectors (an index for each row is not)."""
        p = self.p
        arrays = [(e.operands[i], axes) for (e, i), axes in p.letters.uses.items()]
        arrays += [(v, p.letters.values[v]) for v in p.outputs]
        along = [v.dtype.compute.bytes for v, axes in arrays if isinstance(v, Value) and p.lane in flat(axes)]
        return max(along, default=4)

    def upright(self) -> tuple[int, int]:
        """The shape of a tile whose vectors lie along the rows: wide, so that a step reads whole cache lines."""
        n = self.size[self.p.rows[-1]]
        wide = self.vector * WIDE
        if None in self.p.kept.values() or (isinstance(n, int) and n < wide):
            return 4, self.vector * 2
        return 1, wide

    def drops(self, e: Equation) -> set[Letter]:
        if e.op not in REDUCTIONS:
            return set()
        axes = self.p.letters.of(e, 0)
        return {x for a in e.attributes["axes"] for x in axes[a]}

    def on_line(self, v: Value) -> bool:
        return any(x in self.p.line for x in flat(self.p.letters.values[v]))

    def dtype(self, e: Equation) -> DType:
        return e.values[0].dtype.compute

    def register(self, name: str) -> None:
        self.t.levels[-1].names.add(name)
        self.t.depth_of[name] = self.t.depth

    def parallel(self, index: str) -> None:
        self.t.depth_of[index] = 0

    def stream(
        self, letter: Letter, lo: Extent, hi: Extent, inside: Callable[[], None], carries: bool = False
    ) -> None:
        """One step of a row letter after the other."""
        if lo == 0 and hi == 1:
            self.t.pos[letter] = 0
            inside()
            return
        index = self.t.name("r")
        folds = [e for e in self.p.partial if self.carried(e)] if carries else []
        names = {e: self.t.name(f"total_{e.op.value}") for e in folds}
        outer = dict(self.totals)
        self.t.push(index, *names.values())
        self.t.pos[letter] = size(index)
        for e in folds:
            self.totals[e] = ir.Name(names[e], (1, 1), self.dtype(e))
        inside()
        carry = tuple(ir.Carry(names[e], outer[e], self.totals[e]) for e in folds)
        body = self.t.pop()
        self.t.emit(ir.Stream(index, lo, hi, 1, body, carry))
        for e in folds:
            self.register(names[e])
            self.totals[e] = ir.Name(names[e], (1, 1), self.dtype(e))

    def carried(self, e: Equation) -> bool:
        """Is this fold over rows one number for each row, carried from row to row?"""
        return e in self.p.partial and (
            e in self.line_folds or not set(flat(self.p.letters.of(e, 0))) & set(self.p.line)
        )

    def column_position(self, e: Equation) -> tuple:
        return self.t.own(e.result)

    def column_view(self, e: Equation) -> ir.View:
        prefix = () if self.part is None else (self.part,)
        view = self.t.view(self.memory(self.p.partial[e]), self.column_position(e), prefix)
        assert view is not None
        return view

    def here(self, known: Known) -> ir.Tile:
        """A tile that is used in the innermost loop."""
        tile, depth = known
        if depth < self.t.depth and not isinstance(tile, (ir.Name, ir.Constant, ir.Scalar)):
            return self.t.let(tile, "t", depth)
        return tile

    def value(self, v: Value) -> ir.Tile:
        t = self.t
        known = t.tile(v, t.plain(v))
        return self.here(known)

    def line_index(self) -> Extent:
        index: Extent = 0
        for x in self.p.line:
            index = index * self.size[x] + self.t.pos[x]
        return index
