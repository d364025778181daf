"""Plans -> a Program for a CPU: buffers for every value that crosses a kernel's border, and one schedule for each kind of plan.

In:  ir.frame.Grouping, a target.  Out: ir.loops.Program, verified by the pipeline.
Read before: ir/frame.py, buffers.py. Read next: rows.py, dots.py, scan.py, scatter.py.
"""

from __future__ import annotations

from kdsl.ir import loops as ir
from kdsl.ir.frame import DotPlan, Grouping, RowPlan, ScanPlan, ScatterPlan, SortPlan
from kdsl.schedule.buffers import Buffers, assembled
from kdsl.schedule.dots import schedule_dots
from kdsl.schedule.placed import in_their_places
from kdsl.schedule.rows import schedule_rows
from kdsl.schedule.scan_blocks import schedule_blocks
from kdsl.schedule.scan_chunks import schedule_scan
from kdsl.schedule.scatter import schedule_scatter
from kdsl.schedule.sort import schedule_sort
from kdsl.target import Target


def schedule(grouping: Grouping, target: Target) -> ir.Program:
    """The kernels of a grouped program in launch order, with the buffers between them."""
    buffers = Buffers(grouping)
    kernels: list[ir.Kernel] = []
    for plan in grouping.plans:
        if isinstance(plan, RowPlan):
            kernels += schedule_rows(plan, buffers.memory, target)
        elif isinstance(plan, DotPlan):
            kernels += schedule_dots(plan, buffers.memory, target)
        elif isinstance(plan, ScanPlan):
            blocks = schedule_blocks(plan, buffers.memory, target)
            kernels += [blocks] if blocks else schedule_scan(plan, buffers.memory, target)
        elif isinstance(plan, ScatterPlan):
            kernels += schedule_scatter(plan, buffers.memory, target)
        elif isinstance(plan, SortPlan):
            kernels += schedule_sort(plan, buffers.memory, target)
        else:
            raise TypeError(f"no schedule carries out a {type(plan).__name__}")
    return assembled(grouping, buffers, in_their_places(grouping, buffers, kernels))
