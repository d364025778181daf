"""The register tile of a product, and the loop along k that fills it.

In:  the target, extents; where operands of a step lie.  Out: a Tiling; statements that leave a sum in a carried tile.
The tile is as large as the accumulators fit the vector registers beside two vectors of b and one value of a: 6 x 16 f32 with
16 registers of 8, 12 x 32 with 32 of 16. Read before: schedule/dot_values.py. Read next: schedule/dots.py, schedule/chain.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kdsl.dtypes import DType
from kdsl.ir import loops as ir
from kdsl.ir.frame import Letter
from kdsl.ir.sizes import Extent, Size, size
from kdsl.schedule.dot_values import Values
from kdsl.target import Target

Step = Callable[
    [dict[Letter, Extent], Letter, Extent, int, ir.Tile], ir.Dot
]  # slow k, the fast letter, its first, how many, sum


@dataclass(frozen=True)
class Tiling:
    """What the tuner may vary: the register tile, its steps along k, and the blocks around it."""

    rows: int
    columns: int
    k: int = 4
    row_tiles: int = 16  # of one block
    panels: int = 32  # of one block
    depth: int = 384  # K is cut in pieces of about this many


def choose_tiling(target: Target, dtype: DType, rows: Extent, columns: Extent) -> Tiling:
    """Two vectors wide and as high as the accumulators leave registers for two vectors of b and one of a."""
    lanes = target.lanes(max(4, dtype.bytes))
    height = 12 if target.vector_registers >= 32 else 6
    vectors = 2
    few = isinstance(rows, int) and rows < height
    if isinstance(rows, int) and few:
        height = max(rows, 1)
        while height * (vectors + 1) <= (24 if target.vector_registers >= 32 else 12) and vectors < 12:
            vectors += 1
    if isinstance(columns, int):
        vectors = max(1, min(vectors, -(-columns // lanes)))
    if not few:
        height = target.choice("dot rows", height)
        vectors = target.choice("dot vectors", vectors)
    depth = target.choice("dot depth", 384) * 4 // max(4, dtype.bytes)
    row_tiles = target.choice("dot row tiles", max(1, 96 // height))
    panels = target.choice("dot panels", max(1, 512 // (vectors * lanes)))
    return Tiling(height, vectors * lanes, 4, row_tiles, panels, depth)


def whole(tile: ir.Tile, shape: tuple[int, ...]) -> ir.Tile:
    """A tile with axes of extent 1 repeated."""
    return tile if tile.shape == tuple(shape) else ir.Broadcast(tile, tuple(shape))


@dataclass(frozen=True)
class Segment:
    """Positions lo … hi-1 of the innermost k, `unit` at a time; `once`: exactly `unit` many."""

    lo: Extent
    hi: Extent
    unit: int
    once: bool = False


def segments(lo: Extent, count: Extent, unit: int) -> list[Segment]:
    """`count` positions from lo: whole units, then what is left."""
    full = count // unit * unit
    out = [Segment(lo, lo + full, unit)] if full != 0 else []
    rest = count - full
    if isinstance(rest, Size):
        return [*out, Segment(lo + full, lo + count, 1)]
    return [*out, Segment(lo + full, lo + count, rest, True)] if rest else out


def accumulate(
    values: Values, k: tuple[Letter, ...], parts: list[Segment], start: ir.Tile, step: Step
) -> tuple[list[ir.Statement], ir.Tile]:
    """Statements that add the products along k to `start`, and the sum.

    The last letter of k runs through `parts`; the letters before it are loops around."""
    *slow, fast = k
    at: dict[Letter, Extent] = {x: size(values.name("s")) for x in slow}
    names = [values.name("sum") for _ in slow]
    total: ir.Tile = ir.Name(names[-1], start.shape, start.dtype) if names else start
    body: list[ir.Statement] = []
    for part in parts:
        name, index = values.name("sum"), values.name("k")
        held = ir.Name(name, start.shape, start.dtype)
        if part.once:
            body.append(ir.Let(name, step(at, fast, part.lo, part.unit, total)))
        else:
            body.append(
                ir.Stream(
                    index,
                    part.lo,
                    part.hi,
                    part.unit,
                    (),
                    (ir.Carry(name, total, step(at, fast, size(index), part.unit, held)),),
                )
            )
        total = held
    for i in reversed(range(len(slow))):
        init = ir.Name(names[i - 1], start.shape, start.dtype) if i else start
        loop = ir.Stream(
            str(at[slow[i]]),
            0,
            values.plan.letters.size[slow[i]],
            1,
            tuple(body),
            (ir.Carry(names[i], init, total),),
        )
        body, total = [loop], ir.Name(names[i], start.shape, start.dtype)
    return body, total
