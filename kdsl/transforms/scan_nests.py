"""The nests of a scan whose values lie in memory: what each step computes, one value after the other, and where it puts it.

In:  a scan written out.  Out: its equations, reading what lies in memory as inputs, and a Resident that says what is put there.
A nest makes one value: a fold, a sort, a scatter, what is dear and read again, the next carry, what is stored. Everything
between is made where it is read. A scan within a step is written out in the same way, as a nest of that step.
Read before: scan_steps.py, ir/frame.py. Read next: plan_scan_resident.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from kdsl.ir.frame import Carried, Move, Resident
from kdsl.ir.ops import REDUCTIONS, Op
from kdsl.ir.scans import Scan
from kdsl.ir.sizes import names_in
from kdsl.ir.tensor import Equation, TensorType, Value
from kdsl.transforms.cost import HEAVY, cost_of
from kdsl.transforms.plan_scatter import SCATTERS
from kdsl.transforms.plan_sort import SORTS
from kdsl.transforms.scan_steps import CHUNK, REPLAY, STEP, Written, is_turned, write_steps

EXTREMA = frozenset({Op.MAX, Op.MIN, Op.ARGMAX, Op.ARGMIN})
READ_AGAIN = frozenset({Op.BROADCAST, Op.SCAN})  # an operand's elements are wanted more than once


@dataclass(eq=False)
class _Scope:
    """A scan as it is written: where its nests go, and what lies in memory under another name."""

    r: Resident
    varying: set[Value]  # what is not the same in every step
    named: dict[Value, Value] = field(default_factory=dict)


class Nests:
    """`inner`: the equations; `scan` adds those of a scan and gives its nests.

    `all_shared`: all that is read twice lies in memory."""

    def __init__(self, around: Sequence[Equation], all_shared: bool) -> None:
        self.inner: list[Equation] = list(around)
        self.made = {e.result: e for e in around}
        self.all_shared = all_shared
        self.numbers = itertools.count()

    def scan(self, s: Scan, w: Written, number: int, where: Callable[[Value], Value]) -> Resident:
        """The nests of a scan written out; `where` its results are to lie."""
        r = Resident(s.length, s.every, is_turned(s), number)
        scope = _Scope(r, _varying(w, number))
        starts = {c.before for c in (*w.carries, *w.replayed)}
        wanted = {c.after for c in (*w.carries, *w.replayed)} | {y for y, _ in w.ys.values()}
        self.section(scope, w.inner[w.around : w.replay], r.replay, r.chunk, starts, wanted)
        scope.named = {}
        for c in w.replayed:
            stack = Value(TensorType(c.before.dtype.compute, (s.every, *c.before.shape)), "states")
            r.replay.insert(0, Move(self.copy(c.before, s), stack, "states"))
            scope.named[c.before] = Value(c.before.type, c.before.name)
            r.states[scope.named[c.before]] = stack
        self.advance(w.replayed, r.replay, s)
        for result, i in w.kept.items():
            r.step.append(Move(self.copy(w.carries[i].before, s), where(result), "kept"))
        self.section(scope, w.inner[w.replay :], r.step, r.begin, starts, wanted)
        r.step += [Move(y, where(result), "stack", axis) for result, (y, axis) in w.ys.items()]
        self.advance(w.carries, r.step, s)
        r.end = [Move(self.copy(w.carries[i].before, s), where(result)) for result, i in w.last.items()]
        return r

    def advance(self, carries: Sequence[Carried], moves: list[Move | Resident], s: Scan) -> None:
        """The next carries, all of them from the old ones: by way of a copy, but for what lies in memory of its own already."""
        before = {c.before for c in carries}
        last: list[Move | Resident] = []
        for c in carries:
            (made,) = self.made[c.after].values
            if made is c.before:  # as it was
                continue
            if made not in self.made and made not in before:
                last.append(Move(c.after, c.before))
                continue
            after = Value(c.after.type, c.after.name)
            moves.append(Move(c.after, after))
            last.append(Move(self.copy(after, s), c.before))
        moves += last

    def add(self, e: Equation) -> None:
        self.inner.append(e)
        self.made[e.result] = e

    def copy(self, v: Value, s: Scan) -> Value:
        out = Value(v.type, v.name)
        self.add(Equation(out, Op.BARRIER, (v,), {}, s.equation.location))
        return out

    # --- equations ------------------------------------------------------------------------------------------------------
    def section(
        self, scope: _Scope, equations: Sequence[Equation], moves: list[Move | Resident], begins: list[Move | Resident],
        starts: set[Value], wanted: set[Value],
    ) -> None:  # fmt: skip
        """Add the equations of a step; the nests of what has to lie in memory go to `moves`, what starts a carry to `begins`."""
        named = scope.named
        readers: dict[Value, list[Equation]] = {}
        for e in equations:
            for v in e.values:
                readers.setdefault(v, []).append(e)
        scans: dict[tuple, list[Equation]] = {}
        cost: dict[Value, int] = {}
        for e in equations:
            if e.op is Op.SCAN:
                scans.setdefault(Scan(e).key, []).append(e)
        for e in equations:
            operands = tuple(named.get(o, o) if isinstance(o, Value) else o for o in e.operands)
            to = moves if e.result in scope.varying else scope.r.begin
            if e.result in starts:  # what a carry is before the first step
                first = Value(e.result.type, e.result.name)
                self.add(replace(e, result=first, operands=operands))
                begins.append(Move(first, e.result))
            elif e.op is Op.SCAN:
                self.inner_scan(scope, scans.pop(Scan(e).key, ()), to)
            elif e.op in SORTS:
                x = self.in_memory(scope, e.values[0], moves)
                self.add(replace(e, operands=(x,)))
                self.put(scope, e.result, to)
            elif e.op in SCATTERS:
                start = Value(e.result.type, e.result.name)
                self.add(Equation(start, Op.BARRIER, operands[:1], {}, e.location))
                self.add(replace(e, operands=(start, *operands[1:])))
                named[e.result] = Value(e.result.type, e.result.name)
                to += [Move(start, named[e.result]), Move(e.result, named[e.result], "scatter")]
            else:
                self.add(replace(e, operands=operands))
                slice_ = e.op is Op.TAKE and e.values[0] not in cost
                mine = 0 if slice_ else cost_of(e.op) + sum(cost.get(v, 0) for v in e.values if v not in named)
                cost[e.result] = mine
                if e.result not in wanted and self.lies_in_memory(e, readers.get(e.result, ()), mine):
                    self.put(scope, e.result, to)

    def lies_in_memory(self, e: Equation, readers: Sequence[Equation], cost: int) -> bool:
        """Whether a value is made once and read from memory."""
        if e.op in REDUCTIONS or e.op is Op.RESHAPE:
            return True
        several = len(readers) > 1
        if cost >= HEAVY and (several or any(q.op in READ_AGAIN for q in readers)):
            return True
        # a maximum is compared with what it is of, bit for bit: both must be one computation
        if cost > 0 and several and any(q.op in EXTREMA for q in readers):
            return True
        return self.all_shared and several and e.op is not Op.SIZE

    def put(self, scope: _Scope, v: Value, to: list[Move | Resident]) -> Value:
        """A nest that puts a value into memory, and its name there."""
        scope.named[v] = out = Value(v.type, v.name)
        to.append(Move(v, out))
        return out

    def in_memory(self, scope: _Scope, v: Value, moves: list[Move | Resident]) -> Value:
        """What a value is called in memory, where it is put if it does not lie there yet."""
        v = scope.named.get(v, v)
        return self.put(scope, v, moves if v in scope.varying else scope.r.begin) if v in self.made else v

    def inner_scan(self, scope: _Scope, family: Sequence[Equation], to: list[Move | Resident]) -> None:
        """A scan within a step; nothing where its other results have brought it along."""
        if not family:
            return
        inside = [
            replace(e, operands=tuple(scope.named.get(v, v) for v in e.values), result=Value(e.result.type, e.result.name))
            for e in family
        ]
        s = Scan(inside[0])
        number = next(self.numbers) + 1
        s, w = write_steps(inside, [e.result for e in inside], is_turned(s), number)
        to.append(self.scan(s, w, number, lambda v: v))
        scope.named.update((e.result, q.result) for e, q in zip(family, inside, strict=True))


def _varying(w: Written, number: int) -> set[Value]:
    """What is not the same in every step."""
    out: set[Value] = set()
    starts = {c.before for c in (*w.carries, *w.replayed)}
    places = {f"{loop}_{number}" for loop in (STEP, REPLAY, CHUNK)}
    slices = {e.result for e in w.inner if e.op is Op.SIZE and names_in(e.attributes["value"]) & places}
    for e in w.inner[w.around :]:
        if e.result in starts or any(v in out or v in slices for v in e.values):
            out.add(e.result)
    return out
