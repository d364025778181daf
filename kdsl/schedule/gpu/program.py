"""Plans -> a Program for a GPU: the same loop IR as for a CPU, with tiles and blocks for a GPU.

In:  ir.frame.Grouping, a target of kind "cuda" or "emulator".  Out: ir.loops.Program, verified by the pipeline.
Read before: schedule/program.py.
"""

from __future__ import annotations

from kdsl.errors import TargetError
from kdsl.ir import loops as ir
from kdsl.ir.frame import Grouping
from kdsl.target import Target


def schedule_gpu(grouping: Grouping, target: Target) -> ir.Program:
    """The kernels of a grouped program in launch order."""
    raise TargetError(f"there is no schedule for {target.name} yet")
