"""Comparisons, logic, bits, and the choice between two tensors.

In:  tensors that broadcast to one shape, and weak Python numbers.  Out: bools, integers; `where` gives what it chooses from.
Read before: operands.py. Read next: arithmetic.py.
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
from kdsl.language.operands import (
    aligned,
    broadcast,
    cast,
    common_dtype,
    common_shape,
    emit,
    fitted,
    known,
    numbers,
    traced,
    type_of,
    value,
)  # fmt: skip
from kdsl.language.tracer import Tracer


# --- comparisons --------------------------------------------------------------------------------------------------
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


# --- kinds of numbers ---------------------------------------------------------------------------------------------
def _same_everywhere(v: Value, answer: bool) -> Tracer:
    return traced(emit(Op.FULL, value=answer, shape=v.shape, dtype=dt.bool_))


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
    v = numbers(x, "signbit")
    return traced(emit(Op.SIGN_BIT, v)) if v.dtype.is_floating else less(traced(v), 0)


# --- logic and choice ---------------------------------------------------------------------------------------------
def truth(x: Any) -> Value:
    """`x` as bools: whether each element is not 0 (NaN is not 0)."""
    v = value(x)
    return v if v.dtype.kind == "bool" else emit(Op.NE, v, fitted(0, v.dtype))


def _logical(op: Op, verb: str, sign: str, a: Any, b: Any) -> Tracer:
    operands, _ = aligned(verb, traced(truth(a)), traced(truth(b)), sign=sign)
    return traced(emit(op, *operands))


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
def where(condition: Any, x1: Any, x2: Any, /) -> Tracer:
    """x1 where condition is true, else x2; the derivative passes the chosen side only.

    Shapes: all three broadcast. Example: `kd.where(x > 0, x, 0.01 * x)`.
    """
    operands, dtype = where_operands(condition, x1, x2)
    return traced(emit(Op.WHERE, *operands, dtype=dtype))


def where_operands(condition: Any, x1: Any, x2: Any) -> tuple[list[Any], DType]:
    """The three operands of a WHERE in one shape, the last two in one dtype (literals stay)."""
    mask, items = truth(condition), [known(x1), known(x2)]
    dtype = common_dtype(*items, what="choose between")
    values = [mask, *(o for o in items if isinstance(o, Value))]
    shape = common_shape([v.shape for v in values], values, "choose between")
    chosen = [broadcast(cast(o, dtype), shape) if isinstance(o, Value) else fitted(o, dtype) for o in items]
    return [broadcast(mask, shape), *chosen], dtype


# --- bits ---------------------------------------------------------------------------------------------------------
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
