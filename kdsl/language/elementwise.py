"""Functions that work element by element: arithmetic, exponentials, trigonometry, rounding, comparisons, logic, bits.

In:  tensors that broadcast to one shape, and weak Python numbers.  Out: a tensor of that shape.
Each is an equation or a short composition of equations. Where a derivative needs care it stands beside the definition.
Read before: operands.py. Read next: reductions.py.
"""

from __future__ import annotations

import math
from typing import Any

import kdsl.dtypes as dt
from kdsl.dtypes import DType
from kdsl.errors import DtypeError
from kdsl.ir.ops import Op
from kdsl.ir.tensor import Value
from kdsl.language.dispatch import public
from kdsl.language.operands import aligned, cast, common_dtype, emit, fitted, known, traced, type_of, value, wanted_dtype
from kdsl.language.tracer import Tracer


# --- shapes of definitions ----------------------------------------------------------------------------------------------------
def _floating(op: Op, x: Any) -> Tracer:
    """An equation on floating values; integers and bools become f32."""
    v = value(x)
    return traced(emit(op, v if v.dtype.is_floating else cast(v, dt.f32)))


def _number(x: Any, name: str) -> Value:
    """`x` as a tensor of numbers: a bool has no sign and no size."""
    v = value(x)
    if v.dtype.kind == "bool":
        raise DtypeError(f"{name} needs numbers, not {v.type}", label=str(v.type), hint="cast first, x.astype(kd.i64)")
    return v


def _arithmetic(op: Op, verb: str, sign: str, a: Any, b: Any) -> Tracer:
    operands, dtype = aligned(verb, a, b, sign=sign)
    if dtype.kind == "bool":
        texts = [type_of(o) for o in operands]
        raise DtypeError(
            f"cannot {verb} bools {texts[0]} and {texts[1]}",
            label=f" {sign} ".join(texts),
            hint="combine masks with & | ^, or count with x.astype(kd.i64)",
        )
    return traced(emit(op, *operands))


def _float_pair(op: Op, verb: str, sign: str, a: Any, b: Any) -> Tracer:
    a, b = known(a), known(b)
    dtype = common_dtype(a, b, what=verb)
    operands, _ = aligned(verb, a, b, sign=sign, dtype=dtype if dtype.is_floating else dt.f32)
    return traced(emit(op, *operands))


def _compared(op: Op, sign: str, a: Any, b: Any) -> Tracer:
    a, b = _widened(known(a), known(b))
    operands, _ = aligned("compare", a, b, sign=sign)
    return traced(emit(op, *operands))


def _widened(a: Any, b: Any) -> tuple[Any, Any]:
    """An integer tensor beside a Python integer that its dtype does not hold is compared as i64: u8 < 300 is true."""
    for x, y in ((a, b), (b, a)):
        if isinstance(x, Value) and x.dtype.is_integer and isinstance(y, int) and x.dtype is not dt.u64:
            try:
                fitted(y, x.dtype)
            except DtypeError:
                x64 = cast(x, dt.i64)
                return (x64, y) if x is a else (y, x64)
    return a, b


def _bits(op: Op, verb: str, sign: str, a: Any, b: Any, bools: bool = True) -> Tracer:
    operands, dtype = aligned(verb, a, b, sign=sign)
    if dtype.is_floating or (dtype.kind == "bool" and not bools):
        texts = [type_of(o) for o in operands]
        raise DtypeError(
            f"cannot {verb} {texts[0]} and {texts[1]}: bits are of integers{' and bools' if bools else ''}",
            label=f" {sign} ".join(texts),
            hint="a comparison such as x > 0 gives bools" if bools else "",
        )
    return traced(emit(op, *operands))


def truth(x: Any) -> Value:
    """`x` as bools: whether each element is not 0 (NaN is not 0)."""
    v = value(x)
    return v if v.dtype.kind == "bool" else emit(Op.NE, v, fitted(0, v.dtype))


def _logical(op: Op, verb: str, sign: str, a: Any, b: Any) -> Tracer:
    operands, _ = aligned(verb, traced(truth(a)), traced(truth(b)), sign=sign)
    return traced(emit(op, *operands))


def _same_everywhere(v: Value, answer: bool) -> Tracer:
    return traced(emit(Op.FULL, value=answer, shape=v.shape, dtype=dt.bool_))


# --- arithmetic ---------------------------------------------------------------------------------------------------------------
@public
def add(x1: Any, x2: Any, /) -> Tracer:
    """The sum x1 + x2. Integers wrap. Example: `kd.add(x, 1)`."""
    return _arithmetic(Op.ADD, "add", "+", x1, x2)


@public
def subtract(x1: Any, x2: Any, /) -> Tracer:
    """The difference x1 - x2. Integers wrap. Example: `kd.subtract(x, 1)`."""
    return _arithmetic(Op.SUB, "subtract", "-", x1, x2)


