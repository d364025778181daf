"""What a strip kernel reads and where its line values wait: packed operands, strips, rows computed ahead.

In:  a DotPlan with a line, the memory of values, the target.  Out: a base for the nest (schedule/chain.py): tiles of
operands, strips to put line values in, stores of outputs.
Read before: schedule/dots.py. Read next: schedule/chain.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kdsl.ir import loops as ir
from kdsl.ir.dot_frame import DotFrame, Product
from kdsl.ir.frame import DotPlan, Letter
from kdsl.ir.sizes import Extent, size
from kdsl.ir.tensor import Value
from kdsl.schedule.dot_values import Known, Memory, Place, Values
from kdsl.schedule.packing import Packed, along, pack, row_major, tile_count
from kdsl.schedule.register_tile import Tiling, choose_tiling, whole
from kdsl.target import Target


class StripMemory:
    """Operands and strips of one kernel. t, p are the numbers of the row tile and of a panel."""

    nr: int  # rows of the tile that is being written out
    tile_number: Extent
    checked: bool  # may the tile hang over the last row?

    def __init__(
        self, plan: DotPlan, memory: Callable[[Value], Memory], target: Target, tiling: Tiling | None
    ) -> None:
        self.plan, self.memory, self.values = plan, memory, Values(plan, memory)
        self.frame: DotFrame = plan.frame
        self.size = plan.letters.size
        self.line: Letter = self.frame.line  # type: ignore[assignment]
        self.length: Extent = self.size[self.line]
        self.row = self.frame.row
        self.rows: Extent = 1 if self.row is None else self.size[self.row]
        widest = max((p.equation.result.dtype.compute for p in self.frame.products), key=lambda d: d.bytes)
        self.t = tiling or choose_tiling(target, widest, self.rows, self.length)
        if self.t.columns % self.t.k:  # a cut ends at a panel, and a step along k must not reach beyond it
            self.t = replace(self.t, k=self.t.columns)
        self.outer: dict[Letter, Extent] = {x: size(f"o{i}") for i, x in enumerate(self.frame.outer)}
        self.producers = [p for p in self.frame.products if p.column == self.line]
        self.consumers = [p for p in self.frame.products if p.column != self.line]
        self.packing: list[ir.Kernel] = []
        self.packed: dict[Product, Packed | None] = {p: self._pack(p) for p in self.frame.products}
        self.known = isinstance(self.length, int)
        width = (
            tile_count(self.length, self.t.columns) * self.t.columns + target.lanes(4) * 2
        )  # rows in different cache sets
        self.strips: dict[Value, ir.Near | ir.Buffer] = {
            v: self._strip(i, v, width) for i, v in enumerate(self.frame.strips)
        }
        self.near_rows = {p: ir.Near(f"rows{i}", p.equation.result.dtype.compute, (self.t.rows, self.size[p.k[-1]]))
                          for i, p in enumerate(self.producers) if self._computed(p)}  # fmt: skip

    # --- operands ------------------------------------------------------------------------------------------------------
    def _strip(self, number: int, v: Value, width: Extent) -> ir.Near | ir.Buffer:
        """Where a line value waits: near memory, or, where the line's extent is not known, one strip for each outer step."""
        if isinstance(width, int):
            return ir.Near(f"strip{number}", v.dtype.compute, (self.t.rows, width))
        shape = (*(self.size[x] for x in self.frame.outer), self.t.rows, width)
        return ir.Buffer(
            f"{self.plan.name}_strip{number}", v.dtype.compute, shape, row_major(shape), "temporary"
        )

    def strip_view(self, v: Value, column: Extent) -> ir.View:
        strip = self.strips[v]
        outer = () if isinstance(strip, ir.Near) else tuple(self.outer[x] for x in self.frame.outer)
        return ir.View(strip, (*outer, ir.axis(0), column))

    def put(self, v: Value, column: Extent, tile: ir.Tile) -> ir.Statement:
        view = self.strip_view(v, column)
        return (
            ir.Put(view.memory, view.index, tile)
            if isinstance(view.memory, ir.Near)
            else ir.Store(view, tile)
        )

    def _stored(self, p: Product, operand: int, letter: Letter | None) -> Extent | None:
        """The stride along a letter of an operand that lies in memory; None if it is computed or has none."""
        at = {x: (ir.axis(0) if x == letter else size(f"at{x}")) for x in self.size}
        tile = self.values.operand(p.equation, operand, Place(at, (8, 8)), Known({}))
        return self.values.stride(tile.view, 0) if isinstance(tile, ir.Load) else None

    def _pack(self, p: Product) -> Packed | None:
        if p.column is None or not p.k or any(self.size[x] == 0 for x in p.k):
            return None
        tiles = tile_count(self.rows, self.t.rows)
        if self._stored(p, p.b, p.column) == 1 and isinstance(tiles, int) and tiles <= 4:
            return None
        kernel_, packed = pack(self.values, p.equation, p.b, p.column, p.k, self.t.columns)
        self.packing.append(kernel_)
        return packed

    def _computed(self, p: Product) -> bool:
        """Is the operand with the rows computed? Then it is, once for each row tile, before the line is walked."""
        return len(p.k) == 1 and isinstance(self.size[p.k[0]], int) and self._stored(p, p.a, p.k[0]) is None

    def compute_rows(self, p: Product) -> list[ir.Statement]:
        def fill(first: Extent, n: int) -> tuple[ir.Statement, ...]:
            tile = self.values.operand(
                p.equation, p.a, self.place({p.k[0]: first + ir.axis(1)}, n), Known({})
            )
            return (ir.Put(self.near_rows[p], (ir.axis(0), first + ir.axis(1)), whole(tile, (self.nr, n))),)

        return list(along(self.size[p.k[0]], self.t.columns, self.values.name("k"), fill))

    def b_tile(self, p: Product, panel: Extent, place: Place) -> ir.Tile:
        packed = self.packed[p]
        if packed is None:
            return whole(self.values.operand(p.equation, p.b, place, Known({})), place.shape)
        return whole(self.values.load(packed.view(place, panel, ir.axis(1)), place), place.shape)

    def _row(self, t: Extent) -> dict[Letter, Extent]:
        return {} if self.row is None else {self.row: t * self.t.rows + ir.axis(0)}

    def place(
        self, at: dict[Letter, Extent], columns: int, checked: frozenset[Letter] = frozenset()
    ) -> Place:
        rows = frozenset({self.row}) if self.checked and self.row is not None else frozenset()
        return Place({**self.outer, **self._row(self.tile_number), **at}, (self.nr, columns), rows | checked)

    def store(self, v: Value, place: Place, tile: ir.Tile) -> ir.Store:
        view = self.values.view(self.memory(v), self.plan.letters.values[v], v.shape, place)
        return ir.Store(view, whole(tile, place.shape))
