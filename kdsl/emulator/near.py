"""Memory of one block, and memory of one thread.

In:  addresses of the running threads.  Out: values, or the error that the access is: outside, unwritten, not waited for.
Read before: memory.py. Read next: races.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kdsl.emulator.memory import FLIGHT, LEAVING, PLAIN, STRONG, WRITTEN, Bytes, check_place, repeat
from kdsl.errors import UnwaitedCopyError, UnwrittenError

if TYPE_CHECKING:
    from kdsl.emulator.wave import Wave


class Shared(Bytes):
    """The shared memory of each block of a wave, one after the other."""

    def __init__(self, blocks: int, size: int) -> None:
        self.size = size
        self.stride = -(-max(size, 16) // 16) * 16
        super().__init__(blocks * self.stride)

    def index(self, w: Wave, address: Any, size: int, verb: str) -> Any:
        check_place(w, address, size, self.size, verb, "shared memory")
        if w.counters is not None:
            w.counters.shared(w.lanes[w.at] >> 5, address, size)
        return address + w.shared_base[w.at]

    def load(self, w: Wave, address: Any, each: int, count: int, how: str = PLAIN) -> Any:  # type: ignore[override]
        size = each * count
        index = self.index(w, address, size, "reads")
        self.check_read(w, index, size, how == STRONG)
        return super().load(index, each, count)

    def check_read(self, w: Wave, index: Any, size: int, strong: bool = False, together: bool = False) -> None:
        """`together`: all threads of a warp read what each of them names."""
        states = self.states(index, size)
        if not ((states & repeat(WRITTEN | FLIGHT, size)) == repeat(WRITTEN, size)).all():
            self._explain(w, states, size, len(index))
        if w.watch is not None:
            w.watch.read_shared(w, index, size, strong, together)

    def _explain(self, w: Wave, states: Any, size: int, n: int) -> None:
        flying = (states & repeat(FLIGHT, size)).reshape(n, -1).any(axis=1)
        if flying.any():
            w.fail(
                UnwaitedCopyError,
                "reads shared memory that an asynchronous copy is still filling",
                flying,
                hint="wait for the copy (cp.async.wait_group, mbarrier.try_wait), then let a barrier pass",
            )
        bad = ((states & repeat(WRITTEN, size)) != repeat(WRITTEN, size)).reshape(n, -1).any(axis=1)
        w.fail(UnwrittenError, "reads shared memory that nobody has written", bad)

    def store(  # type: ignore[override]
        self, w: Wave, address: Any, each: int, count: int, values: Any, how: str = PLAIN
    ) -> None:
        size = each * count
        index = self.index(w, address, size, "writes")
        self.check_write(w, index, size, how == STRONG)
        super().store(index, each, count, values)

    def check_atomic(self, w: Wave, index: Any, size: int) -> None:
        states = self.states(index, size)
        if not ((states & repeat(WRITTEN | FLIGHT, size)) == repeat(WRITTEN, size)).all():
            self._explain(w, states, size, len(index))
        if w.watch is not None:
            w.watch.atomic_shared(w, index, size)

    def check_write(self, w: Wave, index: Any, size: int, strong: bool = False) -> None:
        states = self.states(index, size)
        if (states & repeat(FLIGHT, size)).any():
            bad = (states & repeat(FLIGHT, size)).reshape(len(index), -1).any(axis=1)
            w.fail(UnwaitedCopyError, "writes shared memory that an asynchronous copy is still filling", bad)
        if (states & repeat(LEAVING, size)).any():
            bad = (states & repeat(LEAVING, size)).reshape(len(index), -1).any(axis=1)
            w.fail(UnwaitedCopyError, "writes shared memory that an asynchronous copy or product may still be reading", bad)
        if w.watch is not None:
            (w.watch.atomic_shared if strong else w.watch.write_shared)(w, index, size)
        self.add_states(index, size, WRITTEN)


class Local(Bytes):
    """Memory that belongs to each thread alone."""

    def __init__(self, lanes: int, size: int) -> None:
        self.size = size
        self.stride = -(-max(size, 16) // 16) * 16
        super().__init__(lanes * self.stride if size else 16)

    def index(self, w: Wave, address: Any, size: int, verb: str) -> Any:
        check_place(w, address, size, self.size, verb, "local memory")
        return address + np.arange(len(w.thread), dtype=np.int64)[w.at] * self.stride

    def load(self, w: Wave, address: Any, each: int, count: int) -> Any:  # type: ignore[override]
        size = each * count
        index = self.index(w, address, size, "reads")
        if not self.all_have(index, size, WRITTEN, WRITTEN):
            states = self.states(index, size)
            bad = ((states & repeat(WRITTEN, size)) != repeat(WRITTEN, size)).reshape(len(index), -1).any(axis=1)
            w.fail(UnwrittenError, "reads local memory that it has not written", bad)
        return super().load(index, each, count)

    def store(self, w: Wave, address: Any, each: int, count: int, values: Any) -> None:  # type: ignore[override]
        size = each * count
        index = self.index(w, address, size, "writes")
        self.add_states(index, size, WRITTEN)
        super().store(index, each, count, values)


