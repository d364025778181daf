"""What one block may take of an architecture: which of several kernels fits.

In:  scheduled kernels, the target.  Out: bytes of near memory, the first kernel that fits.
Read before: target.py, ir/loops.py. Read next: chain.py, dots.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from kdsl.ir import loops as ir
from kdsl.target import Target

SCRATCH = 1024  # bytes that folds across warps may want besides


def near_bytes(kernel: ir.Kernel) -> int:
    """Near memory of a block: every array as often as tiles of it are in flight."""
    depth: dict[ir.Near, int] = {}
    for s in ir.walk(kernel.body):
        if isinstance(s, ir.Near):
            depth.setdefault(s, 1)
        elif isinstance(s, ir.Copy):
            depth[s.near] = max(depth.get(s.near, 1), s.depth)
    return sum(-(-math.prod(map(int, m.shape)) * m.dtype.bytes // 16) * 16 * n for m, n in depth.items())  # type: ignore[arg-type]


def fits(kernel: ir.Kernel, target: Target) -> bool:
    """Whether a block of the target has the near memory of this kernel."""
    return not target.near_bytes or near_bytes(kernel) + SCRATCH <= target.near_bytes


def first_that_fits(kernels: Iterable[ir.Kernel], target: Target) -> ir.Kernel:
    """The first of these, each smaller than the one before; the smallest where none fits."""
    smallest: ir.Kernel | None = None
    for kernel in kernels:
        if fits(kernel, target):
            return kernel
        if smallest is None or near_bytes(kernel) < near_bytes(smallest):
            smallest = kernel
    assert smallest is not None
    return smallest
