"""One product with maps around it -> a nest around a register tile.

In:  a DotPlan, the target, the memory of inputs and outputs.  Out: kernels: packing first, then the product.

    Parallel outer …, row blocks, column blocks            blocks from the sizes alone
        Stream depth                                       K in pieces whose panel of b stays in L1; partial sums wait in memory
            Stream column panels, Stream row tiles         a panel of b meets all row tiles of the block
                Stream k: tile (6, 16) += Dot(a (6, 8), b (8, 16))
                maps on the tile, Store

Why so: the panel of b (depth x 16) is read from L1 by every row tile, the block of a (rows x depth) from L2. An operand whose
vectors would not be contiguous, or that many row tiles read again, is packed into panels first (schedule/packing.py).
Read before: ir/dot_frame.py, schedule/product_tile.py. Read next: schedule/chain.py.
"""

from __future__ import annotations

from collections.abc import Callable

import kdsl.dtypes as dt
from kdsl.ir import loops as ir
from kdsl.ir.frame import DotPlan, flat
from kdsl.ir.ops import Op
from kdsl.ir.rules import identity
from kdsl.ir.sizes import Extent, Size, floordiv, maximum, minimum, size
from kdsl.ir.tensor import Value
from kdsl.schedule.chain import schedule_chain
from kdsl.schedule.dot_values import Known, Memory, Place
from kdsl.schedule.kernels import kernel
from kdsl.schedule.packing import TileBody, tile_count, tiles_along
from kdsl.schedule.product_tile import NEAR_PANELS, ProductTile
from kdsl.schedule.register_tile import Tiling
from kdsl.target import Target

PIECE = 32  # positions of k that the sums of a thin product take at a time
Nest = Callable[[Callable[[Extent, int, Extent, int, bool], list]], tuple[ir.Statement, ...]]  # of what is done with a tile


def schedule_dots(
    plan: DotPlan, memory: Callable[[Value], Memory], target: Target, tiling: Tiling | None = None
) -> list[ir.Kernel]:
    """The kernels of a plan of contractions, in launch order."""
    if plan.frame.line is not None:
        return schedule_chain(plan, memory, target, tiling)
    return _Nest(plan, ProductTile(plan, memory, target, tiling)).kernels()


