"""Registers as arrays with one element for each thread, and the operands of instructions as functions that read and write them.

In:  a Flat kernel.  Out: Names: `read(operand, type)` and `write(operand, type)` make functions of a Wave.
A register read under another type (f32 bits as b32, the low half of a word) is a second view of the same memory with a slot of
its own, so that an instruction at run time only looks slots up. Read before: flatten.py. Read next: wave.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsl.emulator.flatten import Flat
from kdsl.emulator.parse import literal, split, type_bytes
from kdsl.errors import EmulatorError

if TYPE_CHECKING:
    from kdsl.emulator.wave import Wave

Read = Callable[["Wave"], Any]
Write = Callable[["Wave", Any], None]

TYPES: dict[str, Any] = {
    "pred": np.bool_,
    "b8": np.uint8,
    "u8": np.uint8,
    "s8": np.int8,
    "b16": np.uint16,
    "u16": np.uint16,
    "s16": np.int16,
    "f16": np.float16,
    "bf16": np.uint16,
    "b32": np.uint32,
    "u32": np.uint32,
    "s32": np.int32,
    "f32": np.float32,
    "tf32": np.uint32,
    "f16x2": np.uint32,
    "bf16x2": np.uint32,
    "b64": np.uint64,
    "u64": np.uint64,
    "s64": np.int64,
    "f64": np.float64,
}
UNSIGNED: dict[int, Any] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
SHARED_WINDOW = 1 << 56  # generic addresses of shared, local and parameter memory begin here
LOCAL_WINDOW = 1 << 57
PARAMETER_WINDOW = 1 << 58


class Names:
    """What the operands of one kernel mean."""

    def __init__(self, flat: Flat, addresses: dict[str, int]) -> None:
        self.flat = flat
        self.addresses = addresses  # of variables, each in its own space
        self.slots: dict[tuple[str, Any], int] = {}

    def width(self, register: str) -> int:
        """Bytes of a declared register."""
        kind = self.flat.registers.get(register)
        if kind is None:
            kind = self.flat.registers.get(re.sub(r"\d+$", "", register) + "<")
        if kind is None:
            raise EmulatorError(f"{register} is not declared in {self.flat.name}", location=False)
        return type_bytes(kind)

    def is_register(self, operand: str) -> bool:
        return operand in self.flat.registers or re.sub(r"\d+$", "", operand) + "<" in self.flat.registers

    def slot(self, register: str, dtype: Any) -> int:
        return self.slots.setdefault((register, np.dtype(dtype)), len(self.slots))

    def read(self, operand: str, kind: str) -> Read:
        """A function that gives the operand's values for the running threads."""
        dtype = TYPES[kind]
        if self.is_register(operand) or operand.startswith("%"):
            if operand.startswith("-"):
                raise EmulatorError(f"an operand that is not understood: {operand}", location=False)
            i = self.slot(operand, dtype)
            return lambda w: w.R[i][w.at]
        bits = self.addresses[operand] if operand in self.addresses else literal(operand, kind)
        if kind == "pred":
            value: Any = np.bool_(bits)
        else:
            width = np.dtype(dtype).itemsize
            value = UNSIGNED[width](bits & ((1 << 8 * width) - 1)).view(dtype)
        return lambda w: value

    def predicate(self, operand: str) -> Read:
        """A predicate operand, perhaps with a ! before it."""
        if operand.startswith("!"):
            x = self.read(operand[1:].strip(), "pred")
            return lambda w: ~x(w)
        return self.read(operand, "pred")

    def write(self, operand: str, kind: str) -> Write:
        """A function that puts values into a register; a narrower type is extended by its sign or with zeros."""
        if operand == "_":
            return lambda w, value: None
        dtype = np.dtype(TYPES[kind])
        width = self.width(operand)
        if dtype != np.bool_ and width > dtype.itemsize:
            wide = np.dtype(f"{'i' if dtype.kind == 'i' else 'u'}{width}")
            i = self.slot(operand, wide)
            if dtype.kind == "f":
                bits = UNSIGNED[dtype.itemsize]

                def extend(w: Wave, value: Any) -> None:
                    w.R[i][w.at] = np.asarray(value).view(bits)

                return extend
        else:
            i = self.slot(operand, dtype)

        def put(w: Wave, value: Any) -> None:
            w.R[i][w.at] = value

        return put

    def vector(self, operand: str) -> list[str]:
        """The parts of {a, b, c}, or the operand alone."""
        return split(operand[1:-1]) if operand.startswith("{") else [operand]

    def address(self, operand: str) -> Read:
        """The int64 addresses of [register + offset] or [variable + offset]."""
        inside = operand.strip()[1:-1].strip()
        base, _, text = inside.partition("+")
        base, offset = base.strip(), int(text, 0) if text.strip() else 0
        if base in self.addresses:
            constant = np.int64(self.addresses[base] + offset)
            return lambda w: np.full(w.n, constant)
        if not self.is_register(base):
            fixed = np.int64(int(base, 0) + offset)
            return lambda w: np.full(w.n, fixed)
        if self.width(base) == 8:
            i = self.slot(base, np.int64)
            if not offset:
                return lambda w: w.R[i][w.at]
            return lambda w: w.R[i][w.at] + offset
        i = self.slot(base, np.uint32)
        return lambda w: w.R[i][w.at].astype(np.int64) + offset

    def make(self, lanes: int, special: Callable[[str], Any]) -> list[Any]:
        """The register file of a wave: the array of each slot, views of one array for each register."""
        bases: dict[str, Any] = {}
        out = []
        for register, dtype in self.slots:
            if register not in bases:
                if self.is_register(register):
                    width = self.width(register)
                    is_predicate = dtype == np.bool_
                    bases[register] = np.zeros(lanes, np.bool_ if is_predicate else UNSIGNED[width])
                else:
                    bases[register] = special(register)
            base = bases[register]
            if base.dtype.itemsize > dtype.itemsize:
                base = base.view(f"u{dtype.itemsize}")[:: base.dtype.itemsize // dtype.itemsize]
            elif base.dtype.itemsize < dtype.itemsize:
                if self.is_register(register):
                    raise EmulatorError(f"{register} is read as {dtype}, which is wider", location=False)
                base = base.astype(f"u{dtype.itemsize}")
            out.append(base.view(dtype))
        return out