@public
def multiply(x1: Any, x2: Any, /) -> Tracer:
    """The product x1 * x2, element by element. Integers wrap. Example: `kd.multiply(x, 2)`."""
    return _arithmetic(Op.MUL, "multiply", "*", x1, x2)


@public
def divide(x1: Any, x2: Any, /) -> Tracer:
    """The quotient x1 / x2; integers and bools give f32. Example: `kd.divide(x, 2)`."""
    return _float_pair(Op.DIV, "divide", "/", x1, x2)


@public
def floor_divide(x1: Any, x2: Any, /) -> Tracer:
    """floor(x1 / x2). Integers: division by zero gives 0, the least integer // -1 wraps. Example: `kd.floor_divide(x, 2)`."""
    return _arithmetic(Op.FLOOR_DIV, "divide", "//", x1, x2)


@public
def remainder(x1: Any, x2: Any, /) -> Tracer:
    """x1 - x2 * floor(x1 / x2), with the sign of x2. Integers: remainder by zero is 0. Example: `kd.remainder(x, 3)`."""
    return _arithmetic(Op.MOD, "take the remainder of", "%", x1, x2)


@public
def pow(x1: Any, x2: Any, /) -> Tracer:
    """x1 to the power x2. Integers wrap and take no negative Python number as exponent. Example: `kd.pow(x, 2)`."""
    a, b = known(x1), known(x2)
    if isinstance(b, int) and b < 0 and not common_dtype(a, b).is_floating:
        raise DtypeError(
            f"{type_of(a)} ** {b} is not an integer", label=f"{type_of(a)} ** {b}", hint="cast first, x.astype(kd.f32)"
        )
    return _arithmetic(Op.POW, "raise", "**", x1, x2)


@public
def negative(x: Any, /) -> Tracer:
    """-x. Example: `kd.negative(x)`."""
    return traced(emit(Op.NEG, _number(x, "negative")))


@public
def positive(x: Any, /) -> Tracer:
    """+x, which is x. Example: `kd.positive(x)`."""
    return traced(_number(x, "positive"))


@public
def abs(x: Any, /) -> Tracer:
    """The distance of x from 0; its derivative at 0 is 0. Example: `kd.abs(x)`."""
    v = _number(x, "abs")
    return traced(v if v.dtype.kind == "unsigned" else emit(Op.ABS, v))


@public
def sign(x: Any, /) -> Tracer:
    """-1, 0 or 1; NaN stays NaN. Example: `kd.sign(x)`."""
    return traced(emit(Op.SIGN, _number(x, "sign")))


@public
def square(x: Any, /) -> Tracer:
    """x * x. Example: `kd.square(x)`."""
    v = _number(x, "square")
    return traced(emit(Op.MUL, v, v))


@public
def reciprocal(x: Any, /) -> Tracer:
    """1 / x; integers and bools give f32. Example: `kd.reciprocal(x)`."""
    return divide(1, x)


@public
def maximum(x1: Any, x2: Any, /) -> Tracer:
    """The larger of both, NaN if either is; equal ones share the derivative. Example: `kd.maximum(x, 0)`."""
    return _extremum(Op.MAXIMUM, Op.OR, "compare", x1, x2)


@public
def minimum(x1: Any, x2: Any, /) -> Tracer:
    """The smaller of both, NaN if either is; equal ones share the derivative. Example: `kd.minimum(x, 1)`."""
    return _extremum(Op.MINIMUM, Op.AND, "compare", x1, x2)


def _extremum(op: Op, bool_op: Op, verb: str, a: Any, b: Any) -> Tracer:
    operands, dtype = aligned(verb, a, b)
    return traced(emit(bool_op if dtype.kind == "bool" else op, *operands))


@public
def clip(x: Any, /, min: Any = None, max: Any = None) -> Tracer:
    """x held between min and max (None: no bound); at the bounds the derivative is that of x. Example: `kd.clip(x, 0, 1)`.

    where(x < min, min, x), then where(x > max, max, x): not maximum and minimum, which share the derivative of equal ones.
    """
    bounds = [b for b in (min, max) if b is not None]
    (out, *bounds), dtype = aligned("clip", x, *bounds)
    if not isinstance(out, Value):
        like = next(b for b in bounds if isinstance(b, Value))
        out = emit(Op.FULL, value=out, shape=like.shape, dtype=dtype)
    for bound, beyond in zip(bounds, (Op.LT, Op.GT) if min is not None else (Op.GT,)):
        outside = emit(beyond, out, bound)
        if isinstance(bound, Value) and dtype.is_floating:
            outside = emit(Op.OR, outside, emit(Op.IS_NAN, bound))
        out = emit(Op.WHERE, outside, bound, out)
    return traced(out)


