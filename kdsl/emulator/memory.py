"""Memory with a state for every byte: whether it is room, has been written, or is still being filled.

In:  addresses of the running threads.  Out: values, or the error that the access is: outside, misaligned, unwritten.
GlobalMemory holds buffers with gaps between them.
Read before: registers.py. Read next: near.py, then races.py, which knows who touched which byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsl.emulator.registers import UNSIGNED
from kdsl.errors import MisalignedError, OutOfBoundsError, RaceError, UnwrittenError

if TYPE_CHECKING:
    from kdsl.emulator.wave import Wave

ROOM, WRITTEN, FLIGHT, CONSTANT, FRESH, LEAVING = 1, 2, 4, 8, 16, 32  # bits of a byte's state
READY = ROOM | WRITTEN
PLAIN, CONSTANT_READ, STRONG = "plain", "constant", "strong"  # ld, ld.global.nc, and volatile, relaxed or acquire


class Bytes:
    """Bytes and their states, seen as elements of any width."""

    def __init__(self, size: int) -> None:
        self.data = self.state = np.zeros(0, np.uint8)
        self.grow(size)

    def grow(self, size: int) -> None:
        """At least `size` bytes; what is there stays."""
        size = -(-max(size, 16) // 16) * 16
        data, state = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
        data[: len(self.data)], state[: len(self.state)] = self.data, self.state
        self.data, self.state = data, state
        self.views: dict[tuple[str, int, int], Any] = {}

    def view(self, which: str, each: int, count: int) -> Any:
        """Data or state as rows of `count` elements of `each` bytes; one column only is a plain array."""
        key = which, each, count
        if key not in self.views:
            array = (self.data if which == "data" else self.state).view(UNSIGNED[each])
            self.views[key] = array.reshape(-1, count) if count > 1 else array
        return self.views[key]

    def states(self, index: Any, size: int) -> Any:
        """The states of all bytes of each access, as one or two words."""
        return self.view("state", min(size, 8), max(1, size // 8))[index // size]

    def all_have(self, index: Any, size: int, bits: int, of: int) -> bool:
        """Whether state & of == bits for every byte."""
        states = self.states(index, size)
        return bool(((states & repeat(of, size)) == repeat(bits, size)).all())

    def add_states(self, index: Any, size: int, bits: int) -> None:
        view = self.view("state", min(size, 8), max(1, size // 8))
        at = index // size
        view[at] |= repeat(bits, size)

    def take_states(self, index: Any, size: int, bits: int) -> None:
        view = self.view("state", min(size, 8), max(1, size // 8))
        at = index // size
        view[at] &= ~repeat(bits, size)

    def load(self, index: Any, each: int, count: int) -> Any:
        return self.view("data", each, count)[index // (each * count)]

    def store(self, index: Any, each: int, count: int, values: Any) -> None:
        self.view("data", each, count)[index // (each * count)] = values


_REPEAT = {n: int.from_bytes(bytes([1] * n), "little") for n in (1, 2, 4, 8)}


def repeat(bits: int, size: int) -> Any:
    """A word whose bytes are all `bits`."""
    width = min(size, 8)
    return UNSIGNED[width](bits * _REPEAT[width])


def check_place(w: Wave, index: Any, size: int, limit: int, verb: str, what: str) -> None:
    """Raise unless every access lies below the limit and is a multiple of its size."""
    if index.view(np.uint64).max(initial=0) > max(limit - size, 0) or limit < size:
        bad = (index < 0) | (index > limit - size)
        at = int(index[bad][0])
        w.fail(OutOfBoundsError, f"{verb} {size} bytes at {at}, outside of {what}", bad, f"{what} has {limit} bytes")
    if size > 1 and (index & (size - 1)).any():
        bad = (index & (size - 1)) != 0
        w.fail(
            MisalignedError,
            f"{verb} {size} bytes at an address that is no multiple of {size}",
            bad,
            f"the address is {size} * {int(index[bad][0]) // size} + {int(index[bad][0]) % size}",
        )


@dataclass(frozen=True)
class Buffer:
    """One allocation of global memory."""

    address: int
    size: int
    name: str


class GlobalMemory(Bytes):
    """Buffers with gaps between them. Addresses begin beyond 32 bits, so that one cut short lies outside."""

    BASE = 1 << 36
    GAP = 256

    def __init__(self, size: int = 1 << 16) -> None:
        super().__init__(size)
        self.top = self.GAP
        self.buffers: list[Buffer] = []
        self.tensor_maps: dict[int, Any] = {}  # bulk.py

    def forget(self) -> None:
        """Give up all buffers."""
        self.state[: self.top] = 0
        self.top = self.GAP
        self.buffers = []
        self.tensor_maps = {}

    def room(self, size: int, name: str = "", first: int = 0) -> Buffer:
        """A new buffer that nobody has written; its byte `first` lies at a multiple of the gap."""
        start = self.top + -first % self.GAP
        self.top = -(-(start + size) // self.GAP) * self.GAP + self.GAP
        if self.top > len(self.data):
            self.grow(max(2 * len(self.data), self.top))
        self.state[start : start + size] = ROOM
        self.buffers.append(Buffer(self.BASE + start, size, name or f"buffer {len(self.buffers)}"))
        return self.buffers[-1]

    def put(self, buffer: Buffer, data: Any) -> None:
        """Write a buffer from the host."""
        start = buffer.address - self.BASE
        raw = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        self.data[start : start + len(raw)] = raw
        self.state[start : start + len(raw)] |= WRITTEN

    def put_array(self, array: Any, name: str = "") -> tuple[Buffer, int]:
        """An array with its strides, and the address of its first element; what lies between its elements stays unwritten."""
        steps = [(n - 1) * s for n, s in zip(array.shape, array.strides)] if array.size else []
        first = -sum(s for s in steps if s < 0)
        size = first + sum(s for s in steps if s > 0) + array.itemsize if array.size else 0
        buffer = self.room(size, name, first)
        start = buffer.address - self.BASE + first
        if array.size:
            for bytes_, value in ((self.data, array.view(f"V{array.itemsize}")), (self.state, None)):
                shape, strides = (*array.shape, array.itemsize), (*array.strides, 1)
                place = np.lib.stride_tricks.as_strided(bytes_[start:], shape, strides)
                place[...] = READY if value is None else np.ascontiguousarray(value).view(np.uint8).reshape(shape)
        return buffer, self.BASE + start

    def get(self, buffer: Buffer) -> Any:
        """A buffer's bytes; UnwrittenError if a kernel has left some unwritten."""
        start = buffer.address - self.BASE
        missing = (self.state[start : start + buffer.size] & WRITTEN) == 0
        if missing.any():
            raise UnwrittenError(
                f"{int(missing.sum())} of the {buffer.size} bytes of {buffer.name} were never written",
                facts=f"the first is byte {int(np.argmax(missing))}",
                location=False,
            )
        return self.data[start : start + buffer.size].copy()

    def new_launch(self) -> None:
        """Forget what only matters within one launch."""
        self.state[: self.top] &= READY

    def load(self, w: Wave, address: Any, each: int, count: int, how: str = PLAIN) -> Any:  # type: ignore[override]
        size = each * count
        index = address - self.BASE
        self.check(w, index, size, "reads")
        states = self.states(index, size)
        if not ((states & repeat(READY, size)) == repeat(READY, size)).all():
            self._explain(w, index, size, "reads", True)
        if how == CONSTANT_READ:
            if (states & repeat(FRESH, size)).any():
                bad = (states & repeat(FRESH, size)).reshape(len(index), -1).any(axis=1)
                w.fail(RaceError, "reads as constant (ld.global.nc) what this launch has written", bad)
            self.add_states(index, size, CONSTANT)
        elif w.watch is not None:
            w.watch.read_global(w, index, size, how == STRONG)
        return super().load(index, each, count)

    def store(  # type: ignore[override]
        self, w: Wave, address: Any, each: int, count: int, values: Any, how: str = PLAIN
    ) -> None:
        size = each * count
        index = address - self.BASE
        self.check(w, index, size, "writes")
        states = self.states(index, size)
        if not ((states & repeat(ROOM, size)) == repeat(ROOM, size)).all():
            self._explain(w, index, size, "writes", False)
        if (states & repeat(CONSTANT, size)).any():
            bad = (states & repeat(CONSTANT, size)).reshape(len(index), -1).any(axis=1)
            w.fail(RaceError, "writes what this launch has read as constant (ld.global.nc)", bad)
        if w.watch is not None:
            w.watch.write_global(w, index, size, how == STRONG)
        self.add_states(index, size, WRITTEN | FRESH)
        super().store(index, each, count, values)

    def check_atomic(self, w: Wave, address: Any, size: int) -> Any:
        """Places of an atomic update, after all checks."""
        index = address - self.BASE
        self.check(w, index, size, "updates")
        if not self.all_have(index, size, READY, READY):
            self._explain(w, index, size, "updates", True)
        if w.grid is not None and w.watch is not None:
            w.watch.write_global(w, index, size, True)
        self.add_states(index, size, FRESH)
        return index

    def check(self, w: Wave, index: Any, size: int, verb: str) -> None:
        if index.view(np.uint64).max(initial=0) > self.top - size:
            self._explain(w, index, size, verb, False)
        if size > 1 and (index & (size - 1)).any():
            check_place(w, index, size, self.top, verb, "global memory")
        if w.counters is not None:
            w.counters.global_(w.lanes[w.at] >> 5, index, size)

    def _explain(self, w: Wave, index: Any, size: int, verb: str, reading: bool) -> None:
        for i, start in enumerate(index):
            start = int(start)
            inside = 0 <= start <= self.top - size
            states = self.state[start : start + size] if inside else np.zeros(1, np.uint8)
            only = np.zeros(len(index), bool)
            only[i] = True
            if not (states & ROOM).all():
                w.fail(OutOfBoundsError, f"{verb} {size} bytes outside of every buffer", only, self._nearest(start + self.BASE))
            if reading and not (states & WRITTEN).all():
                w.fail(UnwrittenError, f"{verb} memory that nobody has written", only, self._nearest(start + self.BASE))

    def _nearest(self, address: int) -> str:
        """Where an address lies, in words."""
        best = min(self.buffers, key=lambda b: max(b.address - address, address - b.address - b.size, 0), default=None)
        if best is None or abs(address - best.address) > 1 << 30:
            return f"the address {address:#x} is far from every buffer"
        offset = address - best.address
        if 0 <= offset < best.size:
            return f"it is byte {offset} of {best.name} ({best.size} bytes)"
        side = f"{offset - best.size} bytes after the end" if offset >= 0 else f"{-offset} bytes before the beginning"
        return f"the address is {side} of {best.name} ({best.size} bytes)"
