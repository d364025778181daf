"""Barriers: threads wait until the others of their block or warp have come, and then know what those have done.

In:  bar.sync, bar.arrive, bar.red, barrier.sync, barrier.cta.sync, bar.warp.sync.  Out: closures that stop their threads.
Each barrier of a block has a number and counts its arrivals; all of the block unless the instruction says how many.
Read before: wave.py, races.py. Read next: atomics.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsl.emulator.instructions import Built, builds, unknown
from kdsl.emulator.mistakes import AT_BARRIER
from kdsl.emulator.parse import Instruction
from kdsl.emulator.warps import members
from kdsl.emulator.wave import EVERYONE, STOP, STOP_WARPS, WARP, Wave

if TYPE_CHECKING:
    from kdsl.emulator.kernel import Kernel

@dataclass
class Arrivals:
    """Who has come to one barrier of one block."""

    waiting: list[Any] = field(default_factory=list)  # threads of the wave
    warps: list[Any] = field(default_factory=list)
    count: int = 0  # threads that have arrived, whole warps
    values: list[Any] = field(default_factory=list)  # predicates of bar.red


@builds("bar", "barrier")
def _barrier(ins: Instruction, kernel: Kernel) -> Built:
    op = [p for p in ins.op if p != "cta"]
    names = kernel.names
    if op[1] == "warp":
        return WARP, _warp_barrier, members(ins, kernel, ins.operands[0])
    if op[1] not in ("sync", "arrive", "red"):
        raise unknown(ins)
    operands = list(ins.operands)
    write = predicate = None
    if op[1] == "red":
        counts = "popc" in op
        write = names.write(operands.pop(0), "u32" if counts else "pred")
        predicate = names.predicate(operands.pop())
        function = "popc" if counts else "and" if "and" in op else "or"
    number = names.read(operands[0], "u32")
    limit = names.read(operands[1], "u32") if len(operands) > 1 else None
    arrives = op[1] == "arrive"

    def run(w: Wave) -> None:
        numbers = np.asarray(number(w))
        if w.at is EVERYONE and limit is None and not arrives and not w.barriers:
            if write is not None and predicate is not None:
                flags = np.broadcast_to(predicate(w), (w.n,)).reshape(w.blocks, w.padded)
                write(w, np.repeat(_reduced(flags, function), w.padded))
            if w.watch is not None:
                w.watch.join_all()
            return
        lanes = w.lanes[w.at]
        blocks = w.block[lanes]
        numbers = np.broadcast_to(numbers, lanes.shape)
        limits = np.broadcast_to(limit(w), lanes.shape) if limit is not None else None
        values = np.broadcast_to(predicate(w), lanes.shape) if predicate is not None else None
        if not arrives:
            w.wait(AT_BARRIER)
        for block in np.unique(blocks):
            for n in np.unique(numbers[blocks == block]):
                mine = (blocks == block) & (numbers == n)
                here = w.barriers.setdefault((int(block), int(n)), Arrivals())
                warps = np.unique(w.warp[lanes[mine]])
                here.warps.append(warps)
                whole = w.padded - w.threads if w.warps - 1 in warps else 0
                here.count += int(mine.sum()) + (whole if w.threads % 32 else 0)
                if not arrives:
                    here.waiting.append(lanes[mine])
                if values is not None:
                    here.values.append(values[mine])
                needed = w.padded if limits is None else int(limits[mine][0])
                if here.count >= needed:
                    _open(w, int(block), int(n), here, write)

    def _open(w: Wave, block: int, n: int, here: Arrivals, write: Any) -> None:
        """Everybody has come: all go on."""
        del w.barriers[block, n]
        waiting = np.concatenate(here.waiting) if here.waiting else np.zeros(0, np.int64)
        if w.watch is not None:
            w.watch.join(block, np.unique(np.concatenate(here.warps)))
        if write is not None:
            at, count = w.at, w.n
            w.at, w.n = waiting, len(waiting)
            write(w, _reduced(np.concatenate(here.values)[None], function)[0])
            w.at, w.n = at, count
        for p in np.unique(w.pc[waiting]):
            w.wake(waiting[w.pc[waiting] == p], p + 1)

    aligned = ins.op[0] == "bar" or "aligned" in ins.op
    return STOP_WARPS if aligned else STOP, run


def _reduced(flags: Any, function: str) -> Any:
    if function == "popc":
        return flags.sum(axis=1).astype(np.uint32)
    return flags.all(axis=1) if function == "and" else flags.any(axis=1)


def _warp_barrier(w: Wave) -> None:
    if w.watch is not None:
        lanes = w.lanes[w.at]
        first = lanes[np.flatnonzero(np.diff(lanes >> 5, prepend=-1))]
        w.watch.step(w.block[first], w.warp[first])
