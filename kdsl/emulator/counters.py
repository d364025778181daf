"""What a launch did, in numbers that a profiler would show: instructions, divergence, bank conflicts, sectors of global memory.

In:  the accesses of warps.  Out: Counters, printed as a table; `Emulator(ptx, count=True)` collects them in `gpu.counters`.
Shared memory has 32 banks of 4 bytes: a warp's access takes as many passes as the most different words in one bank. Accesses of 8
and 16 bytes go by half and quarter warps. Global memory comes in sectors of 32 bytes: the fewer an access touches, the better.
Read before: wave.py.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from kdsl.emulator.kernel import Kernel

FAMILIES = {
    "global memory": {("ld", "global"), ("st", "global"), ("atom", "global"), ("red", "global")},
    "shared memory": {("ld", "shared"), ("st", "shared"), ("atom", "shared"), ("ldmatrix", ""), ("stmatrix", "")},
    "asynchronous copies": {("cp", "")},
    "tensor cores": {("mma", ""), ("wgmma", "")},
    "barriers": {("bar", ""), ("barrier", ""), ("mbarrier", ""), ("membar", ""), ("fence", "")},
    "shuffles and votes": {("shfl", ""), ("vote", ""), ("match", ""), ("redux", ""), ("activemask", ""), ("elect", "")},
    "jumps": {("bra", ""), ("brx", ""), ("ret", ""), ("exit", "")},
    "special functions": {(n, "") for n in ("ex2", "lg2", "rcp", "rsqrt", "sqrt", "sin", "cos", "tanh")},
    "conversions": {("cvt", "")},
    "parameters": {("ld", "param")},
}


def family(op: tuple[str, ...]) -> str:
    """The kind of work an instruction does."""
    for name, members in FAMILIES.items():
        if any(op[0] == first and (not space or space in (p.split("::")[0] for p in op)) for first, space in members):
            return name
    kind = op[-1]
    return "floating point" if kind[:1] == "f" or kind.startswith("bf16") else "integers and moves"


@dataclass
class Counters:
    """Sums over all launches since the emulator was made."""

    instructions: Counter[str] = field(default_factory=Counter)  # of warps, by family
    threads: int = 0  # that ran them, all instructions together
    warps: int = 0
    shared_accesses: int = 0  # of warps; those of 16 bytes count as 4
    bank_conflicts: int = 0  # passes beyond the first
    global_accesses: int = 0  # of warps
    sectors: int = 0
    fewest_sectors: int = 0  # that could hold the bytes asked for

    @property
    def active(self) -> float:
        """The share of a warp's threads that take part, on average."""
        return self.threads / (32 * self.warps) if self.warps else 1.0

    def add_kernel(self, kernel: Kernel) -> None:
        """Take over what a launch ran, and set the kernel back."""
        for ins, threads, warps in zip(kernel.flat.code, kernel.threads_run, kernel.warps_run):
            if warps:
                self.instructions[family(ins.op)] += warps
                self.threads += threads
                self.warps += warps
        kernel.clear()

    def shared(self, warps: Any, address: Any, size: int) -> None:
        """An access to shared memory by threads of these warps."""
        share = max(1, size // 4)
        order = np.arange(len(address)) % 32 * share // 32
        passes = warps.astype(np.int64) * share + order
        words = address // 4
        if size > 4:
            words = (words[:, None] + np.arange(share)).reshape(-1)
            passes = np.repeat(passes, share)
        cells = np.unique(passes << 32 | words)
        banks, counts = np.unique((cells >> 32) * 32 + (cells & 31), return_counts=True)
        phase, first = np.unique(banks // 32, return_index=True)
        self.shared_accesses += len(phase)
        self.bank_conflicts += int(np.maximum.reduceat(counts, first).sum()) - len(phase)

    def global_(self, warps: Any, address: Any, size: int) -> None:
        """An access to global memory by threads of these warps."""
        each = len(np.unique(warps))
        self.global_accesses += each
        self.sectors += len(np.unique(warps.astype(np.int64) << 40 | address // 32))
        bytes_ = np.bincount(np.unique(warps.astype(np.int64) << 40 | address // size) >> 40) * size
        self.fewest_sectors += int((-(-bytes_ // 32)).sum())

    def __str__(self) -> str:
        lines = [f"{n:>10}  {name}" for name, n in self.instructions.most_common()]
        lines.append(f"{self.active:>10.0%}  of the threads of a warp take part, on average")
        if self.shared_accesses:
            lines.append(f"{self.bank_conflicts:>10}  bank conflicts in {self.shared_accesses} passes over shared memory")
        if self.global_accesses:
            lines.append(
                f"{self.sectors:>10}  sectors of 32 bytes in {self.global_accesses} accesses to global memory, "
                f"{self.fewest_sectors} would do"
            )
        return "\n".join(lines)
