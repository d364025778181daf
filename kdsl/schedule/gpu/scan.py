"""ScanPlan -> loop IR for a GPU: the nest of a CPU, on a tile whose extents are powers of two.

In:  a ScanPlan.  Out: one kernel: a warp or a few for each tile of the carry, one step after the other.
Read before: schedule/scan.py. Read next: scan_resident.py, program.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kdsl.ir import loops as ir
from kdsl.ir.frame import ScanPlan
from kdsl.ir.tensor import Value
from kdsl.schedule.gpu.nest import power_above, warps_for
from kdsl.schedule.gpu.scan_resident import schedule_gpu_resident
from kdsl.schedule.positions import Memory
from kdsl.schedule.scan import ScanNest
from kdsl.target import Target

THREAD_ELEMENTS = 1  # as many lanes as there are: steps wait for each other


def schedule_scan(plan: ScanPlan, memory: Callable[[Value], Memory], target: Target) -> list[ir.Kernel]:
    """The kernel of a scan."""
    if plan.resident is not None:
        return schedule_gpu_resident(plan, memory, target)
    return [_Scan(plan, memory).kernel()]


class _Scan(ScanNest):
    def tile_shape(self, rows: int) -> tuple[int, int]:
        return power_above(rows), power_above(self.p.width)

    def schedule(self) -> dict[str, Any]:
        return {"warps": (warps_for(self.extents, THREAD_ELEMENTS), 1), "tile": self.extents, "every": self.p.every}

    @property
    def extents(self) -> tuple[int, int]:
        a, b = self.t.shape
        return a, b
