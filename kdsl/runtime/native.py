"""The runtime's own machine code: the thread pool, the allocator and the fast call, one module, loaded on first use.

In:  nothing.  Out: `native()`, with the addresses that the rest of the runtime calls.
Threads start with the first large launch. In the child of a fork the pool starts anew; the allocator's lock is held across
the fork, so that its lists are whole on both sides.
Read before: runtime/pool.py, runtime/arena.py, runtime/fast_text.py. Read next: runtime/call.py.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from kdsl.runtime import arena, cpu, fast_text, pool
from kdsl.target import LEVELS, host_level


@dataclass(frozen=True)
class Native:
    """Addresses (integers), and the same functions callable from Python (the GIL is released while they run)."""

    library: cpu.Library
    launch: int
    allocate: Callable[[int], int | None]
    release: Callable[[int], None]

    def address(self, function: str) -> int:
        return self.library.address(function)


@lru_cache
def native() -> Native:
    """The module, loaded and set up."""
    arm = platform.machine().lower() in ("arm64", "aarch64")
    text = pool.text(arm, sys.platform == "darwin") + arena.text(arm, sys.platform.startswith("linux")) + fast_text.text()
    library = cpu.load(text, LEVELS[host_level()])
    reset = ctypes.CFUNCTYPE(None, ctypes.c_int64)(library.address("pool_reset"))
    workers = pool.threads() - 1
    reset(workers)
    ctypes.CFUNCTYPE(None, ctypes.c_int64)(library.address("arena_limit"))(arena.limit())
    if hasattr(os, "register_at_fork"):
        lock = ctypes.PYFUNCTYPE(None)(library.address("arena_lock"))
        unlock = ctypes.PYFUNCTYPE(None)(library.address("arena_unlock"))

        def child() -> None:
            unlock()
            reset(workers)

        os.register_at_fork(before=lock, after_in_parent=unlock, after_in_child=child)
    return Native(
        library,
        library.address("launch"),
        ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_int64)(library.address("allocate")),
        ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(library.address("release")),
    )


def statistics() -> dict[str, int]:
    """What the allocator did: bytes kept free, blocks from the system, blocks used again."""
    out = (ctypes.c_int64 * 3)()
    ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(native().address("arena_statistics"))(ctypes.addressof(out))
    return dict(zip(("kept_bytes", "fresh_blocks", "reused_blocks"), out))


def trim() -> None:
    """Give all free blocks back to the system."""
    ctypes.PYFUNCTYPE(None)(native().address("arena_trim"))()
