"""The passes along the line of one row of a strip kernel: maps from strips into strips, folds, outputs on the line.

In:  a row whose products stand in their strips.  Out: statements; its folds' results stand ready afterwards.

    for each pass: for p in panels of the line that matter for the row's tile:
        strips[row, p] = maps(strips[row, p]);  folds

Row by row, so that dear maps (exp …) find registers free. Panels where an index mask is true throughout are a loop of their
own, without the mask. Folds wait in one vector.
Read before: schedule/strips.py. Read next: schedule/chain.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import kdsl.dtypes as dt
from kdsl.ir import loops as ir
from kdsl.ir.frame import Letter
from kdsl.ir.ops import Op
from kdsl.ir.rules import identity
from kdsl.ir.sizes import Extent, maximum, minimum, size
from kdsl.ir.tensor import Equation, Value
from kdsl.schedule.dot_values import Known
from kdsl.schedule.packing import tile_count
from kdsl.schedule.register_tile import whole
from kdsl.schedule.strips import StripMemory, Work

COMBINE = {Op.SUM: "add", Op.PROD: "mul", Op.MAX: "maximum", Op.MIN: "minimum", Op.ANY: "or", Op.ALL: "and"}


@dataclass
class Walk:
    """Panels lo … hi-1 of the line; `clear`: every decided mask is true there."""

    lo: Extent
    hi: Extent
    clear: bool = False


class LinePass(StripMemory):
    """Adds the walk of one row along the line, and how far it goes."""

    row_values: dict[Value, ir.Tile]
    lo: Extent = 0  # panels that matter for the row's tile
    hi: Extent | None = None  # None: all

    # --- bounds ----------------------------------------------------------------------------------------------------------
    def bounds(self, first: Extent, rows: int) -> tuple[Extent, Extent | None]:
        """Panels of the line that matter for `rows` rows from `first` on: from; to (None: all)."""
        cut = self.frame.cut
        lo: Extent = 0
        hi: Extent | None = None
        if cut is not None and cut.below is not None:
            hi = maximum(0, (first + rows - 1 + cut.below) // self.t.columns + 1)
        if cut is not None and cut.above is not None:
            lo = maximum(0, (first - cut.above) // self.t.columns)
        return lo, hi

    def tiles_that_meet(self, panel: Extent) -> tuple[Extent, Extent]:
        """The register tiles of the group for which a panel of the line matters: from, to."""
        cut, rows, columns = self.frame.cut, self.t.rows, self.t.columns
        lo: Extent = 0
        hi = self.tiles_here()
        if cut is not None and cut.below is not None:
            lo = maximum(0, (columns * panel - cut.below - self.first) // rows)
        if cut is not None and cut.above is not None:
            hi = minimum(hi, maximum(0, (columns * panel + columns - 1 + cut.above - self.first) // rows + 1))
        return lo, hi

    def upto(self, limit: Extent) -> Extent:
        """The panel where the walk along the line ends, at most `limit`."""
        return limit if self.hi is None else minimum(self.hi, limit)

    # --- passes ----------------------------------------------------------------------------------------------------------
    def passes(self) -> list[ir.Statement]:
        """All passes of the row at_row."""
        self.row_values = {}
        out: list[ir.Statement] = []
        for k, work in enumerate(self.work):
            if not work.is_empty:
                out += self.walk(k, work)
        return out

    def walks(self, masked: bool) -> list[Walk]:
        """The full panels, those where every decided mask is true apart from the others."""
        lo, hi = self.lo, self.upto(self.length // self.t.columns)
        masks = self.frame.cut.masks if masked and self.frame.cut is not None else ()
        row, columns = self.first + self.at_row, self.t.columns
        out: list[Walk] = []
        begin, end = lo, hi
        for _, below, above in masks:
            if above is not None:
                begin = maximum(begin, (row - above + columns - 1) // columns)
            if below is not None:
                end = minimum(end, (row + below + 1) // columns)
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
        """The work of pass k on all panels."""
        columns = self.t.columns
        out: list[ir.Statement] = []
        full = self.length // columns
        held: dict[Equation, ir.Tile] = {
            e: ir.Constant(identity(e.op, e.result.dtype), e.result.dtype.compute, (1, self.lanes(e)))
            for e in work.folds
        }
        if full != 0:
            for w in self.walks(work.masked):
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
            name = self.values.name("row")
            out.append(ir.Let(name, totals[e]))
            self.row_values[e.result] = ir.Name(name, (1, 1), e.result.dtype.compute)
            if self.consumers:
                out.append(ir.Put(self.fold_rows[e.result], (self.in_tile + ir.axis(0), 0), self.row_values[e.result]))
        return out

    in_tile: Extent = 0  # the row within its register tile

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
        for v, made in self.put_in.items():
            if made < k:
                known[v] = ir.Load(self.strip_view(v, columns), (1, nc))
        if clear and self.frame.cut is not None:
            for v, _, _ in self.frame.cut.masks:
                known[v] = ir.Constant(True, dt.bool_)

        def named(tile: ir.Tile) -> ir.Tile:
            """Everything is read before a strip is written: values of one position may take turns in it."""
            tile = whole(tile, (1, nc))
            if isinstance(tile, ir.Name):
                return tile
            name = self.values.name("v")
            body.append(ir.Let(name, tile))
            return ir.Name(name, tile.shape, tile.dtype)

        self.values.name_in(body, place, known)
        made_here = {v: named(self.values.value(v, place, known)) for v in (*work.puts, *work.stores)}
        operands = {e: named(self.values.operand(e, 0, place, known)) for e in work.folds}
        body += [self.put(self.strip_view(v, columns), made_here[v]) for v in work.puts]
        body += [self.store(v, place, made_here[v]) for v in work.stores]
        return body, operands
