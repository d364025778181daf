"""Products of f64 that may leave its range on the way: a number p and how many times 2**512 belongs to it, x.

In:  f64 values, a Builder.  Out: such products, and what they make of a number; 0, infinity and NaN stay what they are.
A cumulative product that grows beyond 1e308 in one chunk and shrinks in the next is an ordinary number at the end of both.
Read before: ir/rules.py. Read next: chunk_chain.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from kdsl.ir.ops import Op
from kdsl.ir.rules import Builder
from kdsl.ir.tensor import Literal, Operand, Value

ONE, MANY = 2.0**256, 2.0**512  # beyond ONE, or below 1 / ONE, MANY is taken out
TIMES = 3  # more of them are beyond every f64


def _v(x: Operand) -> Value:
    assert isinstance(x, Value)
    return x


def apart(b: Builder, v: Value) -> tuple[Value, Value]:
    """v as p and x, p not far from 1 if v is not far from f64's range."""
    factor, count = _taken_out(b, _v(b.emit(Op.ABS, v)))
    return _v(b.emit(Op.MUL, v, factor)), count


def apart_alike(b: Builder, values: Sequence[Value]) -> tuple[list[Value], Value]:
    """Several of them with one x, by the largest; 0 stays 0, and so do those that are 2**-700 of it."""
    size = _v(b.emit(Op.ABS, values[0]))
    for v in values[1:]:
        other = _v(b.emit(Op.ABS, v))
        size = _either(b, b.emit(Op.GT, other, size), other, size)
    factor, count = _taken_out(b, size)
    return [_v(b.emit(Op.MUL, v, factor)) for v in values], count


def _taken_out(b: Builder, size: Value) -> tuple[Value, Value]:
    """The power of MANY by which a number of this size is multiplied, and how many times MANY that takes out of it."""
    large, small = b.emit(Op.GT, size, ONE), b.emit(Op.LT, size, 1 / ONE)
    factor = _either(b, large, 1 / MANY, _either(b, small, MANY, b.full(1.0, size.shape, size.dtype)))
    count = _either(b, large, 1.0, _either(b, small, -1.0, b.full(0.0, size.shape, size.dtype)))
    return factor, count


def _either(b: Builder, condition: Operand, one: Literal, other: Operand) -> Value:
    return _v(b.emit(Op.WHERE, condition, one, other))


def times(b: Builder, one: tuple[Value, Value], other: tuple[Value, Value]) -> tuple[Value, Value]:
    """The product of two such numbers."""
    p, more = apart(b, _v(b.emit(Op.MUL, one[0], other[0])))
    return p, _v(b.emit(Op.ADD, b.emit(Op.ADD, one[1], other[1]), more))


def together(b: Builder, number: tuple[Value, Value]) -> Value:
    """The number itself; beyond f64's range infinity or 0."""
    out, count = number
    for k in range(TIMES):
        down = _either(b, b.emit(Op.LT, count, -k - 0.5), 1 / MANY, b.full(1.0, out.shape, out.dtype))
        out = _v(b.emit(Op.MUL, out, _either(b, b.emit(Op.GT, count, k + 0.5), MANY, down)))
    return out
