"""Contracts on GPU code, checked without a GPU: what a kernel of yours became, as numbers to assert on in pytest.

    from kdsl.testing import gpu_code, loads_per_byte

    def test_softmax():
        code = gpu_code(softmax, kd.f32[4096, 1024], arch="sm_90")
        assert code.spill_bytes == 0 and code.registers <= 64
        assert code.narrow_accesses == 0                    # every access of global memory takes 16 bytes
        assert loads_per_byte(softmax, x) <= 1.01           # the argument is read once
        assert wide_share(softmax, x) > 0.99                # and nearly all bytes go 16 at a time, where rows are of odd length

In:  a kernel, or its vjp, and types as in `f.ptx`.  Out: Code: its numbers are the sum, or the most, over the program's kernels,
`kernels` has them one by one. Registers and spills come from the linker, instructions from the PTX, traffic from the emulator.
Needs numba-cuda (pip install 'kdsl[cuda]'). Read before: gpu_code.py. Read next: tests/test_testing.py.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from kdsl.errors import ArgumentError
from kdsl.gpu_code import assembled, ptx_of
from kdsl.gradients.vjp import Vjp
from kdsl.kernel import Kernel

ACCESS = re.compile(r"\b(ld|st)\.global(?:\.\w+)*?(?:\.v(\d))?\.[busf](\d+)\b")


@dataclass(frozen=True)
class KernelCode:
    """One kernel for one architecture. Instructions are counted as they stand in the PTX, once also where a loop repeats them."""

    name: str
    registers: int
    spill_bytes: int
    near_bytes: int  # shared memory of a block, what a launch adds included
    threads: int
    ptx: str

    def count(self, start: str) -> int:
        """How many instructions begin with these words: `count("mma.sync")`, `count("cp.async.cg")`, `count("bar.sync")`."""
        return len(re.findall(rf"(?<![\w.]){re.escape(start)}(?!\w)", self.ptx))

    @property
    def accesses(self) -> Counter[int]:
        """The loads and stores of global memory in registers, by the bytes that a thread moves at once."""
        return Counter(int(m[2] or 1) * int(m[3]) // 8 for m in ACCESS.finditer(self.ptx))

    @property
    def wide_accesses(self) -> int:
        """Loads and stores of 16 bytes."""
        return self.accesses[16]

    @property
    def narrow_accesses(self) -> int:
        """Loads and stores of less."""
        return sum(self.accesses.values()) - self.wide_accesses

    @property
    def tensor_core(self) -> int:
        """Instructions that multiply on tensor cores."""
        return self.count("mma.sync") + self.count("wgmma.mma_async")

    @property
    def async_copies(self) -> int:
        """Copies to shared memory that run while threads compute."""
        return self.count("cp.async.cg") + self.count("cp.async.ca") + self.count("cp.async.bulk")


@dataclass(frozen=True)
class Code:
    """A program's kernels in launch order. Registers, shared memory: the most of any; everything else: the sum."""

    arch: str
    kernels: tuple[KernelCode, ...]

    registers = property(lambda self: max((k.registers for k in self.kernels), default=0))
    near_bytes = property(lambda self: max((k.near_bytes for k in self.kernels), default=0))
    spill_bytes = property(lambda self: sum(k.spill_bytes for k in self.kernels))
    wide_accesses = property(lambda self: sum(k.wide_accesses for k in self.kernels))
    narrow_accesses = property(lambda self: sum(k.narrow_accesses for k in self.kernels))
    tensor_core = property(lambda self: sum(k.tensor_core for k in self.kernels))
    async_copies = property(lambda self: sum(k.async_copies for k in self.kernels))

    def count(self, start: str) -> int:
        """How many instructions of all kernels begin with these words."""
        return sum(k.count(start) for k in self.kernels)


def gpu_code(f: Kernel | Vjp, *types: Any, arch: str = "sm_80", **statics: Any) -> Code:
    """What a kernel, or its vjp, is on a GPU. Example: `gpu_code(softmax, kd.f32[128, 1024]).registers`."""
    kernels = []
    for program in _looking(f).looked_at(types, statics, f"cuda:{arch}"):
        for kernel in program.kernels:
            code = assembled(kernel, arch)
            kernels.append(
                KernelCode(
                    kernel.name,
                    code.registers,
                    code.spill_bytes,
                    code.near_bytes + kernel.near_bytes,
                    kernel.threads,
                    ptx_of(kernel, arch),
                )
            )
    return Code(arch, tuple(kernels))


def loads_per_byte(f: Kernel | Vjp, *arrays: Any) -> float:
    """Bytes that all threads together load from global memory, for each byte of the arguments: 1.0 where all is read once.

    The program runs in the emulator."""
    loaded = sum(n for (what, _), n in _traffic(f, arrays).items() if what == "ld")
    given = sum(x.nbytes for x in arrays if hasattr(x, "nbytes"))
    return loaded / given if given else 0.0


def wide_share(f: Kernel | Vjp, *arrays: Any) -> float:
    """The share of the bytes loaded from and stored to global memory that goes in accesses of 16 bytes: 1.0 where all does.

    The program runs in the emulator: an access that falls apart only at the end of a row counts as what it did."""
    moved = _traffic(f, arrays)
    total = sum(moved.values())
    return sum(n for (_, each), n in moved.items() if each == 16) / total if total else 1.0


def _traffic(f: Kernel | Vjp, arrays: Any) -> Counter[tuple[str, int]]:
    """Bytes that the emulator's threads load ("ld") and store ("st"), by the bytes that a thread moves at once."""
    _looking(f)
    own = Kernel(f, "emulator") if isinstance(f, Kernel) else Kernel(f.kernel, "emulator").vjp
    (program,) = own.looked_at(arrays, {}, None)
    gpu = program.executable.library.gpu
    for kernel in gpu.kernels.values():
        kernel.clear()
    own(*arrays)
    moved: Counter[tuple[str, int]] = Counter()
    for kernel in gpu.kernels.values():
        for instruction, times in zip(kernel.flat.code, kernel.threads_run):
            what, each = _access(instruction.op, instruction.operands)
            moved[what, each] += times * each
    return moved


def _access(op: tuple[str, ...], operands: tuple[str, ...]) -> tuple[str, int]:
    """Whether an instruction loads from global memory or stores there, and how many bytes a thread moves by it."""
    if op[:2] == ("cp", "async") and "global" in op:
        return "ld", int(operands[2]) if len(operands) > 2 else 0
    if op[0] not in ("ld", "st") or "global" not in op:
        return "", 0
    count = next((int(p[1:]) for p in op if re.fullmatch(r"v[248]", p)), 1)
    return op[0], count * int(op[-1][1:]) // 8


def _looking(f: Any) -> Any:
    if not isinstance(f, (Kernel, Vjp)):
        raise ArgumentError(f"{f!r} is neither a kernel nor the vjp of one")
    return f
