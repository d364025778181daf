"""Plans as text: which equations became which kernel, and how each kernel will walk over its data.

In:  ir.frame.Grouping.  Out: the texts of the stages "grouped" and "lowered".
Read before: ir/frame.py, ir/printer.py. Read next: inspection/explain.py.
"""

from __future__ import annotations

from kdsl.ir.frame import Grouping, Letter, Plan, RowPlan, flat
from kdsl.ir.printer import labels_of, show
from kdsl.ir.tensor import Function, Value


def show_grouping(grouping: Grouping) -> str:
    """The equations of each kernel in launch order, then why there are not fewer kernels."""
    texts = [f"# {plan.kind}\n{show(_as_function(plan))}" for plan in grouping.plans]
    texts += [f"# not merged: {r.first} with {r.second}: {r.reason}" for r in grouping.refusals]
    return "\n\n".join(texts)


def show_frames(grouping: Grouping) -> str:
    """The frame of each kernel: letters of its loops with their extents, passes, what is kept between them."""
    return "\n\n".join(_frame(plan) for plan in grouping.plans)


def _as_function(plan: Plan) -> Function:
    made = {e.result for e in plan.equations}
    return Function(plan.name, plan.inputs, plan.equations, tuple(v for v in plan.outputs if v in made))


def _frame(plan: Plan) -> str:
    labels = labels_of(_as_function(plan))
    letters = {x: _letter(i) for i, x in enumerate(plan.letters.size)}

    def loops(names: tuple[Letter, ...]) -> str:
        return ", ".join(f"{letters[x]} < {plan.letters.size[x]}" for x in names if x in letters) or "none"

    def name(v: Value) -> str:
        return f"{labels.get(v, v.name or 'a value')}:{v.type}"

    def value(v: Value) -> str:
        axes = plan.letters.values.get(v)
        return name(v) + (
            "" if axes is None else f" along {' '.join(letters.get(x, '?') for x in flat(axes)) or 'nothing'}"
        )

    lines = [
        f"{plan.kind} {plan.name} ({type(plan).__name__}): {plan.bytes} bytes, {plan.operations} operations"
    ]
    lines += [f"  # {note}" for note in plan.notes]
    if isinstance(plan, RowPlan):
        lines += [f"  rows: {loops(plan.rows)}", f"  line: {loops(plan.line)}", f"  passes: {plan.passes}"]
        lines += [f"  kept: {value(v)}" for v in plan.kept]
        lines += [f"  partial sums in {plan.block_count} blocks: {value(e.result)}" for e in plan.partial]
    lines += [f"  reads {name(v)}" for v in plan.inputs]
    lines += [f"  writes {value(v)}" for v in plan.outputs]
    return "\n".join(lines)


def _letter(i: int) -> str:
    return "abcdefghijklmnopqrstuvwxyz"[i] if i < 26 else f"a{i}"
