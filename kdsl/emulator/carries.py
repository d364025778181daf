"""Sums of many words: additions and products that leave a carry for the next instruction, and take the one before.

In:  add.cc, addc, sub.cc, subc, mad.lo.cc, madc.hi and so on.  Out: closures. Each thread has one carry.
Read before: arithmetic.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kdsl.emulator.arithmetic import high_half
from kdsl.emulator.instructions import Run, builds
from kdsl.emulator.parse import Instruction
from kdsl.emulator.wave import Wave

if TYPE_CHECKING:
    from kdsl.emulator.kernel import Kernel


@builds("addc", "subc", "madc")
def with_carry(ins: Instruction, kernel: Kernel) -> Run:
    """Any of the family; arithmetic.py hands over those that end in .cc."""
    names, op = kernel.names, ins.op
    unsigned = f"u{op[-1][1:]}"
    write = names.write(ins.operands[0], unsigned)
    reads = [names.read(o, unsigned if "mad" not in op[0] or i == 2 else op[-1]) for i, o in enumerate(ins.operands[1:])]
    carry = names.slot("%carry", np.bool_)
    takes, leaves, subtracts = op[0].endswith("c"), "cc" in op, op[0].startswith("sub")

    def run(w: Wave) -> None:
        values = [np.asarray(read(w)) for read in reads]
        if op[0].startswith("mad"):
            product = high_half(values[0], values[1]) if "hi" in op else values[0] * values[1]
            values = [np.asarray(product).astype(values[2].dtype), values[2]]
        x, y = values
        one = x.dtype.type(1)
        before: Any = w.R[carry][w.at] if takes else np.False_
        if subtracts:
            out = x - y - np.where(before, one, one - one)
            after = (x < y) | ((x == y) & before)
        else:
            partial = x + y
            out = partial + np.where(before, one, one - one)
            after = (partial < x) | (out < partial)
        write(w, out)
        if leaves:
            w.R[carry][w.at] = after

    return run
