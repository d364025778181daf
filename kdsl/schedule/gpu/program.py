"""Plans -> a Program for a GPU: as schedule/program.py for a CPU, with schedules of its own.

In:  ir.frame.Grouping, a target.  Out: ir.loops.Program: Parallel loops are blocks, tiles have powers of two for extents,
`Kernel.schedule["warps"]` tells how many warps share them.
Read before: ir/frame.py, ../buffers.py. Read next: rows.py, dots.py, scan.py, scatter.py.
"""

from __future__ import annotations

from dataclasses import replace

from kdsl.ir import loops as ir
from kdsl.ir.frame import DotPlan, Grouping, RowPlan, ScanPlan, ScatterPlan, SortPlan
from kdsl.schedule.buffers import Buffers, assembled
from kdsl.schedule.gpu.dots import schedule_gpu_dots
from kdsl.schedule.gpu.rows import schedule_rows
from kdsl.schedule.gpu.scan import schedule_scan
from kdsl.schedule.gpu.scatter import schedule_scatter
from kdsl.schedule.gpu.sort import schedule_sort
from kdsl.schedule.placed import in_their_places
from kdsl.target import Target


def schedule_gpu(grouping: Grouping, target: Target) -> ir.Program:
    """The kernels of a grouped program in launch order, with the buffers between them."""
    buffers = Buffers(grouping)
    kernels: list[ir.Kernel] = []
    for plan in grouping.plans:
        if isinstance(plan, RowPlan):
            kernels += schedule_rows(plan, buffers.memory, target)
        elif isinstance(plan, DotPlan):
            kernels += schedule_gpu_dots(plan, buffers.memory, target)
        elif isinstance(plan, ScanPlan):
            kernels += schedule_scan(plan, buffers.memory, target)
        elif isinstance(plan, ScatterPlan):
            kernels += schedule_scatter(plan, buffers.memory, target)
        elif isinstance(plan, SortPlan):
            kernels += schedule_sort(plan, buffers.memory, target)
        else:
            raise TypeError(f"no schedule carries out a {type(plan).__name__}")
    multiples = {name: each for name, _, each in target.classes if each > 1}
    if multiples:
        kernels = [replace(k, schedule={**k.schedule, "multiples": multiples}) for k in kernels]
    return assembled(grouping, buffers, in_their_places(grouping, buffers, kernels))
