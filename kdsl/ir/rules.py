"""The result type of every op, one table; and the Builder through which every pass emits equations.

In:  an op, its operands, its attributes.  Out: the TensorType of its result.
The rules assume what the front end has checked (equal dtypes, shapes that line up): a mistake here is the compiler's own.
Read before: ir/tensor.py. Read next: ir/meaning.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import kdsl.dtypes as dt
from kdsl.dtypes import DType
from kdsl.ir.ops import COMPARISONS, ELEMENTWISE, REDUCTIONS, TO_BOOL, Op
from kdsl.ir.scans import scan_result
from kdsl.ir.sizes import Extent
from kdsl.ir.tensor import Equation, Literal, Location, Operand, Shape, TensorType, Value

Rule = Callable[[Sequence[Operand], dict[str, Any]], TensorType]


def _elementwise(op: Op) -> Rule:
    def rule(x: Sequence[Operand], a: dict[str, Any]) -> TensorType:
        first = next(o for o in x if isinstance(o, Value))
        if op in TO_BOOL:
            return TensorType(dt.bool_, first.shape)
        if op in (Op.CAST, Op.BITCAST):
            return TensorType(a["dtype"], first.shape)
        if op is Op.WHERE:
            typed = next((o for o in x[1:] if isinstance(o, Value)), None)
            return TensorType(typed.dtype if typed else a["dtype"], first.shape)
        return TensorType(first.dtype, first.shape)

    return rule


def _reduction(op: Op) -> Rule:
    def rule(x: Sequence[Operand], a: dict[str, Any]) -> TensorType:
        v = _value(x[0])
        dtype = {Op.ARGMAX: dt.i64, Op.ARGMIN: dt.i64}.get(op, v.dtype)
        return TensorType(dtype, tuple(n for i, n in enumerate(v.shape) if i not in a["axes"]))

    return rule


def _value(x: Operand) -> Value:
    assert isinstance(x, Value), "a literal where an array must stand"
    return x


def _like(x: Sequence[Operand], a: dict[str, Any]) -> TensorType:
    return _value(x[0]).type


def _given(x: Sequence[Operand], a: dict[str, Any]) -> TensorType:
    return TensorType(_value(x[0]).dtype, tuple(a["shape"]))


def _source(x: Sequence[Operand], a: dict[str, Any]) -> TensorType:
    return TensorType(a["dtype"], tuple(a["shape"]))


def _concat(x: Sequence[Operand], a: dict[str, Any]) -> TensorType:
    parts = [_value(v) for v in x]
    shape = list(parts[0].shape)
    for part in parts[1:]:
        shape[a["axis"]] = shape[a["axis"]] + part.shape[a["axis"]]
    return TensorType(parts[0].dtype, tuple(shape))


def _pad(x: Sequence[Operand], a: dict[str, Any]) -> TensorType:
    v = _value(x[0])
    shape = [
        low + n + high + (n - 1) * inside if inside else low + n + high
        for n, low, high, inside in zip(v.shape, a["low"], a["high"], a["interior"], strict=True)
    ]
    return TensorType(v.dtype, tuple(shape))


def _window(x: Sequence[Operand], a: dict[str, Any]) -> TensorType:
    v = _value(x[0])
    shape = list(v.shape)
    shape[a["axis"]] = (shape[a["axis"]] - (a["size"] - 1) * a["dilation"] - 1) // a["stride"] + 1
    return TensorType(v.dtype, (*shape, a["size"]))


def _dot(x: Sequence[Operand], a: dict[str, Any]) -> TensorType:
    left, right = _value(x[0]), _value(x[1])
    extent: dict[str, Extent] = {}
    for letters, v in ((a["left"], left), (a["right"], right)):
        extent.update(zip(letters, v.shape, strict=True))
    return TensorType(left.dtype, tuple(extent[c] for c in a["out"]))


def _take(x: Sequence[Operand], a: dict[str, Any]) -> TensorType:
    v, index = _value(x[0]), _value(x[1])
    return TensorType(v.dtype, v.shape[: a["axis"]] + index.shape + v.shape[a["axis"] + 1 :])


RULES: dict[Op, Rule] = {
    **{op: _elementwise(op) for op in ELEMENTWISE},
    **{op: _reduction(op) for op in REDUCTIONS},
    Op.FULL: _source,
    Op.IOTA: _source,
    Op.CONSTANT: lambda x, a: TensorType(dt.BY_NUMPY[a["array"].dtype], a["array"].shape),
    Op.SIZE: lambda x, a: TensorType(dt.i64, ()),
    Op.RANDOM_BITS: lambda x, a: TensorType(dt.u32, tuple(a["shape"])),
    Op.BROADCAST: _given,
    Op.RESHAPE: _given,
    Op.PERMUTE: lambda x, a: TensorType(_value(x[0]).dtype, tuple(_value(x[0]).shape[i] for i in a["axes"])),
    Op.SLICE: lambda x, a: TensorType(_value(x[0]).dtype, tuple(a["sizes"])),
    Op.PAD: _pad,
    Op.CONCAT: _concat,
    Op.WINDOW: _window,
    Op.DOT: _dot,
    Op.TAKE: _take,
    Op.TAKE_ALONG: lambda x, a: TensorType(_value(x[0]).dtype, _value(x[1]).shape),
    Op.SCATTER_ADD: _like,
    Op.SCATTER_ALONG: _like,
    Op.SORT: _like,
    Op.ARGSORT: lambda x, a: TensorType(dt.i64, _value(x[0]).shape),
    Op.SEARCHSORTED: lambda x, a: TensorType(dt.i64, _value(x[1]).shape),
    Op.CALL: lambda x, a: a["function"].results[a["index"]].type,
    Op.SCAN: lambda x, a: scan_result(a),
    Op.BARRIER: _like,
}


def result_type(op: Op, operands: Sequence[Operand], attributes: dict[str, Any]) -> TensorType:
    """The type of an equation's result."""
    return RULES[op](operands, attributes)


