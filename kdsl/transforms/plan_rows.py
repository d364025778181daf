"""Plans of maps and folds: the judge of every merge that holds no contraction.

In:  the equations of one kernel, the values it must write.  Out: a RowPlan, or Illegal with the reason.
    letters   every axis is a loop (letters.py)
    line, rows, lane    which loops there are, and the one along the vectors (row_line.py)
    partial             folds over rows, each block's part by itself (row_parts.py). Every other output has all rows
    passes              walks over the line for each row, and what waits between them (row_passes.py)
Every assumption of schedule/rows.py is a refusal here. A single equation is always legal.
Read before: row_line.py, row_parts.py, row_passes.py. Read next: group.py, schedule/rows.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kdsl.ir.frame import Illegal, Letters, RowPlan, flat
from kdsl.ir.ops import REDUCTIONS
from kdsl.ir.sizes import Extent
from kdsl.ir.tensor import Equation, Value
from kdsl.target import Target
from kdsl.transforms.cost import cost_of, estimate
from kdsl.transforms.joined_letters import dropped
from kdsl.transforms.letters import HardLetters, letters_of
from kdsl.transforms.moved import can_be_moved, moved_operand, name_of
from kdsl.transforms.online import online_line
from kdsl.transforms.row_line import RowFacts, choose_line
from kdsl.transforms.row_parts import blocks_of_line, partial_folds, parts_of
from kdsl.transforms.row_passes import kept_values, passes_of

MANY = 32  # ways to one value: more are not told apart


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
    walk = RowFacts(equations, letters, outputs, made, folds, consumed & {e.result for e in folds}, target)
    for e in equations:
        can_be_moved(e, walk.made)
    choose_line(walk)
    partial, reduced = partial_folds(walk)
    for v in outputs:
        have = set(flat(letters.values[v]))
        if made[v] in partial:
            continue
        if not set(walk.rows) <= have:
            raise Illegal(f"{name_of(v)} would be written again by every row")
        if walk.on_line(v) and not walk.whole_line(v):
            raise Illegal(f"{name_of(v)} has some letters of the line but not all")
    when, passes = passes_of(walk, partial)
    kept = kept_values(walk, partial, when, passes)
    inputs = tuple(dict.fromkeys(e.operands[i] for e, i in letters.uses))
    parts, block_count = parts_of(walk, partial, reduced)
    plan = RowPlan(
        name, equations, inputs, tuple(outputs), letters,  # type: ignore[arg-type]
        rows=walk.rows, line=walk.line, lane=walk.lane, passes=passes, when=when, kept=kept, partial=parts,
        block_count=block_count, reduced=reduced,
    )  # fmt: skip
    mixed = any(set(flat(letters.of(e, 0))) & set(walk.line) for e in partial)  # several rows' maxima meet in one sum
    if walk.gpu and walk.used and len(walk.line) == 1 and not mixed:
        plan.online = online_line(equations, letters, outputs, walk.line[0])
    plan.bytes = traffic(plan)
    plan.operations = sum_extents(_operations(e, letters) for e in equations)
    plan.work = _work(walk)
    plan.parallel = _parallel(plan, walk)
    return plan


# --- numbers for explain() ----------------------------------------------------------------------------------------------------
def traffic(plan: RowPlan) -> Extent:
    """Bytes read and written, each element once."""
    written = [plan.partial.get(e, e.result) for e in plan.equations if e.result in plan.outputs]
    return sum_extents(v.type.count * v.dtype.bytes for v in (*plan.inputs, *written))


def _work(w: RowFacts) -> float:
    """Elementary operations with what every row repeats, and what is computed again where it is read at other places;
    recomputation between passes is not counted."""
    rows = 1
    for x in w.rows:
        rows *= max(1, estimate(w.letters.size[x]))
    line = 1
    for x in w.line:
        line *= max(1, estimate(w.letters.size[x]))
    total = 0.0
    places = _places(w)
    for e in w.equations:
        cost = cost_of(e.op)
        if cost:
            operand = e.op in REDUCTIONS and bool(set(flat(w.letters.of(e, 0))) & set(w.line))
            each = rows * (line if operand or w.on_line(e.result) else 1)
            total += cost * each * len(places[e.result])
    return total


def _places(w: RowFacts) -> dict[Value, list[tuple[Equation, ...]]]:
    """For each value the movements through which it is read, at most MANY: it is computed once for every such way."""
    ways: dict[Value, list[tuple[Equation, ...]]] = {}
    for e in reversed(w.equations):
        here = ways.setdefault(e.result, [])
        if not here or (e.result in w.outputs and () not in here):
            here.append(())
        for i, o in enumerate(e.operands):
            if o in w.made:
                found = ways.setdefault(o, [])  # type: ignore[arg-type]
                for way in here:
                    there = (*way, e) if moved_operand(e, i) else way
                    if there not in found and len(found) < MANY:
                        found.append(there)
    return ways


def _parallel(plan: RowPlan, w: RowFacts) -> int:
    """About how many blocks there are."""
    if plan.partial and plan.block_count:
        if not w.gpu:
            return plan.block_count
        out = plan.block_count * blocks_of_line(w, list(plan.partial))
    else:
        out = 1
    for x in plan.rows:
        if x not in plan.reduced:
            out *= max(1, estimate(w.letters.size[x]))
    if not w.used and not plan.partial and not (w.gpu and any(w.folds.values())):
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
