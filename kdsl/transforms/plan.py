"""The judge: a plan for these equations in one kernel, or Illegal with the reason.

In:  equations in program order, the values to write.  Out: RowPlan, DotPlan, ScanPlan, ScatterPlan or SortPlan.
Read before: plan_rows.py, plan_dots.py, plan_scan.py, plan_scatter.py, plan_sort.py. Read next: group.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kdsl.ir.frame import Plan
from kdsl.ir.ops import Op
from kdsl.ir.tensor import Equation, Value
from kdsl.target import Target
from kdsl.transforms.cost import DOT_RATE, work_of
from kdsl.transforms.letters import HardLetters
from kdsl.transforms.plan_dots import plan_dots
from kdsl.transforms.plan_rows import plan_rows
from kdsl.transforms.plan_scan import plan_scan
from kdsl.transforms.plan_scatter import SCATTERS, plan_scatter
from kdsl.transforms.plan_sort import SORTS, plan_sort


def plan(
    equations: Sequence[Equation], outputs: Sequence[Value], name: str, contiguous: Callable[[Value], bool], target: Target,
    hard: HardLetters | None = None,
) -> Plan:  # fmt: skip
    """The plan of one kernel. `hard`: what is known of exactly these equations' letters."""
    if any(e.op is Op.SCAN for e in equations):
        return plan_scan(equations, outputs, name, contiguous, target)
    if any(e.op is Op.DOT for e in equations):
        found = plan_dots(equations, outputs, name, contiguous, target, hard)
        found.work = sum(work_of(e) * (DOT_RATE if e.op is Op.DOT else 1.0) for e in equations)
        return found
    if any(e.op in SCATTERS for e in equations):
        return plan_scatter(equations, outputs, name, contiguous)
    if any(e.op in SORTS for e in equations):
        return plan_sort(equations, outputs, name)
    return plan_rows(equations, outputs, name, contiguous, hard, target)
