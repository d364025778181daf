"""Generated source to PTX: the names that the source may use, and the way through numba-cuda.

In:  source text of one kernel, what its parameters are, threads, architecture.  Out: PTX text. No GPU and no driver.
Importing this file imports numba-cuda: only kernels.ptx does. Read before: seam.py. Read next: assemble.py.
"""

from __future__ import annotations

import math

from kdsl.codegen.cuda.folds import FOLDS
from kdsl.codegen.cuda.layout import accumulator, blocked, operand_a, operand_b, patches, strips
from kdsl.codegen.cuda.macros import MACROS
from kdsl.codegen.cuda.macros_bulk import BULK_MACROS
from kdsl.codegen.cuda.macros_dot import DOT_MACROS
from kdsl.codegen.cuda.macros_memory import MEMORY_MACROS
from kdsl.codegen.cuda.records import Array, Axis, Gates, Near, Tile
from kdsl.codegen.cuda.seam import compile_ptx

NAMES = {
    **MACROS, **FOLDS, **MEMORY_MACROS, **DOT_MACROS, **BULK_MACROS,
    **{f"axis{k}": Axis(k) for k in range(8)},
    "Tile": Tile, "Near": Near, "Array": Array, "Gates": Gates, "accumulator": accumulator, "blocked": blocked, "strips": strips,
    "operand_a": operand_a, "operand_b": operand_b, "patches": patches, "inf": math.inf, "nan": math.nan,
}  # fmt: skip


def compile_kernel(source: str, name: str, parameters: list[str], threads: int, arch: str) -> str:
    """The PTX module of one kernel; kernels that hold a product of tensor cores need sm_80 or later."""
    return compile_ptx(source, name, NAMES, parameters, threads, arch)
