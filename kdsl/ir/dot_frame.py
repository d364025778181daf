"""What the planner of contractions finds out, and what their schedules carry out. Records only.

In:  nothing.  Out: the `frame` of a DotPlan (ir/frame.py).
A product multiplies `a`, the operand whose rows a tile holds, with `b`, the operand whose columns lie along the vectors. Its
letters are the plan's `outer` letters (one grid step each), `row`, its own `column`, and `k`, the summed ones.

    out[outer, row, column] = sum over k of a[outer, row, k] * b[outer, k, column]

A plain frame has one product and maps around it. A strip frame walks over rows in small blocks and keeps what stands along
`line` near: products that make line values, folds and maps along the line, and products that sum the line away.
Read before: ir/frame.py. Read next: transforms/plan_dots.py, schedule/dots.py, schedule/chain.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kdsl.ir.frame import Letter
from kdsl.ir.sizes import Extent
from kdsl.ir.tensor import Equation, Value


@dataclass(frozen=True, eq=False)
class Product:
    """One DOT equation: `a` and `b` are operand numbers; k outermost first, the last is walked innermost."""

    equation: Equation
    a: int
    b: int
    column: Letter | None  # None: every letter of the result is in both operands
    k: tuple[Letter, ...]


@dataclass(frozen=True, eq=False)
class Cut:
    """Beyond these bounds of the line nothing counts: for rows r … r + n - 1 the line runs from lo to hi.

    A position `line` counts only if line <= row + below, and only if line >= row - above; None where there is no such bound.
    `masks`: predicates that are true exactly within bounds of their own, (below, above)."""

    below: Extent | None = None
    above: Extent | None = None
    masks: tuple[tuple[Value, Extent | None, Extent | None], ...] = ()


@dataclass(frozen=True, eq=False)
class LineWalk:
    """One walk of a GPU along the line: the folds and products that it adds up, in order, and the line values that it stores.

    `corrected`: for a sum the maxima of the same walk that its terms were computed with, each with k: when such a maximum
    grows by d, what is summed so far is multiplied by exp(k * d)."""

    sums: tuple[Equation, ...]
    corrected: dict[Equation, tuple[tuple[Equation, float], ...]]
    stores: tuple[Value, ...] = ()


@dataclass(frozen=True, eq=False)
class DotFrame:
    """A plain product: `line` is None. A strip: products that make line values come in `products` before those that use them."""

    outer: tuple[Letter, ...]
    row: Letter | None
    products: tuple[Product, ...]
    line: Letter | None = None
    when: dict[Value, int] = field(default_factory=dict)  # strips: the pass in which a line value is known
    passes: int = 1
    strips: tuple[Value, ...] = ()  # line values that wait near for a later pass
    cut: Cut | None = None
    walks: tuple[LineWalk, ...] = ()  # strips on a GPU
