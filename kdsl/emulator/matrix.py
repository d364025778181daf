"""Tensor cores of one warp: matrices that lie spread over the registers of 32 threads.

In:  mma.sync, ldmatrix, stmatrix, movmatrix.  Out: closures that run with whole warps.
Where an element of A, B or C lies follows from the shape and from how many elements a register holds (PTX manual,
"Matrix fragments"): thread t of a warp is in group g = t / 4 with number q = t % 4 inside it, and
    A (m x k): row g + 8 (register % 2), column q e + i + 4 e (register / 2), for element i of e in a register
    B (k x n): row q e + i + 4 e register, column g
    C (m x n): row g + 8 (register / 2), column 2 q + register % 2
Products are summed in f32 (f64, i32) in NumPy's order, which is not the hardware's. Read before: warps.py. Read next: copies.py.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsl.emulator.access import for_some
from kdsl.emulator.instructions import Built, builds, unknown
from kdsl.emulator.memory import check_place
from kdsl.emulator.parse import Instruction
from kdsl.emulator.registers import SHARED_WINDOW, Read
from kdsl.emulator.wave import WARP, Wave
from kdsl.errors import OutOfBoundsError

if TYPE_CHECKING:
    from kdsl.emulator.kernel import Kernel

LANE = np.arange(32)
G, Q = LANE // 4, LANE % 4
# element type -> (bytes in a register, elements in a register, their dtype in the product)
ELEMENTS: dict[str, tuple[int, int, Any]] = {
    "bf16": (4, 2, np.float32),
    "f16": (4, 2, np.float32),
    "tf32": (4, 1, np.float32),
    "s8": (4, 4, np.int32),
    "u8": (4, 4, np.int32),
    "f64": (8, 1, np.float64),
}


@lru_cache
def places_a(m: int, registers: int, e: int) -> tuple[Any, Any]:
    """Rows and columns of A's elements, [lane, register * e + i]."""
    r, i = np.divmod(np.arange(registers * e), e)
    half = r % 2 if m == 16 else 0 * r
    row = G[:, None] + 8 * half
    column = Q[:, None] * e + i + 4 * e * (r // 2 if m == 16 else r)
    return row, column


@lru_cache
def places_b(registers: int, e: int) -> tuple[Any, Any]:
    r, i = np.divmod(np.arange(registers * e), e)
    row = Q[:, None] * e + i + 4 * e * r
    return row, np.broadcast_to(G[:, None], row.shape)


@lru_cache
def places_c(registers: int) -> tuple[Any, Any]:
    r = np.arange(registers)
    return G[:, None] + 8 * (r // 2), Q[:, None] * 2 + r % 2


def elements(words: Any, kind: str) -> Any:
    """Registers [warp, lane, register] as numbers [warp, lane, register * e]."""
    flat = (*words.shape[:2], -1)
    if kind == "bf16":
        return (words.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32).reshape(flat)
    if kind == "f16":
        return words.view(np.float16).astype(np.float32).reshape(flat)
    if kind == "tf32":
        return (words & np.uint32(0xFFFFE000)).view(np.float32).reshape(flat)
    if kind in ("s8", "u8"):
        return words.view(np.int8 if kind == "s8" else np.uint8).astype(np.int32).reshape(flat)
    return words.reshape(flat)


def gathered(w: Wave, reads: list[Read], dtype: Any) -> Any:
    """The registers of whole warps as [warp, lane, register]."""
    out = np.empty((w.n, len(reads)), dtype)
    for i, read in enumerate(reads):
        out[:, i] = read(w)
    return out.reshape(-1, 32, len(reads))


@builds("mma")
def _mma(ins: Instruction, kernel: Kernel) -> Built:
    shape = next(re.fullmatch(r"m(\d+)n(\d+)k(\d+)", p) for p in ins.op if re.fullmatch(r"m(\d+)n(\d+)k(\d+)", p))
    assert shape is not None
    m, n, k = (int(x) for x in shape.groups())
    kind_d, kind_a, kind_b, kind_c = ins.op[-4:]
    if kind_a not in ELEMENTS or kind_b not in ELEMENTS or n != 8 or "sp" in ins.op or (m, kind_a) == (8, "f16"):
        raise unknown(ins)
    names = kernel.names
    size, e, number = ELEMENTS[kind_a]
    d, a, b, c = (names.vector(o) for o in ins.operands)
    word = "b64" if size == 8 else "b32"
    read_a, read_b = ([names.read(x, "f64" if size == 8 else word) for x in part] for part in (a, b))
    dtype = np.float64 if size == 8 else np.uint32
    at_a, at_b = places_a(m, len(a), e), places_b(len(b), e)
    packed = kind_c == "f16"  # accumulators in pairs
    reads_c = [names.read(x, "b32" if packed else kind_c) for x in c]
    writes_d = [names.write(x, "b32" if packed else kind_d) for x in d]
    at_c = places_c(2 * len(c) if packed else len(c))

    def run(w: Wave) -> None:
        left, right = elements(gathered(w, read_a, dtype), kind_a), elements(gathered(w, read_b, dtype), kind_b)
        warps = len(left)
        x, y = np.zeros((warps, m, k), number), np.zeros((warps, k, n), number)
        x[:, at_a[0], at_a[1]] = left
        y[:, at_b[0], at_b[1]] = right
        z = x @ y
        if packed:
            before = elements(gathered(w, reads_c, np.uint32), "f16")
            after = (z[:, at_c[0], at_c[1]] + before).astype(np.float16).view(np.uint32)
        else:
            before = gathered(w, reads_c, {"f32": np.float32, "f64": np.float64, "s32": np.int32}[kind_c])
            after = z[:, at_c[0], at_c[1]] + before
        for i, write in enumerate(writes_d):
            write(w, after[:, :, i].reshape(-1))

    return WARP, run, None


def row_addresses(w: Wave, address: Any, matrices: int, verb: str) -> tuple[Any, Any]:
    """Places in shared memory of the rows, [warp, matrix, row], and who names one: threads 0 to 7 those of the first matrix."""
    rows = address.reshape(-1, 32)[:, : 8 * matrices]
    used = np.zeros((len(rows), 32), bool)
    used[:, : 8 * matrices] = True
    with_rows = np.where(used, address.reshape(-1, 32), 0).reshape(-1)
    check_place(w, with_rows, 16, w.shared.size, verb, "shared memory")
    if w.counters is not None:
        w.counters.shared(np.repeat(np.arange(len(rows)), rows.shape[1]), rows.reshape(-1), 16)
    base = w.shared_base[w.at].reshape(-1, 32)[:, : 8 * matrices]
    return (rows + base).reshape(-1, matrices, 8), used.reshape(-1)


@builds("ldmatrix")
def _load_matrix(ins: Instruction, kernel: Kernel) -> Built:
    if "b16" not in ins.op or "m8n8" not in ins.op:
        raise unknown(ins)
    names = kernel.names
    targets = names.vector(ins.operands[0])
    count = len(targets)
    writes = [names.write(t, "b32") for t in targets]
    address = names.address(ins.operands[1])
    transposed = "trans" in ins.op

    def run(w: Wave) -> None:
        where, used = row_addresses(w, shared_address(w, address(w)), count, "reads")
        with for_some(w, used if count < 4 else None):
            w.shared.check_read(w, where.reshape(-1), 16, together=True)
        rows = w.shared.view("data", 2, 8)[where // 16]  # [warp, matrix, row, column]
        if transposed:
            rows = rows.swapaxes(2, 3)
        words = np.ascontiguousarray(rows).view(np.uint32)  # [warp, matrix, row, pair]
        for i, write in enumerate(writes):
            write(w, words[:, i, G, Q].reshape(-1))

    return WARP, run, None


@builds("stmatrix")
def _store_matrix(ins: Instruction, kernel: Kernel) -> Built:
    if "b16" not in ins.op or "m8n8" not in ins.op:
        raise unknown(ins)
    names = kernel.names
    reads = [names.read(s, "b32") for s in names.vector(ins.operands[1])]
    count = len(reads)
    address = names.address(ins.operands[0])
    transposed = "trans" in ins.op

    def run(w: Wave) -> None:
        where, used = row_addresses(w, shared_address(w, address(w)), count, "writes")
        words = np.empty((where.shape[0], count, 8, 4), np.uint32)
        words[:, :, G, Q] = gathered(w, reads, np.uint32).swapaxes(1, 2)
        rows = words.view(np.uint16)
        if transposed:
            rows = np.ascontiguousarray(rows.swapaxes(2, 3))
        with for_some(w, used if count < 4 else None):
            w.shared.check_write(w, where.reshape(-1), 16)
        w.shared.view("data", 2, 8)[where // 16] = rows

    return WARP, run, None


@builds("movmatrix")
def _move_matrix(ins: Instruction, kernel: Kernel) -> Built:
    names = kernel.names
    write, read = names.write(ins.operands[0], "b32"), names.read(ins.operands[1], "b32")

    def run(w: Wave) -> None:
        words = np.empty((w.n // 32, 8, 4), np.uint32)
        words[:, G, Q] = gathered(w, [read], np.uint32)[:, :, 0]
        flipped = np.ascontiguousarray(words.view(np.uint16).swapaxes(1, 2)).view(np.uint32)
        write(w, flipped[:, G, Q].reshape(-1))

    return WARP, run, None


def shared_address(w: Wave, address: Any) -> Any:
    """An address in shared memory from one that may be generic."""
    if (address >= SHARED_WINDOW).any():
        if (address >= 2 * SHARED_WINDOW).any():
            w.fail(OutOfBoundsError, "uses an address outside of shared memory", address >= 2 * SHARED_WINDOW)
        return np.where(address >= SHARED_WINDOW, address - SHARED_WINDOW, address)
    return address
