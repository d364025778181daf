"""What a chain on a GPU reads: operands of its products in near memory, values of its rows.

In:  a DotPlan with walks, the memory of its values.  Out: a base for the nest (chain.py).
An operand with the rows lies near once; one with the line comes tile by tile. A sum over a long k streams both.
Read before: staging.py, chain_tiling.py. Read next: chain.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kdsl.ir import loops as ir
from kdsl.ir.dot_frame import DotFrame, LineWalk, Product
from kdsl.ir.frame import DotPlan, Letter, flat
from kdsl.ir.ops import REDUCTIONS, Op
from kdsl.ir.rules import identity
from kdsl.ir.sizes import Extent, size
from kdsl.ir.tensor import Equation, Value
from kdsl.schedule.dot_values import Known, Memory, Place, Values
from kdsl.schedule.gpu.chain_tiling import ChainTiling, choose_chain_tiling
from kdsl.schedule.gpu.staging import Staged, near_name, on_tensor_cores, operand_dtype, stage
from kdsl.schedule.register_tile import whole
from kdsl.target import Target

WHOLE_K = 128  # a k up to here is one tile
STEP = 32  # a longer one is streamed


class ChainOperands:
    """Operands and places of one kernel."""

    def __init__(
        self, plan: DotPlan, memory: Callable[[Value], Memory], target: Target, tiling: ChainTiling | None
    ) -> None:
        self.plan, self.memory, self.values = plan, memory, Values(plan, memory)
        self.frame: DotFrame = plan.frame
        self.size, self.row = plan.letters.size, self.frame.row
        self.line: Letter = self.frame.line  # type: ignore[assignment]
        self.length: Extent = self.size[self.line]
        self.outer: dict[Letter, Extent] = {x: size(f"o{i}") for i, x in enumerate(self.frame.outer)}
        self.core = {*self.frame.outer, self.row}
        self.producers = [p for p in self.frame.products if p.column == self.line]
        self.consumers = [p for p in self.frame.products if p.column != self.line]
        self.product_of = {p.equation: p for p in self.frame.products}
        carried = sum(self.width(p.column) for p in self.consumers if p.column is not None)
        widest = max(p.equation.result.dtype.compute.bytes for p in self.frame.products)
        summed = sum(self.whole_k(p) or STEP for p in self.producers if p.k)
        self.t = tiling or choose_chain_tiling(carried, len(self.producers) + 1, summed, widest)
        self.steps = {f"o{i}": 1 for i in range(len(self.outer))} | {"i": self.t.rows, "j": self.t.line, "k": STEP}
        self.nears: list[ir.Near] = []
        self.rows_once: list[ir.Copy | ir.Put] = []
        self.staged: dict[tuple, Staged] = {}
        self.contents: list[tuple[ir.Near, Any]] = []  # what near memory holds
        self.ragged = not (isinstance(self.length, int) and self.length % self.t.line == 0)
        self.left_near: dict[Product, ir.Near] = {}
        self.sums = {e for w in self.frame.walks for e in w.sums}

    # --- places --------------------------------------------------------------------------------------------------------
    def place(self, at: dict[Letter, Extent], columns: int, checked: frozenset[Letter] = frozenset()) -> Place:
        """The rows along axis 0, and what `at` says."""
        assert self.row is not None
        n = self.size[self.row]
        rows = frozenset() if isinstance(n, int) and n % self.t.rows == 0 else frozenset({self.row})
        return Place({**self.outer, self.row: size("i") + ir.axis(0), **at}, (self.t.rows, columns), rows | checked)

    def edge(self, clear: bool) -> frozenset[Letter]:
        """The line, where a tile may reach beyond it."""
        return frozenset({self.line}) if self.ragged and not clear else frozenset()

    def width(self, column: Letter) -> int:
        """The tile's extent for the columns behind the line."""
        n = self.size[column]
        assert isinstance(n, int)
        return 1 << max(4, (n - 1).bit_length())

    def letters_of(self, v: Value) -> set[Letter]:
        return set(flat(self.plan.letters.values[v]))

    # --- what a walk needs -----------------------------------------------------------------------------------------------
    def cone(self, roots: list[Value]) -> list[Equation]:
        """The equations behind some values, down to sums and products."""
        seen: dict[Equation, None] = {}
        todo = list(roots)
        while todo:
            e = self.values.made.get(todo.pop())
            if e is not None and e not in seen:
                seen[e] = None
                if e not in self.sums and e.op is not Op.DOT:
                    todo += e.values
        return list(seen)

    def terms(self, walk: LineWalk) -> list[Value]:
        """What a walk sums and stores."""
        terms = [v for e in walk.sums if e.op in REDUCTIONS for v in e.values]
        for e in walk.sums:
            if e.op is Op.DOT:
                p = self.product_of[e]
                numbers = (p.a, p.b) if p.column is None else (p.a,)
                terms += [v for i in numbers if isinstance(v := e.operands[i], Value)]
        return terms + list(walk.stores)

    def products_of(self, walk: LineWalk) -> list[Product]:
        """The products along the line that a walk computes."""
        cone = self.cone(self.terms(walk))
        return [p for p in self.producers if p.equation in cone]

    def rows_used(self, walk: LineWalk) -> list[Value]:
        """Values of the rows that maps along the line read and that no sum of this walk goes into."""
        out: dict[Value, None] = {}
        for e in self.cone(self.terms(walk)):
            if e.op is Op.DOT or e in self.sums or self.line not in self.letters_of(e.result):
                continue
            for i, v in enumerate(e.values):
                letters = set(flat(self.plan.letters.of(e, e.operands.index(v, i))))
                if letters <= self.core and self.row in letters and v not in self.sums_results(walk):
                    if not any(q in walk.sums for q in self.cone([v])):
                        out[v] = None
        return list(out)

    def sums_results(self, walk: LineWalk) -> set[Value]:
        return {e.result for e in walk.sums}

    def row_input(self, v: Value, place: Place) -> ir.Tile:
        """A stored value of the rows."""
        e, i = next((e, i) for (e, i) in self.plan.letters.uses if e.operands[i] is v)
        return self.values.operand(e, i, place, Known({}))

    def is_behind(self, v: Value, p: Product) -> bool:
        """Whether a value is computed from a product behind the line."""
        todo, seen = [v], set()
        while todo:
            x = todo.pop()
            if x is p.equation.result:
                return True
            if x in self.values.made and x not in seen:
                seen.add(x)
                todo += self.values.made[x].values
        return False

    # --- products along the line -----------------------------------------------------------------------------------------
    def whole_k(self, p: Product) -> int | None:
        """The extent of a tile that holds all that a product sums; None where it is streamed."""
        n = self.size[p.k[-1]] if len(p.k) == 1 else None
        return 1 << max(4, (n - 1).bit_length()) if isinstance(n, int) and 0 < n <= WHOLE_K else None

    def operands_of(self, p: Product, clear: bool, at: dict[Letter, Extent], k: Extent, n: int) -> tuple[Staged, Staged]:
        """Both operands of a product along the line, n positions of its last k from `k` on."""
        fast = p.k[-1]
        extent = self.size[fast]
        over = frozenset() if isinstance(extent, int) and extent % n == 0 else frozenset({fast})
        depth = self.t.depth
        line = self.edge(clear)
        left = self.place({**at, fast: k + ir.axis(1)}, n, over)
        there = {**self.outer, **at, fast: k + ir.axis(0), self.line: size("j") + ir.axis(1)}
        right = Place(there, (n, self.t.line), line | over)
        streamed = self.whole_k(p) is None
        return (
            self.stage(p, p.a, left, {fast: 1}, depth if streamed else 1, False),
            self.stage(p, p.b, right, {fast: 0}, depth, clear),
        )

    def stage(self, p: Product, number: int, place: Place, summed: dict[Letter, int], depth: int, clear: bool) -> Staged:
        """An operand in near memory; operands that are the same tile of the same memory lie there once."""
        key = (p, number, clear)
        if key not in self.staged:
            made = stage(self.values, p.equation, number, place, summed, self.steps, depth)
            for near in (near for near, content in self.contents if content == made.content):
                made = made.into(near)
                break
            else:
                twin = self.staged.get((p, number, not clear))
                if twin is not None and (twin.near.shape, twin.near.dtype) == (made.near.shape, made.near.dtype):
                    made = made.into(twin.near)
                else:
                    self.nears.append(made.near)
                self.contents.append((made.near, made.content))
            self.staged[key] = made
        return self.staged[key]

    def fills(self, products: list[Product], behind: list[Product], clear: bool) -> list[ir.Statement]:
        """What brings the operands of one tile of the line near; those of the rows come before the walks."""
        out: list[Staged] = []
        for p in products:
            n = self.whole_k(p)
            if n is not None:
                a, b = self.operands_of(p, clear, {}, 0, n)
                if a.near not in [s.near for s in self.rows_once]:
                    self.rows_once.append(a.fill)
                out.append(b)
        out += [self.staged_column(p, clear) for p in behind if p.column is not None]
        fills = {x.near: x.fill for x in out}.values()
        return sorted(fills, key=lambda s: not isinstance(s, ir.Copy))

    def product(self, p: Product, clear: bool) -> tuple[list[ir.Statement], ir.Tile]:
        """A product's tile along the line."""
        dtype = p.equation.result.dtype.compute
        shape = (self.t.rows, self.t.line)
        start: ir.Tile = ir.Constant(identity(Op.SUM, dtype), dtype, shape)
        name = self.values.name(p.equation.result.name if p.equation.result.name.isidentifier() else "product")
        held = ir.Name(name, shape, dtype)
        if not p.k:
            edge = self.edge(clear)
            place = self.place({self.line: size("j") + ir.axis(1)}, self.t.line, edge)
            pair = tuple(self.values.operand(p.equation, i, place, Known({})) for i in (0, 1))
            return [ir.Let(name, whole(ir.Map("mul", pair, dtype), shape))], held
        n = self.whole_k(p)
        if n is not None:
            a, b = self.operands_of(p, clear, {}, 0, n)
            return [ir.Let(name, ir.Dot(start, a.read, b.read))], held
        *slow, fast = p.k
        at: dict[Letter, Extent] = {x: size(f"s{i}") for i, x in enumerate(slow)}
        a, b = self.operands_of(p, clear, at, size("k"), STEP)
        names = [self.values.name("part") for _ in slow] + [name]
        inits = [start, *(ir.Name(x, shape, dtype) for x in names[:-1])]
        carry = ir.Carry(name, inits[-1], ir.Dot(held, a.read, b.read))
        body: tuple[ir.Statement, ...] = (
            ir.Stream("k", 0, self.size[fast], STEP, (a.fill, b.fill), (carry,)),
        )
        for i in reversed(range(len(slow))):
            step = ir.Carry(names[i], inits[i], ir.Name(names[i + 1], shape, dtype))
            body = (ir.Stream(f"s{i}", 0, self.size[slow[i]], 1, body, (step,)),)
        return list(body), ir.Name(names[0], shape, dtype)

    # --- products behind the line ----------------------------------------------------------------------------------------
    def staged_column(self, p: Product, clear: bool) -> Staged:
        """The stored operand of a product behind the line: line by columns."""
        assert p.column is not None
        wide = self.width(p.column)
        edge = self.edge(clear)
        over = frozenset() if self.size[p.column] == wide else frozenset({p.column})
        at = {**self.outer, self.line: size("j") + ir.axis(0), p.column: ir.axis(1)}
        place = Place(at, (self.t.line, wide), edge | over)
        return self.stage(p, p.b, place, {self.line: 0}, self.t.depth, clear)

    def left_operand(self, p: Product, tile: ir.Tile, right: Staged, body: list[ir.Statement]) -> ir.Tile:
        """The computed operand: rounded and in registers for tensor cores, else through near memory."""
        dtype = operand_dtype(p.equation, p.a, tile)
        near = self.left_near.get(p) or ir.Near(near_name(self.values, p.equation, p.a), dtype, (self.t.rows, self.t.line))
        if on_tensor_cores(near, right.near):
            return ir.Map(f"round_{dtype.name}", (tile,), tile.dtype)
        if p not in self.left_near:
            self.left_near[p] = near
            self.nears.append(near)
        here = (ir.axis(0), ir.axis(1))
        body.append(ir.Put(near, here, tile))
        return ir.Load(ir.View(near, here), (self.t.rows, self.t.line))
