"""Products, folds and maps along a line -> a nest that keeps the line of a group of rows in strips near the core.

In:  a DotPlan with a line.  Out: packing kernels, then one kernel.

    Parallel outer …, blocks of rows
        Stream group of rows (24)
            copy the rows of operands near (schedule/strips.py)
            Stream panels of the line within the cut, Stream register tiles: strip = Dot(rows, panel)
            Stream register tiles
                Stream rows: the passes along the line (schedule/line_pass.py)
                each consumer: Stream panels of its columns { Stream line: Dot(strip, stored)   maps   Store }
            each product that sums the rows: add to its sums (schedule/row_sums.py)

Nothing as large as rows x line is stored far away. A panel of the line is read by all tiles of the group while it is near.
Read before: schedule/line_pass.py, ir/dot_frame.py. Read next: schedule/row_sums.py.
"""

from __future__ import annotations

from collections.abc import Callable

from kdsl.dtypes import DType
from kdsl.ir import loops as ir
from kdsl.ir.dot_frame import Product
from kdsl.ir.frame import DotPlan, Letter, flat
from kdsl.ir.ops import Op
from kdsl.ir.rules import identity
from kdsl.ir.sizes import Extent, maximum, minimum, size
from kdsl.ir.tensor import Value
from kdsl.schedule.dot_values import Known, Memory, Place
from kdsl.schedule.kernels import kernel
from kdsl.schedule.packing import tile_count, tiles_along
from kdsl.schedule.register_tile import Segment, Tiling, accumulate, segments, whole
from kdsl.schedule.row_sums import RowSums
from kdsl.target import Target

BLOCK_ROWS = 48  # rows of one iteration of the grid


def schedule_chain(
    plan: DotPlan, memory: Callable[[Value], Memory], target: Target, tiling: Tiling | None = None
) -> list[ir.Kernel]:
    """The kernels of a strip plan, in launch order."""
    return _Strip(plan, memory, target, tiling).kernels()


