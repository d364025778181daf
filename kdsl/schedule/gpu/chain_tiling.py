"""Which tiles a chain has on a GPU.

In:  how wide the products behind the line are, how many tiles of the line wait in registers, dtype.  Out: a ChainTiling.

Four warps hold 16 rows each, so that a fold along the line stays within a warp. A thread of 64 rows by n columns holds n / 2
registers of a tile; what is carried and what is computed must fit beside what the products read.
Read before: ir/dot_frame.py. Read next: chain_operands.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

REGISTERS = 150  # of a thread's 255 that tiles may take; operands and addresses want the rest


@dataclass(frozen=True)
class ChainTiling:
    """What the tuner may vary."""

    rows: int = 64
    line: int = 64
    warps: tuple[int, int] = (4, 1)
    depth: int = 2  # tiles of what is walked over in near memory


def choose_chain_tiling(carried: int, tiles: int, k: int, bytes_: int) -> ChainTiling:
    """`carried` columns wait along the line, `tiles` tiles of it are computed at once, `k` summed at once."""
    each = max(1, bytes_ // 4)
    line = 64
    while line > 16 and (carried + tiles * line) * each // 2 + k // 6 > REGISTERS:
        line //= 2
    return ChainTiling(64, line)


def smaller(tiling: ChainTiling) -> Iterator[ChainTiling]:
    """A tiling, then ever smaller ones: a shorter tile of the line, one tile of it in flight, fewer rows."""
    yield tiling
    for warps in (4, 2, 1):
        for depth in (2, 1):
            for line in (64, 32, 16):
                if line <= tiling.line and (line, warps) != (tiling.line, 4):
                    yield ChainTiling(16 * warps, line, (warps, 1), depth)
