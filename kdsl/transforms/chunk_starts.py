"""What each chunk of a scan starts from, where the step is linear in its carry.

    for each chunk, side by side:    what it does to its carries: a Chain for each of them, a Block where they wait for each other
    from chunk to chunk:             start[c+1] = p[c] * start[c] + e[c]
In:  a scan in chunks, what its step does to each carry.  Out: for each carry the starts, (chunk, the rest), through a Builder.

Many chunks are brought together in groups, as steps are in chunks.
Read before: chunk_chain.py, chunk_blocks.py. Read next: parallel_scans.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import kdsl.dtypes as dt
from kdsl.dtypes import DType
from kdsl.ir.ops import Op
from kdsl.ir.rules import Builder
from kdsl.ir.scans import Scan, scan_attributes, without
from kdsl.ir.tensor import Function, Literal, Operand, Shape, TensorType, Value
from kdsl.transforms.chunk_blocks import Block
from kdsl.transforms.chunk_chain import Chain, Parts, as_value
from kdsl.transforms.linear_steps import StepKinds
from kdsl.transforms.prune import live_equations, prune
from kdsl.transforms.side_by_side import SideBySide, side_by_side
from kdsl.transforms.wide_products import apart, times

CPU_GROUP, GPU_GROUP = 256, 128  # chunks that are brought together one after the other; a step takes long on a GPU


class Summaries:
    """What the chunks of one scan do to its carries."""

    def __init__(self, b: Builder, s: Scan, kinds: StepKinds, count: int, machine: str) -> None:
        self.b, self.s, self.kinds, self.count = b, s, kinds, count
        self.most = CPU_GROUP if machine == "cpu" else GPU_GROUP
        self.chains: list[Chain | Block] = [Chain(kinds, i) for i, k in kinds.kinds.items() if k not in ("total", "block")]
        self.chains += [Block(kinds, group) for group in kinds.blocks]

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
        begins = [[as_value(self.b.cast(init[i], c.dtype)) for i in c.carries] for c in self.chains]
        for c, starts in zip(self.chains, self.combined(begins, parts, self.count), strict=True):
            out.update(zip(c.carries, starts, strict=True))
        return out

    def full(self, value: Literal, shape: tuple, dtype: DType) -> Value:
        return as_value(self.b.full(value, shape, dtype))

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
        powers: list[Parts] = []
        for c in self.chains:
            own = dict(c.parts)
            powers.append(self.steady(c, steps) if c.products else {})
            before = {k: Value(TensorType(own[k], (self.count, *c.shape)), k) for k in own if k not in powers[-1]}
            side.spread |= set(before.values())
            carries += before.values()
            begins += [self.full(c.first(part), v.shape, v.dtype) for part, v in before.items()]
            after = self.stepped(side, c, before)
            results += [after[part] for part in before]
        parameters = (*carries, *given)
        step = prune(Function(f"{s.step.name}_chunk", parameters, tuple(inner.equations), tuple(results), s.step.location))
        read = {v for e in step.equations for v in e.values} | set(results)
        if not any(p in read for p in given[: len(states)]):
            replay = None
            step = Function(step.name, (*carries, *given[len(states) :]), step.equations, step.results, step.location)
        operands = (*begins, *(states if replay else ()), *xs, *s.closures)
        a = scan_attributes(step, len(carries), [1] * len(xs), [], steps, s.reverse, replay, s.every)
        found = (as_value(self.b.emit(Op.SCAN, *operands, **a, index=k)) for k in range(len(carries)))
        return [{k: p[k] if k in p else next(found) for k, _ in c.parts} for c, p in zip(self.chains, powers, strict=True)]

    def stepped(self, side: SideBySide, c: Chain | Block, before: Parts) -> Parts:
        """What is known of a chunk after one step more."""
        if isinstance(c, Block):
            return self.stepped_block(side, c, before)
        products = {}
        if "p" in before:
            one = as_value(side.b.full(c.first("p"), before["p"].shape, c.product)) if c.long else before["p"]
            slope = self.sloped(side, c, {c.i: one}, c.product)[c.i]
            products = {"p": slope}
            if c.long:
                p, x = times(side.b, apart(side.b, slope), (before["p"], before["x"]))
                products = {"p": p, "x": x}
        return {k: products[k] if k in products else self.after(side, {c.i: v})[0] for k, v in before.items()}

    def stepped_block(self, side: SideBySide, c: Block, before: Parts) -> Parts:
        out = dict(zip(c.adding, self.after(side, dict(zip(c.carries, (before[k] for k in c.adding), strict=True))), strict=True))
        return out | self.sloped_block(side, c, before) if c.matrix[0] in before else out

    def sloped_block(self, side: SideBySide, c: Block, before: Parts) -> Parts:
        """The matrices after one step more, column by column."""
        out: Parts = {}
        for what, dtype in (("p", c.product), ("w", c.dtype))[: 2 if c.reaching else 1]:
            for j in c.places:
                column = {i: before[f"{what}{k}{j}"] for k, i in enumerate(c.carries)}
                slopes = self.sloped(side, c, column, dtype)
                out |= {f"{what}{k}{j}": slopes[i] for k, i in enumerate(c.carries)}
        return out | c.scaled(side.b, [out[k] for k in c.matrix], [before["x"]] if c.long else [])

    def steady(self, c: Chain | Block, steps: int) -> Parts:
        """The products over all steps of a chunk, where the slopes are the same in all of them; else nothing."""
        kinds, b = self.kinds, self.b
        _, _, _, closures = self.s.parameters()
        own = dict(zip(closures, self.s.closures, strict=True))
        side = SideBySide(b, self.count)
        for p, v in own.items():
            side.parameter(p, v, False)
        varying = set(self.s.step.parameters) - set(own)
        for e in kinds.step.equations:
            if any(v in varying for v in e.values):
                varying.add(e.result)
        path = kinds.path(c.carries)
        factors = {o for e in path for o in e.values if not kinds.of(o) and e.op not in (Op.ADD, Op.SUB)}
        if factors & varying:
            return {}
        side.run(live_equations(kinds.step.equations, factors))
        kind = dict(c.parts)
        ones = {k: self.full(c.first(k), c.shape, kind[k]) for k in c.products}
        if isinstance(c, Block):
            square = self.sloped_block(side, c, ones)
        else:
            slope = self.sloped(side, c, {c.i: ones["p"]}, c.product)[c.i]
            square = dict(zip("px", apart(b, slope) if c.long else (slope,), strict=False))
        out: Parts = {}
        while steps:  # slopes ** steps
            if steps % 2:
                out = c.multiplied(b, out, square) if out else square
            steps //= 2
            square = c.multiplied(b, square, square) if steps else square
        return {k: as_value(b.broadcast_to(v, (self.count, *v.shape))) for k, v in out.items()}

    def after(self, side: SideBySide, before: dict[int, Value]) -> list[Value]:
        """The next carries."""
        known = {**side.known, **{self.kinds.carry[i]: v for i, v in before.items()}}
        side.run(self.kinds.path(before), known)
        return [side.whole(known[self.kinds.after[i]]) for i in before]

    def sloped(self, side: SideBySide, c: Chain | Block, before: dict[int, Value], dtype: DType) -> dict[int, Value]:
        """The slopes of the next carries times these."""
        b, shape = side.b, next(iter(before.values())).shape

        def free(o: Operand) -> Operand:
            if not isinstance(o, Value):
                return o
            v = side.known[o] if shape == c.shape else side.whole(side.known[o])
            return v if v.dtype is dt.bool_ else b.cast(v, dtype)

        def zero() -> Value:
            return as_value(b.full(0.0 if dtype.is_floating else 0, shape, dtype))

        return self.kinds.slopes(before, free, lambda op, *x: as_value(b.emit(op, *x)), zero)

    # --- 2: from chunk to chunk -----------------------------------------------------------------------------------------------
    def combined(self, begins: list[list[Value]], parts: list[Parts], count: int) -> list[list[Value]]:
        """The starts of each of `count` chunks, for each chain those of its carries."""
        if count <= self.most:
            return self.along(begins, parts, 0, count, True)
        group = next((n for n in range(self.most, 1, -1) if count % n == 0), count)
        outer = count // group
        apart = [{k: self.reshaped(v, (outer, group, *v.shape[1:])) for k, v in c.items()} for c in parts]
        empty = [[self.full(c.first(k), (outer, *c.shape), dtype) for k, dtype in c.parts] for c in self.chains]
        groups = self.along(empty, apart, 1, group, False)
        whole = [{k: v for (k, _), v in zip(c.parts, found, strict=True)} for c, found in zip(self.chains, groups, strict=True)]
        firsts = self.combined(begins, whole, outer)
        found = self.along(firsts, apart, 1, group, True)
        return [[self.reshaped(v, (count, *v.shape[2:])) for v in starts] for starts in found]

    def reshaped(self, v: Value, shape: Shape) -> Value:
        return as_value(self.b.emit(Op.RESHAPE, v, shape=shape))

    def along(
        self, begins: list[list[Value]], parts: list[Parts], axis: int, count: int, before_each: bool
    ) -> list[list[Value]]:  # fmt: skip
        """From chunk to chunk along an axis: what the carries are before each, or all that is known after all."""
        inner = Builder(self.s.equation.location)
        carries: list[Value] = []
        slices: list[Value] = []
        after: list[Value] = []
        for c, starts, known in zip(self.chains, begins, parts, strict=True):
            here = {k: Value(TensorType(v.dtype, without(v.shape, axis)), k) for k, v in known.items()}
            slices += here.values()
            before = {part: Value(v.type, part) for (part, _), v in zip(c.parts, starts, strict=False)}  # alone, e is the carry
            carries += before.values()
            joined = c.joined(inner, before, here)
            after += [joined[k] for k in before]
        ys = carries if before_each else []
        name = f"{self.s.step.name}_starts"
        step = Function(name, (*carries, *slices), tuple(inner.equations), (*after, *ys), self.s.step.location)
        a = scan_attributes(step, len(carries), [axis] * len(slices), [axis] * len(ys), count, self.s.reverse)
        operands = (*(v for starts in begins for v in starts), *(v for known in parts for v in known.values()))
        first = len(carries) if before_each else 0
        found = iter([as_value(self.b.emit(Op.SCAN, *operands, **a, index=first + k)) for k in range(len(carries))])
        return [[next(found) for _ in starts] for starts in begins]
