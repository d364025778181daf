"""wgmma: products of four warps together, with operands in shared memory, that go on while the warps do something else.

In:  wgmma.fence, wgmma.mma_async, commit_group, wait_group.  Out: closures. sm_90a only.
Until its group has been waited for, a product's registers hold nothing that may be read, and the shared memory of its operands
may not be written: both are UnwaitedCopyErrors. Where an operand lies in shared memory is told by a descriptor (PTX manual,
"Matrix descriptor format"): start, two strides, and a swizzle of 16-byte pieces by the number of the 128-byte row.
Read before: bulk.py, matrix.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsl.emulator.bulk import swizzled
from kdsl.emulator.instructions import Built, builds, unknown
from kdsl.emulator.matrix import ELEMENTS, G, Q, elements, gathered, places_a
from kdsl.emulator.memory import LEAVING
from kdsl.emulator.parse import Instruction
from kdsl.emulator.registers import TYPES
from kdsl.emulator.wave import STOP_WARPS, WARP, Wave
from kdsl.errors import DivergenceError

if TYPE_CHECKING:
    from kdsl.emulator.kernel import Kernel

WIDTH = {0: 0, 1: 128, 2: 64, 3: 32}  # of the swizzle, by the descriptor's two last bits


@dataclass(eq=False)
class Product:
    """Products of some warpgroups that have not been waited for."""

    lanes: Any
    group: Any  # of each thread
    writes: tuple[Any, ...]  # of the accumulator's registers
    values: Any  # [register, thread]
    registers: frozenset[str]


@dataclass(eq=False)
class Reading:
    """Shared memory that a product of a warpgroup may still be reading, as 16-byte pieces."""

    lane: int  # the first of the warpgroup
    group: int
    where: Any


@dataclass(frozen=True)
class Descriptor:
    """Where an operand lies."""

    start: int
    leading: int
    stride: int
    swizzle: int

    @staticmethod
    def of(bits: int) -> Descriptor:
        return Descriptor(
            (bits & 0x3FFF) << 4, (bits >> 16 & 0x3FFF) << 4, (bits >> 32 & 0x3FFF) << 4, WIDTH[bits >> 62 & 3]
        )

    def places(self, rows: int, k: int, item: int, transposed: bool) -> Any:
        """The address of each element [row, k]: rows are m or n; `transposed`: neighbours along the rows lie together."""
        r, c = np.arange(rows)[:, None], np.arange(k)[None, :]
        if not transposed:
            if self.swizzle:
                at = r // 8 * self.stride + r % 8 * self.swizzle + c * item
            else:
                bytes_ = c * item
                at = r // 8 * self.stride + bytes_ // 16 * self.leading + r % 8 * 16 + bytes_ % 16
        else:
            across = (self.swizzle or 16) // item  # neighbours in one line
            line = r % across * item + c % 8 * (self.swizzle or 16)
            if self.swizzle:
                at = line + r // across * self.leading + c // 8 * self.stride
            else:
                at = line + r // across * self.stride + c // 8 * self.leading
        return swizzled(self.start + at, self.swizzle)


@builds("wgmma")
def _wgmma(ins: Instruction, kernel: Kernel) -> Built:
    if ins.op[1] == "fence":
        return WARP, lambda w: None, None
    if ins.op[1] == "commit_group":
        return WARP, _commit, None
    if ins.op[1] == "wait_group":
        left = int(ins.operands[0], 0)
        return WARP, lambda w: _wait(w, left), None
    if ins.op[1] != "mma_async":
        raise unknown(ins)
    return STOP_WARPS, _product(ins, kernel), None


def _product(ins: Instruction, kernel: Kernel) -> Any:
    names = kernel.names
    shape = next(m for p in ins.op if (m := re.fullmatch(r"m64n(\d+)k(\d+)", p)))
    n, k = int(shape.group(1)), int(shape.group(2))
    kind_d, kind_a, kind_b = (p for p in ins.op if p in TYPES)
    item = {"bf16": 2, "f16": 2, "tf32": 4, "s8": 1, "u8": 1}[kind_a]
    e, number = ELEMENTS[kind_a][1:]
    d, a, b, keeps, *rest = ins.operands
    accumulator = names.vector(d)
    if len(accumulator) != n // (2 if kind_d != "f16" else 4) or kind_d == "f16":
        raise unknown(ins)
    reads = [names.read(r, kind_d) for r in accumulator]
    writes = tuple(names.write(r, kind_d) for r in accumulator)
    in_registers = a.startswith("{")
    read_a = [names.read(x, "b32") for x in names.vector(a)]
    describe_a = None if in_registers else names.read(a, "u64")
    describe_b = names.read(b, "u64")
    keep = names.predicate(keeps)
    signs = [int(x, 0) for x in rest[:2]] if number is np.float32 else [1, 1]
    turned = [int(x, 0) for x in rest[2:]] if item == 2 else []
    turned_b = bool(turned[-1]) if turned else False
    turned_a = bool(turned[0]) if len(turned) > 1 else False
    registers = frozenset(accumulator)
    at_a = places_a(16, 4, e)
    r = np.arange(n // 2)
    row, column = G[:, None] + 8 * (r % 4 // 2), 8 * (r // 4) + Q[:, None] * 2 + r % 2

    def operand(w: Wave, descriptors: Any, lane: int, rows: int, kind: str, transposed: bool) -> Any:
        """The numbers [row, k] of an operand in shared memory."""
        bits = np.unique(descriptors)
        if len(bits) > 1:
            w.fail(DivergenceError, "multiplies by a descriptor that the others of its warpgroup do not have", None)
        places = Descriptor.of(int(bits[0])).places(rows, k, item, transposed)
        pieces = np.unique(places.reshape(-1) // 16 * 16).astype(np.int64)
        at, count = w.at, w.n
        w.at, w.n = np.full(len(pieces), lane), len(pieces)
        where = w.shared.index(w, pieces, 16, "multiplies")
        w.shared.check_read(w, where, 16, together=True)
        w.shared.add_states(where, 16, LEAVING)
        w.at, w.n = at, count
        w.reading.append(Reading(lane, int(w.product_groups[lane]), where))
        words = w.shared.view("data", item, 1)[(places + w.shared_base[lane]) // item]
        return _numbers(words, kind)

    def run(w: Wave) -> None:
        lanes = w.lanes[w.at]
        groups = lanes.reshape(-1, 128) if len(lanes) % 128 == 0 else None
        if groups is None or (w.thread[groups[:, 0]] % 128).any() or (np.diff(groups) != 1).any():
            w.rest_of_group(128)
            return
        before = np.zeros((len(lanes) // 128, 4, 32, len(accumulator)), number)
        scale = np.broadcast_to(keep(w), (w.n,))
        pending = [p for p in w.products if p.registers & registers]
        held = _pending(w, pending, lanes, registers, reads, number)
        before[:] = np.where(scale[None], held, number(0)).T.reshape(before.shape)
        left_registers = None
        if in_registers:
            left_registers = elements(gathered(w, read_a, np.uint32), kind_a).reshape(-1, 4, 32, 4 * e)
        descriptors_a = None if describe_a is None else np.broadcast_to(describe_a(w), (w.n,))
        descriptors_b = np.broadcast_to(describe_b(w), (w.n,))
        after = np.empty_like(before)
        for i, first in enumerate(lanes[::128]):
            mine = slice(128 * i, 128 * i + 128)
            right = operand(w, descriptors_b[mine], int(first), n, kind_b, turned_b)
            if left_registers is not None:
                left = np.empty((4, 16, k), number)
                left[:, at_a[0], at_a[1]] = left_registers[i]
                left = left.reshape(64, k)
            else:
                assert descriptors_a is not None
                left = operand(w, descriptors_a[mine], int(first), 64, kind_a, turned_a)
            product = (signs[0] * left) @ (signs[1] * right).T
            after[i] = before[i] + product.reshape(4, 16, n)[:, row, column]
        w.products = [p for p in w.products if p not in pending] + _without(pending, lanes)
        values = after.reshape(len(lanes), -1).T
        w.products.append(Product(lanes, w.product_groups[lanes].copy(), writes, values, registers))

    return run


def _numbers(words: Any, kind: str) -> Any:
    if kind == "bf16":
        return (words.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if kind == "f16":
        return words.view(np.float16).astype(np.float32)
    if kind == "tf32":
        return (words & np.uint32(0xFFFFE000)).view(np.float32)
    return words.view(np.int8 if kind == "s8" else np.uint8).astype(np.int32)


def _pending(w: Wave, products: list[Product], lanes: Any, registers: frozenset[str], reads: list[Any], number: Any) -> Any:
    """The accumulator [register, thread]: from a product under way into the same registers, else from the registers."""
    out = np.stack([np.broadcast_to(read(w), lanes.shape) for read in reads]).astype(number)
    place = np.full(len(w.lanes), -1)
    place[lanes] = np.arange(len(lanes))
    for p in products:
        here = place[p.lanes]
        if p.registers != registers and (here >= 0).any():
            w.unwaited(p)
        out[:, here[here >= 0]] = p.values[:, here >= 0]
    return out


def _without(products: list[Product], lanes: Any) -> list[Product]:
    """What is left of products when some threads' are superseded."""
    out = []
    for p in products:
        rest = ~np.isin(p.lanes, lanes)
        if rest.any():
            out.append(Product(p.lanes[rest], p.group[rest], p.writes, p.values[:, rest], p.registers))
    return out


def _commit(w: Wave) -> None:
    w.product_groups[w.at] += 1


def _wait(w: Wave, left: int) -> None:
    """All but the last groups of the running threads are done: the registers hold the results."""
    here = np.zeros(len(w.lanes), bool)
    here[w.at] = True
    at, n = w.at, w.n
    kept = []
    for p in w.products:
        ready = here[p.lanes] & (p.group < w.product_groups[p.lanes] - left)
        if ready.any():
            w.at = p.lanes[ready]
            w.n = len(w.at)
            for write, value in zip(p.writes, p.values):
                write(w, value[ready])
        kept += _without([p], p.lanes[ready])
    w.at, w.n = at, n
    w.products = kept
    done = [r for r in w.reading if here[r.lane] and r.group < w.product_groups[r.lane] - left]
    w.reading = [r for r in w.reading if r not in done]
    for r in done:
        w.shared.take_states(r.where, 16, LEAVING)
    for r in w.reading:
        w.shared.add_states(r.where, 16, LEAVING)