class _Strip(RowSums):
    """The nest of a strip."""

    # --- the nest ------------------------------------------------------------------------------------------------------
    def kernels(self) -> list[ir.Kernel]:
        body = self.rows_nest()
        private = [*self.strips.values(), *self.near_rows.values(), *self.fold_rows.values(), *self.tiles.values()]
        nears = tuple(dict.fromkeys(x for x in private if isinstance(x, ir.Near)))
        if body and isinstance(body[0], ir.Parallel):
            (rows,) = body
            body = (ir.Parallel(rows.index, rows.lo, rows.hi, rows.tile, (*nears, *rows.body)),)
        else:
            body = (*nears, *body)
        for i, x in reversed(list(enumerate(self.frame.outer))):
            body = (ir.Parallel(f"o{i}", 0, self.size[x], 1, body),)
        if len(body) != 1 or not isinstance(body[0], ir.Parallel):
            body = (ir.Parallel("one", 0, 1, 1, body),)
        schedule = {"rows": self.t.rows, "columns": self.t.columns, "k": self.t.k, "group": self.group}
        return [*self.packing, kernel(self.plan, body, schedule)]

    def rows_nest(self) -> tuple[ir.Statement, ...]:
        """All groups of rows: side by side in blocks, unless sums or memory of the program make them wait for each other."""
        if isinstance(self.rows, int) and 0 < self.rows <= self.group_rows:
            return (*self.clear(), *self.rows_of_group(), *self.finish())
        self.first = size("g")
        block = max(1, BLOCK_ROWS // self.group_rows) * self.group_rows
        serial = self.gathered or any(isinstance(m, ir.Buffer) for m in (*self.strips.values(), *self.near_rows.values()))
        group = tuple(self.rows_of_group())
        if serial:
            return (*self.clear(), ir.Stream("g", 0, self.rows, self.group_rows, group), *self.finish())
        walk = ir.Stream("g", size("rb"), minimum(size("rb") + block, self.rows), self.group_rows, group)
        return (ir.Parallel("rb", 0, self.rows, block, (walk,)),)

    def rows_of_group(self) -> list[ir.Statement]:
        """Everything for the rows of a group."""
        self.height, self.at_row = self.t.rows, 0
        self.lo, self.hi = self.bounds(self.first, self.group_rows)
        out = [*self.copy_rows(), *self.line_products()]
        s = self.values.name("s")
        tile = size(s) if self.group > 1 else 0
        body = self.register_tile(tile)
        out += [ir.Stream(s, 0, self.tiles_here(), 1, tuple(body))] if self.group > 1 else body
        self.lo, self.hi = self.bounds(self.first, self.group_rows)
        for p in self.gathered:
            out += self.add(p)
        return out

    # --- products that make the line --------------------------------------------------------------------------------------
    def line_products(self) -> list[ir.Statement]:
        """The strips of all products, panel by panel of the line."""
        s = self.values.name("s")
        tile = size(s) if self.group > 1 else 0
        self.at_row = tile * self.t.rows

        def tiles(panel: Extent, products: list[Product], nc: int, edge: frozenset[Letter]) -> tuple[ir.Statement, ...]:
            body: list[ir.Statement] = []
            for p in products:
                statements, total = self.product(p, panel, nc, edge)
                view = self.strip_view(p.equation.result, panel * self.t.columns + ir.axis(1))
                body += [*statements, self.put(view, total)]
            lo, hi = self.tiles_that_meet(panel)
            if self.group == 1 or not body:
                return tuple(body)
            return (ir.Stream(s, lo, hi, 1, tuple(body)),)

        def walk(lo: Extent, hi: Extent, products: list[Product], nc: int, edge: frozenset[Letter]) -> list[ir.Statement]:
            p = self.values.name("p")
            return [ir.Stream(p, lo, hi, 1, tiles(size(p), products, nc, edge))] if products else []

        columns, whole_panels = self.t.columns, self.length // self.t.columns
        every = tile_count(self.length, columns)
        packed = [p for p in self.producers if self.packed.get(p) is not None]
        others = [p for p in self.producers if p not in packed]
        out = walk(self.lo, self.upto(every), packed, columns, frozenset())
        if others:
            out += walk(self.lo, self.upto(whole_panels), others, columns, frozenset())
            rest = self.length - whole_panels * columns
            edge = frozenset() if self.known else frozenset({self.line})
            if rest != 0:
                n = rest if isinstance(rest, int) else columns
                out += walk(maximum(self.lo, whole_panels), self.upto(every), others, n, edge)
        return out

    def product(self, p: Product, panel: Extent, nc: int, edge: frozenset[Letter]) -> tuple[list[ir.Statement], ir.Tile]:
        """The tile of a product at a panel of the line."""
        dtype: DType = p.equation.result.dtype.compute
        line = {self.line: panel * self.t.columns + ir.axis(1)}
        start = ir.Constant(identity(Op.SUM, dtype), dtype, (self.height, nc))
        if any(self.size[x] == 0 for x in p.k):
            return [], start
        if not p.k:
            checks = edge | (frozenset({self.row}) if self.edge and self.row is not None else frozenset())
            place = self.place(line, nc, checks)
            pair = tuple(self.values.operand(p.equation, i, place, Known({})) for i in (0, 1))
            return [], whole(ir.Map("mul", pair, dtype), (self.height, nc))

        def step(slow: dict[Letter, Extent], fast: Letter, first: Extent, n: int, held: ir.Tile) -> ir.Dot:
            view = self.private_view(
                self.near_rows[p, p.a], self.at_row + ir.axis(0), *(slow[x] for x in p.k[:-1]), first + ir.axis(1)
            )
            there = Place({**self.outer, **slow, **line, fast: first + ir.axis(0)}, (n, nc), edge)
            return ir.Dot(held, ir.Load(view, (self.height, n)), self.b_tile(p, panel, there))

        return accumulate(self.values, p.k, segments(0, self.size[p.k[-1]], self.t.k), start, step)

    # --- one register tile ---------------------------------------------------------------------------------------------------
    def register_tile(self, s: Extent) -> list[ir.Statement]:
        """The passes of each row of tile s, then the products that sum its strips."""
        rows, height = self.rows_of_tile(s), self.t.rows
        self.lo, self.hi = self.bounds(self.first + s * height, height)
        r = self.values.name("r")
        self.in_tile = size(r) if height > 1 else 0
        self.height, self.at_row = 1, s * height + self.in_tile
        body = [*self.passes(), *self.row_outputs()]
        out: list[ir.Statement] = [ir.Stream(r, 0, rows, 1, tuple(body))] if height > 1 else body
        if self.edge and self.consumers:
            out += self.clear_rows(s, rows)
        self.height, self.at_row = height, s * height
        for p in self.consumers:
            out += self.consumer(p, rows)
        return out

    def row_outputs(self) -> list[ir.Statement]:
        """Outputs that have the rows alone."""
        have = {*self.frame.outer, self.row} - {None}
        place = self.place({}, 1)
        return [
            self.store(v, place, self.values.value(v, place, Known(self.row_values)))
            for v in self.plan.outputs
            if set(flat(self.plan.letters.values[v])) <= have and not any(v in self.values_behind(p) for p in self.consumers)
        ]

    def clear_rows(self, s: Extent, rows: Extent) -> list[ir.Statement]:
        """Zeros in the strips of rows beyond the last, which no pass has filled but a whole tile reads."""
        strips = dict.fromkeys(self.strip_of(p) for p in self.consumers if self.strip_of(p) not in self._raw())
        if not strips:
            return []
        r, p, columns = self.values.name("r"), self.values.name("p"), self.t.columns
        self.at_row = s * self.t.rows + size(r)
        body = tuple(
            self.put(
                self.strip_view(v, size(p) * columns + ir.axis(1)),
                ir.Constant(identity(Op.SUM, v.dtype.compute), v.dtype.compute, (1, columns)),
            )
            for v in strips
        )
        walk = ir.Stream(p, self.lo, self.upto(tile_count(self.length, columns)), 1, body)
        return [ir.Stream(r, rows, self.t.rows, 1, (walk,))]

    def _raw(self) -> set[Value]:
        return {p.equation.result for p in self.producers}

    def consumer(self, p: Product, rows: Extent) -> list[ir.Statement]:
        """A product that sums the strip, its maps and its outputs, panel by panel of its columns."""
        dtype: DType = p.equation.result.dtype.compute
        strip = self.strip_of(p)
        columns: Extent = 1 if p.column is None else self.size[p.column]
        behind = self.values_behind(p)
        outputs = [v for v in self.plan.outputs if v in behind]
        first, height = self.at_row, self.height

        def panel(number: Extent, nc: int, checked: bool) -> tuple[ir.Statement, ...]:
            column = {} if p.column is None else {p.column: number * self.t.columns + ir.axis(1)}
            edge = frozenset({p.column}) if checked and p.column is not None else frozenset()

            def step(slow: dict[Letter, Extent], fast: Letter, at: Extent, n: int, held: ir.Tile) -> ir.Dot:
                a = ir.Load(self.strip_view(strip, at + ir.axis(1)), (height, n))
                place = Place({**self.outer, **column, self.line: at + ir.axis(0)}, (n, nc), edge)
                return ir.Dot(held, a, self.b_tile(p, number, place))

            start = ir.Constant(identity(Op.SUM, dtype), dtype, (height, nc))
            body, total = accumulate(self.values, p.k, self.line_segments(), start, step)
            if not self.edge:
                return (*body, *self.store_tile(p, outputs, column, nc, edge, total, 0))
            near = self.tiles.setdefault((dtype, nc), ir.Near(self.values.name("tile"), dtype, (height, nc)))
            r = self.values.name("r")
            self.at_row, self.height = first + size(r), 1
            one = ir.Load(ir.View(near, (size(r) + ir.axis(0), ir.axis(1))), (1, nc))
            stores = self.store_tile(p, outputs, column, nc, edge, one, size(r))
            self.at_row, self.height = first, height
            return (*body, ir.Put(near, (ir.axis(0), ir.axis(1)), total), ir.Stream(r, 0, rows, 1, tuple(stores)))

        return list(
            tiles_along(
                columns, self.t.columns, 0, tile_count(columns, self.t.columns), self.values.name("c"), panel
            )
        )

    def store_tile(
        self, p: Product, outputs: list[Value], column: dict[Letter, Extent], nc: int, edge: frozenset[Letter],
        total: ir.Tile, row: Extent,
    ) -> list[ir.Statement]:  # fmt: skip
        """The outputs behind a product at the rows that are written out now; `row`: the first of them in its tile."""
        place = self.place(column, nc, edge)
        known = Known({p.equation.result: total})
        for v, near in self.fold_rows.items():
            known[v] = ir.Load(ir.View(near, (row + ir.axis(0), 0)), (self.height, 1))
        body: list[ir.Statement] = []
        self.values.name_in(body, place, known)
        for v in outputs:
            body.append(self.store(v, place, self.values.value(v, place, known)))
        return body

    def line_segments(self) -> list[Segment]:
        """The positions of the line that this row tile sums; whole panels as far as the line has whole units."""
        if self.frame.cut is None:
            return segments(0, self.length, self.t.k)
        lo = self.lo * self.t.columns
        even = self.length // self.t.k * self.t.k
        out = [Segment(lo, self.columns_upto(even), self.t.k)] if even != 0 else []
        return (
            [*out, Segment(maximum(lo, even), self.columns_upto(self.length), 1)]
            if even != self.length
            else out
        )

    def columns_upto(self, limit: Extent) -> Extent:
        return limit if self.hi is None else minimum(self.hi * self.t.columns, limit)
