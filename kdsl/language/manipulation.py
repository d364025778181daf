"""Shapes and the order of elements: reshaping, permuting, broadcasting, turning over, repeating.

In:  tensors; shapes and positions are integers or named sizes.  Out: new tensors (views vanish in the compiler).
What cannot be known of named sizes while tracing is checked at the call (dispatch.require).
Read before: operands.py. Read next: pieces.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kdsl.errors import ArgumentError, AxisError, ShapeError
from kdsl.ir.ops import Op
from kdsl.ir.sizes import Extent, divide
from kdsl.ir.tensor import Shape, Value
from kdsl.language.dispatch import public, require
from kdsl.language.operands import (
    broadcast,
    builder,
    common_shape,
    emit,
    many_axes,
    one_axis,
    traced,
    value,
)  # fmt: skip
from kdsl.language.sizes import extent, extents, shown
from kdsl.language.tracer import Tracer


def text(shape: Sequence[Extent]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def reshaped(v: Value, shape: Shape) -> Value:
    return v if v.shape == tuple(shape) else emit(Op.RESHAPE, v, shape=tuple(shape))


def sliced(v: Value, axis: int, start: Extent, size: Extent, step: int = 1) -> Value:
    """Elements start, start + step … of one axis, all of the others."""
    if start == 0 and step == 1 and size == v.shape[axis]:
        return v
    starts: list[Extent] = [0] * len(v.shape)
    sizes, steps = list(v.shape), [1] * len(v.shape)
    starts[axis], sizes[axis], steps[axis] = start, size, step
    return emit(Op.SLICE, v, starts=tuple(starts), sizes=tuple(sizes), steps=tuple(steps))


# --- shape --------------------------------------------------------------------------------------------------------
@public
def reshape(x: Any, /, shape: Any, *, copy: Any = None) -> Tracer:
    """The same elements in C order under another shape; one size may be -1. Example: `kd.reshape(x, (2, -1))`.

    Raises: ShapeError where the numbers of elements differ; with named sizes at the call.
    """
    v = value(x)
    new = list(extents(shape))
    total = v.type.count
    if sum(n == -1 for n in new) > 1 or any(isinstance(n, int) and n < -1 for n in new):
        raise ShapeError(f"{text(new)} is not a shape: one size may be -1, the others are at least 0")
    rest: Extent = 1
    for n in new:
        rest = rest * (1 if n == -1 else n)
    mistake = ShapeError(
        f"cannot reshape {v.type} to {text(new)}: {total} elements do not fill it",
        label=str(v.type),
        facts=(f"{v.type} has {total} elements, the others of {text(new)} make {rest}",) if -1 in new else (),
    )
    if -1 in new:
        if rest == 0:
            raise mistake
        exact = divide(total, rest)
        if exact is None:
            require(total % rest, "==", 0, mistake)
            exact = total // rest
        new[new.index(-1)] = exact
    elif total != rest:
        require(total, "==", rest, mistake)
    return traced(reshaped(v, tuple(new)))


@public
def expand_dims(x: Any, /, axis: Any = 0) -> Tracer:
    """x with a new axis of size 1 at each position of `axis` in the result. Example: `kd.expand_dims(x, -1)`."""
    v = value(x)
    count = len(axis) if isinstance(axis, (tuple, list)) else 1
    axes = many_axes(axis, len(v.shape) + count, "the result")
    return traced(_value(builder().insert_axes(v, axes, len(v.shape) + count)))


def _value(x: Any) -> Value:
    assert isinstance(x, Value)
    return x


@public
def squeeze(x: Any, /, axis: Any = None) -> Tracer:
    """x without the given axes of size 1 (None: without all of them). Example: `kd.squeeze(x, -1)`.

    Raises: ShapeError for an axis of another size; a named size is never taken to be 1.
    """
    v = value(x)
    axes = (
        tuple(i for i, n in enumerate(v.shape) if n == 1) if axis is None else many_axes(axis, len(v.shape), str(v.type))
    )
    for a in axes:
        if v.shape[a] != 1:
            raise ShapeError(f"cannot squeeze axis {a} of {v.type}: its size is {v.shape[a]}", label=str(v.type))
    return traced(reshaped(v, tuple(n for i, n in enumerate(v.shape) if i not in axes)))


@public
def permute_dims(x: Any, /, axes: Any) -> Tracer:
    """x with its axes in another order: result axis i is axis axes[i]. Example: `kd.permute_dims(x, (1, 0, 2))`."""
    v = value(x)
    order = tuple(one_axis(a, len(v.shape), str(v.type)) for a in axes)
    if sorted(order) != list(range(len(v.shape))):
        raise AxisError(f"{tuple(axes)} does not name each of the {len(v.shape)} axes of {v.type} once", label=str(v.type))
    return traced(v if order == tuple(range(len(order))) else emit(Op.PERMUTE, v, axes=order))


@public
def moveaxis(x: Any, source: Any, destination: Any, /) -> Tracer:
    """x with some axes moved to new positions, the others in their order. Example: `kd.moveaxis(x, 0, -1)`."""
    v = value(x)
    n = len(v.shape)
    pairs = [tuple(s) if isinstance(s, (tuple, list)) else (s,) for s in (source, destination)]
    origin, target = ([one_axis(a, n, str(v.type)) for a in axes] for axes in pairs)
    if len(origin) != len(target) or len(set(origin)) < len(origin) or len(set(target)) < len(target):
        raise AxisError(f"cannot move axes {source} of {v.type} to {destination}: each must stand once on both sides")
    order = [a for a in range(n) if a not in origin]
    for to, axis in sorted(zip(target, origin)):
        order.insert(to, axis)
    return permute_dims(traced(v), tuple(order))


@public
def broadcast_to(x: Any, /, shape: Any) -> Tracer:
    """x repeated along new axes on the left and along axes of size 1. Example: `kd.broadcast_to(x, (4, 3))`."""
    v, wanted = value(x), extents(shape)
    tail = wanted[len(wanted) - len(v.shape) :] if len(wanted) >= len(v.shape) else None
    if tail is None or any(n != 1 and n != m for n, m in zip(v.shape, tail)):
        raise ShapeError(f"cannot broadcast {v.type} to {text(wanted)}", label=str(v.type), hint="axes line up from the right")
    return traced(broadcast(v, wanted))


@public
def broadcast_arrays(*arrays: Any) -> tuple[Tracer, ...]:
    """All tensors repeated to their common shape. Example: `kd.broadcast_arrays(x, y)`."""
    values = [value(a) for a in arrays]
    shape = common_shape([v.shape for v in values], values, "broadcast")
    return tuple(traced(broadcast(v, shape)) for v in values)


def broadcast_shapes(*shapes: Any) -> tuple[Any, ...]:
    """The shape that all shapes broadcast to. Example: `kd.broadcast_shapes((3, 1), (4,))`."""
    given = [extents(s) for s in shapes]
    stand_ins = [_Shape(s) for s in given]
    return tuple(shown(n) for n in common_shape(given, stand_ins, "broadcast"))


class _Shape:
    """A shape where messages expect a value."""

    name = ""

    def __init__(self, shape: Shape) -> None:
        self.type = text(shape)


# --- the order of elements ----------------------------------------------------------------------------------------
@public
def flip(x: Any, /, *, axis: Any = None) -> Tracer:
    """x with the elements along axes (None: all) in reverse. Example: `kd.flip(x, axis=0)`."""
    v = value(x)
    for a in many_axes(axis, len(v.shape), str(v.type)):
        v = sliced(v, a, v.shape[a] - 1, v.shape[a], -1)
    return traced(v)


@public
def roll(x: Any, /, shift: Any, *, axis: Any = None) -> Tracer:
    """x with the elements moved on by `shift`, those that fall off coming in again (axis None: in C order).

    Example: `kd.roll(x, 1, axis=-1)`.
    """
    v = value(x)
    if axis is None:
        return traced(reshaped(roll(traced(reshaped(v, (v.type.count,))), shift, axis=0).value, v.shape))
    axes = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    shifts = tuple(shift) if isinstance(shift, (tuple, list)) else (shift,) * len(axes)
    if len(shifts) != len(axes):
        raise ArgumentError(f"roll needs one shift for each axis, not {len(shifts)} for {len(axes)}")
    for a, s in zip(axes, shifts):
        v = _rolled(v, one_axis(a, len(v.shape), str(v.type)), extent(s, "a shift"))
    return traced(v)


def _rolled(v: Value, axis: int, shift: Extent) -> Value:
    n = v.shape[axis]
    if n == 0:
        return v
    first = shift % n
    if first == 0:
        return v
    return emit(Op.CONCAT, sliced(v, axis, n - first, first), sliced(v, axis, 0, n - first), axis=axis)


@public
def repeat(x: Any, repeats: Any, /, *, axis: Any = None) -> Tracer:
    """Each element so many times in a row along an axis (None: in C order, flat). Example: `kd.repeat(x, 3, axis=0)`."""
    v = value(x)
    if axis is None:
        v, axis = reshaped(v, (v.type.count,)), 0
    along = one_axis(axis, len(v.shape), str(v.type))
    n = _times(repeats)
    wide = _value(builder().insert_axes(v, (along + 1,), len(v.shape) + 1))
    wide = broadcast(wide, (*v.shape[: along + 1], n, *v.shape[along + 1 :]))
    return traced(reshaped(wide, (*v.shape[:along], v.shape[along] * n, *v.shape[along + 1 :])))


@public
def tile(x: Any, repetitions: Any, /) -> Tracer:
    """x as a whole so many times along each axis (from the right). Example: `kd.tile(x, (2, 1))`."""
    v = value(x)
    given = [_times(r) for r in (repetitions if isinstance(repetitions, (tuple, list)) else (repetitions,))]
    ndim = max(len(given), len(v.shape))
    times = (*(1,) * (ndim - len(given)), *given)
    shape: Shape = (1,) * (ndim - len(v.shape)) + v.shape
    wide = v
    if any(t != 1 for t in times):
        places = tuple(2 * i + 1 for i in range(ndim - len(v.shape), ndim))
        wide = emit(Op.BROADCAST, v, shape=tuple(m for t, n in zip(times, shape) for m in (t, n)), axes=places)
    return traced(reshaped(wide, tuple(t * n for t, n in zip(times, shape))))


def _times(n: Any) -> Extent:
    times = extent(n, "the number of repetitions")
    if isinstance(times, int) and times < 0:
        raise ArgumentError(f"the number of repetitions is at least 0, not {n}")
    return times
