"""Instructions in which the threads of a warp look at each other: shuffles, votes, matches, reductions.

In:  shfl.sync, vote.sync, match.sync, redux.sync, activemask, elect.sync, bar.warp.sync.  Out: closures that run when
the threads of the member mask are together (wave.py waits for them).
A value of a thread that does not take part is a mistake, not a number.
Read before: wave.py. Read next: barriers.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kdsl.emulator.instructions import Built, builds, unknown
from kdsl.emulator.parse import Instruction
from kdsl.emulator.registers import TYPES
from kdsl.emulator.wave import EVERYONE, WARP, Wave, bits
from kdsl.errors import DivergenceError

if TYPE_CHECKING:
    from kdsl.emulator.kernel import Kernel


def members(ins: Instruction, kernel: Kernel, operand: str) -> Any:
    """The member mask of an instruction; None where it is the whole warp."""
    if kernel.names.is_register(operand):
        return kernel.names.read(operand, "b32")
    if int(operand, 0) & 0xFFFFFFFF == 0xFFFFFFFF:
        return None
    return kernel.names.read(operand, "b32")


def here(w: Wave) -> Any:
    """One flag for every thread of the wave: is it running?"""
    flags = np.zeros(len(w.lanes), bool)
    flags[w.at] = True
    return flags


@builds("shfl")
def _shuffle(ins: Instruction, kernel: Kernel) -> Built:
    if ins.op[1] != "sync":
        raise unknown(ins)
    names, mode = kernel.names, ins.op[2]
    first, _, second = ins.operands[0].partition("|")
    write = names.write(first, "b32")
    valid = names.write(second, "pred") if second else None
    source, offset, clamp, mask = ins.operands[1:5]
    x = names.slot(source, np.uint32) if names.is_register(source) else None
    constant = names.read(source, "b32")
    by, limits = names.read(offset, "u32"), names.read(clamp, "u32")

    def run(w: Wave) -> None:
        lanes = w.lanes[w.at]
        lane = lanes & 31
        b, c = np.asarray(by(w)).astype(np.int64) & 31, np.asarray(limits(w)).astype(np.int64)
        segment = (c >> 8) & 31
        last = (lane & segment) | (c & 31 & ~segment)
        if mode == "up":
            j = lane - b
            inside = j >= last
        else:
            j = {"down": lane + b, "bfly": lane ^ b, "idx": (lane & segment) | (b & ~segment)}[mode]
            inside = j <= last
        j = np.where(inside, j, lane)
        target = lanes - lane + j
        if w.at is not EVERYONE:
            absent = ~here(w)[target]
            if absent.any():
                other = int(w.thread[target[absent][0]])
                w.fail(DivergenceError, f"reads a register of thread {other}, which does not take part in the shuffle", absent)
        write(w, constant(w) if x is None else w.R[x][target])
        if valid is not None:
            valid(w, inside)

    return WARP, run, members(ins, kernel, mask)


@builds("vote")
def _vote(ins: Instruction, kernel: Kernel) -> Built:
    if ins.op[1] != "sync":
        raise unknown(ins)
    names, mode = kernel.names, ins.op[2]
    ballot = mode == "ballot"
    write = names.write(ins.operands[0], "b32" if ballot else "pred")
    p = names.predicate(ins.operands[1])

    def run(w: Wave) -> None:
        flags = np.zeros(len(w.lanes), bool)
        flags[w.at] = p(w)
        yes, all_ = bits(flags), bits(here(w))
        warp = w.lanes[w.at] >> 5
        if ballot:
            return write(w, yes[warp])
        found = {"any": yes != 0, "all": yes == all_, "uni": (yes == all_) | (yes == 0)}[mode]
        return write(w, found[warp])

    return WARP, run, members(ins, kernel, ins.operands[2])


@builds("activemask")
def _active(ins: Instruction, kernel: Kernel) -> Built:
    write = kernel.names.write(ins.operands[0], "b32")
    return lambda w: write(w, bits(here(w))[w.lanes[w.at] >> 5])


@builds("elect")
def _elect(ins: Instruction, kernel: Kernel) -> Built:
    """One thread of the warp is chosen: the first."""
    names = kernel.names
    first, _, second = ins.operands[0].partition("|")
    write, chosen = names.write(first, "b32"), names.write(second, "pred")

    def run(w: Wave) -> None:
        mask = bits(here(w))
        lowest = np.bitwise_count((mask & -mask) - np.uint32(1))
        lanes = w.lanes[w.at]
        leader = lowest[lanes >> 5].astype(np.uint32)
        write(w, leader)
        chosen(w, leader == (lanes & 31))

    return WARP, run, members(ins, kernel, ins.operands[1])


@builds("match")
def _match(ins: Instruction, kernel: Kernel) -> Built:
    names, mode, kind = kernel.names, ins.op[1], ins.op[-1]
    first, _, second = ins.operands[0].partition("|")
    write = names.write(first, "b32")
    same = names.write(second, "pred") if second else None
    x = names.read(ins.operands[1], kind)

    def run(w: Wave) -> None:
        value = np.zeros(len(w.lanes), TYPES[kind])
        value[w.at] = x(w)
        rows = value.reshape(-1, 32)
        there = here(w).reshape(-1, 32)
        equal = (rows[:, :, None] == rows[:, None, :]) & there[:, None, :]
        mask = bits(equal.reshape(-1, 32))
        lanes = w.lanes[w.at]
        if mode == "any":
            return write(w, mask[lanes])
        full = mask[lanes] == bits(here(w))[lanes >> 5]
        write(w, np.where(full, mask[lanes], np.uint32(0)))
        if same is not None:
            same(w, full)
        return None

    return WARP, run, members(ins, kernel, ins.operands[2])


@builds("redux")
def _reduce(ins: Instruction, kernel: Kernel) -> Built:
    names, kind = kernel.names, ins.op[-1]
    name = next(p for p in ins.op if p in ("add", "min", "max", "and", "or", "xor"))
    function: Any = {
        "add": np.add,
        "min": np.minimum,
        "max": np.maximum,
        "and": np.bitwise_and,
        "or": np.bitwise_or,
        "xor": np.bitwise_xor,
    }[name]
    write, x = names.write(ins.operands[0], kind), names.read(ins.operands[1], kind)

    def run(w: Wave) -> None:
        lanes = w.lanes[w.at]
        value = np.broadcast_to(x(w), lanes.shape)
        starts = np.flatnonzero(np.diff(lanes >> 5, prepend=-1))
        totals = function.reduceat(value, starts, dtype=value.dtype)
        write(w, np.repeat(totals, np.diff(starts, append=len(lanes))))

    return WARP, run, members(ins, kernel, ins.operands[2])
