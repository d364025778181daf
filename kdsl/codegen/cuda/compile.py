"""Generated source to PTX: the names that the source may use, and the way through numba-cuda.

In:  source text of one kernel, what its parameters are, threads, architecture.  Out: PTX text. No GPU and no driver.
Importing this file imports numba-cuda: only emit.ptx does. Read before: seam.py. Read next: ir/loops.py's users.
"""

from __future__ import annotations

import math

from kdsl.codegen.cuda.layout import accumulator, blocked, operand_a
from kdsl.codegen.cuda.macros import MACROS
from kdsl.codegen.cuda.macros_memory import MEMORY_MACROS
from kdsl.codegen.cuda.records import Array, Near, Tile
from kdsl.codegen.cuda.seam import compile_ptx

NAMES = {
    **MACROS,
    **MEMORY_MACROS,
    "Tile": Tile,
    "Near": Near,
    "Array": Array,
    "accumulator": accumulator,
    "blocked": blocked,
    "operand_a": operand_a,
    "LOG2E": 1 / math.log(2),
    "LN2": math.log(2),
    "inf": math.inf,
}


def compile_kernel(source: str, name: str, parameters: list[str], threads: int, arch: str) -> str:
    """The PTX module of one kernel; kernels that hold a product of tensor cores need sm_80 or later."""
    return compile_ptx(source, name, NAMES, parameters, threads, arch)
