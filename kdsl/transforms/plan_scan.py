"""Plans of scans: the judge of every merge that holds one.

In:  the equations of one kernel, a scan and maps that feed it, the values to write.  Out: a ScanPlan, or Illegal.
    lanes      the carry stays in registers: a tile of some letter along the vectors and at most one more letter, which the
               step may fold. All other letters run side by side. What a step gives may be folded over letters that run side
               by side if nothing else in the step waits for it: parts, which a finisher adds.
    resident   anything else (products with matrices, carries that are shifted): values lie in near memory, whole
Read before: scan_steps.py, letters.py. Read next: schedule/scan.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kdsl.ir.frame import Illegal, Letter, Letters, ScanPlan, flat
from kdsl.ir.ops import ELEMENTWISE, MOVEMENT, REDUCTIONS, SOURCES, Op
from kdsl.ir.scans import Scan
from kdsl.ir.sizes import Extent, ceildiv
from kdsl.ir.tensor import Equation, Shape, TensorType, Value
from kdsl.target import Target
from kdsl.transforms.cost import bytes_of, cost_of, estimate
from kdsl.transforms.joined_letters import dropped
from kdsl.transforms.letters import HardLetters, letters_of
from kdsl.transforms.plan_scan_resident import plan_resident
from kdsl.transforms.scan_again import made_again
from kdsl.transforms.scan_row_tile import row_tile
from kdsl.transforms.scan_steps import Written, is_turned, write_steps
from kdsl.transforms.scan_warps import lane_width, warps_together
from kdsl.transforms.ties import MOVING

MOST_ROWS = 64  # elements of the letter that a tile has whole
MOST_TOGETHER = 8  # tiles that a block takes one after the other
FEWEST_BLOCKS, FEWEST_FAR = 4, 2  # blocks that there shall be; where each of them reads the same again, from far away
PARTS = 8  # times the parts of sums are to fit into all that is read and written
REGISTERS = 8  # vectors of carry that a tile holds at least, where there are so many
FEEDING = (ELEMENTWISE | MOVEMENT | SOURCES | {Op.TAKE, Op.TAKE_ALONG, Op.BARRIER}) - {Op.RESHAPE}
IN_REGISTERS = FEEDING | REDUCTIONS | {Op.RESHAPE}  # what a step whose carry stays in registers is made of


def plan_scan(
    equations: Sequence[Equation],
    outputs: Sequence[Value],
    name: str,
    contiguous: Callable[[Value], bool],
    target: Target,
) -> ScanPlan:
    """The plan of a scan, or Illegal."""
    results = {e.result for e in equations if e.op is Op.SCAN}
    if not set(outputs) <= results:
        raise Illegal("a value beside a scan")
    for e in equations:
        if e.op is not Op.SCAN and (e.op not in FEEDING or any(v in results for v in e.values)):
            raise Illegal(f"{e.op.value} before or after the steps of a scan")
    first = Scan(next(e for e in equations if e.op is Op.SCAN))
    turned = is_turned(first)
    s, written = write_steps(equations, outputs, turned)
    try:
        for e in written.inner:
            if e.op not in IN_REGISTERS:
                raise Illegal(f"{e.op.value} in a step")
        plan = _in_registers(written, contiguous, s.every, target)
    except Illegal:
        plan = plan_resident(written, contiguous, s, target)
    plan.name, plan.equations, plan.outputs = name, tuple(equations), tuple(outputs)
    plan.length, plan.every, plan.turned = s.length, s.every, turned
    plan.backward = s.replay is not None
    _count(plan)
    if note := s.equation.attributes.get("note"):  # why its steps do or do not run side by side
        plan.notes += (note,)
    return plan


# --- lanes ----------------------------------------------------------------------------------------------------------------
@dataclass(eq=False)
class _Loops:
    """The letters of a written-out scan and what each step folds."""

    written: Written
    letters: Letters
    made: dict[Value, Equation]
    folds: dict[Equation, frozenset[Letter]]
    sums: dict[Value, Equation] = field(default_factory=dict)  # what a step gives as a fold that nothing else reads

    def of(self, v: Value) -> set[Letter]:
        return set(flat(self.letters.values[v]))


def _in_registers(w: Written, contiguous: Callable[[Value], bool], every: int, target: Target) -> ScanPlan:
    """A plan whose carry stays in registers, or Illegal."""
    try:
        return _plan_lanes(w, contiguous, every, target)
    except Illegal:
        if len(w.carries) < 2:
            raise
        return _plan_lanes(w, contiguous, every, target, alike=True)


def _plan_lanes(
    w: Written, contiguous: Callable[[Value], bool], every: int, target: Target, alike: bool = False
) -> ScanPlan:  # fmt: skip
    """`alike`: carries of one shape that have nothing else in common are walked together."""
    loops = _letters(w, contiguous, alike)
    side_by_side = _side_by_side(loops)
    if target.kind == "cpu":
        side_by_side -= _read_once(loops, side_by_side, target.lanes(4))
    used = {x for c in (*w.carries, *w.replayed) for x in loops.of(c.before)}
    used |= {x for e in w.inner[w.around :] for x in loops.of(e.result)} | {x for d in loops.folds.values() for x in d}
    others = used - side_by_side
    size = loops.letters.size
    if len(others) > 1:
        raise Illegal(f"a step folds over {len(others)} axes: its carry does not stay in registers")
    rows = next(iter(others), None)
    if rows is not None and (not isinstance(size[rows], int) or size[rows] > MOST_ROWS):  # type: ignore[operator]
        raise Illegal(f"a step folds over {size[rows]} elements: its carry does not stay in registers")
    order = [x for x in _order(loops) if x in side_by_side]
    if rows is None and target.kind != "cpu":
        rows = _shared_rows(loops, order, target.lanes(4))
        side_by_side, order = side_by_side - {rows}, [x for x in order if x != rows]
    lane = _lane(loops, order, rows, target.lanes(4))
    inputs = tuple(v for v in dict.fromkeys(e.operands[i] for e, i in loops.letters.uses) if isinstance(v, Value))
    plan = ScanPlan("", (), inputs, (), loops.letters)
    plan.inner, plan.carries, plan.replayed = tuple(w.inner), tuple(w.carries), tuple(w.replayed)
    plan.ys, plan.last, plan.kept = w.ys, w.last, w.kept
    if lane == rows:
        rows = None
    plan.outer, plan.lane, plan.rows = tuple(x for x in order if x != lane), lane, rows
    plan.width = _width(plan, side_by_side, target, loops, every)
    if target.kind == "cpu":
        plan.row_tile = row_tile(plan) if lane in side_by_side else 0
        if w.replayed:
            plan.again = _kept_near(plan, made_again(w, loops.letters), every, target)
        if lane in side_by_side and (w.replayed or plan.row_tile):
            plan.together = _together(plan, loops, target)
    _parts(plan, loops, side_by_side)
    return plan


def _letters(w: Written, contiguous: Callable[[Value], bool], alike: bool) -> _Loops:
    hard = HardLetters().add(w.inner)
    for c in (*w.carries, *w.replayed):
        for a, b in zip(hard.made[c.before], hard.made[c.after], strict=True):
            hard.union.tie(a, b)
    first: dict[Shape, Value] = {}
    for c in w.carries if alike else ():
        like = first.setdefault(c.before.shape, c.before)
        for a, b in zip(hard.made[like], hard.made[c.before], strict=True):
            hard.union.tie(a, b)
    letters = letters_of(w.inner, contiguous, hard, [y for y, axis in w.ys.values() if 0 < axis < len(y.shape)])
    made = {e.result: e for e in w.inner}
    varying = {c.before for c in (*w.carries, *w.replayed)}
    for e in w.inner:
        if any(v in varying for v in e.values):
            if e.op in MOVING:
                raise Illegal(f"{e.op.value} of a carry")
            varying.add(e.result)
    folds = {e: dropped(e, letters) for e in w.inner if e.op in REDUCTIONS}
    if any(d and e.op in (Op.ARGMAX, Op.ARGMIN) for e, d in folds.items()):
        raise Illegal("the place of a maximum in a step")
    loops = _Loops(w, letters, made, folds)
    readers: dict[Value, int] = {}
    for e in w.inner:
        for v in e.values:
            readers[v] = readers.get(v, 0) + 1
    for y, _ in w.ys.values():
        e = given_sum(y, made, readers)
        if e is not None:
            loops.sums[y] = e
    return loops


def given_sum(y: Value, made: dict[Value, Equation], readers: dict[Value, int]) -> Equation | None:
    """The sum that a step gives, which nothing else reads; a cast of it is done when all of it is added up."""
    e, casts = made[y], 0
    while e.op in (Op.BARRIER, Op.CAST) and e.values[0] in made and readers[e.values[0]] == 1:
        casts += e.op is Op.CAST
        e = made[e.values[0]]
    floating = e.result.dtype.is_floating and y.dtype.is_floating
    return e if e.op is Op.SUM and (casts == 0 or (casts == 1 and floating)) else None


def _side_by_side(loops: _Loops) -> set[Letter]:
    """The letters that every result has, and that nothing in a step waits for."""
    w, found = loops.written, None
    final = set(loops.sums.values())
    stored = [w.carries[i].after for i in (*w.last.values(), *w.kept.values())]
    stored += [y for y, _ in w.ys.values() if y not in loops.sums]
    for v in stored:
        found = loops.of(v) if found is None else found & loops.of(v)
    for y, e in loops.sums.items():
        mine = loops.of(y) | loops.folds[e]
        found = mine if found is None else found & mine
    assert found is not None, "a scan without results"
    for e, d in loops.folds.items():
        if e not in final:
            found -= d
    if all(x in found for c in w.carries for x in loops.of(c.before)):  # a tile can have one letter whole
        found -= _short_fold(loops, found)
    return found


def _short_fold(loops: _Loops, found: set[Letter]) -> set[Letter]:
    """Of the letters that only results fold, the one that is folded in the tile: that whose parts would be largest."""
    cost: dict[Letter, int] = {}
    for y, e in loops.sums.items():
        for x in loops.folds[e] & found:
            n = loops.letters.size[x]
            if isinstance(n, int) and n <= MOST_ROWS:
                cost[x] = cost.get(x, 0) + bytes_of(y.type) * n
    best = max(cost, key=lambda x: cost[x], default=None)
    return set() if best is None else {best}


def _read_once(loops: _Loops, found: set[Letter], vector: int) -> set[Letter]:
    """A letter that the tile has whole because much of what a step reads does not have it: blocks side by side would each read
    that again."""
    w, size = loops.written, loops.letters.size
    if loops.sums or not w.carries or not all(loops.of(c.before) <= found for c in w.carries):
        return set()
    read = [e.result for e in w.inner[w.around :] if e.op is Op.TAKE and e.values[0] not in loops.made]
    saved: dict[Letter, int] = {}
    for x in found:
        n = size[x]
        if isinstance(n, int) and 1 < n <= MOST_ROWS and all(x in loops.of(c.before) for c in w.carries):
            long = [v for v in read if any(estimate(size[y]) >= vector for y in loops.of(v) - {x})]
            saved[x] = sum((n - 1) * bytes_of(v.type) for v in long if x not in loops.of(v))
    best = max(saved, key=lambda x: saved[x], default=None)
    return {best} if best is not None and saved[best] else set()


def _order(loops: _Loops) -> list[Letter]:
    """The letters as they stand in the values with most of them."""
    out: list[Letter] = []
    for t in sorted(loops.letters.values.values(), key=lambda t: -len(flat(t))):
        row = flat(t)
        for i, x in enumerate(row):
            if x not in out:
                out.insert(next((out.index(y) for y in row[i + 1 :] if y in out), len(out)), x)
    return out


def _lane(loops: _Loops, order: list[Letter], rows: Letter | None, vector: int) -> Letter | None:
    """The letter along the vectors: contiguous in most of what is read and written, if it is long enough."""
    letters, size = loops.letters, loops.letters.size
    votes: dict[Letter, int] = dict.fromkeys([*order, *([] if rows is None else [rows])], 0)
    for (e, i), axes in letters.uses.items():
        last = flat(axes)[-1:]
        if last and last[0] in votes:
            votes[last[0]] += bytes_of(e.operands[i].type)  # type: ignore[union-attr]
    for result, (y, _) in loops.written.ys.items():
        last = flat(letters.values[y])[-1:]
        if last and last[0] in votes:
            votes[last[0]] += bytes_of(result.type)
    if not votes:
        return None

    def worth(x: Letter) -> tuple[bool, bool, int, int]:
        n = estimate(size[x])
        return n >= vector and x != rows, n >= 4, votes[x], n

    return max(votes, key=worth)


def _shared_rows(loops: _Loops, order: list[Letter], vector: int) -> Letter | None:
    """For a GPU's tile, a short letter that slices lack: what is made of them serves all rows of a tile."""
    size = loops.letters.size
    short = [x for x in order if isinstance(n := size[x], int) and 1 < n <= MOST_ROWS]
    lacking = dict.fromkeys(short, 0)
    for e in loops.written.inner[loops.written.around :]:
        mine = loops.of(e.result)
        if e.op is Op.TAKE and any(x in mine and estimate(size[x]) >= vector for x in order):
            for x in short:
                lacking[x] += 0 if x in mine else bytes_of(e.result.type)
    return max((x for x in short if lacking[x]), key=lambda x: lacking[x], default=None)


