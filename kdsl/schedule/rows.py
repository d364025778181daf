"""RowPlan -> loop IR: maps, row folds, folds over rows.

    Parallel over blocks of rows, Stream over the rest:
        [row values]  pass 0 over the line: Stream of tiles, folds carried  [row values]  pass 1 …  [row values]
A tile is (1, w) along the line, or (u, w) with the vectors along the last row letter where that is contiguous in
memory. The edge of a line of fixed length is one narrower tile; that of a named length is a tile whose views are
checked and whose folds are masked. A map with few rows has blocks along its line too. Folds over rows add into one
part for each block, and a finisher (a plan of its own) adds the parts in order.
Read before: row_frame.py, line_walks.py, one_row.py, row_folds.py. Read next: program.py.
"""

from __future__ import annotations

from collections.abc import Callable

import kdsl.dtypes as dt
from kdsl.ir import loops as ir
from kdsl.ir.frame import Letter, RowPlan
from kdsl.ir.loop_verify import holds
from kdsl.ir.sizes import Extent, ceildiv, floordiv, minimum, size
from kdsl.ir.tensor import Value
from kdsl.schedule.kernels import kernel
from kdsl.schedule.positions import Memory
from kdsl.schedule.regions import in_regions
from kdsl.schedule.row_folds import RowFolds
from kdsl.target import Target

BLOCK_WORK = 32 * 1024  # elements that one block of a kernel has at least
MOST_BLOCKS = 64
FEW_ROWS = 16


def schedule_rows(plan: RowPlan, memory: Callable[[Value], Memory], target: Target) -> list[ir.Kernel]:
    """The kernel of a plan of maps and folds."""
    return [_Rows(plan, memory, target).kernel()]


