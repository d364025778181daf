"""A long scan with few other elements runs in chunks side by side, where its step is linear in its carry.

    h[t] = a[t] * h[t-1] + b[t],  C chunks of K steps:
    1. for each chunk, side by side:    e = the carry after it, if it were 0 before;  p = the product of its a
    2. from chunk to chunk:             start[c+1] = p[c] * start[c] + e[c]               (transforms/chunk_starts.py)
    3. for each chunk, side by side:    the scan itself from its own start: what the steps give, folds and maps included
In:  a Function in core ops, a target.  Out: one in which such a scan is three of them, whose chunks are one more axis of the
carry; any frame of a scan serves them, on a CPU and on a GPU. Every SCAN says in `note` which way it goes, and why.

Sizes alone decide, so results do not depend on the number of threads. A gradient's scan is linear in what it carries back, and
its chunks begin at checkpoints. Steps beyond the last whole chunk follow it one by one (before it, in a gradient's scan).
Read before: linear_steps.py, side_by_side.py. Read next: chunk_starts.py, group.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kdsl.ir.frame import Illegal
from kdsl.ir.ops import Op
from kdsl.ir.rules import Builder
from kdsl.ir.scans import Scan, live_parts, scan_attributes
from kdsl.ir.tensor import Equation, Function, Operand, Value
from kdsl.target import Target
from kdsl.transforms.chunk_starts import Summaries
from kdsl.transforms.linear_steps import StepKinds
from kdsl.transforms.prune import live_equations, prune
from kdsl.transforms.side_by_side import SideBySide, chunked_parameter, side_by_side

CPU_LANES, GPU_LANES = 2048, 128  # elements side by side that chunks make of a carry: of all cores, of each multiprocessor
CPU_STEPS, GPU_STEPS = 32, 16  # of a chunk, at least
CPU_CHUNKS, GPU_CHUNKS = 128, 16  # at least, or there is nothing to win
CPU_LONG = 512  # steps of a chunk that make what goes from chunk to chunk cheap; no more chunks than that wants
CPU_ENOUGH, GPU_ENOUGH = 4, 32  # elements that are walked step by step: of all cores, of each multiprocessor
Layouts = dict[tuple[Value, int, int], Value]  # checkpoints; chunks, checkpoints of each: the same as (of the chunk, chunk, …)
EVEN = 8  # chunks, and steps of each, in multiples of so many: vectors of both (schedule/scan_blocks.py)


def parallel_scans(function: Function, target: Target) -> Function:
    """The program with its long linear scans in chunks; every scan has its `note`."""
    families: dict[tuple, list[Equation]] = {}
    for e in function.equations:
        if e.op is Op.SCAN:
            families.setdefault(Scan(e).key, []).append(e)
    out: list[Equation] = []
    became: dict[Value, Value] = {}
    notes: dict[tuple, str] = {}
    layouts: Layouts = {}
    for e in function.equations:
        operands = tuple(became.get(o, o) if isinstance(o, Value) else o for o in e.operands)
        if e.op is not Op.SCAN:
            out.append(replace(e, operands=operands))
            continue
        key = Scan(e).key
        if key not in notes:
            try:
                chunked = _Chunked([replace(q, operands=operands) for q in families[key]], target, layouts)
                became.update(chunked.results())
                out += chunked.b.equations
                notes[key] = ""
            except Illegal as reason:
                notes[key] = f"its steps run one after the other: {reason}"
        if notes[key]:
            out.append(replace(e, operands=operands, attributes={**e.attributes, "note": notes[key]}))
    results = tuple(became.get(v, v) for v in function.results)
    return replace(function, equations=live_equations(out, results), results=results) if families else function


def split_steps(length: int, elements: int, unit: int, target: Target) -> tuple[int, int]:
    """(chunks, steps of each): multiples of `unit` steps, and all steps where that can be; or Illegal."""
    on_cpu = target.kind == "cpu"
    each = 1 if on_cpu else target.units
    even = target.choice("scan even", EVEN)
    if elements > target.choice("scan enough", (CPU_ENOUGH if on_cpu else GPU_ENOUGH) * each):
        raise Illegal(f"{elements} elements of a step fill the machine")
    unit = max(unit, even)
    least = -(-target.choice("scan steps", CPU_STEPS if on_cpu else GPU_STEPS) // unit) * unit
    best = min(target.choice("scan long", CPU_LONG), length // CPU_CHUNKS) if on_cpu else 0
    lanes = max(1, target.choice("scan lanes", (CPU_LANES if on_cpu else GPU_LANES) * each) // elements)
    wanted = max(least, best // unit * unit, -(-length // (lanes * unit)) * unit)
    if length < wanted * target.choice("scan chunks", CPU_CHUNKS if on_cpu else GPU_CHUNKS):
        raise Illegal(f"{length} steps are few")
    possible = [n for n in range(unit, 4 * wanted + 1, unit) if 2 * n >= wanted and n >= least]
    whole = [n for n in possible if length % n == 0 and length // n % even == 0]
    if whole:
        wanted = min(whole, key=lambda n: abs(n - wanted))
    count = length // wanted
    return count // even * even or count, wanted


class _Chunked:
    """One scan: the equations of `family` give its results."""

    def __init__(self, family: Sequence[Equation], target: Target, layouts: Layouts) -> None:
        s = self.s = Scan(family[0])
        self.wanted = {e.attributes["index"]: e.result for e in family}
        count = len(s.step.results)
        self.ys = sorted(i for i in self.wanted if s.carries <= i < count)
        self.kept = sorted(i - count for i in self.wanted if i >= count)
        live, _ = live_parts(s.step, s.carries, sorted({i if i < count else i - count for i in self.wanted}))
        self.live = sorted(live)
        parameters = s.parameters()
        self.carries = [parameters[0][i] for i in self.live]
        if not isinstance(s.length, int):
            raise Illegal("its length is a name")
        slices = (*self.carries, *parameters[2], *s.ys)
        sizes = [v.type.count for v in slices]
        if not self.live or not all(isinstance(n, int) for n in sizes):
            raise Illegal("its sizes are names" if self.live else "nothing is carried from step to step")
        elements = max(max(n for n in sizes if isinstance(n, int)), 1)
        self.unit = s.every if s.replay is not None or self.kept else 1
        self.count, self.steps = split_steps(s.length, elements, self.unit, target)
        if s.replay is not None and self.kept:
            raise Illegal("checkpoints of a gradient's scan are wanted")
        read = [s.step.results[i] for i in (*self.live, *self.ys)]
        self.step = replace(s.step, equations=live_equations(s.step.equations, read))  # without carries that nothing waits for
        self.kinds = StepKinds(self.step, s.carries, self.live, self.ys, self.kept)
        self.rest = s.length - self.count * self.steps
        # states arise in this direction; whole chunks lie at the beginning of it
        self.turned = s.reverse if s.replay is None else not s.reverse
        self.b = Builder(s.equation.location)
        self.raw: dict[int, Value] = {}  # checkpoints as they are made
        self.elements, self.target, self.layouts = elements, target, layouts

    def results(self) -> dict[Value, Value]:
        """The values that stand for the scan's results."""
        s, count = self.s, len(self.s.step.results)
        main = self.count * self.steps
        tail_first = s.replay is not None
        tail: dict[int, Value] = {}
        init = dict(zip(range(s.carries), s.init, strict=True))
        if self.rest and tail_first:
            tail = self.tail(init, main)
            init = {i: tail.get(i, v) for i, v in init.items()}
        xs = [self.in_chunks(x, axis) for x, axis in zip(s.xs, s.axes, strict=True)]
        states = [self.states_in_chunks(v) for v in s.states]
        out = self.chunks(init, states, xs)
        if self.rest and not tail_first:
            last = {i: out.get(i, v) for i, v in init.items()}
            tail = self.tail(last, main)
            out.update({i: tail[i] for i in self.wanted if i < s.carries})
        if self.rest:
            for i in self.ys:
                axis = s.out_axes[i - s.carries]
                parts = (tail[i], out[i]) if self.turned else (out[i], tail[i])
                out[i] = self.emit(Op.CONCAT, *parts, axis=axis)
            for i in self.kept:
                out[count + i] = self.emit(Op.CONCAT, out[count + i], tail[count + i], axis=0)
        for i in self.kept:  # in memory, for a gradient's scan to take from
            out[count + i] = self.emit(Op.BARRIER, out[count + i])
            self.layouts[out[count + i], self.count, self.steps // s.every] = self.raw[i]
        return {v: out[i] for i, v in self.wanted.items()}

    def emit(self, op: Op, *operands: Operand, **attributes: Any) -> Value:
        out = self.b.emit(op, *operands, **attributes)
        assert isinstance(out, Value)
        return out

    # --- operands ---------------------------------------------------------------------------------------------------------
    def part(self, x: Value, axis: int, start: int, n: int, step: int = 1) -> Value:
        """`n` places of an axis from one on."""
        if (start, n, step) == (0, x.shape[axis], 1):
            return x
        starts, sizes, steps = ([z] * len(x.shape) for z in (0, 0, 1))
        sizes = list(x.shape)  # type: ignore[arg-type]
        starts[axis], sizes[axis], steps[axis] = start, n, step
        return self.emit(Op.SLICE, x, starts=tuple(starts), sizes=tuple(sizes), steps=tuple(steps))

    def in_chunks(self, x: Value, axis: int) -> Value:
        """An operand as (chunk, step of the chunk, the rest)."""
        x = self.part(x, axis, self.rest if self.turned else 0, self.count * self.steps)
        return self.windows(x, axis, self.steps, (axis, len(x.shape)))

    def windows(self, x: Value, axis: int, n: int, first: tuple[int, int]) -> Value:
        """An axis as windows of n beside each other; they are the last axis. `first`: the axes that come first then."""
        x = self.emit(Op.WINDOW, x, axis=axis, size=n, stride=n, dilation=1)
        last = len(x.shape) - 1
        return self.emit(Op.PERMUTE, x, axes=(*first, *(i for i in range(last) if i not in first)))

    def states_in_chunks(self, v: Value) -> Value:
        """Checkpoints as (checkpoint of the chunk, chunk, the rest)."""
        each = self.steps // self.s.every
        if (v, self.count, each) in self.layouts:
            return self.layouts[v, self.count, each]
        v = self.windows(self.part(v, 0, 0, self.count * each), 0, each, (len(v.shape), 0))
        return self.part(v, 1, self.count - 1, self.count, -1) if self.turned else v

    # --- the chunks -------------------------------------------------------------------------------------------------------
    def chunks(self, init: dict[int, Value], states: list[Value], xs: list[Value]) -> dict[int, Value]:
        """All whole chunks: the results by number."""
        s, b, count = self.s, self.b, len(self.s.step.results)
        replay = self.replay()
        summaries = Summaries(b, s, self.kinds, self.count, self.target.kind)
        starts = summaries.starts(init, replay, states, xs, self.steps)
        inner = Builder(s.equation.location)
        side, parameters = self.side(inner)
        made = side.run(self.step.equations)
        after = [side.whole(made[s.step.results[i]]) for i in self.live]
        ys = [self.given(side, made[s.step.results[i]], i) for i in self.ys]
        step = prune(Function(s.step.name, parameters, tuple(inner.equations), (*after, *ys), s.step.location))
        out_axes = [s.out_axes[i - s.carries] + 1 for i in self.ys]
        a = scan_attributes(step, len(after), [1] * len(xs), out_axes, self.steps, s.reverse, replay, s.every)
        a["note"] = self.note()
        operands = (*(starts[i] for i in self.live), *states, *xs, *s.closures)

        def result(number: int) -> Value:
            return self.emit(Op.SCAN, *operands, **a, index=number)

        out: dict[int, Value] = {}
        for k, i in enumerate(self.live):
            if i in self.wanted or self.rest:
                out[i] = self.last(i, result(k), init[i])
        for k, i in enumerate(self.ys):
            v, axis = result(len(after) + k), s.out_axes[i - s.carries]
            shape = (*v.shape[:axis], self.count * self.steps, *v.shape[axis + 2 :])
            out[i] = self.emit(Op.RESHAPE, v, shape=shape)
        for i in self.kept:
            v = self.raw[i] = result(len(after) + len(ys) + self.live.index(i))
            v = self.part(v, 1, self.count - 1, self.count, -1) if s.reverse else v
            v = self.emit(Op.PERMUTE, v, axes=(1, 0, *range(2, len(v.shape))))
            out[count + i] = self.emit(Op.RESHAPE, v, shape=(v.shape[0] * v.shape[1], *v.shape[2:]))
        return out

    def side(self, inner: Builder) -> tuple[SideBySide, tuple[Value, ...]]:
        """The step's parameters, for all chunks."""
        return side_by_side(inner, self.s, self.count, self.live)

    def given(self, side: SideBySide, v: Value, i: int) -> Value:
        """What a step gives, with the chunks where the stack has its steps."""
        axis = self.s.out_axes[i - self.s.carries]
        out = side.b.cast(side.whole(v), self.s.step.results[i].dtype)
        assert isinstance(out, Value)
        order = (*range(1, axis + 1), 0, *range(axis + 1, len(out.shape)))
        return side.b.permute(out, order) if axis else out  # type: ignore[return-value]

    def replay(self) -> Function | None:
        """The replayed step, for all chunks."""
        s = self.s
        if s.replay is None:
            return None
        inner = Builder(s.equation.location)
        side = SideBySide(inner, self.count)
        parameters: list[Value] = []
        whole = len(s.states) + len(s.xs)
        for k, p in enumerate(s.replay.parameters):
            q = p if k >= whole else chunked_parameter(p, self.count, k < len(s.states))
            parameters.append(q)
            side.parameter(p, q, k < whole)
        made = side.run(s.replay.equations)
        results = tuple(side.whole(made[r]) for r in s.replay.results)
        return prune(Function(s.replay.name, tuple(parameters), tuple(inner.equations), results, s.replay.location))

    def last(self, i: int, v: Value, init: Value) -> Value:
        """The carry after the last step, from those after each chunk."""
        if self.kinds.kinds[i] == "total":
            total = self.emit(Op.SUM, v, axes=(0,))
            return self.b.cast(self.emit(Op.ADD, self.b.cast(init, v.dtype), total), init.dtype)  # type: ignore[return-value]
        v = self.part(v, 0, 0 if self.s.reverse else self.count - 1, 1)
        return self.b.cast(self.emit(Op.RESHAPE, v, shape=init.shape), init.dtype)  # type: ignore[return-value]

    def note(self) -> str:
        said = {"block": "linear in each other", "linear": "linear"}
        what = {str(k.value) if isinstance(k, Op) else said.get(k, k) for k in self.kinds.kinds.values()} - {"total"}
        how = " and ".join(sorted(what)) or "a total"
        return (
            f"{self.s.length} steps of {self.elements} elements do not fill the machine and are {how} in the carry: "
            f"{self.count} chunks of {self.steps} run side by side"
        )

    # --- what is left over --------------------------------------------------------------------------------------------------
    def tail(self, init: dict[int, Value], main: int) -> dict[int, Value]:
        """The steps that make no whole chunk, one after the other: results by number."""
        s = self.s
        xs = [self.part(x, axis, 0 if self.turned else main, self.rest) for x, axis in zip(s.xs, s.axes, strict=True)]
        done = main // s.every if self.unit > 1 else 0
        states = [self.part(v, 0, done, v.shape[0] - done) for v in s.states]  # type: ignore[arg-type]
        a = {**s.equation.attributes, "length": self.rest, "note": f"{self.rest} steps are left over by chunks of {self.steps}"}
        operands = (*(init[i] for i in range(s.carries)), *states, *xs, *s.closures)
        wanted = {*self.live, *self.wanted}
        return {i: self.emit(Op.SCAN, *operands, **{**a, "index": i}) for i in sorted(wanted)}
