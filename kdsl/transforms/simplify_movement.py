"""Rules for movements: they compose, vanish where they do nothing, and move towards the outside of a program.

In:  a movement and its operand.  Out: a simpler value that equals it, or None.
Read before: transforms/rewrite.py.
"""

from __future__ import annotations

from kdsl.ir.ops import Op
from kdsl.ir.sizes import Extent, at_least
from kdsl.ir.tensor import Operand, Shape, Value
from kdsl.transforms.rewrite import Attributes, Operands, Simplifier, rule


@rule(Op.IOTA, exact=True)
def count_along_one_axis(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """iota(shape, axis) -> broadcast(iota((n,), 0))"""
    shape, axis = a["shape"], a["axis"]
    if len(shape) == 1:
        return None
    line = b.emit(Op.IOTA, shape=(shape[axis],), axis=0, dtype=a["dtype"])
    return b.emit(Op.BROADCAST, line, shape=tuple(shape), axes=(axis,))


@rule(Op.BROADCAST, Op.PERMUTE, Op.RESHAPE, Op.SLICE, exact=True)
def one_number_everywhere(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """reshape(full(c)) -> full(c) in the new shape"""
    e = b.define(x[0], Op.FULL)
    if e is None:
        return None
    (v,) = (e.result,)
    shape = (
        a["shape"] if "shape" in a else a["sizes"] if op is Op.SLICE else tuple(v.shape[i] for i in a["axes"])
    )
    return b.full(e.attributes["value"], tuple(shape), v.dtype)


@rule(Op.BROADCAST, exact=True)
def broadcast_once(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """broadcast(x) to its own shape -> x;  broadcast(broadcast(x)) -> broadcast(x)"""
    if x[0].shape == tuple(a["shape"]):
        return x[0]
    e = b.define(x[0], Op.BROADCAST)
    if e is None:
        return None
    return b.emit(
        Op.BROADCAST, e.values[0], shape=a["shape"], axes=tuple(a["axes"][i] for i in e.attributes["axes"])
    )


@rule(Op.PERMUTE, exact=True)
def permute_once(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """permute(x) in order -> x;  permute(permute(x)) -> permute(x);  permute(broadcast(x)) -> broadcast(permute(x))"""
    axes = tuple(a["axes"])
    if axes == tuple(range(len(axes))):
        return x[0]
    e = b.define(x[0], Op.PERMUTE, Op.BROADCAST)
    if e is None:
        return None
    (v,) = e.values
    if e.op is Op.PERMUTE:
        return b.emit(Op.PERMUTE, v, axes=tuple(e.attributes["axes"][i] for i in axes))
    places = [axes.index(i) for i in e.attributes["axes"]]  # where each axis of v ends up
    order = tuple(sorted(range(len(places)), key=places.__getitem__))
    shape = tuple(x[0].shape[i] for i in axes)
    return b.emit(Op.BROADCAST, b.emit(Op.PERMUTE, v, axes=order), shape=shape, axes=tuple(sorted(places)))


@rule(Op.RESHAPE, exact=True)
def reshape_once(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """reshape(x) to its own shape -> x;  reshape(reshape(x)) -> reshape(x)"""
    if x[0].shape == tuple(a["shape"]):
        return x[0]
    e = b.define(x[0], Op.RESHAPE)
    return b.emit(Op.RESHAPE, e.values[0], shape=a["shape"]) if e else None


@rule(Op.RESHAPE, exact=True)
def axes_of_one(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """A reshape that only adds axes of size 1 is a broadcast; one that only moves them commutes with broadcasting."""
    old, new = x[0].shape, tuple(a["shape"])
    if [n for n in old if n != 1] != [n for n in new if n != 1]:
        return None
    places = _ones_apart(old, new)
    if None not in places:
        return b.emit(Op.BROADCAST, x[0], shape=new, axes=tuple(places))
    e = b.define(x[0], Op.BROADCAST)
    if e is None:
        return None
    v: Operand = e.values[0]
    lost = [i for i, axis in enumerate(e.attributes["axes"]) if places[axis] is None]
    if lost:
        v = b.emit(Op.RESHAPE, v, shape=tuple(n for i, n in enumerate(e.values[0].shape) if i not in lost))
    axes = tuple(places[axis] for i, axis in enumerate(e.attributes["axes"]) if i not in lost)
    return b.emit(Op.BROADCAST, v, shape=new, axes=axes)


def _ones_apart(old: Shape, new: Shape) -> list[int | None]:
    """For each axis of `old` its place in `new`; None for an axis of 1 that is gone. Other axes keep their order."""
    out: list[int | None] = []
    position = 0
    for n in old:
        if n == 1:
            stays = position < len(new) and new[position] == 1
            out.append(position if stays else None)
            position += stays
            continue
        while new[position] == 1:
            position += 1
        out.append(position)
        position += 1
    return out


@rule(Op.SLICE, exact=True)
def slice_once(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """slice of everything -> x;  slice(slice(x)) -> slice(x);  slice(broadcast(x)) -> broadcast(slice(x))"""
    sizes, starts, steps = tuple(a["sizes"]), tuple(a["starts"]), tuple(a["steps"])
    if sizes == x[0].shape and all(s == 0 for s in starts) and all(s == 1 for s in steps):
        return x[0]
    e = b.define(x[0], Op.SLICE, Op.BROADCAST)
    if e is None:
        return None
    (v,) = e.values
    if e.op is Op.SLICE:
        inner = zip(e.attributes["starts"], e.attributes["steps"], starts, steps, strict=True)
        both = [(start + s * step, step * t) for start, step, s, t in inner]
        return b.emit(
            Op.SLICE, v, starts=tuple(p for p, _ in both), sizes=sizes, steps=tuple(t for _, t in both)
        )
    axes = e.attributes["axes"]
    if any(n == 1 != x[0].shape[axis] for n, axis in zip(v.shape, axes, strict=True)):
        return None  # an axis of 1 that is repeated: the positions along it mean nothing in v
    small = b.emit(
        Op.SLICE,
        v,
        starts=tuple(starts[i] for i in axes),
        sizes=tuple(sizes[i] for i in axes),
        steps=tuple(steps[i] for i in axes),
    )
    return b.emit(Op.BROADCAST, small, shape=sizes, axes=axes)


@rule(Op.PAD, exact=True)
def pad_nothing(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """pad by nothing -> x"""
    nothing: list[Extent] = [
        *a["low"],
        *a["high"],
        *(i for i, n in zip(a["interior"], x[0].shape, strict=True) if n != 1),
    ]
    return x[0] if all(n == 0 for n in nothing) else None


@rule(Op.CONCAT, exact=True)
def concat_one(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """concat(x) -> x; parts without elements are left out"""
    parts = [v for v in x if v.shape[a["axis"]] != 0] or list(x[:1])
    if len(parts) == 1:
        return parts[0]
    return b.emit(Op.CONCAT, *parts, axis=a["axis"]) if len(parts) < len(x) else None


@rule(Op.CONCAT, exact=True)
def concat_once(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """concat(concat(x, y), z) -> concat(x, y, z)"""
    inner = [b.define(v, Op.CONCAT) for v in x]
    if not any(e and e.attributes["axis"] == a["axis"] for e in inner):
        return None
    parts: list[Operand] = []
    for v, e in zip(x, inner, strict=True):
        parts += e.operands if e and e.attributes["axis"] == a["axis"] else (v,)
    return b.emit(Op.CONCAT, *parts, axis=a["axis"])


@rule(Op.SLICE, exact=True)
def slice_of_a_part(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """slice(concat(x, y)) or slice(pad(x)) that lies inside x -> slice(x)"""
    e = b.define(x[0], Op.CONCAT, Op.PAD)
    if e is None:
        return None
    if e.op is Op.PAD:
        if any(i != 0 for i in e.attributes["interior"]):
            return None
        offsets, v = tuple(e.attributes["low"]), e.values[0]
        return _slice_inside(b, v, offsets, a)
    axis = e.attributes["axis"]
    start: Extent = 0
    for v in e.values:
        offsets = tuple(start if i == axis else 0 for i in range(len(v.shape)))
        found = _slice_inside(b, v, offsets, a)
        if found is not None:
            return found
        start = start + v.shape[axis]
    return None


def _slice_inside(b: Simplifier, v: Value, offsets: Shape, a: Attributes) -> Operand | None:
    """The slice `a`, in coordinates that are `offsets` ahead of v's, if all of it lies inside v."""
    starts = []
    for start, n, step, offset, extent in zip(
        a["starts"], a["sizes"], a["steps"], offsets, v.shape, strict=True
    ):
        first = start - offset
        last = first + (n - 1) * step
        low, high = (first, last) if step > 0 else (last, first)
        if not (at_least(low, 0) and at_least(extent - 1, high)):
            return None
        starts.append(first)
    return b.emit(Op.SLICE, v, starts=tuple(starts), sizes=a["sizes"], steps=a["steps"])


@rule(Op.ADD, exact=False)
def pads_are_a_concat(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """pad(x) + pad(y) side by side -> concat(x, y), in gradients: how slices of one array give its gradient in one piece"""
    first, second = (b.define(o, Op.PAD) for o in x)
    if not b.gradients or first is None or second is None:
        return None
    for p, q in ((first, second), (second, first)):
        moved = [
            i for i, n in enumerate(p.values[0].shape) if n != p.result.shape[i] or q.values[0].shape[i] != n
        ]
        if len(moved) != 1:
            continue
        axis = moved[0]
        plain = all(e.attributes["value"] == 0 and not any(e.attributes["interior"]) for e in (p, q))
        if plain and p.attributes["low"][axis] + p.values[0].shape[axis] == q.attributes["low"][axis]:
            both = b.emit(Op.CONCAT, p.values[0], q.values[0], axis=axis)
            low, high, interior = p.attributes["low"], q.attributes["high"], p.attributes["interior"]
            return b.emit(Op.PAD, both, low=low, high=high, interior=interior, value=0.0)
    return None
