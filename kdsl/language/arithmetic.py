"""Arithmetic, rounding, extrema, casts: what keeps to the dtype of its operands.

In:  tensors that broadcast to one shape, and weak Python numbers.  Out: a tensor of that shape.
Each is an equation or a short composition of equations. Where a derivative needs care it stands beside the definition.
Read before: logic.py. Read next: exponential.py.
"""

from __future__ import annotations

from typing import Any

import kdsl.dtypes as dt
from kdsl.errors import DtypeError
from kdsl.ir.ops import Op
from kdsl.ir.tensor import Value
from kdsl.language.dispatch import public
from kdsl.language.logic import truth
from kdsl.language.operands import aligned, common_dtype, emit, known, numbers, traced, type_of, value, wanted_dtype
from kdsl.language.tracer import Tracer


# --- arithmetic ---------------------------------------------------------------------------------------------------
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


def float_operands(verb: str, sign: str, a: Any, b: Any) -> list[Any]:
    """Two operands in one floating dtype and one shape; integers and bools become f32."""
    a, b = known(a), known(b)
    dtype = common_dtype(a, b, what=verb)
    return aligned(verb, a, b, sign=sign, dtype=dtype if dtype.is_floating else dt.f32)[0]


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
    return traced(emit(Op.DIV, *float_operands("divide", "/", x1, x2)))


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
    return traced(emit(Op.NEG, numbers(x, "negative")))


@public
def positive(x: Any, /) -> Tracer:
    """+x, which is x. Example: `kd.positive(x)`."""
    return traced(numbers(x, "positive"))


@public
def abs(x: Any, /) -> Tracer:
    """The distance of x from 0; its derivative at 0 is 0. Example: `kd.abs(x)`."""
    v = numbers(x, "abs")
    return traced(v if v.dtype.kind == "unsigned" else emit(Op.ABS, v))


@public
def sign(x: Any, /) -> Tracer:
    """-1, 0 or 1; NaN stays NaN. Example: `kd.sign(x)`."""
    return traced(emit(Op.SIGN, numbers(x, "sign")))


@public
def square(x: Any, /) -> Tracer:
    """x * x. Example: `kd.square(x)`."""
    v = numbers(x, "square")
    return traced(emit(Op.MUL, v, v))


@public
def reciprocal(x: Any, /) -> Tracer:
    """1 / x; integers and bools give f32. Example: `kd.reciprocal(x)`."""
    return divide(1, x)


# --- extrema ------------------------------------------------------------------------------------------------------
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


# --- rounding and the parts of floating numbers -------------------------------------------------------------------
def _rounded(op: Op, x: Any) -> Tracer:
    v = numbers(x, op.value)
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
def copysign(x1: Any, x2: Any, /) -> Tracer:
    """The magnitude of x1 with the sign of x2. Example: `kd.copysign(x, y)`."""
    return traced(emit(Op.COPYSIGN, *float_operands("copy the sign of", ",", x1, x2)))


@public
def nextafter(x1: Any, x2: Any, /) -> Tracer:
    """The floating number next to x1 on the way to x2. Example: `kd.nextafter(x, np.inf)`."""
    return traced(emit(Op.NEXTAFTER, *float_operands("step between", ",", x1, x2)))


# --- casts and derivatives ----------------------------------------------------------------------------------------
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
