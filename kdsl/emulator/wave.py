"""Running: all threads of some blocks at once, those at the lowest instruction first.

In:  a compiled kernel and the numbers of the blocks.  Out: changed memory, or the first mistake that was found.
A group of threads at one instruction runs until it branches apart, meets others, or must wait: at a barrier for its block, at a
convergent instruction for its warp, at an mbarrier for a copy. If everybody waits, a GPU would hang, and that is an error.
Read before: memory.py, races.py. Read next: instructions.py, arithmetic.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from kdsl.emulator.memory import GlobalMemory
from kdsl.emulator.mistakes import AT_WARP, ENDED, RUNNING, fail, stuck
from kdsl.emulator.near import Local, Shared
from kdsl.emulator.races import GridWatch, Watch
from kdsl.errors import DivergenceError, EmulatorError, UnwaitedCopyError

if TYPE_CHECKING:
    from kdsl.emulator.counters import Counters
    from kdsl.emulator.kernel import Kernel

PLAIN, BRANCH, WARP, STOP, STOP_WARPS = range(5)  # kinds of instructions: see instructions.py
EVERYONE = slice(None)
FAR = 1 << 30


@dataclass(frozen=True)
class Launch:
    """What all blocks of a launch share."""

    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_bytes: int  # dynamic
    parameters: bytes
    check: bool
    counters: Counters | None
    patience: int  # instructions that a wave may run before it counts as endless


class Wave:
    """Some blocks of a launch, running together. `at` picks the running threads out of all, `n` is their number."""

    def __init__(self, kernel: Kernel, launch: Launch, first: int, blocks: int, memory: GlobalMemory, grid: GridWatch | None):
        self.kernel, self.launch, self.memory, self.grid = kernel, launch, memory, grid
        self.blocks, self.first = blocks, first
        x, y, z = launch.block
        self.threads = x * y * z
        self.padded = -(-self.threads // 32) * 32
        self.warps = self.padded // 32
        lanes = blocks * self.padded
        self.block, self.thread = (a.astype(np.int32) for a in np.divmod(np.arange(lanes), self.padded))
        self.warp = self.thread >> 5
        self.number = ((first + self.block) * self.padded + self.thread + 1).astype(np.int32)
        self.clock_base = (self.block * self.warps + self.warp) * self.warps
        bytes_ = kernel.dynamic_start + launch.shared_bytes
        self.shared = Shared(blocks, bytes_)
        self.shared_base = self.block.astype(np.int64) * self.shared.stride
        self.local = Local(lanes, kernel.local_bytes)
        self.counters = launch.counters
        self.watch = None
        if launch.check:
            self.watch = Watch(blocks, self.warps, len(self.shared.data), kernel.shared_granule)
        self.pc = np.zeros(lanes, np.int64)
        self.status = np.where(self.thread < self.threads, RUNNING, ENDED).astype(np.int8)
        self.alive = (self.status == RUNNING).reshape(-1, 32)
        self.R = kernel.names.make(lanes, self._special)
        self.at: Any = EVERYONE
        self.n = lanes
        self.lanes = np.arange(lanes)
        self.here = 0  # the instruction that is running
        self.steps = 0
        self.jumped = False  # set by an instruction of kind STOP that has placed its threads itself
        self.barriers: dict[tuple[int, int], Any] = {}
        self.copies: list[Any] = []  # cp.async under way, oldest first
        self.committed = np.zeros(lanes, np.int64)  # groups of cp.async that each thread has committed
        self.mbarriers: dict[tuple[int, int], Any] = {}  # mbarriers.py, by block and address
        self.leaving: list[Any] = []  # bulk.py: copies that may still be reading shared memory
        self.products: list[Any] = []  # wgmma.py: under way
        self.reading: list[Any] = []  # shared memory that they may still be reading
        self.product_groups = np.zeros(lanes, np.int64)  # of wgmma that each thread has committed
        self.bulk_groups = np.zeros(lanes, np.int64)  # of bulk copies that each thread has committed

    def _special(self, name: str) -> Any:
        """The array of a special register."""
        x, y = self.launch.block[:2]
        number = self.first + self.block.astype(np.int64)
        gx, gy, gz = self.launch.grid
        lane = self.thread & 31
        values = {
            "%tid.x": self.thread % x,
            "%tid.y": self.thread // x % y,
            "%tid.z": self.thread // (x * y),
            "%ctaid.x": number % gx,
            "%ctaid.y": number // gx % gy,
            "%ctaid.z": number // (gx * gy),
            **{f"%ntid.{c}": v for c, v in zip("xyz", self.launch.block)},
            **{f"%nctaid.{c}": v for c, v in zip("xyz", self.launch.grid)},
            "%laneid": lane,
            "%warpid": self.warp,
            "%nwarpid": self.warps,
            "%smid": number,
            "%nsmid": gx * gy * gz,
            "%gridid": 0,
            "%clock": 0,
            "%clock_hi": 0,
            "%clock64": 0,
            "%globaltimer": 0,
            "%dynamic_smem_size": self.launch.shared_bytes,
            "%total_smem_size": self.shared.size,
            "%lanemask_eq": 1 << lane,
            "%lanemask_lt": (1 << lane) - 1,
            "%lanemask_le": (2 << lane.astype(np.int64)) - 1,
            "%lanemask_gt": 0xFFFFFFFF ^ ((2 << lane.astype(np.int64)) - 1),
            "%lanemask_ge": 0xFFFFFFFF ^ ((1 << lane.astype(np.int64)) - 1),
            **{f"%cluster_{k}.{c}": v for k, v in (("ctaid", 0), ("nctaid", 1)) for c in "xyz"},
            **{f"%clusterid.{c}": v for c, v in zip("xyz", (number % gx, number // gx % gy, number // (gx * gy)))},
            "%carry": 0,  # of carries.py
            "%cluster_ctarank": 0,
            "%cluster_nctarank": 1,
        }
        if name not in values:
            raise EmulatorError(f"{name} is not known to the emulator", location=False)
        wide = name in ("%clock64", "%globaltimer", "%gridid")
        value = np.asarray(values[name]).astype(np.int64).astype(np.uint64 if wide else np.uint32)
        return np.ascontiguousarray(np.broadcast_to(value, self.thread.shape))

    # --- choosing who runs -------------------------------------------------------------------------------------------------
    def run(self) -> None:
        """Run until every thread has ended."""
        while self._choose():
            self._straight()

    def _choose(self) -> bool:
        running = self.status == RUNNING
        if not running.any():
            if (self.status == ENDED).all():
                return False
            stuck(self)
        self.start = int(self.pc[running].min())
        group = (self.pc == self.start) & (self.status <= AT_WARP)
        self._group(np.flatnonzero(group))
        self.status[self.at] = RUNNING
        waiting = self.status == AT_WARP
        others = (running | waiting) & ~group & (self.pc > self.start)
        self.until = int(self.pc[others].min()) if others.any() else FAR
        self.meets_behind = bool(waiting.any())  # a jump back may meet threads that wait for their warp
        return True

    def _group(self, lanes: Any) -> None:
        whole = len(lanes) == len(self.lanes)
        self.at = EVERYONE if whole else lanes
        self.n = len(lanes)
        self.issued = self.n // 32 if whole else 1 + int(np.count_nonzero(np.diff(lanes >> 5))) if self.n else 0

    def _straight(self) -> None:
        """Run the group from `start` until it must be chosen anew."""
        kernel, p, until = self.kernel, self.start, self.until
        ops, kinds, guards, counts, issues = kernel.ops, kernel.kinds, kernel.guards, kernel.threads_run, kernel.warps_run
        while p < until:
            self.here = p
            self.steps += 1
            issues[p] += self.issued
            if self.products:
                self._check_products(p)
            guard = guards[p]
            mask = None
            if guard is not None:
                mask = guard(self)
                if mask.all():
                    mask = None
            counts[p] += self.n if mask is None else int(np.count_nonzero(mask))
            kind = kinds[p]
            if kind == PLAIN:
                if mask is None:
                    ops[p](self)
                elif mask.any():
                    self._only(mask, ops[p])
                p += 1
            elif kind == BRANCH:
                target = ops[p]
                if mask is None:
                    if target < p and self.meets_behind:
                        until = 0
                    p = target
                    if self.steps > self.launch.patience:
                        self.fail(EmulatorError, f"still runs after {self.steps} instructions", None)
                elif not mask.any():
                    p += 1
                else:
                    self.pc[self.at] = np.where(mask, target, p + 1)
                    return
            else:
                if not self._together(p, mask, kind):
                    return
                p += 1
        self.pc[self.at] = p

    def _check_products(self, p: int) -> None:
        """No register of a wgmma that is under way may be used."""
        code = self.kernel.flat.code[p]
        if code.op[0] == "wgmma":
            return
        touched = self.kernel.touched(p)
        for product in self.products:
            if touched & product.registers and np.isin(self.lanes[self.at], product.lanes).any():
                self.unwaited(product)

    def unwaited(self, product: Any) -> NoReturn:
        """A register is used too early."""
        bad = np.isin(self.lanes[self.at], product.lanes)
        self.fail(
            UnwaitedCopyError,
            "uses a register of a product (wgmma) that may still be under way",
            bad if bad.any() else None,
            hint="wait for it: wgmma.wait_group",
        )

    def rest_of_group(self, size: int) -> None:
        """The running threads wait for those of their group of `size` that are not here."""
        lanes = self.lanes[self.at]
        groups = self.block[lanes] * -(-self.padded // size) + self.thread[lanes] // size
        _, place, count = np.unique(groups, return_inverse=True, return_counts=True)
        whole = count[place] == size
        if whole.any():
            self.pc[lanes[whole]] = self.here
            self.status[lanes[~whole]] = AT_WARP
            at, n = self.at, self.n
            self._group(lanes[whole])
            self.kernel.ops[self.here](self)
            self.wake(lanes[whole], self.here + 1)
            self.at, self.n = at, n
        else:
            self.status[lanes] = AT_WARP
        self.jumped = True

    def _only(self, mask: Any, op: Any) -> None:
        """Run an instruction for some of the group."""
        at, n, issued = self.at, self.n, self.issued
        self._group(self.lanes[at][mask])
        op(self)
        self.at, self.n, self.issued = at, n, issued

    # --- instructions that need others -------------------------------------------------------------------------------------
    def _together(self, p: int, mask: Any, kind: int) -> bool:
        """Run a convergent, waiting or ending instruction. False: the threads' places are set, choose anew."""
        lanes = self.lanes[self.at]
        if mask is not None:
            if not mask.any():
                return True
            self.pc[lanes] = p + 1
            lanes = lanes[mask]
            self.pc[lanes] = p
            self._group(lanes)
        complete = None if kind == STOP else self._complete(p, lanes)
        if complete is not None and not complete.all():
            self.pc[lanes] = p
            self.status[lanes[~complete]] = AT_WARP
            if not complete.any():
                return False
            lanes = lanes[complete]
            self._group(lanes)
            mask = complete
        self.jumped = False
        self.pc[lanes] = p  # an instruction that waits leaves its threads here
        self.kernel.ops[p](self)
        if self.jumped:
            return False
        if mask is not None:
            self.pc[lanes] = p + 1
            return False
        return True

    def _complete(self, p: int, lanes: Any) -> Any:
        """Which threads have all those of their warp beside them that the instruction needs; None if all have."""
        members = self.kernel.members[p]
        if self.at is EVERYONE and members is None:
            return None
        here = np.zeros(len(self.lanes), bool)
        here[lanes] = True
        there = bits(here)
        need = bits(self.alive.reshape(-1))
        warp = lanes >> 5
        if members is not None:
            wanted = np.broadcast_to(members(self), lanes.shape)
            if not ((wanted >> (lanes & 31).astype(np.uint32)) & 1).all():
                bad = ((wanted >> (lanes & 31).astype(np.uint32)) & 1) == 0
                self.fail(DivergenceError, "is not in the member mask of the instruction that it executes", bad)
            need_here = need[warp] & wanted
        else:
            need_here = need[warp]
        return (there[warp] & need_here) == need_here

    def end(self) -> None:
        """The running threads end."""
        self.status[self.at] = ENDED
        self.alive.reshape(-1)[self.at] = False
        self.jumped = True

    def wait(self, status: int) -> None:
        """The running threads wait where they are."""
        self.status[self.at] = status
        self.jumped = True

    def wake(self, lanes: Any, p: int) -> None:
        """Threads that waited go on at p."""
        self.status[lanes] = RUNNING
        self.pc[lanes] = p

    def fail(self, error: type[EmulatorError], what: str, bad: Any, *facts: str, hint: str = "") -> NoReturn:
        """Raise for the first running thread of the mask `bad` (None: the first of all)."""
        fail(self, error, what, bad, facts, hint)


def bits(flags: Any) -> Any:
    """One 32-bit word for every 32 flags."""
    return np.packbits(flags.reshape(-1, 32), axis=1, bitorder="little").view(np.uint32).reshape(-1)
