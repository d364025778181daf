"""Products, folds and maps along a line -> a nest that keeps the line of a few rows in strips near the core.

In:  a DotPlan with a line.  Out: packing kernels, then one kernel.

    Parallel outer …, blocks of row tiles
        Stream row tile
            for each pass: Stream panels of the line within the cut {
                producers: Stream k: Dot      maps      Put into strips      folds: carried tiles, one vector wide sum
            }
            row values; then each consumer: Stream panels of its columns { Stream line: Dot(strip, stored)   maps   Store }

Nothing as large as rows x line is stored far away.
Read before: schedule/strips.py, ir/dot_frame.py. Read next: schedule/program.py.
"""

from __future__ import annotations

from collections.abc import Callable

import kdsl.dtypes as dt
from kdsl.dtypes import DType
from kdsl.ir import loops as ir
from kdsl.ir.dot_frame import Product
from kdsl.ir.frame import DotPlan, Letter, flat
from kdsl.ir.ops import REDUCTIONS, Op
from kdsl.ir.rules import identity
from kdsl.ir.sizes import Extent, maximum, minimum, size
from kdsl.ir.tensor import Equation, Value
from kdsl.schedule.dot_values import Known, Memory, Place
from kdsl.schedule.kernels import kernel
from kdsl.schedule.packing import tile_count, tiles_along
from kdsl.schedule.register_tile import Segment, Tiling, accumulate, segments, whole
from kdsl.schedule.strips import StripMemory
from kdsl.target import Target

COMBINE = {Op.SUM: "add", Op.PROD: "mul", Op.MAX: "maximum", Op.MIN: "minimum", Op.ANY: "or", Op.ALL: "and"}
RENAMES = (Op.BROADCAST, Op.PERMUTE, Op.RESHAPE)


def schedule_chain(
    plan: DotPlan, memory: Callable[[Value], Memory], target: Target, tiling: Tiling | None = None
) -> list[ir.Kernel]:
    """The kernels of a strip plan, in launch order."""
    return _Strip(plan, memory, target, tiling).kernels()


