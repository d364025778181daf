"""What each chunk of a scan starts from, where the step is linear in its carry.

    for each chunk, side by side:    e = the carry after it, from 0;   p = the product of its slopes
                                     w, u = the carry after it, from infinity, from minus infinity
    from chunk to chunk:             start[c+1] = p[c] * start[c] + e[c]
In:  a scan in chunks, what its step does to each carry.  Out: for each carry the starts, (chunk, the rest), through a Builder.

Nothing is divided: a product that underflows says that a start is forgotten. Unless |slope| <= 1 is known, the products of f32
are f64, which leave its range only where the carry leaves f32's; those of f64 have an exponent of their own
(transforms/wide_products.py). A start of 0 counts for nothing even where a product is infinite. An infinite or NaN start is
not multiplied: w and u say what becomes of it (a `where` may have put another value in its place; a product of 0 would not
tell that from one that is merely small). So the starts are those of the steps one by one, to rounding, unless slopes are
infinite or the carry overflows on the way: what follows may then be infinite for the one and NaN or a number for the other.
Many chunks are brought together in groups, as steps are in chunks. Read before: linear_steps.py. Read next: parallel_scans.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import kdsl.dtypes as dt
from kdsl.dtypes import DType
from kdsl.ir.frame import Illegal
from kdsl.ir.ops import Op
from kdsl.ir.rules import Builder, identity
from kdsl.ir.scans import Scan, scan_attributes, without
from kdsl.ir.tensor import Function, Literal, Operand, Shape, TensorType, Value
from kdsl.transforms.linear_steps import StepKinds
from kdsl.transforms.prune import live_equations, prune
from kdsl.transforms.side_by_side import SideBySide, side_by_side
from kdsl.transforms.wide_products import apart, times, together

CPU_GROUP, GPU_GROUP = 4096, 128  # chunks that are brought together one after the other; a step takes long on a GPU
OF = {Op.MAXIMUM: Op.MAX, Op.MINIMUM: Op.MIN, Op.OR: Op.ANY, Op.XOR: Op.ANY}


class Chain:
    """One carry from chunk to chunk: e, and p and w where they are needed, as values of one dtype each."""

    def __init__(self, kinds: StepKinds, i: int) -> None:
        self.kind, self.i = kinds.kinds[i], i
        carry = kinds.carry[i]
        self.shape, self.dtype = carry.shape, carry.dtype.compute
        self.fresh = i not in kinds.of(kinds.after[i])
        self.scaled = self.kind == "linear" and not self.fresh and not kinds.is_shift(i)
        self.product: DType = self.dtype
        self.long = False  # products are kept as p and x
        if self.scaled and self.dtype.kind == "bool":
            raise Illegal("its step selects a bool carry")
        if self.scaled and self.dtype.is_floating and not kinds.is_bounded(i):
            self.long = self.dtype is dt.f64
            self.product = dt.f64
        self.watched = self.scaled and self.dtype.is_floating

    @property
    def parts(self) -> list[tuple[str, DType]]:
        """What is known of a chunk."""
        products = [("p", self.product)] * self.scaled + [("x", self.product)] * self.long
        return [("e", self.dtype), *products, *[("w", self.dtype), ("u", self.dtype)] * self.watched]

    def first(self, part: str) -> Literal:
        """What a part is before the first step."""
        if self.kind is Op.AND:
            return True if self.dtype.kind == "bool" else -1 if self.dtype.kind == "signed" else identity(Op.MIN, self.dtype)
        if isinstance(self.kind, Op):
            return identity(OF[self.kind], self.dtype)
        if part in "wu":
            return math.inf if part == "w" else -math.inf
        return (1.0 if self.dtype.is_floating else 1) if part == "p" else (0.0 if self.dtype.is_floating else 0)

    def through(self, b: Builder, start: Value, known: dict[str, Value]) -> Value:
        """The carry after a chunk, from the one before it."""
        e = known["e"]
        if isinstance(self.kind, Op):
            return _v(b.emit(self.kind, start, e))
        if self.fresh:
            return e
        if not self.scaled:
            return _v(b.emit(Op.ADD, start, e))
        p = known["p"]
        if not self.watched:
            return _v(b.emit(Op.ADD, b.emit(Op.MUL, p, start), e))
        wide = _v(b.cast(start, self.product))
        if self.long:
            grown = together(b, times(b, (p, known["x"]), apart(b, wide)))
            p = together(b, (p, known["x"]))
        else:
            grown = _v(b.emit(Op.MUL, p, wide))
        moved = b.emit(Op.ADD, grown, b.cast(e, self.product))
        nothing = b.emit(Op.EQ, e, 0.0)  # -0.0 stays what it is
        near = b.cast(_v(b.emit(Op.WHERE, nothing, grown, moved)), self.dtype)
        near = b.emit(Op.WHERE, b.emit(Op.IS_INF, e), e, near)  # an infinity that arrives hides what would have grown too large
        unreached = b.emit(Op.AND, b.emit(Op.EQ, start, 0.0), b.emit(Op.IS_INF, p))
        near = b.emit(Op.WHERE, unreached, e, near)
        infinite = b.emit(Op.WHERE, b.emit(Op.GT, start, 0.0), known["w"], known["u"])
        ended = b.emit(Op.EQ, known["w"], known["u"])  # or both are what a later infinity made
        far = b.emit(Op.WHERE, b.emit(Op.OR, b.emit(Op.EQ, start, start), ended), infinite, start)
        return _v(b.emit(Op.WHERE, _is_finite(b, start), near, far))


def _v(x: Operand) -> Value:
    assert isinstance(x, Value)
    return x


def _is_finite(b: Builder, x: Value) -> Operand:
    return b.emit(Op.NOT, b.emit(Op.OR, b.emit(Op.IS_NAN, x), b.emit(Op.IS_INF, x)))


class Summaries:
    """What the chunks of one scan do to its carries."""

    def __init__(self, b: Builder, s: Scan, kinds: StepKinds, count: int, machine: str) -> None:
        self.b, self.s, self.kinds, self.count = b, s, kinds, count
        self.most = CPU_GROUP if machine == "cpu" else GPU_GROUP
        self.chains = [Chain(kinds, i) for i, kind in kinds.kinds.items() if kind != "total"]

    def starts(
        self, init: dict[int, Value], replay: Function | None, states: Sequence[Value], xs: Sequence[Value], steps: int
    ) -> dict[int, Value]:
        """What every chunk starts from, by carry; totals start from 0."""
        out: dict[int, Value] = {}
        for i, kind in self.kinds.kinds.items():
            if kind == "total":
                carry = self.kinds.carry[i]
                out[i] = self.full(0.0 if carry.dtype.is_floating else 0, (self.count, *carry.shape), carry.dtype.compute)
        if not self.chains:
            return out
        parts = self.summaries(replay, states, xs, steps)
        begins = [_v(self.b.cast(init[c.i], c.dtype)) for c in self.chains]
        for c, starts in zip(self.chains, self.combined(begins, parts, self.count), strict=True):
            out[c.i] = starts
        return out

    def full(self, value: Literal, shape: tuple, dtype: DType) -> Value:
        return _v(self.b.full(value, shape, dtype))

    # --- 1: each chunk by itself ----------------------------------------------------------------------------------------------
    def summaries(
        self, replay: Function | None, states: Sequence[Value], xs: Sequence[Value], steps: int
    ) -> list[dict[str, Value]]:
        """For each carry what its chunks do to it."""
        s, kinds = self.s, self.kinds
        inner = Builder(s.equation.location)
        side, given = side_by_side(inner, s, self.count, [])
        side.run(e for e in kinds.step.equations if not kinds.of(e.result))
        carries: list[Value] = []
        results: list[Value] = []
        begins: list[Value] = []
        powers: dict[tuple[int, str], Value] = {}
        for c in self.chains:
            own = dict(c.parts)
            if c.scaled and (slope := self.steady(c)) is not None:
                for part, v in self.power(c, slope, steps).items():
                    powers[c.i, part] = v
                    del own[part]
            before = {part: Value(TensorType(dtype, (self.count, *c.shape)), part) for part, dtype in own.items()}
            side.spread |= set(before.values())
            carries += before.values()
            begins += [self.full(c.first(part), v.shape, v.dtype) for part, v in before.items()]
            after = self.products(side, c, before) if "p" in before else {}
            results += [after.get(part) or self.stepped(side, c, v) for part, v in before.items()]
        parameters = (*carries, *given)
        step = prune(Function(f"{s.step.name}_chunk", parameters, tuple(inner.equations), tuple(results), s.step.location))
        read = {v for e in step.equations for v in e.values} | set(results)
        if not any(p in read for p in given[: len(states)]):
            replay = None
            step = Function(step.name, (*carries, *given[len(states) :]), step.equations, step.results, step.location)
        operands = (*begins, *(states if replay else ()), *xs, *s.closures)
        a = scan_attributes(step, len(carries), [1] * len(xs), [], steps, s.reverse, replay, s.every)
        found = (_v(self.b.emit(Op.SCAN, *operands, **a, index=k)) for k in range(len(carries)))
        return [
            {part: powers[c.i, part] if (c.i, part) in powers else next(found) for part, _ in c.parts} for c in self.chains
        ]  # fmt: skip

    def products(self, side: SideBySide, c: Chain, before: dict[str, Value]) -> dict[str, Value]:
        """The product of slopes after a step."""
        if not c.long:
            return {"p": self.sloped(side, c, before["p"])}
        slope = self.sloped(side, c, self.made_in(side.b, 1.0, before["p"]))
        p, x = times(side.b, apart(side.b, slope), (before["p"], before["x"]))
        return {"p": p, "x": x}

    def made_in(self, b: Builder, value: Literal, like: Value) -> Value:
        return _v(b.full(value, like.shape, like.dtype))

    def steady(self, c: Chain) -> Value | None:
        """The slope of a carry, where it is the same in all steps."""
        kinds = self.kinds
        _, _, _, closures = self.s.parameters()
        own = dict(zip(closures, self.s.closures, strict=True))
        side = SideBySide(self.b, self.count)
        for p, v in own.items():
            side.parameter(p, v, False)
        varying = set(self.s.step.parameters) - set(own)
        for e in self.kinds.step.equations:
            if any(v in varying for v in e.values):
                varying.add(e.result)
        factors = {o for e in kinds.path(c.i) for o in e.values if c.i not in kinds.of(o) and e.op not in (Op.ADD, Op.SUB)}
        if factors & varying:
            return None
        side.run(live_equations(self.kinds.step.equations, factors))
        return self.sloped(side, c, self.full(c.first("p"), c.shape, c.product))

    def power(self, c: Chain, slope: Value, steps: int) -> dict[str, Value]:
        """slope ** steps, for each chunk."""
        b = self.b
        square: tuple[Value, ...] = apart(b, slope) if c.long else (slope,)
        out: tuple[Value, ...] | None = None
        while steps:
            if steps % 2:
                out = square if out is None else self.multiplied(b, out, square)
            steps //= 2
            square = self.multiplied(b, square, square) if steps else square
        assert out is not None
        return {part: _v(b.broadcast_to(v, (self.count, *v.shape))) for part, v in zip("px", out, strict=False)}

    def multiplied(self, b: Builder, one: tuple[Value, ...], other: tuple[Value, ...]) -> tuple[Value, ...]:
        """Products, or such in two parts."""
        return times(b, one, other) if len(one) == 2 else (_v(b.emit(Op.MUL, one[0], other[0])),)  # type: ignore[arg-type]

    def stepped(self, side: SideBySide, c: Chain, before: Value) -> Value:
        """The next carry."""
        known = {**side.known, self.kinds.carry[c.i]: before}
        side.run(self.kinds.path(c.i), known)
        return side.whole(known[self.kinds.after[c.i]])

    def sloped(self, side: SideBySide, c: Chain, before: Value) -> Value:
        """The product of slopes, with this step's."""
        b = side.b

        def free(o: Operand) -> Operand:
            if not isinstance(o, Value):
                return o
            v = side.known[o] if before.shape == c.shape else side.whole(side.known[o])
            return v if v.dtype is dt.bool_ else b.cast(v, c.product)

        def zero() -> Value:
            return _v(b.full(0.0 if c.product.is_floating else 0, before.shape, c.product))

        return self.kinds.slope(c.i, before, free, lambda op, *x: _v(b.emit(op, *x)), zero)

    # --- 2: from chunk to chunk -----------------------------------------------------------------------------------------------
    def combined(self, begins: list[Value], parts: list[dict[str, Value]], count: int) -> list[Value]:
        """The start of each of `count` chunks."""
        if count <= self.most:
            return self.along([[v] for v in begins], parts, 0, count, True)
        group = next((n for n in range(self.most, 1, -1) if count % n == 0), count)
        outer = count // group
        apart = [{k: self.reshaped(v, (outer, group, *v.shape[1:])) for k, v in c.items()} for c in parts]
        empty = [[self.full(c.first(k), (outer, *c.shape), dtype) for k, dtype in c.parts] for c in self.chains]
        groups = iter(self.along(empty, apart, 1, group, False))
        whole = [{k: next(groups) for k, _ in c.parts} for c in self.chains]
        firsts = [[v] for v in self.combined(begins, whole, outer)]
        return [self.reshaped(v, (count, *v.shape[2:])) for v in self.along(firsts, apart, 1, group, True)]

    def reshaped(self, v: Value, shape: Shape) -> Value:
        return _v(self.b.emit(Op.RESHAPE, v, shape=shape))

    def along(
        self, begins: list[list[Value]], parts: list[dict[str, Value]], axis: int, count: int, before_each: bool
    ) -> list[Value]:  # fmt: skip
        """From chunk to chunk along an axis: what the carries are before each, or after all."""
        inner = Builder(self.s.equation.location)
        carries: list[Value] = []
        slices: list[Value] = []
        after: list[Value] = []
        for c, starts, known in zip(self.chains, begins, parts, strict=True):
            here = {k: Value(TensorType(v.dtype, without(v.shape, axis)), k) for k, v in known.items()}
            slices += here.values()
            before = {part: Value(v.type, part) for (part, _), v in zip(c.parts, starts, strict=False)}  # alone, e is the carry
            pairs = [tuple(v[k] for k in "px" if k in v) for v in (before, here)]
            products = dict(zip("px", self.multiplied(inner, *pairs) if "p" in before else (), strict=False))
            carries += before.values()
            after += [products.get(part) or c.through(inner, v, here) for part, v in before.items()]
        ys = carries if before_each else []
        name = f"{self.s.step.name}_starts"
        step = Function(name, (*carries, *slices), tuple(inner.equations), (*after, *ys), self.s.step.location)
        a = scan_attributes(step, len(carries), [axis] * len(slices), [axis] * len(ys), count, self.s.reverse)
        operands = (*(v for starts in begins for v in starts), *(v for known in parts for v in known.values()))
        first = len(carries) if before_each else 0
        return [_v(self.b.emit(Op.SCAN, *operands, **a, index=first + k)) for k in range(len(carries))]
