"""Plans of scans whose carry does not stay in registers: products with matrices, carries that are shifted, several folds.

In:  a scan written out.  Out: a ScanPlan with `resident`: a step as nests over its axes, one after the other, through memory.
A nest makes one value: a fold, what is dear and read again, the next carry, what is stored. Everything between is made where
it is read. Letters that all values keep at one place are loops around the scan; the others stand in each nest.
Read before: plan_scan.py. Read next: schedule/scan_resident.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from kdsl.ir.frame import Illegal, Letter, Letters, Move, Resident, ScanPlan, flat, within
from kdsl.ir.ops import ELEMENTWISE, MOVEMENT, REDUCTIONS, SOURCES, Op
from kdsl.ir.scans import Scan
from kdsl.ir.tensor import Equation, TensorType, Value
from kdsl.transforms.cost import HEAVY, cost_of
from kdsl.transforms.joined_letters import dropped
from kdsl.transforms.letters import HardLetters, letters_of
from kdsl.transforms.scan_steps import Written
from kdsl.transforms.ties import MOVING, tied_axes

NEAR = 32 * 1024  # bytes of one value in near memory, at most
ALL_NEAR = 192 * 1024  # bytes of all of them
EXTREMA = frozenset({Op.MAX, Op.MIN, Op.ARGMAX, Op.ARGMIN})
POSSIBLE = ELEMENTWISE | MOVEMENT | SOURCES | REDUCTIONS | {Op.TAKE, Op.TAKE_ALONG, Op.BARRIER}


def plan_resident(w: Written, contiguous: Callable[[Value], bool], s: Scan) -> ScanPlan:
    """The plan, or Illegal."""
    for e in w.inner:
        if e.op not in POSSIBLE:
            raise Illegal(f"{e.op.value} in the step of a scan")
    try:
        return _planned(w, contiguous, s, False)
    except Illegal:  # a value that is read at two places of a loop must lie in memory
        return _planned(w, contiguous, s, True)


def _planned(w: Written, contiguous: Callable[[Value], bool], s: Scan, all_shared: bool) -> ScanPlan:
    inner, r = _nests(w, s, all_shared)
    pairs = [m for part in (r.begin, r.chunk, r.replay, r.step, r.end) for m in part]
    memory = {m.into for m in pairs if m.how in ("near", "states")} | set(r.states)
    hard = HardLetters().add(inner)
    for m in pairs:
        if m.how == "near":
            _name_alike(hard, m.value, m.into)
        for read, stack in r.states.items():
            if stack is m.into:
                _name_alike(hard, m.value, read)
    letters = letters_of(inner, lambda v: v not in memory and contiguous(v), hard)
    outputs = [m.value for m in pairs if m.how in ("stack", "kept")] + [m.value for m in r.end]
    outer = _outer(inner, letters, pairs, r, outputs)
    results = {m.into for m in pairs if m.how in ("stack", "kept")} | {m.into for m in r.end}
    inputs = dict.fromkeys(e.operands[i] for e, i in letters.uses)
    plan = ScanPlan("", (), tuple(v for v in inputs if isinstance(v, Value) and v not in memory), (), letters)
    plan.inner, plan.resident, plan.outer = tuple(inner), r, tuple(outer)
    total = 0
    for m in pairs:
        if m.into in results or m.into in r.near:
            continue
        size = m.into.dtype.compute.bytes
        for axis, n in zip(letters.values[m.value], m.value.shape, strict=True):
            size = size * within(axis, n, outer, letters.size)  # type: ignore[assignment]
        if m.how == "states":
            size *= s.every
        if isinstance(size, int) and size <= NEAR and total + size <= ALL_NEAR:
            r.near.add(m.into)
            total += size
        elif not outer.keys() <= set(flat(letters.values[m.value])):
            raise Illegal("a step's value that all blocks share is too large for near memory")
    return plan


def _nests(w: Written, s: Scan, all_shared: bool) -> tuple[list[Equation], Resident]:
    """The equations, reading what lies in memory as inputs; and the nests that put it there.

    `all_shared`: everything that is read twice lies in memory."""
    r = Resident()
    inner: list[Equation] = list(w.inner[: w.around])
    starts = {c.before for c in (*w.carries, *w.replayed)}
    wanted = {v for c in (*w.carries, *w.replayed) for v in (c.after,)} | {y for y, _ in w.ys.values()}
    varying = _varying(w)

    def section(equations: Sequence[Equation], moves: list[Move], begins: list[Move], named: dict[Value, Value]) -> None:
        readers: dict[Value, list[Equation]] = {}
        for e in equations:
            for v in e.values:
                readers.setdefault(v, []).append(e)
        cost: dict[Value, int] = {}
        for e in equations:
            operands = tuple(named.get(o, o) if isinstance(o, Value) else o for o in e.operands)
            if e.result in starts:  # what a carry is before the first step
                first = Value(e.result.type, e.result.name)
                inner.append(replace(e, result=first, operands=operands))
                begins.append(Move(first, e.result))
                continue
            inner.append(replace(e, operands=operands))
            slice_ = e.op is Op.TAKE and e.values[0] not in cost
            mine = 0 if slice_ else cost_of(e.op) + sum(cost.get(v, 0) for v in e.values if v not in named)
            cost[e.result] = mine
            others = readers.get(e.result, [])
            dear = mine >= HEAVY and (len(others) > 1 or any(q.op is Op.BROADCAST for q in others))
            # a maximum is compared with what it is of, bit for bit: both must be one computation
            dear = dear or (mine > 0 and len(others) > 1 and any(q.op in EXTREMA for q in others))
            dear = dear or (all_shared and len(others) > 1 and e.op is not Op.SIZE)
            if e.result not in wanted and (e.op in REDUCTIONS or e.op is Op.RESHAPE or dear):
                named[e.result] = Value(e.result.type, e.result.name)
                once = e.result not in varying
                (r.begin if once else moves).append(Move(e.result, named[e.result]))

    def copy(v: Value) -> Value:
        out = Value(v.type, v.name)
        inner.append(Equation(out, Op.BARRIER, (v,), {}, s.equation.location))
        return out

    def advance(carries: Sequence, moves: list[Move]) -> None:
        """The next carries, all of them from the old ones."""
        after = [Value(c.after.type, c.after.name) for c in carries]
        moves += [Move(c.after, a) for c, a in zip(carries, after, strict=True)]
        moves += [Move(copy(a), c.before) for c, a in zip(carries, after, strict=True)]

    section(w.inner[w.around : w.replay], r.replay, r.chunk, {})
    named: dict[Value, Value] = {}
    for c in w.replayed:
        stack = Value(TensorType(c.before.dtype.compute, (s.every, *c.before.shape)), "states")
        r.replay.insert(0, Move(copy(c.before), stack, "states"))
        named[c.before] = Value(c.before.type, c.before.name)
        r.states[named[c.before]] = stack
    advance(w.replayed, r.replay)
    for result, i in w.kept.items():
        r.step.append(Move(copy(w.carries[i].before), result, "kept"))
    section(w.inner[w.replay :], r.step, r.begin, named)
    r.step += [Move(y, result, "stack", axis) for result, (y, axis) in w.ys.items()]
    advance(w.carries, r.step)
    r.end = [Move(copy(w.carries[i].before), result) for result, i in w.last.items()]
    return inner, r


def _varying(w: Written) -> set[Value]:
    """What is not the same in every step."""
    out: set[Value] = set()
    for e in w.inner[w.around :]:
        made_anew = e.op is Op.TAKE or e.result in {c.before for c in (*w.carries, *w.replayed)}
        if made_anew or any(v in out for v in e.values):
            out.add(e.result)
    return out


def _name_alike(h: HardLetters, made: Value, read: Value) -> None:
    """Axes of a value and of its uses through memory have one name where that makes no clash."""
    for use in h.readers.get(read, ()):
        apart = set(map(h.union.find, h.private))  # axes that are read at other places than a loop's
        for a, b in zip(h.made[made], h.uses[use], strict=True):
            if h.union.find(b) in apart:
                continue
            mark = h.union.mark()
            try:
                h.union.tie(a, b)
            except Illegal:
                h.union.undo(mark)


def _outer(
    inner: Sequence[Equation], letters: Letters, pairs: Sequence[Move], r: Resident, outputs: Sequence[Value]
) -> dict[Letter, None]:
    """The letters of loops around the scan: every result has them, every value in memory has them at one place."""
    found = dict.fromkeys(x for v in outputs for x in flat(letters.values[v]))
    through = {m.into: m.value for m in pairs if m.how == "near"}
    through.update({read: m.value for read, stack in r.states.items() for m in pairs if m.into is stack})
    for v in outputs:
        found = {x: None for x in found if x in flat(letters.values[v])}
    for e in inner:
        if e.op in REDUCTIONS:
            found = {x: None for x in found if x not in dropped(e, letters)}
        if e.op in MOVING:  # what lies in memory behind it is read at another place, under the same name or not
            tied = {(i, d) for i, d, _ in tied_axes(e)}
            tensors = [i for i, o in enumerate(e.operands) if isinstance(o, Value)]
            axes_of = [(i, d, axis) for i in tensors for d, axis in enumerate(letters.of(e, i))]
            moved = {x for i, d, axis in axes_of if (i, d) not in tied for x in axis}
            found = {x: None for x in found if x not in moved}
    for (e, i), axes in letters.uses.items():
        made = through.get(e.operands[i])  # type: ignore[arg-type]
        if made is not None:
            for a, b in zip(letters.values[made], axes, strict=True):
                if a != b:
                    found = {x: None for x in found if x not in a and x not in b}
    for m in pairs:  # several nests may write one place
        for n in pairs:
            if n.into is m.into and letters.values[n.value] != letters.values[m.value]:
                for a, b in zip(letters.values[n.value], letters.values[m.value], strict=True):
                    if a != b:
                        found = {x: None for x in found if x not in a and x not in b}
    return found
