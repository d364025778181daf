"""Values of a scan's step as tiles: slices at the place of a step, folds within a tile.

In:  a ScanPlan, the memory of its inputs.  Out: tiles (schedule/tiles.py).
Read before: tiles.py. Read next: scan.py.
"""

from __future__ import annotations

from collections.abc import Callable

import kdsl.dtypes as dt
from kdsl.ir import loops as ir
from kdsl.ir.frame import Letter, ScanPlan
from kdsl.ir.ops import REDUCTIONS, Op
from kdsl.ir.rules import identity
from kdsl.ir.sizes import Extent, Size, names_in
from kdsl.ir.tensor import Equation, Value
from kdsl.schedule.positions import Known, Memory, Position, constant, number, spread_to
from kdsl.schedule.tiles import Tiles

LOOPS = ("step", "replay", "chunk")  # transforms/scan_steps.py names their indices: step_0 is the outermost scan's


class ScanTiles(Tiles):
    """Tiles of the equations of a step. `outer` letters stand still in a block."""

    def __init__(self, plan: ScanPlan, memory: Callable[[Value], Memory], still: bool = False) -> None:
        super().__init__(plan, memory)
        self.still = still  # a tile's axes stand for the same elements in all loops of a block
        self.scan = plan
        self.made = {e.result: e for e in plan.inner}
        self.places = {f"{loop}_0" for loop in LOOPS}
        self.uses.clear()
        self.uses.update(v for e in plan.inner for v in e.values)
        self.uses.update(v for v, _ in plan.ys.values())
        self.uses.update(set(plan.again.values()))

    def compute(self, e: Equation, at: Position) -> Known:
        if e.op is Op.TAKE:
            index = self.made.get(e.values[1])
            if index is not None and index.op is Op.SIZE and names_in(index.attributes["value"]) & self.places:
                axis = e.attributes["axis"]
                return self.operand(e, 0, (*at[:axis], index.attributes["value"], *at[axis:]))
        if e.op in REDUCTIONS:
            axes = self.plan.letters.of(e, 0)
            dropped = [x for a in e.attributes["axes"] for x in axes[a]]
            if dropped:
                return self.folded(e, at, dropped)
        return super().compute(e, at)

    def folded(self, e: Equation, at: Position, dropped: list[Letter]) -> Known:
        """A fold over letters that lie in the tile; those of loops around it are added by a finisher."""
        assert at == self.plain(e.result), "a fold is read at other places than it is made at"
        tile, depth = self.operand(e, 0, self.plain_operand(e, 0))
        for axis, letter in enumerate((self.scan.rows, self.scan.lane)):
            if letter is None or letter not in dropped:
                continue
            tile, depth = self.masked((tile, depth), axis, constant(identity(e.op, e.values[0].dtype), tile.dtype))
            tile = ir.Fold(e.op.value, tile, axis)
        return tile, depth

    def masked(self, known: Known, axis: int, outside: ir.Tile) -> Known:
        """A tile with all its elements along an axis, those beyond the end of its letter replaced."""
        tile, depth = self.wide(known[0], axis), known[1]
        if f"#{axis}" not in self.edge:
            return tile, depth
        letter = (self.scan.rows, self.scan.lane)[axis]
        assert letter is not None
        end = number(self.plan.letters.size[letter], dt.i64), 0
        inside = self.map("lt", [self.count(self.pos[letter]), end], dt.bool_)
        return self.map("where", [inside, (tile, depth), (outside, 0)], tile.dtype)

    def depth_at(self, *extents: Extent) -> int:
        if not self.still:
            return super().depth_at(*extents)
        names = {n for x in extents if isinstance(x, Size) for n in names_in(x)}
        return max((self.depth_of.get(n, 0) for n in names), default=0)

    def wide(self, tile: ir.Tile, axis: int) -> ir.Tile:
        """A tile with all its elements along an axis of the block's tile."""
        shape = list(tile.shape) if len(tile.shape) == 2 else [1, 1]
        shape[axis] = self.shape[axis]
        return spread_to(tile, tuple(shape))

    def here(self, known: Known) -> ir.Tile:
        """A tile that is used in the innermost loop."""
        tile, depth = known
        if depth < self.depth and not isinstance(tile, (ir.Name, ir.Constant, ir.Scalar)):
            return self.let(tile, "t", depth)
        return tile