class _Strip(StripMemory):
    """The nest of a strip."""

    # --- the nest ------------------------------------------------------------------------------------------------------
    def kernels(self) -> list[ir.Kernel]:
        row_tiles = tile_count(self.rows, self.t.rows)
        block = max(1, 48 // self.t.rows)
        checked = not isinstance(self.rows, int)
        if self.row is None:
            body = tuple(self.row_tile(0, 1, False))
        elif not self.known:
            body = tiles_along(
                self.rows,
                self.t.rows,
                0,
                row_tiles,
                "t",
                lambda t, nr, _: tuple(self.row_tile(t, nr, checked)),
            )
        else:
            body = tiles_along(self.rows, self.t.rows, size("rb"), minimum(size("rb") + block, row_tiles), "t",
                               lambda t, nr, _: tuple(self.row_tile(t, nr, checked)))  # fmt: skip
            body = (ir.Parallel("rb", 0, row_tiles, block, body),)
        nears = tuple(x for x in self.strips.values() if isinstance(x, ir.Near)) + tuple(
            self.near_rows.values()
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

    def upto(self, limit: Extent) -> Extent:
        """The panel where the walk along the line ends, at most `limit`."""
        return limit if self.hi is None else minimum(self.hi, limit)

    def row_tile(self, t: Extent, nr: int, checked: bool) -> list[ir.Statement]:
        """All passes for one tile of rows."""
        self.nr, self.tile_number, self.checked = nr, t, checked
        self.row_values: dict[Value, ir.Tile] = {}
        self.inner = Known({})
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

    def row_known(self) -> dict[Value, ir.Tile]:
        return dict(self.row_values)

    def line_pass(self, k: int) -> list[ir.Statement]:
        """Pass k along the line: products, strips, folds, outputs on the line."""
        when = self.frame.when
        made = [p for p in self.producers if when[p.equation.result] == k]
        puts = [v for v in self.frame.strips if when[v] == k]
        folds = [e for e in self.plan.equations if e.op in REDUCTIONS and when[e.result] == k + 1]
        stores = [
            v for v in self.plan.outputs if self.line in flat(self.plan.letters.values[v]) and when[v] == k
        ]
        if not (made or puts or folds or stores):
            return []
        out: list[ir.Statement] = []
        columns = self.t.columns
        acc = {e: self.values.name("fold") for e in folds}
        start = {
            e: ir.Constant(identity(e.op, e.result.dtype), e.result.dtype.compute, (self.nr, columns))
            for e in folds
        }
        rests: dict[Equation, list[ir.Tile]] = {e: [] for e in folds}
        full = self.length // columns

        def panel(p: Extent, nc: int, carried: bool) -> tuple[list[ir.Statement], tuple[ir.Carry, ...]]:
            edge = frozenset() if carried or self.known else frozenset({self.line})
            place = self.place({self.line: p * columns + ir.axis(1)}, nc, edge)
            known = Known(self.row_known())
            body: list[ir.Statement] = []
            for q in made:
                statements, tile = self.product(q, p, nc)
                body += statements
                known[q.equation.result] = tile
            for v in self.strips:
                if when[v] < k:
                    known[v] = ir.Load(self.strip_view(v, p * columns + ir.axis(1)), (self.nr, nc))

            def kept(v: Value) -> ir.Tile:
                """A value that several want is named once."""
                tile = whole(self.values.value(v, place, known), (self.nr, nc))
                if not isinstance(tile, ir.Name):
                    name = self.values.name("v")
                    body.append(ir.Let(name, tile))
                    tile = ir.Name(name, tile.shape, tile.dtype)
                    known[v] = tile
                    known.forget()
                return tile

            for v in puts:
                body.append(self.put(v, p * columns + ir.axis(1), kept(v)))
            for v in stores:
                body.append(self.store(v, place, kept(v)))
            carries = []
            for e in folds:
                tile = whole(self.values.operand(e, 0, place, known), (self.nr, nc))
                if carried:
                    held = ir.Name(acc[e], (self.nr, columns), e.result.dtype.compute)
                    carries.append(
                        ir.Carry(acc[e], start[e], ir.Map(COMBINE[e.op], (held, tile), held.dtype))
                    )
                else:
                    name = self.values.name("rest")
                    rests[e].append(ir.Name(name, (self.nr, 1), tile.dtype))
                    if edge:  # what lies beyond the line counts as nothing
                        inside = ir.Map(
                            "lt",
                            (ir.Index(1, (1, nc), dt.i64), ir.Scalar(self.length - p * columns, dt.i64)),
                            dt.bool_,
                        )
                        tile = ir.Map(
                            "where",
                            (inside, tile, ir.Constant(identity(e.op, e.result.dtype), tile.dtype)),
                            tile.dtype,
                        )
                    body.append(ir.Let(name, ir.Fold(_MONOID[e.op], tile, 1)))
            return body, tuple(carries)

        if full != 0:
            index = self.values.name("p")
            body, carries = panel(size(index), columns, True)
            out.append(ir.Stream(index, self.lo, self.upto(full), 1, tuple(body), carries))
        rest = self.length - full * columns
        if isinstance(rest, int) and rest and self.frame.cut is None:
            body, _ = panel(full, rest, False)
            out += body
        elif rest != 0:
            index = self.values.name("p")
            body, _ = panel(size(index), rest if isinstance(rest, int) else columns, False)
            body, carries = self._rest_as_carries(body, folds, rests)
            out.append(
                ir.Stream(
                    index,
                    maximum(self.lo, full),
                    self.upto(tile_count(self.length, columns)),
                    1,
                    tuple(body),
                    carries,
                )
            )
        for e in folds:
            parts: list[ir.Tile] = list(rests[e])
            if full != 0:
                parts.insert(
                    0, ir.Fold(_MONOID[e.op], ir.Name(acc[e], (self.nr, columns), e.result.dtype.compute), 1)
                )
            value = parts[0]
            for other in parts[1:]:
                value = ir.Map(COMBINE[e.op], (value, other), value.dtype)
            name = self.values.name("row")
            out.append(ir.Let(name, value))
            self.row_values[e.result] = ir.Name(name, (self.nr, 1), value.dtype)
        return out

    def _rest_as_carries(self, body: list[ir.Statement], folds: list[Equation], rests: dict[Equation, list[ir.Tile]]
                         ) -> tuple[list[ir.Statement], tuple[ir.Carry, ...]]:  # fmt: skip
        """The last, partial panel of a line that is cut may not run at all: its folds are carried out of its loop."""
        carries = []
        for e in folds:
            (inside,) = rests[e]
            name = self.values.name("rest")
            held = ir.Name(name, (self.nr, 1), inside.dtype)
            start = ir.Constant(identity(e.op, e.result.dtype), inside.dtype, (self.nr, 1))
            carries.append(ir.Carry(name, start, ir.Map(COMBINE[e.op], (held, inside), inside.dtype)))
            rests[e] = [held]
        return body, tuple(carries)

    def product(self, p: Product, panel: Extent, nc: int) -> tuple[list[ir.Statement], ir.Tile]:
        """A producer's tile at a panel of the line."""
        dtype: DType = p.equation.result.dtype.compute
        start = ir.Constant(identity(Op.SUM, dtype), dtype, (self.nr, nc))
        if not p.k:
            place = self.place({self.line: panel * self.t.columns + ir.axis(1)}, nc)
            pair = tuple(self.values.operand(p.equation, i, place, Known({})) for i in (0, 1))
            return [], whole(ir.Map("mul", pair, dtype), (self.nr, nc))

        def step(slow: dict[Letter, Extent], fast: Letter, first: Extent, n: int, held: ir.Tile) -> ir.Dot:
            here = self.place({**slow, fast: first + ir.axis(1)}, n)
            if p in self.near_rows:
                a: ir.Tile = ir.Load(
                    ir.View(self.near_rows[p], (ir.axis(0), first + ir.axis(1))), (self.nr, n)
                )
            else:
                a = whole(self.values.operand(p.equation, p.a, here, Known({})), (self.nr, n))
            beyond = frozenset() if self.known else frozenset({self.line})
            there = Place(
                {
                    **self.outer,
                    **slow,
                    self.line: panel * self.t.columns + ir.axis(1),
                    fast: first + ir.axis(0),
                },
                (n, nc),
                beyond,
            )
            return ir.Dot(held, a, self.b_tile(p, panel, there))

        return accumulate(self.values, p.k, segments(0, self.size[p.k[-1]], self.t.k), start, step)

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
            known = Known({**self.row_known(), p.equation.result: total})
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

    def _strip_of(self, p: Product) -> Value:
        v = p.equation.operands[p.a]
        assert isinstance(v, Value)
        while v not in self.strips:
            e = self.values.made[v]
            assert e.op in RENAMES
            v = e.values[0]
        return v

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
                out.append(self.store(v, place, self.values.value(v, place, Known(self.row_known()))))
        return out


_MONOID: dict[Op, str] = {
    Op.SUM: "sum",
    Op.PROD: "prod",
    Op.MAX: "max",
    Op.MIN: "min",
    Op.ANY: "any",
    Op.ALL: "all",
}