class _Rows(RowFolds):
    """The grid of blocks."""

    def kernel(self) -> ir.Kernel:
        p = self.p
        loops = self.grid()
        body = tuple(self.t.levels[0].body)
        for loop in reversed(loops):
            body = (ir.Parallel(loop.index, loop.lo, loop.hi, loop.tile, body),)
        whole, parts = kernel(p, body, {"width": self.width}), in_regions(body)
        if parts is body:
            return whole
        apart = kernel(p, parts, {"width": self.width})
        return apart if not apart.sizes or holds(apart) else whole  # bounds of named sizes may be beyond what can be proved

    def grid(self) -> list[ir.Parallel]:
        """Emit what one block does; the parallel loops around it."""
        p = self.p
        rows = list(p.rows)
        lane_row = rows.pop() if self.along == 0 else None
        if p.partial and p.block_count:
            index = self.t.name("part")
            self.parallel(index)
            self.part = size(index)
            loop = ir.Parallel(index, 0, p.block_count, 1, ())
            if not p.rows:
                n = self.size[p.line[0]]
                per = ceildiv(ceildiv(n, p.block_count), self.width) * self.width
                self.parts_of_line(size(index) * per, n, per)
            else:
                n = self.size[p.reduced[0]]
                per = ceildiv(n, p.block_count)
                kept = [x for x in rows if x not in p.reduced]
                self.kept_rows(kept, {p.reduced[0]: (size(index) * per, minimum(size(index) * per + per, n))})
            return [loop]
        kept = [x for x in rows if x not in p.reduced]
        if lane_row is not None:
            loops, rest = self.blocks(kept, self.size[lane_row])
            self.kept_rows(rest, {}, lambda: self.blocked(loops, lane_row, self.row))
            return loops
        if self.interleaves(kept):
            *outer, x = kept
            loops, rest = self.blocks(outer, self.size[p.line[-1]] * self.size[x])
            tiles = lambda: self.stream(x, 0, self.size[x], self.tile_of_map)  # noqa: E731
            self.kept_rows(rest, {}, lambda: self.blocked(loops, p.line[-1], tiles))
            return loops
        if self.splits_line(kept):
            loops, rest = self.blocks(kept, self.size[p.line[-1]])
            self.kept_rows(rest, {}, lambda: self.blocked(loops, p.line[-1], lambda: self.tile_of_map()))
            return loops
        if self.crosses(kept):
            loops, rest = self.blocks(kept, self.size[p.line[-1]])
            ranges = [x if isinstance(x, tuple) else (x, 0, self.size[x]) for x in rest]
            if ranges and ranges[-1][0] == kept[-1]:
                *rest, (x, lo, hi) = ranges
                self.kept_rows(
                    rest, {}, lambda: self.over_line(lambda: self.stream(x, lo, hi, self.tile_of_map))
                )
                return loops or [self.single()]
            self.kept_rows(rest, {})
            return loops or [self.single()]
        inner: Extent = 1
        for x in (*p.line, *p.reduced):
            inner = inner * self.size[x]
        loops, rest = self.blocks(kept, inner)
        self.kept_rows(rest, {})
        return loops or [self.single()]

    def crosses(self, kept: list[Letter]) -> bool:
        """A map that reads an array across its rows (x + y.T): it walks a few rows of each tile of the line,
        so that cache lines are read whole."""
        p = self.p
        if not kept or not self.is_map():
            return False
        last = [axes[-1][-1] for axes in p.letters.uses.values() if axes and axes[-1]]
        return any(x in kept for x in last)

    def interleaves(self, kept: list[Letter]) -> bool:
        """A map that writes a few rows side by side, element by element (a stack along the last axis): row after row of each
        tile, so that cache lines are written whole."""
        n = self.size[kept[-1]] if kept else 0
        if not self.is_map() or not isinstance(n, int) or not 1 < n <= FEW_ROWS:
            return False
        return all(axes[-1][-1:] == (kept[-1],) for axes in (self.p.letters.values[v] for v in self.p.outputs))

    def is_map(self) -> bool:
        """Is every tile of the line independent of the others?"""
        p = self.p
        if self.line_folds or p.partial or len(p.line) != 1 or p.kept or p.passes > 1:
            return False
        return all(self.on_line(v) for v in p.outputs)

    def splits_line(self, kept: list[Letter]) -> bool:
        """A map whose rows alone make too few blocks."""
        if not self.is_map():
            return False
        total: Extent = 1
        for x in kept:
            total = total * self.size[x]
        return not isinstance(total, int) or total < FEW_ROWS

    def single(self) -> ir.Parallel:
        index = self.t.name("b")
        self.parallel(index)
        return ir.Parallel(index, 0, 1, 1, ())

    def blocks(
        self, rows: list[Letter], inner: Extent
    ) -> tuple[list[ir.Parallel], list[tuple[Letter, Extent, Extent]]]:
        """Parallel loops over (blocks of) the outer rows; the rows that remain, with their ranges."""
        loops: list[ir.Parallel] = []
        rest: list[tuple[Letter, Extent, Extent]] = []
        count = 1
        for number, x in enumerate(rows):
            n = self.size[x]
            work: Extent = inner
            for y in rows[number + 1 :]:
                work = work * self.size[y]
            if count >= MOST_BLOCKS or rest:
                rest.append((x, 0, n))
                continue
            per = self.per_block(n, work, count)
            index = self.t.name("b")
            self.parallel(index)
            if per == 1:
                loops.append(ir.Parallel(index, 0, n, 1, ()))
                self.t.pos[x] = size(index)
            else:
                loops.append(ir.Parallel(index, 0, ceildiv(n, per), 1, ()))
                start = size(index) * per
                even = isinstance(n, int) and n % per == 0
                rest.append((x, start, start + per if even else minimum(start + per, n)))
            count *= max(1, -(-n // per)) if isinstance(n, int) else MOST_BLOCKS
        return loops, rest

    def per_block(self, n: Extent, work: Extent, count: int) -> int:
        """How many of n equal pieces one block has: enough work, not too many blocks."""
        each = work if isinstance(work, int) else 1024
        enough = max(1, -(-BLOCK_WORK // max(1, each)))
        if isinstance(n, int):
            blocks = max(1, min(MOST_BLOCKS // count, n // enough))
            return max(1, -(-n // blocks))
        return min(enough, 64)

    def blocked(self, loops: list[ir.Parallel], letter: Letter, inside: Callable[[], None]) -> None:
        """A parallel loop over blocks of a letter along the vectors, streams of tiles in it."""
        t, n, width = self.t, self.size[letter], self.width
        if isinstance(n, int):
            width = self.width = min(width, max(1, n))
        count = 1
        for loop in loops:
            count *= max(1, loop.hi) if isinstance(loop.hi, int) else MOST_BLOCKS
        work: Extent = width
        if self.along == 0:
            for x in self.p.line:
                work = work * self.size[x]
        full = floordiv(n, width) * width
        tiles = ceildiv(n, width)
        per = self.per_block(tiles, work, min(count, MOST_BLOCKS))
        blocks = ceildiv(tiles, per)
        index = t.name("b")
        self.parallel(index)
        loops.append(ir.Parallel(index, 0, blocks, 1, ()))
        lo: Extent = size(index) * (per * width)
        hi: Extent = minimum(lo + per * width, full)
        if blocks == 1 or n == 0:
            lo, hi = 0, full
        elif isinstance(n, int) and full == n and tiles % per == 0:
            hi = lo + per * width

        def tiled(base: Extent, w: int, edge: bool) -> None:
            t.shape = (1, w)
            t.edge = {"#1"} if edge else set()
            t.pos[letter] = base + size("#1")
            inside()
            t.edge = set()

        if full != 0 or n == 0:
            if full == width and blocks == 1:
                tiled(0, width, False)
            else:
                j = t.name("j")
                t.push(j)
                tiled(size(j), width, False)
                body = t.pop()
                t.emit(ir.Stream(j, lo, hi, width, body))
        if full == n:
            return
        if isinstance(n, int):
            assert isinstance(full, int) and isinstance(blocks, int)
            if blocks == 1:
                tiled(full, n - full, False)
                return
            t.push()
            tiled(full, n - full, False)
            last = ir.Map("eq", (ir.Scalar(size(index), dt.i64), ir.Constant(blocks - 1, dt.i64)), dt.bool_)
            t.emit(ir.If(last, t.pop()))  # type: ignore[arg-type]
            return
        j = t.name("j")
        t.push(j)
        tiled(size(j), width, True)
        body = t.pop()
        t.emit(ir.Stream(j, full, minimum(lo + per * width, n) if blocks != 1 else n, width, body))
