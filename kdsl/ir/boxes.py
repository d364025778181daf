"""A view as boxes of a tensor: what a GPU's bulk copy engine (TMA) can bring to near memory by itself.

In:  the view of a Copy and the tile's shape.  Out: Boxes, or None where the engine cannot bring it.
The engine knows a tensor of up to five axes, the last of which has neighbours in memory, and brings boxes of it: elements
outside of the tensor become 0. A row of a box has 128 bytes, so a wider tile is several boxes side by side (panels).
Read before: loops.py. Read next: schedule/gpu/staging.py (may it?), codegen/cuda/bulk.py (what is written then).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from kdsl.dtypes import DType
from kdsl.ir import loops as ir
from kdsl.ir.sizes import Extent, Size, split

LINE = 128  # bytes of a row of a box
MOST_AXES, MOST_ROWS = 5, 256
PIECE = 16  # bytes of which every stride is a multiple


@dataclass(frozen=True)
class Boxes:
    """Axes of memory, slowest first; the last one's elements are neighbours. `box` and `start` count along these axes."""

    memory: ir.Buffer
    dtype: DType
    shape: tuple[Extent, ...]
    strides: tuple[Extent, ...]  # in elements
    box: tuple[int, ...]
    start: tuple[Extent, ...]  # of the first box

    @property
    def tensor(self) -> tuple[object, ...]:
        """What of it does not change from tile to tile."""
        return self.memory, self.shape, self.strides, self.box


def boxes_of(view: ir.View, shape: ir.TileShape) -> Boxes | None:
    """The boxes that fill a tile of two axes from a view, or None."""
    memory = view.memory
    if isinstance(memory, ir.Near) or len(shape) != 2 or view.fill != 0:
        return None
    line = LINE // memory.dtype.bytes
    if shape[1] % line or not 0 < shape[0] <= MOST_ROWS or shape[0] % 8:
        return None
    axes: list[tuple[Extent, Extent, int, Extent]] = []  # extent, stride, box, start
    last: tuple[Extent, Extent, int, Extent] | None = None
    rows = 0
    for index, extent, stride in zip(view.index, memory.shape, memory.strides, strict=True):
        try:
            factors, start = split(index, {"#0", "#1"})
        except ValueError:
            return None
        if index == 0:
            continue
        if factors == {"#1": 1} and stride == 1 and last is None:
            last = (extent, stride, line, start)
        elif factors in ({}, {"#0": 1}) and _pieces(stride, memory.dtype):
            rows += len(factors)
            axes.append((extent, stride, shape[0] if factors else 1, start))
        else:
            return None
    if last is None or rows != 1 or len(axes) + 1 > MOST_AXES:
        return None
    extents, strides, box, starts = zip(*axes, last, strict=True)
    return Boxes(ir.root(memory), memory.dtype, extents, strides, box, starts)


def _pieces(stride: Extent, dtype: DType) -> bool:
    """Whether a stride is a positive multiple of 16 bytes, whatever its names are."""
    each = PIECE // dtype.bytes
    if isinstance(stride, Size):
        return math.gcd(*stride.terms.values()) % each == 0 and min(stride.terms.values()) > 0
    return stride > 0 and stride % each == 0
