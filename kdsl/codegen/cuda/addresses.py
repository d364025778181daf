"""Index expressions and views as text of a kernel's source.

A view of a buffer with any number of axes becomes rows and columns behind an offset: the axes that the tile's two axes walk
along (columns next to each other in memory), every other index in the offset.
In:  views of the loop IR.  Out: source text.  Read before: macros_memory.py. Read next: emit.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from kdsl.codegen.cuda.choose_layouts import Unsupported
from kdsl.codegen.cuda.records import BYTES
from kdsl.ir import loops as ir
from kdsl.ir.sizes import Extent, Size, names_in, split, substitute


def show(e: Extent) -> str:
    """An index expression in the source's own words."""
    return str(e).replace("min(", "smaller(").replace("max(", "larger(").replace(".", "_")


@dataclass(frozen=True)
class Place:
    """A view as the macros take it."""

    array: str
    view: str
    row: str
    column: str
    vector: int


def place(view: ir.View, shape: ir.TileShape, steps: dict[str, int]) -> Place:
    """Where a tile of this shape lies in a buffer; `steps` are the tiles of the loops around it."""
    memory = view.memory
    assert not isinstance(memory, ir.Near)
    if memory.dtype.name not in BYTES:
        raise Unsupported(f"{memory.name} is {memory.dtype.name}; CUDA kernels take f32 and bf16 so far")
    along: dict[int, int] = {}  # tile axis -> memory axis
    start: list[Extent] = []
    for d, e in enumerate(view.index):
        try:
            factors, rest = split(e, {"#0", "#1"})
        except ValueError as error:
            raise Unsupported(f"the index {e} of {memory.name}: {error}") from error
        if len(factors) > 1 or any(f != 1 for f in factors.values()):
            raise Unsupported(f"the index {e} of {memory.name} is no plain walk along one axis")
        along.update((int(name[1:]), d) for name in factors)
        start.append(rest)
    spare = [d for d, check in enumerate(view.checks) if check and d not in along.values()]
    free = 0 if 0 not in along and shape[0] == 1 else 1 if 1 not in along and shape[1] == 1 else None
    if spare and (len(spare) > 1 or free is None):
        raise Unsupported(f"{memory.name}: {len(spare)} checked axes beside the tile's")
    if spare and free is not None:
        along[free] = spare[0]
    one, zero = (1, 0)  # an axis that the tile does not walk along
    rows, row, stride = (
        (memory.shape[d], start[d], memory.strides[d]) if (d := along.get(0, -1)) >= 0 else (one, zero, one)
    )
    columns, column = (memory.shape[d], start[d]) if (d := along.get(1, -1)) >= 0 else (one, zero)
    if 1 in along and memory.strides[along[1]] != 1 and shape[1] > 1:
        raise Unsupported(
            f"the columns of a tile of {memory.name} are {memory.strides[along[1]]} elements apart"
        )
    offset: Extent = 0
    for d, e in enumerate(start):
        if d not in along.values():
            offset = offset + e * memory.strides[d]
    widest = 16 // BYTES[memory.dtype.name]
    apart = 0 if rows == 1 else stride
    vector = (
        1
        if shape[1] == 1
        else math.gcd(widest, *(_factor(e, steps) for e in (apart, offset, columns, column)))
    )
    array = f"{memory.dtype.name.upper()}_BY_{vector}"
    text = f"view({array}, {memory.name}, {show(offset)}, {show(rows)}, {show(columns)}, {show(stride)})"
    return Place(array, text, show(row), show(column), vector)


def _factor(e: Extent, steps: dict[str, int]) -> int:
    """A number that divides the expression whatever its names are."""
    scaled = substitute(e, {n: Size({(("name", n),): steps[n]}) for n in names_in(e) if n in steps})
    return math.gcd(*scaled.terms.values()) if isinstance(scaled, Size) else scaled
