"""Plans of maps and folds: the judge of every merge that holds no contraction.

In:  the equations of one kernel, the values it must write.  Out: a RowPlan, or Illegal with the reason.
    letters   every axis is a loop (letters.py)
    line      the letters of the folds whose results are used in the kernel; else the letter contiguous in most of the traffic
    rows      the other letters. Every output has them all, or is a fold over some of them ("partial")
    lane      the letter along the vectors: contiguous in most of the traffic, either of the line or the last row letter
    passes    one walk over the line for each fold that waits for another; a value known in an earlier pass is kept where
              its own op is dear, else computed again from the inputs
Every assumption of schedule/rows.py is a refusal here. A single equation is always legal.
Read before: letters.py. Read next: group.py, schedule/rows.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kdsl.ir.frame import Illegal, Letter, Letters, RowPlan, flat
from kdsl.ir.ops import ELEMENTWISE, REDUCTIONS, Op
from kdsl.ir.sizes import Extent
from kdsl.ir.tensor import Equation, Operand, TensorType, Value
from kdsl.target import Target
from kdsl.transforms.cost import HEAVY, NEAR_BYTES, bytes_of, cost_of, estimate
from kdsl.transforms.joined_letters import dropped
from kdsl.transforms.letters import HardLetters, letters_of
from kdsl.transforms.moved import can_be_moved, moved_operand, name_of
from kdsl.transforms.ties import moves

DIRECT_ROWS = 16  # with so many rows that are kept, folds over other rows need no partial results
PARTS = 16  # parts of a fold over rows
SHORT_FOLD = 64  # a fold over so few elements is done in registers
LARGE_LINE = 32 * 1024  # elements of a whole fold that are cut in parts
# on a GPU
GPU_SHORT = 512  # a fold over so few elements is one block's, a tile of lanes after the other: finishers are
PART_ROWS = 16  # rows that one part adds at least where it has the line
FEW_PART_ROWS = 4  # where it is one number
PART_LINE = 4096  # elements of a whole fold, likewise
LINE_TILE = 128  # of a fold over rows alone: blocks share the line


@dataclass(eq=False)
class _Walk:
    """The letters of a kernel in their parts, and the folds sorted by what they drop."""

    equations: Sequence[Equation]
    letters: Letters
    outputs: Sequence[Value]
    made: dict[Value, Equation]
    folds: dict[Equation, frozenset[Letter]]
    used: set[Value]  # fold results that are used in the kernel
    target: Target | None = None
    line: tuple[Letter, ...] = ()
    rows: tuple[Letter, ...] = ()
    lane: Letter | None = None

    @property
    def gpu(self) -> Target | None:
        """The target, where it is a GPU."""
        return None if self.target is None or self.target.kind == "cpu" else self.target

    def on_line(self, v: Value) -> bool:
        return any(x in self.line for axis in self.letters.values[v] for x in axis)

    def whole_line(self, v: Value) -> bool:
        return set(self.line) <= set(flat(self.letters.values[v]))


def plan_rows(
    equations: Sequence[Equation],
    outputs: Sequence[Value],
    name: str = "kernel",
    contiguous: Callable[[Value], bool] | None = None,
    hard: HardLetters | None = None,
    target: Target | None = None,
) -> RowPlan:
    """The loop nest for these equations, or Illegal."""
    equations = tuple(equations)
    letters = letters_of(equations, contiguous, hard)
    made = {e.result: e for e in equations}
    folds = {e: dropped(e, letters) for e in equations if e.op in REDUCTIONS}
    consumed = {v for e in equations for v in e.values}
    walk = _Walk(equations, letters, outputs, made, folds, consumed & {e.result for e in folds}, target)
    for e in equations:
        can_be_moved(e, walk.made)
    _choose_line(walk)
    partial, reduced = _partial_folds(walk)
    for v in outputs:
        have = set(flat(letters.values[v]))
        if made[v] in partial:
            continue
        if not set(walk.rows) <= have:
            raise Illegal(f"{name_of(v)} would be written again by every row")
        if walk.on_line(v) and not walk.whole_line(v):
            raise Illegal(f"{name_of(v)} has some letters of the line but not all")
    when, passes = _passes(walk, partial)
    kept = _kept(walk, partial, when, passes)
    inputs = tuple(dict.fromkeys(e.operands[i] for e, i in letters.uses))
    parts, block_count = _parts(walk, partial, reduced)
    plan = RowPlan(
        name, equations, inputs, tuple(outputs), letters,  # type: ignore[arg-type]
        rows=walk.rows, line=walk.line, lane=walk.lane, passes=passes, when=when, kept=kept, partial=parts,
        block_count=block_count, reduced=reduced,
    )  # fmt: skip
    plan.bytes = traffic(plan)
    plan.operations = sum_extents(_operations(e, letters) for e in equations)
    plan.work = _work(walk)
    plan.parallel = _parallel(plan, walk)
    return plan


# --- lines and rows -----------------------------------------------------------------------------------------------------
def _choose_line(w: _Walk) -> None:
    letters = w.letters
    loops: dict[Letter, None] = {}
    for v in w.outputs:
        loops.update(dict.fromkeys(flat(letters.values[v])))
    for e in w.folds:
        loops.update(dict.fromkeys(flat(letters.of(e, 0))))
    lane = _contiguous_letter(w, loops)
    inner = {d for e, d in w.folds.items() if e.result in w.used and d}
    if len(inner) > 1:
        raise Illegal("folds that wait for each other along different axes")
    final = [d for e, d in w.folds.items() if e.result not in w.used and d]
    line: frozenset[Letter]
    if inner:
        line = next(iter(inner))
    elif any(e.op in (Op.ARGMAX, Op.ARGMIN) and d for e, d in w.folds.items()):
        line = next(d for e, d in w.folds.items() if e.op in (Op.ARGMAX, Op.ARGMIN) and d)
    elif any(lane in d for d in final):
        together = [d for d in final if lane in d]
        line = min(together, key=len)
        if len(line) > 1:
            line = frozenset({lane}) if lane is not None else line
    elif final and all(w.made[v] in w.folds for v in w.outputs) and (_little_traffic(w) or _short(w, final)):
        line = min(final, key=len)
    else:
        line = frozenset() if lane is None else frozenset({lane})
    order = _order(w, loops)
    if lane in line:
        w.line = (*(x for x in order if x in line and x != lane), lane)  # type: ignore[arg-type]
        w.rows = tuple(x for x in order if x not in line)
    else:
        w.line = tuple(x for x in order if x in line)
        w.rows = tuple(x for x in order if x not in line and x != lane) + (() if lane is None else (lane,))
    w.lane = lane


def _order(w: _Walk, loops: dict[Letter, None]) -> list[Letter]:
    """The loops, as they stand in the values with most of them."""
    tables = sorted([*w.letters.values.values(), *w.letters.uses.values()], key=lambda t: -len(flat(t)))
    out: list[Letter] = []
    for t in tables:
        row = [x for x in flat(t) if x in loops]
        for i, x in enumerate(row):
            if x not in out:
                after = next((out.index(y) for y in row[i + 1 :] if y in out), len(out))
                out.insert(after, x)
    return out


def _contiguous_letter(w: _Walk, loops: dict[Letter, None]) -> Letter | None:
    """The loop that is contiguous in most of the memory that is read and written."""
    votes: dict[Letter, int] = dict.fromkeys(loops, 0)
    reads: dict[tuple[Value, Letter], None] = {}
    for (e, i), axes in w.letters.uses.items():
        last = _lane_through_moves(w, e, i, axes)
        if last is not None:
            reads[e.operands[i], last] = None  # type: ignore[index]
    for v in w.outputs:
        last = next((x for x in reversed(flat(w.letters.values[v]))), None)
        if last is not None:
            reads[v, last] = None
    for v, letter in reads:
        if letter in votes:
            votes[letter] += estimate(v.type.count) * v.dtype.bytes
    if not votes:
        return None
    if not any(votes.values()):
        return list(votes)[-1]
    return max(votes, key=lambda x: votes[x])


def _lane_through_moves(w: _Walk, e: Equation, operand: int, axes: tuple) -> Letter | None:
    """The last letter of an input; where that axis is sliced or windowed, the letter of the result's axis."""
    if not axes or not axes[-1]:
        return next(iter(reversed(flat(axes))), None)
    last = len(axes) - 1
    if e.op in (Op.SLICE, Op.PAD) and moves(e, last):
        result = w.letters.values[e.result][last]
        unit = e.op is Op.PAD or e.attributes["steps"][last] in (1, -1)
        return result[-1] if result and unit else None
    if e.op is Op.CONCAT and e.attributes["axis"] == last:
        result = w.letters.values[e.result][last]
        return result[-1] if result else None
    if e.op is Op.WINDOW and e.attributes["axis"] == last:
        result = w.letters.values[e.result][last]
        return result[-1] if result else None
    return axes[-1][-1]


