"""From an instruction to what runs it: each family of instructions registers a builder under the first word of its name.

In:  an Instruction.  Out: (kind, closure, member mask): PLAIN runs and goes on; BRANCH names its label; WARP needs its warp's
threads together; STOP decides itself what becomes of its threads (waits, the end); STOP_WARPS is both (barriers).
Read before: registers.py. Read next: arithmetic.py, then the other families.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsl.emulator.parse import Instruction
from kdsl.emulator.wave import BRANCH, PLAIN, STOP, Wave
from kdsl.errors import EmulatorError

if TYPE_CHECKING:
    from kdsl.emulator.kernel import Kernel

Run = Callable[[Wave], Any]
Built = Run | tuple[int, Any] | tuple[int, Any, Any]
Builder = Callable[[Instruction, "Kernel"], Built]

BUILDERS: dict[str, Builder] = {}
NOTHING = {"membar", "fence", "prefetch", "prefetchu", "applypriority", "discard", "nanosleep", "pmevent", "brkpt", "setmaxnreg"}


def builds(*names: str) -> Callable[[Builder], Builder]:
    """Register the builder of instructions with these first words."""

    def register(builder: Builder) -> Builder:
        BUILDERS.update(dict.fromkeys(names, builder))
        return builder

    return register


def compile_instruction(ins: Instruction, kernel: Kernel) -> tuple[int, Any, Any]:
    """The kind, closure and member mask of one instruction."""
    builder = BUILDERS.get(ins.op[0])
    if builder is None:
        raise unknown(ins)
    try:
        built = builder(ins, kernel)
    except (KeyError, IndexError, StopIteration) as error:
        raise unknown(ins) from error
    if not isinstance(built, tuple):
        return PLAIN, built, None
    return (*built, None) if len(built) == 2 else built  # type: ignore[return-value]


def unknown(ins: Instruction) -> EmulatorError:
    name = ".".join(ins.op)
    return EmulatorError(f"the emulator does not know {name}", facts=f"PTX line {ins.line}: {ins.text}", location=False)


@builds(*NOTHING)
def _nothing(ins: Instruction, kernel: Kernel) -> Built:
    return lambda w: None


@builds("bra")
def _branch(ins: Instruction, kernel: Kernel) -> Built:
    return BRANCH, ins.operands[0]


@builds("brx")
def _indexed_branch(ins: Instruction, kernel: Kernel) -> Built:
    index = kernel.names.read(ins.operands[0], "u32")
    targets = np.array([kernel.flat.labels[t] for t in kernel.flat.tables[ins.operands[1]]])

    def run(w: Wave) -> None:
        w.pc[w.at] = targets[index(w)]
        w.jumped = True

    return STOP, run


@builds("ret", "exit")
def _end(ins: Instruction, kernel: Kernel) -> Built:
    return STOP, lambda w: w.end()


@builds("trap")
def _trap(ins: Instruction, kernel: Kernel) -> Built:
    return lambda w: w.fail(EmulatorError, "stops the kernel: an assertion failed", None)
