"""Neighbours of scans move into their steps: what feeds a slice, and what is made of what each step gives.

    scan(step, x = exp(d * a))                ->  scan(step on exp(d[t] * a), d)          nothing of x's size is stored
    sum(ys * c, axis of the state)            ->  ys of a step that sums h * c[t]
In:  a simplified Function.  Out: one whose scans read and write less. It runs before differentiation, so that a gradient's scan
is derived from the whole step, and makes again what the step makes.
A map that feeds a slice moves if nothing else reads it. What follows moves if its other operands do not wait for the scan, and
if the step's carry stays in registers with it (transforms/plan_scan.py is asked).
Read before: ir/scans.py, plan_scan.py. Read next: derivatives_scan.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kdsl.ir.frame import Illegal
from kdsl.ir.ops import ELEMENTWISE, Op
from kdsl.ir.scans import Scan, scan_attributes
from kdsl.ir.tensor import Equation, Function, Operand, TensorType, Value, users
from kdsl.target import Target
from kdsl.transforms.plan_scan import plan_scan
from kdsl.transforms.prune import prune
from kdsl.transforms.rewrite import Simplifier
from kdsl.transforms.simplify_scans import simplified

FOLDS = frozenset({Op.SUM, Op.PROD, Op.MAX, Op.MIN, Op.ANY, Op.ALL})
MOVED = frozenset({Op.BROADCAST, Op.PERMUTE})
ANY_CPU = Target("cpu", "x86-64-v3", 32, 16)


def fuse_scans(function: Function) -> Function:
    """The program with the neighbours of its scans in their steps."""
    for first in [e for e in function.equations if e.op is Op.SCAN and e.attributes["replay"] is None]:
        key = Scan(first).key
        if any(e is first for e in function.equations) and _is_first(function, first):
            fused = _Fusion(function, first, key).run()
            function = prune(fused) if fused else function
    return function


def _is_first(function: Function, e: Equation) -> bool:
    key = Scan(e).key
    return next(q for q in function.equations if q.op is Op.SCAN and Scan(q).key == key) is e


class _Fusion:
    """One scan: its step grows in `b`."""

    def __init__(self, function: Function, first: Equation, key: tuple) -> None:
        self.function, self.s = function, Scan(first)
        self.family = [e for e in function.equations if e.op is Op.SCAN and Scan(e).key == key]
        self.readers = users(function)
        self.made = {e.result: e for e in function.equations}
        self.results = set(function.results)
        self.waiting = {e.result for e in self.family}  # what depends on the scan
        for e in function.equations:
            if any(v in self.waiting for v in e.values):
                self.waiting.add(e.result)
        self.feeding = self._feeding()
        carries, _, xs, closures = self.s.parameters()
        self.b = Simplifier()
        self.b.location = first.location
        self.carries = carries
        self.xs: list[tuple[Value, int, Value]] = []  # operand, axis, parameter
        self.closures: list[tuple[Value, Value]] = list(zip(self.s.closures, closures, strict=True))
        self.inside: dict[Value, Operand] = {p: p for p in (*carries, *closures)}
        self.moved = False
        for x, axis, p in zip(self.s.xs, self.s.axes, xs, strict=True):
            self.inside[p] = self.slice_of(x, axis, p.name)

    def _feeding(self) -> set[Equation]:
        """Maps and movements that nothing reads but the scan, what follows it, and each other."""
        following = {e for e in self.function.equations if e.result in self.waiting and (e.op in ELEMENTWISE or e.op in FOLDS)}
        inside = {*self.family, *following}
        out: set[Equation] = set()
        for e in reversed(self.function.equations):
            possible = (e.op in ELEMENTWISE or e.op in MOVED) and e.result not in self.waiting and e.result not in self.results
            if possible and all(q in inside for q in self.readers.get(e.result, ())):
                inside.add(e)
                out.add(e)
        return out

    def run(self) -> Function | None:
        """The program with the larger step, or None where nothing moves."""
        s, b = self.s, self.b
        out = b.replay(s.step, dict(self.inside))
        given = {e.attributes["index"]: e for e in self.family}
        known: dict[Value, tuple[Value, int]] = {}  # what each step knows of it, the axis of its stack
        for j, axis in enumerate(s.out_axes):
            if s.carries + j in given:
                known[given[s.carries + j].result] = b.as_value(out[s.carries + j]), axis
        next_carries = [b.as_value(x) for x in out[: s.carries]]
        for e in self.function.equations:
            if e.op is not Op.SCAN and any(v in known for v in e.values):
                found = self.follows(e, known, next_carries)
                if found is not None:
                    known[e.result] = found
        stored = self.stored(known)
        self.moved |= any(v not in {e.result for e in self.family} for v in stored)
        if not self.moved:
            return None
        step, operands, axes = self.step([*next_carries, *(known[v][0] for v in stored)])
        a = scan_attributes(step, s.carries, axes, [known[v][1] for v in stored], s.length, s.reverse, every=s.every)
        wanted = [(given[i].result, i) for i in sorted(given) if i < s.carries]
        wanted += [(v, s.carries + i) for i, v in enumerate(stored)]
        wanted += [(e.result, i - len(s.step.results) + len(step.results)) for i, e in given.items() if i >= len(s.step.results)]
        scan = [Equation(v, Op.SCAN, operands, {**a, "index": i}, s.equation.location) for v, i in wanted]
        made = {v for v, _ in wanted}
        rest = [e for e in self.function.equations if e.result not in made and e not in self.family]
        before = [e for e in rest if e.result not in self.waiting]
        after = [e for e in rest if e.result in self.waiting]
        return replace(self.function, equations=(*before, *scan, *after))

    def step(self, results: Sequence[Value]) -> tuple[Function, tuple[Value, ...], list[int]]:
        """The step, the operands of the scan, the axes of its slices."""
        parameters = (*self.carries, *(p for _, _, p in self.xs), *(p for _, p in self.closures))
        step = prune(Function(self.s.step.name, parameters, tuple(self.b.equations), tuple(results), self.s.step.location))
        read = {v for e in step.equations for v in e.values} | set(step.results)
        xs = [x for x in self.xs if x[2] in read]
        closures = [c for c in self.closures if c[1] in read]
        step = replace(step, parameters=(*self.carries, *(p for _, _, p in xs), *(p for _, p in closures)))
        simplified.add(step)
        return step, (*self.s.init, *(x for x, _, _ in xs), *(x for x, _ in closures)), [axis for _, axis, _ in xs]

    # --- what feeds a step ----------------------------------------------------------------------------------------------
    def slice_of(self, x: Value, axis: int, name: str) -> Value:
        """The slice of an operand within the step, computed there where only the step needs it."""
        e = self.made.get(x)
        if e is None or e not in self.feeding:
            return self.parameter(x, axis, name)
        if e.op in ELEMENTWISE:
            operands = [self.slice_of(o, axis, o.name) if isinstance(o, Value) else o for o in e.operands]
            out = self.b.value(e.op, *operands, **e.attributes)
        elif e.op is Op.PERMUTE:
            inner = self.slice_of(e.values[0], e.attributes["axes"][axis], name)
            out = self.b.value(Op.PERMUTE, inner, axes=_without(e.attributes["axes"], axis))
        else:
            source, axes = e.values[0], e.attributes["axes"]
            along = axes.index(axis) if axis in axes else None
            if along is None:
                inner = self.closure(source)
            elif source.shape[along] == x.shape[axis]:
                inner = self.slice_of(source, along, name)
            else:
                return self.parameter(x, axis, name)
            shape = (*x.shape[:axis], *x.shape[axis + 1 :])
            out = self.b.value(Op.BROADCAST, inner, shape=shape, axes=tuple(p - (p > axis) for p in axes if p != axis))
        self.moved = True
        return out

    def parameter(self, x: Value, axis: int, name: str) -> Value:
        for y, a, p in self.xs:
            if y is x and a == axis:
                return p
        p = Value(TensorType(x.dtype, (*x.shape[:axis], *x.shape[axis + 1 :])), name)
        self.xs.append((x, axis, p))
        return p

    def closure(self, x: Value) -> Value:
        for y, p in self.closures:
            if y is x:
                return p
        p = Value(x.type, x.name)
        self.closures.append((x, p))
        return p

    # --- what follows a step --------------------------------------------------------------------------------------------
    def follows(
        self, e: Equation, known: dict[Value, tuple[Value, int]], next_carries: list[Value]
    ) -> tuple[Value, int] | None:
        """What each step knows of an equation's result, and the axis of its stack; None where it stays outside."""
        b = self.b
        axes = {known[v][1] for v in e.values if v in known}
        if len(axes) > 1 or any(v in self.waiting and v not in known for v in e.values):
            return None
        axis = next(iter(axes))
        if e.op in ELEMENTWISE:
            operands = [
                o if not isinstance(o, Value) else known[o][0] if o in known else self.slice_of(o, axis, o.name)
                for o in e.operands
            ]
            return b.value(e.op, *operands, **e.attributes), axis
        x = known[e.values[0]][0] if e.values[0] in known else None
        if x is None:
            return None
        if e.op is Op.PERMUTE:
            to = e.attributes["axes"].index(axis)
            return b.value(Op.PERMUTE, x, axes=_without(e.attributes["axes"], to)), to
        if e.op is Op.BROADCAST:
            to = e.attributes["axes"][axis]
            if e.values[0].shape[axis] != e.result.shape[to]:
                return None
            shape = (*e.result.shape[:to], *e.result.shape[to + 1 :])
            places = tuple(p - (p > to) for i, p in enumerate(e.attributes["axes"]) if i != axis)
            return b.value(Op.BROADCAST, x, shape=shape, axes=places), to
        if e.op in FOLDS and axis not in e.attributes["axes"]:
            out = b.value(e.op, x, axes=tuple(a - (a > axis) for a in e.attributes["axes"]))
            mine = out, axis - sum(a < axis for a in e.attributes["axes"])
            return mine if self.stays_in_registers([*next_carries, out], [mine[1]]) else None
        return None

    def stays_in_registers(self, results: list[Value], out_axes: list[int]) -> bool:
        """Does the carry of a step with these results, and nothing else, stay in registers, without sums in parts?"""
        step, operands, axes = self.step(results)
        a = scan_attributes(step, self.s.carries, axes, out_axes, self.s.length, self.s.reverse, every=self.s.every)
        scan = Equation(Value(TensorType(results[-1].dtype, ())), Op.SCAN, operands, {**a, "index": self.s.carries}, None)
        try:
            plan = plan_scan([scan], [scan.result], "", lambda v: True, ANY_CPU)
        except Illegal:
            return False
        return plan.resident is None and not plan.partial

    def stored(self, known: dict[Value, tuple[Value, int]]) -> list[Value]:
        """What is read by others than the step: of a movement what it moves."""
        out: dict[Value, None] = {}

        def need(v: Value) -> None:
            e = self.made[v]
            if e.op in MOVED and v in known and e.values[0] in known:
                need(e.values[0])
            else:
                out[v] = None

        for v in known:
            if v in self.results or any(e.result not in known for e in self.readers.get(v, ())):
                need(v)
        return list(out)


def _without(axes: tuple[int, ...], place: int) -> tuple[int, ...]:
    """The order of the other axes, where the one at `place` is gone."""
    gone = axes[place]
    return tuple(a - (a > gone) for a in axes if a != gone)
