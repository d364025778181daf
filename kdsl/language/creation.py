"""Tensors from nothing: constants, counting, grids, triangles.

In:  shapes (integers, named sizes) and numbers.  Out: tensors; floats are f32 and integers i64 unless dtype says otherwise.
Read before: operands.py. Read next: random.py.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import kdsl.dtypes as dt
from kdsl.dtypes import DType
from kdsl.errors import ArgumentError, ShapeError
from kdsl.ir.ops import Op
from kdsl.ir.sizes import Extent, Size
from kdsl.ir.tensor import Literal, Shape, Value
from kdsl.language.dispatch import public, require
from kdsl.language.logic import where
from kdsl.language.operands import broadcast, cast, default_dtype, emit, fitted, known, traced, value, wanted_dtype
from kdsl.language.sizes import extent, extents, is_size
from kdsl.language.tracer import Tracer


def checked_shape(shape: Any) -> Shape:
    """A user's shape; sizes are at least 0."""
    out = extents(shape)
    if any(isinstance(n, int) and n < 0 for n in out):
        raise ShapeError(f"{out} is not a shape: sizes are at least 0")
    for n in out:
        require(n, ">=", 0, ShapeError(f"a size of {n} would be negative: sizes are at least 0"))
    return out


def filled(number: Literal, shape: Shape, dtype: DType) -> Value:
    return emit(Op.FULL, value=fitted(number, dtype), shape=shape, dtype=dtype)


def counting(shape: Shape, axis: int, dtype: DType = dt.i64) -> Value:
    """0, 1, 2 … along one axis."""
    return emit(Op.IOTA, shape=shape, axis=axis, dtype=dtype)


def _dtype(spec: Any, default: DType) -> DType:
    return default if spec is None else wanted_dtype(spec)


# --- constants ----------------------------------------------------------------------------------------------------
@public
def zeros(shape: Any, *, dtype: Any = None) -> Tracer:
    """A tensor of zeros. Example: `kd.zeros((2, 3))`."""
    return traced(filled(0, checked_shape(shape), _dtype(dtype, dt.f32)))


@public
def ones(shape: Any, *, dtype: Any = None) -> Tracer:
    """A tensor of ones. Example: `kd.ones((2, 3))`."""
    return traced(filled(1, checked_shape(shape), _dtype(dtype, dt.f32)))


@public
def empty(shape: Any, *, dtype: Any = None) -> Tracer:
    """A tensor of zeros: nothing in kdsl is undefined. Example: `kd.empty((2, 3))`."""
    return traced(filled(0, checked_shape(shape), _dtype(dtype, dt.f32)))


@public
def full(shape: Any, fill_value: Any, *, dtype: Any = None) -> Tracer:
    """A tensor of one number, which may be a 0-d tensor. Example: `kd.full((2, 3), 7.0)`."""
    number, wanted = known(fill_value), checked_shape(shape)
    if isinstance(number, Value):
        if number.shape:
            raise ShapeError(
                f"full needs one number, not {number.type}", label=str(number.type), hint="kd.broadcast_to repeats tensors"
            )
        return traced(broadcast(cast(number, _dtype(dtype, number.dtype)), wanted))
    return traced(filled(number, wanted, _dtype(dtype, default_dtype(number))))


def _like(x: Any, dtype: Any) -> tuple[Shape, DType]:
    v = value(x)
    return v.shape, _dtype(dtype, v.dtype)


@public
def zeros_like(x: Any, /, *, dtype: Any = None) -> Tracer:
    """Zeros of x's shape and dtype. Example: `kd.zeros_like(x)`."""
    return traced(filled(0, *_like(x, dtype)))


@public
def ones_like(x: Any, /, *, dtype: Any = None) -> Tracer:
    """Ones of x's shape and dtype. Example: `kd.ones_like(x)`."""
    return traced(filled(1, *_like(x, dtype)))


@public
def empty_like(x: Any, /, *, dtype: Any = None) -> Tracer:
    """Zeros of x's shape and dtype: nothing in kdsl is undefined. Example: `kd.empty_like(x)`."""
    return traced(filled(0, *_like(x, dtype)))


@public
def full_like(x: Any, /, fill_value: Any, *, dtype: Any = None) -> Tracer:
    """One number in x's shape and dtype. Example: `kd.full_like(x, 7)`."""
    shape, wanted = _like(x, dtype)
    number = known(fill_value)
    if isinstance(number, Value):
        return full(shape, traced(number), dtype=wanted)
    return traced(filled(number, shape, wanted))


