"""ScanPlan -> loop IR for a GPU: a warp for each tile of the carry, one step after the other, a piece of steps at a time.

    Parallel over blocks: Stream over pieces, carrying the tiles of the carry {
        what no carry goes through, for all steps of the piece, into near memory    (scan_pieces.py)
        Stream over its steps: the carry's arithmetic, folds within the warp
        what the steps gave, for all of them, stored }
A warp's tile is `rows` x `width`: 32 / width lanes share the rows of one place along the lane, each holds neighbours. So a
fold over the rows takes no barrier. Where a step sums over the lane, a block has several warps side by side along it, whose
sums meet after the piece. Nothing of a step waits for memory: loads stand before the steps, many of them in flight.
A gradient's scan walks the pieces of each chunk of states twice, as on a CPU.
Read before: schedule/scan.py, scan_pieces.py. Read next: scan_resident.py, program.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import kdsl.dtypes as dt
from kdsl.ir import loops as ir
from kdsl.ir.frame import Carried, ScanPlan, flat
from kdsl.ir.ops import Op
from kdsl.ir.sizes import Extent, floordiv, minimum, modulo, size
from kdsl.ir.tensor import Equation, Value
from kdsl.schedule.gpu.limits import first_that_fits
from kdsl.schedule.gpu.nest import power_above
from kdsl.schedule.gpu.scan_pieces import Apart, PieceTiles
from kdsl.schedule.gpu.scan_resident import schedule_gpu_resident
from kdsl.schedule.positions import Memory, constant, spread_to
from kdsl.schedule.scan import ScanNest
from kdsl.target import Target

WARP = 32
MOST_STEPS = 32, 8, 1  # of a piece: fewer where a step has more values than near memory holds
PIECE = 8  # elements of a piece that one lane holds of each value
NEIGHBOURS = 4  # elements that a lane holds side by side: one access of 16 bytes


def schedule_scan(plan: ScanPlan, memory: Callable[[Value], Memory], target: Target) -> list[ir.Kernel]:
    """The kernel of a scan."""
    if plan.resident is not None:
        return schedule_gpu_resident(plan, memory, target)
    return [first_that_fits((GpuScan(plan, memory, most).kernel() for most in MOST_STEPS), target)]


class GpuScan(ScanNest):
    def __init__(self, plan: ScanPlan, memory: Callable[[Value], Memory], most: int) -> None:
        """`most`: steps of a piece."""
        super().__init__(plan, memory, still=True)
        self.most = most
        self.apart = Apart(plan)
        self.first: Extent = 0  # step of the piece
        self.given: list[tuple[Value, Value, int]] = []  # results that a piece stores after its steps: what they are, the axis
        self.handed: dict[Value, ir.Near] = {}  # what the steps hand on to them
        self.nears: dict[Value, ir.Near] = {}  # what a piece has made for its steps

    # --- how lanes share a tile -------------------------------------------------------------------------------------------
    def tile_shape(self, rows: int) -> tuple[int, int]:
        return power_above(rows), power_above(self.p.width) * self.p.together

    @property
    def width(self) -> int:
        """Places along the lane that one warp has."""
        return self.t.shape[1] // self.p.together

    @property
    def sharing(self) -> int:
        """Lanes that share the rows of one place along the lane, and the steps of a piece."""
        return max(1, WARP // self.width)

    @property
    def steps(self) -> int:
        """Steps of a piece."""
        p = self.p
        held = PIECE if self.t.shape[0] == 1 else PIECE // 2  # rows have slices of their own beside those along the lane
        most = min(self.most, max(PIECE, held * self.sharing))
        if p.kept or p.replayed:
            most = min(most, p.every & -p.every)
        return min(most, power_above(p.length)) if isinstance(p.length, int) else most

    def schedule(self) -> dict[str, Any]:
        rows = self.t.shape[0]
        each = max(1, rows // self.sharing) if rows > 1 else NEIGHBOURS
        down = min(NEIGHBOURS, each, max(1, self.steps // self.sharing))
        return {
            "warps": (1, self.p.together), "lanes": (self.sharing, min(WARP, self.width)), "down": down,
            "tile": self.t.shape, "steps": self.steps, "every": self.p.every,
        }  # fmt: skip

    # --- pieces -----------------------------------------------------------------------------------------------------------
    def run(
        self, carries: tuple[Carried, ...], starts: Sequence[ir.Tile], index: str, lo: Extent, hi: Extent,
        step: Callable[[Sequence[ir.Name]], None],
    ) -> list[ir.Name]:  # fmt: skip
        """Steps lo … hi - 1, piece by piece; the carries after the last."""
        t, n = self.t, hi - lo
        if isinstance(n, int) and n <= self.steps:
            return self.piece(carries, starts, index, lo, hi, n < self.steps, step)
        whole = isinstance(n, int) and n % self.steps == 0
        names = self.named(carries, starts)
        piece = t.name("piece")
        t.push(piece, *(c.name for c in names))
        first = size(piece)
        last = first + self.steps if whole else minimum(first + self.steps, hi)
        after = self.piece(carries, names, index, first, last, not whole, step)
        made = tuple(ir.Carry(c.name, s, a) for c, s, a in zip(names, starts, after, strict=True))
        t.emit(ir.Stream(piece, lo, hi, self.steps, t.pop(), made, self.order(index)))
        self.register(names)
        return names

    def named(self, carries: Sequence[Carried], starts: Sequence[ir.Tile]) -> list[ir.Name]:
        return [
            ir.Name(self.t.name(c.after.name or "carry"), s.shape, s.dtype) for c, s in zip(carries, starts, strict=True)
        ]

    def order(self, index: str) -> str:
        return "backward" if self.p.backward and index == self.step else "forward"

    def piece(
        self, carries: tuple[Carried, ...], starts: Sequence[ir.Tile], index: str, first: Extent, last: Extent, loose: bool,
        step: Callable[[Sequence[ir.Name]], None],
    ) -> list[ir.Name]:  # fmt: skip
        """The steps of one piece, between what is made for them and what is made of them."""
        t, self.first = self.t, first
        along = {side: PieceTiles(t, index, first, self.steps, side, loose, self.memory) for side in (True, False)}
        if index == self.step and self.p.kept and self.at_pieces:
            self.checkpoint_here(starts, first)
        sums = [c for c in carries if c in self.apart.sums]
        walked = [(c, s) for c, s in zip(carries, starts, strict=True) if c not in sums]
        names = self.named([c for c, _ in walked], [s for _, s in walked])
        self.given, self.handed, self.nears = [], {}, {}
        t.push(index, *(c.name for c in names))
        for v in self.apart.made:
            if self.apart.stands_alone(v, index):
                t.ready[v] = self.from_near(v, index, along)
        for (c, _), name in zip(walked, names, strict=True):
            t.ready[c.before] = self.known(name)
        step(names)
        for c in sums:
            self.hand_on(self.apart.sums[c])
        made = []
        for (c, start), name in zip(walked, names, strict=True):
            made.append(ir.Carry(name.name, start, spread_to(t.here(t.tile(c.after, t.plain(c.after))), name.shape)))
        body = t.pop()
        later = [*(self.apart.sums[c] for c in sums), *(y for _, y, _ in self.given)]
        for v in (*self.nears, *later):
            self.loads(v, along[self.apart.across(v) is True], index)
        for v, near in self.nears.items():
            tile = along[self.apart.across(v) is True].let_value(v)
            t.emit(ir.Put(near, (size("#0"), size("#1")), spread_to(tile, tuple(near.shape))))  # type: ignore[arg-type]
        for near in self.handed.values() if loose else ():  # steps beyond the last one hand on nothing
            steps, *parts, wide = map(int, near.shape)  # type: ignore[arg-type]
            for part in _each(parts):
                t.emit(ir.Put(near, (size("#0"), *part, size("#1")), constant(0, near.dtype, (steps, wide))))
        for v in later:
            self.beforehand(v, along[self.apart.across(v) is True], index)
        t.emit(ir.Stream(index, first, last, 1, body, tuple(made), self.order(index)))
        self.register(names)
        self.take_handed(along)
        for result, y, axis in self.given:
            self.give_all(result, y, axis, along[self.apart.across(y) is True])
        after = {c: name for (c, _), name in zip(walked, names, strict=True)}
        for c, start in zip(carries, starts, strict=True):
            if c in sums:
                total = spread_to(along[True].summed(self.apart.sums[c], last), start.shape)
                after[c] = t.let(ir.Map("add", (start, total), start.dtype), c.after.name or "sum")  # type: ignore[assignment]
        return [after[c] for c in carries]

    def loads(self, v: Value, side: PieceTiles, index: str) -> None:
        """The slices that a value is made of: all are on their way before the first is needed."""
        e = self.apart.made.get(v)
        if e is None or v in self.handed:
            return
        if e.op is Op.TAKE and self.apart.stands_alone(v, index):
            side.let_value(v)
            return
        for o in e.values:
            self.loads(o, side, index)

    def from_near(self, v: Value, index: str, along: dict[bool, PieceTiles]) -> Callable[[], tuple[ir.Tile, int]]:
        """A value of a step, from near memory, which the piece fills if anybody asks."""
        t, first, side = self.t, self.first, self.apart.across(v) is True

        def take() -> tuple[ir.Tile, int]:
            if v not in self.nears:
                self.nears[v] = self.near_of(v, along[side])
            view = ir.View(self.nears[v], (size(index) - first, self.place(self.nears[v], side)))
            return t.let(ir.Load(view, t.shape_of(view)), v.name or "t"), t.depth

        return take

    def near_of(self, v: Value, side: PieceTiles) -> ir.Near:
        """Near memory for a value of all steps of a piece."""
        p, t = self.p, self.t
        wide = (p.lane if side.across else p.rows) in flat(p.letters.values[v])
        near = ir.Near(t.name(v.name or "piece"), v.dtype.compute, (side.shape[0], side.shape[1] if wide else 1))
        t.levels[0].body.append(near)
        return near

    def place(self, near: ir.Near, across: bool) -> Extent:
        """Where an element of a step's tile lies in near memory, beside its step."""
        return 0 if near.shape[1] == 1 else size("#1" if across else "#0")

    # --- what steps give --------------------------------------------------------------------------------------------------
    @property
    def at_pieces(self) -> bool:
        """Whether every checkpoint is due at the start of a piece."""
        return self.p.every % self.steps == 0

    def one_step(self, names: Sequence[ir.Name]) -> None:
        p, t = self.p, self.t
        if p.kept and not self.at_pieces:
            self.checkpoint(names)
        for result, (y, axis) in p.ys.items():
            self.give(result, y, t.own(y), axis)

    def checkpoint_here(self, states: Sequence[ir.Tile], first: Extent) -> None:
        """Store the carries, where a checkpoint is due at the start of a piece."""
        p, t = self.p, self.t
        due = ir.Map("eq", (ir.Scalar(modulo(first, p.every), dt.i64), ir.Constant(0, dt.i64)), dt.bool_)
        t.push()
        for result, i in p.kept.items():
            self.store(result, (floordiv(first, p.every), *t.own(p.carries[i].before)), states[i])
        t.emit(ir.If(due, t.pop()))

    def give(self, result: Value, y: Value, at: tuple, axis: int) -> None:
        """What a step gives is stored after the piece, if it can be made then of what the steps hand on."""
        if result in self.parts:
            self.hand_on_sum(self.sum_of(y))
            self.given.append((result, self.sum_of(y).result, axis))
        elif self.apart.roots(y) is None:
            super().give(result, y, at, axis)
        else:
            self.hand_on(y)
            self.given.append((result, y, axis))

    def hand_on_sum(self, fold: Equation) -> None:
        """Put what each warp has of a sum into near memory; it may go over the lane."""
        p, t, v = self.p, self.t, fold.result
        tile, depth = t.operand(fold, 0, t.plain_operand(fold, 0))
        if p.lane in flat(p.letters.of(fold, 0)) and p.lane not in flat(p.letters.values[v]):
            known = t.masked((tile, depth), 1, constant(0, tile.dtype))
            tile = t.let(ir.Fold("sum", t.here(known), 1, p.together), v.name or "part")
            near = ir.Near(t.name(v.name or "parts"), tile.dtype, (self.steps, *tile.shape[::-1]))
            t.levels[0].body.append(near)
            self.handed[v] = near
            t.emit(ir.Put(near, (size(self.step) - self.first, size("#1"), size("#0")), tile))
        else:
            self.hand_on(v)

    def hand_on(self, v: Value) -> None:
        """Put what a piece needs for this value into near memory, step by step."""
        p, t = self.p, self.t
        for root in self.apart.roots(v) or ():
            if root not in self.handed:
                side = self.apart.across(root) is True
                wide = t.shape[1 if side else 0] if (p.lane if side else p.rows) in flat(p.letters.values[root]) else 1
                near = self.handed[root] = ir.Near(t.name(root.name or "given"), root.dtype.compute, (self.steps, wide))
                t.levels[0].body.append(near)
                tile = spread_to(t.here(t.tile(root, t.plain(root))), (1, wide) if side else (wide, 1))
                t.emit(ir.Put(near, (size(self.step) - self.first, self.place(near, side)), tile))

    def take_handed(self, along: dict[bool, PieceTiles]) -> None:
        """What the steps have handed on, for all of them."""
        for root, near in self.handed.items():
            side, (steps, *parts, wide) = along[self.apart.across(root) is True], map(int, near.shape)  # type: ignore[arg-type]
            along_it = 0 if wide == 1 else size("#1")
            tiles: list[ir.Tile] = [
                ir.Load(ir.View(near, (size("#0"), *part, along_it)), (steps, wide)) for part in _each(parts)
            ]
            while len(tiles) > 1:  # what each warp has
                tiles[:2] = [ir.Map("add", (tiles[0], tiles[1]), near.dtype)]
            side.ready[root] = lambda side=side, tile=tiles[0]: (side.let(tile, "given"), side.depth)  # type: ignore[misc]

    def beforehand(self, v: Value, side: PieceTiles, index: str) -> None:
        """What a result needs beside what the steps hand on: its loads need not wait for the steps."""
        if self.apart.stands_alone(v, index):
            side.let_value(v)
        elif v in self.apart.carried and v not in self.handed:
            for o in self.apart.made[v].values:
                self.beforehand(o, side, index)

    def give_all(self, result: Value, v: Value, axis: int, side: PieceTiles) -> None:
        """Store a result for all steps of a piece."""
        number = (self.parts[result][1],) if result in self.parts else ()
        buffer = self.parts[result][0] if result in self.parts else result
        place = (*number, *self.stacked(side.own(v), axis, side.step))
        view = side.view(self.memory(buffer), place)
        assert view is not None
        tile = side.here(side.tile(v, side.plain(v)))
        side.emit(ir.Store(view, spread_to(tile, side.shape_of(view) or (1, 1)), None))

    # --- from checkpoints -------------------------------------------------------------------------------------------------
    def near_states(self, v: Value) -> ir.Near:
        """Rows side by side: the lanes of a warp share them."""
        rows, width = self.shape(v)
        return ir.Near(self.t.name("states"), v.dtype.compute, (self.p.every, width, rows))

    def lies(self, step: Extent) -> tuple[Extent, ...]:
        return step, size("#1"), size("#0")


def _each(parts: Sequence[int]) -> list[tuple[int, ...]]:
    """The indices of an axis that may be missing."""
    return [(k,) for n in parts for k in range(n)] or [()]
