"""The numbers of schedules that tuning may vary.

In:  a Target.  Out: what may be tried on it, one step after the other, and whether a choice fits it.
Read before: target.py. Read next: tuned.py, tuner.py.
"""

from __future__ import annotations

from kdsl.target import Target

Choices = tuple[tuple[str, int], ...]
Step = tuple[Choices, ...]  # of its candidates the fastest stays

DEFAULT: Choices = (("default", 1),)  # no schedule asks for it
CPU: tuple[Step, ...] = (
    tuple((("dot rows", r), ("dot vectors", v)) for r, v in ((4, 2), (4, 3), (6, 2), (8, 2), (10, 2), (12, 2), (8, 3), (5, 4))),
    tuple((("dot depth", n),) for n in (192, 256, 512, 768)),
    tuple((("dot row tiles", n),) for n in (4, 8, 16, 32)),
    tuple((("dot panels", n),) for n in (8, 16, 32, 64)),
    tuple((("row vectors", n),) for n in (1, 2, 8)),
)
TILES = (128, 256), (128, 128), (64, 256), (64, 128), (128, 64), (64, 64), (32, 64)
GPU: tuple[Step, ...] = (
    tuple((("gpu dot rows", r), ("gpu dot columns", c)) for r, c in TILES),
    tuple((("gpu dot depth", n),) for n in (2, 3, 5)),
    tuple((("gpu dot k", n),) for n in (16, 32, 64)),
    tuple((("gpu chain line", n),) for n in (32, 128)),
    tuple((("gpu thread bytes", n),) for n in (16, 64)),
    tuple((("gpu row threads", n),) for n in (128, 512)),
    tuple((("gpu columns", n),) for n in (32, 128)),
)
ACCUMULATORS = 256 * 160  # of a block of 256 threads: the registers that sums of a product may take


def space(target: Target) -> tuple[Step, ...]:
    """What may be tried for a target, one step after the other."""
    return CPU if target.kind == "cpu" else GPU


def joined(a: Choices, b: Choices) -> Choices:
    """Both, the second's where both say something."""
    return tuple(sorted({**dict(a), **dict(b)}.items()))


def fits(choices: Choices, target: Target) -> bool:
    """Whether a product's sums, operands and a value beside them have registers, and its operands near memory."""
    chosen = dict(choices)
    if target.kind == "cpu":
        rows, vectors = chosen.get("dot rows", 1), chosen.get("dot vectors", 1)
        return rows * vectors + vectors + 1 <= target.vector_registers
    rows, columns = chosen.get("gpu dot rows", 0), chosen.get("gpu dot columns", 0)
    near = 2 * (rows + columns) * chosen.get("gpu dot k", 16) * chosen.get("gpu dot depth", 2)
    return rows * columns <= ACCUMULATORS and near <= target.near_bytes
