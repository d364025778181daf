"""One pass along the line of a strip kernel: products, maps into strips, folds, outputs on the line.

In:  a row tile and the number of a pass.  Out: statements; row values stand ready afterwards.

    for p in panels of the line:                        light maps: on the tile that a product has just filled
        tile (6, 16) = product;  strips = maps(tile);  folds
    or
    for p: strips = product                             dear maps (exp …): row by row, so that they find registers free
    for r in rows: for p: strips[r] = maps(strips[r]);  folds

Panels where an index mask is true throughout are a loop of their own, without the mask.
Read before: schedule/strips.py. Read next: schedule/chain.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import kdsl.dtypes as dt
from kdsl.dtypes import DType
from kdsl.ir import loops as ir
from kdsl.ir.dot_frame import Product
from kdsl.ir.frame import Letter
from kdsl.ir.ops import Op
from kdsl.ir.rules import identity
from kdsl.ir.sizes import Extent, maximum, minimum, size
from kdsl.ir.tensor import Equation, Value
from kdsl.schedule.dot_values import Known, Place
from kdsl.schedule.packing import tile_count
from kdsl.schedule.register_tile import accumulate, segments, whole
from kdsl.schedule.strips import StripMemory, Work

COMBINE = {Op.SUM: "add", Op.PROD: "mul", Op.MAX: "maximum", Op.MIN: "minimum", Op.ANY: "or", Op.ALL: "and"}


@dataclass
class Walk:
    """Panels lo … hi-1 of the line; `clear`: every decided mask is true there."""

    lo: Extent
    hi: Extent
    clear: bool = False


class LinePass(StripMemory):
    """Adds the walk along the line."""

    row_values: dict[Value, ir.Tile]
    lo: Extent  # panels that matter for the row tile
    hi: Extent | None

    def upto(self, limit: Extent) -> Extent:
        """The panel where the walk along the line ends, at most `limit`."""
        return limit if self.hi is None else minimum(self.hi, limit)

    def line_pass(self, k: int) -> list[ir.Statement]:
        """Pass k for the row tile."""
        work = self.work[k]
        if work.is_empty:
            return []
        if work.products and not work.apart:
            return [*self.walk(k, work), *self.row_lets(work.folds)]
        raw = [p.equation.result for p in work.products]
        out = self.walk(k, Work(work.products, raw)) if raw else []
        rest = Work([], [v for v in work.puts if v not in raw], work.folds, work.stores, masked=work.masked)
        if self.nr == 1:
            return [*out, *self.walk(k, rest), *self.row_lets(work.folds)]
        index = self.values.name("r")
        tile_values, height = self.row_values, self.height
        self.at_row, self.height = size(index), 1
        self.row_values = {}
        body: list[ir.Statement] = []
        for v in tile_values:
            name = self.values.name("row")
            near = self.fold_rows[v]
            body.append(ir.Let(name, ir.Load(ir.View(near, (size(index) + ir.axis(0), 0)), (1, 1))))
            self.row_values[v] = ir.Name(name, (1, 1), near.dtype)
        body += self.walk(k, rest)
        self.at_row, self.height, self.row_values = 0, height, tile_values
        return [*out, ir.Stream(index, 0, self.nr, 1, tuple(body)), *self.row_lets(work.folds)]

    def row_lets(self, folds: list[Equation]) -> list[ir.Statement]:
        """The folds of all rows of the tile, side by side."""
        out: list[ir.Statement] = []
        for e in folds:
            name, near = self.values.name("row"), self.fold_rows[e.result]
            out.append(ir.Let(name, ir.Load(ir.View(near, (ir.axis(0), 0)), (self.nr, 1))))
            self.row_values[e.result] = ir.Name(name, (self.nr, 1), near.dtype)
        return out

    # --- panels ----------------------------------------------------------------------------------------------------------
    def walks(self, lo: Extent, hi: Extent, masked: bool) -> list[Walk]:
        """The panels between lo and hi, those where every decided mask is true apart from the others."""
        masks = self.frame.cut.masks if masked and self.frame.cut is not None else ()
        first, columns = self.tile_number * self.t.rows + self.at_row, self.t.columns
        last = first + self.height - 1
        out: list[Walk] = []
        begin, end = lo, hi
        for _, below, above in masks:
            if above is not None:
                begin = maximum(begin, (last - above + columns - 1) // columns)
            if below is not None:
                end = minimum(end, (first + below + 1) // columns)
        if not masks:
            return [Walk(lo, hi)]
        if any(above is not None for _, _, above in masks):
            begin = minimum(begin, hi)
            out.append(Walk(lo, begin))
        if any(below is not None for _, below, _ in masks):
            end = maximum(end, begin)
            return [*out, Walk(begin, end, True), Walk(end, hi)]
        return [*out, Walk(begin, hi, True)]

    def walk(self, k: int, work: Work) -> list[ir.Statement]:
        """The work of pass k on all panels, rows at_row … at_row + height - 1 of the tile."""
        columns = self.t.columns
        out: list[ir.Statement] = []
        full = self.length // columns
        held: dict[Equation, ir.Tile] = {
            e: ir.Constant(identity(e.op, e.result.dtype), e.result.dtype.compute, (self.height, self.lanes(e)))
            for e in work.folds
        }
        if full != 0:
            for w in self.walks(self.lo, self.upto(full), work.masked):
                index = self.values.name("p")
                body, operands = self.panel(k, work, size(index), columns, frozenset(), w.clear)
                carries = []
                for e, tile in operands.items():
                    name, before = self.values.name("fold"), held[e]
                    held[e] = ir.Name(name, before.shape, before.dtype)
                    n = before.shape[1]
                    total = ir.Slice(tile, (0, 0), before.shape) if n < columns else tile
                    for i in range(n, columns, n):
                        total = ir.Map(COMBINE[e.op], (total, ir.Slice(tile, (0, i), before.shape)), tile.dtype)
                    carries.append(ir.Carry(name, before, ir.Map(COMBINE[e.op], (held[e], total), tile.dtype)))
                out.append(ir.Stream(index, w.lo, w.hi, 1, tuple(body), tuple(carries)))
        totals: dict[Equation, ir.Tile] = {e: ir.Fold(e.op.value, tile, 1) for e, tile in held.items()} if full != 0 else {}
        rest = self.length - full * columns
        if rest != 0:
            out += self.last_panel(k, work, full, rest, totals)
        for e in work.folds:
            out.append(ir.Put(self.fold_rows[e.result], (self.at_row + ir.axis(0), 0), totals[e]))
        return out

    def last_panel(
        self, k: int, work: Work, full: Extent, rest: Extent, totals: dict[Equation, ir.Tile]
    ) -> list[ir.Statement]:
        """What is left behind the full panels. Where the line is cut it may not run at all: its folds are carried out."""
        once = isinstance(rest, int) and self.frame.cut is None
        index = self.values.name("p")
        p = full if once else size(index)
        edge = frozenset() if self.known else frozenset({self.line})
        body, operands = self.panel(k, work, p, rest if isinstance(rest, int) else self.t.columns, edge, False)
        carries = []
        for e, tile in operands.items():
            if edge:  # what lies beyond the line counts as nothing
                inside = ir.Map(
                    "lt",
                    (
                        ir.Index(1, (1, tile.shape[1]), dt.i64),
                        ir.Scalar(self.length - p * self.t.columns, dt.i64),
                    ),
                    dt.bool_,
                )
                nothing = ir.Constant(identity(e.op, e.result.dtype), tile.dtype)
                tile = ir.Map("where", (inside, tile, nothing), tile.dtype)
            part: ir.Tile = ir.Fold(e.op.value, tile, 1)
            name = self.values.name("rest")
            held = ir.Name(name, part.shape, part.dtype)
            if once:
                body.append(ir.Let(name, part))
            else:
                start = ir.Constant(identity(e.op, e.result.dtype), part.dtype, part.shape)
                carries.append(ir.Carry(name, start, ir.Map(COMBINE[e.op], (held, part), part.dtype)))
            totals[e] = ir.Map(COMBINE[e.op], (totals[e], held), held.dtype) if e in totals else held
        if once:
            return body
        hi = self.upto(tile_count(self.length, self.t.columns))
        return [ir.Stream(index, maximum(self.lo, full), hi, 1, tuple(body), tuple(carries))]

    def lanes(self, e: Equation) -> int:
        """Columns of the tile in which a fold waits: one vector, so that few registers wait."""
        n = self.target.lanes(max(4, e.result.dtype.compute.bytes))
        return n if self.t.columns % n == 0 else self.t.columns

    def panel(
        self, k: int, work: Work, p: Extent, nc: int, edge: frozenset[Letter], clear: bool
    ) -> tuple[list[ir.Statement], dict[Equation, ir.Tile]]:
        """Statements for panel p, and what each fold adds."""
        columns = p * self.t.columns + ir.axis(1)
        place = self.place({self.line: columns}, nc, edge)
        known = Known(self.row_values)
        body: list[ir.Statement] = []
        for q in work.products:
            statements, tile = self.product(q, p, nc)
            body += statements
            known[q.equation.result] = tile
        for v, when in self.put_in.items():
            if when < k or (when == k and not work.products and v not in work.puts):
                known[v] = ir.Load(self.strip_view(v, columns), (self.height, nc))
        if clear and self.frame.cut is not None:
            for v, _, _ in self.frame.cut.masks:
                known[v] = ir.Constant(True, dt.bool_)

        def named(tile: ir.Tile) -> ir.Tile:
            """Everything is read before a strip is written: values of one position may take turns in it."""
            tile = whole(tile, (self.height, nc))
            if isinstance(tile, ir.Name):
                return tile
            name = self.values.name("v")
            body.append(ir.Let(name, tile))
            return ir.Name(name, tile.shape, tile.dtype)

        self.values.name_in(body, place, known)
        made = {v: named(self.values.value(v, place, known)) for v in (*work.puts, *work.stores)}
        operands = {e: named(self.values.operand(e, 0, place, known)) for e in work.folds}
        body += [self.put(v, columns, made[v]) for v in work.puts]
        body += [self.store(v, place, made[v]) for v in work.stores]
        return body, operands

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
