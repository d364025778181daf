"""What a strip kernel reads and where its line values wait: packed operands, rows copied near, strips.

In:  a DotPlan with a line, the memory of values, the target.  Out: a base for the nest (schedule/chain.py): where rows and
line stand, tiles of operands, strips to put line values in, stores of outputs.

    group       24 rows (four register tiles), which the strips hold:      strip[rows of the group, line]
    rows near   the operands of products that run along the rows, copied for each group: packed[rows of the group, k]

Rows beyond the last one are copied as zeros, so that every register tile is whole; they are never stored.
Read before: schedule/dots.py. Read next: schedule/line_pass.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from kdsl.dtypes import DType
from kdsl.ir import loops as ir
from kdsl.ir.dot_frame import DotFrame, Product
from kdsl.ir.frame import DotPlan, Letter, flat
from kdsl.ir.ops import REDUCTIONS, Op
from kdsl.ir.sizes import Extent, minimum, row_major, size
from kdsl.ir.tensor import Equation, Value
from kdsl.schedule.dot_values import Known, Memory, Place, Values
from kdsl.schedule.packing import Packed, along, pack, tile_count
from kdsl.schedule.register_tile import Tiling, choose_tiling, whole
from kdsl.target import Target

RENAMES = (Op.BROADCAST, Op.PERMUTE, Op.RESHAPE)
GROUP_ROWS = 24  # rows that share each panel of the line while it is near
NEAR_ROWS = 64 * 1024  # bytes of rows that are copied near
LONG = 1024  # what a named size is taken to be where only a guess is wanted
COPIED = 32  # elements of a row that one statement copies


@dataclass
class Work:
    """What one pass along the line does: line values that are put in strips, folds over them, outputs on the line."""

    puts: list[Value] = field(default_factory=list)
    folds: list[Equation] = field(default_factory=list)
    stores: list[Value] = field(default_factory=list)
    masked: bool = False  # they ask for masks that are decided in most panels

    @property
    def is_empty(self) -> bool:
        return not (self.puts or self.folds or self.stores)


class StripMemory:
    """Operands and strips of one kernel, and where its rows stand."""

    first: Extent = 0  # the first row of the group
    at_row: Extent = 0  # in the group: the first row that is written out now
    height: int  # and how many

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
        self.gathered = [p for p in self.frame.products if self.row is not None and p.k == (self.row,)]
        self.producers = [p for p in self.frame.products if p.column == self.line and p not in self.gathered]
        self.consumers = [p for p in self.frame.products if p.column != self.line and p not in self.gathered]
        self.known = isinstance(self.length, int)
        self.target = target
        self.width = (
            tile_count(self.length, self.t.columns) * self.t.columns + target.lanes(4) * 2
        )  # rows in different cache sets
        self.packing: list[ir.Kernel] = []
        self.packed: dict[Product, Packed | None] = {p: self._pack(p) for p in [*self.producers, *self.consumers]}
        self.work = [self._work(k) for k in range(self.frame.passes)]
        self.put_in: dict[Value, int] = {p.equation.result: -1 for p in self.producers}  # strips, and what fills them:
        for k, w in enumerate(self.work):  # a product, or a pass
            self.put_in |= dict.fromkeys(w.puts, k)
        slots = self._slots()
        self.group = self._group(1 + max(slots.values(), default=0), widest.bytes)
        self.group_rows = self.group * self.t.rows
        private = {
            (n, v.dtype.compute): self.private(f"strip{n}", v.dtype.compute, self.group_rows, self.width)
            for v, n in slots.items()
        }
        self.strips = {v: private[n, v.dtype.compute] for v, n in slots.items()}
        folds = [e for w in self.work for e in w.folds]
        self.fold_rows = {
            e.result: ir.Near(f"rows_of_fold{i}", e.result.dtype.compute, (self.t.rows, 1)) for i, e in enumerate(folds)
        }
        self.near_rows: dict[tuple[Product, int], ir.Near | ir.Buffer] = {}
        self.copies: list[tuple[Product, int, tuple[Letter, ...]]] = []
        for p in self.producers:
            self._copy_rows(p, p.a, p.k)
        for p in self.gathered:
            self._copy_rows(p, p.b, (p.column,))  # type: ignore[arg-type]

    # --- rows ----------------------------------------------------------------------------------------------------------
    @property
    def edge(self) -> bool:
        """Whether the last register tile may hang over the last row."""
        return not isinstance(self.rows, int) or self.rows % self.t.rows != 0

    def _group(self, strips: int, bytes_: int) -> int:
        """Register tiles whose strips stay near together, and the rows that are copied for them."""
        n = self.length if isinstance(self.length, int) else LONG
        longest = max((self._elements(p.k) for p in self.producers), default=1)
        rows = min(GROUP_ROWS, self.target.l2_bytes // 2 // max(1, strips * n * bytes_), NEAR_ROWS // (longest * bytes_))
        if isinstance(self.rows, int):
            rows = min(rows, self.rows + self.t.rows - 1)
        return max(1, rows // self.t.rows)

    def _elements(self, letters: tuple[Letter, ...]) -> int:
        count = 1
        for x in letters:
            n = self.size[x]
            count *= n if isinstance(n, int) else 64
        return max(1, count)

    def tiles_here(self) -> Extent:
        """The register tiles of the group; the last one may be partial."""
        if isinstance(self.rows, int) and self.rows % self.group_rows == 0:
            return self.group
        return minimum(self.group, (self.rows - self.first + self.t.rows - 1) // self.t.rows)

    def rows_here(self) -> Extent:
        """The rows of the group."""
        if isinstance(self.rows, int) and self.rows % self.group_rows == 0:
            return self.group_rows
        return minimum(self.group_rows, self.rows - self.first)

    def rows_of_tile(self, s: Extent) -> Extent:
        """The rows of its register tile number s."""
        return minimum(self.t.rows, self.rows - self.first - s * self.t.rows) if self.edge else self.t.rows

    def place(self, at: dict[Letter, Extent], columns: int, checked: frozenset[Letter] = frozenset()) -> Place:
        """The rows that are written out now, at some columns."""
        row = {} if self.row is None else {self.row: self.first + self.at_row + ir.axis(0)}
        return Place({**self.outer, **row, **at}, (self.height, columns), checked)

    # --- passes --------------------------------------------------------------------------------------------------------
    def on_line(self, v: Value) -> bool:
        return self.line in flat(self.plan.letters.values[v])

    def _work(self, k: int) -> Work:
        when, equations = self.frame.when, self.plan.equations
        behind = {v for p in self.gathered for v in self.values_behind(p)}
        work = Work(
            [v for v in self.frame.strips if when[v] == k and self.values.made[v].op is not Op.DOT],
            [e for e in equations if e.op in REDUCTIONS and when[e.result] == k + 1],
            [v for v in self.plan.outputs if self.on_line(v) and when[v] == k and v not in behind],
        )
        decided = {v for v, _, _ in self.frame.cut.masks} if self.frame.cut is not None else set()
        work.masked = any(v in decided for e in self._maps(work, k) for v in e.values)
        return work

    def values_behind(self, p: Product) -> set[Value]:
        """What is computed from a product."""
        out = {p.equation.result}
        for e in self.plan.equations:
            if any(v in out for v in e.values):
                out.add(e.result)
        return out

    def _maps(self, work: Work, k: int) -> list[Equation]:
        """The maps along the line that a pass computes, down to strips of earlier passes and products."""
        todo = [*work.puts, *work.stores, *(v for e in work.folds for v in e.values)]
        seen: dict[Value, Equation] = {}
        while todo:
            v = todo.pop()
            e = self.values.made.get(v)
            if v in seen or e is None or e.op is Op.DOT or e.op in REDUCTIONS or not self.on_line(v):
                continue
            if v in self.frame.strips and self.frame.when[v] < k:
                continue
            seen[v] = e
            todo += e.values
        return list(seen.values())

    # --- strips ----------------------------------------------------------------------------------------------------------
    def _slots(self) -> dict[Value, int]:
        """Strips share memory: a value may take the place of one that is read last where it is made, or earlier."""
        last: dict[Value, int] = {}
        for k, work in enumerate(self.work):
            for e in (*self._maps(work, k), *work.folds):
                for v in e.values:
                    if v in self.put_in:
                        last[v] = k
        for p in [*self.consumers, *self.gathered]:  # they come behind all passes
            last[self.strip_of(p)] = self.frame.passes
        out: dict[Value, int] = {}
        free_from: list[tuple[DType, int]] = []
        for v, made in self.put_in.items():
            until = v.dtype.compute, max(last.get(v, made), made)
            n = next((i for i, (d, t) in enumerate(free_from) if t <= made >= 0 and d is until[0]), len(free_from))
            free_from[n : n + 1] = [until]
            out[v] = n
        return out

    def strip_of(self, p: Product) -> Value:
        """The strip that a product behind it sums."""
        v = p.equation.operands[p.a]
        assert isinstance(v, Value)
        while v not in self.put_in:
            e = self.values.made[v]
            assert e.op in RENAMES
            v = e.values[0]
        return v

    def private(self, name: str, dtype: DType, *shape: Extent) -> ir.Near | ir.Buffer:
        """Memory for one outer step: near, or, where its extent is not known, memory of the program."""
        if all(isinstance(n, int) for n in shape):
            return ir.Near(name, dtype, shape)  # type: ignore[arg-type]
        shape = (*(self.size[x] for x in self.frame.outer), *shape)
        return ir.Buffer(f"{self.plan.name}_{name}", dtype, shape, row_major(shape), "temporary")

    def private_view(self, memory: ir.Near | ir.Buffer, *index: Extent) -> ir.View:
        outer = () if isinstance(memory, ir.Near) else tuple(self.outer[x] for x in self.frame.outer)
        return ir.View(memory, (*outer, *index))

    def strip_view(self, v: Value, column: Extent, row: Extent | None = None) -> ir.View:
        return self.private_view(self.strips[v], self.at_row + ir.axis(0) if row is None else row, column)

    @staticmethod
    def put(view: ir.View, tile: ir.Tile) -> ir.Statement:
        return ir.Put(view.memory, view.index, tile) if isinstance(view.memory, ir.Near) else ir.Store(view, tile)

    # --- operands ------------------------------------------------------------------------------------------------------
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
        kernel_, packed = pack(
            self.values, p.equation, p.b, p.column, p.k, self.t.columns, padded=p.column == self.line
        )
        self.packing.append(kernel_)
        return packed

    def _copy_rows(self, p: Product, operand: int, letters: tuple[Letter, ...]) -> None:
        """Have an operand that runs along the rows copied near; what two products read is copied once."""
        if not letters or any(self.size[x] == 0 for x in letters):
            return
        what = self._row_source(p, operand, letters)
        for (q, i), near in self.near_rows.items():
            if what is not None and what == self._row_source(q, i, q.k if q in self.producers else (q.column,)):  # type: ignore[arg-type]
                self.near_rows[p, operand] = near
                return
        value = p.equation.operands[operand]
        assert isinstance(value, Value)
        shape = (self.group_rows, *(self.size[x] for x in letters))
        self.near_rows[p, operand] = self.private(f"rows{len(self.copies)}", value.dtype.compute, *shape)
        self.copies.append((p, operand, letters))

    def _row_source(self, p: Product, operand: int, letters: tuple[Letter, ...]) -> object:
        """What says where an operand lies in memory, whatever its letters are called; None if it is computed."""
        at = {**self.outer, self.row: size("row"), **{x: size(f"at{i}") for i, x in enumerate(letters)}}
        tile = self.values.operand(p.equation, operand, Place(at, (8, 8)), Known({}))  # type: ignore[arg-type]
        return (tile.view.memory, tile.view.index) if isinstance(tile, ir.Load) else None

    def copy_rows(self) -> list[ir.Statement]:
        """Copy the rows of a group near; zeros for rows beyond the last."""
        r = self.values.name("r")
        checked = frozenset({self.row} if self.edge and self.row is not None else ())
        row = {} if self.row is None else {self.row: self.first + size(r) + ir.axis(0)}
        body: list[ir.Statement] = []
        for p, operand, letters in self.copies:
            at: dict[Letter, Extent] = {x: size(self.values.name("s")) for x in letters[:-1]}
            copy = self._copy(p, operand, letters[-1], {**row, **at}, (size(r) + ir.axis(0), *at.values()), checked)
            inner = along(self.size[letters[-1]], COPIED, self.values.name("k"), copy)
            for x in reversed(letters[:-1]):
                inner = (ir.Stream(str(at[x]), 0, self.size[x], 1, inner),)
            body += inner
        rows = self.tiles_here() * self.t.rows if self.edge else self.rows_here()
        return [ir.Stream(r, 0, rows, 1, tuple(body))] if body else []

    def _copy(
        self, p: Product, operand: int, letter: Letter, at: dict[Letter, Extent], index: tuple[Extent, ...],
        checked: frozenset[Letter],
    ) -> Callable[[Extent, int], tuple[ir.Statement, ...]]:  # fmt: skip
        """Copies n elements of a row, from one on."""

        def copy(first: Extent, n: int) -> tuple[ir.Statement, ...]:
            place = Place({**self.outer, **at, letter: first + ir.axis(1)}, (1, n), checked)
            tile = self.values.operand(p.equation, operand, place, Known({}))
            view = self.private_view(self.near_rows[p, operand], *index, first + ir.axis(1))
            return (self.put(view, whole(tile, (1, n))),)

        return copy

    def b_tile(self, p: Product, panel: Extent, place: Place) -> ir.Tile:
        packed = self.packed[p]
        if packed is None:
            return whole(self.values.operand(p.equation, p.b, place, Known({})), place.shape)
        return whole(self.values.load(packed.view(place, panel, ir.axis(1)), place), place.shape)

    def store(self, v: Value, place: Place, tile: ir.Tile) -> ir.Store:
        view = self.values.view(self.memory(v), self.plan.letters.values[v], v.shape, place)
        return ir.Store(view, whole(tile, place.shape))
