"""ScanPlan with `resident` -> loop IR for a GPU: one block walks the steps, its threads share each nest.

    blocks of the letters that all values keep: { nests that begin; Stream over steps { nest; nest; … }; nests that end }

As on a CPU, but a nest is walked in tiles of the whole block: two of its letters lie along the tile's axes, or one along both.
What goes from nest to nest lies in near memory, or in memory of its own where that is too small; barriers are derived when
the source is written. A fold carries tiles and is folded across threads once, at the end.
Read before: schedule/scan_resident.py, nest.py. Read next: scan.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import kdsl.dtypes as dt
from kdsl.errors import TargetError
from kdsl.ir import loops as ir
from kdsl.ir.frame import Letter, Move, ScanPlan, flat
from kdsl.ir.sizes import Extent
from kdsl.ir.sizes import size as named
from kdsl.ir.tensor import Equation, Value
from kdsl.schedule.folds import PLACES, LineFold
from kdsl.schedule.gpu.nest import power_above
from kdsl.schedule.positions import Entry, Known, Memory, constant, number
from kdsl.schedule.scan_resident import ResidentNest, ResidentTiles
from kdsl.target import Target

THREAD_ELEMENTS = 4  # of a nest's tile that one thread holds
MOST_WARPS = 8
LANES = 128  # of a tile, along the letter that memory runs along
LONG = 1024  # what a named extent is taken to be


def schedule_gpu_resident(plan: ScanPlan, memory: Callable[[Value], Memory], target: Target) -> list[ir.Kernel]:
    """The kernel of a scan whose values lie in memory."""
    return [GpuResidentNest(plan, memory, target).kernel()]


@dataclass(frozen=True)
class NestTile:
    """`down` lies along axis 0, `across` along axis 1; with `down` None, `across` lies along both: row after row."""

    shape: tuple[int, int]
    down: Letter | None
    across: Letter | None

    def step(self, letter: Letter) -> int:
        """How far a tile goes along a letter."""
        if letter == self.across:
            return self.shape[1] if self.down is not None else math.prod(self.shape)
        return self.shape[0] if letter == self.down else 1

    def axes(self, letter: Letter) -> tuple[int, ...]:
        """The tile axes that count through a letter."""
        along = (0, 1) if letter == self.across and self.down is None else (1,) if letter == self.across else (0,)
        return tuple(a for a in along if self.shape[a] > 1) if letter in (self.across, self.down) else ()

    def place(self, letter: Letter, start: Extent) -> Extent:
        """Where the elements of a tile stand that begins at `start`."""
        for axis in self.axes(letter):
            start = start + ir.axis(axis) * (self.shape[1] if axis == 0 and letter == self.across else 1)
        return start


class GpuTiles(ResidentTiles):
    """Tiles of nests of different shapes: what counts along a tile is known in its own nest only."""

    def count(self, at: Entry) -> Known:
        tile, depth = super().count(at)
        return tile, self.depth if any(isinstance(x, ir.Index) for x in _leaves(tile)) else depth


class GpuResidentNest(ResidentNest):
    tiles_type = GpuTiles

    def __init__(self, plan: ScanPlan, memory: Callable[[Value], Memory], target: Target) -> None:
        super().__init__(plan, memory, target)
        self.shared = _of_one_axis(plan)
        most = max((self.elements(self.letters(m)) for m in self.r.moves()), default=1)
        self.warps = 1
        while self.warps < MOST_WARPS and most > 32 * self.warps * THREAD_ELEMENTS:
            self.warps *= 2

    def schedule(self) -> dict[str, Any]:
        return {"warps": (self.warps, 1), "every": self.p.every}

    # --- tiles ------------------------------------------------------------------------------------------------------------
    def letters(self, m: Move) -> list[Letter]:
        """What a nest walks: the letters of its value, then those that it folds."""
        e = self.t.made[m.value]
        return [x for x in (*flat(self.p.letters.values[m.value]), *self.folded(e)) if x not in self.p.outer]

    def extent(self, x: Letter) -> int:
        return n if isinstance(n := self.size[x], int) else LONG

    def elements(self, letters: Sequence[Letter]) -> int:
        return math.prod(max(1, self.extent(x)) for x in letters)

    def tile_of(self, m: Move) -> NestTile:
        """Which letters lie along the tile: those that take the fewest tiles, and along the lanes what memory runs along."""
        letters, budget = self.letters(m), 32 * self.warps * THREAD_ELEMENTS
        if not letters:
            return NestTile((1, 1), None, None)
        across = self.along(m, letters)
        columns = min(self.width(across), LANES, budget)
        flat_one = NestTile((min(self.width(across) // columns, budget // columns), columns), None, across)
        choices = [flat_one]
        for x in letters:
            if x != across:
                choices.append(NestTile((min(self.width(x), budget // columns), columns), x, across))

        def tiles(t: NestTile) -> tuple[int, int]:
            count = math.prod(-(-max(1, self.extent(x)) // t.step(x)) for x in letters)
            return count, math.prod(t.shape)

        return min(choices, key=tiles)

    def width(self, x: Letter) -> int:
        """The most of a letter that a tile may have: of one that shares an axis with another, a part without remainder."""
        n = self.size[x]
        if isinstance(n, int) and x in self.shared:
            return n & -n if n else 1
        return power_above(n) if isinstance(n, int) else LANES * self.warps

    def along(self, m: Move, letters: Sequence[Letter]) -> Letter:
        """The letter along the lanes: that along which most of what the nest reads lies in memory, if it is long enough."""
        votes = dict.fromkeys(letters, 0)
        seen: set[Value] = set()

        def reads(e: Equation) -> None:
            for i, o in enumerate(e.operands):
                if not isinstance(o, Value):
                    continue
                inner = self.t.made.get(o)
                axes = self.p.letters.of(e, i)
                if inner is None:
                    last = axes[-1][-1:] if axes else ()
                    if last and last[0] in votes:
                        votes[last[0]] += self.elements([x for x in flat(axes) if x in votes])
                elif o not in seen:
                    seen.add(o)
                    reads(inner)

        reads(self.t.made[m.value])
        own = flat(self.p.letters.values[m.value])[-1:]
        if own and own[0] in votes:
            votes[own[0]] += self.elements([x for x in flat(self.p.letters.values[m.value]) if x in votes])
        return max(letters, key=lambda x: (min(self.extent(x), 8), votes[x], self.extent(x)))

    # --- nests ------------------------------------------------------------------------------------------------------------
    def nest(self, m: Move) -> None:
        """Loops over the letters of a value, one tile of the block after the other."""
        t, e = self.t, self.t.made[m.value]
        tile, folded = self.tile_of(m), self.folded(e)
        own = [x for x in self.letters(m) if x not in folded]
        t.shape, t.edge = tile.shape, set()
        t.push()
        self.over_tiles(tile, own, lambda: self.store(m, self.value_of(e, tile, folded)))
        body = t.pop()
        t.body.extend(body)
        t.edge = set()

    def scatter(self, m: Move) -> None:
        """One update after the other: the threads of the block share those along an axis that is not scattered."""
        t, e = self.t, self.t.made[m.value]
        axis = e.attributes["axis"]
        letters = [x for x in flat(self.p.letters.of(e, 2)) if x not in self.p.outer]
        own = {x for d, axes in enumerate(self.p.letters.values[e.result]) if d != axis for x in axes}
        shared = [x for x in letters if x in own and x not in flat(self.p.letters.of(e, 1))]
        lane = shared[-1] if shared else None
        tile = NestTile((1, 1 if lane is None else min(self.width(lane), LANES)), None, lane)
        t.shape, t.edge = tile.shape, set()
        t.push()
        self.over_tiles(tile, [*(x for x in letters if x != lane), *shared[-1:]], lambda: self.add(m))
        body = t.pop()
        t.body.extend(body)
        t.edge = set()

    def sort(self, m: Move) -> None:
        raise TargetError("a sort in the step of a scan has no schedule for a GPU yet", hint="run it with target='cpu'")

    def over_tiles(self, tile: NestTile, letters: Sequence[Letter], inside: Callable[[], None]) -> None:
        if not letters:
            inside()
            return
        (x, *rest), t = letters, self.t
        index = self.open(tile, x)
        self.over_tiles(tile, rest, inside)
        if index:
            t.emit(ir.Stream(index, 0, self.size[x], tile.step(x), t.pop()))

    def open(self, tile: NestTile, x: Letter, *carries: str) -> str:
        """Stand at a tile of a letter, in a loop over them where it takes more than one; the name of its index."""
        t, n, step = self.t, self.size[x], tile.step(x)
        if not isinstance(n, int) or n % step:
            t.edge |= {f"#{axis}" for axis in tile.axes(x)}
        if self.in_one(tile, x):
            t.pos[x] = tile.place(x, 0)
            return ""
        index = t.name("i")
        t.push(index, *carries)
        t.pos[x] = tile.place(x, named(index))
        return index

    def in_one(self, tile: NestTile, x: Letter) -> bool:
        n = self.size[x]
        return isinstance(n, int) and 0 < n <= tile.step(x)

    def value_of(self, e: Equation, tile: NestTile, folded: Sequence[Letter]) -> ir.Tile:
        """The tile of a value here; a fold opens loops over what it folds."""
        t = self.t
        if not folded:
            return t.here(t.compute(e, t.plain(e.result)))
        fold = LineFold(e)
        held = self.fold(fold, tile, folded, folded, None)
        for axis in sorted({axis for x in folded for axis in tile.axes(x)}, reverse=True):
            held = fold.collapse([t.let(part, "each") for part in held] if len(held) > 1 else held, axis)
        return fold.result(held)

    def fold(
        self, fold: LineFold, tile: NestTile, folded: Sequence[Letter], left: Sequence[Letter], held: list[ir.Tile] | None
    ) -> list[ir.Tile]:
        """What is carried when the letters `left` have been walked."""
        t = self.t
        if not left:
            new = fold.alone(self.operand(fold, tile, folded), self.index_in(fold, folded), tile.shape)
            return new if held is None else fold.join(held, new)
        x, *rest = left
        if self.in_one(tile, x):
            self.open(tile, x)
            return self.fold(fold, tile, folded, rest, held)
        start = fold.init(tile.shape) if held is None else held
        names = [ir.Name(t.name("fold"), tuple(c.shape), c.dtype) for c in start]
        index = self.open(tile, x, *(c.name for c in names))
        now = self.fold(fold, tile, folded, rest, list(names))
        carries = tuple(ir.Carry(c.name, a, b) for c, a, b in zip(names, start, now, strict=True))
        t.emit(ir.Stream(index, 0, self.size[x], tile.step(x), t.pop(), carries, "forward"))
        for c in names:
            t.levels[-1].names.add(c.name)
            t.depth_of[c.name] = t.depth
        return list(names)

    def operand(self, fold: LineFold, tile: NestTile, folded: Sequence[Letter]) -> ir.Tile:
        """What is folded: beyond the end of a letter it counts as nothing."""
        t, e = self.t, fold.equation
        known = t.operand(e, 0, t.plain_operand(e, 0))
        for x in folded:
            if any(f"#{axis}" in t.edge for axis in tile.axes(x)):
                inside = t.map("lt", [t.count(t.pos[x]), (number(self.size[x], dt.i64), 0)], dt.bool_)
                known = t.map("where", [inside, known, (constant(fold.start, fold.dtype), 0)], fold.dtype)
        return t.here(known)

    def index_in(self, fold: LineFold, folded: Sequence[Letter]) -> ir.Tile | None:
        """Where an element stands among those that are folded."""
        if fold.op not in PLACES:
            return None
        index: Extent = 0
        for x in folded:
            index = index * self.size[x] + self.t.pos[x]
        return self.t.here(self.t.count(index))


def _leaves(tile: ir.Tile) -> list[ir.Tile]:
    inner = ir.children(tile)
    return [x for c in inner for x in _leaves(c)] if inner else [tile]


def _of_one_axis(plan: ScanPlan) -> set[Letter]:
    """The letters that share an axis of some value with another one that is walked within a nest."""
    out: set[Letter] = set()
    for axes in (*plan.letters.values.values(), *plan.letters.uses.values()):
        for axis in axes:
            inner = [x for x in axis if x not in plan.outer]
            if len(inner) > 1:
                out.update(inner)
    return out
