"""Exponentials, logarithms, roots, trigonometry: functions of floating values; integers and bools become f32.

In:  tensors and weak Python numbers.  Out: floating tensors.
Read before: arithmetic.py. Read next: reductions.py.
"""

from __future__ import annotations

import math
from typing import Any

from kdsl.ir.ops import Op
from kdsl.language.arithmetic import abs, float_operands, maximum, minimum, subtract
from kdsl.language.dispatch import public
from kdsl.language.logic import equal, isinf, where
from kdsl.language.operands import emit, floating, traced
from kdsl.language.tracer import Tracer


def _floating(op: Op, x: Any) -> Tracer:
    """An equation on floating values; integers and bools become f32."""
    return traced(emit(op, floating(x)))


# --- exponentials, logarithms, roots ------------------------------------------------------------------------------
@public
def exp(x: Any, /) -> Tracer:
    """e to the power x; integers and bools give f32. Example: `kd.exp(x)`."""
    return _floating(Op.EXP, x)


@public
def exp2(x: Any, /) -> Tracer:
    """2 to the power x; integers and bools give f32. Example: `kd.exp2(x)`."""
    return _floating(Op.EXP2, x)


@public
def expm1(x: Any, /) -> Tracer:
    """exp(x) - 1, accurate near 0. Example: `kd.expm1(x)`."""
    return _floating(Op.EXPM1, x)


@public
def log(x: Any, /) -> Tracer:
    """The natural logarithm: -inf at 0, NaN below. Example: `kd.log(x)`."""
    return _floating(Op.LOG, x)


@public
def log2(x: Any, /) -> Tracer:
    """The logarithm to base 2. Example: `kd.log2(x)`."""
    return _floating(Op.LOG2, x)


@public
def log10(x: Any, /) -> Tracer:
    """The logarithm to base 10. Example: `kd.log10(x)`."""
    return _floating(Op.LOG10, x)


@public
def log1p(x: Any, /) -> Tracer:
    """log(1 + x), accurate near 0. Example: `kd.log1p(x)`."""
    return _floating(Op.LOG1P, x)


@public
def logaddexp(x1: Any, x2: Any, /) -> Tracer:
    """log(exp(x1) + exp(x2)) without overflow: max + log1p(exp(-|x1 - x2|)). Example: `kd.logaddexp(x, y)`."""
    a, b = float_operands("add", ",", x1, x2)
    distance = abs(where(equal(a, b), 0.0, subtract(a, b)))  # where both are the same infinity a - b is NaN
    return maximum(a, b) + log1p(exp(-distance))


@public
def sqrt(x: Any, /) -> Tracer:
    """The square root: NaN below 0. Example: `kd.sqrt(x)`."""
    return _floating(Op.SQRT, x)


@public
def rsqrt(x: Any, /) -> Tracer:
    """1 / sqrt(x). Example: `kd.rsqrt(x)`."""
    return _floating(Op.RSQRT, x)


@public
def hypot(x1: Any, x2: Any, /) -> Tracer:
    """sqrt(x1**2 + x2**2) without overflow on the way. Example: `kd.hypot(x, y)`."""
    a, b = (abs(o) for o in float_operands("take the hypotenuse of", ",", x1, x2))
    big, small = maximum(a, b), minimum(a, b)
    plain = (big > 0) & (big < math.inf)
    ratio = where(plain, small, 0.0) / where(plain, big, 1.0)
    return where(isinf(a) | isinf(b), where(isinf(a), a, b), big * sqrt(ratio * ratio + 1))


@public
def sigmoid(x: Any, /) -> Tracer:
    """1 / (1 + exp(-x)). Example: `kd.sigmoid(x)`."""
    return _floating(Op.SIGMOID, x)


@public
def erf(x: Any, /) -> Tracer:
    """The error function, 2/sqrt(pi) times the integral of exp(-t*t) from 0 to x. Example: `kd.erf(x)`."""
    return _floating(Op.ERF, x)


# --- trigonometry -------------------------------------------------------------------------------------------------
@public
def sin(x: Any, /) -> Tracer:
    """The sine of x in radians. Example: `kd.sin(x)`."""
    return _floating(Op.SIN, x)


@public
def cos(x: Any, /) -> Tracer:
    """The cosine of x in radians. Example: `kd.cos(x)`."""
    return _floating(Op.COS, x)


@public
def tan(x: Any, /) -> Tracer:
    """The tangent of x in radians. Example: `kd.tan(x)`."""
    return _floating(Op.TAN, x)


@public
def asin(x: Any, /) -> Tracer:
    """The inverse sine, in [-pi/2, pi/2]. Example: `kd.asin(x)`."""
    return _floating(Op.ASIN, x)


@public
def acos(x: Any, /) -> Tracer:
    """The inverse cosine, in [0, pi]. Example: `kd.acos(x)`."""
    return _floating(Op.ACOS, x)


@public
def atan(x: Any, /) -> Tracer:
    """The inverse tangent, in [-pi/2, pi/2]. Example: `kd.atan(x)`."""
    return _floating(Op.ATAN, x)


@public
def atan2(x1: Any, x2: Any, /) -> Tracer:
    """The angle of the point (x2, x1), in [-pi, pi]. Example: `kd.atan2(y, x)`."""
    return traced(emit(Op.ATAN2, *float_operands("take the angle of", ",", x1, x2)))


@public
def sinh(x: Any, /) -> Tracer:
    """The hyperbolic sine. Example: `kd.sinh(x)`."""
    return _floating(Op.SINH, x)


@public
def cosh(x: Any, /) -> Tracer:
    """The hyperbolic cosine. Example: `kd.cosh(x)`."""
    return _floating(Op.COSH, x)


@public
def tanh(x: Any, /) -> Tracer:
    """The hyperbolic tangent. Example: `kd.tanh(x)`."""
    return _floating(Op.TANH, x)


@public
def asinh(x: Any, /) -> Tracer:
    """The inverse hyperbolic sine. Example: `kd.asinh(x)`."""
    return _floating(Op.ASINH, x)


@public
def acosh(x: Any, /) -> Tracer:
    """The inverse hyperbolic cosine: NaN below 1. Example: `kd.acosh(x)`."""
    return _floating(Op.ACOSH, x)


@public
def atanh(x: Any, /) -> Tracer:
    """The inverse hyperbolic tangent: NaN beyond -1 and 1. Example: `kd.atanh(x)`."""
    return _floating(Op.ATANH, x)
