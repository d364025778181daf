"""What the planners of contractions ask about a set of equations.

In:  equations with a DOT, outputs, letters.  Out: Facts: which values depend on a product, letters of operands, cones.
Read before: transforms/letters.py. Read next: transforms/plan_dots.py, transforms/plan_strips.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kdsl.ir.dot_frame import Product
from kdsl.ir.frame import Illegal, Letter, Letters, flat
from kdsl.ir.ops import ELEMENTWISE, REDUCTIONS, Op
from kdsl.ir.sizes import Extent
from kdsl.ir.tensor import Equation, Value
from kdsl.transforms.moved import can_be_moved

RENAMES = frozenset({Op.BROADCAST, Op.PERMUTE, Op.RESHAPE, Op.BARRIER, Op.STOP_GRADIENT})
MOVES = frozenset({Op.SLICE, Op.WINDOW, Op.PAD, Op.CONCAT, Op.TAKE, Op.TAKE_ALONG})  # they read at other places
MAPS = ELEMENTWISE | RENAMES | MOVES | {Op.FULL, Op.IOTA, Op.SIZE, Op.CONSTANT, Op.RANDOM_BITS}


class Facts:
    """What the planners ask about a set of equations."""

    def __init__(self, equations: Sequence[Equation], outputs: Sequence[Value], letters: Letters) -> None:
        self.equations, self.outputs, self.letters = equations, outputs, letters
        self.made = {e.result: e for e in equations}
        self.dots = [e for e in equations if e.op is Op.DOT]
        for e in equations:
            if e.op is not Op.DOT and e.op not in MAPS and e.op not in REDUCTIONS:
                raise Illegal(f"{e.op.value} in a kernel with a contraction")
        self.after: set[Value] = set()  # values that depend on a product
        for e in equations:
            if e.op is Op.DOT or any(v in self.after for v in e.values):
                self.after.add(e.result)
        for e in equations:
            can_be_moved(e, self.made)
            if e.op in MOVES and any(v in self.after for v in e.values):
                raise Illegal(f"a {e.op.value} of a product in its own kernel")

    @property
    def is_plain(self) -> bool:
        """One product, no fold, and the product's operands do not depend on a product."""
        return len(self.dots) == 1 and not any(e.op in REDUCTIONS for e in self.equations)

    def of(self, e: Equation, i: int) -> frozenset[Letter]:
        return frozenset(flat(self.letters.of(e, i)))

    def result(self, e: Equation) -> tuple[Letter, ...]:
        return flat(self.letters.values[e.result])

    def longest(self, letters: Iterable[Letter]) -> Letter | None:
        """The letter with the largest extent, the last among equals; named sizes count as long."""
        size = self.letters.size
        best: Letter | None = None
        for x in letters:
            if best is None or _rank(size[x]) >= _rank(size[best]):
                best = x
        return best

    def cone(self, v: Value) -> list[Equation]:
        """The equations of this kernel that v is computed from, v's own included."""
        out, todo = [], [v]
        seen: set[Value] = set()
        while todo:
            x = todo.pop()
            if x in self.made and x not in seen:
                seen.add(x)
                out.append(self.made[x])
                todo.extend(self.made[x].values)
        return out


def product_of(facts: Facts, e: Equation, a: int, column: Letter | None) -> Product:
    """The product with rows from operand `a`, its summed letters with the longest innermost."""
    out = set(facts.result(e))
    summed = [
        x
        for x in dict.fromkeys((*flat(facts.letters.of(e, 0)), *flat(facts.letters.of(e, 1))))
        if x not in out
    ]
    fast = facts.longest(summed)
    return Product(
        e, a, 1 - a, column, (*(x for x in summed if x != fast), *(() if fast is None else (fast,)))
    )


def _rank(n: Extent) -> int:
    return n if isinstance(n, int) else 1 << 40
