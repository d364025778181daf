"""Folds over rows, or over a whole line in parts: a block adds up its own rows, a finisher the blocks' parts.

In:  the rows of a block.  Out: the nest over them, with the folds carried or kept in the block's part.
Read before: one_row.py. Read next: rows.py.
"""

from __future__ import annotations

from collections.abc import Callable

from kdsl.ir import loops as ir
from kdsl.ir.frame import Letter
from kdsl.ir.rules import identity
from kdsl.ir.sizes import Extent, floordiv, maximum, minimum
from kdsl.ir.tensor import Equation
from kdsl.schedule.folds import COMBINE, LineFold
from kdsl.schedule.one_row import OneRow
from kdsl.schedule.positions import constant, spread_to


class RowFolds(OneRow):
    """The nest over the rows of one block."""

    def kept_rows(
        self, rows: list, ranges: dict[Letter, tuple[Extent, Extent]], leaf: Callable[[], None] | None = None
    ) -> None:
        """Streams over the rows that are kept, inside them over those that are folded, then the row."""
        rows = [x if isinstance(x, tuple) else (x, 0, self.size[x]) for x in rows]
        if rows:
            (x, lo, hi), *rest = rows
            self.stream(x, lo, hi, lambda: self.kept_rows(rest, ranges, leaf))
        elif self.p.partial and self.p.rows:
            self.init_columns()
            self.folded_rows(list(self.p.reduced), ranges)
            self.store_totals()
        elif leaf is not None:
            leaf()
        else:
            self.row()

    def init_columns(self) -> None:
        for e in self.p.partial:
            if self.carried(e):
                self.totals[e] = constant(identity(e.op, e.values[0].dtype), self.dtype(e), (1, 1))
        columns = [e for e in self.p.partial if not self.carried(e)]
        if columns:

            def start() -> None:
                for e in columns:
                    value = constant(identity(e.op, e.values[0].dtype), self.dtype(e), self.t.shape)
                    self.t.emit(ir.Store(self.column_view(e), value, e.location))

            self.over_line(start)

    def folded_rows(self, letters: list[Letter], ranges: dict[Letter, tuple[Extent, Extent]]) -> None:
        if not letters:
            self.row()
            for e in self.p.partial:
                if self.carried(e):
                    value = self.row_total(e)
                    new = ir.Map(COMBINE[e.op], (self.totals[e], spread_to(value, (1, 1))), self.dtype(e))
                    self.totals[e] = self.t.let(new, "total")
            return
        x, *rest = letters
        lo, hi = ranges.get(x, (0, self.size[x]))
        self.stream(x, lo, hi, lambda: self.folded_rows(rest, ranges), carries=True)

    def row_total(self, e: Equation) -> ir.Tile:
        """What this row adds to a fold over rows."""
        if e in self.line_folds:
            return self.t.ready[e.result]()[0]
        tile, depth = self.t.operand(e, 0, self.t.plain_operand(e, 0))
        return self.t.join([(tile, depth)])[0][0]

    def store_totals(self) -> None:
        for e in self.p.partial:
            if self.carried(e):
                view = self.column_view(e)
                self.t.emit(ir.Store(view, self.totals[e], e.location))

    def parts_of_line(self, lo: Extent, n: Extent, per: Extent) -> None:
        """A whole fold: each block folds its piece of the line to one part."""
        t, p = self.t, self.p
        (letter,) = p.line
        folds = [LineFold(e) for e in self.line_folds]
        writes = [v for v in p.outputs if self.on_line(v)]
        inside = lambda: self.tile(0, folds, [], writes, [])  # noqa: E731
        step, shape = self.width, (1, self.width)
        full = floordiv(n, step) * step
        carried = self.region(folds, letter, lo, minimum(lo + per, full), step, shape, False, None, inside)
        if full != n:
            carried = self.region(
                folds, letter, maximum(lo, full), minimum(lo + per, n), step, shape, True, carried, inside
            )
        for fold, c in zip(folds, carried, strict=True):
            t.emit(
                ir.Store(
                    self.column_view(fold.equation), fold.result(fold.collapse(c, 1)), fold.equation.location
                )
            )
        for v in p.outputs:
            if not self.on_line(v) and t.made[v] not in p.partial:
                self.store(v)
