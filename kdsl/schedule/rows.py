"""RowPlan -> loop IR: maps, row folds, folds over rows.

    Parallel over blocks of rows, Stream over the rest:
        [row values]  pass 0 over the line: Stream of tiles, folds carried  [row values]  pass 1 …  [row values]
A tile is (1, w) along the line, or (u, w) with the vectors along the last row letter where that is contiguous in memory.
The edge of a line of fixed length is one narrower tile; that of a named length is a tile whose views are checked and whose
folds are masked. A map with few rows has blocks along its line too. Folds over rows add into one part for each block, and a
finisher (a plan of its own) adds the parts in order.
Read before: tiles.py, folds.py. Read next: program.py.
"""

from __future__ import annotations

from collections.abc import Callable

import kdsl.dtypes as dt
from kdsl.ir import loops as ir
from kdsl.ir.frame import Letter, RowPlan, flat
from kdsl.ir.ops import REDUCTIONS
from kdsl.ir.rules import identity
from kdsl.ir.sizes import Extent, ceildiv, floordiv, maximum, minimum, size
from kdsl.ir.tensor import Equation, Value
from kdsl.schedule.folds import COMBINE, PLACES, LineFold
from kdsl.schedule.kernels import kernel
from kdsl.schedule.tiles import Known, Memory, Tiles, constant, spread_to
from kdsl.target import Target

BLOCK_WORK = 32 * 1024  # elements that one block of a kernel has at least
MOST_BLOCKS = 64
FEW_ROWS = 16
UNROLL = 4  # vectors of one tile
ONE_TILE = 8  # vectors of a line that is one tile
WIDE = 8  # vectors of one tile whose vectors lie along the rows
PREFETCHED = range(1024, 64 * 1024)  # bytes of a row that is fetched ahead: shorter ones follow each other closely enough


def schedule_rows(plan: RowPlan, memory: Callable[[Value], Memory], target: Target) -> list[ir.Kernel]:
    """The kernel of a plan of maps and folds."""
    return [_Rows(plan, memory, target).kernel()]


