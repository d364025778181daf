"""RowPlan -> loop IR for a GPU: maps, row folds, folds over rows.

    blocks of rows (and of a map's line)
        Stream over the rows that are folded, for each tile of rows:
            for each pass: the whole line as one tile, held in registers, or a Stream over tiles of it, folds carried
Lanes carry what they folded themselves; a tile is folded across lanes once, at the end. Folds over rows leave parts,
which a finisher, a plan of its own, adds in order. A value that a later pass needs is still there where the line is one
tile, else it is computed again from memory.
Read before: nest.py, row_tiles.py, ir/frame.py. Read next: program.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import kdsl.dtypes as dt
from kdsl.ir import loops as ir
from kdsl.ir.frame import Letter, RowPlan, flat
from kdsl.ir.ops import REDUCTIONS
from kdsl.ir.sizes import Extent, ceildiv, minimum
from kdsl.ir.tensor import Equation, Value
from kdsl.schedule.folds import PLACES, LineFold
from kdsl.schedule.gpu.nest import Nest, State, Walk
from kdsl.schedule.gpu.row_tiles import Kind, RowTile, row_tile
from kdsl.schedule.positions import Memory, constant, spread_to
from kdsl.target import Target


def schedule_rows(plan: RowPlan, memory: Callable[[Value], Memory], target: Target) -> list[ir.Kernel]:
    """The kernel of a plan of maps and folds."""
    return [_Rows(plan, memory, target).kernel()]


@dataclass(eq=False)
class _Fold:
    """A fold of this kernel, what it walks over, and the shape of the tiles that it carries."""

    fold: LineFold
    over: tuple[Letter, ...]
    shape: ir.TileShape

    @property
    def equation(self) -> Equation:
        return self.fold.equation


class _Rows:
    """The nest of one plan."""

    def __init__(self, plan: RowPlan, memory: Callable[[Value], Memory], target: Target) -> None:
        self.p, self.memory, self.size = plan, memory, plan.letters.size
        self.line_folds = [e for e in plan.equations if self.drops(e) and set(plan.line) <= self.drops(e)]
        self.kept = [x for x in plan.rows if x not in plan.reduced]
        columns = sum(map(self.is_column, plan.partial))
        self.tiling: RowTile = row_tile(plan, Kind(self.is_map(), self.splits_line(), columns), target)
        self.t = Nest(plan, memory, self.tiling.axes, self.tiling.shape)
        self.line_axis = self.tiling.axes[plan.line[-1]] if plan.line else 1
        self.online = plan.online if self.walks_online() else None
        self.when = self.online.when if self.online else plan.when
        self.part: Extent | None = None
        self.range_of: dict[Letter, tuple[Extent, Extent]] = {}

    # --- what kind of plan it is ----------------------------------------------------------------------------------------
    def drops(self, e: Equation) -> set[Letter]:
        if e.op not in REDUCTIONS:
            return set()
        axes = self.p.letters.of(e, 0)
        return {x for a in e.attributes["axes"] for x in axes[a]}

    def on_line(self, v: Value) -> bool:
        return any(x in self.p.line for x in flat(self.p.letters.values[v]))

    def is_map(self) -> bool:
        """Is every tile of the line independent of the others?"""
        return not self.line_folds and not self.p.partial and all(map(self.on_line, self.p.outputs))

    def splits_line(self) -> bool:
        """Folds over rows alone, all of whose results and outputs have the line: blocks split the line too."""
        p = self.p
        if not p.partial or self.line_folds or not p.line:
            return False
        return all(self.on_line(v) for v in p.outputs) and all(self.is_column(e) for e in p.partial)

    def is_column(self, e: Equation) -> bool:
        """Is this a fold over rows whose result has the line?"""
        return e not in self.line_folds and bool(set(flat(self.p.letters.of(e, 0))) & set(self.p.line))

    def walks_online(self) -> bool:
        """Is the line walked over, and less often where sums are corrected?"""
        n, step = self.size[self.p.line[-1]] if self.p.line else 1, self.t.shape[self.line_axis]
        return self.p.online is not None and not self.tiling.resident and not (isinstance(n, int) and n <= step)

    def pass_of(self, e: Equation) -> int:
        """The pass in which a fold along the line is folded."""
        return self.online.folds[e] if self.online else self.p.when.get(e.values[0], 0)

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
        if self.is_map() or self.splits_line():
            for x in p.line:
                t.block(x, "at")
        if p.partial and not p.reduced:
            self.fold_whole_line()
        elif p.partial:
            t.streams([self.walk(x) for x in again], [], [], [], lambda _: self.fold_rows())
        elif self.is_map():
            for v in p.outputs:
                t.emit(t.store(v, spread_to(t.value(v), t.shape)))
        else:
            self.passes([], [])
        return t.kernel(self.tiling.thread_elements)

    def repeats(self, letter: Letter) -> bool:
        """Does some fold over rows come out the same at every position of this letter? One block goes over all of them."""
        return any(letter not in flat(self.p.letters.values[e.result]) for e in self.p.partial)

    def longest(self, letters: tuple[Letter, ...]) -> Letter:
        """The letter that is cut in pieces; a named size is taken to be long."""
        return max(letters, key=lambda x: n if isinstance(n := self.size[x], int) else 1 << 62)

    def cut(self, letter: Letter) -> None:
        """A block walks over its piece of a folded letter: whole tiles."""
        n, step = self.size[letter], self.t.step(letter)
        piece = ceildiv(ceildiv(n, self.p.block_count), step) * step
        assert self.part is not None
        self.range_of[letter] = self.part * piece, minimum(self.part * piece + piece, n)

    def walk(self, letter: Letter) -> Walk:
        return Walk(letter, *self.range_of.get(letter, (0, self.size[letter])))

    def line_walks(self) -> list[Walk]:
        return [] if self.splits_line() else [self.walk(x) for x in self.p.line]

    # --- folds over rows ----------------------------------------------------------------------------------------------------
    def fold_rows(self) -> State:
        """Every tile of rows adds to what is carried; columns of a line of several tiles are added up in memory."""
        p, t = self.p, self.t
        in_memory = not (self.splits_line() or self.tiling.resident)
        carried: list[_Fold] = []
        columns: list[_Fold] = []
        for e in p.partial:
            on_line = e in self.line_folds or self.is_column(e)
            shape = (t.shape[0], t.shape[1] if on_line else 1)
            fold = _Fold(LineFold(e), (*p.reduced, *(p.line if e in self.line_folds else ())), shape)
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

    def line_of(self, columns: list[_Fold], tile: Callable[[_Fold], ir.Tile]) -> None:
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
        folds = [_Fold(LineFold(e), p.line, t.shape) for e in self.line_folds]
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
    def passes(self, carried: list[_Fold], columns: list[_Fold], held: State | None = None) -> State:
        """All passes; what the folds over rows hold afterwards."""
        p, t = self.p, self.t
        held = list(held or [])
        passes = self.online.walks if self.online else p.passes
        last = passes - 1
        for k in range(passes):
            folds = [_Fold(LineFold(e), p.line, t.shape) for e in self.line_folds if e not in p.partial and self.pass_of(e) == k]
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

    def finish(self, folds: list[_Fold], ends: State) -> None:
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

    def ready(self, f: _Fold, tiles: list[ir.Tile]) -> None:
        """The result of a fold has a name from here on."""
        t, e = self.t, f.equation
        name = t.let(f.fold.result(tiles), e.result.name or f.fold.op.value, location=e.location)
        depth = t.depth
        t.ready[e.result] = lambda: (name, depth)

    def pass_over(self, folds: list[_Fold], writes: list[Value], columns: list[_Fold], start: State) -> State:
        """One walk over the line."""
        if not (folds or writes or columns):
            return start
        return self.t.streams(
            self.line_walks(), [f.fold for f in folds], [f.shape for f in folds], start,
            lambda held: self.tile(folds, writes, columns, held),
        )  # fmt: skip

    def tile(self, folds: list[_Fold], writes: list[Value], columns: list[_Fold], held: State) -> State:
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

    def steps(self, folds: list[_Fold], held: State) -> State:
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

    def step(self, f: _Fold, old: list[ir.Tile] | None, over: tuple[Letter, ...] | list[Letter]) -> list[ir.Tile]:
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


def finite(top: ir.Tile) -> ir.Tile:
    """A maximum that may be subtracted: 0 where it is -inf."""
    low = ir.Map("eq", (top, ir.Constant(-math.inf, top.dtype)), dt.bool_)
    return ir.Map("where", (low, ir.Constant(0.0, top.dtype), top), top.dtype)


def grown(old: ir.Tile, new: ir.Tile, k: float) -> ir.Tile:
    """exp(k (new - old)), k < 0: what becomes of a sum as its maximum grows from old to new."""
    less: ir.Tile = ir.Map("sub", (old, new), old.dtype)
    if k != -1:
        less = ir.Map("mul", (less, ir.Constant(-k, old.dtype)), old.dtype)
    return ir.Map("exp", (less,), old.dtype)
