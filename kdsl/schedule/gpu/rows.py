"""RowPlan -> loop IR for a GPU: maps, row folds, folds over rows.

    blocks of rows (and of a map's line)
        Stream over the rows that are folded, for each tile of rows:
            for each pass: the whole line as one tile, held in registers, or a Stream over tiles of it, folds carried
Lanes carry what they folded themselves; a tile is folded across lanes once, at the end. Folds over rows leave parts,
which a finisher, a plan of its own, adds in order. A value that a later pass needs is still there where the line is one
tile, else it is computed again from memory.
Read before: nest.py, row_tiles.py, row_kind.py. Read next: program.py.
"""

from __future__ import annotations

from collections.abc import Callable

import kdsl.dtypes as dt
from kdsl.ir import loops as ir
from kdsl.ir.frame import Letter, RowPlan, flat
from kdsl.ir.sizes import Extent, ceildiv, minimum, modulo, size, substitute
from kdsl.ir.tensor import Equation, Value
from kdsl.schedule.folds import PLACES, LineFold
from kdsl.schedule.gpu.nest import State, Walk
from kdsl.schedule.gpu.row_kind import RowFold, RowKind, finite, grown
from kdsl.schedule.positions import Memory, constant, spread_to
from kdsl.target import Target


def schedule_rows(plan: RowPlan, memory: Callable[[Value], Memory], target: Target) -> list[ir.Kernel]:
    """The kernel of a plan of maps and folds."""
    return [_Rows(plan, memory, target).kernel()]