class _Rows:
    def __init__(self, plan: RowPlan, memory: Callable[[Value], Memory], target: Target) -> None:
        self.p, self.memory, self.t = plan, memory, Tiles(plan, memory)
        self.size = plan.letters.size
        self.along = 1 if not plan.line or plan.lane == plan.line[-1] or plan.lane is None else 0  # the line's tile axis
        self.vector = target.lanes(self.widest())
        self.rows_of_tile = 1  # line elements of a tile where the vectors lie along the rows
        self.width = self.vector * UNROLL
        length = self.size[plan.line[-1]] if plan.line else 0
        if isinstance(length, int) and self.width < length <= ONE_TILE * self.vector:
            self.width = length  # a short line is one tile: each fold ends once
        if self.along == 0:
            self.rows_of_tile, self.width = self.upright()
        self.nears: dict[Value, ir.Near] = {}
        self.line_folds = [e for e in plan.equations if self.drops(e) and set(plan.line) <= self.drops(e)]
        self.columns = [e for e in plan.partial if e not in self.line_folds]
        self.part: Extent | None = None  # the number of this block's part
        self.totals: dict[Equation, ir.Tile] = {}

    def widest(self) -> int:
        """Bytes of an element of the widest array that lies along the vectors (an index for each row does not)."""
        p = self.p
        arrays = [(e.operands[i], axes) for (e, i), axes in p.letters.uses.items()]
        arrays += [(v, p.letters.values[v]) for v in p.outputs]
        along = [v.dtype.compute.bytes for v, axes in arrays if isinstance(v, Value) and p.lane in flat(axes)]
        return max(along, default=4)

    def upright(self) -> tuple[int, int]:
        """The shape of a tile whose vectors lie along the rows: wide, so that each step reads a few whole cache lines."""
        n = self.size[self.p.rows[-1]]
        wide = self.vector * WIDE
        if None in self.p.kept.values() or (isinstance(n, int) and n < wide):
            return 4, self.vector * 2
        return 1, wide

    def drops(self, e: Equation) -> set[Letter]:
        if e.op not in REDUCTIONS:
            return set()
        axes = self.p.letters.of(e, 0)
        return {x for a in e.attributes["axes"] for x in axes[a]}

    def on_line(self, v: Value) -> bool:
        return any(x in self.p.line for x in flat(self.p.letters.values[v]))

    # --- the nest over rows -------------------------------------------------------------------------------------------
    def kernel(self) -> ir.Kernel:
        p = self.p
        loops = self.grid()
        body = tuple(self.t.levels[0].body)
        for loop in reversed(loops):
            body = (ir.Parallel(loop.index, loop.lo, loop.hi, loop.tile, body),)
        return kernel(p, body, {"width": self.width})

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
        if self.splits_line(kept):
            loops, rest = self.blocks(kept, self.size[p.line[-1]])
            self.kept_rows(rest, {}, lambda: self.blocked(loops, p.line[-1], lambda: self.tile_of_map()))
            return loops
        if self.crosses(kept):
            loops, rest = self.blocks(kept, self.size[p.line[-1]])
            ranges = [x if isinstance(x, tuple) else (x, 0, self.size[x]) for x in rest]
            if ranges and ranges[-1][0] == kept[-1]:
                *rest, (x, lo, hi) = ranges
                self.kept_rows(rest, {}, lambda: self.over_line(lambda: self.stream(x, lo, hi, self.tile_of_map)))
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
        """A map that reads an array along its rows (x + y.T): a few rows of each tile, so that cache lines are read whole."""
        p = self.p
        if not kept or not self.is_map():
            return False
        last = [axes[-1][-1] for axes in p.letters.uses.values() if axes and axes[-1]]
        return any(x in kept for x in last)

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

    def parallel(self, index: str) -> None:
        self.t.depth_of[index] = 0

    def single(self) -> ir.Parallel:
        index = self.t.name("b")
        self.parallel(index)
        return ir.Parallel(index, 0, 1, 1, ())

    def blocks(self, rows: list[Letter], inner: Extent) -> tuple[list[ir.Parallel], list[tuple[Letter, Extent, Extent]]]:
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

    def kept_rows(self, rows: list, ranges: dict[Letter, tuple[Extent, Extent]], leaf: Callable[[], None] | None = None) -> None:
        """Streams over the rows that are kept, then (inside) over those that are folded, then the row itself."""
        rows = [x if isinstance(x, tuple) else (x, 0, self.size[x]) for x in rows]
        if rows:
            (x, lo, hi), *rest = rows
            self.stream(x, lo, hi, lambda: self.kept_rows(rest, ranges, leaf))
        elif self.p.partial and self.p.rows:
            self.init_columns()
            self.folded_rows(list(self.p.reduced), ranges)
            self.store_totals()
        elif leaf is not None:
            leaf()
        else:
            self.row()

    def stream(self, letter: Letter, lo: Extent, hi: Extent, inside: Callable[[], None], carries: bool = False) -> None:
        """One step of a row letter after the other."""
        if lo == 0 and hi == 1:
            self.t.pos[letter] = 0
            inside()
            return
        index = self.t.name("r")
        folds = [e for e in self.p.partial if self.carried(e)] if carries else []
        names = {e: self.t.name(f"total_{e.op.value}") for e in folds}
        outer = dict(self.totals)
        self.t.push(index, *names.values())
        self.t.pos[letter] = size(index)
        for e in folds:
            self.totals[e] = ir.Name(names[e], (1, 1), self.dtype(e))
        inside()
        carry = tuple(ir.Carry(names[e], outer[e], self.totals[e]) for e in folds)
        body = self.t.pop()
        self.t.emit(ir.Stream(index, lo, hi, 1, body, carry))
        for e in folds:
            self.register(names[e])
            self.totals[e] = ir.Name(names[e], (1, 1), self.dtype(e))

    def register(self, name: str) -> None:
        self.t.levels[-1].names.add(name)
        self.t.depth_of[name] = self.t.depth

    def dtype(self, e: Equation):  # type: ignore[no-untyped-def]
        return e.values[0].dtype.compute

    # --- folds over rows -----------------------------------------------------------------------------------------------
    def carried(self, e: Equation) -> bool:
        """Is this fold over rows one number for each row, carried from row to row?"""
        return e in self.p.partial and (e in self.line_folds or not set(flat(self.p.letters.of(e, 0))) & set(self.p.line))

    def column_position(self, e: Equation) -> tuple:
        return self.t.own(e.result)

    def column_view(self, e: Equation) -> ir.View:
        prefix = () if self.part is None else (self.part,)
        view = self.t.view(self.memory(self.p.partial[e]), self.column_position(e), prefix)
        assert view is not None
        return view

    def init_columns(self) -> None:
        for e in self.p.partial:
            if self.carried(e):
                self.totals[e] = constant(identity(e.op, e.values[0].dtype), self.dtype(e), (1, 1))
        columns = [e for e in self.p.partial if not self.carried(e)]
        if columns:
            def start() -> None:
                for e in columns:
                    value = constant(identity(e.op, e.values[0].dtype), self.dtype(e), self.t.shape)
                    self.t.emit(ir.Store(self.column_view(e), value, e.location))
            self.over_line(start)

    def folded_rows(self, letters: list[Letter], ranges: dict[Letter, tuple[Extent, Extent]]) -> None:
        if not letters:
            self.row()
            for e in self.p.partial:
                if self.carried(e):
                    value = self.row_total(e)
                    new = ir.Map(COMBINE[e.op], (self.totals[e], spread_to(value, (1, 1))), self.dtype(e))
                    self.totals[e] = self.t.let(new, "total")
            return
        x, *rest = letters
        lo, hi = ranges.get(x, (0, self.size[x]))
        self.stream(x, lo, hi, lambda: self.folded_rows(rest, ranges), carries=True)

    def row_total(self, e: Equation) -> ir.Tile:
        """What this row adds to a fold over rows."""
        if e in self.line_folds:
            return self.t.ready[e.result]()[0]
        tile, depth = self.t.operand(e, 0, self.t.plain_operand(e, 0))
        return self.t.join([(tile, depth)])[0][0]

    def store_totals(self) -> None:
        for e in self.p.partial:
            if self.carried(e):
                view = self.column_view(e)
                self.t.emit(ir.Store(view, self.totals[e], e.location))

    # --- one row -----------------------------------------------------------------------------------------------------------
    def row(self) -> None:
        p = self.p
        for v in p.line and [v for v, home in p.kept.items() if home is None]:
            self.near(v)
        self.t.ready.clear()  # what the tiles of other rows left behind
        for k in range(p.passes):
            self.one_pass(k)
        for v in p.outputs:
            e = self.t.made[v]
            if e not in p.partial and not self.on_line(v):
                self.store(v)

    def near(self, v: Value) -> None:
        """Near memory for a line value that waits for a later pass: one for the block, used by row after row."""
        if v in self.nears:
            return
        shape: list[Extent] = [self.size[x] for x in self.p.line]
        if len(shape) > 1:  # the inner loop's last tile is a whole one
            step = self.width if self.along == 1 else self.rows_of_tile
            shape[-1] = ceildiv(shape[-1], step) * step
        if self.along == 0:
            shape.append(self.width)
        self.nears[v] = ir.Near(self.t.name(v.name or "kept"), v.dtype.compute, tuple(shape))
        self.t.levels[0].body.insert(0, self.nears[v])

    def one_pass(self, k: int) -> None:
        p, t = self.p, self.t
        known = lambda v: p.when.get(v, 0)  # noqa: E731
        folds = [LineFold(e) for e in self.line_folds if known(e.values[0]) == k]
        kept = [v for v in p.kept if known(v) == k]
        writes = [v for v in p.outputs if self.on_line(v) and known(v) == k and t.made[v] not in p.partial]
        columns = [e for e in self.columns if k == p.passes - 1 and not self.carried(e)]
        if not (folds or kept or writes or columns):
            return
        results = self.walk(folds, lambda: self.tile(k, folds, kept, writes, columns))
        for fold, carried in zip(folds, results, strict=True):
            name = t.let(fold.result(carried), fold.equation.result.name or fold.op.value, location=fold.equation.location)
            depth = t.depth
            t.ready[fold.equation.result] = lambda name=name, depth=depth: (name, depth)  # type: ignore[misc]
        for v in kept:
            t.ready[v] = lambda v=v: self.kept_again(v)  # type: ignore[misc]

    def tile(self, k: int, folds: list[LineFold], kept: list[Value], writes: list[Value], columns: list[Equation]) -> list[tuple]:
        """The work of one tile of pass k; for each fold its (value, place)."""
        t = self.t
        if k == min(1, self.p.passes - 1):
            self.fetch_ahead()
        stores: list[ir.Statement] = []
        for v in kept:
            stores.append(self.keep(v, self.value(v)))
        out = []
        for fold in folds:
            e = fold.equation
            value = self.masked(t.operand(e, 0, t.plain_operand(e, 0)), fold)
            place = t.count(self.line_index())[0] if fold.op in PLACES else None
            out.append((value, place))
        for v in writes:
            view = t.view(self.memory(v), t.own(v))
            assert view is not None
            stores.append(ir.Store(view, spread_to(self.value(v), t.shape), t.made[v].location))
        for e in columns:
            view = self.column_view(e)
            old = t.let(ir.Load(view, t.shape), "column")
            tile, _ = t.operand(e, 0, t.plain_operand(e, 0))
            new = ir.Map(COMBINE[e.op], (old, spread_to(tile, t.shape)), self.dtype(e))
            stores.append(ir.Store(view, new, e.location))
        for s in stores:
            t.emit(s)
        return out

    def fetch_ahead(self) -> None:
        """Ask for the same tile of the next row: the processor's own prefetching ends at every page."""
        p, t = self.p, self.t
        streamed = [x for x in p.rows if self.size[x] != 1]
        if self.along == 0 or not streamed or len(p.line) != 1 or t.edge:
            return
        (line,), row = p.line, streamed[-1]
        n, here = self.size[line], t.pos[row]
        t.pos[row] = here + 1
        asked: set[tuple] = set()
        for (e, i), axes in p.letters.uses.items():
            v = e.operands[i]
            assert isinstance(v, Value)
            near = isinstance(n, int) and n * v.dtype.bytes not in PREFETCHED
            if not near and row in flat(axes) and axes[-1][-1:] == (line,):
                view = t.view(self.memory(v), t.plain_operand(e, i))
                if view is not None and not view.check and (view.memory.name, view.index) not in asked:
                    asked.add((view.memory.name, view.index))
                    t.emit(ir.Prefetch(view, t.shape))
        t.pos[row] = here

    def value(self, v: Value) -> ir.Tile:
        t = self.t
        known = t.tile(v, t.plain(v))
        return self.here(known)

    def here(self, known: Known) -> ir.Tile:
        """A tile that is used in the innermost loop."""
        tile, depth = known
        if depth < self.t.depth and not isinstance(tile, (ir.Name, ir.Constant, ir.Scalar)):
            return self.t.let(tile, "t", depth)
        return tile

    def line_index(self) -> Extent:
        index: Extent = 0
        for x in self.p.line:
            index = index * self.size[x] + self.t.pos[x]
        return index

    def masked(self, known: Known, fold: LineFold) -> ir.Tile:
        """A fold's operand; beyond the end of the line it counts as nothing."""
        t = self.t
        tile = self.here(known)
        if f"#{self.along}" not in t.edge or not self.p.line:
            return tile
        letter = self.p.line[-1]
        inside = t.map("lt", [t.count(t.pos[letter]), t.count(self.size[letter])], dt.bool_)
        return ir.Map("where", (self.here(inside), spread_to(tile, t.shape), constant(fold.start, fold.dtype)), fold.dtype)

    def keep(self, v: Value, tile: ir.Tile) -> ir.Statement:
        t, home = self.t, self.p.kept[v]
        if home is None:
            return ir.Put(self.nears[v], self.near_index(), spread_to(tile, t.shape))
        view = t.view(self.memory(home), t.own(home))
        assert view is not None
        return ir.Store(view, spread_to(tile, t.shape), t.made[v].location)

    def near_index(self) -> tuple[Extent, ...]:
        index = tuple(self.t.pos[x] for x in self.p.line)
        return index if self.along == 1 else (*index, size("#1"))

    def kept_again(self, v: Value) -> Known:
        t, home = self.t, self.p.kept[v]
        if home is None:
            return ir.Load(ir.View(self.nears[v], self.near_index()), t.shape), t.depth
        view = t.view(self.memory(home), t.own(home))
        assert view is not None
        return t.let(ir.Load(view, t.shape), v.name or "kept"), t.depth

    def store(self, v: Value) -> None:
        """A row value that is an output."""
        t = self.t
        view = t.view(self.memory(v), t.own(v))
        assert view is not None
        tile = self.value(v)
        shape = t.shape_of(view)
        if shape == () and tile.shape != ():
            shape = tuple(tile.shape)
        t.emit(ir.Store(view, spread_to(tile, shape), t.made[v].location))

    # --- walks along the line ------------------------------------------------------------------------------------------------
    def walk(self, folds: list[LineFold], inside: Callable[[], list[tuple]]) -> list[list[ir.Tile]]:
        """Go over the line tile by tile; the collapsed tiles of each fold."""
        t, p = self.t, self.p
        outer_shape, outer_edge = t.shape, set(t.edge)
        if not p.line:
            values = inside()
            t.shape, t.edge = outer_shape, outer_edge
            return [[spread_to(v, (1, 1)), *([spread_to(i, (1, 1))] if i is not None else [])] for v, i in values]
        width, step = outer_shape[1], (self.width if self.along == 1 else self.rows_of_tile)
        whole = (lambda n: (1, n)) if self.along == 1 else (lambda n: (n, width))
        *loops, last = p.line
        n = self.size[last]
        parts: list[list[list[ir.Tile]]] = []  # for each region, for each fold, collapsed
        single = not loops and isinstance(n, int)
        if single:
            full = n // step * step
            if full or n == 0:  # an empty line: a stream of no tiles
                carried = self.region(folds, last, 0, full, step, whole(step), False, None, inside)
                parts.append([f.collapse(c, self.along) for f, c in zip(folds, carried, strict=True)])
            if n - full:
                t.push()
                t.shape = whole(n - full)
                t.pos[last] = full + size(f"#{self.along}")
                values = inside()
                body = t.pop()
                t.levels[-1].body.extend(body)
                for s in body:
                    if isinstance(s, ir.Let):
                        self.register(s.name)
                parts.append([f.collapse(f.alone(v, i, t.shape), self.along) for f, (v, i) in zip(folds, values, strict=True)])
        else:
            carried = self.nested(folds, list(p.line), step, whole(step), None, inside)
            parts.append([f.collapse(c, self.along) for f, c in zip(folds, carried, strict=True)])
        t.shape, t.edge = outer_shape, outer_edge
        out = []
        for number, fold in enumerate(folds):
            if not parts:
                out.append(fold.init((1, 1) if self.along == 1 else (1, width)))
                continue
            total = parts[0][number]
            for later in parts[1:]:
                total = fold.join(total, later[number])
            out.append(total)
        return out

    def nested(
        self, folds: list[LineFold], letters: list[Letter], step: int, shape: ir.TileShape, start: list | None, inside: Callable
    ) -> list:
        """Streams over the letters of a line, carrying the folds; the last edge is checked and masked."""
        t = self.t
        x, *rest = letters
        n = self.size[x]
        if rest:
            index = t.name("l")
            names = [[t.name("fold") for _ in f.init(shape)] for f in folds]
            start = start or [f.init(shape) for f in folds]
            t.push(index, *(n for group in names for n in group))
            t.pos[x] = size(index)
            old = [
                [ir.Name(m, shape, s.dtype) for m, s in zip(group, first, strict=True)]
                for group, first in zip(names, start, strict=True)
            ]
            new = self.nested(folds, rest, step, shape, old, inside)
            carry = tuple(
                ir.Carry(m, s, v)
                for group, first, later in zip(names, start, new, strict=True)
                for m, s, v in zip(group, first, later, strict=True)
            )
            body = t.pop()
            t.emit(ir.Stream(index, 0, n, 1, body, carry))
            for group in names:
                for m in group:
                    self.register(m)
            return old
        full = floordiv(n, step) * step
        carried = start
        if full != 0:
            carried = self.region(folds, x, 0, full, step, shape, False, carried, inside)
        if full != n:
            carried = self.region(folds, x, full, n, step, shape, True, carried, inside)
        return carried or [f.init(shape) for f in folds]

    def region(
        self, folds: list[LineFold], letter: Letter, lo: Extent, hi: Extent, step: int, shape: ir.TileShape, edge: bool,
        start: list | None, inside: Callable,
    ) -> list:  # fmt: skip
        """A stream of tiles; the carried tiles of each fold after it."""
        t = self.t
        index = t.name("j")
        start = start or [f.init(shape) for f in folds]
        names = [[t.name("fold") for _ in first] for first in start]
        t.push(index, *(n for group in names for n in group))
        outer = t.shape, set(t.edge)
        t.shape = shape
        if edge:
            t.edge = t.edge | {f"#{self.along}"}
        t.pos[letter] = size(index) + size(f"#{self.along}")
        values = inside()
        carry = []
        old_names = []
        for fold, group, first, (value, place) in zip(folds, names, start, values, strict=True):
            old = [ir.Name(m, shape, s.dtype) for m, s in zip(group, first, strict=True)]
            old_names.append(old)
            new = fold.step(old, value, place, shape)
            carry += [ir.Carry(m, s, x) for m, s, x in zip(group, first, new, strict=True)]
        body = t.pop()
        t.shape, t.edge = outer
        t.emit(ir.Stream(index, lo, hi, step, body, tuple(carry)))
        for group in names:
            for m in group:
                self.register(m)
        return old_names

    def over_line(self, inside: Callable[[], None]) -> None:
        def work() -> list[tuple]:
            inside()
            return []
        self.walk([], work)

    # --- blocks of a long line, or of rows along the vectors -------------------------------------------------------------------
    def tile_of_map(self) -> None:
        outputs = [v for v in self.p.outputs]
        self.tile(0, [], [], outputs, [])

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

    def parts_of_line(self, lo: Extent, n: Extent, per: Extent) -> None:
        """A whole fold: each block folds its piece of the line to one part."""
        t, p = self.t, self.p
        (letter,) = p.line
        folds = [LineFold(e) for e in self.line_folds]
        writes = [v for v in p.outputs if self.on_line(v)]
        inside = lambda: self.tile(0, folds, [], writes, [])  # noqa: E731
        step, shape = self.width, (1, self.width)
        full = floordiv(n, step) * step
        carried = self.region(folds, letter, lo, minimum(lo + per, full), step, shape, False, None, inside)
        if full != n:
            carried = self.region(folds, letter, maximum(lo, full), minimum(lo + per, n), step, shape, True, carried, inside)
        for fold, c in zip(folds, carried, strict=True):
            t.emit(ir.Store(self.column_view(fold.equation), fold.result(fold.collapse(c, 1)), fold.equation.location))
        for v in p.outputs:
            if not self.on_line(v) and t.made[v] not in p.partial:
                self.store(v)
