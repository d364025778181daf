"""Reductions over axes: sums, products, extrema, moments, logic.

In:  a tensor, axes (None: all, one, or a tuple), keepdims.  Out: a tensor without those axes (or with them at size 1).
Over an empty axis: sum 0, prod 1, all True, any False, mean NaN, max and min a ShapeError.
Read before: exponential.py. Read next: searching.py.
"""

from __future__ import annotations

from typing import Any

import kdsl.dtypes as dt
from kdsl.dtypes import DType
from kdsl.errors import ShapeError
from kdsl.ir.ops import Op
from kdsl.ir.sizes import Extent, Size
from kdsl.ir.tensor import Value
from kdsl.language.arithmetic import stop_gradient
from kdsl.language.dispatch import public, require
from kdsl.language.exponential import exp, log, sqrt
from kdsl.language.logic import isfinite, truth, where
from kdsl.language.operands import builder, cast, emit, floating, many_axes, traced, value, wanted_dtype
from kdsl.language.tracer import Tracer


def reduce(op: Op, v: Value, axes: tuple[int, ...], keepdims: bool) -> Tracer:
    """An equation over sorted axes; none at all leave the tensor as it is."""
    out = builder().reduce(op, v, axes, keepdims)
    assert isinstance(out, Value)
    return traced(out)


def not_empty(v: Value, axes: tuple[int, ...], name: str) -> None:
    """Refuse, now or at the call, an extremum over nothing."""
    for a in axes:
        require(
            v.shape[a], ">=", 1,
            ShapeError(
                f"{name} of {v.type} over axis {a}, which is empty",
                label=str(v.type),
                facts=(f"the {name} of no elements does not exist",),
            ),
        )  # fmt: skip


def _accumulator(dtype: DType) -> DType:
    """The dtype of sums and products: integers and bools give i64, unsigned integers u64."""
    return dtype if dtype.is_floating else dt.u64 if dtype.kind == "unsigned" else dt.i64


@public
def sum(x: Any, /, axis: Any = None, *, dtype: Any = None, keepdims: bool = False) -> Tracer:
    """The sum over axes. Integers and bools give i64 (u64 for unsigned). Example: `kd.sum(x, axis=-1)`."""
    v = value(x)
    wanted = _accumulator(v.dtype) if dtype is None else wanted_dtype(dtype)
    return reduce(Op.SUM, cast(v, wanted), many_axes(axis, len(v.shape), str(v.type)), keepdims)


@public
def prod(x: Any, /, axis: Any = None, *, dtype: Any = None, keepdims: bool = False) -> Tracer:
    """The product over axes. Integers and bools give i64 (u64 for unsigned). Example: `kd.prod(x, axis=0)`."""
    v = value(x)
    wanted = _accumulator(v.dtype) if dtype is None else wanted_dtype(dtype)
    return reduce(Op.PROD, cast(v, wanted), many_axes(axis, len(v.shape), str(v.type)), keepdims)


def _extremum(op: Op, bool_op: Op, x: Any, axis: Any, keepdims: bool) -> Tracer:
    v = value(x)
    axes = many_axes(axis, len(v.shape), str(v.type))
    not_empty(v, axes, op.value)
    return reduce(bool_op if v.dtype.kind == "bool" else op, v, axes, keepdims)


@public
def max(x: Any, /, axis: Any = None, *, keepdims: bool = False) -> Tracer:
    """The largest element over axes, NaN if one is; equal ones share the derivative.

    Raises: ShapeError for an empty axis. Example: `kd.max(x, axis=-1, keepdims=True)`.
    """
    return _extremum(Op.MAX, Op.ANY, x, axis, keepdims)


@public
def min(x: Any, /, axis: Any = None, *, keepdims: bool = False) -> Tracer:
    """The smallest element over axes, NaN if one is; equal ones share the derivative.

    Raises: ShapeError for an empty axis. Example: `kd.min(x, axis=-1)`.
    """
    return _extremum(Op.MIN, Op.ALL, x, axis, keepdims)