@public
def hypot(x1: Any, x2: Any, /) -> Tracer:
    """sqrt(x1**2 + x2**2) without overflow on the way. Example: `kd.hypot(x, y)`."""
    a, b = abs(divide(x1, 1)), abs(divide(x2, 1))
    big, small = maximum(a, b), minimum(a, b)
    plain = (big > 0) & (big < math.inf)
    ratio = _choose(plain, small, 0.0) / _choose(plain, big, 1.0)
    return _choose(isinf(a) | isinf(b), math.inf, big * sqrt(ratio * ratio + 1))


def _choose(condition: Tracer, a: Any, b: Any) -> Tracer:
    (c, x, y), _ = _where_operands(condition, a, b)
    return traced(emit(Op.WHERE, c, x, y))


def _where_operands(condition: Tracer, a: Any, b: Any) -> tuple[list[Any], DType]:
    from kdsl.language.searching import where_operands

    return where_operands(condition, a, b)


# --- exponentials and logarithms ------------------------------------------------------------------------------------------------
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
    a, b = divide(x1, 1), divide(x2, 1)
    distance = abs(_choose(equal(a, b), 0.0, a - b))  # where both are the same infinity a - b is NaN
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
def sigmoid(x: Any, /) -> Tracer:
    """1 / (1 + exp(-x)). Example: `kd.sigmoid(x)`."""
    return _floating(Op.SIGMOID, x)


@public
def erf(x: Any, /) -> Tracer:
    """The error function, 2/sqrt(pi) times the integral of exp(-t*t) from 0 to x. Example: `kd.erf(x)`."""
    return _floating(Op.ERF, x)


# --- trigonometry ---------------------------------------------------------------------------------------------------------------
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
    return _float_pair(Op.ATAN2, "take the angle of", ",", x1, x2)


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


# --- rounding and the parts of floating numbers -----------------------------------------------------------------------------------
def _rounded(op: Op, x: Any) -> Tracer:
    v = _number(x, op.value)
    return traced(emit(op, v) if v.dtype.is_floating else v)


@public
def floor(x: Any, /) -> Tracer:
    """The largest integer that is at most x, in x's dtype. Example: `kd.floor(x)`."""
    return _rounded(Op.FLOOR, x)


@public
def ceil(x: Any, /) -> Tracer:
    """The smallest integer that is at least x, in x's dtype. Example: `kd.ceil(x)`."""
    return _rounded(Op.CEIL, x)


@public
def round(x: Any, /) -> Tracer:
    """The nearest integer, halves to the even one, in x's dtype. Example: `kd.round(x)`."""
    return _rounded(Op.ROUND, x)


@public
def trunc(x: Any, /) -> Tracer:
    """x without its fraction, in x's dtype. Example: `kd.trunc(x)`."""
    return _rounded(Op.TRUNC, x)


@public
def isnan(x: Any, /) -> Tracer:
    """Whether x is NaN. Example: `kd.isnan(x)`."""
    v = value(x)
    return traced(emit(Op.IS_NAN, v)) if v.dtype.is_floating else _same_everywhere(v, False)


@public
def isinf(x: Any, /) -> Tracer:
    """Whether x is infinite. Example: `kd.isinf(x)`."""
    v = value(x)
    return traced(emit(Op.IS_INF, v)) if v.dtype.is_floating else _same_everywhere(v, False)


@public
def isfinite(x: Any, /) -> Tracer:
    """Whether x is neither infinite nor NaN. Example: `kd.isfinite(x)`."""
    v = value(x)
    return traced(emit(Op.LT, emit(Op.ABS, v), math.inf)) if v.dtype.is_floating else _same_everywhere(v, True)


@public
def signbit(x: Any, /) -> Tracer:
    """Whether the sign bit is set: true for -0.0. Example: `kd.signbit(x)`."""
    v = _number(x, "signbit")
    return traced(emit(Op.SIGN_BIT, v)) if v.dtype.is_floating else less(traced(v), 0)


@public
def copysign(x1: Any, x2: Any, /) -> Tracer:
    """The magnitude of x1 with the sign of x2. Example: `kd.copysign(x, y)`."""
    return _float_pair(Op.COPYSIGN, "copy the sign of", ",", x1, x2)


@public
def nextafter(x1: Any, x2: Any, /) -> Tracer:
    """The floating number next to x1 on the way to x2. Example: `kd.nextafter(x, np.inf)`."""
    return _float_pair(Op.NEXTAFTER, "step between", ",", x1, x2)


# --- comparisons ------------------------------------------------------------------------------------------------------------------
@public
def equal(x1: Any, x2: Any, /) -> Tracer:
    """Whether x1 == x2; NaN equals nothing. Example: `kd.equal(x, 0)`."""
    return _compared(Op.EQ, "==", x1, x2)


