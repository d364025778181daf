"""Products, folds and maps along a line -> GPU blocks that walk along it online: nothing as long as the line waits anywhere.

In:  a DotPlan with a line and walks, the memory of its values, the target.  Out: one kernel.

    Parallel outer …, rows by 64
        operands of the rows, once
        for each walk: Stream line by 64, carrying the folds (64, 1) and the products behind the line (64, columns)
            tile (64, 64) = product; maps; folds; sums so far corrected for a maximum that has grown; Dot(sum, tile, stored)
        maps on what was carried, Store

Tiles where an index mask is true throughout, and whole tiles of the line, are a stream of their own without the mask.
Read before: ir/dot_frame.py, online.py, staging.py. Read next: program.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import kdsl.dtypes as dt
from kdsl.ir import loops as ir
from kdsl.ir.dot_frame import LineWalk, Product
from kdsl.ir.frame import DotPlan
from kdsl.ir.ops import Op
from kdsl.ir.rules import identity
from kdsl.ir.sizes import Extent, ceildiv, maximum, minimum, size
from kdsl.ir.tensor import Equation, Value
from kdsl.schedule.dot_values import Expression, Known, Memory, Place
from kdsl.schedule.gpu.chain_operands import ChainOperands
from kdsl.schedule.gpu.chain_tiling import ChainTiling, smaller
from kdsl.schedule.gpu.epilogue import finished
from kdsl.schedule.gpu.limits import first_that_fits
from kdsl.schedule.kernels import kernel
from kdsl.schedule.positions import constant
from kdsl.schedule.register_tile import whole
from kdsl.target import Target

COMBINE = {Op.SUM: "add", Op.PROD: "mul", Op.MAX: "maximum", Op.MIN: "minimum", Op.ANY: "or", Op.ALL: "and"}


def schedule_gpu_chain(
    plan: DotPlan, memory: Callable[[Value], Memory], target: Target, tiling: ChainTiling | None = None
) -> list[ir.Kernel]:
    """The kernel of a strip plan, with the largest tiles that its near memory has room for."""
    if tiling is not None:
        return [_Chain(plan, memory, target, tiling).kernel()]
    best = _Chain(plan, memory, target, None).t
    best = replace(best, line=target.choice("gpu chain line", best.line))
    return [first_that_fits((_Chain(plan, memory, target, t).kernel() for t in smaller(best)), target)]


class _Chain(ChainOperands):
    """The nest of a chain. Loop indices: o0, o1 … outer letters, i the first row, j the first position of a tile of the line."""

    def kernel(self) -> ir.Kernel:
        self.final: dict[Value, ir.Tile] = {}  # what walks so far have summed
        body: list[ir.Statement] = []
        for walk in self.frame.walks:
            body += self.walk(walk)
        body += self.outputs()
        nest: tuple[ir.Statement, ...] = (*self.nears, *self.rows_once, *body)
        assert self.row is not None
        nest = (ir.Parallel("i", 0, self.size[self.row], self.t.rows, nest),)
        for i, x in reversed(list(enumerate(self.frame.outer))):
            nest = (ir.Parallel(f"o{i}", 0, self.size[x], 1, nest),)
        schedule = {"warps": self.t.warps, "rows": self.t.rows, "line": self.t.line, "depth": self.t.depth}
        return kernel(self.plan, nest, schedule)

    # --- one walk ------------------------------------------------------------------------------------------------------
    def walk(self, walk: LineWalk) -> list[ir.Statement]:
        """Statements that walk along the line and leave the sums of the walk in `final`."""
        self.row_tiles, out = self.row_values(walk)
        held = {e: ir.Constant(self.start(e), e.result.dtype.compute, self.shape_of_sum(e)) for e in walk.sums}
        inits: dict[Equation, ir.Tile] = dict(held)
        for lo, hi, clear in self.stretches():
            names = {e: self.values.name("sum" if e.op is Op.DOT else e.op.value) for e in walk.sums}
            carried = {e: ir.Name(n, held[e].shape, held[e].dtype) for e, n in names.items()}
            body, nexts = self.tile(walk, carried, clear)
            carries = tuple(ir.Carry(n, inits[e], nexts[e]) for e, n in names.items())
            out.append(ir.Stream("j", lo, hi, self.t.line, tuple(body), carries))
            inits = dict(carried)
        return out + self.finish_walk(walk, inits)

    def stretches(self) -> list[tuple[Extent, Extent, bool]]:
        """The parts of the line that count: first, end, and whether every decided mask is true there and tiles are whole."""
        first, n, line = size("i"), self.t.rows, self.t.line
        cut, length = self.frame.cut, self.length
        whole_tiles = length // line * line
        lo: Extent = 0
        hi = length
        begin: Extent = 0
        end = whole_tiles
        if cut is not None and cut.below is not None:
            hi = minimum(length, maximum(0, first + n + cut.below))
        if cut is not None and cut.above is not None:
            lo = maximum(0, (first - cut.above) // line * line)
        for _, below, above in cut.masks if cut is not None else ():
            if below is not None:
                end = minimum(end, maximum(0, (first + below + 1) // line * line))
            if above is not None:
                begin = maximum(begin, ceildiv(maximum(0, first + n - 1 - above), line) * line)
        if begin == 0:
            out: list[tuple[Extent, Extent, bool]] = [(0, end, True)] if end != 0 else []
            return out if end == hi else [*out, (end, hi, False)]
        last = maximum(begin, end)
        out = [(lo, minimum(begin, hi), False), (begin, end, True)]
        return out if end == whole_tiles == hi else [*out, (last, hi, False)]

    def tile(
        self, walk: LineWalk, held: dict[Equation, ir.Name], clear: bool
    ) -> tuple[list[ir.Statement], dict[Equation, ir.Tile]]:
        """One tile of the line: statements, and what each sum becomes."""
        body: list[ir.Statement] = []
        edge = self.edge(clear)
        place = self.place({self.line: size("j") + ir.axis(1)}, self.t.line, edge)
        known = Known({**self.final, **{v: t for v, t in self.row_tiles.items() if v in self.values.made}})
        if clear and self.frame.cut is not None:
            for v, _, _ in self.frame.cut.masks:
                known[v] = ir.Constant(True, dt.bool_)
        behind = [p for p in self.consumers if p.equation in walk.sums]
        products = self.products_of(walk)
        body += self.fills(products, behind, clear)
        for p in products:
            statements, known[p.equation.result] = self.product(p, clear)
            body += statements
        self.values.name_in(body, place, known)
        at = self.values.expression(place, known)
        for (e, i), axes in self.plan.letters.uses.items():  # stored values of the rows stand ready too
            stored = e.values[e.values.index(e.operands[i])]  # type: ignore[arg-type]
            if stored in self.row_tiles:
                at.memo[stored, at.place(axes, stored.shape)] = self.row_tiles[stored], 0
        masked = _Masked(self, at, body, clear)
        nexts: dict[Equation, ir.Tile] = {}
        factors: dict[tuple[Equation, float], ir.Tile] = {}
        tops = {q for corrections in walk.corrected.values() for q, _ in corrections}
        for e in walk.sums:
            so_far: ir.Tile = held[e]
            for correction in walk.corrected.get(e, ()):
                so_far = ir.Map("mul", (so_far, factors[correction]), so_far.dtype)
            if e.op is Op.DOT:
                nexts[e] = self.behind_line(self.product_of[e], so_far, masked, clear)
                continue
            part = ir.Fold(e.op.value, masked.operand(e, 0, self.start(e)), 1)
            nexts[e] = ir.Map(COMBINE[e.op], (so_far, part), so_far.dtype)
            if e in tops:
                nexts[e] = self.let(body, "top", nexts[e])
                base = self.let(body, "base", _finite(nexts[e]))
                at.ready[e.result] = lambda base=base: (base, 0)  # type: ignore[misc]
                for k in dict.fromkeys(k for c in walk.corrected.values() for q, k in c if q is e):
                    factors[e, k] = self.let(body, "scale", _grown(held[e], base, k))
        stores = [ir.Store(self.view_of(v, place), whole(masked.value(v), place.shape)) for v in walk.stores]
        return [*body, *stores], nexts

    def behind_line(self, p: Product, so_far: ir.Tile, masked: _Masked, clear: bool) -> ir.Tile:
        """A product behind the line with one more tile of it."""
        tile = masked.operand(p.equation, p.a, 0)
        if p.column is None:
            other = masked.operand(p.equation, p.b, 0)
            each = ir.Fold("sum", ir.Map("mul", (tile, other), so_far.dtype), 1)
            return ir.Map("add", (so_far, each), so_far.dtype)
        right = self.staged_column(p, clear)
        return ir.Dot(so_far, self.left_operand(p, tile, right, masked.body), right.read)

    def finish_walk(self, walk: LineWalk, sums: dict[Equation, ir.Tile]) -> list[ir.Statement]:
        """What was carried, as the program means it: a row that is -inf throughout gives what the maximum itself gives."""
        out: list[ir.Statement] = []
        scales: dict[tuple[Equation, float], ir.Tile] = {}
        for e in walk.sums:
            total = sums[e]
            for top, k in walk.corrected.get(e, ()):
                if (top, k) not in scales:
                    scales[top, k] = self.let(out, "scale", _grown(_finite(sums[top]), sums[top], k))
                total = ir.Map("mul", (total, scales[top, k]), total.dtype)
            self.final[e.result] = total if isinstance(total, ir.Name) else self.let(out, "total", total)
        return out

    # --- the ends ------------------------------------------------------------------------------------------------------
    def row_values(self, walk: LineWalk) -> tuple[dict[Value, ir.Tile], list[ir.Statement]]:
        """Values of the rows alone that a walk uses along the line, each once before it."""
        place = self.place({}, 1)
        known = Known(self.final)
        body: list[ir.Statement] = []
        found: dict[Value, ir.Tile] = {}
        self.values.name_in(body, place, known)
        for v in self.rows_used(walk):
            tile = self.values.value(v, place, known) if v in self.values.made else self.row_input(v, place)
            if len(tile.shape) == 2 and not isinstance(tile, ir.Constant):
                found[v] = tile if isinstance(tile, ir.Name) else self.let(body, v.name or "row", tile)
        return found, body

    def outputs(self) -> list[ir.Statement]:
        """Outputs on the rows alone, and behind each product on its columns."""
        out: list[ir.Statement] = []
        rows = [v for v in self.plan.outputs if self.letters_of(v) <= self.core]
        out += finished(self.values, self.plan, self.memory, self.place({}, 1), Known(self.final), rows)
        for p in self.consumers:
            if p.column is not None:
                wide = self.width(p.column)
                edge = frozenset() if self.size[p.column] == wide else frozenset({p.column})
                mine = [v for v in self.plan.outputs if p.column in self.letters_of(v) and self.is_behind(v, p)]
                place = self.place({p.column: ir.axis(1)}, wide, edge)
                out += finished(self.values, self.plan, self.memory, place, Known(self.final), mine)
        return out

    def view_of(self, v: Value, place: Place) -> ir.View:
        return self.values.view(self.memory(v), self.plan.letters.values[v], v.shape, place)

    def start(self, e: Equation) -> int | float | bool:
        return identity(Op.SUM if e.op is Op.DOT else e.op, e.result.dtype.compute)

    def shape_of_sum(self, e: Equation) -> tuple[int, int]:
        column = self.product_of[e].column if e.op is Op.DOT else None
        return self.t.rows, 1 if column is None else self.width(column)

    def let(self, body: list[ir.Statement], hint: str, tile: ir.Tile) -> ir.Name:
        name = self.values.name(hint if hint.isidentifier() else "v")
        body.append(ir.Let(name, tile))
        return ir.Name(name, tuple(tile.shape), tile.dtype)


class _Masked:
    """Line values at one tile; beyond the end of the line they count as nothing."""

    def __init__(self, chain: _Chain, at: Expression, body: list[ir.Statement], clear: bool) -> None:
        self.chain, self.at, self.body, self.clear = chain, at, body, clear
        self.made: dict[tuple[Value, object], ir.Tile] = {}
        self.inside: ir.Tile | None = None

    def value(self, v: Value) -> ir.Tile:
        return self.at.tile(v, self.at.plain(v))[0]

    def operand(self, e: Equation, number: int, nothing: int | float | bool) -> ir.Tile:
        """An operand of a sum along the line, masked where the tile may reach beyond it."""
        o = e.operands[number]
        shape = (self.chain.t.rows, self.chain.t.line)
        tile = whole(self.at.operand(e, number, self.at.plain_operand(e, number))[0], shape)
        if not self.chain.edge(self.clear) or not isinstance(o, Value):
            return tile
        key = (o, nothing)
        if key not in self.made:
            fill = constant(nothing, tile.dtype)
            self.made[key] = self.chain.let(self.body, "inside", ir.Map("where", (self.within(), tile, fill), tile.dtype))
        return self.made[key]

    def within(self) -> ir.Tile:
        if self.inside is None:
            left = self.chain.length - size("j")
            along = ir.Index(1, (1, self.chain.t.line), dt.i64)
            self.inside = self.chain.let(self.body, "live", ir.Map("lt", (along, ir.Scalar(left, dt.i64)), dt.bool_))
        return self.inside


def _finite(top: ir.Tile) -> ir.Tile:
    """A maximum that may be subtracted: 0 where it is -inf."""
    low = ir.Map("eq", (top, ir.Constant(float("-inf"), top.dtype)), dt.bool_)
    return ir.Map("where", (low, ir.Constant(0.0, top.dtype), top), top.dtype)


def _grown(old: ir.Tile, new: ir.Tile, k: float) -> ir.Tile:
    """exp(k (new - old)), k < 0"""
    less = ir.Map("sub", (old, new), old.dtype)
    if k != -1:
        less = ir.Map("mul", (less, ir.Constant(-k, old.dtype)), old.dtype)
    return ir.Map("exp", (less,), old.dtype)
