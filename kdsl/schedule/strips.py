"""What a strip kernel reads and where its line values wait: packed operands, strips, rows computed ahead.

In:  a DotPlan with a line, the memory of values, the target.  Out: a base for the nest (schedule/chain.py): tiles of
operands, strips to put line values in, stores of outputs.
Read before: schedule/dots.py. Read next: schedule/line_pass.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from kdsl.ir import loops as ir
from kdsl.ir.dot_frame import DotFrame, Product
from kdsl.ir.frame import DotPlan, Letter, flat
from kdsl.ir.ops import REDUCTIONS, UNARY, Op
from kdsl.ir.sizes import Extent, size
from kdsl.ir.tensor import Equation, Value
from kdsl.schedule.dot_values import Known, Memory, Place, Values
from kdsl.schedule.packing import Packed, along, pack, row_major, tile_count
from kdsl.schedule.register_tile import Tiling, choose_tiling, whole
from kdsl.target import Target

RENAMES = (Op.BROADCAST, Op.PERMUTE, Op.RESHAPE)
REGISTERS = frozenset({Op.NEG, Op.ABS, Op.NOT, Op.CAST, Op.BITCAST, Op.IS_NAN, Op.SIGN_BIT, Op.STOP_GRADIENT})
DEAR = (UNARY - REGISTERS) | {Op.POW, Op.ATAN2, Op.RANDOM_BITS}  # their steps want registers that a product's tile fills


@dataclass
class Work:
    """What one pass along the line does: line values that are put in strips, folds over them, outputs on the line."""

    products: list[Product]
    puts: list[Value] = field(default_factory=list)
    folds: list[Equation] = field(default_factory=list)
    stores: list[Value] = field(default_factory=list)
    apart: bool = False  # maps are a walk of their own behind the products'
    masked: bool = False  # they ask for masks that are decided in most panels

    @property
    def is_empty(self) -> bool:
        return not (self.products or self.puts or self.folds or self.stores)


class StripMemory:
    """Operands and strips of one kernel. t, p are the numbers of the row tile and of a panel."""

    nr: int  # rows of the tile that is being written out
    tile_number: Extent
    at_row: Extent  # the rows of it that a walk takes: the first, how many
    height: int
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
        self.target, self.width = target, width
        self.work = [self._work(k) for k in range(self.frame.passes)]
        self.put_in: dict[Value, int] = {}  # strips, and the pass that fills them
        for k, w in enumerate(self.work):
            self.put_in |= dict.fromkeys([*(p.equation.result for p in w.products if w.apart), *w.puts], k)
        self.strips = self._slots()
        folds = [e for w in self.work for e in w.folds]
        self.fold_rows = {
            e.result: ir.Near(f"rows_of_fold{i}", e.result.dtype.compute, (self.t.rows, 1)) for i, e in enumerate(folds)
        }
        self.near_rows = {p: ir.Near(f"rows{i}", p.equation.result.dtype.compute, (self.t.rows, self.size[p.k[-1]]))
                          for i, p in enumerate(self.producers) if self._computed(p)}  # fmt: skip

    # --- passes --------------------------------------------------------------------------------------------------------
    def on_line(self, v: Value) -> bool:
        return self.line in flat(self.plan.letters.values[v])

    def _work(self, k: int) -> Work:
        when, equations = self.frame.when, self.plan.equations
        work = Work(
            [p for p in self.producers if when[p.equation.result] == k],
            [v for v in self.frame.strips if when[v] == k],
            [e for e in equations if e.op in REDUCTIONS and when[e.result] == k + 1],
            [v for v in self.plan.outputs if self.on_line(v) and when[v] == k],
        )
        maps = self._maps(work, k)
        work.apart = any(e.op in DEAR for e in maps)
        decided = {v for v, _, _ in self.frame.cut.masks} if self.frame.cut is not None else set()
        work.masked = any(v in decided for e in maps for v in e.values)
        return work

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

    def _slots(self) -> dict[Value, ir.Near | ir.Buffer]:
        """Strips share memory: a value may take the place of one that is read last where it is made, or earlier."""
        last: dict[Value, float] = {}
        for k, work in enumerate(self.work):
            for e in (*self._maps(work, k), *work.folds):
                for v in e.values:
                    if v in self.put_in:
                        last[v] = k
        for p in self.consumers:
            v = self._strip_of(p)
            last[v] = max(last.get(v, 0), self.frame.when[p.equation.result] + 0.5)
        for v in self.plan.outputs:
            if v in self.put_in:
                last[v] = self.frame.passes
        out: dict[Value, ir.Near | ir.Buffer] = {}
        free_from: dict[ir.Near | ir.Buffer, float] = {}
        for v, k in self.put_in.items():
            made = k - 0.5 if any(p.equation.result is v for p in self.work[k].products) else k
            slot = next((x for x, t in free_from.items() if t <= made and x.dtype is v.dtype.compute), None)
            out[v] = slot or self._strip(len(free_from), v, self.width)
            free_from[out[v]] = max(last.get(v, k), made + 0.5)
        return out

    def _strip_of(self, p: Product) -> Value:
        """The strip that a consumer sums."""
        v = p.equation.operands[p.a]
        assert isinstance(v, Value)
        while v not in self.put_in:
            e = self.values.made[v]
            assert e.op in RENAMES
            v = e.values[0]
        return v

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
        return ir.View(strip, (*outer, self.at_row + ir.axis(0), column))

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
        return {} if self.row is None else {self.row: t * self.t.rows + self.at_row + ir.axis(0)}

    def place(
        self, at: dict[Letter, Extent], columns: int, checked: frozenset[Letter] = frozenset()
    ) -> Place:
        rows = frozenset({self.row}) if self.checked and self.row is not None else frozenset()
        return Place({**self.outer, **self._row(self.tile_number), **at}, (self.height, columns), rows | checked)

    def store(self, v: Value, place: Place, tile: ir.Tile) -> ir.Store:
        view = self.values.view(self.memory(v), self.plan.letters.values[v], v.shape, place)
        return ir.Store(view, whole(tile, place.shape))
