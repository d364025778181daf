"""What a step does to its carries: which it only adds up, which it changes linearly, which it folds into a largest or least.

    linear      next = a * carry + b, element by element, a and b independent of every carry (where, / and - are among it)
    monoid      next = maximum(carry, x), and the like
    total       next = carry + x, where x may wait for other carries and nothing else reads the carry
    block       several carries that wait for each other: next[i] = sum_j a[i, j] * carry[j] + b[i], element by element
Such carries may be computed in chunks of steps side by side: what a whole chunk does to a carry is again of that kind.
In:  a step.  Out: the kind of each carry, or Illegal with the reason; the slopes a as equations; whether |a| <= 1.
Read before: ir/scans.py. Read next: parallel_scans.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence

from kdsl.ir.frame import Illegal
from kdsl.ir.ops import ELEMENTWISE, Op
from kdsl.ir.tensor import Equation, Function, Operand, Value

MONOIDS = frozenset({Op.MAXIMUM, Op.MINIMUM, Op.AND, Op.OR, Op.XOR})
SAME = frozenset({Op.BROADCAST, Op.PERMUTE, Op.RESHAPE, Op.SLICE, Op.BARRIER})
MOST_IN_BLOCK = 4  # carries: a chunk does something to each of them for each of them
Range = tuple[float, float]
ANY: Range = (-math.inf, math.inf)


class StepKinds:
    """The carries `live` of a step; the numbers of its results `ys`, and of carries whose checkpoints are `kept`, are wanted."""

    def __init__(self, step: Function, carries: int, live: Sequence[int], ys: Sequence[int], kept: Sequence[int]) -> None:
        self.step = step
        self.made = {e.result: e for e in step.equations}
        self.carry = dict(enumerate(step.parameters[:carries]))
        self.after = dict(enumerate(step.results[:carries]))
        self.depends: dict[Value, frozenset[int]] = {p: frozenset({i}) for i, p in self.carry.items()}
        for e in step.equations:
            self.depends[e.result] = frozenset().union(*(self.depends.get(v, frozenset()) for v in e.values))
        self.readers: dict[Value, int] = {}
        inside = [v for e in step.equations for v in e.values]
        for v in (*inside, *(step.results[i] for i in (*ys, *live)), *(self.carry[i] for i in kept)):
            self.readers[v] = self.readers.get(v, 0) + 1
        self.ranges: dict[Value, Range] = {}
        self.kinds = {i: self.kind(i) for i in live}
        self.blocks = self._blocks()

    def of(self, v: Operand) -> frozenset[int]:
        """The carries that a value depends on."""
        return self.depends.get(v, frozenset()) if isinstance(v, Value) else frozenset()

    def kind(self, i: int) -> str | Op:
        """"linear", "total", "block", or the op of a monoid."""
        carry, after = self.carry[i], self.after[i]
        e = self.made.get(after)
        if e is not None and e.op in MONOIDS and carry in e.operands and self.of(_other(e, carry)) == frozenset():
            return e.op
        if self.is_total(i, e):
            return "total"
        if not self.of(after) <= {i}:
            return "block"
        for q in self.path({i}):
            self.refuse(q)
        return "linear"

    def _blocks(self) -> list[tuple[int, ...]]:
        """The carries that wait for each other, in groups: those that one of them waits for belong to its group."""
        groups: list[set[int]] = []
        for i, kind in self.kinds.items():
            if kind == "block":
                mine = {i, *self.of(self.after[i])}
                for other in [g for g in groups if g & mine]:
                    groups.remove(other)
                    mine |= other
                groups.append(mine)
        for group in groups:
            first = self.carry[min(group)]
            for i in group:
                like = self.carry[i]
                if self.kinds[i] not in ("linear", "block") or not self.of(self.after[i]) <= group:
                    raise Illegal("its carries wait for each other")
                if like.shape != first.shape or like.dtype.compute is not first.dtype.compute:
                    raise Illegal("carries of several types wait for each other")
                self.kinds[i] = "block"
            for e in self.path(group):
                self.refuse(e)
            if len(group) > MOST_IN_BLOCK:
                raise Illegal(f"{len(group)} carries wait for each other")
        return [tuple(sorted(g)) for g in groups]

    def is_total(self, i: int, e: Equation | None) -> bool:
        if e is None or e.op is not Op.ADD or self.carry[i] not in e.operands or self.readers[e.result] != 1:
            return False
        return self.readers[self.carry[i]] == 1 and i not in self.of(_other(e, self.carry[i]))

    def path(self, group: Collection[int]) -> list[Equation]:
        """The equations between carries and the next ones that depend on them, in order."""
        wanted, out = {self.after[i] for i in group}, []
        for e in reversed(self.step.equations):
            if e.result in wanted and self.of(e.result) & set(group):
                out.append(e)
                wanted.update(e.values)
        return out[::-1]

    def refuse(self, e: Equation) -> None:
        """Illegal where an equation on the path is not linear, element by element."""
        waiting = [k for k, o in enumerate(e.operands) if self.of(o)]
        linear = (
            e.op in (Op.ADD, Op.SUB, Op.NEG, Op.BARRIER)
            or (e.op is Op.MUL and len(waiting) == 1)
            or (e.op is Op.DIV and waiting == [0])
            or (e.op is Op.WHERE and 0 not in waiting)
        )
        if not linear:
            raise Illegal("its step rounds its carry" if e.op is Op.CAST else f"its step takes {e.op.value} of its carry")

    def is_shift(self, i: int) -> bool:
        """Is the slope 1, whatever the step reads: is the carry only added to?"""
        return all((e.op in (Op.ADD, Op.BARRIER) and not self.is_twice(e, i)) or self.is_minuend(e, i) for e in self.path({i}))

    def is_twice(self, e: Equation, i: int) -> bool:
        return all(i in self.of(o) for o in e.operands) and len(e.operands) == 2

    def is_minuend(self, e: Equation, i: int) -> bool:
        return e.op is Op.SUB and i in self.of(e.operands[0]) and i not in self.of(e.operands[1])

    # --- the slope ---------------------------------------------------------------------------------------------------------
    def slopes(
        self, starts: Mapping[int, Value], free: Callable[[Operand], Operand], emit: Callable[..., Value],
        zero: Callable[[], Value],
    ) -> dict[int, Value]:  # fmt: skip
        """What `starts` become without what is added: the slopes of the next carries times them. A carry that waits for these
        and is not among them starts at 0. `free`: an operand that waits for no carry; `zero`: what is 0."""
        group = {j for i in starts for j in next((b for b in self.blocks if i in b), (i,))}
        found: dict[Value, Value | None] = {self.carry[i]: v for i, v in starts.items()}
        for e in self.path(group):
            found[e.result] = self._slope(e, found, free, emit, zero)
        return {i: found.get(self.after[i]) or zero() for i in group}

    def _slope(self, e: Equation, found: dict, free: Callable, emit: Callable, zero: Callable) -> Value | None:
        x = [found.get(o) if self.of(o) else None for o in e.operands]
        if all(o is None for o in x):
            return None
        if e.op is Op.BARRIER:
            return x[0]
        if e.op in (Op.MUL, Op.DIV):
            return emit(e.op, *(o if o is not None else free(q) for o, q in zip(x, e.operands, strict=True)))
        if e.op is Op.WHERE:
            one, other = (o if o is not None else zero() for o in x[1:])
            return emit(Op.WHERE, free(e.operands[0]), one, other)
        left = x[0]
        right = x[1] if len(x) == 2 else None
        if e.op is Op.NEG or left is None:
            only = left if right is None else right
            return only if e.op is Op.ADD else emit(Op.NEG, only)
        return left if right is None else emit(e.op, left, right)

    def is_bounded(self, i: int) -> bool:
        """Is the slope at most 1, so that no product of slopes leaves the range of its dtype upwards?"""
        slopes: dict[Value, Range] = {self.carry[i]: (1.0, 1.0)}
        for e in self.path({i}):
            x = [slopes.get(o, (0.0, 0.0)) if isinstance(o, Value) and i in self.of(o) else None for o in e.operands]
            if e.op in (Op.MUL, Op.DIV):
                pair = [r if r is not None else self.range(o) for r, o in zip(x, e.operands, strict=True)]
                slopes[e.result] = _through(e.op, pair)
            elif e.op is Op.WHERE:
                slopes[e.result] = _hull([r or (0.0, 0.0) for r in x[1:]])
            else:
                slopes[e.result] = _through(e.op, [r or (0.0, 0.0) for r in x])
        low, high = slopes.get(self.after[i], (0.0, 0.0))
        return -1 <= low and high <= 1

    def range(self, v: Operand) -> Range:
        """Between which numbers a value lies, NaN aside."""
        if not isinstance(v, Value):
            return float(v), float(v)
        if v not in self.ranges:
            e = self.made.get(v)
            self.ranges[v] = ANY if e is None else self._range(e)
        return self.ranges[v]

    def _range(self, e: Equation) -> Range:
        if e.op is Op.FULL:
            return float(e.attributes["value"]), float(e.attributes["value"])
        if e.op in SAME or (e.op is Op.CAST and e.result.dtype.is_floating):
            return self.range(e.operands[0])
        if e.op is Op.WHERE:
            return _hull([self.range(o) for o in e.operands[1:]])
        if e.op not in ELEMENTWISE:
            return ANY
        if e.op is Op.MUL and e.operands[0] is e.operands[1]:
            return 0.0, math.inf
        return _through(e.op, [self.range(o) for o in e.operands])


def _other(e: Equation, v: Value) -> Operand:
    return e.operands[1] if e.operands[0] is v else e.operands[0]


def _hull(parts: Sequence[Range]) -> Range:
    return min(r[0] for r in parts), max(r[1] for r in parts)


def _through(op: Op, x: Sequence[Range]) -> Range:
    """The range of an op's result."""
    a = x[0]
    if op is Op.NEG:
        return -a[1], -a[0]
    if op is Op.ABS:
        return (0.0 if a[0] <= 0 <= a[1] else min(map(abs, a))), max(map(abs, a))
    if op is Op.EXP:
        return _exp(a[0]), _exp(a[1])
    if op in (Op.TANH, Op.SIN, Op.COS, Op.ERF):
        return -1.0, 1.0
    if op in (Op.MAXIMUM, Op.MINIMUM):
        f = max if op is Op.MAXIMUM else min
        return f(a[0], x[1][0]), f(a[1], x[1][1])
    if op is Op.SUB:
        return _through(Op.ADD, [a, (-x[1][1], -x[1][0])])
    if op is Op.ADD:
        return _known(a[0] + x[1][0], a[1] + x[1][1])
    if op is Op.DIV and (x[1][0] > 0 or x[1][1] < 0):
        return _ends([p / q for p in a for q in x[1]])
    if op is Op.MUL:
        return _ends([p * q for p in a for q in x[1]])
    return ANY


def _exp(x: float) -> float:
    return math.inf if x > 700 else math.exp(x)


def _known(low: float, high: float) -> Range:
    return ANY if math.isnan(low) or math.isnan(high) else (low, high)


def _ends(found: Sequence[float]) -> Range:
    return ANY if any(map(math.isnan, found)) else (min(found), max(found))
