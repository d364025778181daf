"""Integer arithmetic: what NumPy says in one word, and what division, high halves and saturation are on a GPU.

In:  instructions such as add.s32, mul.wide.u32, div.s64.  Out: closures (instructions.py).
Read before: instructions.py. Read next: bits.py, comparisons.py, floating.py.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsl.emulator.instructions import Run
from kdsl.emulator.parse import Instruction
from kdsl.emulator.registers import TYPES
from kdsl.emulator.wave import Wave

if TYPE_CHECKING:
    from kdsl.emulator.kernel import Kernel

WIDER = {np.int16: np.int32, np.uint16: np.uint32, np.int32: np.int64, np.uint32: np.uint64}


def simple(ins: Instruction, kernel: Kernel, function: Any, kind: str, count: int = 2) -> Run:
    """d = function(a, b …), all of one type."""
    names = kernel.names
    write = names.write(ins.operands[0], kind)
    reads = [names.read(o, kind) for o in ins.operands[1 : 1 + count]]
    return applied(function, write, reads)


def applied(function: Any, write: Any, reads: Sequence[Any]) -> Run:
    """What writes the function of one to three operands."""
    if len(reads) == 1:
        (x,) = reads
        return lambda w: write(w, function(x(w)))
    if len(reads) == 2:
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
