"""Floating-point instructions, in f16, bf16, f32 and f64, and pairs of halves in one register.

In:  add, sub, mul, div, fma, min, max, sqrt, ex2 … of floating types.  Out: closures (instructions.py).
Every result is rounded once, as the mode says; the approximations of the hardware (ex2.approx and the like, errors near 2 ulp)
are computed in f64 and rounded, so a result here may be closer to the truth than on a GPU. Read next: exact.py, conversions.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsl.emulator.arithmetic import applied, integer
from kdsl.emulator.carries import with_carry
from kdsl.emulator.comparisons import flush
from kdsl.emulator.exact import directed, fma_f64, odd_sum, to_bf16
from kdsl.emulator.instructions import Built, Run, builds, unknown
from kdsl.emulator.parse import Instruction
from kdsl.emulator.registers import Read, Write
from kdsl.emulator.wave import Wave

if TYPE_CHECKING:
    from kdsl.emulator.kernel import Kernel

KINDS = {"f16", "bf16", "f32", "f64", "f16x2", "bf16x2"}
MODES = {"rz", "rm", "rp"}


def read_floats(kernel: Kernel, operand: str, kind: str, ftz: bool) -> Read:
    """The operand as f32 or f64 numbers; pairs as rows of two."""
    x = kernel.names.read(operand, kind)
    if kind == "f16":
        return lambda w: np.asarray(x(w)).astype(np.float32)
    if kind == "bf16":
        return lambda w: (np.asarray(x(w)).astype(np.uint32) << np.uint32(16)).view(np.float32)
    if kind == "f16x2":
        return lambda w: halves(x(w)).view(np.float16).astype(np.float32)
    if kind == "bf16x2":
        return lambda w: (halves(x(w)).astype(np.uint32) << np.uint32(16)).view(np.float32)
    if ftz and kind == "f32":
        return lambda w: flush(x(w))
    return x


def halves(x: Any) -> Any:
    """Words as rows of (low, high)."""
    return np.ascontiguousarray(np.atleast_1d(x)).view(np.uint16).reshape(-1, 2)


def write_floats(kernel: Kernel, operand: str, kind: str, ftz: bool, sat: bool, relu: bool = False) -> Write:
    """Put f32 or f64 numbers, rounded to the type."""
    put = kernel.names.write(operand, kind)

    def write(w: Wave, value: Any) -> None:
        if sat:
            value = np.where(np.isnan(value), 0, np.clip(value, 0, 1)).astype(np.asarray(value).dtype)
        if relu:
            value = np.where(value > 0, value, np.where(np.isnan(value), value, 0)).astype(np.asarray(value).dtype)
        if kind == "f32":
            value = value if value.dtype == np.float32 else value.astype(np.float32)
            put(w, flush(value) if ftz else value)
        elif kind == "f64":
            put(w, value)
        elif kind == "f16":
            put(w, value.astype(np.float16))
        elif kind == "bf16":
            put(w, to_bf16(value))
        else:
            words = value.astype(np.float16).view(np.uint16) if kind == "f16x2" else to_bf16(value)
            put(w, np.ascontiguousarray(words).view(np.uint32).reshape(-1))

    return write


def floating(ins: Instruction, kernel: Kernel, function: Any, count: int) -> Run:
    """d = function(a, b …) on numbers wide enough that one rounding follows."""
    kind = ins.op[-1]
    if kind not in KINDS:
        raise unknown(ins)
    ftz, sat = "ftz" in ins.op, "sat" in ins.op
    write = write_floats(kernel, ins.operands[0], kind, ftz, sat, "relu" in ins.op)
    reads = [read_floats(kernel, o, kind, ftz) for o in ins.operands[1 : 1 + count]]
    return applied(function, write, reads)


def smaller(x: Any, y: Any) -> Any:
    """The minimum; of zeros the negative one."""
    return _extreme(np.fmin, np.bitwise_or, x, y)


def larger(x: Any, y: Any) -> Any:
    return _extreme(np.fmax, np.bitwise_and, x, y)


def _extreme(choose: Any, zeros: Any, x: Any, y: Any) -> Any:
    x, y = np.asarray(x), np.asarray(y)
    bits = np.uint32 if x.dtype.itemsize == 4 else np.uint64
    return np.where(x == y, zeros(x.view(bits), y.view(bits)).view(x.dtype), choose(x, y))


def with_nan(function: Any) -> Any:
    """A NaN among the operands is the result."""
    return lambda x, y: np.where(np.isnan(x) | np.isnan(y), np.asarray(x).dtype.type(np.nan), function(x, y))


def fma(ins: Instruction) -> Any:
    """x * y + z, rounded once."""
    kind, mode = ins.op[-1], next((p for p in ins.op if p in MODES), "rn")
    if kind == "f64":
        if mode != "rn":
            raise unknown(ins)
        return fma_f64

    def run(x: Any, y: Any, z: Any) -> Any:
        product = np.asarray(x).astype(np.float64) * y
        if mode != "rn":
            return directed(product, np.asarray(z).astype(np.float64), mode)
        return odd_sum(product, z, kind)

    return run


def directed_function(ins: Instruction, name: str, mode: str) -> Any:
    """add, sub, mul and the like in f32, rounded towards zero, down or up."""
    if ins.op[-1] != "f32":
        raise unknown(ins)
    zero = np.float64(0)
    functions: dict[str, Callable[..., Any]] = {
        "add": lambda x, y: directed(wide(x), wide(y), mode),
        "sub": lambda x, y: directed(wide(x), -wide(y), mode),
        "mul": lambda x, y: directed(wide(x) * wide(y), zero, mode),
        "div": lambda x, y: directed(wide(x) / wide(y), zero, mode),
        "rcp": lambda x: directed(1 / wide(x), zero, mode),
        "sqrt": lambda x: directed(np.sqrt(wide(x)), zero, mode),
    }
    return functions[name]


def wide(x: Any) -> Any:
    return np.asarray(x).astype(np.float64)


BINARY: dict[str, Any] = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "min": smaller, "max": larger}


@builds("add", "sub", "mul", "div", "rem", "min", "max", "mad", "mul24", "mad24")
def _arithmetic(ins: Instruction, kernel: Kernel) -> Built:
    if ins.op[-1] not in KINDS:
        return with_carry(ins, kernel) if "cc" in ins.op else integer(ins, kernel)
    name = ins.op[0]
    if name == "mad":
        return floating(ins, kernel, fma(ins), 3)
    mode = next((p for p in ins.op if p in MODES), None)
    function = directed_function(ins, name, mode) if mode else BINARY[name]
    if "NaN" in ins.op:
        function = with_nan(function)
    if len(ins.operands) > 3 or "xorsign" in ins.op:
        raise unknown(ins)
    return floating(ins, kernel, function, 2)


@builds("fma")
def _fma(ins: Instruction, kernel: Kernel) -> Built:
    return floating(ins, kernel, fma(ins), 3)


def precisely(function: Any) -> Any:
    """A function of f32 numbers computed in f64."""
    return lambda x: function(np.asarray(x).astype(np.float64)).astype(np.asarray(x).dtype)


UNARY: dict[str, Any] = {
    "sqrt": np.sqrt,
    "rcp": np.reciprocal,
    "rsqrt": precisely(lambda x: 1 / np.sqrt(x)),
    "ex2": precisely(np.exp2),
    "lg2": precisely(np.log2),
    "sin": precisely(np.sin),
    "cos": precisely(np.cos),
    "tanh": precisely(np.tanh),
}


@builds(*UNARY)
def _function(ins: Instruction, kernel: Kernel) -> Built:
    name = ins.op[0]
    mode = next((p for p in ins.op if p in MODES), None)
    return floating(ins, kernel, directed_function(ins, name, mode) if mode else UNARY[name], 1)


@builds("neg", "abs")
def _sign(ins: Instruction, kernel: Kernel) -> Built:
    function = np.negative if ins.op[0] == "neg" else np.abs
    if ins.op[-1] in KINDS:
        return floating(ins, kernel, function, 1)
    names, kind = kernel.names, ins.op[-1]
    write, x = names.write(ins.operands[0], kind), names.read(ins.operands[1], kind)
    return lambda w: write(w, function(x(w)))


@builds("copysign")
def _copy_sign(ins: Instruction, kernel: Kernel) -> Built:
    return floating(ins, kernel, lambda sign, x: np.copysign(x, sign), 2)


@builds("testp")
def _test(ins: Instruction, kernel: Kernel) -> Built:
    kind = ins.op[-1]
    tiny = np.finfo(np.float32 if kind == "f32" else np.float64).tiny
    functions: dict[str, Any] = {
        "finite": np.isfinite,
        "infinite": np.isinf,
        "number": lambda x: ~np.isnan(x),
        "notanumber": np.isnan,
        "normal": lambda x: np.isfinite(x) & (np.abs(x) >= tiny),
        "subnormal": lambda x: (np.abs(x) < tiny) & (x != 0),
    }
    function = functions[ins.op[1]]
    write, x = kernel.names.write(ins.operands[0], "pred"), kernel.names.read(ins.operands[1], kind)
    return lambda w: write(w, function(x(w)))
