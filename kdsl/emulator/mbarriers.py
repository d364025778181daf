"""mbarriers: barriers in shared memory that count arrivals and bytes, and whose waiting threads know what the others have done.

In:  mbarrier.init, arrive, expect_tx, test_wait, try_wait, and cp.async.mbarrier.arrive.  Out: closures.
A phase ends when all arrivals have come and all expected bytes have landed. Copies land as late as the program allows: when
somebody waits for the phase that they belong to. A wait never spins here: its threads stand still until the phase has ended.
Read before: copies.py, races.py. Read next: bulk.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsl.emulator.copies import ASYNC, land
from kdsl.emulator.instructions import Built, builds, unknown
from kdsl.emulator.matrix import shared_address
from kdsl.emulator.memory import WRITTEN, check_place
from kdsl.emulator.mistakes import AT_EVENT, RUNNING
from kdsl.emulator.parse import Instruction
from kdsl.emulator.wave import STOP, Wave
from kdsl.errors import BarrierError, RaceError, UnwrittenError

if TYPE_CHECKING:
    from kdsl.emulator.kernel import Kernel


@dataclass
class MBarrier:
    """One mbarrier of one block."""

    count: int  # arrivals of each phase
    pending: int
    made: tuple[int, int] = (0, 0)  # the thread that initialised it, and when
    phase: int = 0  # how many phases have ended
    bytes: int = 0  # expected and not landed
    coming: list[Callable[[Wave], None]] = field(default_factory=list)  # what will land, and then arrive
    told: Any = None  # what the arrivals of this phase had done (races.py)
    kept: Any = None  # the same of the phase that ended last


def find(w: Wave, block: int, address: int, lanes: Any) -> MBarrier:
    """The mbarrier at an address of a block's shared memory, as these threads may use it."""
    found: MBarrier | None = w.mbarriers.get((block, address))
    if found is None:
        w.fail(UnwrittenError, f"uses an mbarrier at {address} of shared memory, which nobody has initialised", None)
    if w.watch is not None:
        maker, time = found.made
        late = (w.watch.known[block, w.warp[lanes], maker >> 5] <= time) & (w.thread[lanes] != maker)
        if late.any():
            bad = np.isin(w.lanes[w.at], lanes[late])
            w.fail(RaceError, f"uses an mbarrier that thread {maker} initialised, and no barrier lies between", bad)
    return found


def each(w: Wave, address: Any) -> list[tuple[int, int, Any]]:
    """(block, address, threads) for every mbarrier that the running threads name."""
    address = shared_address(w, np.broadcast_to(address, (w.n,)))
    check_place(w, np.ascontiguousarray(address), 8, w.shared.size, "uses an mbarrier of", "shared memory")
    lanes = w.lanes[w.at]
    blocks = w.block[lanes]
    out = []
    for block in np.unique(blocks):
        for a in np.unique(address[blocks == block]):
            out.append((int(block), int(a), lanes[(blocks == block) & (address == a)]))
    return out


def tell(w: Wave, barrier: MBarrier, block: int, lanes: Any) -> None:
    """What these threads have done is known to whoever waits for the phase."""
    if w.watch is not None:
        told = w.watch.release(block, np.unique(w.warp[lanes]))
        barrier.told = told if barrier.told is None else np.maximum(barrier.told, told)


def advance(w: Wave, barrier: MBarrier, block: int) -> None:
    """End the phase if nothing is missing, and let those go on who wait."""
    if barrier.pending == 0 and barrier.bytes == 0:
        barrier.phase += 1
        barrier.pending = barrier.count
        barrier.kept, barrier.told = barrier.told, None
        look_again(w, block)


def look_again(w: Wave, block: int) -> None:
    """Let those go on who wait for an mbarrier of the block: they look whether their phase has ended."""
    waiting = (w.status == AT_EVENT) & (w.block == block)
    w.status[waiting] = RUNNING


def expect(w: Wave, barrier: MBarrier, block: int, landing: Callable[[Wave], None]) -> None:
    """Something is under way, and lands when somebody waits for it."""
    barrier.coming.append(landing)
    look_again(w, block)


def arrive(w: Wave, barrier: MBarrier, block: int, count: int) -> None:
    """Some arrivals have come."""
    if barrier.pending < count:
        w.fail(BarrierError, f"arrives at an mbarrier that waits for {barrier.pending} more only", None)
    barrier.pending -= count
    advance(w, barrier, block)


@builds("mbarrier")
def _mbarrier(ins: Instruction, kernel: Kernel) -> Built:
    builder = {"init": _init, "inval": _forget, "arrive": _arrive, "expect_tx": _expect}.get(ins.op[1])
    if ins.op[1] in ("test_wait", "try_wait"):
        builder = _wait
    if builder is None or "noComplete" in ins.op:
        raise unknown(ins)
    return builder(ins, kernel)


