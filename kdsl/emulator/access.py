"""Loads, stores and addresses: which memory an instruction means, and single elements or vectors of it.

In:  ld, st, ldu, cvta, isspacep.  Out: closures (instructions.py). A generic address says by its window which memory it is in.
Read before: memory.py. Read next: warps.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsl.emulator.instructions import Built, builds, unknown
from kdsl.emulator.memory import CONSTANT_READ, PLAIN, STRONG
from kdsl.emulator.parse import Instruction
from kdsl.emulator.registers import LOCAL_WINDOW, PARAMETER_WINDOW, SHARED_WINDOW, TYPES, UNSIGNED
from kdsl.emulator.wave import Wave

if TYPE_CHECKING:
    from kdsl.emulator.kernel import Kernel

WINDOWS = {"global": 0, "const": 0, "shared": SHARED_WINDOW, "local": LOCAL_WINDOW, "param": PARAMETER_WINDOW}


def space_of(ins: Instruction) -> str:
    """The memory that an instruction names; generic if it names none."""
    for part in ins.op[1:]:
        name = part.split("::")[0]
        if name in WINDOWS:
            return name
    return "generic"


def by_window(w: Wave, address: Any) -> Iterator[tuple[Any, str, Any]]:
    """The running threads by the memory that their generic addresses lie in: (mask or None, space, address there)."""
    spaces = ((PARAMETER_WINDOW, "param"), (LOCAL_WINDOW, "local"), (SHARED_WINDOW, "shared"))
    rest = np.ones(len(address), bool)
    for start, name in spaces:
        mine = rest & (address >= start) & (address < 2 * start)
        if mine.any():
            yield None if mine.all() else mine, name, address - start
            rest &= ~mine
    if rest.any():
        yield None if rest.all() else rest, "global", address


def way_of(ins: Instruction) -> str:
    """Whether an access is plain, of constant memory, or strong: never in a race with other strong ones."""
    if "nc" in ins.op or space_of(ins) == "const":
        return CONSTANT_READ
    return STRONG if {"volatile", "relaxed", "acquire", "release", "mmio"} & set(ins.op) else PLAIN


def load_from(w: Wave, space: str, address: Any, each: int, count: int, how: str) -> Any:
    if space == "shared":
        return w.shared.load(w, address, each, count, how)
    if space == "local":
        return w.local.load(w, address, each, count)
    if space == "param":
        return load_parameter(w, address, each, count)
    return w.memory.load(w, address, each, count, how)


def load_parameter(w: Wave, address: Any, each: int, count: int) -> Any:
    data = np.frombuffer(w.launch.parameters, np.uint8)
    raw = data[address[:, None] + np.arange(each * count)]
    out = np.ascontiguousarray(raw).view(UNSIGNED[each])
    return out if count > 1 else out.reshape(-1)


def store_to(w: Wave, space: str, address: Any, each: int, count: int, values: Any, how: str) -> None:
    if space == "shared":
        w.shared.store(w, address, each, count, values, how)
    elif space == "local":
        w.local.store(w, address, each, count, values)
    else:
        w.memory.store(w, address, each, count, values, how)


def for_some(w: Wave, mask: Any) -> Any:
    """Let only a part of the running threads run, inside `with`."""
    return _Some(w, mask)


class _Some:
    def __init__(self, w: Wave, mask: Any) -> None:
        self.w, self.mask = w, mask

    def __enter__(self) -> None:
        w = self.w
        self.kept = w.at, w.n
        if self.mask is not None:
            w.at = w.lanes[w.at][self.mask]
            w.n = len(w.at)

    def __exit__(self, *_: Any) -> None:
        self.w.at, self.w.n = self.kept


@builds("ld", "ldu")
def _load(ins: Instruction, kernel: Kernel) -> Built:
    names, kind = kernel.names, ins.op[-1]
    targets = names.vector(ins.operands[0])
    count, dtype = len(targets), TYPES[kind]
    each = np.dtype(dtype).itemsize
    writes = [names.write(t, kind) for t in targets]
    space = space_of(ins)
    name = ins.operands[1].strip("[]").split("+")[0].strip()
    if space == "param" and name in kernel.parameter_names:
        return _parameter(ins, kernel, writes, each, dtype)
    if space == "param":
        space = "local"  # the parameters of a call lie in local memory
    address = names.address(ins.operands[1])
    how = way_of(ins)

    def put(w: Wave, values: Any) -> None:
        if count == 1:
            writes[0](w, values.view(dtype))
            return
        for i, write in enumerate(writes):
            write(w, np.ascontiguousarray(values[:, i]).view(dtype))

    if space != "generic":
        return lambda w: put(w, load_from(w, space, address(w), each, count, how))

    def generic(w: Wave) -> None:
        for mask, where, at in by_window(w, address(w)):
            with for_some(w, mask):
                put(w, load_from(w, where, at if mask is None else at[mask], each, count, how))

    return generic


def _parameter(ins: Instruction, kernel: Kernel, writes: list[Any], each: int, dtype: Any) -> Built:
    """A parameter of the kernel: one value for all threads."""
    inside = ins.operands[1].strip("[]")
    name, _, offset = inside.partition("+")
    start = kernel.names.addresses[name.strip()] - PARAMETER_WINDOW + (int(offset, 0) if offset else 0)

    def run(w: Wave) -> None:
        for i, write in enumerate(writes):
            write(w, np.frombuffer(w.launch.parameters, dtype, 1, start + i * each)[0])

    return run


@builds("st")
def _store(ins: Instruction, kernel: Kernel) -> Built:
    names, kind = kernel.names, ins.op[-1]
    sources = names.vector(ins.operands[1])
    count = len(sources)
    each = np.dtype(TYPES[kind]).itemsize
    bits = UNSIGNED[each]
    reads = [names.read(s, f"b{8 * each}") for s in sources]
    space = space_of(ins)
    if space == "param":
        space = "local"
    address = names.address(ins.operands[0])
    how = way_of(ins)

    def values(w: Wave) -> Any:
        if count == 1:
            return reads[0](w)
        out = np.empty((w.n, count), bits)
        for i, read in enumerate(reads):
            out[:, i] = read(w)
        return out

    if space != "generic":
        return lambda w: store_to(w, space, address(w), each, count, values(w), how)

    def generic(w: Wave) -> None:
        what = values(w)
        for mask, where, at in by_window(w, address(w)):
            with for_some(w, mask):
                some = mask is None or np.ndim(what) == 0
                store_to(w, where, at if mask is None else at[mask], each, count, what if some else what[mask], how)

    return generic


@builds("cvta")
def _generic_address(ins: Instruction, kernel: Kernel) -> Built:
    names, kind = kernel.names, ins.op[-1]
    window = WINDOWS[space_of(ins)]
    write, x = names.write(ins.operands[0], kind), names.read(ins.operands[1], kind)
    name = ins.operands[1].split("+")[0].strip()
    if name in kernel.parameter_names:
        window = 0  # a parameter's address is generic already
    if not window:
        return lambda w: write(w, x(w))
    if kind != "u64":
        raise unknown(ins)
    step = np.uint64(window)
    if "to" in ins.op:
        return lambda w: write(w, x(w) - step)
    return lambda w: write(w, x(w) + step)


@builds("isspacep")
def _is_in_space(ins: Instruction, kernel: Kernel) -> Built:
    window = WINDOWS[space_of(ins)]
    write, x = kernel.names.write(ins.operands[0], "pred"), kernel.names.read(ins.operands[1], "s64")
    if not window:
        return lambda w: write(w, x(w) < SHARED_WINDOW)
    return lambda w: write(w, (x(w) >= window) & (x(w) < 2 * window))


