"""Integer, bit, comparison and selection instructions, and the plain floating ones: what NumPy says in one word.

In:  instructions such as add.s32, mul.wide.u32, setp.lt.f32, selp, lop3.  Out: closures (instructions.py).
Read before: instructions.py. Read next: floating.py.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsl.emulator.instructions import Built, Run, builds, unknown
from kdsl.emulator.parse import Instruction
from kdsl.emulator.registers import TYPES, UNSIGNED, Read
from kdsl.emulator.wave import Wave

if TYPE_CHECKING:
    from kdsl.emulator.kernel import Kernel

WIDER = {np.int16: np.int32, np.uint16: np.uint32, np.int32: np.int64, np.uint32: np.uint64}


def simple(ins: Instruction, kernel: Kernel, function: Any, kind: str, count: int = 2) -> Run:
    """d = function(a, b …), all of one type."""
    names = kernel.names
    write = names.write(ins.operands[0], kind)
    reads = [names.read(o, kind) for o in ins.operands[1 : 1 + count]]
    if count == 1:
        (x,) = reads
        return lambda w: write(w, function(x(w)))
    if count == 2:
        x, y = reads
        return lambda w: write(w, function(x(w), y(w)))
    x, y, z = reads
    return lambda w: write(w, function(x(w), y(w), z(w)))


def divide(x: Any, y: Any) -> Any:
    """Integer quotient rounded to zero; by zero all bits are set, as a GPU gives."""
    x, y = np.broadcast_arrays(np.asarray(x), np.asarray(y))
    safe = np.where(y == 0, np.ones_like(y), y)
    if x.dtype.kind == "u":
        return np.where(y == 0, ~np.zeros_like(y), x // safe)
    wraps = (y == -1) & (x == np.iinfo(x.dtype).min)
    safe = np.where(wraps, np.ones_like(y), safe)
    quotient = x // safe
    quotient += (quotient < 0) & (quotient * safe != x)
    return np.where(y == 0, -np.ones_like(y), quotient)


def remainder(x: Any, y: Any) -> Any:
    """What divide leaves."""
    return np.where(np.asarray(y) == 0, x, x - divide(x, y) * y)


def high_half(x: Any, y: Any) -> Any:
    """The upper half of a product."""
    x, y = np.broadcast_arrays(np.asarray(x), np.asarray(y))
    if x.dtype.itemsize < 8:
        wide = WIDER[x.dtype.type]
        return ((x.astype(wide) * y.astype(wide)) >> (8 * x.dtype.itemsize)).astype(x.dtype)
    ux, uy = x.view(np.uint64), y.view(np.uint64)
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    x0, x1, y0, y1 = ux & low, ux >> half, uy & low, uy >> half
    middle = x1 * y0 + (x0 * y0 >> half)
    cross = x0 * y1 + (middle & low)
    high = x1 * y1 + (middle >> half) + (cross >> half)
    if x.dtype.kind == "i":  # unsigned product to signed
        high = high - np.where(x < 0, uy, np.uint64(0)) - np.where(y < 0, ux, np.uint64(0))
    return high.view(x.dtype)


def saturated(function: Any) -> Any:
    """add.sat.s32, sub.sat.s32."""

    def run(x: Any, y: Any) -> Any:
        wide = function(np.asarray(x).astype(np.int64), np.asarray(y).astype(np.int64))
        return np.clip(wide, -(1 << 31), (1 << 31) - 1).astype(np.int32)

    return run


INTEGER: dict[str, Any] = {
    "add": operator.add,
    "sub": operator.sub,
    "min": np.minimum,
    "max": np.maximum,
    "div": divide,
    "rem": remainder,
}


def integer(ins: Instruction, kernel: Kernel) -> Run:
    """add, sub, mul, div, rem, min, max, mad of integers."""
    name, kind = ins.op[0], ins.op[-1]
    if kind in ("u16x2", "s16x2"):
        return _pairs(ins, kernel, kind)
    if name in ("mul", "mad", "mul24", "mad24"):
        return _multiply(ins, kernel, kind)
    function: Any = INTEGER[name]
    if "sat" in ins.op:
        function = saturated(function)
    return simple(ins, kernel, function, kind)


def _pairs(ins: Instruction, kernel: Kernel, kind: str) -> Run:
    """Two 16-bit numbers in one register."""
    function = INTEGER[ins.op[0]]
    dtype = np.int16 if kind[0] == "s" else np.uint16

    def both(x: Any, y: Any) -> Any:
        halves = [np.ascontiguousarray(v).reshape(-1).view(dtype) for v in np.broadcast_arrays(np.asarray(x), np.asarray(y))]
        return function(*halves).view(np.uint32)

    return simple(ins, kernel, both, "b32")


def _multiply(ins: Instruction, kernel: Kernel, kind: str) -> Run:
    names, op = kernel.names, ins.op
    x, y = names.read(ins.operands[1], kind), names.read(ins.operands[2], kind)
    dtype = TYPES[kind]
    result = kind
    if "wide" in op:
        wide = WIDER[dtype]
        result = f"{kind[0]}{2 * int(kind[1:])}"

        def product(w: Wave) -> Any:
            return x(w).astype(wide) * y(w).astype(wide)
    elif "hi" in op:

        def product(w: Wave) -> Any:
            return high_half(x(w), y(w))
    else:

        def product(w: Wave) -> Any:
            return x(w) * y(w)

    write = names.write(ins.operands[0], result)
    if op[0].startswith("mul"):
        return lambda w: write(w, product(w))
    z = names.read(ins.operands[3], result)
    return lambda w: write(w, product(w) + z(w))


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
    if ins.op[0] != "dp4a":
        raise unknown(ins)
    names = kernel.names
    signed = [np.int8 if k == "s32" else np.uint8 for k in ins.op[-2:]]
    write = names.write(ins.operands[0], "b32")
    a, b, c = (names.read(o, "b32") for o in ins.operands[1:4])

    def run(w: Wave) -> None:
        x, y, z = np.broadcast_arrays(*(np.atleast_1d(v(w)) for v in (a, b, c)))
        left, right = (np.ascontiguousarray(v).view(t).reshape(-1, 4).astype(np.int64) for v, t in zip((x, y), signed))
        write(w, ((left * right).sum(axis=1) + z.view(np.int32)).astype(np.int64).astype(np.uint32))

    return run


# --- comparing and choosing ------------------------------------------------------------------------------------------------
def _unordered(f: Any) -> Any:
    return lambda x, y: ~f(x, y)


COMPARE: dict[str, Any] = {
    "eq": operator.eq,
    "ne": lambda x, y: (x != y) & ~(np.isnan(x) | np.isnan(y)) if np.asarray(x).dtype.kind == "f" else x != y,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "lo": operator.lt,
    "ls": operator.le,
    "hi": operator.gt,
    "hs": operator.ge,
    "equ": lambda x, y: (x == y) | np.isnan(x) | np.isnan(y),
    "neu": operator.ne,
    "ltu": _unordered(operator.ge),
    "leu": _unordered(operator.gt),
    "gtu": _unordered(operator.le),
    "geu": _unordered(operator.lt),
    "num": lambda x, y: ~(np.isnan(x) | np.isnan(y)),
    "nan": lambda x, y: np.isnan(x) | np.isnan(y),
}
COMBINE = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}


def flushed(read: Read) -> Read:
    """Small numbers read as zeros, as .ftz says."""

    def run(w: Wave) -> Any:
        return flush(read(w))

    return run


def flush(x: Any) -> Any:
    """Subnormal f32 numbers become zeros of their sign."""
    return np.where(np.abs(x) < np.float32(1.1754944e-38), np.copysign(np.float32(0), x), x)


def comparison(ins: Instruction, kernel: Kernel) -> Read:
    """What setp and set compute before they combine it."""
    kind = ins.op[-1]
    x, y = (kernel.names.read(o, kind) for o in ins.operands[1:3])
    if kind == "bf16":
        x, y = bf16_read(x), bf16_read(y)
    if "ftz" in ins.op and kind == "f32":
        x, y = flushed(x), flushed(y)
    function = COMPARE[next(p for p in ins.op[1:] if p in COMPARE)]
    return lambda w: function(x(w), y(w))


def bf16_read(x: Read) -> Read:
    return lambda w: (np.asarray(x(w)).astype(np.uint32) << np.uint32(16)).view(np.float32)


@builds("setp")
def _set_predicate(ins: Instruction, kernel: Kernel) -> Built:
    names = kernel.names
    compare = comparison(ins, kernel)
    first, _, second = ins.operands[0].partition("|")
    write = names.write(first, "pred")
    other = names.write(second, "pred") if second else None
    combine = next((COMBINE[p] for p in ins.op[2:] if p in COMBINE), None)
    with_ = names.predicate(ins.operands[3]) if combine else None

    def run(w: Wave) -> None:
        found = np.asarray(compare(w))
        if combine is None or with_ is None:
            write(w, found)
            if other is not None:
                other(w, ~found)
            return
        p = with_(w)
        write(w, combine(found, p))
        if other is not None:
            other(w, combine(~found, p))

    return run


@builds("set")
def _set(ins: Instruction, kernel: Kernel) -> Built:
    names, kind = kernel.names, ins.op[-2]
    compare = comparison(ins, kernel)
    write = names.write(ins.operands[0], kind)
    yes: Any = np.float32(1) if kind == "f32" else TYPES[kind](-1 if kind[0] == "s" else (1 << int(kind[1:])) - 1)
    combine = next((COMBINE[p] for p in ins.op[2:] if p in COMBINE), None)
    with_ = names.predicate(ins.operands[3]) if combine else None

    def run(w: Wave) -> None:
        found = compare(w)
        if combine is not None and with_ is not None:
            found = combine(found, with_(w))
        write(w, np.where(found, yes, type(yes)(0)))

    return run


@builds("selp")
def _select(ins: Instruction, kernel: Kernel) -> Built:
    names, kind = kernel.names, ins.op[-1]
    write, x, y = names.write(ins.operands[0], kind), names.read(ins.operands[1], kind), names.read(ins.operands[2], kind)
    p = names.predicate(ins.operands[3])
    return lambda w: write(w, np.where(p(w), x(w), y(w)))


@builds("slct")
def _select_by_sign(ins: Instruction, kernel: Kernel) -> Built:
    names, kind = kernel.names, ins.op[-2]
    write, x, y = names.write(ins.operands[0], kind), names.read(ins.operands[1], kind), names.read(ins.operands[2], kind)
    sign = names.read(ins.operands[3], ins.op[-1])
    return lambda w: write(w, np.where(sign(w) >= 0, x(w), y(w)))


@builds("mov")
def _move(ins: Instruction, kernel: Kernel) -> Built:
    """Copies, and packing of small registers into a large one and back."""
    names, kind = kernel.names, ins.op[-1]
    target, source = ins.operands
    if source.startswith("{"):
        parts = names.vector(source)
        each = f"b{int(kind[1:]) // len(parts)}"
        reads = [names.read(p, each) for p in parts]
        write = names.write(target, kind)
        small = TYPES[each]
        whole = TYPES[kind]

        def pack(w: Wave) -> None:
            out = np.empty((w.n, len(reads)), small)
            for i, x in enumerate(reads):
                out[:, i] = x(w)
            write(w, out.view(whole).reshape(-1))

        return pack
    if target.startswith("{"):
        parts = names.vector(target)
        each = f"b{int(kind[1:]) // len(parts)}"
        writes = [names.write(p, each) for p in parts]
        read = names.read(source, kind)
        small = TYPES[each]

        def unpack(w: Wave) -> None:
            value = np.ascontiguousarray(np.broadcast_to(read(w), (w.n,))).view(small).reshape(w.n, -1)
            for i, put in enumerate(writes):
                put(w, value[:, i])

        return unpack
    inner, _, offset = source.partition("+")
    if offset and inner in names.addresses:
        address = np.uint64(names.addresses[inner] + int(offset, 0)).astype(TYPES[kind])
        write = names.write(target, kind)
        return lambda w: write(w, address)
    return simple(ins, kernel, lambda x: x, kind, 1)

