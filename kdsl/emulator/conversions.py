"""cvt: from any number type to any other, with every rounding the instruction knows.

In:  cvt.rn.f16.f32, cvt.rzi.s32.f64, cvt.rn.bf16x2.f32 and so on.  Out: closures (instructions.py).
A float beyond an integer's range gives the nearest end of it; a NaN gives 0, or the highest bit alone where f64 or
64-bit integers take part, as the PTX manual says. Read before: exact.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kdsl.emulator.comparisons import flush
from kdsl.emulator.exact import directed, to_bf16
from kdsl.emulator.instructions import Built, builds, unknown
from kdsl.emulator.parse import Instruction
from kdsl.emulator.registers import TYPES
from kdsl.emulator.wave import Wave

if TYPE_CHECKING:
    from kdsl.emulator.kernel import Kernel

TO_INTEGER = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}
FLOATS = {"f16", "bf16", "f32", "f64", "tf32"}


@builds("cvt")
def _convert(ins: Instruction, kernel: Kernel) -> Built:
    kinds = [p for p in ins.op[1:] if p in TYPES]
    if len(kinds) != 2 or "pack" in ins.op:
        raise unknown(ins)
    to, source = kinds
    names = kernel.names
    if to in ("f16x2", "bf16x2"):
        return _pair(ins, kernel, to)
    write, x = names.write(ins.operands[0], to), names.read(ins.operands[1], source)
    if source in FLOATS and to in FLOATS:
        convert = _float_to_float(ins, to, source)
    elif source in FLOATS:
        convert = _float_to_integer(ins, to, source)
    elif to in FLOATS:
        convert = _integer_to_float(ins, to, source)
    else:
        convert = _integer_to_integer("sat" in ins.op, to)
    return lambda w: write(w, convert(np.asarray(x(w))))


def widened(kind: str) -> Any:
    """bits of bf16 as numbers; others are numbers already."""
    if kind == "bf16":
        return lambda x: (x.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if kind == "tf32":
        return lambda x: x.view(np.float32)
    return lambda x: x


def _integer_to_integer(saturates: bool, to: str) -> Any:
    dtype = np.dtype(TYPES[to])

    def run(x: Any) -> Any:
        if saturates:
            low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
            own = np.iinfo(x.dtype)
            x = np.clip(x, max(low, int(own.min)), min(high, int(own.max)))
        return x.astype(dtype)

    return run


def _integer_to_float(ins: Instruction, to: str, source: str) -> Any:
    mode = next((p for p in ins.op if p in ("rn", "rz", "rm", "rp")), "rn")

    def run(x: Any) -> Any:
        if to == "f32" and mode != "rn":
            high = (x.astype(np.float64)) if x.dtype.itemsize < 8 else None
            if high is None:
                raise unknown(ins)
            return directed(high, 0.0, mode)
        if to == "bf16":
            return to_bf16(x.astype(np.float64))
        return x.astype(np.float64).astype(np.float16) if to == "f16" else x.astype(TYPES[to])

    return run


def _float_to_integer(ins: Instruction, to: str, source: str) -> Any:
    dtype = np.dtype(TYPES[to])
    rounding = next((f for p, f in TO_INTEGER.items() if p in ins.op), np.trunc)
    limits = np.iinfo(dtype)
    low, high = np.float64(limits.min), np.float64(limits.max)
    nan = 1 << (8 * dtype.itemsize - 1) if source == "f64" or dtype.itemsize == 8 else 0
    nan_value = np.array(nan, f"u{dtype.itemsize}").view(dtype)
    number = widened(source)

    def run(x: Any) -> Any:
        value = number(x)
        if "ftz" in ins.op and source == "f32":
            value = flush(value)
        value = rounding(value.astype(np.float64))
        inside = (value >= low) & (value < high if dtype.itemsize == 8 else value <= high)
        whole = np.where(inside, value, 0).astype(dtype)
        out = np.where(inside, whole, np.where(value > 0, dtype.type(limits.max), dtype.type(limits.min)))
        return np.where(np.isnan(value), nan_value, out)

    return run


def _float_to_float(ins: Instruction, to: str, source: str) -> Any:
    whole = next((f for p, f in TO_INTEGER.items() if p in ins.op), None)
    mode = next((p for p in ins.op if p in ("rn", "rz", "rm", "rp", "rna")), "rn")
    number = widened(source)

    def run(x: Any) -> Any:
        value = number(x)
        if "ftz" in ins.op and source == "f32":
            value = flush(value)
        if whole is not None:
            value = whole(value)
        if "sat" in ins.op:
            value = np.where(np.isnan(value), 0, np.clip(value, 0, 1)).astype(value.dtype)
        if "relu" in ins.op:
            value = np.where(value < 0, 0, value).astype(value.dtype)
        if to == "bf16":
            return to_bf16(value, mode)
        if to == "tf32":
            return round_tf32(value, mode)
        if to == "f32" and source == "f64":
            value = value.astype(np.float32) if mode == "rn" else directed(value, 0.0, mode)
            return flush(value) if "ftz" in ins.op else value
        if to == "f16" and mode != "rn":
            return _directed_f16(value, mode)
        return value.astype(TYPES[to])

    return run


def round_tf32(value: Any, mode: str) -> Any:
    """The 19 upper bits of an f32; rna rounds halves away from zero."""
    bits = np.ascontiguousarray(value).view(np.uint32)
    if mode == "rna":
        bits = bits + np.uint32(0x1000)
    elif mode == "rn":
        bits = bits + np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1))
    return np.where(np.isnan(value), np.uint32(0x7FFFFFFF), bits & np.uint32(0xFFFFE000))


def _directed_f16(value: Any, mode: str) -> Any:
    near = value.astype(np.float16)
    back = near.astype(value.dtype)
    down, up = np.nextafter(near, np.float16(-np.inf)), np.nextafter(near, np.float16(np.inf))
    lower, upper = np.where(back > value, down, near), np.where(back < value, up, near)
    return {"rm": lower, "rp": upper, "rz": np.where(value >= 0, lower, upper)}[mode]


def _pair(ins: Instruction, kernel: Kernel, to: str) -> Built:
    """Two f32 numbers into one register, the first operand into the upper half."""
    names = kernel.names
    write = names.write(ins.operands[0], "b32")
    high, low = names.read(ins.operands[1], "f32"), names.read(ins.operands[2], "f32")
    relu = "relu" in ins.op
    mode = "rz" if "rz" in ins.op else "rn"

    def half(x: Any) -> Any:
        x = np.asarray(x)
        if relu:
            x = np.where(x < 0, np.float32(0), x)
        if to == "bf16x2":
            return to_bf16(x, mode)
        return (x.astype(np.float16) if mode == "rn" else _directed_f16(x, mode)).view(np.uint16)

    def run(w: Wave) -> None:
        write(w, half(low(w)).astype(np.uint32) | (half(high(w)).astype(np.uint32) << np.uint32(16)))

    return run