def _short(w: _Walk, final: list[frozenset[Letter]]) -> bool:
    """Is every fold one over a few elements, so that registers hold a tile of results meanwhile?"""
    count: Extent = 1
    for x in final[0]:
        count = count * w.letters.size[x]
    return isinstance(count, int) and count <= (GPU_SHORT if w.gpu else SHORT_FOLD) and all(d == final[0] for d in final)


def _little_traffic(w: _Walk) -> bool:
    values = {e.operands[i] for e, i in w.letters.uses}
    return all(all(isinstance(n, int) for n in v.shape) for v in values if isinstance(v, Value)) and (
        sum(bytes_of(v.type) for v in values if isinstance(v, Value)) <= NEAR_BYTES
    )


# --- folds ----------------------------------------------------------------------------------------------------------------
def _partial_folds(w: _Walk) -> tuple[list[Equation], tuple[Letter, ...]]:
    """The folds over row letters, and those letters."""
    line, rows = set(w.line), set(w.rows)
    partial: list[Equation] = []
    reduced: set[Letter] | None = None
    for e, d in w.folds.items():
        if not d or d == line:
            continue
        over = d & rows
        if e.op in (Op.ARGMAX, Op.ARGMIN):
            raise Illegal("the place of a maximum along another loop than the line")
        if d & line and not line <= d:
            raise Illegal("a fold over some letters of the line")
        if e.result in w.used:
            raise Illegal("a fold over the rows whose result is used in the same kernel")
        if w.lane not in line:
            raise Illegal("a fold over rows with vectors along the rows")
        operand = set(flat(w.letters.of(e, 0))) & line
        if operand and operand != line:
            raise Illegal("a fold over rows of a value that has some letters of the line but not all")
        if reduced is not None and reduced != over:
            raise Illegal("folds over different rows")
        reduced = over
        partial.append(e)
    if reduced is None:
        return [], ()
    kept = [x for x in w.rows if x not in reduced]
    w.rows = (*kept, *(x for x in w.rows if x in reduced))
    return partial, tuple(x for x in w.rows if x in reduced)


