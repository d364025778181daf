"""A long associative scan with few other elements runs in chunks side by side, whatever its combination is.

    y[t] = combine(y[t-1], x[t]),  C chunks of K steps:
    1. for each chunk, side by side:    total[c] = all of its x combined
    2. from chunk to chunk:             start[c+1] = combine(start[c], total[c])
    3. for each chunk, side by side:    the scan itself from its own start
In:  a Function as it was traced.  Out: one in which such a scan is three of them; no SCAN has `combine` any more.

That `combine` is associative is the user's promise, so that only rounding tells chunks from steps one by one. It happens before
anything is simplified (a combination that is simplified for this x is none of totals) and before differentiation: the gradient
of chunks is one of chunks. Sizes alone decide. A combination that is linear in its first operand is left to
parallel_scans.py, which knows more of it; one that is cheap (a comparison) runs as fast step by step on a core, and one that
contracts goes through memory either way. Read before: side_by_side.py, parallel_scans.py. Read next: simplify.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import kdsl.dtypes as dt
from kdsl.ir.frame import Illegal
from kdsl.ir.ops import REDUCTIONS, Op
from kdsl.ir.rules import Builder, identity
from kdsl.ir.scans import Scan, scan_attributes
from kdsl.ir.tensor import Equation, Function, Operand, Shape, TensorType, Value
from kdsl.target import Target
from kdsl.transforms.cost import cost_of
from kdsl.transforms.linear_steps import StepKinds
from kdsl.transforms.parallel_scans import split_steps
from kdsl.transforms.prune import prune
from kdsl.transforms.side_by_side import SideBySide, chunked_parameter, side_by_side
from kdsl.transforms.simplify_scans import simpler_step

DEAR = 8  # vector additions: cheaper combinations run as fast one after the other
MACHINE = Target("cpu", "x86-64-v3", 32, 16)  # for which numbers of chunks are chosen: programs are simplified for none


def associative_scans(function: Function) -> Function:
    """The program with its long associative scans in chunks."""
    if not any(e.op is Op.SCAN and "combine" in e.attributes for e in function.equations):
        return function
    function = prune(function)  # who made it reads no last carry
    families: dict[tuple, list[Equation]] = {}
    for e in function.equations:
        if e.op is Op.SCAN and "combine" in e.attributes:
            families.setdefault(Scan(e).key, []).append(e)
    out: list[Equation] = []
    became: dict[Value, Value] = {}
    alone: set[tuple] = set()
    for e in function.equations:
        e = replace(e, operands=tuple(became.get(o, o) if isinstance(o, Value) else o for o in e.operands))
        found = families.get(Scan(e).key) if e.op is Op.SCAN and "combine" in e.attributes else None
        if found is not None and e.result not in became and Scan(e).key not in alone:
            try:
                chunks = _Chunks(e)
            except Illegal:
                alone.add(Scan(e).key)
            else:
                results = chunks.results()
                out += chunks.b.equations
                became.update({q.result: results[q.attributes["index"]] for q in found})
        if e.result not in became:
            out.append(replace(e, attributes={k: v for k, v in e.attributes.items() if k != "combine"}))
    return prune(replace(function, equations=tuple(out), results=tuple(became.get(v, v) for v in function.results)))


class _Chunks:
    """One associative scan."""

    def __init__(self, e: Equation) -> None:
        s = self.s = Scan(e)
        self.combine = prune(e.attributes["combine"])
        sizes = [v.type.count for v in s.init]
        if not isinstance(s.length, int) or not all(isinstance(n, int) for n in sizes) or 0 in sizes:
            raise Illegal("its sizes are names")
        work = sum(cost_of(e.op) for e in self.combine.equations)
        if work < DEAR or any(e.op in REDUCTIONS or e.op is Op.DOT for e in self.combine.equations):
            raise Illegal("twice its work costs more than waiting for it, or it would go through memory")
        self.count, self.steps = split_steps(s.length, max(sizes), 1, MACHINE)  # type: ignore[type-var]
        if _is_linear(s):
            raise Illegal("it is linear")
        self.rest = s.length - self.count * self.steps
        self.b = Builder(e.location)

    def results(self) -> dict[int, Value]:
        """What stands for the scan's results, by number."""
        s, count = self.s, self.count
        numbers, main = range(s.carries), count * self.steps
        xs = [self.in_chunks(x) for x in s.xs]
        begins = [self.zeros((count, *v.shape), v) for v in s.init]
        operands = (*begins, self.firsts(self.steps), *xs[1:])
        totals = self.scan(self.total_step(), operands, [0] + [1] * s.carries, self.steps, numbers)
        begins = [self.zeros(v.shape, v) for v in s.init]
        befores = [i + s.carries for i in numbers]
        starts = self.scan(self.start_step(), (*begins, self.firsts(count), *totals), [0] * (s.carries + 1), count, befores)
        given = [i + s.carries for i in range(len(s.ys))]
        ys = self.scan(self.wide_step(), (*starts, *xs), [1] * len(xs), self.steps, given)
        ys = [self.emit(Op.RESHAPE, v, shape=(main, *v.shape[2:])) for v in ys]
        if not self.rest:
            return dict(zip(given, ys, strict=True))
        last = [self.part(y, 0 if s.reverse else main - 1, 1) for y in ys]
        last = [self.emit(Op.RESHAPE, v, shape=v.shape[1:]) for v in last]
        more = [self.part(x, 0 if s.reverse else main, self.rest) for x in s.xs]
        tail = self.scan(s.step, (*last, *more), [0] * len(more), self.rest, given)
        pairs = ((t, y) if s.reverse else (y, t) for t, y in zip(tail, ys, strict=True))
        return {i: self.emit(Op.CONCAT, *pair, axis=0) for i, pair in zip(given, pairs, strict=True)}

    def scan(
        self, step: Function, operands: Sequence[Value], axes: Sequence[int], length: int, wanted: Sequence[int]
    ) -> list[Value]:  # fmt: skip
        """A scan of the same direction, with the same closures: its results of these numbers. What steps give lies beside the
        steps' own axis, behind that of chunks."""
        count = len(step.results) - self.s.carries
        a = scan_attributes(step, self.s.carries, axes, [axes[-1]] * count, length, self.s.reverse)
        return [self.emit(Op.SCAN, *operands, *self.s.closures, **a, index=i) for i in wanted]

    def emit(self, op: Op, *operands: Operand, **attributes: Any) -> Value:
        out = self.b.emit(op, *operands, **attributes)
        assert isinstance(out, Value)
        return out

    # --- operands -----------------------------------------------------------------------------------------------------------
    def part(self, x: Value, start: int, n: int) -> Value:
        """`n` places of the first axis from one on."""
        starts, sizes = (start, *(0 for _ in x.shape[1:])), (n, *x.shape[1:])
        return x if sizes == x.shape else self.emit(Op.SLICE, x, starts=starts, sizes=sizes, steps=(1,) * len(sizes))

    def in_chunks(self, x: Value) -> Value:
        """An operand as (chunk, step of the chunk, the rest)."""
        x = self.part(x, self.rest if self.s.reverse else 0, self.count * self.steps)
        return self.emit(Op.RESHAPE, x, shape=(self.count, self.steps, *x.shape[1:]))

    def firsts(self, n: int) -> Value:
        """True at the first of n places, in the direction of the scan."""
        number = self.emit(Op.IOTA, shape=(n,), axis=0, dtype=dt.i64)
        return self.emit(Op.EQ, number, n - 1 if self.s.reverse else 0)

    def zeros(self, shape: Shape, like: Value) -> Value:
        dtype = like.dtype.compute
        return self.emit(Op.FULL, value=identity(Op.SUM, dtype), shape=shape, dtype=dtype)

    # --- steps --------------------------------------------------------------------------------------------------------------
    def total_step(self) -> Function:
        """All x of a chunk so far, from those before and this one."""
        carries, _, xs, _ = self.s.parameters()
        first = Value(xs[0].type, "first")
        before = [chunked_parameter(p, self.count, True) for p in carries]
        now = [chunked_parameter(p, self.count, False) for p in xs[1:]]
        side = SideBySide(Builder(self.s.equation.location), self.count)
        after = self.combined(side, [(p, q, True) for p, q in zip((*carries, *xs[1:]), (*before, *now), strict=True)], first)
        return self.function("total", side, (*before, first, *now), after)

    def start_step(self) -> Function:
        """What a chunk starts from, from the one before it and that one's total."""
        carries, _, xs, _ = self.s.parameters()
        first = Value(xs[0].type, "first")
        before, now = ([Value(TensorType(p.dtype.compute, p.shape), p.name) for p in part] for part in (carries, xs[1:]))
        side = SideBySide(Builder(self.s.equation.location), self.count)
        after = self.combined(side, [(p, q, False) for p, q in zip((*carries, *xs[1:]), (*before, *now), strict=True)], first)
        return self.function("start", side, (*before, first, *now), [*after, *before])

    def combined(self, side: SideBySide, pairs: Sequence[tuple[Value, Value, bool]], first: Value) -> list[Value]:
        """The next carries: the combined ones, at the first step those that come."""
        for old, new, spread in pairs:
            side.parameter(old, new, spread)
        for p in self.s.parameters()[3]:
            side.parameter(p, p, False)
        made = side.run(self.combine.equations)
        wide = pairs[0][2]
        out = []
        for r, p in zip(self.combine.results, self.s.parameters()[2][1:], strict=True):
            one, other = (side.whole(v) if wide else v for v in (made[p], made[r]))
            out.append(side.made(side.b.emit(Op.WHERE, side.b.broadcast_to(first, one.shape), one, other)))
        return out

    def wide_step(self) -> Function:
        """The step itself, for all chunks."""
        inner = Builder(self.s.equation.location)
        side, parameters = side_by_side(inner, self.s, self.count, range(self.s.carries))
        made = side.run(self.s.step.equations)
        results = [side.whole(made[r]) for r in self.s.step.results]
        ys = [inner.cast(v, y.dtype) for v, y in zip(results[self.s.carries :], self.s.ys, strict=True)]
        results = [*results[: self.s.carries], *ys]  # type: ignore[list-item]
        return Function(self.s.step.name, parameters, tuple(inner.equations), tuple(results), self.s.step.location)

    def function(self, what: str, side: SideBySide, parameters: Sequence[Value], results: Sequence[Value]) -> Function:
        """One of the steps before it; it has the closures too."""
        name, closures = f"{self.s.step.name}_{what}", self.s.parameters()[3]
        return Function(name, (*parameters, *closures), tuple(side.b.equations), tuple(results), self.s.step.location)


def _is_linear(s: Scan) -> bool:
    step, numbers = simpler_step(s.step), list(range(s.carries))
    try:
        StepKinds(step, s.carries, numbers, [], [])
    except Illegal:
        return False
    return True