@public
def any(x: Any, /, axis: Any = None, *, keepdims: bool = False) -> Tracer:
    """Whether some element over axes is true (not 0). Example: `kd.any(x > 0, axis=0)`."""
    v = truth(x)
    return reduce(Op.ANY, v, many_axes(axis, len(v.shape), str(v.type)), keepdims)


@public
def all(x: Any, /, axis: Any = None, *, keepdims: bool = False) -> Tracer:
    """Whether every element over axes is true (not 0). Example: `kd.all(x > 0, axis=0)`."""
    v = truth(x)
    return reduce(Op.ALL, v, many_axes(axis, len(v.shape), str(v.type)), keepdims)


@public
def count_nonzero(x: Any, /, axis: Any = None, *, keepdims: bool = False) -> Tracer:
    """How many elements over axes are not 0, as i64. Example: `kd.count_nonzero(x, axis=0)`."""
    return sum(traced(truth(x)), axis, keepdims=keepdims)


def _count(v: Value, axes: tuple[int, ...]) -> Extent:
    n: Extent = 1
    for a in axes:
        n = n * v.shape[a]
    return n


@public
def mean(x: Any, /, axis: Any = None, *, dtype: Any = None, keepdims: bool = False) -> Tracer:
    """sum(x) / n over axes; integers and bools give f32, no elements NaN. Example: `kd.mean(x, axis=-1)`."""
    v = floating(x) if dtype is None else cast(value(x), wanted_dtype(dtype))
    axes = many_axes(axis, len(v.shape), str(v.type))
    return _divided(reduce(Op.SUM, v, axes, keepdims), _count(v, axes))


def _divided(total: Tracer, n: Extent | float, less: float = 0) -> Tracer:
    """total / max(n - less, 0) in total's dtype; n may be a named size."""
    if not isinstance(n, Size):
        return total / float(n - less if n > less else 0)
    count = cast(emit(Op.SIZE, value=n), total.dtype)
    if less:
        count = emit(Op.MAXIMUM, emit(Op.SUB, count, float(less)), 0.0)
    return total / traced(count)


@public
def var(x: Any, /, axis: Any = None, *, correction: float = 0, keepdims: bool = False) -> Tracer:
    """sum((x - mean)**2) / (n - correction) over axes, in two passes. Example: `kd.var(x, axis=-1, correction=1)`."""
    v = floating(x)
    axes = many_axes(axis, len(v.shape), str(v.type))
    distance = traced(v) - mean(traced(v), axes, keepdims=True)
    return _divided(reduce(Op.SUM, (distance * distance).value, axes, keepdims), _count(v, axes), correction)


@public
def std(x: Any, /, axis: Any = None, *, correction: float = 0, keepdims: bool = False) -> Tracer:
    """sqrt(var(x)). Example: `kd.std(x, axis=-1)`."""
    return sqrt(var(x, axis, correction=correction, keepdims=keepdims))


@public
def logsumexp(x: Any, /, axis: Any = None, *, keepdims: bool = False) -> Tracer:
    """log(sum(exp(x))) over axes without overflow: m + log(sum(exp(x - m))) with m the largest (0 where infinite).

    Raises: ShapeError for an empty axis. Example: `kd.logsumexp(logits, axis=-1)`.
    """
    v = floating(x)
    axes = many_axes(axis, len(v.shape), str(v.type))
    largest = max(traced(v), axes, keepdims=True)
    shift = stop_gradient(where(isfinite(largest), largest, 0.0))
    total = log(reduce(Op.SUM, exp(traced(v) - shift).value, axes, True)) + shift
    return total if keepdims else _without(total, axes)


def _without(x: Tracer, axes: tuple[int, ...]) -> Tracer:
    shape = tuple(n for i, n in enumerate(x.value.shape) if i not in axes)
    return x if not axes else traced(emit(Op.RESHAPE, x.value, shape=shape))
