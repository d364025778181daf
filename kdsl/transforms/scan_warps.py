"""How many lanes of a GPU's warp share the rows of a scan's tile: few, and there are few warps; many, and all do the same.

In:  how many tiles there are, the rows of each, what the step folds.  Out: places along the lane that one warp takes;
warps of a block.
The estimate counts the instructions of a step, for one warp: what every lane does for itself, for each element it holds,
the shuffles of its folds, its share of what is made for a piece of steps. A multiprocessor's four schedulers issue one each
in a cycle; a warp alone on its scheduler waits for each result. Nothing of it was measured on a GPU.
Read before: plan_scan.py. Read next: schedule/gpu/scan.py.
"""

from __future__ import annotations

from math import log2

from kdsl.target import Target

WARP = 32
SCHEDULERS = 4  # of a multiprocessor
MOST_ELEMENTS = 8  # of a carry that one lane holds
SECTOR = 8  # elements along the lane that memory moves at once; summed over the lane, fewer would make many parts
FEW = 4  # the least along the lane otherwise
STATES = 32 * 1024  # bytes of near memory for a warp's chunk of states, so that several find room
MOST_TOGETHER = 4  # warps of a block
BLOCKS = 3  # whose states would fit a multiprocessor's near memory: two with all that they need
EACH, ELEMENT, SHUFFLE, APART = 10, 6, 2, 2  # instructions of a step
WAIT = 60  # cycles that a step takes from its first load to its last, alone


def warps_together(lane: int, width: int, states: int, target: Target) -> int:
    """How many warps of a block stand side by side along the lane: what they sum over it is one part."""
    together, room = 1, target.near_bytes // BLOCKS
    while together < MOST_TOGETHER and 2 * together * width <= lane and 2 * together * width * states <= room:
        together *= 2
    return together


def lane_width(lane: int, rows: int, others: int, folds: int, sums: int, states: int, target: Target) -> int:
    """Places along the lane that a warp takes. `lane`: how many there are; `others`: tiles beside; `folds` over the rows and
    `sums` over the lane in a step; `states`: bytes that a chunk keeps for one place."""
    rows = 1 << max(0, rows - 1).bit_length()
    whole = 1 << max(0, lane - 1).bit_length()
    least = min(whole, SECTOR if sums else FEW)
    choices = [w for w in (32, 16, 8, 4, 2, 1) if w <= whole]
    choices = [w for w in choices if w >= least and rows * w <= WARP * MOST_ELEMENTS] or [
        max((w for w in choices if rows * w <= WARP * MOST_ELEMENTS), default=1)
    ]
    if choices[-1] * states > STATES:
        choices = [max((w for w in (4, 2) if w < choices[-1] and w * states <= STATES), default=1)]
    choices = [w for w in choices if w * states <= STATES] or choices[-1:]

    def cycles(width: int) -> float:
        sharing = WARP // width
        held = max(1, rows // sharing)
        shuffles = folds * log2(min(sharing, rows)) + sums * held * log2(width)
        issued = EACH + ELEMENT * held + SHUFFLE * shuffles + APART * width
        warps = others * -(-lane // width)
        return max(issued * -(-warps // (SCHEDULERS * target.units)), WAIT + issued)

    return min(choices, key=cycles)
