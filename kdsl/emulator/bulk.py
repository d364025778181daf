"""Bulk copies: one thread asks for many bytes, or for a box of a tensor (TMA), and the hardware brings them.

In:  cp.async.bulk, cp.async.bulk.tensor, their commit_group and wait_group; TensorMap, which describes a tensor.  Out: closures.
Into shared memory the bytes count towards an mbarrier; out of it they belong to groups of the thread. A box lies in shared memory
row by row, its 16-byte pieces exchanged as the map's swizzle says; elements outside of the tensor read as zeros.
Read before: mbarriers.py. Read next: wgmma.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsl.emulator.access import load_parameter
from kdsl.emulator.copies import ASYNC
from kdsl.emulator.instructions import Built, unknown
from kdsl.emulator.matrix import shared_address
from kdsl.emulator.mbarriers import advance, expect, find
from kdsl.emulator.memory import FLIGHT, LEAVING, WRITTEN
from kdsl.emulator.parse import Instruction, split
from kdsl.emulator.registers import PARAMETER_WINDOW
from kdsl.emulator.wave import Wave
from kdsl.errors import EmulatorError, MisalignedError

if TYPE_CHECKING:
    from kdsl.emulator.kernel import Kernel


@dataclass(frozen=True)
class TensorMap:
    """A tensor as TMA sees it: axis 0 is the innermost, `strides` are the bytes of the others, `swizzle` is 0, 32, 64 or 128."""

    address: int
    item: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    swizzle: int = 0

    def __post_init__(self) -> None:
        problems = [
            (self.address % 16, "the tensor's address is a multiple of 16"),
            (any(s % 16 for s in self.strides), "the strides are multiples of 16 bytes"),
            (any(not 0 < b <= 256 for b in self.box), "an extent of the box is 1 to 256"),
            (self.box[0] * self.item % 16, "the box's innermost extent has a multiple of 16 bytes"),
            (self.swizzle and self.box[0] * self.item > self.swizzle, "the box's innermost extent fits the swizzle"),
            (len(self.strides) != len(self.sizes) - 1 or len(self.box) != len(self.sizes), "there is a stride for each axis"),
        ]
        for wrong, rule in problems:
            if wrong:
                raise EmulatorError(f"a tensor map that breaks a rule: {rule}", facts=repr(self), location=False)

    @property
    def bytes(self) -> int:
        """Of one box."""
        return int(np.prod(self.box)) * self.item

    def places(self, start: Sequence[int]) -> tuple[Any, Any]:
        """For a box that begins at these coordinates: each element's address, and whether it is inside."""
        address = np.full((1,) * len(self.box), self.address, np.int64)
        inside = np.ones((1,) * len(self.box), bool)
        for axis, (first, extent) in enumerate(zip(start, self.box)):
            shape = [1] * len(self.box)
            shape[len(self.box) - 1 - axis] = extent
            at = (first + np.arange(extent, dtype=np.int64)).reshape(shape)
            address = address + at * (self.item if axis == 0 else self.strides[axis - 1])
            inside = inside & (at >= 0) & (at < self.sizes[axis])
        return address.reshape(-1), inside.reshape(-1)


SWIZZLE_BITS = {0: 0, 32: 1, 64: 3, 128: 7}


def swizzled(address: Any, swizzle: int) -> Any:
    """Where a byte of shared memory lies: its 16-byte piece is exchanged by the number of its 128-byte row."""
    return address ^ (((address >> 7) & SWIZZLE_BITS[swizzle]) << 4)


@dataclass
class Leaving:
    """A copy out of shared memory that may still be reading it."""

    lane: int
    group: int
    where: Any  # the 16-byte pieces that it reads


def _bulk(ins: Instruction, kernel: Kernel) -> Built:
    if "commit_group" in ins.op:
        return _commit
    if "wait_group" in ins.op:
        left = int(ins.operands[0], 0)
        return lambda w: _wait(w, left)
    if "prefetch" in ins.op:
        return lambda w: None
    if "multicast::cluster" in ins.op or "im2col" in ins.op or "reduce" in ins.op:
        raise unknown(ins)
    spaces = [p.split("::")[0] for p in ins.op if p.split("::")[0] in ("global", "shared")]
    build = _tensor if "tensor" in ins.op else _plain
    return build(ins, kernel, spaces[0] == "shared")


def _pieces(w: Wave, lane: int, start: int, size: int) -> Any:
    """The 16-byte pieces of a stretch of shared memory, as places in the wave's."""
    if start % 16 or size % 16:
        w.fail(MisalignedError, f"copies {size} bytes at {start} of shared memory, which are no multiples of 16", None)
    pieces = np.arange(start, start + size, 16, dtype=np.int64)
    w.at, w.n = np.full(len(pieces), lane), len(pieces)
    return w.shared.index(w, pieces, 16, "copies")


def _fill(w: Wave, lane: int, start: int, data: Any, barrier_address: int) -> None:
    """Begin to bring bytes to shared memory; they land when somebody waits for the mbarrier."""
    block = int(w.block[lane])
    where = _pieces(w, lane, start, len(data))
    w.shared.check_write(w, where, 16)
    w.shared.add_states(where, 16, FLIGHT)
    barrier = find(w, block, barrier_address, np.array([lane]))
    told = w.watch.release(block, np.array([w.warp[lane]])) if w.watch is not None else None

    def landing(w: Wave) -> None:
        w.shared.take_states(where, 16, FLIGHT)
        w.shared.add_states(where, 16, WRITTEN)
        first = int(where[0])
        w.shared.data[first : first + len(data)] = data
        if told is not None:
            barrier.told = told if barrier.told is None else np.maximum(barrier.told, told)
        barrier.bytes -= len(data)
        advance(w, barrier, block)

    expect(w, barrier, block, landing)


