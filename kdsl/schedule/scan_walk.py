"""A scan on a CPU whose carry is larger than the registers: step by step along rows of memory.

    Parallel over blocks: carries and what is the same in every step into near memory
      Stream over steps { Stream over the tiles of the block: a few rows at a time }
A block takes `together` tiles in each step, so that it reads and writes whole cache lines, one after the other.
Read before: scan_rows.py. Read next: scan_chunks.py.
"""

from __future__ import annotations

from kdsl.dtypes import bool_, i64
from kdsl.ir import loops as ir
from kdsl.ir.sizes import Extent, floordiv, modulo, names_in, size, substitute
from kdsl.ir.tensor import Value
from kdsl.schedule.scan_ahead import rows_ahead
from kdsl.schedule.scan_rows import RowsNest


class ScanWalk(RowsNest):
    def block(self) -> None:
        p, t = self.p, self.t
        nears = {c.after: self.new_near("carries", c.before, p.together) for c in p.carries}
        self.keep_same()
        lane: Extent = t.pos[p.lane] if p.lane is not None else 0
        self.walk_tiles(lane)
        for c, start in zip(p.carries, self.starts(p.carries), strict=True):
            self.put(nears[c.after], self.tile, start)
        self.fill_same()
        self.close_tiles(lane)
        t.push(self.step)
        self.keep_checkpoints(nears, lane)
        self.walk_tiles(lane)
        sinks = [*self.given(), *self.puts(nears)]
        self.one_walk(sinks, {c.before: (nears[c.after], self.tile) for c in p.carries})
        (tile,) = names_in(self.tile)
        self.close_tiles(lane)
        body = t.pop()
        ahead = rows_ahead(body[-1].body, self.step, False)  # type: ignore[union-attr]
        t.emit(ir.Stream(self.step, 0, p.length, 1, (*(self.whole_row(a, tile) for a in ahead), *body), (), "forward"))
        self.walk_tiles(lane)
        for result, i in p.last.items():
            self.store(result, t.own(p.carries[i].after), self.at(nears[p.carries[i].after], self.tile))
        self.close_tiles(lane)

    def whole_row(self, ahead: ir.Prefetch, tile: str) -> ir.Prefetch:
        """What is asked for one tile, for all tiles of the block at once."""
        view, (rows, lanes) = ahead.view, ahead.shape or (1, 1)
        index = tuple(substitute(i, {tile: 0}) for i in view.index)
        return ir.Prefetch(ir.View(view.memory, index), (rows, lanes if lanes == 1 else self.lane_step))

    def keep_checkpoints(self, nears: dict[Value, ir.Near], lane: Extent) -> None:
        """Store the carries where a checkpoint is due."""
        p, t, now = self.p, self.t, size(self.step)
        if not p.kept:
            return
        due = ir.Map("eq", (ir.Scalar(modulo(now, p.every), i64), ir.Constant(0, i64)), bool_)
        t.push()
        self.walk_tiles(lane)
        for result, i in p.kept.items():
            c = p.carries[i]
            self.store(result, (floordiv(now, p.every), *t.own(c.before)), self.at(nears[c.after], self.tile))
        self.close_tiles(lane)
        t.emit(ir.If(due, t.pop()))
