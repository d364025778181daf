"""What a machine offers the compiler: kind, vector bytes, registers, cache bytes. A leaf: imports nothing else from kdsl."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Target:
    """A machine to compile for. Sizes in bytes, per core (CPU) or per block (GPU)."""

    kind: str  # "cpu" | "cuda" | "emulator"
    level: str  # "x86-64-v4" | "x86-64-v3" | "arm64" | "sm_80" …
    vector_bytes: int = 64
    vector_registers: int = 32
    l1_bytes: int = 32 * 1024
    l2_bytes: int = 1024 * 1024
    units: int = 4  # cores, or multiprocessors, that share a kernel
    bytes_per_us: float = 12_000.0  # from main memory, of one unit
    operations_per_us: float = 8_000.0  # elementary ones on f32, of one unit
    launch_us: float = 2.0  # for one kernel more
    near_bytes: int = 0  # of near memory that a block may have; 0: as its caches hold
    choices: tuple[tuple[str, int], ...] = ()  # what tuning found for the numbers that schedules choose
    classes: tuple[tuple[str, int, int], ...] = ()  # of named sizes: at most this (0: any), a multiple of that

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.level}"

    def choice(self, name: str, default: int) -> int:
        """A number of a schedule that tuning may vary (tuner.py says in what range)."""
        return next((n for known, n in self.choices if known == name), default) if self.choices else default

    def most(self, name: str) -> int | None:
        """What a named size is at most; None where it may be anything."""
        return next((most or None for known, most, _ in self.classes if known == name), None)

    def multiple(self, name: str) -> int:
        """What a named size is a multiple of."""
        return next((each for known, _, each in self.classes if known == name), 1)

    def lanes(self, element_bytes: int) -> int:
        """How many elements one vector holds."""
        return max(1, self.vector_bytes // max(1, element_bytes))


LEVELS = {
    "x86-64-v4": Target("cpu", "x86-64-v4", 64, 32, 48 * 1024, 1024 * 1024),
    "x86-64-v3": Target("cpu", "x86-64-v3", 32, 16, 32 * 1024, 512 * 1024),
    "arm64": Target("cpu", "arm64", 16, 32, 64 * 1024, 512 * 1024),
}


CLASSES = 128, 512, 2048, 8192  # of a named size on a GPU: at most so much, with a tile that holds it all; beyond, any
WHOLE = 8  # elements: a size that is a multiple of it begins every row of 16-bit or wider elements at a piece of 16 bytes


def size_class(name: str, value: int) -> tuple[str, int, int]:
    """What a GPU's schedule may know of a named size that has this value."""
    return name, next((n for n in CLASSES if value <= n), 0), 1 if value % WHOLE else WHOLE


@lru_cache
def host_level() -> str:
    """The best level this machine runs."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "arm64"
    flags = ""
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as f:
            flags = next((line for line in f if line.startswith("flags")), "")
    return "x86-64-v4" if all(f" {x}" in flags for x in ("avx512f", "avx512bw", "avx512dq", "avx512vl")) else "x86-64-v3"


def parse_target(text: str) -> Target:
    """The Target that `cpu`, `cpu:LEVEL`, `cuda`, `cuda:sm_90` or `emulator` names; ValueError for anything else."""
    kind, _, level = text.partition(":")
    if kind == "cpu" and (level or host_level()) in LEVELS:
        return LEVELS[level or host_level()]
    if kind in ("cuda", "emulator"):
        return _gpu(kind, level or "sm_80")
    raise ValueError(f"no target is called {text!r}; there are cpu, cpu:{', cpu:'.join(LEVELS)}, cuda, cuda:sm_XX and emulator")


GPUS = {  # multiprocessors, GB/s, KB of near memory of a block, f32 operations of a multiprocessor in a microsecond
    "80": (108, 1555, 163, 90_000.0),  # A100
    "86": (84, 936, 99, 200_000.0),  # RTX 3090, A10, A40
    "89": (128, 1008, 99, 300_000.0),  # RTX 4090, L4, L40
    "90": (132, 4800, 227, 250_000.0),  # H200
    "10": (148, 8000, 227, 250_000.0),  # B200
    "12": (170, 1792, 99, 300_000.0),  # RTX 5090
}


def _gpu(kind: str, level: str) -> Target:
    """A GPU in the words of the CUDA C++ guide's table of compute capabilities."""
    digits = level[3:].rstrip("a")
    units, gigabytes, near, rate = GPUS.get(digits) or GPUS.get(digits[:-1]) or GPUS["10"]
    return Target(kind, level, 16, 255, 0, 96 * 1024, units, gigabytes * 1000 / units, rate, 4.0, near * 1024)


@lru_cache
def machine(target: Target) -> str:
    """What this machine's processor is called: times that were measured on it hold for no other. A GPU's level names it."""
    if target.kind == "cpu" and os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as f:
            return next((line.partition(":")[2].strip() for line in f if line.startswith("model name")), "")
    return platform.processor() if target.kind == "cpu" else target.level


@lru_cache
def default_target() -> str:
    """What KDSL_TARGET says, else this machine's CPU; read once, as calls that were seen before do not ask."""
    return os.environ.get("KDSL_TARGET") or "cpu"
