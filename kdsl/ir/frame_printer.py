"""Plans as text: for each kernel its kind, what it reads and writes, its loops, and its equations.

In:  ir.frame.Grouping.  Out: the text of the stage "grouped".
Read before: ir/frame.py, ir/printer.py. Read next: inspection/explain.py.
"""

from __future__ import annotations

from kdsl.ir.frame import Grouping, Plan, RowPlan
from kdsl.ir.printer import show
from kdsl.ir.tensor import Function


def show_grouping(grouping: Grouping) -> str:
    """All plans in launch order, then why they were not fewer."""
    texts = [show_plan(plan) for plan in grouping.plans]
    texts += [f"not merged: {r.first} with {r.second}: {r.reason}" for r in grouping.refusals]
    return "\n\n".join(texts)


def show_plan(plan: Plan) -> str:
    """One kernel."""
    head = [f"{plan.kind} {plan.name}: {plan.bytes} bytes, {plan.operations} operations"]
    head += [f"  # {note}" for note in plan.notes]
    if isinstance(plan, RowPlan):
        head.append(f"  # {plan.passes} {'pass' if plan.passes == 1 else 'passes'} over the line")
    outputs = tuple(v for v in plan.outputs)
    made = {e.result for e in plan.equations}
    body = show(Function(plan.name, plan.inputs, plan.equations, tuple(v for v in outputs if v in made)))
    return "\n".join([*head, body])
