"""What every GPU schedule stands on: one tile shape for a kernel, letters along its axes, blocks, streams with carries.

In:  a Plan, for each letter the tile axis that it lies along.  Out: Nest: a place to emit statements into.
A tile has two axes whose extents are powers of two. A letter that lies along one of them is walked a tile at a time, by
blocks (`block`) or one after the other (`streams`); every other letter one element at a time. Where a tile may run over the
end of its letter, that axis is an *edge*: views along it are checked, and folds over it are masked.
Read before: ir/loops.py, schedule/tiles.py. Read next: rows.py, scatter.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import kdsl.dtypes as dt
from kdsl.ir import loops as ir
from kdsl.ir.frame import Letter, Plan
from kdsl.ir.sizes import Extent, Size, names_in, size
from kdsl.ir.tensor import Equation, Location, Value
from kdsl.schedule.folds import LineFold
from kdsl.schedule.kernels import kernel
from kdsl.schedule.positions import Known, Memory, Position, constant, spread_to
from kdsl.schedule.tiles import Tiles

THREAD_ELEMENTS = 8  # elements of a tile that one thread holds, where that makes no more than FEW_WARPS
FEW_WARPS = 8
MANY_ELEMENTS = 16  # more than that for a thread, and more warps share a tile
MOST_WARPS = 32


def power_above(n: int) -> int:
    """The least power of two that is not below n."""
    return 1 << max(0, n - 1).bit_length()


def warps_for(shape: tuple[int, int], least: int = THREAD_ELEMENTS) -> int:
    """How many warps share a tile; `least`: elements that a thread should have."""
    elements = shape[0] * shape[1]
    warps = 1
    while (warps < FEW_WARPS and elements > 32 * warps * least) or elements > 32 * warps * MANY_ELEMENTS:
        warps *= 2
    return min(warps, MOST_WARPS)


@dataclass(frozen=True)
class Walk:
    """A loop over positions lo … hi-1 of a letter."""

    letter: Letter
    lo: Extent
    hi: Extent


State = list["list[ir.Tile] | None"]  # for each fold its carried tiles


class Nest(Tiles):
    """The evaluator of a plan inside a nest of blocks and streams over tiles of one shape."""

    def __init__(
        self, plan: Plan, memory: Callable[[Value], Memory], axes: Mapping[Letter, int], shape: tuple[int, int]
    ) -> None:
        super().__init__(plan, memory)
        self.size = plan.letters.size
        self.axes, self.shape = dict(axes), shape
        self.edge = {f"#{a}" for x, a in axes.items() if not _whole(self.size[x], shape[a])}
        self.whole: set[Letter] = set()  # named letters that one tile holds
        self.shift: dict[Letter, Extent] = {}  # so far before its start a letter is begun, for accesses of 16 bytes
        self.grid: list[ir.Parallel] = []
        self.loads: dict[str, ir.Load] = {}  # what a name stands for, where that is a load

    def depth_at(self, *extents: Extent) -> int:
        """As for any target; but a tile has one shape, so that a position along it is known everywhere."""
        return max((self.depth_of.get(n, 0) for x in extents if isinstance(x, Size) for n in names_in(x)), default=0)

    # --- loops ----------------------------------------------------------------------------------------------------------
    def step(self, letter: Letter) -> int:
        return self.shape[self.axes[letter]] if letter in self.axes else 1

    def at(self, letter: Letter, start: Extent) -> None:
        self.pos[letter] = start + ir.axis(self.axes[letter]) if letter in self.axes else start
        if letter in self.shift:
            self.pos[letter] = self.pos[letter] - self.shift[letter]

    def block(self, letter: Letter, hint: str, more: int = 0) -> Extent:
        """A block for each tile of a letter; where it starts. `more`: positions that its tiles hold beside the letter's."""
        n, step = self.size[letter] + more, self.step(letter)
        start: Extent = 0
        if n == 0 or not (isinstance(n, int) and n <= step):
            start = self.parallel(hint, 0, n, step)
        self.at(letter, start)
        return start

    def parallel(self, hint: str, lo: Extent, hi: Extent, step: int = 1) -> Extent:
        index = self.name(hint)
        self.depth_of[index] = 0
        self.grid.append(ir.Parallel(index, lo, hi, step, ()))
        return size(index)

    def streams(
        self, walks: Sequence[Walk], folds: Sequence[LineFold], shapes: Sequence[ir.TileShape],
        start: State, inside: Callable[[State], State], order: str = "any",
    ) -> State:  # fmt: skip
        """Walk over letters one after the other, the first outermost, carrying folds; what they hold in the end."""
        if not walks:
            return inside(start)
        (walk, *rest) = walks
        step = self.step(walk.letter)
        if self.is_one_tile(walk):
            self.at(walk.letter, walk.lo)
            return self.streams(rest, folds, shapes, start, inside, order)
        first = [f.init(s) if old is None else old for f, s, old in zip(folds, shapes, start, strict=True)]
        names = [[self.name(f.monoid) for _ in tiles] for f, tiles in zip(folds, first, strict=True)]
        index = self.name("k" if not rest else "r")
        self.push(index, *(n for group in names for n in group))
        before = self.pos.get(walk.letter)
        self.at(walk.letter, size(index))
        held: State = [
            [ir.Name(n, tuple(t.shape), t.dtype) for n, t in zip(group, tiles, strict=True)]
            for group, tiles in zip(names, first, strict=True)
        ]
        after = self.streams(rest, folds, shapes, held, inside, order)
        carries = tuple(
            ir.Carry(n, t, x)
            for group, tiles, new in zip(names, first, after, strict=True)
            for n, t, x in zip(group, tiles, new or tiles, strict=True)
        )
        body = self.pop()
        if before is not None:
            self.pos[walk.letter] = before
        self.emit(ir.Stream(index, walk.lo, walk.hi, step, body, carries, order))
        for group in names:
            for n in group:
                self.levels[-1].names.add(n)
                self.depth_of[n] = self.depth
        return held

    def is_one_tile(self, walk: Walk) -> bool:
        """Does one tile hold all positions of this walk?"""
        if walk.letter in self.whole and walk.lo == 0:
            return True
        length = walk.hi - walk.lo
        return isinstance(walk.lo, int) and isinstance(length, int) and 0 < length <= self.step(walk.letter)

    # --- tiles ----------------------------------------------------------------------------------------------------------
    def here(self, known: Known) -> ir.Tile:
        """A tile that is used in the innermost loop."""
        return self.join([known, (constant(0, dt.i64), self.depth)])[0][0]

    def value(self, v: Value) -> ir.Tile:
        return self.here(self.tile(v, self.plain(v)))

    def first_operand(self, e: Equation) -> ir.Tile:
        """What a fold folds, where the loops stand."""
        return self.here(self.operand(e, 0, self.plain_operand(e, 0)))

    def masked(self, tile: ir.Tile, letters: Sequence[Letter], fold: LineFold) -> ir.Tile:
        """A fold's operand; beyond the end of a letter it counts as nothing."""
        inside: Known | None = None
        for x in letters:
            if x in self.axes and f"#{self.axes[x]}" in self.edge and not self.neutral_beyond(tile, x, fold):
                one = self.within(x)
                inside = one if inside is None else self.map("and", [inside, one], dt.bool_)
        if inside is None:
            return tile
        return ir.Map("where", (self.here(inside), tile, constant(fold.start, fold.dtype)), fold.dtype)

    def neutral_beyond(self, tile: ir.Tile, letter: Letter, fold: LineFold) -> bool:
        """Is this a checked load that reads, beyond the end of the letter, what counts as nothing?"""
        load = self.loads.get(tile.name) if isinstance(tile, ir.Name) else tile
        if not isinstance(load, ir.Load) or load.view.fill != fold.start:
            return False
        view, at = load.view, self.pos[letter]
        places = zip(view.index, view.memory.shape, view.checks, strict=True)
        return any(index == at and extent == self.size[letter] and check for index, extent, check in places)

    def let(self, tile: ir.Tile, hint: str = "t", depth: int | None = None, location: Location | None = None) -> ir.Tile:
        name = super().let(tile, hint, depth, location)
        if isinstance(tile, ir.Load) and isinstance(name, ir.Name):
            self.loads[name.name] = tile
        return name

    def within(self, letter: Letter) -> Known:
        """Which elements of the tile are inside a letter."""
        at = self.pos[letter]
        key = ("within", letter), (at,)
        if key not in self.memo:
            tile, depth = self.map("lt", [self.count(at), self.count(self.size[letter])], dt.bool_)
            if letter in self.shift:
                after, own = self.map("ge", [self.count(at), self.count(0)], dt.bool_)
                tile, depth = self.map("and", [(tile, depth), (after, own)], dt.bool_)
            depth = max(depth, self.depth_at(at))
            self.memo[key] = self.let(tile, "inside", depth), depth
            self.levels[depth].memo.append(key)
        return self.memo[key]

    def collapse(self, fold: LineFold, tiles: list[ir.Tile], *axes: int) -> list[ir.Tile]:
        """Carried tiles folded along tile axes."""
        for a in axes:
            if tiles[0].shape[a] > 1:
                tiles = fold.collapse([self.let(t, "each") for t in tiles] if len(tiles) > 1 else tiles, a)
        return tiles

    def shape_at(self, view: ir.View, tile: ir.Tile) -> ir.TileShape:
        """The shape in which a tile is stored: what the view counts through; a scalar keeps its axes of extent 1."""
        shape = self.shape_of(view)
        return tuple(tile.shape) if shape == () else shape

    def store(self, v: Value, tile: ir.Tile, at: Position | None = None) -> ir.Store:
        view = self.view(self.memory(v), self.own(v) if at is None else at)
        assert view is not None
        return ir.Store(view, spread_to(tile, self.shape_at(view, tile)), self.made[v].location)

    # --- the end --------------------------------------------------------------------------------------------------------
    def kernel(
        self, thread_elements: int = THREAD_ELEMENTS, down: int = 1, most: tuple[int, int] | None = None
    ) -> ir.Kernel:
        """The finished nest; `down`: rows that a thread has below one another; `most`: the largest part of the tile in use."""
        if not self.grid:
            self.parallel("block", 0, 1)
        body = tuple(self.levels[0].body)
        for loop in reversed(self.grid):
            body = (ir.Parallel(loop.index, loop.lo, loop.hi, loop.tile, body),)
        schedule: dict[str, Any] = {"warps": (warps_for(most or self.shape, thread_elements), 1), "tile": self.shape}
        if down > 1:
            schedule["down"] = down
        if self.shift:
            schedule["aligned"] = tuple(str(x) for x in self.shift.values())
        return kernel(self.plan, body, schedule)


def _whole(n: Extent, step: int) -> bool:
    return n != 0 and (step == 1 or (isinstance(n, int) and n % step == 0))
