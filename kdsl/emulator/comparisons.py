"""Comparing, choosing and moving.

In:  setp, set, selp, slct, mov (which also packs registers into a wider one).  Out: closures (instructions.py).
Read before: arithmetic.py. Read next: floating.py.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsl.emulator.arithmetic import simple
from kdsl.emulator.instructions import Built, builds
from kdsl.emulator.parse import Instruction
from kdsl.emulator.registers import TYPES, Read
from kdsl.emulator.wave import Wave

if TYPE_CHECKING:
    from kdsl.emulator.kernel import Kernel


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

