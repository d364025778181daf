"""cp.async: copies from global to shared memory that land when they have been waited for.

In:  cp.async, commit_group, wait_group, wait_all, cp.async.mbarrier.arrive.  Out: closures.
Groups belong to each thread. Bytes land as late as the program allows: at the wait; until then they are marked as in flight, and
whoever reads or writes them is told. Read before: memory.py, access.py. Read next: transactions.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsl.emulator.access import for_some
from kdsl.emulator.instructions import Built, builds, unknown
from kdsl.emulator.matrix import shared_address
from kdsl.emulator.memory import FLIGHT, WRITTEN
from kdsl.emulator.parse import Instruction
from kdsl.emulator.wave import Wave

if TYPE_CHECKING:
    from kdsl.emulator.kernel import Kernel


@dataclass
class Copy:
    """What one cp.async of some threads will bring."""

    lanes: Any
    group: Any  # of each thread
    where: Any  # in shared memory
    data: Any  # [thread, bytes]
    size: int


ASYNC: dict[str, Any] = {}  # the rest of the cp family, by its third word: see transactions.py


@builds("cp")
def _copy(ins: Instruction, kernel: Kernel) -> Built:
    op = ins.op
    if op[1] != "async" or "reduce" in op:
        raise unknown(ins)
    if op[2] in ASYNC:
        built: Built = ASYNC[op[2]](ins, kernel)
        return built
    if op[2] == "commit_group":
        return _commit
    if op[2] == "wait_group":
        left = int(ins.operands[0], 0)
        return lambda w: land(w, left)
    if op[2] == "wait_all":
        return lambda w: land(w, 0, everything=True)
    names = kernel.names
    to, source = names.address(ins.operands[0]), names.address(ins.operands[1])
    size = int(ins.operands[2], 0)
    if size not in (4, 8, 16):
        raise unknown(ins)
    taken = names.read(ins.operands[3], "u32") if len(ins.operands) > 3 else None

    def run(w: Wave) -> None:
        where = w.shared.index(w, shared_address(w, to(w)), size, "copies")
        address = source(w)
        data = np.zeros((w.n, size), np.uint8)
        count = np.full(w.n, size) if taken is None else np.broadcast_to(taken(w), (w.n,))
        whole = count == size
        if whole.all():
            data[:] = read_bytes(w, address, size)
        else:
            if whole.any():
                with for_some(w, whole):
                    data[whole] = read_bytes(w, address[whole], size)
            for i in np.flatnonzero(~whole & (count > 0)):
                n = int(count[i])
                with for_some(w, np.arange(w.n) == i):
                    parts = [w.memory.load(w, address[i : i + 1] + j, 1, 1) for j in range(n)]
                data[i, :n] = np.concatenate(parts)
        w.shared.check_write(w, where, size)
        w.shared.add_states(where, size, FLIGHT)
        w.copies.append(Copy(w.lanes[w.at], w.committed[w.at].copy(), where, data, size))

    return run


def read_bytes(w: Wave, address: Any, size: int) -> Any:
    """Rows of bytes of global memory."""
    each = min(size, 8)
    words = w.memory.load(w, address, each, size // each)
    return np.ascontiguousarray(words).view(np.uint8).reshape(-1, size)


def _commit(w: Wave) -> None:
    w.committed[w.at] += 1


def land(w: Wave, left: int, everything: bool = False) -> None:
    """All but the last `left` groups of the running threads have arrived."""
    if not w.copies:
        return
    here = np.zeros(len(w.lanes), bool)
    here[w.at] = True
    done = w.committed - left
    kept = []
    for copy in w.copies:
        ready = here[copy.lanes]
        if not everything:
            ready = ready & (copy.group < done[copy.lanes])
        if ready.any():
            arrive(w, copy, ready)
        if not ready.all():
            rest = ~ready
            kept.append(Copy(copy.lanes[rest], copy.group[rest], copy.where[rest], copy.data[rest], copy.size))
    w.copies = kept


def arrive(w: Wave, copy: Copy, ready: Any) -> None:
    """Bytes land: from now on they count as written by the thread that asked for them."""
    where = copy.where[ready]
    at, n = w.at, w.n
    w.at = copy.lanes[ready]
    w.n = len(w.at)
    w.shared.take_states(where, copy.size, FLIGHT)
    if w.watch is not None:
        w.watch.write_shared(w, where, copy.size, "lands a copy in")
    w.shared.add_states(where, copy.size, WRITTEN)
    w.shared.view("data", 1, copy.size)[where // copy.size] = copy.data[ready]
    w.at, w.n = at, n
