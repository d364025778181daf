"""The derivatives of movement, reductions, contractions and indexing: the second half of the table.

In:  an equation and the cotangent g of its result.  Out: one cotangent for each operand, or None.
A broadcast answers with a sum, a slice with a pad, TAKE with SCATTER_ADD, and the other way round.
Read before: transforms/derivatives.py. Read next: transforms/differentiate.py.
"""

from __future__ import annotations

import kdsl.dtypes as dt
from kdsl.ir.ops import Op
from kdsl.ir.sizes import Extent
from kdsl.ir.tensor import Equation, Value
from kdsl.transforms.derivatives import Cotangents, Derivative, none
from kdsl.transforms.rewrite import Simplifier
from kdsl.transforms.simplify_windows import WRITTEN_OUT, at


# --- movement -----------------------------------------------------------------------------------------------------------
def _broadcast(b: Simplifier, e: Equation, g: Value) -> Cotangents:
    x, axes, shape = e.values[0], e.attributes["axes"], e.result.shape
    spread = [i for i in range(len(shape)) if i not in axes or x.shape[axes.index(i)] != shape[i]]
    out = b.reduce(Op.SUM, g, spread)
    return (b.insert_axes(b.as_value(out), [i for i, axis in enumerate(axes) if axis in spread], len(axes)),)


def _permute(b: Simplifier, e: Equation, g: Value) -> Cotangents:
    axes = e.attributes["axes"]
    return (b.permute(g, sorted(range(len(axes)), key=axes.__getitem__)),)


def _reshape(b: Simplifier, e: Equation, g: Value) -> Cotangents:
    return (b.emit(Op.RESHAPE, g, shape=e.values[0].shape),)


def _slice(b: Simplifier, e: Equation, g: Value) -> Cotangents:
    a, whole = e.attributes, e.values[0].shape
    backwards = [i for i, step in enumerate(a["steps"]) if step < 0]
    if backwards:
        g = flip(b, g, backwards)
    low, high, interior = [], [], []
    for start, n, step, total in zip(a["starts"], a["sizes"], a["steps"], whole, strict=True):
        first = start + (n - 1) * step if step < 0 else start
        stride = abs(step)
        low.append(first)
        interior.append(stride - 1)
        high.append(total - first - n - (n - 1) * (stride - 1))
    if any(n == 0 for n in a["sizes"]):
        return (b.full(0.0, whole, g.dtype),)
    return (b.emit(Op.PAD, g, low=tuple(low), high=tuple(high), interior=tuple(interior), value=0.0),)


def flip(b: Simplifier, x: Value, axes: list[int]) -> Value:
    """x read backwards along these axes."""
    starts = tuple(n - 1 if i in axes else 0 for i, n in enumerate(x.shape))
    steps = tuple(-1 if i in axes else 1 for i in range(len(x.shape)))
    return b.value(Op.SLICE, x, starts=starts, sizes=x.shape, steps=steps)


def _pad(b: Simplifier, e: Equation, g: Value) -> Cotangents:
    a, shape = e.attributes, e.values[0].shape
    return (
        b.emit(Op.SLICE, g, starts=tuple(a["low"]), sizes=shape, steps=tuple(i + 1 for i in a["interior"])),
    )


def _concat(b: Simplifier, e: Equation, g: Value) -> Cotangents:
    axis = e.attributes["axis"]
    out: list[Value] = []
    position: Extent = 0
    for v in e.values:
        starts = tuple(position if i == axis else 0 for i in range(len(v.shape)))
        out.append(b.value(Op.SLICE, g, starts=starts, sizes=v.shape, steps=(1,) * len(v.shape)))
        position = position + v.shape[axis]
    return tuple(out)


