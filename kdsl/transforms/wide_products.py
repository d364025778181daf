"""Products of f64 that may leave its range on the way: a number p and how many times 2**512 belongs to it, x.

In:  f64 values, a Builder.  Out: such products, and what they make of a number; 0, infinity and NaN stay what they are.
A cumulative product that grows beyond 1e308 in one chunk and shrinks in the next is an ordinary number at the end of both.
Read before: ir/rules.py. Read next: chunk_starts.py.
"""

from __future__ import annotations

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
    size = _v(b.emit(Op.ABS, v))
    large, small = b.emit(Op.GT, size, ONE), b.emit(Op.LT, size, 1 / ONE)
    factor = _either(b, large, 1 / MANY, _either(b, small, MANY, b.full(1.0, v.shape, v.dtype)))
    count = _either(b, large, 1.0, _either(b, small, -1.0, b.full(0.0, v.shape, v.dtype)))
    return _v(b.emit(Op.MUL, v, factor)), count


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
