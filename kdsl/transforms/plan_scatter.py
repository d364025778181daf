"""Plans of scatters: one SCATTER_ADD or SCATTER_ALONG with the maps that feed it.

In:  the equations of one kernel, the values it must write.  Out: a ScatterPlan, or Illegal with the reason.
Owners add in order: the elements of the axes that are not scattered run side by side, each adds all updates one after the
other. No atomics, the same sum every time.
Read before: letters.py. Read next: schedule/scatter.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kdsl.ir.frame import Illegal, ScatterPlan, flat
from kdsl.ir.ops import REDUCTIONS, Op
from kdsl.ir.sizes import Extent
from kdsl.ir.tensor import Equation, Value
from kdsl.transforms.cost import estimate, work_of
from kdsl.transforms.letters import letters_of

SCATTERS = (Op.SCATTER_ADD, Op.SCATTER_ALONG)
NOT_MAPS = REDUCTIONS | {Op.SORT, Op.ARGSORT, Op.SEARCHSORTED}


def plan_scatter(
    equations: Sequence[Equation],
    outputs: Sequence[Value],
    name: str = "kernel",
    contiguous: Callable[[Value], bool] | None = None,
) -> ScatterPlan:
    """The plan of a scatter, or Illegal."""
    scatters = [e for e in equations if e.op in SCATTERS]
    if len(scatters) != 1:
        raise Illegal("two scatters")
    (scatter,) = scatters
    if list(outputs) != [scatter.result] or any(scatter.result in e.values for e in equations):
        raise Illegal("a value beside a scatter: its elements are known when all updates are added")
    if any(e.op in NOT_MAPS for e in equations):
        raise Illegal("a fold that feeds a scatter")
    letters = letters_of(equations, contiguous)
    owned = [x for d, axis in enumerate(letters.values[scatter.result]) if d != scatter.attributes["axis"] for x in axis]
    feeding = set(flat(letters.of(scatter, 1))) | set(flat(letters.of(scatter, 2)))
    loops = feeding | set(flat(letters.values[scatter.result]))
    for e in equations:
        own = set(flat(letters.values[e.result]))
        if not own <= loops and e.op not in (Op.IOTA, Op.FULL):
            raise Illegal("a scatter's operand is computed over axes of its own")
    inputs = tuple(dict.fromkeys(e.operands[i] for e, i in letters.uses))
    plan = ScatterPlan(name, tuple(equations), inputs, tuple(outputs), letters, scatter=scatter)  # type: ignore[arg-type]
    moved: Extent = 2 * scatter.values[2].type.count * scatter.result.dtype.bytes
    for v in (*inputs, scatter.result):
        assert isinstance(v, Value)
        moved = moved + v.type.count * v.dtype.bytes
    plan.bytes = moved
    plan.operations = scatter.values[2].type.count
    plan.work = sum(map(work_of, equations))
    for x in owned:
        plan.parallel = min(64, max(1, estimate(letters.size[x])))
    if not owned:
        plan.parallel = 1
    return plan
