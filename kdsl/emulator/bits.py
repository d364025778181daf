"""Instructions on bits: logic, shifts, fields, counts, bytes picked and multiplied.

In:  instructions such as and.b32, shl, bfe, lop3, prmt, dp4a.  Out: closures (instructions.py).
Read before: arithmetic.py. Read next: comparisons.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kdsl.emulator.arithmetic import simple
from kdsl.emulator.instructions import Built, builds, unknown
from kdsl.emulator.parse import Instruction
from kdsl.emulator.registers import TYPES, UNSIGNED
from kdsl.emulator.wave import Wave

if TYPE_CHECKING:
    from kdsl.emulator.kernel import Kernel


@builds("and", "or", "xor", "not", "cnot")
def _bitwise(ins: Instruction, kernel: Kernel) -> Built:
    name, kind = ins.op[0], ins.op[-1]
    functions = {
        "and": np.bitwise_and,
        "or": np.bitwise_or,
        "xor": np.bitwise_xor,
        "not": np.invert,
        "cnot": lambda x: (x == 0).astype(x.dtype),
    }
    return simple(ins, kernel, functions[name], kind, 1 if name in ("not", "cnot") else 2)


@builds("shl", "shr")
def _shift(ins: Instruction, kernel: Kernel) -> Built:
    names, kind = kernel.names, ins.op[-1]
    write, x, by = names.write(ins.operands[0], kind), names.read(ins.operands[1], kind), names.read(ins.operands[2], "u32")
    dtype = np.dtype(TYPES[kind])
    width = 8 * dtype.itemsize
    left = ins.op[0] == "shl"

    def run(w: Wave) -> None:
        value, count = x(w), by(w)
        few = np.minimum(count, np.uint32(width - 1)).astype(dtype)
        out = np.left_shift(value, few) if left else np.right_shift(value, few)
        if left or dtype.kind == "u":
            out = np.where(count >= width, dtype.type(0), out)
        write(w, out)

    return run


@builds("shf")
def _funnel_shift(ins: Instruction, kernel: Kernel) -> Built:
    """The middle word of two, shifted."""
    names, operands = kernel.names, ins.operands
    write = names.write(operands[0], "b32")
    low, high, by = (names.read(o, "u32") for o in operands[1:4])
    left, clamps = ins.op[1] == "l", "clamp" in ins.op

    def run(w: Wave) -> None:
        count = by(w)
        count = np.minimum(count, np.uint32(32)) if clamps else count & np.uint32(31)
        both = (np.asarray(high(w)).astype(np.uint64) << np.uint64(32)) | np.asarray(low(w)).astype(np.uint64)
        c = np.asarray(count).astype(np.uint64)
        if left:
            out = np.where(c == 32, both & np.uint64(0xFFFFFFFF), (both << c) >> np.uint64(32))
        else:
            out = both >> c
        write(w, out.astype(np.uint32))

    return run


@builds("bfe")
def _extract(ins: Instruction, kernel: Kernel) -> Built:
    names, kind = kernel.names, ins.op[-1]
    write, x = names.write(ins.operands[0], kind), names.read(ins.operands[1], kind)
    start, length = names.read(ins.operands[2], "u32"), names.read(ins.operands[3], "u32")
    dtype = np.dtype(TYPES[kind])
    width = 8 * dtype.itemsize
    bits = UNSIGNED[dtype.itemsize]

    def run(w: Wave) -> None:
        value = np.asarray(x(w))
        s = np.minimum(start(w) & np.uint32(255), np.uint32(width)).astype(np.int64)
        n = np.minimum(length(w) & np.uint32(255), np.uint32(width)).astype(np.int64)
        s, n, value = np.broadcast_arrays(s, n, value)
        raw = np.ascontiguousarray(value).view(bits)
        shifted = np.where(s >= width, bits(0), raw >> np.minimum(s, width - 1).astype(bits))
        mask = np.where(n >= width, ~bits(0), (bits(1) << np.minimum(n, width - 1).astype(bits)) - bits(1))
        out = shifted & mask
        if dtype.kind == "i":
            last = np.minimum(s + n - 1, width - 1).clip(0)
            sign = np.where(n == 0, bits(0), (raw >> last.astype(bits)) & bits(1))
            reach = np.where(s >= width, bits(0), ~bits(0) >> np.minimum(s, width - 1).astype(bits))
            out = np.where(sign == 1, out | ~(mask & reach), out)
        write(w, out.view(dtype))

    return run


@builds("bfi")
def _insert(ins: Instruction, kernel: Kernel) -> Built:
    names, kind = kernel.names, ins.op[-1]
    write, x, y = names.write(ins.operands[0], kind), names.read(ins.operands[1], kind), names.read(ins.operands[2], kind)
    start, length = names.read(ins.operands[3], "u32"), names.read(ins.operands[4], "u32")
    bits = UNSIGNED[np.dtype(TYPES[kind]).itemsize]
    width = 8 * np.dtype(bits).itemsize

    def run(w: Wave) -> None:
        s = np.minimum(start(w) & np.uint32(255), np.uint32(width)).astype(np.int64)
        n = np.minimum(length(w) & np.uint32(255), np.uint32(width)).astype(np.int64)
        few = np.minimum(s, width - 1).astype(bits)
        mask = np.where(n >= width, ~bits(0), (bits(1) << np.minimum(n, width - 1).astype(bits)) - bits(1))
        mask = np.where(s >= width, bits(0), mask << few)
        write(w, (y(w) & ~mask) | ((x(w) << few) & mask))

    return run


@builds("bfind", "clz", "popc", "brev")
def _bits(ins: Instruction, kernel: Kernel) -> Built:
    names, name, kind = kernel.names, ins.op[0], ins.op[-1]
    write = names.write(ins.operands[0], kind if name == "brev" else "u32")
    x = names.read(ins.operands[1], kind)
    dtype = np.dtype(TYPES[kind])
    width = 8 * dtype.itemsize
    bits = UNSIGNED[dtype.itemsize]

    def run(w: Wave) -> None:
        value = np.atleast_1d(x(w))
        if name == "popc":
            return write(w, np.bitwise_count(value).astype(np.uint32))
        if name == "bfind" and dtype.kind == "i":
            value = np.where(value < 0, ~value, value)
        raw = np.ascontiguousarray(value).view(bits)
        if name == "brev":
            each = np.unpackbits(raw.view(np.uint8).reshape(-1, dtype.itemsize), axis=1, bitorder="little")
            return write(w, np.packbits(each[:, ::-1], axis=1, bitorder="little").view(bits).reshape(-1))
        leading = count_leading_zeros(raw, width)
        if name == "clz":
            return write(w, leading)
        shifts = "shiftamt" in ins.op
        found = leading if shifts else (width - 1 - leading.astype(np.int64)).astype(np.uint32)
        return write(w, np.where(raw == 0, np.uint32(0xFFFFFFFF), found))

    return run


def count_leading_zeros(raw: Any, width: int) -> Any:
    """Zeros before the highest bit."""
    smeared = raw.copy()
    step = 1
    while step < width:
        smeared |= smeared >> smeared.dtype.type(step)
        step *= 2
    return (width - np.bitwise_count(smeared).astype(np.int64)).astype(np.uint32)


@builds("lop3")
def _logic(ins: Instruction, kernel: Kernel) -> Built:
    """Any function of three bits, given as its table of eight."""
    names = kernel.names
    write = names.write(ins.operands[0], "b32")
    a, b, c = (names.read(o, "b32") for o in ins.operands[1:4])
    table = int(ins.operands[4], 0)

    def run(w: Wave) -> None:
        x, y, z = a(w), b(w), c(w)
        out: Any = np.uint32(0)
        for row in range(8):
            if table >> row & 1:
                out = out | ((x if row & 4 else ~x) & (y if row & 2 else ~y) & (z if row & 1 else ~z))
        write(w, out)

    return run


@builds("prmt")
def _permute(ins: Instruction, kernel: Kernel) -> Built:
    """Any four of eight bytes."""
    if len(ins.op) > 2:
        raise unknown(ins)
    names = kernel.names
    write = names.write(ins.operands[0], "b32")
    a, b, c = (names.read(o, "b32") for o in ins.operands[1:4])

    def run(w: Wave) -> None:
        low, high, choice = (np.asarray(v(w)).astype(np.uint64) for v in (a, b, c))
        both = low | (high << np.uint64(32))
        out: Any = np.uint64(0)
        for i in range(4):
            pick = (choice >> np.uint64(4 * i)) & np.uint64(15)
            byte = (both >> ((pick & np.uint64(7)) * np.uint64(8))) & np.uint64(255)
            sign = np.where(byte & np.uint64(128), np.uint64(255), np.uint64(0))
            out = out | (np.where(pick & np.uint64(8), sign, byte) << np.uint64(8 * i))
        write(w, out.astype(np.uint32))

    return run


@builds("sad")
def _absolute_difference(ins: Instruction, kernel: Kernel) -> Built:
    return simple(ins, kernel, lambda x, y, z: z + np.where(x > y, x - y, y - x), ins.op[-1], 3)


@builds("dp4a", "dp2a")
def _small_dots(ins: Instruction, kernel: Kernel) -> Built:
    """c + a . b: four bytes of a with those of b, or two halves of a with b's lower or upper two bytes."""
    names, (a_kind, b_kind) = kernel.names, ins.op[-2:]
    bytes_ = {"s32": np.int8, "u32": np.uint8}
    halves = {"s32": np.int16, "u32": np.uint16}
    left_type, right_type = (bytes_ if ins.op[0] == "dp4a" else halves)[a_kind], bytes_[b_kind]
    first = 2 if "hi" in ins.op else 0
    write = names.write(ins.operands[0], "b32")
    a, b, c = (names.read(o, "b32") for o in ins.operands[1:4])

    def run(w: Wave) -> None:
        x, y, z = (np.ascontiguousarray(v) for v in np.broadcast_arrays(*(np.atleast_1d(v(w)) for v in (a, b, c))))
        left = x.view(left_type).reshape(len(x), -1).astype(np.int64)
        right = y.view(right_type).reshape(len(y), -1)[:, first : first + left.shape[1]].astype(np.int64)
        write(w, ((left * right).sum(axis=1) + z.view(np.int32)).astype(np.uint32))

    return run
