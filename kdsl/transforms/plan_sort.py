"""Plans of sorts: SORT and ARGSORT of one tensor along one axis.

In:  the equations of one kernel, the values it must write.  Out: a SortPlan, or Illegal with the reason.
Rows (the other axes) run side by side; a row is merged from runs of 1, 2, 4 … elements, so that a sort is stable whatever
its size. Values and positions of one operand are sorted together. What feeds a sort is stored before it: every element is
compared many times.
Read before: ir/frame.py. Read next: schedule/sort.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from kdsl.ir.frame import Illegal, Letters, SortPlan
from kdsl.ir.ops import Op
from kdsl.ir.tensor import Equation, Value
from kdsl.transforms.cost import estimate

SORTS = (Op.SORT, Op.ARGSORT)
MERGE_STEP = 16  # elementary operations' time that one element takes in one merge, which no vector helps


def plan_sort(equations: Sequence[Equation], outputs: Sequence[Value], name: str = "kernel") -> SortPlan:
    """The plan of sorts of one operand, or Illegal."""
    if any(e.op not in SORTS for e in equations):
        raise Illegal("a sort reads its operand many times: what feeds or follows it has a kernel of its own")
    first = equations[0]
    for e in equations:
        if e.values != first.values or (e.attributes["axis"], e.attributes["descending"]) != (
            first.attributes["axis"],
            first.attributes["descending"],
        ):
            raise Illegal("two sorts of different operands, axes or directions")
    x = first.values[0]
    written = [e.result for e in equations if e.result in outputs]
    plan = SortPlan(name, tuple(equations), (x,), tuple(written), Letters({}, {}, {}))
    plan.bytes = x.type.count * x.dtype.bytes
    for v in written:
        plan.bytes = plan.bytes + v.type.count * v.dtype.bytes
    length = x.shape[first.attributes["axis"]]
    merges = max(1, math.ceil(math.log2(max(2, estimate(length)))))
    plan.operations = x.type.count * merges
    plan.work = float(estimate(x.type.count) * merges * MERGE_STEP)
    rows = estimate(x.type.count) // max(1, estimate(length))
    plan.parallel = min(64, max(1, rows))
    return plan
