"""Products that sum the rows of a strip kernel: their results are added up in memory, group after group of rows.

In:  the strips of a group of rows.  Out: statements that clear the sums, add to them, and compute outputs from them.

    sums[line, column] = 0
    for each group: for p in panels of the line, for c in panels of columns:
        sums[6 of the panel, c] += sum over the rows of the group: strip[row, 6 of the panel] * rows near[row, c]
    outputs = maps(sums)

The gradient by keys and values of attention, in the kernel of the gradient by queries: scores are computed once. The groups of
rows are one after the other, so the order of all sums is that of the rows, whatever the number of threads.
Sums wait in the result itself where that is all that it is, else in memory of the program.
Read before: schedule/line_pass.py. Read next: schedule/chain.py.
"""

from __future__ import annotations

from functools import cached_property

from kdsl.dtypes import DType
from kdsl.ir import loops as ir
from kdsl.ir.dot_frame import Product
from kdsl.ir.ops import Op
from kdsl.ir.rules import identity
from kdsl.ir.sizes import Extent, maximum, minimum, row_major, size
from kdsl.ir.tensor import Value
from kdsl.schedule.dot_values import Known, Memory, Place
from kdsl.schedule.line_pass import LinePass
from kdsl.schedule.packing import along, tile_count, tiles_along

LINES = 8  # lines that are cleared, or finished, by one statement


