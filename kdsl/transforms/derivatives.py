"""The derivative of every elementwise op and reduction, one table: cotangent of the result -> cotangents of the operands.

In:  an equation y = op(x …), the cotangent g of y.  Out: one cotangent for each operand, or None where there is none.
Ops without a derivative (comparisons, rounding, integers …) map to `none`. Structure (movement, indexing, contractions) is in
derivatives_structure.py; both tables are joined, and held total, in differentiate.py. Where there is no derivative, the
contract (section 4) says what stands for it: ties of max and maximum share equally, abs and sign give 0.
Read before: transforms/rewrite.py. Read next: transforms/derivatives_structure.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from kdsl.ir.ops import COMPARISONS, Op
from kdsl.ir.tensor import Equation, Operand, Value
from kdsl.transforms.rewrite import Simplifier

Cotangents = tuple[Operand | None, ...]
Derivative = Callable[[Simplifier, Equation, Value], Cotangents]


def none(b: Simplifier, e: Equation, g: Value) -> Cotangents:
    """No influence: the result is piecewise constant in the operands, or they are no numbers with derivatives."""
    return (None,) * len(e.operands)


def _times(f: Callable[[Simplifier, Operand, Value], Operand]) -> Derivative:
    """For one operand: g times a factor made of the operand x and the result y."""
    return lambda b, e, g: (b.emit(Op.MUL, g, f(b, e.operands[0], e.result)),)


def _over(f: Callable[[Simplifier, Operand, Value], Operand], factor: float = 1.0) -> Derivative:
    """For one operand: g divided by something, times a literal."""

    def derivative(b: Simplifier, e: Equation, g: Value) -> Cotangents:
        return (b.emit(Op.MUL, b.emit(Op.DIV, g, f(b, e.operands[0], e.result)), factor),)

    return derivative


def _square(b: Simplifier, x: Operand) -> Operand:
    return b.emit(Op.MUL, x, x)


def _one_minus_square(b: Simplifier, x: Operand) -> Operand:
    """(1 - x)(1 + x), which keeps its digits near 1."""
    return b.emit(Op.MUL, b.emit(Op.SUB, 1.0, x), b.emit(Op.ADD, x, 1.0))


def _negative(b: Simplifier, x: Operand) -> Operand:
    return b.emit(Op.MUL, x, -1.0)


def _bell(b: Simplifier, x: Operand, y: Value) -> Operand:
    return b.emit(Op.MUL, b.emit(Op.EXP, _negative(b, _square(b, x))), 2 / math.sqrt(math.pi))


def _mul(b: Simplifier, e: Equation, g: Value) -> Cotangents:
    x, y = e.operands
    if x is y:
        return b.emit(Op.MUL, b.emit(Op.MUL, g, x), 2.0), None
    return b.emit(Op.MUL, g, y), b.emit(Op.MUL, g, x) if isinstance(y, Value) else None


def _div(b: Simplifier, e: Equation, g: Value) -> Cotangents:
    x, y = e.operands
    if x == 1.0 and not isinstance(x, Value):
        return None, _negative(b, b.emit(Op.MUL, b.emit(Op.MUL, g, e.result), e.result))
    quotient = b.emit(Op.DIV, g, y)
    return quotient, _negative(b, b.emit(Op.MUL, quotient, e.result)) if isinstance(y, Value) else None


def _mod(b: Simplifier, e: Equation, g: Value) -> Cotangents:
    return g, _negative(b, b.emit(Op.MUL, g, b.emit(Op.FLOOR_DIV, *e.operands)))


def _pow(b: Simplifier, e: Equation, g: Value) -> Cotangents:
    x, p = e.operands
    by_base: Operand | None = None
    if isinstance(x, Value) and not isinstance(p, Value):
        by_base = b.emit(Op.MUL, g, b.emit(Op.MUL, b.emit(Op.POW, x, p - 1.0), p)) if p else None
    elif isinstance(x, Value):
        slope = b.emit(Op.MUL, b.emit(Op.POW, x, b.emit(Op.SUB, p, 1.0)), p)
        by_base = b.emit(Op.MUL, g, b.emit(Op.WHERE, b.emit(Op.EQ, p, 0.0), 0.0, slope))
    if not isinstance(p, Value):
        return by_base, None
    if not isinstance(x, Value):
        return None, b.emit(Op.MUL, g, b.emit(Op.MUL, e.result, math.log(x))) if x > 0 else None
    flat = b.emit(Op.AND, b.emit(Op.EQ, x, 0.0), b.emit(Op.GE, p, 0.0))  # 0**p does not move with p
    safe = b.emit(Op.WHERE, flat, 1.0, x)
    growth = b.emit(Op.WHERE, flat, 0.0, b.emit(Op.MUL, e.result, b.emit(Op.LOG, safe)))
    return by_base, b.emit(Op.MUL, g, growth)


def _atan2(b: Simplifier, e: Equation, g: Value) -> Cotangents:
    y, x = (b.array(o, e.result.shape, e.result.dtype) for o in e.operands)
    quotient = b.emit(Op.DIV, g, b.emit(Op.ADD, _square(b, x), _square(b, y)))
    return b.emit(Op.MUL, quotient, x), _negative(b, b.emit(Op.MUL, quotient, y))


def _copysign(b: Simplifier, e: Equation, g: Value) -> Cotangents:
    x = e.operands[0]
    if not isinstance(x, Value):
        return None, None
    turned = b.emit(Op.XOR, b.emit(Op.SIGN_BIT, x), b.emit(Op.SIGN_BIT, e.result))
    return b.emit(Op.WHERE, turned, _negative(b, g), g), None


def _extreme(b: Simplifier, e: Equation, g: Value) -> Cotangents:
    """maximum and minimum: the chosen side; equal ones share equally; NaN on a side lets the cotangent pass."""
    tie, half = b.emit(Op.EQ, *e.operands), b.emit(Op.MUL, g, 0.5)
    loses = b.emit(Op.LT if e.op is Op.MAXIMUM else Op.GT, *e.operands)
    wins = b.emit(Op.GT if e.op is Op.MAXIMUM else Op.LT, *e.operands)
    first = b.emit(Op.WHERE, tie, half, b.emit(Op.WHERE, loses, 0.0, g))
    if not isinstance(e.operands[1], Value):
        return first, None
    return first, b.emit(Op.WHERE, tie, half, b.emit(Op.WHERE, wins, 0.0, g))


def _cast(b: Simplifier, e: Equation, g: Value) -> Cotangents:
    source = e.values[0].dtype
    return (b.emit(Op.CAST, g, dtype=source) if source.is_floating else None,)


NOT_DIFFERENTIABLE = COMPARISONS | {
    Op.SIGN, Op.FLOOR, Op.CEIL, Op.ROUND, Op.TRUNC, Op.IS_NAN, Op.IS_INF, Op.SIGN_BIT, Op.NOT, Op.BITCAST, Op.STOP_GRADIENT,
    Op.FLOOR_DIV, Op.NEXTAFTER, Op.MULHI, Op.AND, Op.OR, Op.XOR, Op.SHL, Op.SHR,
}  # fmt: skip

ELEMENTWISE_DERIVATIVES: dict[Op, Derivative] = {
    **{op: none for op in NOT_DIFFERENTIABLE},
    Op.NEG: lambda b, e, g: (_negative(b, g),),
    Op.ABS: _times(lambda b, x, y: b.emit(Op.SIGN, x)),
    Op.EXP: _times(lambda b, x, y: y),
    Op.EXP2: _times(lambda b, x, y: b.emit(Op.MUL, y, math.log(2))),
    Op.EXPM1: _times(lambda b, x, y: b.emit(Op.EXP, x)),
    Op.LOG: _over(lambda b, x, y: x),
    Op.LOG2: _over(lambda b, x, y: x, 1 / math.log(2)),
    Op.LOG10: _over(lambda b, x, y: x, 1 / math.log(10)),
    Op.LOG1P: _over(lambda b, x, y: b.emit(Op.ADD, x, 1.0)),
    Op.SQRT: _over(lambda b, x, y: y, 0.5),
    Op.RSQRT: _times(lambda b, x, y: b.emit(Op.MUL, b.emit(Op.MUL, y, _square(b, y)), -0.5)),
    Op.SIN: _times(lambda b, x, y: b.emit(Op.COS, x)),
    Op.COS: _times(lambda b, x, y: _negative(b, b.emit(Op.SIN, x))),
    Op.TAN: _times(lambda b, x, y: b.emit(Op.ADD, _square(b, y), 1.0)),
    Op.ASIN: _over(lambda b, x, y: b.emit(Op.SQRT, _one_minus_square(b, x))),
    Op.ACOS: _over(lambda b, x, y: b.emit(Op.SQRT, _one_minus_square(b, x)), -1.0),
    Op.ATAN: _over(lambda b, x, y: b.emit(Op.ADD, _square(b, x), 1.0)),
    Op.SINH: _times(lambda b, x, y: b.emit(Op.COSH, x)),
    Op.COSH: _times(lambda b, x, y: b.emit(Op.SINH, x)),
    Op.TANH: _times(lambda b, x, y: b.emit(Op.SUB, 1.0, _square(b, y))),
    Op.ASINH: _over(lambda b, x, y: b.emit(Op.SQRT, b.emit(Op.ADD, _square(b, x), 1.0))),
    Op.ACOSH: _over(
        lambda b, x, y: b.emit(Op.SQRT, b.emit(Op.MUL, b.emit(Op.SUB, x, 1.0), b.emit(Op.ADD, x, 1.0)))
    ),
    Op.ATANH: _over(lambda b, x, y: _one_minus_square(b, x)),
    Op.SIGMOID: _times(lambda b, x, y: b.emit(Op.MUL, y, b.emit(Op.SUB, 1.0, y))),
    Op.ERF: _times(_bell),
    Op.CAST: _cast,
    Op.ADD: lambda b, e, g: (g, g if isinstance(e.operands[1], Value) else None),
    Op.SUB: lambda b, e, g: (g, _negative(b, g)),
    Op.MUL: _mul,
    Op.DIV: _div,
    Op.MOD: _mod,
    Op.POW: _pow,
    Op.ATAN2: _atan2,
    Op.COPYSIGN: _copysign,
    Op.MAXIMUM: _extreme,
    Op.MINIMUM: _extreme,
}
"""WHERE is not here: differentiate.py turns its condition into a mask that the cotangent carries."""