def _init(ins: Instruction, kernel: Kernel) -> Built:
    address, count = kernel.names.address(ins.operands[0]), kernel.names.read(ins.operands[1], "u32")

    def run(w: Wave) -> None:
        for block, a, lanes in each(w, address(w)):
            n = int(np.broadcast_to(count(w), (w.n,))[0])
            time = 0 if w.watch is None else int(w.watch.known[block, w.warp[lanes[0]], w.warp[lanes[0]]])
            w.mbarriers[block, a] = MBarrier(n, n, (int(w.thread[lanes[0]]), time))
            w.shared.add_states(np.array([block * w.shared.stride + a]), 8, WRITTEN)

    return run


def _forget(ins: Instruction, kernel: Kernel) -> Built:
    address = kernel.names.address(ins.operands[0])

    def run(w: Wave) -> None:
        for block, a, _ in each(w, address(w)):
            w.mbarriers.pop((block, a), None)

    return run


def _arrive(ins: Instruction, kernel: Kernel) -> Built:
    names, operands = kernel.names, list(ins.operands)
    write = names.write(operands.pop(0), "b64") if not operands[0].startswith("[") else None
    address = names.address(operands[0])
    number = names.read(operands[1], "u32") if len(operands) > 1 else None
    expects = "expect_tx" in ins.op

    def run(w: Wave) -> None:
        numbers = np.broadcast_to(1 if number is None else number(w), (w.n,)).astype(np.int64)
        place = np.empty(len(w.lanes), np.int64)
        place[w.at] = numbers
        for block, a, lanes in each(w, address(w)):
            barrier = find(w, block, a, lanes)
            if write is not None:
                at, n = w.at, w.n
                w.at, w.n = lanes, len(lanes)
                write(w, np.uint64(barrier.phase))
                w.at, w.n = at, n
            if expects:
                barrier.bytes += int(place[lanes].sum())
            tell(w, barrier, block, lanes)
            arrive(w, barrier, block, len(lanes) if expects else int(place[lanes].sum()))

    return run


def _expect(ins: Instruction, kernel: Kernel) -> Built:
    address, number = kernel.names.address(ins.operands[0]), kernel.names.read(ins.operands[1], "u32")

    def run(w: Wave) -> None:
        place = np.empty(len(w.lanes), np.int64)
        place[w.at] = number(w)
        for block, a, lanes in each(w, address(w)):
            find(w, block, a, lanes).bytes += int(place[lanes].sum())

    return run


def _wait(ins: Instruction, kernel: Kernel) -> Built:
    names = kernel.names
    write = names.write(ins.operands[0], "pred")
    address = names.address(ins.operands[1])
    parity = "parity" in ins.op
    phase = names.read(ins.operands[2], "u32" if parity else "u64")

    def run(w: Wave) -> None:
        wanted = np.empty(len(w.lanes), np.int64)
        wanted[w.at] = phase(w)
        all_lanes = w.lanes[w.at]
        done = np.zeros(len(w.lanes), bool)
        for block, a, lanes in each(w, address(w)):
            barrier = find(w, block, a, lanes)

            def ended(b: MBarrier = barrier, want: Any = wanted[lanes]) -> Any:
                return (b.phase & 1) != (want & 1) if parity else b.phase > want

            if not ended().all():
                coming, barrier.coming = barrier.coming, []
                for landing in coming:
                    landing(w)
            mine = ended()
            done[lanes] = mine
            if w.watch is not None and barrier.kept is not None and mine.any():
                w.watch.acquire(block, np.unique(w.warp[lanes[mine]]), barrier.kept)
        ready = all_lanes[done[all_lanes]]
        at, n = w.at, w.n
        w.at, w.n = ready, len(ready)
        write(w, np.True_)
        if len(ready) < len(all_lanes):
            w.wake(ready, w.here + 1)
            w.at = all_lanes[~done[all_lanes]]
            w.wait(AT_EVENT)
        w.at, w.n = at, n

    return STOP, run


def _copies_arrive(ins: Instruction, kernel: Kernel) -> Built:
    """cp.async.mbarrier.arrive: the thread's copies so far land, then it has arrived."""
    address = kernel.names.address(ins.operands[0])
    counted = "noinc" in ins.op

    def run(w: Wave) -> None:
        for block, a, lanes in each(w, address(w)):
            barrier = find(w, block, a, lanes)
            if not counted:
                barrier.pending += len(lanes)

            def landing(w: Wave, b: MBarrier = barrier, lanes: Any = lanes, block: int = block) -> None:
                at, n = w.at, w.n
                w.at, w.n = lanes, len(lanes)
                land(w, 0, everything=True)
                tell(w, b, block, lanes)
                arrive(w, b, block, len(lanes))
                w.at, w.n = at, n

            expect(w, barrier, block, landing)

    return run


ASYNC["mbarrier"] = _copies_arrive