class _Nest:
    """The loops around the register tile."""

    def __init__(self, plan: DotPlan, tile: ProductTile) -> None:
        self.plan, self.tile, self.tiling, self.values = plan, tile, tile.t, tile.values
        self.product, self.size, self.dtype = tile.product, tile.size, tile.dtype
        self.rows, self.columns, self.outer = tile.rows, tile.columns, tuple(plan.frame.outer)

    def _nothing(self) -> ir.Kernel:
        """The kernel of results without elements: loops that never run."""
        letters = flat(self.plan.letters.values[self.product.equation.result])
        place = Place({x: size(f"o{i}") for i, x in enumerate(letters)}, (1, 1))
        body: tuple[ir.Statement, ...] = tuple(
            self.tile.store(v, place, ir.Constant(identity(Op.SUM, v.dtype.compute), v.dtype.compute, (1, 1)))
            for v in self.plan.outputs
        )
        for i, x in reversed(list(enumerate(letters))):
            body = (ir.Parallel(f"o{i}", 0, self.size[x], 1, body),)
        return kernel(self.plan, body, {})

    def kernels(self) -> list[ir.Kernel]:
        if any(self.size[x] == 0 for x in flat(self.plan.letters.values[self.product.equation.result])):
            return [self._nothing()]
        row_tiles, panels = tile_count(self.rows, self.tiling.rows), tile_count(self.columns, self.tiling.columns)
        block, t_lo, t_hi = self._block("rb", row_tiles, self.tiling.row_tiles)
        column_block, p_lo, p_hi = self._block("cb", panels, self.tiling.panels)
        fast = self.product.k[-1] if self.product.k else None
        depth: Extent = 0 if fast is None else self.size[fast]
        pieces = (
            -(-depth // self.tiling.depth)
            if isinstance(depth, int) and depth > 3 * self.tiling.depth // 2 and len(self.product.k) == 1
            else 1
        )
        zero = identity(Op.SUM, self.dtype)

        def nest(tile: Callable[[Extent, int, Extent, int, bool], list]) -> tuple[ir.Statement, ...]:
            def across(t: Extent, nr: int, _: bool) -> tuple[ir.Statement, ...]:
                return panels_of(lambda p, nc, over: tuple(tile(t, nr, p, nc, over)))

            def panels_of(body: TileBody) -> tuple[ir.Statement, ...]:
                return tiles_along(self.columns, self.tiling.columns, p_lo, p_hi, self.values.name("p"), body)

            if self._rows_first():
                return self._row_loops(t_lo, t_hi, across)
            return panels_of(
                lambda p, nc, over: self._row_loops(
                    t_lo, t_hi, lambda t, nr, _: tuple(tile(t, nr, p, nc, over))
                )
            )

        def complete(t: Extent, nr: int, p: Extent, nc: int, checked: bool) -> list[ir.Statement]:
            start: ir.Tile = ir.Constant(zero, self.dtype, (nr, nc))
            if fast is None:
                place = self.tile.result_place(t, nr, p, nc, checked)
                pair = (self.values.operand(self.product.equation, i, place, Known({})) for i in (0, 1))
                return self.tile.finish(t, nr, p, nc, checked, ir.Map("mul", tuple(pair), self.dtype))
            body, total = self.tile.sums(t, nr, p, nc, checked, start, 0, depth)
            end = self.tile.finish(t, nr, p, nc, checked, total)
            return [*self.tile.prefetch(end, (nr, nc)), *body, *end]

        if self.tile.sums_wait:
            body = self._in_pieces(nest, 0, PIECE, depth, row_tiles, panels)
        elif pieces == 1:
            body = nest(complete)
        else:
            piece = -(-depth // (pieces * self.tiling.k)) * self.tiling.k
            body = self._in_pieces(nest, piece, piece, depth, row_tiles, panels)
        if self.tile.few_rows is not None:
            packed, self.tile.b_packed = self.tile.b_packed, None
            few = ir.Map("le", (ir.Scalar(self.rows, dt.i64), ir.Constant(self.tile.few_rows, dt.i64)), dt.bool_)
            body = (ir.If(few, nest(complete)), ir.If(ir.Map("not", (few,), dt.bool_), body))
            self.tile.b_packed = packed
        for wrap in (column_block, block):
            body = (wrap(body),) if wrap else body
        for i, x in reversed(list(enumerate(self.outer))):
            body = (ir.Parallel(f"o{i}", 0, self.size[x], 1, body),)
        if len(body) != 1 or not isinstance(body[0], ir.Parallel):
            body = (ir.Parallel("one", 0, 1, 1, body),)
        t = self.tiling
        schedule = {"rows": t.rows, "columns": t.columns, "k": t.k, "row_tiles": t.row_tiles, "panels": t.panels}
        schedule["pieces"] = pieces
        return [*self.tile.packing, kernel(self.plan, body, schedule)]

    def _block(self, index: str, count: Extent, tile: int):  # type: ignore[no-untyped-def]
        """(a Parallel around a body or None, lo, hi): a grid axis of blocks of `tile` of `count` things."""
        if isinstance(count, int) and count <= tile:
            return None, 0, count
        return (
            (lambda body: ir.Parallel(index, 0, count, tile, body)),
            size(index),
            minimum(size(index) + tile, count),
        )

    def _rows_first(self) -> bool:
        """A row tile meets all panels of b where these stay near: a is then read, and the result written, once and in order."""
        walked: Extent = self.columns * self.dtype.bytes
        for x in self.product.k:
            walked = walked * self.size[x]
        return isinstance(walked, int) and walked <= NEAR_PANELS

    def _row_loops(
        self, lo: Extent, hi: Extent, body: Callable[[Extent, int, bool], tuple[ir.Statement, ...]]
    ) -> tuple[ir.Statement, ...]:
        if self.plan.frame.row is None:
            return body(0, 1, False)
        index = self.values.name("t")
        if not isinstance(self.rows, Size):
            return tiles_along(self.rows, self.tiling.rows, lo, hi, index, body)
        full = self.rows // self.tiling.rows
        whole_tiles = ir.Stream(index, lo, minimum(hi, full), 1, body(size(index), self.tiling.rows, False))
        self.tile.at_row = size(self.values.name("r"))  # what is left: row by row, since checks would cost more
        one = ir.Stream(str(self.tile.at_row), 0, self.rows - full * self.tiling.rows, 1, body(size(index + "r"), 1, False))
        self.tile.at_row = 0
        return (whole_tiles, ir.Stream(index + "r", maximum(lo, full), hi, 1, (one,)))

    def _in_pieces(self, nest: Nest, first: int, piece: int, depth: Extent, row_tiles: Extent, panels: Extent
                   ) -> tuple[ir.Statement, ...]:  # fmt: skip
        """K in pieces, the first of `first` positions: the partial sums of a block wait in near memory."""
        last = floordiv(depth - 1, piece) * piece if first else floordiv(depth, piece) * piece
        height = min(self.tiling.row_tiles, row_tiles) if isinstance(row_tiles, int) else self.tiling.row_tiles
        width = min(self.tiling.panels, panels) if isinstance(panels, int) else self.tiling.panels
        near = ir.Near(self.values.name("partial"), self.dtype, (height, width, self.tiling.rows, self.tiling.columns))

        def at(t: Extent, p: Extent) -> tuple[Extent, ...]:
            return (t % height, p % width, self.tile.at_row + ir.axis(0), ir.axis(1))  # blocks start at multiples of these

        def load(t: Extent, p: Extent, nr: int, nc: int) -> ir.Tile:
            return ir.Load(ir.View(near, at(t, p)), (nr, nc))

        def clear(t: Extent, nr: int, p: Extent, nc: int, checked: bool) -> list[ir.Statement]:
            zero = ir.Constant(identity(Op.SUM, self.dtype), self.dtype, (nr, nc))
            body, total = self.tile.sums(t, nr, p, nc, checked, zero, 0, first)
            return [*body, ir.Put(near, at(t, p), total)]

        def add(t: Extent, nr: int, p: Extent, nc: int, checked: bool) -> list[ir.Statement]:
            body, total = self.tile.sums(t, nr, p, nc, checked, load(t, p, nr, nc), size("kb"), piece)
            return [*body, ir.Put(near, at(t, p), total)]

        def end(t: Extent, nr: int, p: Extent, nc: int, checked: bool) -> list[ir.Statement]:
            body, total = self.tile.sums(t, nr, p, nc, checked, load(t, p, nr, nc), last, depth - last)
            return [*body, *self.tile.finish(t, nr, p, nc, checked, total)]

        middle = () if last == first else (ir.Stream("kb", first, last, piece, nest(add)),)
        return (near, *nest(clear), *middle, *nest(end))
