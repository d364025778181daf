"""What a kernel could cost at best on a machine: the time of its bytes against the time of its operations.

In:  bytes and operations of a kernel, a Target.  Out: one line in words.
A CPU's speeds are estimates of one core: what its caches are fed from memory, and two fused multiply-adds on full vectors in
each cycle of 3 GHz. A GPU's are those of the whole, without its tensor cores (target.py). Read next: inspection/explain.py.
"""

from __future__ import annotations

from kdsl.ir.sizes import Extent, Size
from kdsl.target import Target

BYTES_PER_SECOND = 12e9
CYCLES_PER_SECOND = 3e9


def bytes_per_second(target: Target) -> float:
    """From main memory: of one core, or of a GPU."""
    return BYTES_PER_SECOND if target.kind == "cpu" else 1e6 * target.bytes_per_us * target.units


def operations_per_second(target: Target) -> float:
    """Elementary f32 operations of one core in full vectors, or of a GPU, a fused multiply-add being two."""
    if target.kind != "cpu":
        return 2e6 * target.operations_per_us * target.units
    return CYCLES_PER_SECOND * target.lanes(4) * 2 * 2


def verdict(bytes_: Extent, operations: Extent, target: Target) -> str:
    """Memory-bound or compute-bound, with both times."""
    if isinstance(bytes_, Size) or isinstance(operations, Size):
        return "memory or arithmetic: that depends on the named sizes"
    memory, compute = bytes_ / bytes_per_second(target), operations / operations_per_second(target)
    bound = "memory" if memory >= compute else "arithmetic"
    who = "one core" if target.kind == "cpu" else f"a GPU ({target.level})"
    return f"bound by {bound}: {who} moves the bytes in {show_time(memory)} and computes in {show_time(compute)} at best"


def show_time(seconds: float) -> str:
    """Seconds in a readable unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def show_count(n: Extent) -> str:
    """A count with a readable prefix: "16.8 M"."""
    if isinstance(n, Size):
        return f"({n}) "
    for unit, scale in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if n >= scale:
            return f"{n / scale:.3g} {unit}"
    return f"{n} "
