"""Inputs that lie with gaps along the line and are the same for every row: laid near once for each block, without gaps.

In:  an input that a tile loads, and where.  Out: the load from near memory, and statements at the start of the block.

    x * taps[:, 1] with taps (channels, 4)      near[c] = taps[c, 1] for all c of the line; then x[r, c] * near[c], row after row

A vector of elements with gaps is read one by one; without this every row would do so anew.
Read before: tiles.py, row_frame.py. Read next: line_walks.py.
"""

from __future__ import annotations

from kdsl.ir import loops as ir
from kdsl.ir.frame import RowPlan
from kdsl.ir.sizes import Extent, Size, names_in, size
from kdsl.ir.tensor import Value
from kdsl.schedule.positions import Known, Position
from kdsl.schedule.tiles import Tiles

LAID_BYTES = 32 * 1024  # of one input along the line


class RowTiles(Tiles):
    """Tiles whose loads with gaps along the line come from near memory."""

    plan: RowPlan
    width = 0  # of the tiles in which the line is laid; 0: nothing is

    def __init__(self, *known: object) -> None:
        super().__init__(*known)  # type: ignore[arg-type]
        self.laid: dict[tuple[Value, Position], ir.Near] = {}

    def load(self, v: Value, at: Position) -> Known:
        axis = self.axis_with_gaps(v, at)
        if axis is None:
            return super().load(v, at)
        place = tuple(None if d == axis else x for d, x in enumerate(at))
        near = self.laid.get((v, place))
        if near is None:
            near = self.laid[v, place] = self.lay(v, at, axis)
        index = self.pos[self.plan.line[-1]]
        return ir.Load(ir.View(near, (index,)), (1, self.shape[1])), self.depth_at(index)

    def axis_with_gaps(self, v: Value, at: Position) -> int | None:
        """The axis along which v is walked with the line, where that is with gaps and all else is one place."""
        p = self.plan
        if not self.width or len(p.line) != 1 or p.lane != p.line[0] or self.edge:
            return None
        line = self.pos.get(p.line[0])
        n = p.letters.size[p.line[0]]
        if not isinstance(line, Size) or "#1" not in names_in(line) or not isinstance(n, int):
            return None
        along = [d for d, x in enumerate(at) if x == line]
        if len(along) != 1 or any(not isinstance(x, int) for d, x in enumerate(at) if d != along[0]):
            return None
        (axis,) = along
        gaps = v.shape[axis] == n and any(m != 1 for m in v.shape[axis + 1 :]) and n > self.shape[1]
        return axis if gaps and n * v.dtype.compute.bytes <= LAID_BYTES else None

    def lay(self, v: Value, at: Position, axis: int) -> ir.Near:
        """Near memory for v along the line, filled at the start of the block."""
        n = self.plan.letters.size[self.plan.line[0]]
        assert isinstance(n, int)
        near = ir.Near(self.name(v.name or "laid"), v.dtype.compute, (n,))
        index = self.name("j")

        def put(start: Extent, width: int) -> ir.Put:
            here = start + size("#1")
            view = self.view(self.memory(v), tuple(here if d == axis else x for d, x in enumerate(at)))
            assert view is not None
            return ir.Put(near, (here,), ir.Load(view, (1, width)))

        whole = n // self.width * self.width
        fill: list[ir.Statement] = [near]
        if whole:
            fill.append(ir.Stream(index, 0, whole, self.width, (put(size(index), self.width),)))
        if n != whole:
            fill.append(put(whole, n - whole))
        self.levels[0].body[:0] = fill
        return near