def _parts(w: _Walk, partial: list[Equation], reduced: tuple[Letter, ...]) -> tuple[dict[Equation, Value], int]:
    """Where the partial results of folds over rows, or of a whole fold, lie; and how many parts there are."""
    if not partial:
        whole = [e for e, d in w.folds.items() if d and d == set(w.line) and e.result not in w.used]
        single = len(w.line) == 1 and not w.rows and len(whole) == len([d for d in w.folds.values() if d])
        n = w.letters.size[w.line[0]] if w.line else 0
        if (
            not whole
            or not single
            or (isinstance(n, int) and n < 2 * LARGE_LINE)
            or any(e.op in (Op.ARGMAX, Op.ARGMIN) for e in whole)
        ):
            return {}, 1
        if w.gpu:
            count = min(4 * w.gpu.units, n // PART_LINE) if isinstance(n, int) else 2 * w.gpu.units
        else:
            count = min(64, n // LARGE_LINE) if isinstance(n, int) else PARTS
        return {e: _part(e, count) for e in whole}, count
    kept = 1
    for x in w.rows:
        if x not in reduced:
            kept *= estimate(w.letters.size[x])
    exact = all(e.result.dtype.compute is e.result.dtype for e in partial)  # else sums would be rounded as they grow
    direct, most, each = DIRECT_ROWS, PARTS, 1
    if w.gpu:
        columns = any(set(flat(w.letters.values[e.result])) & set(w.line) for e in partial)
        direct, each = w.gpu.units, PART_ROWS if columns else FEW_PART_ROWS
        most = -(-2 * w.gpu.units // max(1, kept * _blocks_of_line(w, partial)))
    if kept >= direct and exact:
        return {e: e.result for e in partial}, 0
    first = w.letters.size[reduced[0]]
    count = max(1, min(most, first // each)) if isinstance(first, int) else most
    if count == 1 and exact:
        return {e: e.result for e in partial}, 0
    return {e: _part(e, count) for e in partial}, count


def _blocks_of_line(w: _Walk, partial: list[Equation]) -> int:
    """How many blocks share the line of a fold over rows."""
    if any(set(w.line) & d for d in w.folds.values()):
        return 1
    out = 1
    for x in w.line:
        out *= estimate(w.letters.size[x])
    return max(1, out // LINE_TILE)


def _part(e: Equation, count: int) -> Value:
    dtype = e.result.dtype.compute
    return Value(TensorType(dtype, (count, *e.result.shape)), "parts")


# --- passes ---------------------------------------------------------------------------------------------------------------
def _passes(w: _Walk, partial: list[Equation]) -> tuple[dict[Value, int], int]:
    when: dict[Value, int] = {}
    line = set(w.line)
    for e in w.equations:
        known = max((when.get(o, 0) for o in e.values), default=0)
        d = w.folds.get(e)
        when[e.result] = known + bool(d and line <= d)
    passes = 0
    for k, _ in _roots(w, partial, when):
        passes = max(passes, k + 1)
    return when, passes


def _roots(w: _Walk, partial: list[Equation], when: dict[Value, int]) -> list[tuple[int, Operand]]:
    """(pass, line value wanted in it); folds over rows come in the last pass, where they share its loads."""
    line = set(w.line)
    known = lambda o: when.get(o, 0) if isinstance(o, Value) else 0  # noqa: E731
    roots = [(known(e.operands[0]), e.operands[0]) for e, d in w.folds.items() if d and line <= d]
    roots += [(when[v], v) for v in w.outputs if v not in {e.result for e in w.folds if w.folds[e]} and w.on_line(v)]
    columns = [e for e in partial if not line <= w.folds[e] and set(flat(w.letters.of(e, 0))) & line]
    if columns:
        last = max([k for k, _ in roots] + [known(e.operands[0]) for e in columns])
        roots += [(last, e.operands[0]) for e in columns]
    return roots


def _kept(w: _Walk, partial: list[Equation], when: dict[Value, int], passes: int) -> dict[Value, Value | None]:
    """Line values that wait for a later pass, each in the output that replaces it or (None) in near memory."""
    price: dict[Value, int] = {}

    def cost(o: Operand) -> int:
        if not isinstance(o, Value):
            return 0
        e = w.made.get(o)
        if e is None:
            return 1
        if o not in price:
            free = bool(w.folds.get(e)) or not w.on_line(o)
            price[o] = 0 if free else sum(map(cost, e.operands)) + cost_of(e.op)
        return price[o]

    def heavy(e: Equation) -> bool:
        dear = sum(isinstance(o, Value) and o in w.made and cost(o) > HEAVY for o in e.operands)
        return e.op in ELEMENTWISE and (cost_of(e.op) >= HEAVY or dear > 1)

    wanted: dict[Value, None] = {}
    seen: set[tuple[Value, int]] = set()

    def want(v: Operand, k: int) -> None:
        if not isinstance(v, Value) or v not in w.made or (v, k) in seen or not w.on_line(v):
            return
        seen.add((v, k))
        e = w.made[v]
        if when[v] < k and cost(v) > HEAVY + 2 and w.whole_line(v) and set(w.rows) <= set(flat(w.letters.values[v])) and heavy(e):
            wanted[v] = None
            return
        if w.folds.get(e):
            return
        for i, o in enumerate(e.operands):
            if not moved_operand(e, i):
                want(o, k)

    for k, v in _roots(w, partial, when):
        want(v, k)
    kept: dict[Value, Value | None] = {}
    taken: set[Value] = set()
    near = 0
    for v in wanted:
        home = next((o for o in w.outputs if o not in taken and _replaces(w, v, o, when, passes)), None)
        if home is not None:
            taken.add(home)
            kept[v] = home
            continue
        extent = 1
        for x in w.line:
            n = w.letters.size[x]
            extent = extent * n if isinstance(n, int) else 1 << 62
        size = extent * v.dtype.compute.bytes * (1 if w.lane in w.line else 32)
        if near + size <= NEAR_BYTES:
            near += size
            kept[v] = None
    return kept


def _replaces(w: _Walk, v: Value, o: Value, when: dict[Value, int], passes: int) -> bool:
    """May v wait in the memory of output o, until o overwrites it in the last pass?"""
    if o.dtype is not v.dtype or o.dtype.compute is not o.dtype or w.made[o].op in REDUCTIONS:
        return False
    if w.letters.values[o] != w.letters.values[v] or o.shape != v.shape or when[o] != passes - 1 or v in w.outputs:
        return False
    seen, todo = set(), [o]
    while todo:
        x = todo.pop()
        if x is v:
            return True
        if x in w.made and x not in seen:
            seen.add(x)
            todo += w.made[x].values
    return False


# --- moved operands ---------------------------------------------------------------------------------------------------------
# --- numbers for explain() ----------------------------------------------------------------------------------------------------
def traffic(plan: RowPlan) -> Extent:
    """Bytes read and written, each element once."""
    written = [plan.partial.get(e, e.result) for e in plan.equations if e.result in plan.outputs]
    return sum_extents(v.type.count * v.dtype.bytes for v in (*plan.inputs, *written))


def _work(w: _Walk) -> float:
    """Elementary operations with what every row repeats; recomputation between passes is not counted."""
    rows = 1
    for x in w.rows:
        rows *= max(1, estimate(w.letters.size[x]))
    line = 1
    for x in w.line:
        line *= max(1, estimate(w.letters.size[x]))
    total = 0.0
    for e in w.equations:
        cost = cost_of(e.op)
        if cost:
            operand = e.op in REDUCTIONS and bool(set(flat(w.letters.of(e, 0))) & set(w.line))
            total += cost * rows * (line if operand or w.on_line(e.result) else 1)
    return total


def _parallel(plan: RowPlan, w: _Walk) -> int:
    """About how many blocks there are."""
    if plan.partial and plan.block_count:
        return plan.block_count * (_blocks_of_line(w, list(plan.partial)) if w.gpu else 1)
    out = 1
    for x in plan.rows:
        if x not in plan.reduced:
            out *= max(1, estimate(w.letters.size[x]))
    if not w.used and not plan.partial:
        for x in plan.line:
            out *= max(1, estimate(w.letters.size[x]) // 1024)
    return max(1, out)


def sum_extents(items) -> Extent:  # type: ignore[no-untyped-def]
    total: Extent = 0
    for x in items:
        total = total + x
    return total


def _operations(e: Equation, letters: Letters) -> Extent:
    if not cost_of(e.op):
        return 0
    count = e.result.type.count
    return e.values[0].type.count if e.op in REDUCTIONS else count
