"""One register tile of a product: its operands in place or packed, its sum along k, the maps on it, the stores.

In:  a DotPlan of one product, the target, the memory of inputs and outputs.  Out: ProductTile: statements for the tile of
row tile t and column panel p; kernels that pack operands, which run first.
An operand whose vectors would not be contiguous, or that many row tiles read again, is packed into panels (schedule/packing.py).
Read before: schedule/packing.py, schedule/register_tile.py. Read next: schedule/dots.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kdsl.ir import loops as ir
from kdsl.ir.dot_frame import Product
from kdsl.ir.frame import DotPlan, Letter
from kdsl.ir.sizes import Extent, Size, minimum, size
from kdsl.ir.tensor import Value
from kdsl.schedule.dot_values import Known, Memory, Place, Values
from kdsl.schedule.packing import Packed, pack
from kdsl.schedule.register_tile import Tiling, accumulate, choose_tiling, segments, whole
from kdsl.target import Target

FEW_TILES = 4  # packing for so few row tiles does not pay
BLOCKS = 16  # wanted at least, so that threads share a product evenly
NEAR_PANELS = 64 * 1024  # bytes of b that stay near
THIN = 64  # rows or columns: few read what packing would lay anew


class ProductTile:
    """The register tile of one product. Names: r, c are the first row and column of a tile; t, p their numbers."""

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
        self.outer: dict[Letter, Extent] = {x: size(f"o{i}") for i, x in enumerate(self.frame.outer)}
        self.packing: list[ir.Kernel] = []
        # row tiles that a panel of a holds: whole vectors, where that can be told
        self.group = 4 if isinstance(self.rows, int) else 1
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
        loads = [load for s in end for load in ir.loads_in(s.tile)] if shape[0] > 1 else []  # one row may be a bias
        read = [load.view for load in loads if load.shape == shape]
        return [ir.Prefetch(view, shape) for view in (*written, *read)]

    def store(self, v: Value, place: Place, tile: ir.Tile) -> ir.Store:
        view = self.values.view(self.memory(v), self.plan.letters.values[v], v.shape, place)
        return ir.Store(view, whole(tile, place.shape))