@public
def not_equal(x1: Any, x2: Any, /) -> Tracer:
    """Whether x1 != x2. Example: `kd.not_equal(x, 0)`."""
    return _compared(Op.NE, "!=", x1, x2)


@public
def less(x1: Any, x2: Any, /) -> Tracer:
    """Whether x1 < x2. Example: `kd.less(x, 0)`."""
    return _compared(Op.LT, "<", x1, x2)


@public
def less_equal(x1: Any, x2: Any, /) -> Tracer:
    """Whether x1 <= x2. Example: `kd.less_equal(x, 0)`."""
    return _compared(Op.LE, "<=", x1, x2)


@public
def greater(x1: Any, x2: Any, /) -> Tracer:
    """Whether x1 > x2. Example: `kd.greater(x, 0)`."""
    return _compared(Op.GT, ">", x1, x2)


@public
def greater_equal(x1: Any, x2: Any, /) -> Tracer:
    """Whether x1 >= x2. Example: `kd.greater_equal(x, 0)`."""
    return _compared(Op.GE, ">=", x1, x2)


# --- logic and bits ---------------------------------------------------------------------------------------------------------------
@public
def logical_and(x1: Any, x2: Any, /) -> Tracer:
    """Whether both are true (not 0). Example: `kd.logical_and(x > 0, y > 0)`."""
    return _logical(Op.AND, "combine", "and", x1, x2)


@public
def logical_or(x1: Any, x2: Any, /) -> Tracer:
    """Whether at least one is true (not 0). Example: `kd.logical_or(x > 0, y > 0)`."""
    return _logical(Op.OR, "combine", "or", x1, x2)


@public
def logical_xor(x1: Any, x2: Any, /) -> Tracer:
    """Whether exactly one is true (not 0). Example: `kd.logical_xor(x > 0, y > 0)`."""
    return _logical(Op.XOR, "combine", "xor", x1, x2)


@public
def logical_not(x: Any, /) -> Tracer:
    """Whether x is false (0). Example: `kd.logical_not(x > 0)`."""
    return traced(emit(Op.NOT, truth(x)))


@public
def bitwise_and(x1: Any, x2: Any, /) -> Tracer:
    """The bits set in both; logical on bools. Example: `kd.bitwise_and(x, 7)`."""
    return _bits(Op.AND, "combine the bits of", "&", x1, x2)


@public
def bitwise_or(x1: Any, x2: Any, /) -> Tracer:
    """The bits set in either; logical on bools. Example: `kd.bitwise_or(x, 1)`."""
    return _bits(Op.OR, "combine the bits of", "|", x1, x2)


@public
def bitwise_xor(x1: Any, x2: Any, /) -> Tracer:
    """The bits set in exactly one; logical on bools. Example: `kd.bitwise_xor(x, 1)`."""
    return _bits(Op.XOR, "combine the bits of", "^", x1, x2)


@public
def bitwise_invert(x: Any, /) -> Tracer:
    """All bits turned over; logical on bools. Example: `kd.bitwise_invert(mask)`."""
    v = value(x)
    if v.dtype.is_floating:
        raise DtypeError(f"cannot invert the bits of {v.type}", label=str(v.type), hint="a comparison such as x > 0 gives bools")
    return traced(emit(Op.NOT, v))


@public
def bitwise_left_shift(x1: Any, x2: Any, /) -> Tracer:
    """x1 * 2**x2 without the lost bits; a shift by the width or more gives 0. Example: `kd.bitwise_left_shift(x, 2)`."""
    return _bits(Op.SHL, "shift", "<<", x1, x2, bools=False)


@public
def bitwise_right_shift(x1: Any, x2: Any, /) -> Tracer:
    """floor(x1 / 2**x2); a shift by the width or more leaves the sign. Example: `kd.bitwise_right_shift(x, 2)`."""
    return _bits(Op.SHR, "shift", ">>", x1, x2, bools=False)


# --- casts and derivatives ----------------------------------------------------------------------------------------------------------
@public
def astype(x: Any, dtype: Any, /, *, copy: bool = True) -> Tracer:
    """x in another dtype: floats truncate and saturate to integers, NaN becomes 0. Example: `kd.astype(x, kd.f16)`.

    A cast to f16 or bf16 rounds even where x has that dtype: inside a kernel such values are f32 until cast or stored.
    """
    v, wanted = value(x), wanted_dtype(dtype)
    if v.dtype is wanted and wanted.compute is wanted:
        return traced(v)
    if wanted.kind == "bool":
        return traced(truth(traced(v)))
    return traced(emit(Op.CAST, v, dtype=wanted))


@public
def stop_gradient(x: Any, /) -> Tracer:
    """x, with no derivative through it. Example: `kd.stop_gradient(x)`."""
    return traced(emit(Op.STOP_GRADIENT, value(x)))

