"""Rows of the steps to come, asked for ahead: the processor's own prefetching ends at every page.

In:  the body of a loop over steps, its index.  Out: a Prefetch for each view of memory that walks by rows far apart.
Read before: scan.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from kdsl.ir import loops as ir
from kdsl.ir.sizes import names_in, size, substitute

STEPS = 16  # ahead: what one of them takes, some 30 ns, times these is what memory takes
APART = 256  # bytes from one step's row to the next; nearer ones are found by the processor


def rows_ahead(body: tuple[ir.Statement, ...], index: str, backward: bool) -> tuple[ir.Prefetch, ...]:
    """What to ask for at the start of each step."""
    then = size(index) + (-STEPS if backward else STEPS)
    asked: dict[tuple, ir.Prefetch] = {}
    for view, shape in _views(body):
        memory, walks = view.memory, [index in names_in(i) for i in view.index]
        if isinstance(memory, ir.Near) or sum(walks) != 1:
            continue
        stride = memory.strides[walks.index(True)]
        if isinstance(stride, int) and abs(stride) * memory.dtype.bytes < APART:
            continue
        place = tuple(substitute(i, {index: then}) for i in view.index)
        asked.setdefault((memory.name, place), ir.Prefetch(ir.View(memory, place), shape))
    return tuple(asked.values())


def _views(body: tuple[ir.Statement, ...]) -> Iterator[tuple[ir.View, ir.TileShape]]:
    """Every view of memory that statements read or write, those of inner loops left out."""
    for s in body:
        if isinstance(s, ir.Stream):
            continue
        if isinstance(s, ir.Store):
            yield s.view, s.tile.shape
        for tile in ir.tiles_of(s):
            yield from ((load.view, load.shape) for load in ir.loads_in(tile))
