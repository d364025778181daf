"""ScanPlan with `resident` -> loop IR: a step as nests, one after the other, through memory.

    Parallel over the letters that all values keep: { nests that begin; Stream over steps { nest; nest; … }; nests that end }
A nest is Streams over the letters of one value with tiles along its last axis; a fold is a Stream that carries the tile, or,
where what it leaves is short, tiles along what it folds.
Read before: scan_tiles.py, folds.py. Read next: program.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import kdsl.dtypes as dt
from kdsl.ir import loops as ir
from kdsl.ir.frame import Letter, Move, Resident, ScanPlan, flat, stacked_axes, stacked_shape, within
from kdsl.ir.ops import REDUCTIONS, Op
from kdsl.ir.sizes import Extent, ceildiv, floordiv, minimum, modulo, size
from kdsl.ir.tensor import Equation, Value
from kdsl.schedule.folds import LineFold
from kdsl.schedule.kernels import kernel
from kdsl.schedule.positions import Memory, Position, constant, number, spread_to
from kdsl.schedule.resident_sort import StepSort
from kdsl.schedule.resident_tiles import ResidentTiles, within_chunk
from kdsl.target import Target

UNROLL = 4  # vectors of one tile
SHORT = 4  # a fold that leaves fewer elements has its tiles along what it folds


def schedule_resident(plan: ScanPlan, memory: Callable[[Value], Memory], target: Target) -> list[ir.Kernel]:
    """The kernel of a scan whose values lie in memory."""
    return [ResidentNest(plan, memory, target).kernel()]


class ResidentNest:
    """The kernel: nests in order, within the loops over chunks and steps."""

    tiles_type = ResidentTiles

    def __init__(self, plan: ScanPlan, memory: Callable[[Value], Memory], target: Target) -> None:
        assert plan.resident is not None
        self.p, self.r, self.t = plan, plan.resident, self.tiles_type(plan, memory)
        self.size, self.target = plan.letters.size, target
        self.vector = target.lanes(max((v.dtype.compute.bytes for v in plan.inputs), default=4))
        self.index: Extent = 0  # of the step
        self.sorts = 0

    def schedule(self) -> dict[str, Any]:
        return {"every": self.p.every}

    def kernel(self) -> ir.Kernel:
        p, t = self.p, self.t
        loops = []
        for x in p.outer:
            index = t.name("b")
            t.depth_of[index] = 0
            loops.append(ir.Parallel(index, 0, self.size[x], 1, ()))
            t.pos[x] = size(index)
        if not loops:
            t.depth_of[index := t.name("b")] = 0
            loops.append(ir.Parallel(index, 0, 1, 1, ()))
        self.near()
        self.scan(self.r)
        body = tuple(t.levels[0].body)
        for loop in reversed(loops):
            body = (ir.Parallel(loop.index, loop.lo, loop.hi, loop.tile, body),)
        return kernel(p, body, self.schedule())

    def near(self) -> None:
        """Declare near memory."""
        p, t = self.p, self.t
        for scan in self.r.scans():
            for m in scan.parts():
                if isinstance(m, Move) and m.into in self.r.near and m.into not in t.nears:
                    axes, shape = stacked_axes(m, p.letters.values[m.value]), stacked_shape(m, scan)
                    t.axes[m.into], t.shapes[m.into] = axes, shape
                    shape = tuple(n if a is None else within(a, n, p.outer, self.size) for a, n in zip(axes, shape, strict=True))
                    t.nears[m.into] = ir.Near(t.name(m.into.name or "near"), m.into.dtype.compute, shape)
                    t.emit(t.nears[m.into])

    # --- scans ----------------------------------------------------------------------------------------------------------
    def scan(self, r: Resident) -> None:
        """All steps of a scan, which may itself be a nest of a step."""
        t, outer = self.t, (self.r, self.index, self.t.again)
        self.r = r
        self.nests(r.begin)
        if r.states:
            chunk = f"chunk_{r.number}"
            t.push(chunk)
            t.again = t.depth
            first = size(chunk) * r.every
            last = minimum(first + r.every, r.length)
            self.nests(r.chunk)
            self.steps("replay", first, last, r.replay, "forward")
            self.steps("step", first, last, r.step, "backward")
            t.again = outer[2]
            t.emit(ir.Stream(chunk, 0, ceildiv(r.length, r.every), 1, t.pop(), (), "backward"))
        else:
            self.steps("step", 0, r.length, r.step, "forward")
        self.nests(r.end)
        self.r, self.index, t.again = outer

    def steps(self, loop: str, lo: Extent, hi: Extent, moves: Sequence[Move | Resident], order: str) -> None:
        t, outer = self.t, self.t.again
        index = f"{loop}_{self.r.number}"
        t.push(index)
        t.again = t.depth
        self.index = size(index)
        self.nests(moves)
        t.again = outer
        t.emit(ir.Stream(index, lo, hi, 1, t.pop(), (), order))

    # --- nests ----------------------------------------------------------------------------------------------------------
    def nests(self, moves: Sequence[Move | Resident]) -> None:
        for m in moves:
            if isinstance(m, Resident):
                self.scan(m)
            elif m.how == "kept":
                self.t.push()
                self.nest(m)
                body = self.t.pop()
                rest = ir.Map("eq", (ir.Scalar(modulo(self.index, self.r.every), dt.i64), ir.Constant(0, dt.i64)), dt.bool_)
                self.t.emit(ir.If(rest, body))
            elif m.how == "scatter":
                self.scatter(m)
            elif self.t.made[m.value].op in (Op.SORT, Op.ARGSORT):
                self.sort(m)
            else:
                self.nest(m)

    def nest(self, m: Move) -> None:
        """Loops over the letters of a value, tiles along the last."""
        t, e = self.t, self.t.made[m.value]
        letters = [x for x in flat(self.p.letters.values[m.value]) if x not in self.p.outer]
        folded = self.folded(e)
        short = not letters or (isinstance(n := self.size[letters[-1]], int) and n < SHORT)
        lane = letters[-1] if letters and not (folded and short) else None

        def inside() -> None:
            if lane is not None:
                self.tiles(lane, lambda: self.store(m, self.value(e, folded, None)))
                return
            t.shape, t.edge = (1, 1), set()
            self.store(m, self.value(e, folded, folded[-1] if folded else None))

        self.over([x for x in letters if x != lane], inside)

    def folded(self, e: Equation) -> list[Letter]:
        if e.op not in REDUCTIONS:
            return []
        axes = self.p.letters.of(e, 0)
        return [x for a in e.attributes["axes"] for x in axes[a]]

    def over(self, letters: Sequence[Letter], inside: Callable[[], None], order: str = "any") -> None:
        """Streams of single elements."""
        t = self.t
        if not letters:
            inside()
            return
        index = t.name("r")
        t.push(index)
        t.pos[letters[0]] = size(index)
        self.over(letters[1:], inside, order)
        t.emit(ir.Stream(index, 0, self.size[letters[0]], 1, t.pop(), (), order))

    def tiles(self, lane: Letter, inside: Callable[[], None]) -> None:
        """A Stream of tiles along a letter, and the rest."""
        t, n = self.t, self.size[lane]
        width = self.vector * UNROLL
        width = min(width, max(1, n)) if isinstance(n, int) else width
        full = floordiv(n, width) * width

        def one(lo: Extent, hi: Extent, w: int, edge: bool) -> None:
            index = t.name("j")
            t.push(index)
            t.shape, t.edge = (1, w), {"#1"} if edge else set()
            t.pos[lane] = size(index) + size("#1")
            inside()
            t.edge = set()
            t.emit(ir.Stream(index, lo, hi, w, t.pop()))

        if full != 0:
            one(0, full, width, False)
        if isinstance(n, int) and isinstance(full, int):
            if full < n:
                one(full, n, n - full, False)
        else:
            one(full, n, width, True)

    # --- values ---------------------------------------------------------------------------------------------------------
    def value(self, e: Equation, folded: list[Letter], lane: Letter | None) -> ir.Tile:
        """The tile of a value here; a fold opens loops over what it folds, with tiles along `lane` if that is one of them."""
        t = self.t
        if not folded:
            return t.here(t.compute(e, t.plain(e.result)))
        fold, outer = LineFold(e), t.shape
        width = 1
        if lane is not None:
            n = self.size[lane]
            width = self.vector * UNROLL
            width = min(width, max(1, n)) if isinstance(n, int) else width
            t.shape = (1, width)
        carried = fold.init(t.shape)
        streams: list[tuple[str, Extent, int]] = []
        names: list[list[ir.Name]] = []
        for x in folded:
            index = t.name("k")
            mine = [ir.Name(t.name("fold"), tuple(c.shape), c.dtype) for c in carried]
            t.push(index, *(c.name for c in mine))
            streams.append((index, self.size[x], width if x == lane else 1))
            names.append(mine)
            t.pos[x] = size(index) + (size("#1") if x == lane else 0)
        masked = lane is not None and (not isinstance(n := self.size[lane], int) or n % width != 0)
        t.edge = t.edge | {"#1"} if masked else t.edge
        known = t.operand(e, 0, t.plain_operand(e, 0))
        place = t.count(t.pos[folded[0]]) if len(folded) == 1 else None
        if masked and lane is not None:
            inside = t.map("lt", [t.count(t.pos[lane]), (number(self.size[lane], dt.i64), 0)], dt.bool_)
            known = t.map("where", [inside, known, (constant(fold.start, fold.dtype), 0)], fold.dtype)
        now: list[ir.Tile] = fold.step(list(names[-1]), t.here(known), t.here(place) if place else None, t.shape)
        if masked:
            t.edge = t.edge - {"#1"}
        starts: list[Sequence[ir.Tile]] = [carried, *names[:-1]]
        for (index, n, step), mine, before in reversed(list(zip(streams, names, starts, strict=True))):
            carries = tuple(ir.Carry(c.name, start, new) for c, start, new in zip(mine, before, now, strict=True))
            t.emit(ir.Stream(index, 0, n, step, t.pop(), carries, "forward"))
            for c in mine:
                t.levels[-1].names.add(c.name)
                t.depth_of[c.name] = t.depth
            now = list(mine)
        t.shape = outer
        return fold.result(fold.collapse(now, 1) if lane is not None else now)

    def store(self, m: Move, tile: ir.Tile) -> None:
        """Put a tile where its nest says."""
        t, r = self.t, self.r
        at: Position = t.own(m.value)
        prefix: tuple[Extent, ...] = ()
        if m.how == "stack":
            place = r.length - 1 - self.index if r.turned else self.index
            at = (*at[: m.axis], place, *at[m.axis :])
        elif m.how == "kept":
            prefix = (floordiv(self.index, r.every),)
        elif m.how == "states":
            prefix = (within_chunk(r, "replay"),)
        view = t.view(t.memory_of(m), t.near_place(m.into, at, prefix))
        assert view is not None
        near = t.nears.get(m.into)
        tile = spread_to(tile, t.shape_of(view) or (1, 1))
        t.emit(ir.Put(near, view.index, tile, view.check) if near else ir.Store(view, tile, t.made[m.value].location))

    # --- what reads or writes at places that data tell ------------------------------------------------------------------
    def scatter(self, m: Move) -> None:
        """One update after the other, added to what lies in memory; tiles lie along an axis that is not scattered."""
        t, e = self.t, self.t.made[m.value]
        axis, letters_of = e.attributes["axis"], self.p.letters.of
        letters = [x for x in flat(letters_of(e, 2)) if x not in self.p.outer]
        own = {x for d, axes in enumerate(self.p.letters.values[e.result]) if d != axis for x in axes}
        lane = letters[-1] if letters and letters[-1] in own and letters[-1] not in flat(letters_of(e, 1)) else None

        def inside() -> None:
            if lane is not None:
                self.tiles(lane, lambda: self.add(m))
                return
            t.shape, t.edge = (1, 1), set()
            self.add(m)

        self.over([x for x in letters if x != lane], inside, "forward")

    def add(self, m: Move) -> None:
        """One tile of one update."""
        t, e = self.t, self.t.made[m.value]
        axis = e.attributes["axis"]
        at = list(t.own(e.result))
        at[axis] = t.index_entry(t.operand(e, 1, t.plain_operand(e, 1)), e.result.shape[axis])
        view = t.view(t.memory_of(m), t.near_place(m.into, tuple(at)))
        assert view is not None
        update = t.here(t.operand(e, 2, t.plain_operand(e, 2)))
        old = t.let(ir.Load(view, t.shape_of(view)), "old")
        t.emit(ir.Store(view, ir.Map("add", (old, spread_to(update, old.shape)), old.dtype), e.location))

    def sort(self, m: Move) -> None:
        """A sort of each row."""
        e = self.t.made[m.value]
        along = self.p.letters.values[e.result][e.attributes["axis"]]
        letters = [x for x in flat(self.p.letters.values[e.result]) if x not in self.p.outer and x not in along]
        self.sorts += 1
        one = StepSort(self.t, m, self.target, f"_s{self.sorts}")
        one.declare(self.p.outer)
        self.over(letters, one.row)