class _Rows(RowKind):
    """The nest of one plan."""

    # --- the nest --------------------------------------------------------------------------------------------------------
    def kernel(self) -> ir.Kernel:
        p, t = self.p, self.t
        if p.partial and p.block_count:
            self.part = t.parallel("part", 0, p.block_count)
            self.cut(self.longest(p.reduced or p.line))
        again = [x for x in self.kept if self.repeats(x)]
        for x in self.kept:
            if x not in again:
                t.block(x, "row")
        if self.tiling.piece > 1:
            self.begin_at_pieces()
        if self.is_map() or self.splits_line():
            for x in p.line:
                t.block(x, "at", self.tiling.piece - 1)
        if p.partial and not p.reduced:
            self.fold_whole_line()
        elif p.partial:
            t.streams([self.walk(x) for x in again], [], [], [], lambda _: self.fold_rows())
        elif self.is_map():
            for v in p.outputs:
                t.emit(t.store(v, spread_to(t.value(v), t.shape)))
        else:
            self.passes([], [])
        return t.kernel(self.tiling.thread_elements, self.tiling.down, self.tiling.most)

    def begin_at_pieces(self) -> None:
        """The tiles of a row begin so far before it that they lie in whole pieces of 16 bytes of an array with the same rows."""
        p, t = self.p, self.t
        (line,) = p.line
        t.pos[line] = 0
        outputs = [(v, t.own(v)) for v in p.outputs if self.on_line(v)]
        inputs = [
            (e.operands[i], t.plain_operand(e, i)) for (e, i), axes in p.letters.uses.items()
            if line in flat(axes) and set(self.kept) <= set(flat(axes)) and isinstance(e.operands[i], Value)
        ]  # fmt: skip
        for v, at in (*outputs, *inputs):
            view = t.view(self.memory(v), at)
            if view is not None and view.memory.strides[-1] == 1:
                start = sum(i * s for i, s in zip(view.index, view.memory.strides, strict=True))
                start = substitute(start, {f"#{a}": 0 for a in (0, 1)})  # the tile has one row
                shift = t.let(ir.Scalar(modulo(start, self.tiling.piece), dt.i64), "shift")
                t.shift[line] = size(shift.name)
                break

    def repeats(self, letter: Letter) -> bool:
        """Does some fold over rows come out the same at every position of this letter? One block goes over all of them."""
        return any(letter not in flat(self.p.letters.values[e.result]) for e in self.p.partial)

    def longest(self, letters: tuple[Letter, ...]) -> Letter:
        """The letter that is cut in pieces; a named size is taken to be long."""
        return max(letters, key=lambda x: n if isinstance(n := self.size[x], int) else 1 << 62)

    def cut(self, letter: Letter) -> None:
        """A block walks over its piece of a folded letter: whole tiles."""
        n, step = self.reach(letter), self.t.step(letter)
        piece = ceildiv(ceildiv(n, self.p.block_count), step) * step
        assert self.part is not None
        self.range_of[letter] = self.part * piece, minimum(self.part * piece + piece, n)

    def reach(self, letter: Letter) -> Extent:
        """Where a walk over a letter ends, counted from where its tiles begin."""
        return self.size[letter] + (self.tiling.piece - 1 if letter in self.p.line else 0)

    def walk(self, letter: Letter) -> Walk:
        return Walk(letter, *self.range_of.get(letter, (0, self.reach(letter))))

    def line_walks(self) -> list[Walk]:
        return [] if self.splits_line() else [self.walk(x) for x in self.p.line]

    # --- folds over rows ----------------------------------------------------------------------------------------------------
    def fold_rows(self) -> State:
        """Every tile of rows adds to what is carried; columns of a line of several tiles are added up in memory."""
        p, t = self.p, self.t
        in_memory = not (self.splits_line() or self.tiling.resident)
        carried: list[RowFold] = []
        columns: list[RowFold] = []
        for e in p.partial:
            on_line = e in self.line_folds or self.is_column(e)
            shape = (t.shape[0], t.shape[1] if on_line else 1)
            fold = RowFold(LineFold(e), (*p.reduced, *(p.line if e in self.line_folds else ())), shape)
            (columns if in_memory and self.is_column(e) else carried).append(fold)
        if columns:
            self.line_of(columns, lambda f: constant(f.fold.start, f.fold.dtype, (1, t.shape[1])))
        ends = t.streams(
            [self.walk(x) for x in p.reduced], [f.fold for f in carried], [f.shape for f in carried],
            [None] * len(carried), lambda held: self.passes(carried, columns, held),
        )  # fmt: skip
        for f, tiles in zip(carried, ends, strict=True):
            assert tiles is not None
            total = t.collapse(f.fold, tiles, *((1, 0) if f.equation in self.line_folds else (0,)))
            self.store_part(f.equation, total[-1])
        return []

    def line_of(self, columns: list[RowFold], tile: Callable[[RowFold], ir.Tile]) -> None:
        """Write tiles of columns all along the line."""

        def inside(_: State) -> State:
            for f in columns:
                self.store_part(f.equation, tile(f))
            return []

        self.t.streams(self.line_walks(), [], [], [], inside)

    def part_view(self, e: Equation) -> ir.View:
        prefix = () if self.part is None else (self.part,)
        view = self.t.view(self.memory(self.p.partial[e]), self.t.own(e.result), prefix)
        assert view is not None
        return view

    def store_part(self, e: Equation, tile: ir.Tile) -> None:
        view = self.part_view(e)
        self.t.emit(ir.Store(view, spread_to(tile, self.t.shape_at(view, tile)), e.location))

    def fold_whole_line(self) -> None:
        """Lines of few rows, in pieces: each block leaves a part."""
        p, t = self.p, self.t
        folds = [RowFold(LineFold(e), p.line, t.shape) for e in self.line_folds]
        writes = [v for v in p.outputs if self.on_line(v)]
        ends = self.pass_over(folds, writes, [], [None] * len(folds))
        for f, tiles in zip(folds, ends, strict=True):
            assert tiles is not None
            self.store_part(f.equation, t.collapse(f.fold, tiles, self.line_axis)[-1])
        for v in p.outputs:
            if not self.on_line(v) and t.made[v] not in p.partial:
                self.only_first(t.store(v, t.value(v)))

    def only_first(self, store: ir.Store) -> None:
        """What every block knows is written by the first."""
        assert self.part is not None
        first = ir.Map("eq", (ir.Scalar(self.part, dt.i64), ir.Constant(0, dt.i64)), dt.bool_)
        self.t.emit(ir.If(first, (store,)))

    # --- the passes over one tile of rows --------------------------------------------------------------------------------------
    def passes(self, carried: list[RowFold], columns: list[RowFold], held: State | None = None) -> State:
        """All passes; what the folds over rows hold afterwards."""
        p, t = self.p, self.t
        held = list(held or [])
        passes = self.online.walks if self.online else p.passes
        last = passes - 1
        for k in range(passes):
            now = [e for e in self.line_folds if e not in p.partial and self.pass_of(e) == k]
            folds = [RowFold(LineFold(e), p.line, self.shape_of_fold(e)) for e in now]
            mine = [
                i for i, f in enumerate(carried)
                if (f.equation in self.line_folds and k == self.pass_of(f.equation))
                or (k == last and self.is_column(f.equation))
            ]  # fmt: skip
            writes = [v for v in p.outputs if self.on_line(v) and self.when.get(v, 0) == k and t.made[v] not in p.partial]
            all_folds = [*folds, *(carried[i] for i in mine)]
            ends = self.pass_over(
                all_folds, writes, columns if k == last else [], [*([None] * len(folds)), *(held[i] for i in mine)]
            )
            self.finish(folds, ends)
            for i, tiles in zip(mine, ends[len(folds) :], strict=True):
                held[i] = tiles
        for i, f in enumerate(carried):  # of values that have no line
            if f.equation not in self.line_folds and not self.is_column(f.equation):
                held[i] = self.step(f, held[i], [x for x in p.reduced])
        for v in p.outputs:
            if not self.on_line(v) and t.made[v] not in p.partial:
                t.emit(t.store(v, t.value(v)))
        return held

    def shape_of_fold(self, e: Equation) -> ir.TileShape:
        """What a fold along the line carries: where its operand is the same for all rows of the tile, that of one of them."""
        letters = flat(self.p.letters.of(e, 0))
        varies = {a for x, a in self.tiling.axes.items() if x in letters} | {self.line_axis}
        return tuple(n if a in varies else 1 for a, n in enumerate(self.t.shape))

    def finish(self, folds: list[RowFold], ends: State) -> None:
        """Fold what lanes carried; what was summed under the lane's own maximum is brought to that of the row."""
        lanes: dict[Equation, ir.Tile] = {}
        for f, tiles in zip(folds, ends, strict=False):
            assert tiles is not None
            e = f.equation
            lanes[e] = tiles[0]
            corrections = self.corrections(e)
            for top, k in corrections:
                base = finite(self.t.ready[top.result]()[0])
                tiles = [ir.Map("mul", (tiles[0], grown(lanes[top], base, k)), f.fold.dtype)]
            tiles = self.t.collapse(f.fold, tiles, self.line_axis)
            for top, k in corrections:  # a row that is -inf throughout gives what the maximum itself gives
                best = self.t.ready[top.result]()[0]
                tiles = [ir.Map("mul", (tiles[0], grown(finite(best), best, k)), f.fold.dtype)]
            self.ready(f, tiles)

    def corrections(self, e: Equation) -> tuple[tuple[Equation, float], ...]:
        return self.online.corrected.get(e, ()) if self.online else ()

    def ready(self, f: RowFold, tiles: list[ir.Tile]) -> None:
        """The result of a fold has a name from here on."""
        t, e = self.t, f.equation
        name = t.let(f.fold.result(tiles), e.result.name or f.fold.op.value, location=e.location)
        depth = t.depth
        t.ready[e.result] = lambda: (name, depth)

    def pass_over(self, folds: list[RowFold], writes: list[Value], columns: list[RowFold], start: State) -> State:
        """One walk over the line."""
        if not (folds or writes or columns):
            return start
        return self.t.streams(
            self.line_walks(), [f.fold for f in folds], [f.shape for f in folds], start,
            lambda held: self.tile(folds, writes, columns, held),
        )  # fmt: skip

    def tile(self, folds: list[RowFold], writes: list[Value], columns: list[RowFold], held: State) -> State:
        """The work on one tile."""
        t = self.t
        out = self.steps(folds, held)
        stores: list[ir.Statement] = [t.store(v, spread_to(t.value(v), t.shape)) for v in writes]
        for f in columns:
            old = t.let(ir.Load(self.part_view(f.equation), (1, t.shape[1])), "column")
            new = t.collapse(f.fold, [spread_to(t.masked(t.first_operand(f.equation), f.over, f.fold), t.shape)], 0)
            view = self.part_view(f.equation)
            stores.append(ir.Store(view, f.fold.join([old], new)[0], f.equation.location))
        for s in stores:
            t.emit(s)
        return out

    def steps(self, folds: list[RowFold], held: State) -> State:
        """One tile joins what the folds carry. A sum that waits for a maximum of this walk is scaled as the maximum grows."""
        t, tops = self.t, {top for f in folds for top, _ in self.corrections(f.equation)}
        before: dict[Equation, ir.Tile] = {}
        base: dict[Equation, ir.Tile] = {}
        out: State = []
        for f, old in zip(folds, held, strict=True):
            for top, k in self.corrections(f.equation):
                assert old is not None
                old = [ir.Map("mul", (old[0], grown(before[top], base[top], k)), f.fold.dtype)]
            new = self.step(f, old, f.over)
            e = f.equation
            if e in tops:
                assert old is not None
                new = [t.let(new[0], "top")]
                before[e], base[e] = old[0], t.let(finite(new[0]), "base")
                depth = t.depth
                t.ready[e.result] = lambda tile=base[e], depth=depth: (tile, depth)  # type: ignore[misc]
            out.append(new)
        return out

    def step(self, f: RowFold, old: list[ir.Tile] | None, over: tuple[Letter, ...] | list[Letter]) -> list[ir.Tile]:
        """One tile joins what a fold carries."""
        t = self.t
        value = t.masked(t.first_operand(f.equation), over, f.fold)
        place = t.count(self.line_index())[0] if f.fold.op in PLACES else None
        new = f.fold.alone(value, place, f.shape)
        return new if old is None else f.fold.join(old, new)

    def line_index(self) -> Extent:
        index: Extent = 0
        for x in self.p.line:
            index = index * self.size[x] + self.t.pos[x]
        return index