def _window(b: Simplifier, e: Equation, g: Value) -> Cotangents:
    """A pad for each position of a window of few; one scatter for larger ones."""
    x, a = e.values[0], e.attributes
    axis, size, stride, dilation = a["axis"], a["size"], a["stride"], a["dilation"]
    ndim, count = len(x.shape), e.result.shape[axis]
    if not isinstance(size, int) or size > WRITTEN_OUT:
        return (_window_scatter(b, e, g),)
    total: Value | None = None
    for k in range(size):
        part = b.as_value(at(b, g, ndim, k))
        high = x.shape[axis] - k * dilation - count - (count - 1) * (stride - 1)
        only = [(k * dilation, high, stride - 1) if i == axis else (0, 0, 0) for i in range(ndim)]
        low, after, interior = (tuple(t[j] for t in only) for j in range(3))
        part = b.value(Op.PAD, part, low=low, high=after, interior=interior, value=0.0)
        total = part if total is None else b.value(Op.ADD, total, part)
    return (total if total is not None else b.full(0.0, x.shape, x.dtype),)


def _window_scatter(b: Simplifier, e: Equation, g: Value) -> Value:
    x, a = e.values[0], e.attributes
    axis, ndim = a["axis"], len(x.shape)
    grid = (e.result.shape[axis], a["size"])
    start = b.emit(Op.MUL, b.emit(Op.IOTA, shape=grid, axis=0, dtype=dt.i64), a["stride"])
    inside = b.emit(Op.MUL, b.emit(Op.IOTA, shape=grid, axis=1, dtype=dt.i64), a["dilation"])
    order = (*range(axis + 1), ndim, *range(axis + 1, ndim))
    updates = b.permute(g, order)
    return b.value(
        Op.SCATTER_ADD, b.full(0.0, x.shape, x.dtype), b.emit(Op.ADD, start, inside), updates, axis=axis
    )


# --- reductions -----------------------------------------------------------------------------------------------------------
def _spread(b: Simplifier, e: Equation, v: Value) -> Value:
    """A reduced value back over the axes of the operand."""
    x, gone = e.values[0], e.attributes["axes"]
    kept = tuple(i for i in range(len(x.shape)) if i not in gone)
    return b.value(Op.BROADCAST, v, shape=x.shape, axes=kept)


def _sum(b: Simplifier, e: Equation, g: Value) -> Cotangents:
    return (_spread(b, e, g),)


def _extreme(b: Simplifier, e: Equation, g: Value) -> Cotangents:
    """The elements that equal the extreme share its cotangent."""
    hit = b.value(Op.EQ, e.values[0], _spread(b, e, e.result))
    count = b.value(Op.SUM, b.value(Op.CAST, hit, dtype=g.dtype), axes=e.attributes["axes"])
    return (b.emit(Op.WHERE, hit, _spread(b, e, b.value(Op.DIV, g, count)), 0.0),)


def _prod(b: Simplifier, e: Equation, g: Value) -> Cotangents:
    """g times the product of the *other* elements, right with any number of zeros."""
    x, gone = e.values[0], e.attributes["axes"]
    count: Extent = 1
    for i in gone:
        count = count * x.shape[i]
    if not isinstance(count, int):
        return (_prod_by_zeros(b, e, g),)
    kept = [i for i in range(len(x.shape)) if i not in gone]
    order = (*kept, *gone)
    line = b.value(Op.RESHAPE, b.as_value(b.permute(x, order)), shape=(*(x.shape[i] for i in kept), count))
    before = _products_before(b, line, count)
    last = [len(kept)]
    after = flip(b, _products_before(b, flip(b, line, last), count), last)
    others = b.value(Op.RESHAPE, b.value(Op.MUL, before, after), shape=tuple(x.shape[i] for i in order))
    back = b.permute(others, sorted(range(len(order)), key=order.__getitem__))
    return (b.emit(Op.MUL, _spread(b, e, g), back),)


def _products_before(b: Simplifier, x: Value, n: int) -> Value:
    """For each element the product of all before it along the last axis, by doubling."""
    out, step = _delayed(b, x, 1, n), 1
    while step < n:
        out = b.value(Op.MUL, out, _delayed(b, out, step, n))
        step *= 2
    return out


def _delayed(b: Simplifier, x: Value, by: int, n: int) -> Value:
    """x moved towards the end of the last axis, ones moving in."""
    if by >= n:
        return b.array(1.0, x.shape, x.dtype)
    zeros = (0,) * (len(x.shape) - 1)
    part = b.value(Op.SLICE, x, starts=(*zeros, 0), sizes=(*x.shape[:-1], n - by), steps=(1,) * len(x.shape))
    return b.value(Op.PAD, part, low=(*zeros, by), high=(*zeros, 0), interior=(*zeros, 0), value=1.0)


