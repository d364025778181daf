"""The NumPy meaning of the ops that make arrays, move, fold or look up their elements.

In:  a Context, an equation, its operands as NumPy arrays.  Out: a NumPy array. `ARRAYS` has one for each op.
Read before: ir/meaning_elementwise.py. Read next: ir/meaning.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from kdsl.errors import OutOfRangeError
from kdsl.ir import numbers
from kdsl.ir.meaning_elementwise import Array, Context, Meaning, constant
from kdsl.ir.ops import Op
from kdsl.ir.rules import identity
from kdsl.ir.sizes import evaluate as value_of
from kdsl.ir.tensor import Equation


# --- sources and movement ------------------------------------------------------------------------------------------------
def _full(c: Context, e: Equation) -> Array:
    a = e.attributes
    return np.full(c.ints(a["shape"]), constant(a["value"], a["dtype"], c))


def _iota(c: Context, e: Equation) -> Array:
    shape, axis = c.ints(e.attributes["shape"]), e.attributes["axis"]
    line = np.arange(shape[axis]).astype(c.working(e.result.dtype))
    return np.broadcast_to(line.reshape([-1 if i == axis else 1 for i in range(len(shape))]), shape)


def _random_bits(c: Context, e: Equation, key: Array) -> Array:
    shape = c.ints(e.attributes["shape"])
    return numbers.random_bits(key, math.prod(shape)).reshape(shape)


def _broadcast(c: Context, e: Equation, x: Array) -> Array:
    shape = [1] * len(e.attributes["shape"])
    for axis, n in zip(e.attributes["axes"], x.shape, strict=True):
        shape[axis] = n
    return np.broadcast_to(x.reshape(shape), c.ints(e.attributes["shape"]))


def _slice(c: Context, e: Equation, x: Array) -> Array:
    a = e.attributes
    for axis, (start, n, step) in enumerate(
        zip(c.ints(a["starts"]), c.ints(a["sizes"]), a["steps"], strict=True)
    ):
        if n and not (0 <= start < x.shape[axis] and 0 <= start + (n - 1) * step < x.shape[axis]):
            raise OutOfRangeError(
                f"a slice from {start} in steps of {step} over {n} elements leaves axis {axis} of {x.shape}"
            )
        x = np.take(x, start + step * np.arange(n), axis)
    return x


def _pad(c: Context, e: Equation, x: Array) -> Array:
    a = e.attributes
    out = np.full(c.ints(e.result.shape), constant(a["value"], e.result.dtype, c))
    where = tuple(
        slice(low, low + (n - 1) * (inside + 1) + 1, inside + 1) if n else slice(0, 0)
        for low, inside, n in zip(c.ints(a["low"]), a["interior"], x.shape, strict=True)
    )
    out[where] = x
    return out


def _window(c: Context, e: Equation, x: Array) -> Array:
    a = e.attributes
    axis, n = a["axis"], value_of(a["size"], c.sizes)
    count = max(0, value_of(e.result.shape[axis], c.sizes))
    positions = np.arange(count)[:, None] * a["stride"] + np.arange(n) * a["dilation"]
    return np.moveaxis(np.take(x, positions, axis), axis + 1, -1)


# --- reductions and contractions -------------------------------------------------------------------------------------------
def _reduce(f: Callable[..., Array], op: Op) -> Meaning:
    def meaning(c: Context, e: Equation, x: Array) -> Array:
        if op in (Op.SUM, Op.PROD):
            return f(x, axis=e.attributes["axes"], dtype=x.dtype)
        return f(
            x, axis=e.attributes["axes"], initial=constant(identity(op, e.result.dtype), e.result.dtype, c)
        )

    return meaning


def _dot(c: Context, e: Equation, a: Array, b: Array) -> Array:
    letters = {
        letter: i for i, letter in enumerate(dict.fromkeys((*e.attributes["left"], *e.attributes["right"])))
    }
    spec = [[letters[x] for x in e.attributes[side]] for side in ("left", "right", "out")]
    return np.einsum(a, spec[0], b, spec[1], spec[2], optimize=True)


# --- indexing ------------------------------------------------------------------------------------------------------------
def _checked(index: Array, n: int, axis: int) -> Array:
    """Indices with negative ones counted from the end."""
    outside = (index < -n) | (index >= n)
    if np.any(outside):
        place = np.unravel_index(int(np.argmax(outside)), index.shape)
        raise OutOfRangeError(f"index {int(index[place])} is out of range for axis {axis} of size {n}")
    return np.where(index < 0, index + n, index)


def _take(c: Context, e: Equation, x: Array, index: Array) -> Array:
    axis = e.attributes["axis"]
    if x.shape[axis] == 0 and index.size == 0:
        return np.empty(c.ints(e.result.shape), x.dtype)
    return np.take(x, _checked(index, x.shape[axis], axis), axis)


def _grid(index: Array, n: int, axis: int) -> tuple[Array, ...]:
    grid: list[Array] = list(np.indices(index.shape, sparse=True))
    grid[axis] = _checked(index, n, axis)
    return tuple(grid)


def _scatter_add(c: Context, e: Equation, x: Array, index: Array, updates: Array) -> Array:
    axis = e.attributes["axis"]
    out = np.moveaxis(x, axis, 0).copy()
    np.add.at(
        out,
        _checked(index, x.shape[axis], axis),
        np.moveaxis(updates, range(axis, axis + index.ndim), range(index.ndim)),
    )
    return np.moveaxis(out, 0, axis)


def _scatter_along(c: Context, e: Equation, x: Array, index: Array, updates: Array) -> Array:
    out = x.copy()
    np.add.at(out, _grid(index, x.shape[e.attributes["axis"]], e.attributes["axis"]), updates)
    return out


def _argsort(c: Context, e: Equation, x: Array) -> Array:
    axis = e.attributes["axis"]
    x = x.astype(np.float32) if x.dtype.kind == "V" else x  # NumPy does not know that a bfloat16 NaN is the greatest
    if not e.attributes["descending"]:
        return np.argsort(x, axis, kind="stable")
    backwards = np.argsort(
        np.flip(x, axis), axis, kind="stable"
    )  # the last of equals first, turned round below
    return np.flip(x.shape[axis] - 1 - backwards, axis)


ARRAYS: dict[Op, Meaning] = {
    Op.FULL: _full,
    Op.IOTA: _iota,
    Op.CONSTANT: lambda c, e: e.attributes["array"].astype(c.working(e.result.dtype)),
    Op.SIZE: lambda c, e: np.asarray(value_of(e.attributes["value"], c.sizes), np.int64),
    Op.RANDOM_BITS: _random_bits,
    Op.BROADCAST: _broadcast,
    Op.PERMUTE: lambda c, e, x: x.transpose(e.attributes["axes"]),
    Op.RESHAPE: lambda c, e, x: x.reshape(c.ints(e.attributes["shape"])),
    Op.SLICE: _slice,
    Op.PAD: _pad,
    Op.CONCAT: lambda c, e, *x: np.concatenate(x, e.attributes["axis"]),
    Op.WINDOW: _window,
    Op.SUM: _reduce(np.sum, Op.SUM),
    Op.PROD: _reduce(np.prod, Op.PROD),
    Op.MAX: _reduce(np.max, Op.MAX),
    Op.MIN: _reduce(np.min, Op.MIN),
    Op.ANY: lambda c, e, x: np.any(x, axis=e.attributes["axes"]),
    Op.ALL: lambda c, e, x: np.all(x, axis=e.attributes["axes"]),
    Op.ARGMAX: lambda c, e, x: np.argmax(x, axis=e.attributes["axes"][0]),
    Op.ARGMIN: lambda c, e, x: np.argmin(x, axis=e.attributes["axes"][0]),
    Op.DOT: _dot,
    Op.TAKE: _take,
    Op.TAKE_ALONG: lambda c, e, x, i: x[_grid(i, x.shape[e.attributes["axis"]], e.attributes["axis"])],
    Op.SCATTER_ADD: _scatter_add,
    Op.SCATTER_ALONG: _scatter_along,
    Op.SORT: lambda c, e, x: np.take_along_axis(x, _argsort(c, e, x), e.attributes["axis"]),
    Op.ARGSORT: _argsort,
    Op.SEARCHSORTED: lambda c, e, x, y: np.asarray(np.searchsorted(x, y, e.attributes["side"])),
}
