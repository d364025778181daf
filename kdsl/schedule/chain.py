"""Products, folds and maps along a line -> a nest that keeps the line of a few rows in strips near the core.

In:  a DotPlan with a line.  Out: packing kernels, then one kernel.

    Parallel outer …, blocks of row tiles
        Stream row tile
            for each pass: walk along the line within the cut (schedule/line_pass.py): producers, maps, strips, folds
            row values; then each consumer: Stream panels of its columns { Stream line: Dot(strip, stored)   maps   Store }

Nothing as large as rows x line is stored far away.
Read before: schedule/line_pass.py, ir/dot_frame.py. Read next: schedule/program.py.
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
from kdsl.schedule.line_pass import LinePass
from kdsl.schedule.packing import tile_count, tiles_along
from kdsl.schedule.register_tile import Segment, Tiling, accumulate, segments
from kdsl.target import Target

RENAMES = (Op.BROADCAST, Op.PERMUTE, Op.RESHAPE)


def schedule_chain(
    plan: DotPlan, memory: Callable[[Value], Memory], target: Target, tiling: Tiling | None = None
) -> list[ir.Kernel]:
    """The kernels of a strip plan, in launch order."""
    return _Strip(plan, memory, target, tiling).kernels()


class _Strip(LinePass):
    """The nest of a strip."""

    # --- the nest ------------------------------------------------------------------------------------------------------
    def kernels(self) -> list[ir.Kernel]:
        row_tiles = tile_count(self.rows, self.t.rows)
        block = max(1, 48 // self.t.rows)
        if self.row is None:
            body = tuple(self.row_tile(0, 1, False))
        elif not self.known:
            body = tiles_along(
                self.rows,
                self.t.rows,
                0,
                row_tiles,
                "t",
                lambda t, nr, checked: tuple(self.row_tile(t, nr, checked)),
            )
        else:
            body = tiles_along(self.rows, self.t.rows, size("rb"), minimum(size("rb") + block, row_tiles), "t",
                               lambda t, nr, checked: tuple(self.row_tile(t, nr, checked)))  # fmt: skip
            body = (ir.Parallel("rb", 0, row_tiles, block, body),)
        nears = tuple(
            dict.fromkeys(
                x
                for x in (*self.strips.values(), *self.near_rows.values(), *self.fold_rows.values())
                if isinstance(x, ir.Near)
            )
        )
        body = self._with_nears(body, nears)
        for i, x in reversed(list(enumerate(self.frame.outer))):
            body = (ir.Parallel(f"o{i}", 0, self.size[x], 1, body),)
        if len(body) != 1 or not isinstance(body[0], ir.Parallel):
            body = (ir.Parallel("one", 0, 1, 1, body),)
        schedule = {"rows": self.t.rows, "columns": self.t.columns, "k": self.t.k, "row_tiles": block}
        return [
            *self.packing,
            kernel(self.plan, body, schedule),
        ]

    @staticmethod
    def _with_nears(body: tuple[ir.Statement, ...], nears: tuple[ir.Near, ...]) -> tuple[ir.Statement, ...]:
        first = body[0] if body else None
        if isinstance(first, ir.Parallel):
            return (ir.Parallel(first.index, first.lo, first.hi, first.tile, (*nears, *first.body)),)
        return (*nears, *body)

    def bounds(self, t: Extent, nr: int) -> tuple[Extent, Extent | None]:
        """Panels of the line that matter for a row tile: from; to (None: all)."""
        cut, first = self.frame.cut, t * self.t.rows
        lo: Extent = 0
        hi: Extent | None = None
        if cut is not None and cut.below is not None:
            hi = maximum(0, (first + nr - 1 + cut.below) // self.t.columns + 1)
        if cut is not None and cut.above is not None:
            lo = maximum(0, (first - cut.above) // self.t.columns)
        return lo, hi

    def row_tile(self, t: Extent, nr: int, checked: bool) -> list[ir.Statement]:
        """All passes for one tile of rows."""
        self.nr, self.tile_number, self.checked = nr, t, checked
        self.at_row, self.height = 0, nr
        self.row_values = {}
        out: list[ir.Statement] = []
        self.lo, self.hi = self.bounds(t, nr)
        for p in self.near_rows:
            out += self.compute_rows(p)
        for k in range(self.frame.passes):
            out += self.line_pass(k)
            for p in self.consumers:
                if self.frame.when[p.equation.result] == k:
                    out += self.consumer(p, k)
        return out + self.row_outputs()

    def consumer(self, p: Product, k: int) -> list[ir.Statement]:
        """A product that sums the strip, its maps and its outputs, panel by panel of its columns."""
        dtype: DType = p.equation.result.dtype.compute
        strip = self._strip_of(p)
        columns: Extent = 1 if p.column is None else self.size[p.column]
        outputs = [v for v in self.plan.outputs if self._behind(v, p)]

        def panel(number: Extent, nc: int, checked: bool) -> tuple[ir.Statement, ...]:
            column = {} if p.column is None else {p.column: number * self.t.columns + ir.axis(1)}
            edge = frozenset({p.column}) if checked and p.column is not None else frozenset()

            def step(
                slow: dict[Letter, Extent], fast: Letter, first: Extent, n: int, held: ir.Tile
            ) -> ir.Dot:
                a = ir.Load(self.strip_view(strip, first + ir.axis(1)), (self.nr, n))
                place = Place({**self.outer, **column, self.line: first + ir.axis(0)}, (n, nc), edge)
                return ir.Dot(held, a, self.b_tile(p, number, place))

            start = ir.Constant(identity(Op.SUM, dtype), dtype, (self.nr, nc))
            body, total = accumulate(self.values, p.k, self.line_segments(), start, step)
            place = self.place(column, nc, edge)
            known = Known({**self.row_values, p.equation.result: total})
            for v in outputs:
                body.append(self.store(v, place, self.values.value(v, place, known)))
            return tuple(body)

        return list(
            tiles_along(
                columns, self.t.columns, 0, tile_count(columns, self.t.columns), self.values.name("c"), panel
            )
        )

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

    def _behind(self, v: Value, p: Product) -> bool:
        todo, seen = [v], set()
        while todo:
            x = todo.pop()
            if x is p.equation.result:
                return True
            if x in self.values.made and x not in seen:
                seen.add(x)
                todo.extend(self.values.made[x].values)
        return False

    def row_outputs(self) -> list[ir.Statement]:
        """Outputs that have the rows alone."""
        have = {*self.frame.outer, self.row} - {None}
        out: list[ir.Statement] = []
        place = self.place({}, 1)
        for v in self.plan.outputs:
            if set(flat(self.plan.letters.values[v])) <= have and not any(
                self._behind(v, p) for p in self.consumers
            ):
                out.append(self.store(v, place, self.values.value(v, place, Known(self.row_values))))
        return out