class RowSums(LinePass):
    """Adds what sums the rows."""

    @cached_property
    def tiles(self) -> dict[tuple[DType, int], ir.Near]:
        """Near memory for register tiles whose rows are stored one by one."""
        return {}

    @cached_property
    def sums(self) -> dict[Product, Value | ir.Buffer]:
        """Where each product waits: an output, or memory of the program."""
        return {p: self._home(p) for p in self.gathered}

    def _home(self, p: Product) -> Value | ir.Buffer:
        outputs, dtype = self.outputs_behind(p), p.equation.result.dtype.compute
        place = Place({x: size(f"at{x}") for x in self.size} | {p.column: ir.axis(1)}, (LINES, 8))  # type: ignore[dict-item]
        for v in outputs:
            view = self.values.view(self.memory(v), self.plan.letters.values[v], v.shape, place)
            if len(outputs) == 1 and v.dtype is dtype and self.values.stride(view, 1) == 1:
                return v
        shape = (*(self.size[x] for x in self.frame.outer), self.length, self.size[p.column])  # type: ignore[index]
        return ir.Buffer(f"{self.plan.name}_{self.values.name('sums')}", dtype, shape, row_major(shape), "temporary")

    def outputs_behind(self, p: Product) -> list[Value]:
        behind = self.values_behind(p)
        return [v for v in self.plan.outputs if v in behind]

    def sum_view(self, p: Product, place: Place) -> ir.View:
        """The sums of a product at a place with its line and column."""
        home = self.sums[p]
        if isinstance(home, Value):
            memory: Memory = self.memory(home)
            return self.values.view(memory, self.plan.letters.values[home], home.shape, place)
        return ir.View(home, (*self.outer.values(), place.at[self.line], place.at[p.column]))  # type: ignore[index]

    def sum_place(self, p: Product, line: Extent, column: Extent, shape: tuple[int, int], checked: bool) -> Place:
        at = {**self.outer, self.line: line + ir.axis(0), p.column: column + ir.axis(1)}
        return Place(at, shape, frozenset({p.column} if checked else ()))  # type: ignore[arg-type]

    def _over_columns(self, p: Product, body) -> tuple[ir.Statement, ...]:  # type: ignore[no-untyped-def]
        columns = self.size[p.column]  # type: ignore[index]
        return tiles_along(columns, self.t.columns, 0, tile_count(columns, self.t.columns), self.values.name("c"), body)

    def clear(self) -> list[ir.Statement]:
        """Zeros in all sums."""
        out: list[ir.Statement] = []
        for p in self.gathered:
            dtype = p.equation.result.dtype.compute

            def zeros(line: Extent, n: int, p: Product = p, dtype: DType = dtype) -> tuple[ir.Statement, ...]:
                def panel(c: Extent, nc: int, checked: bool) -> tuple[ir.Statement, ...]:
                    place = self.sum_place(p, line, c * self.t.columns, (n, nc), checked)
                    return (ir.Store(self.checked_view(p, place), ir.Constant(identity(Op.SUM, dtype), dtype, (n, nc))),)

                return self._over_columns(p, panel)

            out += along(self.length, LINES, self.values.name("l"), zeros)
        return out

    def checked_view(self, p: Product, place: Place) -> ir.View:
        """The sums at a place, whose columns may reach beyond the last."""
        view = self.sum_view(p, place)
        if view.check or not place.checked or isinstance(self.sums[p], Value):
            return view
        return ir.View(view.memory, view.index, (*(False,) * (len(view.index) - 1), True))

    def add(self, p: Product) -> list[ir.Statement]:
        """Add the rows of a group: whole panels of the line, then what is left."""
        columns, full = self.t.columns, self.length // self.t.columns
        rest = self.length - full * columns
        index = self.values.name("p")
        out: list[ir.Statement] = []
        if full != 0:
            body = self._panel_sums(p, size(index), 0, columns)
            out.append(ir.Stream(index, self.lo, self.upto(full), 1, body))
        if rest == 0:
            return out
        last, line = self.values.name("p"), self.values.name("l")
        if isinstance(rest, int):
            body = self._panel_sums(p, size(last), 0, rest)
        else:
            body = (ir.Stream(line, 0, rest, 1, self._panel_sums(p, size(last), size(line), 1)),)
        hi = self.upto(tile_count(self.length, columns))
        return [*out, ir.Stream(last, maximum(self.lo, full), hi, 1, body)]

    def _panel_sums(self, p: Product, panel: Extent, start: Extent, count: int) -> tuple[ir.Statement, ...]:
        """Lines start … start + count - 1 of a panel, in register tiles."""
        strip, near = self.strip_of(p), self.near_rows[p, p.b]
        lo, hi = self.tiles_that_meet(panel)
        rows = lo * self.t.rows, self.rows_here() if self.frame.cut is None else minimum(hi * self.t.rows, self.rows_here())

        def tile(line: Extent, n: int, c: Extent, nc: int, checked: bool) -> tuple[ir.Statement, ...]:
            place = self.sum_place(p, line, c * self.t.columns, (n, nc), checked)
            view, dtype = self.checked_view(p, place), p.equation.result.dtype.compute
            r, name = self.values.name("k"), self.values.name("sum")
            a = ir.Load(self.strip_view(strip, line + ir.axis(0), size(r) + ir.axis(1)), (n, 1))
            column: Extent = c * self.t.columns + ir.axis(1)
            check = (*(False,) * (len(near.shape) - 1), True) if checked else ()
            b_view = self.private_view(near, size(r) + ir.axis(0), column)
            b = ir.Load(ir.View(b_view.memory, b_view.index, check), (1, nc))
            carry = ir.Carry(name, ir.Load(view, (n, nc)), ir.Dot(ir.Name(name, (n, nc), dtype), a, b))
            return (ir.Stream(r, *rows, 1, (), (carry,)), ir.Store(view, ir.Name(name, (n, nc), dtype)))

        def body(c: Extent, nc: int, checked: bool) -> tuple[ir.Statement, ...]:
            out: list[ir.Statement] = []
            for first in range(0, count, self.t.rows):
                n = min(self.t.rows, count - first)
                out += tile(panel * self.t.columns + start + first, n, c, nc, checked)
            return tuple(out)

        return self._over_columns(p, body)

    def finish(self) -> list[ir.Statement]:
        """Outputs that are more than their sums."""
        out: list[ir.Statement] = []
        for p in self.gathered:
            outputs = [v for v in self.outputs_behind(p) if v is not self.sums[p] or v is not p.equation.result]

            def lines(line: Extent, n: int, p: Product = p, outputs: list[Value] = outputs) -> tuple[ir.Statement, ...]:
                def panel(c: Extent, nc: int, checked: bool) -> tuple[ir.Statement, ...]:
                    place = self.sum_place(p, line, c * self.t.columns, (n, nc), checked)
                    known = Known({p.equation.result: ir.Load(self.checked_view(p, place), (n, nc))})
                    return tuple(self.store(v, place, self.values.value(v, place, known)) for v in outputs)

                return self._over_columns(p, panel)

            if outputs:
                out += along(self.length, LINES, self.values.name("l"), lines)
        return out