def _take(w: Wave, lane: int, start: int, size: int) -> Any:
    """The bytes of shared memory that a copy takes out; until it has been waited for nobody may write them."""
    where = _pieces(w, lane, start, size)
    w.shared.check_read(w, where, 16)
    w.shared.add_states(where, 16, LEAVING)
    w.leaving.append(Leaving(lane, int(w.bulk_groups[lane]), where))
    first = int(where[0])
    return w.shared.data[first : first + size].copy()


def _one_by_one(w: Wave, run: Any) -> None:
    """For each running thread alone."""
    at, n = w.at, w.n
    for i, lane in enumerate(w.lanes[at]):
        w.at, w.n = np.array([lane]), 1
        run(i, int(lane))
    w.at, w.n = at, n


def _plain(ins: Instruction, kernel: Kernel, inwards: bool) -> Built:
    names = kernel.names
    to, source = names.address(ins.operands[0]), names.address(ins.operands[1])
    size = names.read(ins.operands[2], "u32")
    barrier = names.address(ins.operands[3]) if inwards else None

    def run(w: Wave) -> None:
        targets, sources = to(w), source(w)
        sizes = np.broadcast_to(size(w), (w.n,))
        barriers = shared_address(w, barrier(w)) if barrier is not None else None

        def one(i: int, lane: int) -> None:
            count = int(sizes[i])
            if barriers is not None:
                pieces = sources[i] + np.arange(0, count, 8, dtype=np.int64)
                w.at, w.n = np.full(len(pieces), lane), len(pieces)
                data = w.memory.load(w, pieces, 8, 1).view(np.uint8)
                w.at, w.n = np.array([lane]), 1
                _fill(w, lane, int(shared_address(w, targets[i : i + 1])[0]), data, int(barriers[i]))
            else:
                data = _take(w, lane, int(shared_address(w, sources[i : i + 1])[0]), count)
                pieces = targets[i] + np.arange(0, count, 8, dtype=np.int64)
                w.at, w.n = np.full(len(pieces), lane), len(pieces)
                w.memory.store(w, pieces, 8, 1, data.view(np.uint64))

        _one_by_one(w, one)

    return run


def _tensor(ins: Instruction, kernel: Kernel, inwards: bool) -> Built:
    names = kernel.names
    near, far = (ins.operands[0], ins.operands[1]) if inwards else (ins.operands[1], ins.operands[0])
    map_, coordinates = split(far[1:-1])
    tensor_map = names.address(f"[{map_}]")
    starts = [names.read(c, "s32") for c in names.vector(coordinates)]
    place = names.address(near)
    barrier = names.address(ins.operands[2]) if inwards else None

    def run(w: Wave) -> None:
        maps, places = tensor_map(w), shared_address(w, place(w))
        boxes = np.stack([np.broadcast_to(s(w), (w.n,)) for s in starts], 1)
        barriers = shared_address(w, barrier(w)) if barrier is not None else None

        def one(i: int, lane: int) -> None:
            t = find_map(w, maps[i : i + 1])
            if len(t.sizes) != boxes.shape[1]:
                w.fail(EmulatorError, f"gives {boxes.shape[1]} coordinates for a tensor of {len(t.sizes)} axes", None)
            address, inside = t.places([int(x) for x in boxes[i]])
            start = int(places[i])
            order = swizzled(start + np.arange(t.bytes), t.swizzle) - start
            if start % 128 or (t.swizzle and start % (8 * t.swizzle)):
                w.fail(MisalignedError, f"copies a box to {start} of shared memory, which fits no swizzle", None)
            w.at, w.n = np.full(int(inside.sum()), lane), int(inside.sum())
            data = np.zeros((len(address), t.item), np.uint8)
            if barriers is not None:
                raw = w.memory.load(w, address[inside], t.item, 1)
                data[inside] = np.ascontiguousarray(raw).view(np.uint8).reshape(-1, t.item)
                box = np.empty(t.bytes, np.uint8)
                box[order] = data.reshape(-1)
                _fill(w, lane, start, box, int(barriers[i]))
            else:
                at, n = w.at, w.n
                box = _take(w, lane, start, t.bytes)
                w.at, w.n = at, n
                data = np.ascontiguousarray(box[order].reshape(-1, t.item)[inside])
                w.memory.store(w, address[inside], t.item, 1, data.view(f"u{t.item}").reshape(-1))

        _one_by_one(w, one)

    return run


def find_map(w: Wave, address: Any) -> TensorMap:
    """The tensor map at a global or parameter address: its first bytes are its number."""
    if address[0] >= PARAMETER_WINDOW:
        number = int(load_parameter(w, address - PARAMETER_WINDOW, 8, 1)[0])
    else:
        number = int(w.memory.load(w, address, 8, 1)[0])
    if number not in w.memory.tensor_maps:
        w.fail(EmulatorError, "copies by a tensor map that is none", None)
    found: TensorMap = w.memory.tensor_maps[number]
    return found


def _commit(w: Wave) -> None:
    w.bulk_groups[w.at] += 1


def _wait(w: Wave, left: int) -> None:
    """All but the last groups of the running threads have read what they copy."""
    here = set(w.lanes[w.at].tolist())
    kept = []
    for copy in w.leaving:
        if copy.lane in here and copy.group < w.bulk_groups[copy.lane] - left:
            w.shared.take_states(copy.where, 16, LEAVING)
        else:
            kept.append(copy)
    w.leaving = kept
    for copy in kept:
        w.shared.add_states(copy.where, 16, LEAVING)


ASYNC["bulk"] = _bulk
