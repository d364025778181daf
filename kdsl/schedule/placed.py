"""Concatenations that no kernel makes: their parts are written where they stand in the whole.

In:  the kernels of a program; the grouping, which names such concatenations.  Out: the kernels, with views of a part
as views of the whole, and without the kernels that would only copy:

    store(dx[r, #1 + j], …)   store(dz[r, #1 + j], …)   store(dxz[r, #1 + j], where(…, load(dx[…]), load(dz[…])))
    ->  store(dxz[r, #1 + j], …)   store(dxz[r, #1 + j + 256], …)

Where some view of a part cannot be said of the whole (its loops walk over several axes as one, or may leave it along the axis
that is joined), the copying kernel stays. Read before: ir/loops.py, transforms/placed.py. Read next: buffers.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kdsl.ir import loops as ir
from kdsl.ir.frame import Grouping
from kdsl.ir.rebuilt import with_views
from kdsl.ir.sizes import Extent, names_in, row_major
from kdsl.ir.tensor import Equation, Shape
from kdsl.schedule.buffers import Buffers


@dataclass(frozen=True)
class _Part:
    """Where a part begins in the whole, along the axis that is joined."""

    whole: ir.Buffer
    axis: int
    start: Extent


class _Elsewhere(Exception):
    """A view that cannot be said of the whole."""


def in_their_places(grouping: Grouping, buffers: Buffers, kernels: Sequence[ir.Kernel]) -> list[ir.Kernel]:
    """The kernels, without those that only lay side by side what others have computed."""
    out = list(kernels)
    for plan in grouping.plans:
        if len(plan.equations) == 1 and plan.equations[0] in grouping.placed:
            parts = _parts(plan.equations[0], buffers)
            try:
                moved = [_moved(k, parts) for k in out if k.name != plan.name]
            except _Elsewhere:
                continue
            out = moved
    return out


def _parts(e: Equation, buffers: Buffers) -> dict[ir.Buffer, _Part]:
    whole, axis = buffers.by_value[e.result], e.attributes["axis"]
    parts: dict[ir.Buffer, _Part] = {}
    start: Extent = 0
    for v in e.values:
        parts[buffers.by_value[v]] = _Part(whole, axis, start)
        start = start + v.shape[axis]
    return parts


def _moved(kernel: ir.Kernel, parts: dict[ir.Buffer, _Part]) -> ir.Kernel:
    """The kernel with views of the whole for those of parts."""
    if not parts.keys() & set(kernel.buffers):
        return kernel

    def change(view: ir.View) -> ir.View:
        buffer = ir.root(view.memory)
        part = parts.get(buffer) if isinstance(buffer, ir.Buffer) else None
        return view if part is None else _of_the_whole(view, part)

    body = with_views(kernel.body, change)
    read = [ir.memory_read(t) for s in ir.walk(body) for t in ir.nodes(*ir.tiles_of(s))]
    if any(m is not None and ir.root(m) in parts for m in read):  # at places that are computed
        raise _Elsewhere
    used = tuple(dict.fromkeys(parts[b].whole if b in parts else b for b in kernel.buffers))
    sizes = {n for b in used for x in (*b.shape, *b.strides) for n in names_in(x)}
    return replace(kernel, buffers=used, sizes=tuple(sorted({*kernel.sizes, *sizes})), body=body)


def _of_the_whole(view: ir.View, part: _Part) -> ir.View:
    """A view of the part as a view of the whole."""
    memory, whole, d = view.memory, part.whole, part.axis
    buffer = ir.root(memory)
    assert isinstance(buffer, ir.Buffer) and not isinstance(memory, ir.Near)
    if buffer.dtype is not whole.dtype:
        raise _Elsewhere
    before, after = _count(buffer.shape[:d]), _count(buffer.shape[d + 1 :])
    here = [
        i
        for i, n in enumerate(memory.shape)
        if n == buffer.shape[d] and _count(memory.shape[:i]) == before and _count(memory.shape[i + 1 :]) == after
    ]
    if not here or view.checks[here[0]]:
        raise _Elsewhere
    i = here[0]
    shape = (*memory.shape[:i], whole.shape[d], *memory.shape[i + 1 :])
    at = whole if shape == whole.shape else ir.Reshaped(whole, shape, row_major(shape))
    return replace(view, memory=at, index=(*view.index[:i], view.index[i] + part.start, *view.index[i + 1 :]))


def _count(shape: Shape) -> Extent:
    out: Extent = 1
    for n in shape:
        out = out * n
    return out
