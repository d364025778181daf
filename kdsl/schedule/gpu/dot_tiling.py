"""Which tiles a product has on a GPU: as large as keeps all multiprocessors busy.

In:  the target, extents (named ones guessed), dtype.  Out: a Tiling.

A warp's tile of 64 x 64 on tensor cores reads 8 KB of operands for each 32 of k and multiplies 2^18 times, which the tensor
cores need longer for than near memory; 64 x 32 would wait for near memory. Without tensor cores a thread holds 8 x 8.
Read before: ir/dot_frame.py. Read next: dots.py, thin.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from kdsl.ir.dot_frame import DotFrame
from kdsl.ir.frame import DotPlan
from kdsl.ir.sizes import Extent, names_in, substitute
from kdsl.target import Target

LONG = 1024  # what a named size is taken to be
THIN = 4  # so few rows or columns fill no tile
MOST_PARTS = 16
ROWS = 64  # of a warpgroup
LONG_K = 64  # a step of k of warpgroups: rows of 128 bytes
MOST_DEPTH = 8
SPARE = 8192  # bytes of near memory that are not for operands
BANDS = (16, 8, 4, 2)


@dataclass(frozen=True)
class Tiling:
    """What the tuner may vary. `parts`: k is summed in so many parts, side by side."""

    rows: int
    columns: int
    k: int
    warps: tuple[int, int]  # down the rows, across the columns
    depth: int  # tiles of the operands in near memory
    parts: int = 1
    bringing: int = 0  # warps beside these that bring the operands, for products of warpgroups


def choose_tiling(
    target: Target, tensor_cores: bool, bytes_: int, rows: int, columns: int, k: int, blocks: int
) -> Tiling:
    """The largest tile with which the product still has a block for most multiprocessors. `blocks`: of the outer letters."""
    if tensor_cores:
        sizes = [(128, 256), (128, 128), (64, 128), (64, 64), (32, 64), (32, 32), (16, 32)]
        per_warp, least, step, depth = (64, 64), (16, 16), 32, 4
    else:
        sizes = [(128, 128), (64, 128), (64, 64), (32, 64), (16, 32)] if bytes_ <= 4 else [(64, 64), (32, 64), (16, 32)]
        per_warp, least, step, depth = (32, 64) if bytes_ <= 4 else (32, 32), (4, 32), 16, 3
    fitting = [(m, n) for m, n in sizes if (m < 2 * rows and n < 2 * columns) or (m, n) == sizes[-1]]
    best = next((s for s in fitting if 4 * blocks * _tiles(rows, s[0]) * _tiles(columns, s[1]) >= 3 * target.units), None)
    parts = 1
    if best is None:
        best = next((s for s in fitting if s[0] <= 64 and s[1] <= 64), fitting[-1])
        have = blocks * _tiles(rows, best[0]) * _tiles(columns, best[1])
        parts = max(1, min(MOST_PARTS, target.units // have, k // (8 * step)))
    m, n = target.choice("gpu dot rows", best[0]), target.choice("gpu dot columns", best[1])
    step, depth = target.choice("gpu dot k", step), target.choice("gpu dot depth", depth)
    while step > 16 and k <= step // 2:
        step //= 2
    return Tiling(m, n, step, _warps(m, n, per_warp, least), depth if k > step else 1, parts)


def warpgroup_tiling(target: Target, rows: int, columns: int, k: int, blocks: int) -> Tiling | None:
    """The same for products of warpgroups, 64 rows each; None where tiles would be mostly empty.

    The largest tile fills a multiprocessor by itself; of smaller ones two run side by side, and each hides how the other
    starts and ends."""
    if rows <= ROWS // 2 or columns <= ROWS // 2 or k < LONG_K:
        return None
    sizes = [(128, 256), (128, 128), (64, 128), (64, 64)]
    fitting = [(m, n) for m, n in sizes if (m < 2 * rows and n < 2 * columns) or (m, n) == sizes[-1]]
    best = next((s for s in fitting if 4 * blocks * _tiles(rows, s[0]) * _tiles(columns, s[1]) >= 3 * target.units), None)
    parts = 1
    if best is None:
        best = next(s for s in fitting if s[0] == ROWS)
        have = blocks * _tiles(rows, best[0]) * _tiles(columns, best[1])
        parts = max(1, min(MOST_PARTS, target.units // have, k // (8 * LONG_K)))
    m, n = best
    room = (target.near_bytes - SPARE) // (1 if best == sizes[0] else 2)
    return Tiling(m, n, LONG_K, (m // 16, 1), min(MOST_DEPTH, room // (2 * LONG_K * (m + n))), parts, 1)


def resident(tiling: Tiling, target: Target) -> int:
    """How many blocks of a kernel of warpgroups run at one time: no more are started, each takes tiles in turn."""
    used = 2 * tiling.depth * tiling.k * (tiling.rows + tiling.columns)
    return target.units * max(1, min(2, (target.near_bytes - SPARE) // used))


def band_of(tiling: Tiling, rows: Extent, columns: Extent) -> int:
    """How many tiles below one another come before those beside them.

    The blocks that run at one time then read a square of the operands, which the L2 cache holds for all of them."""
    if not isinstance(rows, int) or guess(columns) <= tiling.columns:
        return 1
    return next((n for n in BANDS if rows % (n * tiling.rows) == 0 and rows > n * tiling.rows), 1)


def _warps(m: int, n: int, wanted: tuple[int, int], least: tuple[int, int]) -> tuple[int, int]:
    """Warps for a tile, at least four where the tile is large enough."""
    down, across = max(1, m // wanted[0]), max(1, n // wanted[1])
    while down * across < 4:
        if n // across >= 2 * least[1] and n // across >= m // down:
            across *= 2
        elif m // down >= 2 * least[0]:
            down *= 2
        elif n // across >= 2 * least[1]:
            across *= 2
        else:
            break
    return down, across


def _tiles(n: int, tile: int) -> int:
    return max(1, -(-n // tile))


def guess(n: Extent) -> int:
    """An extent; named sizes are taken to be LONG."""
    got = n if isinstance(n, int) else substitute(n, dict.fromkeys(names_in(n), LONG))
    assert isinstance(got, int)
    return got


def is_thin(plan: DotPlan) -> bool:
    """Whether a product has so few rows or columns that it is a fold."""
    frame: DotFrame = plan.frame
    n = plan.letters.size
    sides = [1 if x is None else guess(n[x]) for x in (frame.row, frame.products[0].column)]
    return bool(frame.products[0].k) and min(sides) <= THIN
