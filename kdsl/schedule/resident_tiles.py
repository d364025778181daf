"""Values of a step that lie in memory, as tiles: near memory holds what one block has of them.

In:  a ScanPlan with `resident`, the memory of its inputs.  Out: tiles (schedule/scan_tiles.py).
Read before: scan_tiles.py. Read next: scan_resident.py.
"""

from __future__ import annotations

from collections.abc import Callable

from kdsl.ir import loops as ir
from kdsl.ir.frame import Letter, Move, Resident, ScanPlan, within
from kdsl.ir.sizes import Extent, size
from kdsl.ir.tensor import Shape, Value
from kdsl.schedule.positions import Entry, Known, Memory, Position
from kdsl.schedule.scan_tiles import LOOPS, ScanTiles


class ResidentTiles(ScanTiles):
    """Tiles that read near memory, which lacks the axes of the loops around the scan."""

    def __init__(self, plan: ScanPlan, memory: Callable[[Value], Memory]) -> None:
        super().__init__(plan, memory)
        assert plan.resident is not None
        self.resident = plan.resident
        self.nears: dict[Value, ir.Near] = {}
        self.axes: dict[Value, tuple[tuple[Letter, ...] | None, ...]] = {}  # of what lies in near memory: ir.frame.stacked_axes
        self.shapes: dict[Value, Shape] = {}  # of the same in all blocks
        self.again = 0  # the depth of the loop in which memory changes
        scans = list(plan.resident.scans())
        self.states = {read: (stack, scan) for scan in scans for read, stack in scan.states.items()}
        once = {m.into for m in plan.resident.begin if isinstance(m, Move)}
        self.changing = {m.into for m in plan.resident.moves()} - once
        self.changing |= {m.into for part in (plan.resident.chunk, plan.resident.step) for m in part if isinstance(m, Move)}
        for _ in scans:  # their loops have names already
            self.places |= {self.name(loop) for loop in LOOPS}

    def load(self, v: Value, at: Position) -> Known:
        m, at = self.found(v, at)
        memory = self.nears.get(m) or self.memory(m)
        view = self.view(memory, at)
        if view is None:
            tile, depth = self.gather(memory, at)
        else:
            tile, depth = ir.Load(view, self.shape_of(view)), self.depth_at(*view.index)
        return tile, max(self.again if m in self.changing else 0, depth)

    def found(self, v: Value, at: Position) -> tuple[Value, Position]:
        """In what memory a value lies, and where there."""
        if v in self.states:
            stack, scan = self.states[v]
            return stack, self.near_place(stack, at, (within_chunk(scan, "step"),))
        return v, self.near_place(v, at)

    def near_place(self, m: Value, at: Position, prefix: tuple[Entry, ...] = ()) -> Position:
        """A position in memory: near memory has of each axis what stands at one place of the loops around the scan."""
        if m not in self.nears:
            return (*prefix, *at)
        axes, outer = self.axes[m], self.scan.outer
        shape = self.shapes[m][len(axes) - len(at) :]
        entries: list[Entry] = []
        for axis, n, x in zip(axes[len(axes) - len(at) :], shape, at, strict=True):
            if axis is not None and any(y in outer for y in axis):  # walked by those loops, in part or wholly
                inner = tuple(y for y in axis if y not in outer)
                assert x == self.place((axis,), (n,))[0], "a value in near memory is read at another place of the loops around"
                x = self.place((inner,), (within(axis, n, outer, self.plan.letters.size),))[0]
            entries.append(x)
        return (*prefix, *entries)

    def memory_of(self, m: Move) -> Memory:
        """Where a nest puts its value."""
        return self.nears.get(m.into) or self.memory(m.into)


def within_chunk(scan: Resident, loop: str) -> Extent:
    """The number of a step within its chunk."""
    return size(f"{loop}_{scan.number}") - size(f"chunk_{scan.number}") * scan.every