def _prod_by_zeros(b: Simplifier, e: Equation, g: Value) -> Value:
    """The same over a named size: by the number of zeros and the product of the rest."""
    x, axes = e.values[0], e.attributes["axes"]
    zero = b.value(Op.EQ, x, 0.0)
    count = _spread(b, e, b.value(Op.SUM, b.value(Op.CAST, zero, dtype=x.dtype), axes=axes))
    safe = b.value(Op.WHERE, zero, 1.0, x)
    rest = _spread(b, e, b.value(Op.PROD, safe, axes=axes))
    alone = b.emit(Op.AND, zero, b.emit(Op.EQ, count, 1.0))
    plain = b.emit(Op.WHERE, b.emit(Op.EQ, count, 0.0), b.emit(Op.DIV, rest, safe), 0.0)
    return b.value(Op.MUL, _spread(b, e, g), b.emit(Op.WHERE, alone, rest, plain))


# --- contractions -----------------------------------------------------------------------------------------------------------
def _dot(b: Simplifier, e: Equation, g: Value) -> Cotangents:
    a = e.attributes
    x, y = e.values
    return _dot_side(b, g, a["out"], y, a["right"], x, a["left"]), _dot_side(
        b, g, a["out"], x, a["left"], y, a["right"]
    )


def _dot_side(
    b: Simplifier,
    g: Value,
    out: tuple[str, ...],
    other: Value,
    theirs: tuple[str, ...],
    x: Value,
    mine: tuple[str, ...],
) -> Value:
    """The cotangent of the operand x with the letters `mine`."""
    known = tuple(letter for letter in mine if letter in out or letter in theirs)
    small = b.value(Op.DOT, g, other, left=out, right=theirs, out=known)
    return b.value(Op.BROADCAST, small, shape=x.shape, axes=tuple(mine.index(letter) for letter in known))


# --- indexing ---------------------------------------------------------------------------------------------------------------
def _zeros(b: Simplifier, x: Value) -> Value:
    return b.as_value(b.full(0.0, x.shape, x.dtype))


def _take(b: Simplifier, e: Equation, g: Value) -> Cotangents:
    x, index = e.values
    op = Op.SCATTER_ADD if e.op is Op.TAKE else Op.SCATTER_ALONG
    return b.emit(op, _zeros(b, x), index, g, axis=e.attributes["axis"]), None


def _scatter(b: Simplifier, e: Equation, g: Value) -> Cotangents:
    op = Op.TAKE if e.op is Op.SCATTER_ADD else Op.TAKE_ALONG
    return g, None, b.emit(op, g, e.values[1], axis=e.attributes["axis"])


def _sort(b: Simplifier, e: Equation, g: Value) -> Cotangents:
    x = e.values[0]
    return (
        b.emit(
            Op.SCATTER_ALONG,
            _zeros(b, x),
            b.emit(Op.ARGSORT, x, **e.attributes),
            g,
            axis=e.attributes["axis"],
        ),
    )


STRUCTURE_DERIVATIVES: dict[Op, Derivative] = {
    **{op: none for op in (Op.FULL, Op.IOTA, Op.CONSTANT, Op.SIZE, Op.RANDOM_BITS)},
    **{op: none for op in (Op.ANY, Op.ALL, Op.ARGMAX, Op.ARGMIN, Op.ARGSORT, Op.SEARCHSORTED)},
    Op.BROADCAST: _broadcast,
    Op.PERMUTE: _permute,
    Op.RESHAPE: _reshape,
    Op.SLICE: _slice,
    Op.PAD: _pad,
    Op.CONCAT: _concat,
    Op.WINDOW: _window,
    Op.SUM: _sum,
    Op.PROD: _prod,
    Op.MAX: _extreme,
    Op.MIN: _extreme,
    Op.DOT: _dot,
    Op.TAKE: _take,
    Op.TAKE_ALONG: _take,
    Op.SCATTER_ADD: _scatter,
    Op.SCATTER_ALONG: _scatter,
    Op.SORT: _sort,
    Op.BARRIER: lambda b, e, g: (g,),
}
