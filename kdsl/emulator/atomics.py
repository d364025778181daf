"""Atomic operations: each thread's turn comes after the other, in the order of thread numbers.

In:  atom, red, in global and shared memory.  Out: closures. Atomic operations do not race with each other, but they do with plain
reads and writes that nothing orders. A GPU takes the turns in any order, so sums of floats may differ there from run to run.
Read before: access.py, races.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kdsl.emulator.access import by_window, for_some, space_of
from kdsl.emulator.exact import to_bf16
from kdsl.emulator.floating import larger, smaller
from kdsl.emulator.instructions import Built, builds, unknown
from kdsl.emulator.parse import Instruction
from kdsl.emulator.registers import TYPES, UNSIGNED
from kdsl.emulator.wave import Wave

if TYPE_CHECKING:
    from kdsl.emulator.kernel import Kernel


def _wrapping_increment(old: Any, limit: Any) -> Any:
    return np.where(old >= limit, 0, old + 1).astype(old.dtype)


def _wrapping_decrement(old: Any, limit: Any) -> Any:
    return np.where((old == 0) | (old > limit), limit, old - 1).astype(old.dtype)


def _bf16(function: Any) -> Any:
    def run(x: Any, y: Any) -> Any:
        wide = [(np.asarray(v).astype(np.uint32) << np.uint32(16)).view(np.float32) for v in (x, y)]
        return to_bf16(function(*wide))

    return run


def _pairs(function: Any, dtype: Any) -> Any:
    def run(x: Any, y: Any) -> Any:
        halves = [np.ascontiguousarray(np.atleast_1d(v)).view(dtype) for v in (x, y)]
        return np.ascontiguousarray(function(*halves)).view(np.uint32)

    return run


def function_of(ins: Instruction, name: str, kind: str) -> Any:
    """(old, operand) -> new."""
    plain: dict[str, Any] = {
        "add": np.add,
        "min": smaller if kind[0] == "f" else np.minimum,
        "max": larger if kind[0] == "f" else np.maximum,
        "and": np.bitwise_and,
        "or": np.bitwise_or,
        "xor": np.bitwise_xor,
        "exch": lambda old, new: new,
        "inc": _wrapping_increment,
        "dec": _wrapping_decrement,
    }
    if name not in plain:
        raise unknown(ins)
    if kind == "bf16":
        return _bf16(plain[name])
    if kind == "f16x2":
        return _pairs(plain[name], np.float16)
    if kind == "bf16x2":
        return _pairs(_bf16(plain[name]), np.uint16)
    return plain[name]


@builds("atom", "red")
def _atomic(ins: Instruction, kernel: Kernel) -> Built:
    if ins.op[1] == "async":
        raise unknown(ins)
    names, kind = kernel.names, ins.op[-1]
    operations = {"add", "min", "max", "and", "or", "xor", "exch", "inc", "dec", "cas"}
    name = next(p for p in ins.op[1:] if p in operations)
    operands = list(ins.operands)
    write = names.write(operands.pop(0), kind) if ins.op[0] == "atom" else None
    if any(o.startswith("{") for o in operands):
        raise unknown(ins)
    address = names.address(operands[0])
    values = [names.read(o, kind) for o in operands[1:]]
    space = space_of(ins)
    dtype = np.dtype(TYPES[kind])
    function = None if name == "cas" else function_of(ins, name, kind)

    def turn(w: Wave, where: str, at: Any, given: list[Any]) -> Any:
        size = dtype.itemsize
        if where == "shared":
            index = w.shared.index(w, at, size, "updates")
            w.shared.check_atomic(w, index, size)
            view = w.shared.view("data", size, 1)
        else:
            index = w.memory.check_atomic(w, at, size)
            view = w.memory.view("data", size, 1)
        cells = index // size
        bits = UNSIGNED[size]
        old = view[cells].view(dtype)
        if len(np.unique(cells)) == len(cells):
            new = np.where(old == given[0], given[1], old) if function is None else function(old, given[0])
            view[cells] = np.asarray(new, dtype).view(bits)
            return old
        for i, cell in enumerate(cells):  # one after the other
            old[i] = view[cell : cell + 1].view(dtype)[0]
            operand = [g[i : i + 1] for g in given]
            if function is None:
                new = operand[1] if old[i] == operand[0][0] else old[i : i + 1]
            else:
                new = function(old[i : i + 1], operand[0])
            view[cell] = np.asarray(new, dtype).view(bits)[0]
        return old

    def run(w: Wave) -> None:
        at = address(w)
        given = [np.broadcast_to(v(w), (w.n,)) for v in values]
        parts = by_window(w, at) if space == "generic" else [(None, space, at)]
        for mask, where, place in parts:
            with for_some(w, mask):
                some = given if mask is None else [g[mask] for g in given]
                old = turn(w, where, place if mask is None else place[mask], some)
                if write is not None:
                    write(w, old)

    return run
