"""One product with maps around it -> a nest around a register tile.

In:  a DotPlan, the target, the memory of inputs and outputs.  Out: kernels: packing first, then the product.

    Parallel outer …, row blocks, column blocks            blocks from the sizes alone
        Stream depth                                       K in pieces whose panel of b stays in L1; partial sums wait in memory
            Stream column panels, Stream row tiles         a panel of b meets all row tiles of the block
                Stream k: tile (6, 16) += Dot(a (6, 8), b (8, 16))
                maps on the tile, Store

Why so: the panel of b (depth x 16) is read from L1 by every row tile, the block of a (rows x depth) from L2. An operand whose
vectors would not be contiguous, or that many row tiles read again, is packed into panels first (schedule/packing.py).
Read before: ir/dot_frame.py, schedule/packing.py. Read next: schedule/chain.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import kdsl.dtypes as dt
from kdsl.ir import loops as ir
from kdsl.ir.dot_frame import DotFrame, Product
from kdsl.ir.frame import DotPlan, Letter, flat
from kdsl.ir.ops import Op
from kdsl.ir.rules import identity
from kdsl.ir.sizes import Extent, Size, floordiv, maximum, minimum, size
from kdsl.ir.tensor import Value
from kdsl.schedule.chain import schedule_chain
from kdsl.schedule.dot_values import Known, Memory, Place, Values
from kdsl.schedule.kernels import kernel
from kdsl.schedule.packing import Packed, TileBody, pack, tile_count, tiles_along
from kdsl.schedule.register_tile import Tiling, accumulate, choose_tiling, segments, whole
from kdsl.target import Target

Nest = Callable[[Callable[[Extent, int, Extent, int, bool], list]], tuple[ir.Statement, ...]]  # of what is done with a tile


def schedule_dots(
    plan: DotPlan, memory: Callable[[Value], Memory], target: Target, tiling: Tiling | None = None
) -> list[ir.Kernel]:
    """The kernels of a plan of contractions, in launch order."""
    frame: DotFrame = plan.frame
    if frame.line is not None:
        return schedule_chain(plan, memory, target, tiling)
    return _Product(plan, memory, target, tiling).kernels()


FEW_TILES = 4  # packing for so few row tiles does not pay
BLOCKS = 16  # wanted at least, so that threads share a product evenly
NEAR_PANELS = 64 * 1024  # bytes of b that stay near
THIN = 64  # rows or columns: few read what packing would lay anew
PIECE = 32  # positions of k that the sums of a thin product take at a time


class _Product:
    """The nest of one product. Names: r, c are the first row and column of a tile; t, p their numbers."""

    def __init__(
        self, plan: DotPlan, memory: Callable[[Value], Memory], target: Target, tiling: Tiling | None
    ) -> None:
        self.plan, self.frame, self.values = plan, plan.frame, Values(plan, memory)
        self.memory = memory
        self.product: Product = self.frame.products[0]
        self.size = plan.letters.size
        self.rows: Extent = 1 if self.frame.row is None else self.size[self.frame.row]
        self.columns: Extent = 1 if self.product.column is None else self.size[self.product.column]
        self.dtype = self.product.equation.result.dtype.compute
        self.t = tiling or choose_tiling(target, self.dtype, self.rows, self.columns)
        self.target = target
        self.outer: dict[Letter, Extent] = {x: size(f"o{i}") for i, x in enumerate(self.frame.outer)}
        self.packing: list[ir.Kernel] = []
        self.group = (
            4 if isinstance(self.rows, int) else 1
        )  # row tiles that a panel of a holds: whole vectors, where that can be told
        self.at_row: Extent = 0  # in the tile: rows that are left are taken one by one
        self.sums_wait = self._sums_may_wait()
        if tiling is None and not self.sums_wait:
            self.t = replace(self.t, row_tiles=self._row_tiles())
        self.few_rows: int | None = None  # up to so many rows b is read in place although it is packed for more
        self.a_packed, self.b_packed = self._pack_a(), self._pack_b()

    def _row_tiles(self) -> int:
        """Row tiles of a block: fewer than the tiling wants where blocks would be too few to share."""
        blocks, most = 1, self.t.row_tiles
        for x in self.frame.outer:
            n = self.size[x]
            blocks *= n if isinstance(n, int) else BLOCKS
        if not isinstance(self.rows, int) or not isinstance(self.columns, int):
            return most
        blocks *= max(1, -(-self.columns // (self.t.columns * self.t.panels)))
        wanted = -(-BLOCKS // max(1, blocks))
        return max(min(FEW_TILES, most), min(most, -(-self.rows // self.t.rows) // wanted))

    # --- operands ------------------------------------------------------------------------------------------------------
    def _stride(self, operand: int, letter: Letter) -> Extent | None:
        """The memory stride of an operand that lies in memory along a letter; None if it is computed or the stride varies."""
        at = {x: (ir.axis(0) if x == letter else size(f"at{x}")) for x in (*self.outer, *self.size)}
        tile = self.values.operand(self.product.equation, operand, Place(at, (8, 8)), Known({}))
        return self.values.stride(tile.view, 0) if isinstance(tile, ir.Load) else None

    def _pack_a(self) -> Packed | None:
        """a is read in place, element by element, if it is stored and runs along k; else it is packed, or computed."""
        if self.frame.row is None or not self._sums() or self.sums_wait:
            return None
        stored = self._stride(self.product.a, self.product.k[-1])
        if stored == 1 or stored == 0 or (stored is not None and self._few_columns()):
            return None
        kernel_, packed = pack(
            self.values,
            self.product.equation,
            self.product.a,
            self.frame.row,
            self.product.k,
            self.group * self.t.rows,
        )
        self.packing.append(kernel_)
        return packed

    def _sums(self) -> bool:
        """Is there anything to sum?"""
        return bool(self.product.k) and all(self.size[x] != 0 for x in self.product.k)

    def _sums_may_wait(self) -> bool:
        """A long sum of thin rows (a gradient of a narrow layer): all sums of a block wait near, both operands are read once."""
        rows, columns, row, column, k = self.rows, self.columns, self.frame.row, self.product.column, self.product.k
        if len(k) != 1 or row is None or column is None or not isinstance(rows, int) or not isinstance(columns, int):
            return False
        depth, block = self.size[k[0]], (self.t.rows * self.t.row_tiles, self.t.columns * self.t.panels)
        if min(rows, columns) > THIN or (isinstance(depth, int) and depth < 4 * max(rows, columns)):
            return False
        if min(rows, block[0]) * min(columns, block[1]) * self.dtype.bytes > NEAR_PANELS:
            return False
        return self._stride(self.product.a, row) == 1 and self._stride(self.product.b, column) == 1

    def _few_columns(self) -> bool:
        return isinstance(self.columns, int) and self.columns <= 2 * self.t.columns

    def _pack_b(self) -> Packed | None:
        """b is read in place if its vectors are contiguous and few row tiles read it, or it is small.

        Where the number of rows is not known, that is decided when the kernel runs."""
        if self.product.column is None or not self._sums() or self.sums_wait:
            return None
        wanted: Extent = 1
        if self._stride(self.product.b, self.product.column) == 1:
            if isinstance(self.rows, Size):
                self.few_rows = FEW_TILES * self.t.rows
                wanted = minimum(1, self.rows // (self.few_rows + 1))
            elif self.rows <= FEW_TILES * self.t.rows:
                return None
        kernel_, packed = pack(
            self.values, self.product.equation, self.product.b, self.product.column, self.product.k, self.t.columns, wanted
        )
        self.packing.append(kernel_)
        return packed

    def a_tile(self, t: Extent, place: Place) -> ir.Tile:
        """Rows of tile t (axis 0) by some k (axis 1)."""
        if self.a_packed is None:
            return whole(
                self.values.operand(self.product.equation, self.product.a, place, Known({})), place.shape
            )
        view = self.a_packed.view(place, t // self.group, t % self.group * self.t.rows + self.at_row + ir.axis(0))
        return whole(self.values.load(view, place), place.shape)

    def b_tile(self, p: Extent, place: Place) -> ir.Tile:
        """Some k (axis 0) by the columns of panel p (axis 1)."""
        if self.b_packed is None:
            return whole(
                self.values.operand(self.product.equation, self.product.b, place, Known({})), place.shape
            )
        return whole(self.values.load(self.b_packed.view(place, p, ir.axis(1)), place), place.shape)

    # --- the register tile ---------------------------------------------------------------------------------------------
    def sums(self, t: Extent, nr: int, p: Extent, nc: int, checked: bool, start: ir.Tile, lo: Extent, count: Extent
             ) -> tuple[list[ir.Statement], ir.Tile]:  # fmt: skip
        """Statements that add the products of `count` positions of the innermost k, from lo, to `start`."""
        at, row, checks = self.outer, self._row(t), self._checks(checked)

        def step(slow: dict[Letter, Extent], fast: Letter, first: Extent, n: int, held: ir.Tile) -> ir.Dot:
            a = self.a_tile(t, Place({**at, **slow, **row, fast: first + ir.axis(1)}, (nr, n), checks))
            b = self.b_tile(
                p, Place({**at, **slow, **self._column(p), fast: first + ir.axis(0)}, (n, nc), checks)
            )
            return ir.Dot(held, a, b)

        return accumulate(self.values, self.product.k, segments(lo, count, self.t.k), start, step)

    def _row(self, t: Extent) -> dict[Letter, Extent]:
        return {} if self.frame.row is None else {self.frame.row: t * self.t.rows + self.at_row + ir.axis(0)}

    def _column(self, p: Extent) -> dict[Letter, Extent]:
        return {} if self.product.column is None else {self.product.column: p * self.t.columns + ir.axis(1)}

    def _checks(self, column: bool) -> frozenset[Letter]:
        """Letters whose tiles may hang over the end: never a row, which is left to tiles of one row."""
        return frozenset({self.product.column} if column and self.product.column is not None else ())

    def result_place(self, t: Extent, nr: int, p: Extent, nc: int, checked: bool) -> Place:
        at = {**self.outer, **self._row(t), **self._column(p)}
        return Place(at, (nr, nc), self._checks(checked))

    def finish(
        self, t: Extent, nr: int, p: Extent, nc: int, checked: bool, total: ir.Tile
    ) -> list[ir.Store]:
        """Maps on a finished tile, and the stores of the outputs."""
        place = self.result_place(t, nr, p, nc, checked)
        known = Known({self.product.equation.result: total})
        return [self.store(v, place, self.values.value(v, place, known)) for v in self.plan.outputs]

    def prefetch(self, end: list[ir.Store], shape: tuple[int, int]) -> list[ir.Statement]:
        """What a tile's maps will read and write is fetched while the tile is summed."""
        written = [s.view for s in end]
        read = [load.view for s in end for load in ir.loads_in(s.tile) if load.shape == shape]
        return [ir.Prefetch(view, shape) for view in (*written, *read)]

    def store(self, v: Value, place: Place, tile: ir.Tile) -> ir.Store:
        view = self.values.view(self.memory(v), self.plan.letters.values[v], v.shape, place)
        return ir.Store(view, whole(tile, place.shape))

    # --- the nest ------------------------------------------------------------------------------------------------------
    def _nothing(self) -> ir.Kernel:
        """The kernel of results without elements: loops that never run."""
        letters = flat(self.plan.letters.values[self.product.equation.result])
        place = Place({x: size(f"o{i}") for i, x in enumerate(letters)}, (1, 1))
        body: tuple[ir.Statement, ...] = tuple(
            self.store(v, place, ir.Constant(identity(Op.SUM, v.dtype.compute), v.dtype.compute, (1, 1)))
            for v in self.plan.outputs
        )
        for i, x in reversed(list(enumerate(letters))):
            body = (ir.Parallel(f"o{i}", 0, self.size[x], 1, body),)
        return kernel(self.plan, body, {})

    def kernels(self) -> list[ir.Kernel]:
        if any(self.size[x] == 0 for x in flat(self.plan.letters.values[self.product.equation.result])):
            return [self._nothing()]
        row_tiles, panels = tile_count(self.rows, self.t.rows), tile_count(self.columns, self.t.columns)
        block, t_lo, t_hi = self._block("rb", row_tiles, self.t.row_tiles)
        column_block, p_lo, p_hi = self._block("cb", panels, self.t.panels)
        fast = self.product.k[-1] if self.product.k else None
        depth: Extent = 0 if fast is None else self.size[fast]
        pieces = (
            -(-depth // self.t.depth)
            if isinstance(depth, int) and depth > 3 * self.t.depth // 2 and len(self.product.k) == 1
            else 1
        )
        zero = identity(Op.SUM, self.dtype)

        def nest(tile: Callable[[Extent, int, Extent, int, bool], list]) -> tuple[ir.Statement, ...]:
            def across(t: Extent, nr: int, _: bool) -> tuple[ir.Statement, ...]:
                return panels_of(lambda p, nc, over: tuple(tile(t, nr, p, nc, over)))

            def panels_of(body: TileBody) -> tuple[ir.Statement, ...]:
                return tiles_along(self.columns, self.t.columns, p_lo, p_hi, self.values.name("p"), body)

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
                place = self.result_place(t, nr, p, nc, checked)
                pair = (self.values.operand(self.product.equation, i, place, Known({})) for i in (0, 1))
                return self.finish(t, nr, p, nc, checked, ir.Map("mul", tuple(pair), self.dtype))
            body, total = self.sums(t, nr, p, nc, checked, start, 0, depth)
            end = self.finish(t, nr, p, nc, checked, total)
            return [*self.prefetch(end, (nr, nc)), *body, *end]

        if self.sums_wait:
            body = self._in_pieces(nest, 0, PIECE, depth, row_tiles, panels)
        elif pieces == 1:
            body = nest(complete)
        else:
            piece = -(-depth // (pieces * self.t.k)) * self.t.k
            body = self._in_pieces(nest, piece, piece, depth, row_tiles, panels)
        if self.few_rows is not None:
            packed, self.b_packed = self.b_packed, None
            few = ir.Map("le", (ir.Scalar(self.rows, dt.i64), ir.Constant(self.few_rows, dt.i64)), dt.bool_)
            body = (ir.If(few, nest(complete)), ir.If(ir.Map("not", (few,), dt.bool_), body))
            self.b_packed = packed
        for wrap in (column_block, block):
            body = (wrap(body),) if wrap else body
        for i, x in reversed(list(enumerate(self.frame.outer))):
            body = (ir.Parallel(f"o{i}", 0, self.size[x], 1, body),)
        if len(body) != 1 or not isinstance(body[0], ir.Parallel):
            body = (ir.Parallel("one", 0, 1, 1, body),)
        schedule = {"rows": self.t.rows, "columns": self.t.columns, "k": self.t.k, "row_tiles": self.t.row_tiles,
                    "panels": self.t.panels, "pieces": pieces}  # fmt: skip
        return [*self.packing, kernel(self.plan, body, schedule)]

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
        if self.frame.row is None:
            return body(0, 1, False)
        index = self.values.name("t")
        if not isinstance(self.rows, Size):
            return tiles_along(self.rows, self.t.rows, lo, hi, index, body)
        full = self.rows // self.t.rows
        whole_tiles = ir.Stream(index, lo, minimum(hi, full), 1, body(size(index), self.t.rows, False))
        self.at_row = size(self.values.name("r"))  # what is left: row by row, since checks would cost more
        one = ir.Stream(str(self.at_row), 0, self.rows - full * self.t.rows, 1, body(size(index + "r"), 1, False))
        self.at_row = 0
        return (whole_tiles, ir.Stream(index + "r", maximum(lo, full), hi, 1, (one,)))

    def _in_pieces(self, nest: Nest, first: int, piece: int, depth: Extent, row_tiles: Extent, panels: Extent
                   ) -> tuple[ir.Statement, ...]:  # fmt: skip
        """K in pieces, the first of `first` positions: the partial sums of a block wait in near memory."""
        last = floordiv(depth - 1, piece) * piece if first else floordiv(depth, piece) * piece
        height = min(self.t.row_tiles, row_tiles) if isinstance(row_tiles, int) else self.t.row_tiles
        width = min(self.t.panels, panels) if isinstance(panels, int) else self.t.panels
        near = ir.Near(self.values.name("partial"), self.dtype, (height, width, self.t.rows, self.t.columns))

        def at(t: Extent, p: Extent) -> tuple[Extent, ...]:
            return (t % height, p % width, self.at_row + ir.axis(0), ir.axis(1))  # blocks start at multiples of these

        def load(t: Extent, p: Extent, nr: int, nc: int) -> ir.Tile:
            return ir.Load(ir.View(near, at(t, p)), (nr, nc))

        def clear(t: Extent, nr: int, p: Extent, nc: int, checked: bool) -> list[ir.Statement]:
            zero = ir.Constant(identity(Op.SUM, self.dtype), self.dtype, (nr, nc))
            body, total = self.sums(t, nr, p, nc, checked, zero, 0, first)
            return [*body, ir.Put(near, at(t, p), total)]

        def add(t: Extent, nr: int, p: Extent, nc: int, checked: bool) -> list[ir.Statement]:
            body, total = self.sums(t, nr, p, nc, checked, load(t, p, nr, nc), size("kb"), piece)
            return [*body, ir.Put(near, at(t, p), total)]

        def end(t: Extent, nr: int, p: Extent, nc: int, checked: bool) -> list[ir.Statement]:
            body, total = self.sums(t, nr, p, nc, checked, load(t, p, nr, nc), last, depth - last)
            return [*body, *self.finish(t, nr, p, nc, checked, total)]

        middle = () if last == first else (ir.Stream("kb", first, last, piece, nest(add)),)
        return (near, *nest(clear), *middle, *nest(end))
