"""Plans of contractions: which products, maps and folds one kernel can compute, and along which letters it walks.

In:  equations with at least one DOT, the values that must be written, the letters.  Out: a DotPlan, or Illegal(reason).
This is also the judge of every merge that contains a DOT. A plain plan is one product with maps behind it (its epilogue) and
before it (its operands may be computed). A strip plan keeps values along one letter, the line, near a small block of rows.
Read before: ir/dot_frame.py, transforms/letters.py. Read next: transforms/plan_strips.py, schedule/dots.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kdsl.ir.dot_frame import DotFrame
from kdsl.ir.frame import DotPlan, Illegal, Letters, flat
from kdsl.ir.sizes import Extent
from kdsl.ir.tensor import Equation, Value
from kdsl.target import Target, parse_target
from kdsl.transforms.cost import estimate
from kdsl.transforms.dot_facts import Facts, product_of
from kdsl.transforms.letters import HardLetters, letters_of
from kdsl.transforms.plan_strips import strip_frame


def plan_dots(
    equations: Sequence[Equation],
    outputs: Sequence[Value],
    name: str = "kernel",
    contiguous: Callable[[Value], bool] | None = None,
    target: Target | None = None,
    hard: HardLetters | None = None,
) -> DotPlan:
    """The plan of a kernel that contains a DOT; Illegal if there is none. Equations in program order."""
    letters = letters_of(equations, contiguous, hard)
    inputs = tuple(dict.fromkeys(e.operands[i] for e, i in letters.uses))
    facts = Facts(equations, outputs, letters)
    frame = plain_frame(facts) if facts.is_plain else strip_frame(facts, target or parse_target("cpu"))
    operations: Extent = 0
    for product in frame.products:
        count: Extent = 2
        for x in {*flat(letters.values[product.equation.result]), *product.k}:
            count = count * letters.size[x]
        operations = operations + count
    moved: Extent = 0
    for v in (*inputs, *outputs):
        assert isinstance(v, Value)
        moved = moved + v.type.count * v.dtype.bytes
    return DotPlan(
        name=name, equations=tuple(equations), inputs=inputs, outputs=tuple(outputs), letters=letters,  # type: ignore[arg-type]
        bytes=moved, operations=operations, frame=frame, parallel=_side_by_side(frame, letters),
    )  # fmt: skip


def _side_by_side(frame: DotFrame, letters: Letters) -> int:
    """Blocks that run side by side: rows do not where a product sums them."""
    if not any(p.k == (frame.row,) for p in frame.products if frame.line is not None):
        return 64
    count = 1
    for x in frame.outer:
        count *= estimate(letters.size[x])
    return count


def plain_frame(facts: Facts) -> DotFrame:
    """One product: the innermost letter of the result that only one operand has lies along the vectors."""
    (e,) = facts.dots
    result = facts.result(e)
    of = (facts.of(e, 0), facts.of(e, 1))
    own = [[x for x in result if x in of[i] and x not in of[1 - i]] for i in (0, 1)]
    column = next((x for x in reversed(result) if x in own[0] or x in own[1]), None)
    b = 0 if column in own[0] else 1
    rows = own[1 - b]
    row = facts.longest(rows)
    outer = tuple(x for x in result if x not in (row, column))
    everything = set(result)
    for x in facts.equations:
        if x.result in facts.after and not set(facts.result(x)) <= everything:
            raise Illegal("a map behind a product that is larger than the product")
    for v in facts.outputs:
        if set(flat(facts.letters.values[v])) != everything:
            raise Illegal("an output of another shape than the product's, which several tiles would write")
        if v not in facts.after:
            raise Illegal("an output that does not depend on the product")
        for q in facts.cone(v):
            if (
                q.result not in facts.after
                and not set(facts.result(q)) <= everything
                and q is not e
                and not _feeds(facts, q, e)
            ):
                raise Illegal("a map beside a product that is larger than the product")
    return DotFrame(outer, row, (product_of(facts, e, 1 - b, column),))


def _feeds(facts: Facts, q: Equation, e: Equation) -> bool:
    return any(q in facts.cone(v) for v in e.values)
