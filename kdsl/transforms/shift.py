"""How every value of a program answers when one value m is shifted: proves gradients zero, and gives rescaling exponents.

In:  a Function and one of its values m.  Out: a degree for each value that depends on m:
    Degree("shift", k): m -> m + d makes it v + k*d        Degree("scale", k): it becomes v * exp(k*d)        None: anything else
The maximum inside softmax: exp(x - m) has scale -1, its sum too, their quotient scale 0, so softmax does not depend on m and
the gradient through m is zero whatever m is. The same k tells how a running sum is rescaled when a running maximum moves.
Read before: ir/tensor.py. Read next: transforms/differentiate.py.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from kdsl.ir.ops import Op
from kdsl.ir.tensor import Equation, Function, Operand, Value


class Degree(NamedTuple):
    kind: str  # "shift" | "scale"
    k: float


INVARIANT = Degree("shift", 0.0)
MOVES = frozenset({Op.BROADCAST, Op.PERMUTE, Op.RESHAPE, Op.SLICE, Op.WINDOW, Op.STOP_GRADIENT, Op.BARRIER})


def shift_degrees(function: Function, m: Value) -> dict[Value, Degree | None]:
    """The degree of every value that depends on m; what is not in the table does not depend on it."""
    degrees: dict[Value, Degree | None] = {m: Degree("shift", 1.0)}
    for e in function.equations:
        if e.result is not m and any(v in degrees for v in e.values):
            degree = _degree(
                e, [degrees.get(o, INVARIANT) if isinstance(o, Value) else INVARIANT for o in e.operands]
            )
            degrees[e.result] = INVARIANT if degree is not None and degree.k == 0 else degree
    return degrees


def without_influence(function: Function, m: Value) -> bool:
    """Whether no result answers to a shift of m: the gradient through m is identically zero."""
    degrees = shift_degrees(function, m)
    return all(degrees.get(r, INVARIANT) == INVARIANT for r in function.results)


def _degree(e: Equation, x: list[Degree | None]) -> Degree | None:
    if all(d == INVARIANT for d in x):
        return INVARIANT
    if any(d is None for d in x):
        return None
    known = [d for d in x if d is not None]
    first = known[0]
    if e.op in MOVES or (e.op is Op.CAST and e.result.dtype.is_floating):
        return first
    if e.op in (Op.MAX, Op.MIN) or (e.op is Op.SUM and first.kind == "scale"):
        return first
    if e.op in (Op.MAXIMUM, Op.MINIMUM, Op.CONCAT):
        return first if len(set(known)) == 1 and all(isinstance(o, Value) for o in e.operands) else None
    if e.op in (Op.ADD, Op.SUB) and all(d.kind == "shift" for d in known):
        return Degree("shift", first.k + (known[1].k if e.op is Op.ADD else -known[1].k))
    if e.op in (Op.ADD, Op.SUB) and first == known[1] and all(isinstance(o, Value) for o in e.operands):
        return first
    if e.op in (Op.EXP, Op.EXP2) and first.kind == "shift":
        return Degree("scale", first.k if e.op is Op.EXP else first.k * math.log(2))
    if e.op is Op.LOG and first.kind == "scale":
        return Degree("shift", first.k)
    if e.op in (Op.EQ, Op.NE, Op.LT, Op.LE, Op.GT, Op.GE) and len(set(known)) == 1 and first.kind == "shift":
        return INVARIANT
    if e.op in (Op.MUL, Op.DOT, Op.DIV):
        return _product(e, known)
    if e.op is Op.WHERE and first == INVARIANT:
        return _choice(e.operands[1:], known[1:])
    return None


def _scale(d: Degree) -> float | None:
    return d.k if d.kind == "scale" else 0.0 if d == INVARIANT else None


def _product(e: Equation, x: list[Degree]) -> Degree | None:
    p, q = _scale(x[0]), _scale(x[1])
    if p is not None and q is not None:
        return Degree("scale", p - q if e.op is Op.DIV else p + q)
    factor = e.operands[1]
    if e.op is Op.MUL and not isinstance(factor, Value) and x[0].kind == "shift":
        return Degree("shift", x[0].k * factor)
    return None


def _choice(operands: tuple[Operand, ...], x: list[Degree]) -> Degree | None:
    """A literal side is neutral if it answers as the other side does: 0 to scaling, infinities to a shift."""
    scaled = any(d.kind == "scale" for d in x)
    kept = {
        d
        for d, o in zip(x, operands, strict=True)
        if isinstance(o, Value) or not (o == 0 if scaled else math.isinf(o))
    }
    return next(iter(kept)) if len(kept) == 1 else None
