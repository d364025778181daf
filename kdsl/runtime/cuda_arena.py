"""Where the temporaries of a GPU's program lie in one block of memory: those that are not alive together share bytes.

In:  for each temporary its bytes, the first launch that touches it and the last.  Out: an offset for each, and the block's bytes.
Launches of one stream run one after the other, so what launch n has read for the last time may be written by launch n + 1.
Read next: runtime/cuda_plan.py.
"""

from __future__ import annotations

from collections.abc import Sequence

ALIGNED = 256  # bytes, of each temporary

Span = tuple[int, int, int]  # bytes, first launch, last launch


def arrange(spans: Sequence[Span]) -> tuple[list[int], int]:
    """An offset for each span, and how many bytes there are: the largest first, each in the lowest gap that fits."""
    offsets = [0] * len(spans)
    placed: list[int] = []
    total = 0
    for i in sorted(range(len(spans)), key=lambda i: (-spans[i][0], spans[i][1])):
        size, first, last = rounded(spans[i][0]), *spans[i][1:]
        busy = sorted(
            (offsets[k], offsets[k] + rounded(spans[k][0])) for k in placed if spans[k][1] <= last and first <= spans[k][2]
        )
        at = 0
        for low, high in busy:
            if at + size <= low:
                break
            at = max(at, high)
        offsets[i] = at
        placed.append(i)
        total = max(total, at + size)
    return offsets, total


def rounded(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED
