"""SORT and ARGSORT within the step of a scan: each row is merged as in a sort of its own, in memory of its own.

In:  a Move whose value is a sort of what lies in memory.  Out: statements for one row.
Read before: sort.py, resident_tiles.py. Read next: scan_resident.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import kdsl.dtypes as dt
from kdsl.dtypes import DType
from kdsl.ir import loops as ir
from kdsl.ir.frame import Letter, Move
from kdsl.ir.sizes import Extent
from kdsl.ir.tensor import Value
from kdsl.schedule.positions import Memory
from kdsl.schedule.resident_tiles import ResidentTiles
from kdsl.schedule.sort import RowSort
from kdsl.target import Target


class StepSort(RowSort):
    """The sort of a row that stands where the loops around it are."""

    def __init__(self, t: ResidentTiles, m: Move, target: Target, label: str) -> None:
        super().__init__([t.made[m.value]], [m.value], target, label)
        self.t, self.m = t, m

    def declare(self, outer: Sequence[Letter]) -> None:
        """Memory for two copies of a row; blocks have rows of their own."""
        t = self.t
        self.at_row = [t.pos[x] for x in outer]
        extents = [t.plan.letters.size[x] for x in outer]
        self.keys = self.copies("keys" + self.label, self.x.dtype, extents)
        self.places = self.copies("places" + self.label, dt.i64, extents) if self.with_places else None

    def copies(self, label: str, dtype: DType, rows: Sequence[Extent]) -> Memory:
        memory = super().copies(f"{self.t.plan.name}_{self.t.name(label)}", dtype, rows)
        if isinstance(memory, ir.Near):
            self.t.levels[0].body.insert(0, memory)
        return memory

    def row(self) -> None:
        """Sort the row at which the loops stand."""
        self.body = []
        self.sort()
        for statement in self.body:
            self.t.emit(statement)

    def outside(self, v: Value, at: Extent, check: bool) -> ir.View:
        t = self.t
        own = v is self.m.value
        place = t.plain(v) if own else t.plain_operand(t.made[self.m.value], 0)
        m, index = t.found(self.m.into if own else v, (*place[: self.axis], at, *place[self.axis + 1 :]))
        view = t.view(t.nears.get(m) or t.memory(m), index)
        assert view is not None
        along = len(view.index) - len(place) + self.axis
        return ir.View(view.memory, view.index, tuple(check and d == along for d in range(len(view.index))))
