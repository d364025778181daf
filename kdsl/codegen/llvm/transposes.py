"""Vectors across memory: lanes that lie far apart while another axis of the tile is contiguous.

In:  a Load whose lanes are strided, the position of a vector.  Out: the vector, from a block of contiguous vectors that is
turned in registers, or None where there is no such block. All vectors of a block share its loads and shuffles.

    4 lanes of a transposed matrix:  a0 a1 a2 a3     a0 b0 a2 b2     a0 b0 c0 d0
                                     b0 b1 b2 b3  -> a1 b1 a3 b3  -> a1 b1 c1 d1      swap 1 x 1 blocks, then 2 x 2 …
                                     c0 …            c0 d0 …         …

Packing an operand of a product that runs the other way is the customer: a gather of 8 lanes costs 8 loads and 8 inserts.
Read before: memory.py. Read next: tiles.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from kdsl.codegen.llvm.memory import Access, Position
from kdsl.codegen.llvm.writer import Value
from kdsl.ir import loops as ir


def across(w: Access, tile: ir.Load, at: Sequence[Position], lane: int, width: int) -> Value | None:
    """`width` lanes along tile axis `lane`, from vectors along the tile's contiguous axis."""
    if lane < 0 or width < 4:
        return None
    plan = w.plan(tile.view, len(at))
    if plan.linear is None or plan.linear[0].get(lane, 0) in (0, 1):
        return None
    along = next((a for a, factor in plan.linear[0].items() if factor == 1 and a != lane), None)
    start, first = at[lane], None if along is None else at[along]
    if along is None or not isinstance(first, int) or not isinstance(start, int):
        return None
    side = width
    while side > tile.shape[along]:
        side //= 2
    begin = first // side * side
    if side < 4 or begin + side > tile.shape[along]:
        return None
    parts = []
    for j in range(start, start + width, side):
        rows = []
        for i in range(j, j + side):
            place = list(at)
            place[along], place[lane] = begin, min(i, tile.shape[lane] - 1)
            rows.append(w.splat(w.load(tile.view, place, along, side, side), side))
        parts.append(transposed(w, rows)[first - begin])
    while len(parts) > 1:
        n = parts[0].width
        parts = [w.shuffle(a, b, range(2 * n)) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def transposed(w: Access, rows: Sequence[Value]) -> list[Value]:
    """n vectors of n lanes, a power of two, as a matrix turned: blocks are swapped, from 1 x 1 to n/2 x n/2."""
    n, out, step = len(rows), list(rows), 1
    while step < n:
        for i in range(n):
            if not i & step:
                a, b = out[i], out[i + step]
                out[i] = w.shuffle(a, b, [lane + n - step if lane & step else lane for lane in range(n)])
                out[i + step] = w.shuffle(a, b, [lane + n if lane & step else lane + step for lane in range(n)])
        step *= 2
    return out
