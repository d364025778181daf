"""The steps of a scan written out between the equations around it, for its kernel.

In:  the equations of one kernel, a SCAN for each result among them, and the values to write.
Out: Written: plain equations. A slice of an operand is a TAKE at the place that a loop's index names, a carry a BARRIER of
what it starts as, a contraction a sum of products. Carries and operands that nothing wanted depends on are left out.
Read before: ir/scans.py. Read next: plan_scan.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from kdsl.ir.frame import Carried, Illegal
from kdsl.ir.ops import Op
from kdsl.ir.rules import Builder, result_type
from kdsl.ir.scans import Scan, live_parts
from kdsl.ir.sizes import Extent, size
from kdsl.ir.tensor import Equation, Function, Operand, Value

STEP, REPLAY, CHUNK = "step", "replay", "chunk"  # the loops over steps, and over checkpoints: step_0 is the outermost scan's


@dataclass(eq=False)
class Written:
    """Plain equations, and what of them is handed on or stored."""

    inner: list[Equation] = field(default_factory=list)
    around: int = 0  # how many of them, the first, do not belong to a step
    replay: int = 0  # where those of the replayed step end
    carries: list[Carried] = field(default_factory=list)
    replayed: list[Carried] = field(default_factory=list)
    ys: dict[Value, tuple[Value, int]] = field(default_factory=dict)
    last: dict[Value, int] = field(default_factory=dict)
    kept: dict[Value, int] = field(default_factory=dict)


def is_turned(s: Scan) -> bool:
    """Are steps counted from the end? They are in the direction in which states arise: a scan with a replay counts down."""
    return s.reverse if s.replay is None else not s.reverse


def write_steps(
    equations: Sequence[Equation], outputs: Sequence[Value], turned: bool, number: int = 0
) -> tuple[Scan, Written]:
    """The scan among these equations, written out; Illegal where there are two. `turned`: steps are counted from the end;
    `number` of the scan, which its loops are named after."""
    found = [e for e in equations if e.op is Op.SCAN]
    s = Scan(found[0])
    if any(Scan(e).key != s.key for e in found):
        raise Illegal("two scans")
    out = Written(inner=[e for e in equations if e.op is not Op.SCAN])
    out.around = len(out.inner)
    wanted = {e.attributes["index"]: e.result for e in found if e.result in set(outputs)}
    count = len(s.step.results)
    results = sorted({i if i < count else i - count for i in wanted})
    live, needed = live_parts(s.step, s.carries, results)
    carries, states, xs, closures = s.parameters()
    w = _Writer(out.inner, s, turned, number)
    inside: dict[Value, Value] = dict(zip(closures, s.closures, strict=True))
    if s.replay is not None:
        want = [i for i, v in enumerate(states) if v in needed]
        kept, read = live_parts(s.replay, len(states), want)
        again: dict[Value, Value] = dict(zip(s.replay.parameters[-len(closures) :] if closures else (), s.closures, strict=True))
        for i in sorted(kept):
            again[s.replay.parameters[i]] = inside[states[i]] = w.barrier(w.take(s.states[i], 0, w.index(CHUNK)), states[i])
        for p, x, axis in zip(s.replay.parameters[len(states) :], s.xs, s.axes, strict=False):
            if p in read:
                again[p] = w.take(x, axis, w.place(REPLAY))
        after = w.inline(s.replay, again, read)
        out.replayed = [Carried(inside[states[i]], after[i]) for i in sorted(kept)]
    out.replay = len(out.inner)
    number: dict[int, int] = {}
    for i in sorted(live):
        number[i] = len(number)
        inside[carries[i]] = w.barrier(s.init[i], carries[i])
    for p, x, axis in zip(xs, s.xs, s.axes, strict=True):
        if p in needed:
            inside[p] = w.take(x, axis, w.place(STEP))
    step = w.inline(s.step, inside, needed)
    out.carries = [Carried(inside[carries[i]], step[i]) for i in sorted(live)]
    for i, result in wanted.items():
        if i < s.carries:
            out.last[result] = number[i]
        elif i < count:
            out.ys[result] = step[i], s.out_axes[i - s.carries]
        else:
            out.kept[result] = number[i - count]
    return s, out


class _Writer:
    """Appends to the equations of a kernel."""

    def __init__(self, inner: list[Equation], s: Scan, turned: bool, number: int) -> None:
        self.inner, self.length, self.turned, self.number = inner, s.length, turned, number
        self.location = s.equation.location
        self.made = {e.result: e for e in inner}

    def index(self, loop: str) -> Extent:
        return size(f"{loop}_{self.number}")

    def place(self, loop: str) -> Extent:
        return self.length - 1 - self.index(loop) if self.turned else self.index(loop)

    def barrier(self, x: Value, like: Value) -> Value:
        out, made = Value(like.type, like.name), self.made.get(x)  # a checkpoint of bf16 lies in f32
        if made is not None and made.op is Op.FULL:  # one for each carry, or their axes would be tied
            x = Value(x.type)
            self.inner.append(Equation(x, Op.FULL, (), made.attributes, made.location))
        self.inner.append(Equation(out, Op.BARRIER, (x,), {}, self.location))
        return out

    def take(self, x: Value, axis: int, place: Extent) -> Value:
        index = Value(result_type(Op.SIZE, (), {}))
        self.inner.append(Equation(index, Op.SIZE, (), {"value": place}, self.location))
        attributes = {"axis": axis}
        out = Value(result_type(Op.TAKE, (x, index), attributes), x.name)
        self.inner.append(Equation(out, Op.TAKE, (x, index), attributes, self.location))
        return out

    def inline(self, function: Function, inside: dict[Value, Value], needed: set[Operand]) -> dict[int, Value]:
        """A copy of a step's equations; its results by number, each a value of its own."""
        for e in function.equations:
            if e.result not in needed:
                continue
            operands = tuple(inside[o] if isinstance(o, Value) else o for o in e.operands)
            if e.op is Op.DOT:
                inside[e.result] = self.dot(e, operands)
                continue
            out = inside[e.result] = Value(e.result.type, e.result.name)
            self.inner.append(Equation(out, e.op, operands, e.attributes, e.location))
        return {i: self.barrier(inside[r], r) for i, r in enumerate(function.results) if r in inside}

    def dot(self, e: Equation, operands: tuple[Operand, ...]) -> Value:
        """A contraction as a sum of products, with the summed axes last."""
        a, b = e.attributes, Builder(e.location)
        extent: dict[str, Extent] = {}
        for letters, v in ((a["left"], e.values[0]), (a["right"], e.values[1])):
            extent.update(zip(letters, v.shape, strict=True))
        order = [*a["out"], *(c for c in extent if c not in a["out"])]
        wide: list[Operand] = []
        for letters, x in zip((a["left"], a["right"]), operands, strict=True):
            assert isinstance(x, Value)
            sorted_letters = sorted(letters, key=order.index)
            if sorted_letters != list(letters):
                x = b.emit(Op.PERMUTE, x, axes=tuple(letters.index(c) for c in sorted_letters))  # type: ignore[assignment]
            axes = tuple(order.index(c) for c in sorted_letters)
            wide.append(b.emit(Op.BROADCAST, x, shape=tuple(extent[c] for c in order), axes=axes))
        out = b.emit(Op.MUL, *wide)
        axes = tuple(range(len(a["out"]), len(order)))
        if axes:
            out = b.emit(Op.SUM, out, axes=axes)
        assert isinstance(out, Value)
        self.inner += b.equations
        return out