# --- counting -----------------------------------------------------------------------------------------------------
@public
def arange(start: Any, /, stop: Any = None, step: Any = 1, *, dtype: Any = None) -> Tracer:
    """start, start + step … below stop (one argument: 0, 1 … below it). Example: `kd.arange(10)`.

    Integers and named sizes give i64, floats f32.
    """
    low, high = (0, start) if stop is None else (start, stop)
    low, high, step = (n.item() if isinstance(n, np.generic) else n for n in (low, high, step))
    if step == 0 or isinstance(step, Size):
        raise ArgumentError("the step of arange is a number other than 0")
    if all(map(is_size, (low, high, step))):
        low, high = extent(low), extent(high)
        wanted = _dtype(dtype, dt.i64)
        return traced(_progression(low, step, _steps(low, high, step), wanted))
    if not all(isinstance(n, (int, float)) for n in (low, high, step)):
        raise ArgumentError(f"arange needs numbers or named sizes, not {low!r}, {high!r} and {step!r}")
    count = max(0, math.ceil((high - low) / step))
    return traced(_progression(low, step, count, _dtype(dtype, dt.f32)))


def _steps(low: Extent, high: Extent, step: int) -> Extent:
    count = (high - low + step - 1) // step if step > 0 else (low - high - step - 1) // -step
    if isinstance(count, int):
        return max(0, count)
    first, last = (low, high) if step > 0 else (high, low)
    require(last, ">=", first, ShapeError(f"arange from {low} to {high} by {step} has fewer than 0 elements"))
    return count


def _progression(start: Any, step: float, count: Extent, dtype: DType) -> Value:
    """start + i * step: whole numbers are counted in i64, others in the dtype they are wanted in."""
    whole = is_size(start) and isinstance(step, int)
    number = counting((count,), 0, dt.i64 if whole else dtype.compute if dtype.is_floating else dt.f32)
    out = traced(number)
    if step != 1:
        out = out * step
    if not isinstance(start, (int, float)) or start != 0:
        out = out + (traced(emit(Op.SIZE, value=start)) if isinstance(start, Size) else start)
    return cast(value(out), dtype)


@public
def linspace(start: Any, stop: Any, /, num: int, *, dtype: Any = None, endpoint: bool = True) -> Tracer:
    """num numbers from start to stop in equal steps, the last being stop (endpoint=False: one step before).

    Example: `kd.linspace(0.0, 1.0, 5)`.
    """
    count = extent(num, "num")
    if isinstance(count, Size) or count < 0:
        raise ArgumentError(f"num is an integer of at least 0, not {num}")
    wanted = _dtype(dtype, dt.f32)
    steps = count - 1 if endpoint else count
    within = dt.f64 if wanted is dt.f64 else dt.f32
    number = traced(counting((count,), 0, within))
    first, last = float(start), float(stop)
    out = number * ((last - first) / steps if steps > 0 else 0.0) + first
    if endpoint and count > 1:
        out = where(number == count - 1, last, out)
    return traced(cast(out.value, wanted))


@public
def eye(n_rows: Any, n_cols: Any = None, /, *, k: int = 0, dtype: Any = None) -> Tracer:
    """Ones on the k-th diagonal, zeros elsewhere. Example: `kd.eye(3)`."""
    shape = checked_shape((n_rows, n_rows if n_cols is None else n_cols))
    hit = traced(counting(shape, 0)) + k == traced(counting(shape, 1))
    return where(hit, 1, 0).astype(_dtype(dtype, dt.f32))


@public
def tril(x: Any, /, *, k: int = 0) -> Tracer:
    """The lower triangle of the last two axes, zeros above diagonal k. Example: `kd.tril(x)`."""
    return _triangle(x, k, "tril")


@public
def triu(x: Any, /, *, k: int = 0) -> Tracer:
    """The upper triangle of the last two axes, zeros below diagonal k. Example: `kd.triu(x)`."""
    return _triangle(x, k, "triu")


def _triangle(x: Any, k: int, name: str) -> Tracer:
    v = value(x)
    n = len(v.shape)
    if n < 2:
        raise ShapeError(f"{name} needs two axes or more, not {v.type}", label=str(v.type))
    rows, columns = traced(counting(v.shape[-2:], 0)), traced(counting(v.shape[-2:], 1))
    kept = columns <= rows + k if name == "tril" else columns >= rows + k
    return where(kept, traced(v), False)


@public
def meshgrid(*arrays: Any, indexing: str = "xy") -> tuple[Tracer, ...]:
    """Coordinates of a grid from 1-d tensors; "xy" puts the second along the rows, "ij" the first.

    Example: `kd.meshgrid(x, y, indexing="ij")`.
    """
    values = [value(a) for a in arrays]
    if indexing not in ("xy", "ij"):
        raise ArgumentError(f"indexing is 'xy' or 'ij', not {indexing!r}")
    if any(len(v.shape) > 1 for v in values):
        raise ShapeError("meshgrid needs 1-d tensors", label=", ".join(str(v.type) for v in values))
    places = list(range(len(values)))
    if indexing == "xy" and len(values) > 1:
        places[:2] = [1, 0]
    lengths: dict[int, Extent] = {p: v.type.count for p, v in zip(places, values)}
    shape = tuple(lengths[i] for i in range(len(values)))
    return tuple(
        traced(emit(Op.BROADCAST, v, shape=shape, axes=(p,)) if v.shape else broadcast(v, shape)) for p, v in zip(places, values)
    )
