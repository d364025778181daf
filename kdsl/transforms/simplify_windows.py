"""Sums over windows of few positions: the window is written out, one shifted read for each position.

In:  a sum over the positions within a window, or a value and a place along one of its axes.  Out: maps of slices.

    sum_k window(x)[.., t, k] * w[k]    ->  x[t] * w[0] + x[t+1] * w[1] + …

So a convolution of each channel with few taps, and a pool, are maps of their inputs, and so are their gradients: a map's loop
lies along the longest contiguous axis, a fold's along the handful of positions that it folds.
Read before: rewrite.py, views.py. Read next: derivatives_structure.py (the gradient of a window).
"""

from __future__ import annotations

from kdsl.ir.ops import ELEMENTWISE, Op
from kdsl.ir.tensor import Operand, Value
from kdsl.transforms.rewrite import Attributes, Operands, Simplifier, rule
from kdsl.transforms.views import CHEAP

WRITTEN_OUT = 16  # positions of a window, at most


@rule(Op.SUM, exact=False)
def few_positions_of_a_window(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """sum(map(window(x), y), k) -> map(x[k=0], y[k=0]) + map(x[k=1], y[k=1]) + …, for cheap maps and few k"""
    v, axes = x[0], a["axes"]
    axis = next((i for i in axes if _is_window(b, v, i)), None)
    if axis is None:
        return None
    total: Operand | None = None
    for k in range(v.shape[axis]):
        part = at(b, v, axis, k)
        total = part if total is None else b.emit(Op.ADD, total, part)
    return None if total is None else b.reduce(op, b.as_value(total), [i - (i > axis) for i in axes if i != axis])


def _is_window(b: Simplifier, v: Value, axis: int) -> bool:
    """Whether `axis` counts the few positions of a window, and what varies along it is made of windows by cheap maps."""
    n = v.shape[axis]
    if not isinstance(n, int) or not 0 < n <= WRITTEN_OUT:
        return False
    found = False
    seen: set[tuple[Value, int]] = set()
    todo = [(v, axis)]
    while todo:
        v, i = todo.pop()
        e = b.define(v)
        if (v, i) in seen or e is None:
            continue
        seen.add((v, i))
        if e.op in ELEMENTWISE:
            if e.op not in CHEAP:
                return False
            todo += [(o, i) for o in e.values]
        elif e.op is Op.PERMUTE:
            todo.append((e.values[0], e.attributes["axes"][i]))
        elif e.op is Op.BROADCAST and i in e.attributes["axes"]:
            todo.append((e.values[0], e.attributes["axes"].index(i)))
        elif e.op is Op.WINDOW:
            found |= i == len(v.shape) - 1
            if i < len(v.shape) - 1 and i != e.attributes["axis"]:
                todo.append((e.values[0], i))
    return found


def at(b: Simplifier, v: Value, axis: int, k: int) -> Operand:
    """v at place k of an axis, without that axis; made where v is made by cheap maps and movements, not cut out of v."""
    known: dict[tuple[Value, int], Operand] = {}

    def made(v: Value, axis: int, k: int) -> Operand:
        e, rest = b.define(v), (*v.shape[:axis], *v.shape[axis + 1 :])
        if e is not None and e.op in CHEAP:
            return b.emit(e.op, *(find(o, axis, k) if isinstance(o, Value) else o for o in e.operands), **e.attributes)
        if e is not None and e.op is Op.PERMUTE:
            axes = e.attributes["axes"]
            order = tuple(i - (i > axes[axis]) for i in axes if i != axes[axis])
            return b.emit(Op.PERMUTE, find(e.values[0], axes[axis], k), axes=order)
        if e is not None and e.op is Op.BROADCAST:
            (x,), axes = e.values, e.attributes["axes"]
            kept = tuple(i - (i > axis) for i in axes if i != axis)
            if axis in axes:
                d = axes.index(axis)
                x = b.as_value(find(x, d, k if x.shape[d] == v.shape[axis] else 0))
            return b.emit(Op.BROADCAST, x, shape=rest, axes=kept)
        if e is not None and e.op is Op.WINDOW and axis != e.attributes["axis"]:
            (x,), a = e.values, e.attributes
            if axis < len(x.shape):
                moved = a["axis"] - (a["axis"] > axis)
                return b.emit(Op.WINDOW, find(x, axis, k), **{**a, "axis": moved})
            starts = tuple(k * a["dilation"] if i == a["axis"] else 0 for i in range(len(x.shape)))
            steps = tuple(a["stride"] if i == a["axis"] else 1 for i in range(len(x.shape)))
            return b.emit(Op.SLICE, x, starts=starts, sizes=rest, steps=steps)
        starts = tuple(k if i == axis else 0 for i in range(len(v.shape)))
        sizes = tuple(1 if i == axis else n for i, n in enumerate(v.shape))
        part = b.emit(Op.SLICE, v, starts=starts, sizes=sizes, steps=(1,) * len(v.shape))
        return b.emit(Op.RESHAPE, part, shape=rest)

    def find(v: Value, axis: int, k: int) -> Operand:
        if (v, axis) not in known:  # the place is one for each axis of a value: a broadcast's 0, else k
            known[v, axis] = made(v, axis, k)
        return known[v, axis]

    return find(v, axis, k)
