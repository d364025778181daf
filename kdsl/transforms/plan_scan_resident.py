"""Plans of scans whose carry does not stay in registers: products with matrices, carries that are shifted, several folds.

In:  a scan written out.  Out: a ScanPlan with `resident`: a step as nests over its axes, one after the other, through memory.
Letters that all values keep at one place are loops around the scan; the others stand in each nest.
Read before: scan_nests.py. Read next: schedule/scan_resident.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from kdsl.ir.frame import Axes, Illegal, Letter, Letters, Move, Resident, ScanPlan, flat, stacked_axes, stacked_shape, within
from kdsl.ir.ops import ELEMENTWISE, MOVEMENT, REDUCTIONS, SOURCES, Op
from kdsl.ir.scans import Scan
from kdsl.ir.sizes import Extent
from kdsl.ir.tensor import Equation, Value
from kdsl.target import Target
from kdsl.transforms.joined_letters import dropped
from kdsl.transforms.letters import HardLetters, letters_of
from kdsl.transforms.plan_scatter import SCATTERS
from kdsl.transforms.plan_sort import SORTS
from kdsl.transforms.scan_nests import Nests
from kdsl.transforms.scan_steps import Written
from kdsl.transforms.ties import MOVING, tied_axes

NEAR = 32 * 1024  # bytes of one value in near memory, at most
ALL_NEAR = 192 * 1024  # bytes of all of them
SCRATCH = 48 * 1024  # of a block's near memory that folds across a GPU's warps may want
POSSIBLE = (
    ELEMENTWISE | MOVEMENT | SOURCES | REDUCTIONS | {Op.TAKE, Op.TAKE_ALONG, Op.BARRIER, Op.SCAN, *SORTS, *SCATTERS}
)


def plan_resident(w: Written, contiguous: Callable[[Value], bool], s: Scan, target: Target) -> ScanPlan:
    """The plan, or Illegal."""
    most = max(target.near_bytes - SCRATCH, NEAR) if target.near_bytes else ALL_NEAR
    for e in w.inner:
        if e.op not in POSSIBLE:
            raise Illegal(f"{e.op.value} in the step of a scan")
    try:
        return _planned(w, contiguous, s, most, False)
    except Illegal:  # a value that is read at two places of a loop must lie in memory
        return _planned(w, contiguous, s, most, True)


def _planned(w: Written, contiguous: Callable[[Value], bool], s: Scan, most: int, all_shared: bool) -> ScanPlan:
    nests = Nests(w.inner[: w.around], all_shared)
    r = nests.scan(s, w, 0, lambda v: v)
    inner, moves = nests.inner, list(r.moves())
    results = {*w.ys, *w.last, *w.kept}
    states = {read: stack for scan in r.scans() for read, stack in scan.states.items()}
    memory = ({m.into for m in moves} | set(states)) - results
    hard = HardLetters().add(inner)
    written = {m.into: m for m in moves}
    reads = {v: written[states.get(v, v)] for v in memory if states.get(v, v) in written}
    names = {stack: read for read, stack in states.items()}
    for m in moves:
        if m.into not in results:
            _name_alike(hard, m, names.get(m.into, m.into))
    stacked = [m.value for m in moves if m.how == "stack" and 0 < m.axis < len(m.value.shape)]
    letters = letters_of(inner, lambda v: v not in memory and contiguous(v), hard, stacked)
    outer = _outer(inner, letters, moves, reads, results)
    inputs = dict.fromkeys(e.operands[i] for e, i in letters.uses)
    plan = ScanPlan("", (), tuple(v for v in inputs if isinstance(v, Value) and v not in memory), (), letters)
    plan.inner, plan.resident = tuple(inner), r
    own = {m.into: m for m in moves if m.into not in results}
    if _fits_near(r, own, letters, outer, most):
        plan.outer = tuple(outer)
    elif w.around or not _fits_near(r, own, letters, (), most):  # a scan by itself is always legal: one block walks it
        raise Illegal("a step's value that all blocks share is too large for near memory")
    return plan


def _fits_near(r: Resident, own: dict[Value, Move], letters: Letters, outer: Collection[Letter], most: int) -> bool:
    """Choose what lies in near memory. Not possible where blocks share a value that is too large for it."""
    scan_of = {m: scan for scan in r.scans() for m in scan.parts() if isinstance(m, Move)}
    total = 0
    r.near.clear()
    for v, m in own.items():
        size: Extent = v.dtype.compute.bytes
        for axis, n in zip(stacked_axes(m, letters.values[m.value]), stacked_shape(m, scan_of[m]), strict=True):
            size = size * (n if axis is None else within(axis, n, outer, letters.size))
        if isinstance(size, int) and size <= NEAR and total + size <= most:
            r.near.add(v)
            total += size
        elif not set(outer) <= set(flat(letters.values[m.value])):
            return False
    return True


def _name_alike(h: HardLetters, m: Move, read: Value) -> None:
    """Axes of a value and of its uses through memory have one name where that makes no clash."""
    for use in h.readers.get(read, ()):
        apart = set(map(h.union.find, h.private))  # axes that are read at other places than a loop's
        mine, own = h.uses[use], h.made[m.value]
        if len(mine) > len(own):  # stacked
            place = m.axis if m.how == "stack" else 0
            mine = (*mine[:place], *mine[place + 1 :])
        for a, b in zip(own, mine, strict=True):
            if h.union.find(b) in apart:
                continue
            mark = h.union.mark()
            try:
                h.union.tie(a, b)
            except Illegal:
                h.union.undo(mark)


def _outer(
    inner: Sequence[Equation], letters: Letters, moves: Sequence[Move], reads: dict[Value, Move], results: set[Value]
) -> dict[Letter, None]:
    """The letters of loops around the scan: every result has them, every value in memory has them at one place."""
    outputs = [m.value for m in moves if m.into in results]
    found = dict.fromkeys(x for v in outputs for x in flat(letters.values[v]))
    for v in outputs:
        found = {x: None for x in found if x in flat(letters.values[v])}
    inside: set[Letter] = set()
    for e in inner:
        inside |= _walked(e, letters)
    for (e, i), axes in letters.uses.items():
        m = reads.get(e.operands[i])  # type: ignore[arg-type]
        if m is not None:
            own = stacked_axes(m, letters.values[m.value]) if len(axes) > len(m.value.shape) else letters.values[m.value]
            for a, b in zip(own, axes, strict=True):
                if a is None or a != b:
                    inside |= {*(a or ()), *b}
    first: dict[Value, Axes] = {}
    for m in moves:  # several nests may write one place
        for a, b in zip(first.setdefault(m.into, letters.values[m.value]), letters.values[m.value], strict=True):
            inside |= {*a, *b} if a != b else set()
    return {x: None for x in found if x not in inside}


def _walked(e: Equation, letters: Letters) -> set[Letter]:
    """The letters along which an equation reads other places than its own."""
    out: set[Letter] = set()
    if e.op in REDUCTIONS:
        out |= dropped(e, letters)
    if e.op in MOVING:  # what lies in memory behind it is read at another place, under the same name or not
        tied = {(i, d) for i, d, _ in tied_axes(e)}
        tensors = [i for i, o in enumerate(e.operands) if isinstance(o, Value)]
        out |= {x for i in tensors for d, axis in enumerate(letters.of(e, i)) if (i, d) not in tied for x in axis}
    if e.op in SORTS:
        out |= {x for t in (letters.values[e.result], letters.of(e, 0)) for x in t[e.attributes["axis"]]}
    if e.op in SCATTERS:
        axes = letters.values[e.result]
        own = {x for d, axis in enumerate(axes) if d != e.attributes["axis"] for x in axis}
        out |= {*axes[e.attributes["axis"]], *flat(letters.of(e, 1)), *flat(letters.of(e, 2))} - own
    return out
