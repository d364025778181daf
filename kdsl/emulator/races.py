"""Who touched which byte, and what is ordered before what: races in shared and global memory.

In:  every access of a wave, and its barriers.  Out: RaceError at the second of two accesses that nothing orders.
Each warp has a clock. A barrier tells every warp that takes part how far the others had come; `known[b, w, v]` is the time up to
which warp w of block b has heard of warp v. An access at time t by v is ordered before what w does now if known[b, w, v] > t.
The unit is a granule: the smallest access of the kernel. Read before: memory.py. Read next: wave.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kdsl.errors import RaceError

if TYPE_CHECKING:
    from kdsl.emulator.wave import Wave

NOBODY = -(1 << 30)  # no reader


class Watch:
    """The clocks of the warps of a wave, and the last readers and writers of its memory."""

    def __init__(self, blocks: int, warps: int, shared_bytes: int, granule: int) -> None:
        self.warps = warps
        self.known = np.ones((blocks, warps, warps), np.int32)  # time 0: before the launch
        self.granule = granule
        cells = shared_bytes // granule
        self.writer, self.write_time = np.zeros(cells, np.int32), np.zeros(cells, np.int32)
        self.atomic = np.zeros(cells, bool)  # whether the last write was an atomic update
        self.reader = np.full(cells, NOBODY, np.int32)  # a thread; -1 - warp: several threads of that warp
        self.read_time = np.zeros((cells, warps), np.int32)

    # --- time --------------------------------------------------------------------------------------------------------------
    def own(self, w: Wave) -> Any:
        """The time of each running thread's warp."""
        return self.known.reshape(-1)[w.clock_base[w.at] + w.warp[w.at]]

    def join(self, block: int, warps: Any) -> None:
        """These warps of a block have met at a barrier."""
        mine = self.known[block, warps]
        heard = mine.max(axis=0)
        heard[warps] = mine[np.arange(len(warps)), warps] + 1
        self.known[block, warps] = heard

    def join_all(self) -> None:
        """All warps of every block of the wave have met at a barrier."""
        times = np.einsum("bww->bw", self.known) + 1
        self.known[:] = np.maximum(self.known.max(axis=1), times)[:, None, :]

    def step(self, block: Any, warp: Any) -> None:
        """The threads of these warps have met, each warp for itself."""
        self.known[block, warp, warp] += 1

    def release(self, block: int, warps: Any) -> Any:
        """What these warps have done up to now, for others to acquire; what they do next comes later."""
        told = self.known[block, warps].max(axis=0)
        told[warps] = np.maximum(told[warps], self.known[block, warps, warps] + 1)
        self.known[block, warps, warps] += 1
        return told

    def acquire(self, block: int, warps: Any, told: Any) -> None:
        """These warps now know what was released; their own time does not change by it."""
        own = self.known[block, warps, warps].copy()
        self.known[block, warps] = np.maximum(self.known[block, warps], told)
        self.known[block, warps, warps] = own

    # --- shared memory -----------------------------------------------------------------------------------------------------
    def _cells(self, index: Any, size: int) -> list[Any]:
        first = index // self.granule
        return [first + i for i in range(max(1, size // self.granule))]

    def _written_since(self, w: Wave, cell: Any, me: Any, base: Any) -> Any:
        """Whether another thread wrote a cell and this one has not heard of it."""
        writer = self.writer[cell]
        heard = self.known.reshape(-1)[base + (writer >> 5)]
        return (heard <= self.write_time[cell]) & (writer != me)

    def read_shared(self, w: Wave, index: Any, size: int, strong: bool = False, together: bool = False) -> None:
        me, base, warp = w.thread[w.at], w.clock_base[w.at], w.warp[w.at]
        if together:
            me = -1 - warp
        own = self.known.reshape(-1)[base + warp]
        for cell in self._cells(index, size):
            bad = self._written_since(w, cell, me, base)
            if strong:
                bad &= ~self.atomic[cell]
            if bad.any():
                self._fail(w, "reads", "wrote", bad, self.writer[cell])
            if strong:
                continue
            flat = cell * self.warps + warp
            before = self.reader[cell]
            several = (self.read_time.reshape(-1)[flat] == own) & (before != me) & (before >> 5 == warp)
            several |= before == -1 - warp
            self.read_time.reshape(-1)[flat] = own
            self.reader[cell] = me
            several |= self.reader[cell] != me
            if several.any():
                self.reader[cell[several]] = -1 - warp[several]

    def write_shared(self, w: Wave, index: Any, size: int, what: str = "writes") -> None:
        me, base, warp = w.thread[w.at], w.clock_base[w.at], w.warp[w.at]
        own = self.known.reshape(-1)[base + warp]
        heard = self.known.reshape(-1, self.warps)[base // self.warps]
        for cell in self._cells(index, size):
            bad = self._written_since(w, cell, me, base)
            if bad.any():
                self._fail(w, what, "wrote", bad, self.writer[cell])
            late = (self.read_time[cell] >= heard) & (self.read_time[cell] > 0)
            if late.any():
                rows = np.arange(len(warp))
                reader = self.reader[cell]
                elsewhere = (reader >= 0) & (reader >> 5 != warp)
                late[rows, warp] &= (reader != me) & ~elsewhere & (reader != NOBODY)
                bad = late.any(axis=1)
                if bad.any():
                    guess = np.where(reader >= 0, reader, late.argmax(axis=1) * 32)
                    self._fail(w, what, "read", bad, guess)
            self.writer[cell], self.atomic[cell] = me, False
            twice = self.writer[cell] != me
            if twice.any():
                self._fail(w, what, "writes in the same instruction", twice, self.writer[cell])
            self.write_time[cell] = own

    def atomic_shared(self, w: Wave, index: Any, size: int) -> None:
        """An update: others' updates need no order, others' plain accesses do."""
        me, base, warp = w.thread[w.at], w.clock_base[w.at], w.warp[w.at]
        own = self.known.reshape(-1)[base + warp]
        heard = self.known.reshape(-1, self.warps)[base // self.warps]
        for cell in self._cells(index, size):
            bad = self._written_since(w, cell, me, base) & ~self.atomic[cell]
            if bad.any():
                self._fail(w, "updates", "wrote", bad, self.writer[cell])
            late = (self.read_time[cell] >= heard) & (self.read_time[cell] > 0)
            late[np.arange(len(warp)), warp] = False
            if late.any():
                self._fail(w, "updates", "read", late.any(axis=1), late.argmax(axis=1) * 32)
            self.writer[cell], self.write_time[cell], self.atomic[cell] = me, own, True

    def _fail(self, w: Wave, verb: str, did: str, bad: Any, other: Any) -> None:
        first = int(np.flatnonzero(bad)[0])
        thread = int(other[first])
        mine = int(w.thread[w.at][first])
        name = f"thread {thread}" if thread != mine else f"another thread of warp {thread // 32}"
        since = "" if "same" in did else ", and no barrier lies between"
        w.fail(
            RaceError,
            f"{verb} shared memory that {name} of the same block {did}{since}",
            bad,
            hint="a barrier (syncthreads) must stand between the two" if since else "let one of the threads write",
        )

    # --- global memory -----------------------------------------------------------------------------------------------------
    def read_global(self, w: Wave, index: Any, size: int, strong: bool) -> None:
        assert w.grid is not None
        w.grid.read(w, self, index, size, strong)

    def write_global(self, w: Wave, index: Any, size: int, strong: bool) -> None:
        assert w.grid is not None
        w.grid.write(w, self, index, size, strong)


SEVERAL = -2  # readers of more than one thread: the block is kept, or that there were several blocks


class GridWatch:
    """The last writer and reader of every granule of global memory in one launch; blocks are never ordered."""

    def __init__(self, size: int, granule: int) -> None:
        self.granule = granule
        cells = -(-size // granule)
        self.writer, self.write_time = np.zeros(cells, np.int32), np.zeros(cells, np.int32)  # thread + 1, 0 nobody
        self.atomic = np.zeros(cells, bool)  # whether the last write was an atomic update
        self.reader, self.read_time = np.zeros(cells, np.int32), np.zeros(cells, np.int32)

    def _cells(self, index: Any, size: int) -> list[Any]:
        first = index // self.granule
        return [first + i for i in range(max(1, size // self.granule))]

    def _unordered(self, w: Wave, watch: Watch, who: Any, when: Any, me: Any) -> Any:
        """Whether the thread `who` (number + 1) is another one, whose access at `when` is not ordered before now."""
        other = (who > 0) & (who != me)
        if not other.any():
            return other
        padded = w.padded
        same_block = (who - 1) // padded == (me - 1) // padded
        base = w.clock_base[w.at]
        warp = np.where(same_block, (who - 1) % padded >> 5, 0)
        heard = watch.known.reshape(-1)[base + warp]
        return other & (~same_block | (heard <= when))

    def read(self, w: Wave, watch: Watch, index: Any, size: int, strong: bool) -> None:
        me = w.number[w.at]
        own = watch.own(w)
        for cell in self._cells(index, size):
            self._follows_writer(w, watch, cell, me, "reads", strong)
            if strong:
                continue
            before = self.reader[cell]
            block = (me - 1) // w.padded
            others = (before != 0) & (before != me)
            self.reader[cell] = me
            others |= self.reader[cell] != me
            if others.any():
                same = np.where(before > 0, (before - 1) // w.padded == block, (before == 0) | (before == SEVERAL - 1 - block))
                mark = np.where(same, SEVERAL - 1 - block, SEVERAL)
                winner = self.reader[cell]
                crossing = (winner > 0) & ((winner - 1) // w.padded != block)
                self.reader[cell[others]] = mark[others]
                self.reader[cell[others & crossing]] = SEVERAL
            self.read_time[cell] = own

    def write(self, w: Wave, watch: Watch, index: Any, size: int, atomic: bool) -> None:
        me = w.number[w.at]
        own = watch.own(w)
        for cell in self._cells(index, size):
            self._follows_writer(w, watch, cell, me, "writes", atomic)
            reader = self.reader[cell]
            if reader.any():
                bad = self._unordered(w, watch, reader, self.read_time[cell], me)
                block = (me - 1) // w.padded
                several = reader == SEVERAL - 1 - block
                heard = watch.known.reshape(-1, watch.warps)[w.clock_base[w.at] // watch.warps].min(axis=1)
                bad |= (reader == SEVERAL) | ((reader < SEVERAL) & ~several) | (several & (heard <= self.read_time[cell]))
                if bad.any():
                    self._fail(w, "writes", "read", bad, reader)
            self.writer[cell], self.atomic[cell] = me, atomic
            twice = self.writer[cell] != me
            if twice.any() and not atomic:
                self._fail(w, "writes", "writes in the same instruction", twice, self.writer[cell])
            self.write_time[cell] = own

    def _follows_writer(self, w: Wave, watch: Watch, cell: Any, me: Any, verb: str, atomic: bool) -> None:
        """Fail unless what wrote the cell is ordered before, or both are atomic."""
        who = self.writer[cell]
        if who.any():
            bad = self._unordered(w, watch, who, self.write_time[cell], me)
            if atomic:
                bad &= ~self.atomic[cell]
            if bad.any():
                self._fail(w, verb, "wrote", bad, who)

    def _fail(self, w: Wave, verb: str, did: str, bad: Any, who: Any) -> None:
        number = int(who[int(np.flatnonzero(bad)[0])]) - 1
        if number >= 0:
            other = f"thread {number % w.padded} of block {number // w.padded}"
        else:
            other = "other threads"
        w.fail(
            RaceError,
            f"{verb} global memory that {other} {did}, and nothing orders the two",
            bad,
            hint="blocks are not ordered: let each byte be written by one block, or use two launches",
        )