class Builder:
    """Appends equations. Passes that simplify as they go override `emit` (transforms/simplify.py)."""

    def __init__(self, location: Location | None = None) -> None:
        self.equations: list[Equation] = []
        self.location = location

    def emit(self, op: Op, *operands: Operand, name: str = "", **attributes: Any) -> Operand:
        """Append `op` and return its result; a pass may return an older value, or a Literal, that equals it."""
        result = Value(result_type(op, operands, attributes), name)
        self.equations.append(Equation(result, op, tuple(operands), attributes, self.location))
        return result

    # --- words that passes and the front end share ---------------------------------------------------------------------
    def full(self, value: Literal, shape: Shape, dtype: DType) -> Operand:
        return self.emit(Op.FULL, value=value, shape=tuple(shape), dtype=dtype)

    def array(self, x: Operand, shape: Shape, dtype: DType) -> Value:
        """`x` as a value of that shape: a literal is written out, a smaller array is broadcast from the right."""
        if not isinstance(x, Value):
            x = self.full(x, shape, dtype)
        return _value(self.broadcast_to(_value(x), shape))

    def broadcast_to(self, x: Value, shape: Shape) -> Operand:
        if x.shape == tuple(shape):
            return x
        first = len(shape) - len(x.shape)
        return self.emit(Op.BROADCAST, x, shape=tuple(shape), axes=tuple(range(first, len(shape))))

    def insert_axes(self, x: Value, axes: Sequence[int], ndim: int) -> Operand:
        """x with axes of size 1 at the positions `axes` of a result with `ndim` axes."""
        if not axes:
            return x
        kept = [i for i in range(ndim) if i not in axes]
        shape: list[Extent] = [1] * ndim
        for i, n in zip(kept, x.shape, strict=True):
            shape[i] = n
        return self.emit(Op.BROADCAST, x, shape=tuple(shape), axes=tuple(kept))

    def reduce(self, op: Op, x: Value, axes: Sequence[int], keepdims: bool = False) -> Operand:
        axes = tuple(sorted(axes))
        if not axes:
            return x
        out = self.emit(op, x, axes=axes)
        return self.insert_axes(_value(out), axes, len(x.shape)) if keepdims else out

    def permute(self, x: Value, axes: Sequence[int]) -> Operand:
        return self.emit(Op.PERMUTE, x, axes=tuple(axes))

    def cast(self, x: Value, dtype: DType) -> Operand:
        return x if x.dtype is dtype else self.emit(Op.CAST, x, dtype=dtype)

    def dot(self, left: str, right: str, out: str, a: Value, b: Value) -> Operand:
        return self.emit(Op.DOT, a, b, left=tuple(left), right=tuple(right), out=tuple(out))


def identity(op: Op, dtype: DType) -> Literal:
    """What a reduction over nothing gives, and what masked elements count as."""
    if op in (Op.SUM, Op.ANY):
        return 0 if dtype.is_integer else 0.0 if dtype.is_floating else False
    if op in (Op.PROD, Op.ALL):
        return 1 if dtype.is_integer else 1.0 if dtype.is_floating else True
    low = op in (Op.MAX, Op.ARGMAX)
    if dtype.is_floating:
        return -math.inf if low else math.inf
    if dtype.kind == "bool":
        return not low
    lowest = -(1 << (dtype.bits - 1)) if dtype.kind == "signed" else 0
    highest = (1 << (dtype.bits - (dtype.kind == "signed"))) - 1
    return lowest if low else highest


assert set(RULES) == set(Op) and COMPARISONS <= TO_BOOL
