"""Indexing: x[...], take, take_along_axis, scatter_add.

In:  a tensor and integers, slices, `...`, None and at most one integer tensor.  Out: a tensor.
Static parts become one SLICE and one RESHAPE; an integer tensor becomes a TAKE, where negative numbers count from the end.
A slice of an axis of named size is not clipped: that it lies inside is checked at the call.
Read before: manipulation.py. Read next: random.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

import kdsl.dtypes as dt
from kdsl.errors import ArgumentError, AxisError, DtypeError, OutOfRangeError, ShapeError
from kdsl.ir.ops import Op
from kdsl.ir.sizes import Extent, Size, at_least, ceildiv
from kdsl.ir.tensor import Value
from kdsl.language.dispatch import public, require
from kdsl.language.manipulation import permute_dims, reshaped
from kdsl.language.operands import broadcast, cast, common_dtype, emit, known, one_axis, traced, value
from kdsl.language.sizes import extent, is_size
from kdsl.language.tracer import Tracer


@dataclass(frozen=True)
class _Part:
    """One item of an index on one axis of the tensor; None as `kind` inserts an axis."""

    kind: str  # "integer" | "slice" | "tensor" | "new"
    axis: int = 0
    item: Any = None


@public
def getitem(x: Any, key: Any, /) -> Tracer:
    """x[key]. Example: `x[1:, None, ::-2]`."""
    v = value(x)
    parts = _parts(v, key if isinstance(key, tuple) else (key,))
    starts: list[Extent] = []
    sizes: list[Extent] = []
    steps: list[int] = []
    for p in parts:
        if p.kind == "new":
            continue
        n = v.shape[p.axis]
        start, size, step = _integer(p, n, v) if p.kind == "integer" else _range(p.item, n, p.axis, v)
        starts, sizes, steps = [*starts, start], [*sizes, size], [*steps, step]
    whole = all(a == 0 and s == 1 for a, s in zip(starts, steps)) and tuple(sizes) == v.shape
    out = v if whole else emit(Op.SLICE, v, starts=tuple(starts), sizes=tuple(sizes), steps=tuple(steps))
    shape = tuple(1 if p.kind == "new" else sizes[p.axis] for p in parts if p.kind != "integer")
    out = reshaped(out, shape)
    index = next((p for p in parts if p.kind == "tensor"), None)
    return traced(out if index is None else _taken(out, parts, index))


def _parts(v: Value, key: tuple[Any, ...]) -> list[_Part]:
    """The items of an index, one for each axis in order, `...` written out."""
    ellipses = [i for i, k in enumerate(key) if k is Ellipsis]
    if len(ellipses) > 1:
        raise OutOfRangeError("an index has at most one `...`")
    given = sum(k is not None and k is not Ellipsis for k in key)
    if given > len(v.shape):
        raise OutOfRangeError(f"{given} indices for {v.type}, which has {len(v.shape)} axes", label=str(v.type))
    fill = (slice(None),) * (len(v.shape) - given)
    at = ellipses[0] if ellipses else len(key)
    parts: list[_Part] = []
    axis = 0
    for k in (*key[:at], *fill, *key[at + 1 :]):
        if k is None:
            parts.append(_Part("new"))
            continue
        parts.append(_part(k, axis, v))
        axis += 1
    if sum(p.kind == "tensor" for p in parts) > 1:
        raise ArgumentError(
            "an index holds one integer tensor at most",
            label=str(v.type),
            hint="kd.take_along_axis picks one element in each row; index one axis after the other for all combinations",
        )
    return parts


def _part(k: Any, axis: int, v: Value) -> _Part:
    if isinstance(k, slice):
        return _Part("slice", axis, k)
    if is_size(k):
        return _Part("integer", axis, extent(k))
    if isinstance(k, list):
        k = np.asarray(k) if k else np.zeros(0, np.int64)
    if not isinstance(k, (Tracer, np.ndarray, bool, np.bool_)) and not hasattr(k, "__array__"):
        raise OutOfRangeError(
            f"{k!r} is not an index",
            label=str(v.type),
            hint="indices are integers, slices, `...`, None and one integer tensor",
        )
    return _Part("tensor", axis, index_value(k, v.shape[axis], axis, v))


def index_value(k: Any, n: Extent, axis: int, v: Value) -> Value:
    """An index tensor as i32 or i64; one known while tracing must lie within."""
    if isinstance(k, (list, tuple)):
        k = np.asarray(k) if len(k) else np.zeros(0, np.int64)
    if isinstance(k, np.ndarray) and k.size and k.dtype.kind in "iu" and isinstance(n, int):
        low, high = int(k.min()), int(k.max())
        if low < -n or high >= n:
            raise OutOfRangeError(
                f"index {high if high >= n else low} is out of range: axis {axis} of {v.type} has {n} elements",
                label=str(v.type),
            )
    index = value(k)
    if index.dtype.kind == "bool":
        raise DtypeError(
            f"a boolean mask {index.type} cannot be an index: how many elements it picks is not known while tracing",
            label=str(index.type),
            hint="kd.where(mask, x, 0) keeps the shape; it is what sums and maxima over a mask need",
        )
    if not index.dtype.is_integer:
        raise DtypeError(
            f"an index is an integer tensor, not {index.type}", label=str(index.type), hint="cast it, i.astype(kd.i64)"
        )
    return index if index.dtype in (dt.i32, dt.i64) else cast(index, dt.i64)


def _integer(p: _Part, n: Extent, v: Value) -> tuple[Extent, Extent, int]:
    """One element: checked against the axis, now or at the call."""
    mistake = OutOfRangeError(f"index {p.item} is out of range: axis {p.axis} of {v.type} has {n} elements", label=str(v.type))
    i = _from_start(p.item, n)
    require(i, ">=", 0, mistake)
    require(n, ">=", i + 1, mistake)
    return i, 1, 1


def _from_start(i: Extent, n: Extent) -> Extent:
    """A position that is negative for all values counts from the end."""
    return i + n if at_least(-1, i) else i


def _range(s: Any, n: Extent, axis: int, v: Value) -> tuple[Extent, Extent, int]:
    """start, size and step of a slice of an axis of n elements."""
    if not isinstance(s, slice):  # an index tensor takes from the whole axis
        return 0, n, 1
    if s.step is not None and not isinstance(s.step, (int, np.integer)):
        raise ArgumentError(f"the step of a slice is an integer, not {s.step!r}")
    if s.step == 0:
        raise ShapeError("the step of a slice is 0: it would never end")
    step = int(s.step or 1)
    bounds = [None if b is None else extent(b, "the bound of a slice") for b in (s.start, s.stop)]
    if isinstance(n, int) and not any(isinstance(b, Size) for b in bounds):
        first, last, step = slice(*bounds, step).indices(n)  # type: ignore[call-overload]
        count = len(range(first, last, step))
        return (first if count else 0), count, step
    start, stop = (None if b is None else _from_start(b, n) for b in bounds)
    if step > 0:
        first, last = 0 if start is None else start, n if stop is None else stop
        low, high, size = first, last, ceildiv(last - first, step)
    else:
        first, last = n - 1 if start is None else start, -1 if stop is None else stop
        low, high, size = last + 1, first + 1, ceildiv(first - last, -step)
    written = ":".join("" if b is None else str(b) for b in bounds)
    mistake = OutOfRangeError(
        f"the slice {written} does not lie within axis {axis} of {v.type}, which has {n} elements",
        label=str(v.type),
        facts=("slices of and by named sizes are not clipped: they must lie within the axis",),
    )
    for bigger, smaller in ((low, 0), (high, low), (n, high)):
        require(bigger, ">=", smaller, mistake)
    return first, size, step


def _taken(out: Value, parts: list[_Part], index: _Part) -> Value:
    """TAKE at the tensor's axis. As in NumPy the index's axes go first where a static integer is not its neighbour."""
    axis = sum(p.kind != "integer" for p in parts[: parts.index(index)])
    taken = emit(Op.TAKE, out, index.item, axis=axis)
    advanced = [i for i, p in enumerate(parts) if p.kind in ("integer", "tensor")]
    apart = any(b - a > 1 for a, b in pairwise(advanced))
    rank = len(index.item.shape)
    if not apart or not axis or not rank:
        return taken
    order = (*range(axis, axis + rank), *range(axis), *range(axis + rank, len(taken.shape)))
    return value(permute_dims(traced(taken), order))


# --- functions ----------------------------------------------------------------------------------------------------
@public
def take(x: Any, indices: Any, /, *, axis: Any = None) -> Tracer:
    """The elements at integer positions along an axis (None: in C order); negative ones count from the end.

    Shapes: the axis is replaced by those of `indices`. Raises: IndexError at the call for a position outside.
    Example: `kd.take(table, ids, axis=0)`.
    """
    v = value(x)
    if axis is None:
        v = reshaped(v, (v.type.count,))
        axis = 0
    along = one_axis(axis, len(v.shape), str(v.type))
    return traced(emit(Op.TAKE, v, index_value(indices, v.shape[along], along, v), axis=along))


@public
def take_along_axis(x: Any, indices: Any, /, *, axis: int = -1) -> Tracer:
    """x[.., indices[.., i, ..], ..]: along the axis by position, along the others side by side (they broadcast).

    Raises: IndexError at the call for a position outside.
    Example: `kd.take_along_axis(x, kd.argmax(x, axis=1, keepdims=True), axis=1)`.
    """
    v = value(x)
    along = one_axis(axis, len(v.shape), str(v.type))
    index = index_value(indices, v.shape[along], along, v)
    if len(index.shape) != len(v.shape):
        raise AxisError(f"take_along_axis needs indices with the axes of {v.type}, not {index.type}", label=str(index.type))
    shapes = [tuple(1 if i == along else n for i, n in enumerate(u.shape)) for u in (v, index)]
    common = list(_joined(shapes, v, index))
    sides = [broadcast(u, tuple(u.shape[i] if i == along else n for i, n in enumerate(common))) for u in (v, index)]
    return traced(emit(Op.TAKE_ALONG, *sides, axis=along))


def _joined(shapes: list[tuple[Extent, ...]], v: Value, index: Value) -> tuple[Extent, ...]:
    out = []
    for n, m in zip(*shapes):
        if n != m and 1 not in (n, m):
            raise ShapeError(
                f"cannot take {index.type} along {v.type}: the other axes must be equal", label=f"{v.type}, {index.type}"
            )
        out.append(m if n == 1 else n)
    return tuple(out)


@public
def scatter_add(x: Any, index: Any, updates: Any, /, axis: int = 0) -> Tracer:
    """x with updates added at integer positions along an axis; positions that occur several times add up in order.

    Shapes: updates broadcast to x.shape[:axis] + index.shape + x.shape[axis+1:]. Example: `kd.scatter_add(x, i, u)`.
    """
    v, added = value(x), known(updates)
    along = one_axis(axis, len(v.shape), str(v.type))
    place = index_value(index, v.shape[along], along, v)
    dtype = common_dtype(v, added, what="add")
    if dtype.kind == "bool":
        raise DtypeError(f"cannot add bools {v.type}", label=str(v.type), hint="cast first, x.astype(kd.i64)")
    shape = v.shape[:along] + place.shape + v.shape[along + 1 :]
    added = cast(added, dtype) if isinstance(added, Value) else value(added, dtype)
    tail = shape[len(shape) - len(added.shape) :]
    if len(added.shape) > len(shape) or any(n not in (1, m) for n, m in zip(added.shape, tail)):
        raise ShapeError(
            f"cannot add updates {added.type} to {v.type} at {place.type}: they must fit [{', '.join(map(str, shape))}]",
            label=f"{v.type}, {place.type}, {added.type}",
        )
    return traced(emit(Op.SCATTER_ADD, cast(v, dtype), place, broadcast(added, shape), axis=along))
