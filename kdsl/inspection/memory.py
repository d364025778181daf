"""How much memory one run of a program takes: arguments, results, and what lies between its kernels.

In:  an ir.loops.Program.  Out: MemoryFacts, in bytes.
Read before: ir/loops.py. Read next: explain.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kdsl.ir.loops import Buffer, Program
from kdsl.ir.sizes import Extent


@dataclass(frozen=True)
class MemoryFacts:
    """Bytes of a run. `temporaries`: what the kernels hand to each other, as much of it as is there at once."""

    part: str
    arguments: Extent
    results: Extent
    temporaries: Extent


def memory_of(program: Program, part: str = "") -> MemoryFacts:
    """The memory of a program. With named sizes temporaries are counted as if all were there at once."""
    roles = {role: [b for b in program.buffers if b.role == role] for role in ("argument", "result", "temporary")}
    alive: list[Extent] = []
    for time in range(len(program.kernels)):
        before = {b for k in program.kernels[: time + 1] for b in k.buffers}
        after = {b for k in program.kernels[time:] for b in k.buffers}
        alive.append(_bytes(b for b in roles["temporary"] if b in before and b in after))
    numbers = [n for n in alive if isinstance(n, int)]
    most = max(numbers, default=0) if len(numbers) == len(alive) else _bytes(roles["temporary"])
    return MemoryFacts(part, _bytes(roles["argument"]), _bytes(roles["result"]), most)


def _bytes(buffers: Iterable[Buffer]) -> Extent:
    total: Extent = 0
    for b in buffers:
        count: Extent = b.dtype.bytes
        for n in b.shape:
            count = count * n
        total = total + count
    return total