def _width(plan: ScanPlan, side_by_side: set[Letter], target: Target, loops: _Loops, every: int) -> int:
    """Elements of a tile along the vectors."""
    if plan.lane is None:
        return 1
    n = plan.letters.size[plan.lane]
    if plan.lane not in side_by_side:
        assert isinstance(n, int)
        return n
    rows = 1 if plan.rows is None else plan.letters.size[plan.rows]
    assert isinstance(rows, int)
    if target.kind != "cpu":
        over = [d for e, d in loops.folds.items() if e in loops.written.inner[loops.written.replay :]]
        folds, sums = sum(plan.rows in d for d in over), sum(plan.lane in d for d in over)
        others = math.prod(max(1, estimate(plan.letters.size[x])) for x in plan.outer)
        states = every * sum(rows * c.before.dtype.compute.bytes for c in plan.replayed)
        plan.together = 1
        width = lane_width(max(1, estimate(n)), rows, others, folds, sums, states, target)
        plan.together = warps_together(max(1, estimate(n)), width, states, target) if sums else 1
        return width
    vector = target.lanes(4)
    vectors = max(1, REGISTERS // max(1, rows * max(1, len(plan.carries))))
    width = vector * vectors
    while width > vector and isinstance(n, int) and n % width:
        width //= 2
    return min(width, max(1, n)) if isinstance(n, int) else width


def _kept_near(plan: ScanPlan, again: dict[Value, Value], every: int, target: Target) -> dict[Value, Value]:
    """Of what the replay made, as much as fits beside the states near the core."""
    states, left = {c.after for c in plan.replayed}, target.l2_bytes // 4
    out, taken = {}, set(states)
    for v, made in again.items():
        if made not in taken:
            letters = flat(plan.letters.values[made])
            rows = plan.letters.size[plan.rows] if plan.rows in letters else 1  # type: ignore[index]
            left -= every * rows * (plan.width if plan.lane in letters else 1) * made.dtype.compute.bytes  # type: ignore[operator]
            if left < 0:
                break
            taken.add(made)
        out[v] = made
    return out


def _together(plan: ScanPlan, loops: _Loops, target: Target) -> int:
    """How many tiles along the lane one block takes: whole cache lines are read and written in order; in a gradient sums over the
    lane are added up in vectors, and have fewer parts.

    As many as leave enough blocks, and more where the parts would be large beside what the scan reads and writes."""
    ys = loops.written.ys
    summed = [r for r, (y, _) in ys.items() if y in loops.sums and plan.lane in loops.folds[loops.sums[y]]]
    if plan.lane is None or not (summed or plan.row_tile) or (summed and not plan.replayed):
        return 1
    n = plan.letters.size[plan.lane]
    tiles = -(-estimate(n) // plan.width)
    blocks = tiles
    for x in plan.outer:
        blocks *= estimate(plan.letters.size[x])
    uses = plan.letters.uses.items()
    shared = {e.operands[i] for (e, i), axes in uses if plan.lane not in flat(axes)}
    far = sum(bytes_of(v.type) for v in shared if isinstance(v, Value)) > target.l2_bytes
    most = max(1, min(MOST_TOGETHER, blocks // (FEWEST_FAR if far else FEWEST_BLOCKS)))
    if isinstance(n, int):  # no block has fewer than the others
        most = max((k for k in range(1, most + 1) if tiles % k == 0), default=1)
    part = sum(estimate(r.type.count) * r.dtype.compute.bytes for r in summed)
    total = sum(bytes_of(v.type) for v in (*plan.inputs, *ys))
    while most < tiles // 2 and -(-tiles // most) * part * PARTS > total:
        most += 1
    return most


def _parts(plan: ScanPlan, loops: _Loops, side_by_side: set[Letter]) -> None:
    """Where the sums over loops that run side by side lie in parts."""
    size = plan.letters.size
    for result, (y, axis) in list(plan.ys.items()):
        e = loops.sums.get(y)
        over = loops.folds[e] & side_by_side if e is not None else frozenset()
        if e is None or not over:
            continue
        if loops.folds[e] - side_by_side:
            raise Illegal("a sum over loops that run side by side and over others")
        count: Extent = 1
        for x in (*plan.outer, plan.lane):
            if x in over:
                count = count * (ceildiv(size[x], plan.width * plan.together) if x == plan.lane else size[x])
        part = Value(TensorType(e.result.dtype.compute, (count, *result.shape)), "parts")
        plan.partial[Equation(result, Op.SUM, (y,), {"axes": e.attributes["axes"]}, e.location)] = part
        plan.ys[result] = y, axis


# --- numbers for explain() -----------------------------------------------------------------------------------------------------
def _count(plan: ScanPlan) -> None:
    parts = {e.result: v for e, v in plan.partial.items()}
    moved: Extent = 0
    for v in (*plan.inputs, *(parts.get(v, v) for v in plan.outputs)):
        moved = moved + v.type.count * v.dtype.bytes
    each: Extent = 0
    for e in plan.inner:
        count = e.values[0].type.count if e.op in REDUCTIONS else e.result.type.count
        each = each + count * (1 if cost_of(e.op) else 0)
    if plan.resident is not None:
        plan.notes = ("the values of a step lie in memory: it folds over axes of its carry",)
    plan.bytes, plan.operations = moved, each * plan.length
    plan.work = float(sum(cost_of(e.op) * estimate(e.result.type.count) for e in plan.inner) * estimate(plan.length))
    plan.parallel = 1
    for x in (*plan.outer, *([] if plan.lane is None else [plan.lane])):
        n = estimate(plan.letters.size[x])
        plan.parallel *= max(1, n // (plan.width * plan.together) if x == plan.lane else n)
