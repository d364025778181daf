"""Pieces: joining and cutting tensors, padding around them, windows over them.

In:  tensors; widths and positions are integers or named sizes.  Out: new tensors (most vanish into index maps).
Read before: manipulation.py. Read next: indexing.py.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from kdsl.errors import ArgumentError, ShapeError
from kdsl.ir.ops import Op
from kdsl.ir.sizes import Extent, Size
from kdsl.ir.tensor import Shape, Value
from kdsl.language.dispatch import FUNCTIONS, public, require
from kdsl.language.manipulation import expand_dims, reshaped, sliced
from kdsl.language.operands import cast, common_dtype, emit, fitted, known, one_axis, traced, value
from kdsl.language.sizes import extent, is_size
from kdsl.language.tracer import Tracer


def _tensors(arrays: Any, what: str) -> list[Value]:
    """A sequence of tensors in their common dtype."""
    if isinstance(arrays, (Tracer, np.ndarray)) or not isinstance(arrays, (list, tuple)):
        arrays = list(arrays) if isinstance(arrays, Tracer) else arrays
    if not isinstance(arrays, (list, tuple)) or not arrays:
        raise ArgumentError(f"{what} needs a list of one tensor or more")
    items = [known(a) for a in arrays]
    dtype = common_dtype(*items, what=what)
    return [cast(i, dtype) if isinstance(i, Value) else value(i, dtype) for i in items]


# --- joining and cutting ------------------------------------------------------------------------------------------
@public
def concat(arrays: Any, /, *, axis: Any = 0) -> Tracer:
    """Tensors one after the other along an axis (None: all flattened). Example: `kd.concat([x, y], axis=-1)`.

    Raises: ShapeError where other axes differ.
    """
    values = _tensors(arrays, "concat")
    if axis is None:
        values, axis = [reshaped(v, (v.type.count,)) for v in values], 0
    ndim = len(values[0].shape)
    if ndim == 0:
        raise ShapeError("cannot concat 0-d tensors: they have no axis", hint="kd.stack makes a new one")
    along = one_axis(axis, ndim, str(values[0].type))
    first = values[0].shape
    for v in values[1:]:
        if len(v.shape) != ndim or any(n != m for i, (n, m) in enumerate(zip(v.shape, first)) if i != along):
            raise ShapeError(
                f"cannot concat {values[0].type} and {v.type} along axis {along}: the other axes must be equal",
                label=f"{values[0].type}, {v.type}",
            )
    return traced(values[0] if len(values) == 1 else emit(Op.CONCAT, *values, axis=along))


@public
def stack(arrays: Any, /, *, axis: int = 0) -> Tracer:
    """Tensors of one shape side by side along a new axis. Example: `kd.stack([x, y], axis=-1)`."""
    values = _tensors(arrays, "stack")
    for v in values[1:]:
        if v.shape != values[0].shape:
            raise ShapeError(
                f"cannot stack {values[0].type} and {v.type}: shapes must be equal", label=f"{values[0].type}, {v.type}"
            )
    along = one_axis(axis, len(values[0].shape) + 1, "the result")
    return concat([expand_dims(traced(v), along) for v in values], axis=along)


@public
def split(x: Any, parts: Any, /, axis: int = 0) -> tuple[Tracer, ...]:
    """x cut along an axis into so many equal parts, or before the positions of a list. Example: `kd.split(x, 2)`.

    Raises: ShapeError where the axis does not divide (with a named size at the call) or a position is outside.
    """
    v = value(x)
    along = one_axis(axis, len(v.shape), str(v.type))
    n = v.shape[along]
    if is_size(parts):
        count = extent(parts, "the number of parts")
        if isinstance(count, Size) or count < 1:
            raise ArgumentError(f"the number of parts must be an integer of at least 1, not {parts}")
        mistake = ShapeError(f"cannot split axis {along} of {v.type} into {count} equal parts", label=str(v.type))
        require(n % count, "==", 0, mistake)
        borders: list[Extent] = [n // count * i for i in range(count + 1)]
    else:
        borders = [0, *(_border(extent(p, "a position"), n) for p in parts), n]
        for low, high in pairwise(borders):
            mistake = ShapeError(f"cannot split axis {along} of {v.type} at {parts}", label=str(v.type))
            require(high, ">=", low, mistake)
    return tuple(traced(sliced(v, along, low, high - low)) for low, high in pairwise(borders))


def _border(position: Extent, n: Extent) -> Extent:
    return position + n if isinstance(position, int) and position < 0 else position


@public
def unstack(x: Any, /, *, axis: int = 0) -> tuple[Tracer, ...]:
    """The slices of x along an axis of fixed size, without that axis. Example: `q, k, v = kd.unstack(qkv)`."""
    v = value(x)
    along = one_axis(axis, len(v.shape), str(v.type))
    n = v.shape[along]
    if isinstance(n, Size):
        raise ShapeError(
            f"cannot unstack axis {along} of {v.type}: how many tensors there are would depend on the call",
            label=str(v.type),
            hint="fix the size in the annotation (a number instead of the name)",
        )
    rest = v.shape[:along] + v.shape[along + 1 :]
    return tuple(traced(reshaped(sliced(v, along, i, 1), rest)) for i in range(n))


# --- padding and windows ------------------------------------------------------------------------------------------
@public
def pad(x: Any, widths: Any, /, value: Any = 0) -> Tracer:
    """x with `value` around it: widths is n, (before, after), or one such pair per axis.

    Example: `kd.pad(x, ((0, 0), (1, 2)))`.
    """
    v = _operand(x)
    low, high = _widths(widths, len(v.shape))
    number = known(value)
    if isinstance(number, Value):
        raise ArgumentError("the value to pad with must be a number", hint="pad with 0 and choose with kd.where")
    dtype = common_dtype(v, number, what="pad")
    v = cast(v, dtype)
    if all(n == 0 for n in (*low, *high)):
        return traced(v)
    return traced(emit(Op.PAD, v, low=low, high=high, interior=(0,) * len(v.shape), value=fitted(number, dtype)))


_operand = value  # `value` is a parameter of pad


def _widths(widths: Any, ndim: int) -> tuple[Shape, Shape]:
    pairs: list[Any]
    if is_size(widths):
        pairs = [(widths, widths)] * ndim
    elif len(widths) == 2 and all(map(is_size, widths)):
        pairs = [tuple(widths)] * ndim
    else:
        pairs = [(w, w) if is_size(w) else tuple(w) for w in widths]
        pairs = pairs * ndim if len(pairs) == 1 else pairs
    if len(pairs) != ndim or any(len(p) != 2 for p in pairs):
        raise ArgumentError(f"pad needs one (before, after) pair for each of {ndim} axes, not {widths}")
    low, high = (tuple(extent(p[side], "a width") for p in pairs) for side in (0, 1))
    if any(isinstance(n, int) and n < 0 for n in (*low, *high)):
        raise ArgumentError(f"pad needs widths of at least 0, not {widths}", hint="a slice takes elements away")
    return low, high


@public
def sliding_window(x: Any, /, window: Any, axis: Any, stride: Any = 1, dilation: Any = 1) -> Tracer:
    """All windows along axes: [.., n, ..] becomes [.., m, .., window], the windows' own axes last and in the order of `axis`.

    m = (n - (window - 1) * dilation - 1) // stride + 1. Several axes take tuples. Example: `kd.sliding_window(x, 3, -1).sum(-1)`.
    Raises: ShapeError where a window does not fit (with a named size at the call).
    """
    v = value(x)
    axes = tuple(one_axis(a, len(v.shape), str(v.type)) for a in (axis if isinstance(axis, (tuple, list)) else (axis,)))
    for along, size, step, gap in zip(axes, *(_each(o, len(axes)) for o in (window, stride, dilation))):
        if size < 1 or step < 1 or gap < 1:
            raise ArgumentError(f"window, stride and dilation are at least 1, not {size}, {step} and {gap}")
        reach = (size - 1) * gap + 1
        mistake = ShapeError(f"a window of {reach} does not fit axis {along} of {v.type}", label=str(v.type))
        require(v.shape[along], ">=", reach, mistake)
        v = emit(Op.WINDOW, v, axis=along, size=size, stride=step, dilation=gap)
    return traced(v)


def _each(option: Any, count: int) -> tuple[int, ...]:
    values = tuple(option) if isinstance(option, (tuple, list)) else (option,) * count
    if len(values) != count or not all(isinstance(o, (int, np.integer)) for o in values):
        raise ArgumentError(f"expected an integer, or {count} of them for {count} axes, not {option}")
    return tuple(map(int, values))


@public
def diff(x: Any, /, *, axis: Any = -1, n: int = 1, prepend: Any = None, append: Any = None) -> Tracer:
    """Differences of neighbours along an axis, taken n times: x[1:] - x[:-1].

    `prepend` and `append` are joined to x before. Shapes: the axis is n shorter.
    Raises: ShapeError where it has fewer than n elements. Example: `kd.diff(x, axis=0)`.
    """
    if not isinstance(n, int) or n < 0:
        raise ArgumentError(f"differences are taken a number of times, not {n!r}")
    parts = [p for p in (prepend, x, append) if p is not None]
    v = value(concat(parts, axis=axis)) if len(parts) > 1 else value(x)
    along = one_axis(axis, len(v.shape), str(v.type))
    require(v.shape[along], ">=", n, ShapeError(f"{n} differences of {v.shape[along]} elements: there are too few"))
    for _ in range(n):
        length = v.shape[along] - 1
        later, earlier = (sliced(v, along, start, length) for start in (1, 0))
        v = value(FUNCTIONS["subtract"](traced(later), traced(earlier)))
    return traced(v)
