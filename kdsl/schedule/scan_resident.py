"""ScanPlan with `resident` -> loop IR: a step as nests, one after the other, through memory.

    Parallel over the letters that all values keep: { nests that begin; Stream over steps { nest; nest; … }; nests that end }
A nest is Streams over the letters of one value with tiles along its last axis; a fold is a Stream that carries the tile, or,
where what it leaves is short, tiles along what it folds.
Read before: scan_tiles.py, folds.py. Read next: program.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import kdsl.dtypes as dt
from kdsl.ir import loops as ir
from kdsl.ir.frame import Axes, Letter, Move, ScanPlan, flat, within
from kdsl.ir.ops import REDUCTIONS
from kdsl.ir.sizes import Extent, ceildiv, floordiv, minimum, modulo, size
from kdsl.ir.tensor import Equation, Value
from kdsl.schedule.folds import LineFold
from kdsl.schedule.kernels import kernel
from kdsl.schedule.positions import Entry, Known, Memory, Position, constant, number, spread_to
from kdsl.schedule.scan_tiles import ScanTiles
from kdsl.target import Target

UNROLL = 4  # vectors of one tile
SHORT = 4  # a fold that leaves fewer elements has its tiles along what it folds


def schedule_resident(plan: ScanPlan, memory: Callable[[Value], Memory], target: Target) -> list[ir.Kernel]:
    """The kernel of a scan whose values lie in memory."""
    return [_Resident(plan, memory, target).kernel()]


class _Tiles(ScanTiles):
    """Tiles that read near memory, which lacks the axes of the loops around the scan."""

    def __init__(self, plan: ScanPlan, memory: Callable[[Value], Memory]) -> None:
        super().__init__(plan, memory)
        assert plan.resident is not None
        self.resident = plan.resident
        self.nears: dict[Value, ir.Near] = {}
        self.axes: dict[Value, Axes] = {}  # the letters of what lies in near memory
        self.again = 0  # the depth of the loop in which memory changes
        self.first: Extent = 0  # of a chunk
        self.changing = {m.into for part in (plan.resident.chunk, plan.resident.replay, plan.resident.step) for m in part}
        self.step = size(self.name("step"))
        self.name("replay"), self.name("chunk")

    def load(self, v: Value, at: Position) -> Known:
        if v in self.resident.states:
            return self.load_from(self.resident.states[v], v, (self.step - self.first,), at)
        if v in self.nears or v in self.changing:
            return self.load_from(v, v, (), at)
        return super().load(v, at)

    def load_from(self, m: Value, v: Value, prefix: tuple[Entry, ...], at: Position) -> Known:
        place = self.near_place(m, v, prefix, at)
        memory = self.nears.get(m) or self.memory(m)
        view = self.view(memory, place)
        if view is None:
            raise NotImplementedError("a gather from a carry")
        return ir.Load(view, self.shape_of(view)), max(self.again if m in self.changing else 0, self.depth_at(*view.index))

    def near_place(self, m: Value, v: Value, prefix: tuple[Entry, ...], at: Position) -> Position:
        """A position in memory: near memory has of each axis what stands at one place of the loops around the scan."""
        if m not in self.nears:
            return (*prefix, *at)
        axes, outer = self.axes[m], self.scan.outer
        entries: list[Entry] = []
        for axis, n, x, whole in zip(axes, v.shape, at, self.place(axes, v.shape), strict=True):
            if any(y in outer for y in axis):  # walked by those loops, in part or wholly
                assert x == whole, "a value in near memory is read at another place of the loops around the scan"
                inner = tuple(y for y in axis if y not in outer)
                x = self.place((inner,), (within(axis, n, outer, self.plan.letters.size),))[0]
            entries.append(x)
        return (*prefix, *entries)


class _Resident:
    def __init__(self, plan: ScanPlan, memory: Callable[[Value], Memory], target: Target) -> None:
        assert plan.resident is not None
        self.p, self.r, self.memory, self.t = plan, plan.resident, memory, _Tiles(plan, memory)
        self.size = plan.letters.size
        self.vector = target.lanes(max((v.dtype.compute.bytes for v in plan.inputs), default=4))

    def kernel(self) -> ir.Kernel:
        p, t, r = self.p, self.t, self.r
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
        self.nests(r.begin)
        if r.states:
            t.push("chunk_0")
            t.again = t.depth
            t.first = size("chunk_0") * p.every
            last = minimum(t.first + p.every, p.length)
            self.nests(r.chunk)
            self.steps("replay_0", t.first, last, r.replay, "forward")
            self.steps("step_0", t.first, last, r.step, "backward")
            t.emit(ir.Stream("chunk_0", 0, ceildiv(p.length, p.every), 1, t.pop(), (), "backward"))
        else:
            self.steps("step_0", 0, p.length, r.step, "forward")
        t.again = 0
        self.nests(r.end)
        body = tuple(t.levels[0].body)
        for loop in reversed(loops):
            body = (ir.Parallel(loop.index, loop.lo, loop.hi, loop.tile, body),)
        return kernel(p, body, {"every": p.every})

    def near(self) -> None:
        """Declare near memory."""
        p, t = self.p, self.t
        for part in (self.r.begin, self.r.chunk, self.r.replay, self.r.step):
            for m in part:
                if m.into in self.r.near and m.into not in t.nears:
                    axes = p.letters.values[m.value]
                    shape = tuple(within(a, n, p.outer, self.size) for a, n in zip(axes, m.value.shape, strict=True))
                    shape = (p.every, *shape) if m.how == "states" else shape
                    t.nears[m.into] = ir.Near(t.name(m.into.name or "near"), m.into.dtype.compute, shape)
                    t.axes[m.into] = axes
                    t.emit(t.nears[m.into])

    def steps(self, index: str, lo: Extent, hi: Extent, moves: Sequence[Move], order: str) -> None:
        t, outer = self.t, self.t.again
        t.push(index)
        t.again = t.depth
        self.index = size(index)
        self.nests(moves)
        t.again = outer
        t.emit(ir.Stream(index, lo, hi, 1, t.pop(), (), order))

    # --- nests ----------------------------------------------------------------------------------------------------------
    def nests(self, moves: Sequence[Move]) -> None:
        for m in moves:
            if m.how == "kept":
                self.t.push()
                self.nest(m)
                body = self.t.pop()
                rest = ir.Map("eq", (ir.Scalar(modulo(self.index, self.p.every), dt.i64), ir.Constant(0, dt.i64)), dt.bool_)
                self.t.emit(ir.If(rest, body))
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

    def over(self, letters: Sequence[Letter], inside: Callable[[], None]) -> None:
        """Streams of single elements."""
        t = self.t
        if not letters:
            inside()
            return
        index = t.name("r")
        t.push(index)
        t.pos[letters[0]] = size(index)
        self.over(letters[1:], inside)
        t.emit(ir.Stream(index, 0, self.size[letters[0]], 1, t.pop()))

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
        t, p = self.t, self.p
        at: Position = t.own(m.value)
        if m.how == "stack":
            place = p.length - 1 - self.index if p.turned else self.index
            at = (*at[: m.axis], place, *at[m.axis :])
        elif m.how == "kept":
            at = (floordiv(self.index, p.every), *at)
        elif m.how == "states":
            at = t.near_place(m.into, m.value, (self.index - t.first,), at)
        if m.how == "near":
            at = t.near_place(m.into, m.value, (), at)
        near = t.nears.get(m.into)
        view = t.view(near or self.memory(m.into), at)
        assert view is not None
        tile = spread_to(tile, t.shape_of(view) or (1, 1))
        t.emit(ir.Put(near, view.index, tile) if near else ir.Store(view, tile, t.made[m.value].location))
