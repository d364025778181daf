"""A step a few rows at a time, its carries near: what scans on a CPU share whose carry is larger than the registers.

    Stream over the tiles of a block {                      8 channels each
        values of a step without rows
        Stream over rows by 4, carrying the sums over rows { carries from near memory, the step, carries into near memory }
        values of a step that wait for these sums }
Four vectors side by side are as many chains of dependent instructions as a processor follows at once; sixteen, one after the
other and spilled, are not. What is the same in every step, and is not just a load, lies near as well.
Read before: scan.py. Read next: scan_walk.py, scan_chunks.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass

from kdsl.ir import loops as ir
from kdsl.ir.frame import ScanPlan, flat
from kdsl.ir.ops import REDUCTIONS, Op
from kdsl.ir.rules import identity
from kdsl.ir.sizes import Extent, ceildiv, minimum, names_in, size, split
from kdsl.ir.tensor import Equation, Value
from kdsl.schedule.folds import COMBINE
from kdsl.schedule.positions import Known, Memory, constant, spread_to
from kdsl.schedule.scan import ScanNest
from kdsl.schedule.scan_tiles import ScanTiles


@dataclass(frozen=True, eq=False)
class Sink:
    """Something to do with a value of a step, once the step is at its rows."""

    value: Value
    write: Callable[[], None]


class RowsNest(ScanNest):
    """Adds near memory, the walk over a block's tiles, and the walk over rows."""

    def __init__(self, plan: ScanPlan, memory: Callable[[Value], Memory], still: bool) -> None:
        super().__init__(plan, memory, still)
        self.tile: Extent = 0  # which of the block's tiles
        self.same: dict[Value, ir.Near] = {}  # values that are the same in every step

    @property
    def lane_step(self) -> int:
        return self.t.shape[1] * self.p.together

    # --- near memory ------------------------------------------------------------------------------------------------------
    def new_near(self, name: str, v: Value, count: int) -> ir.Near:
        near = ir.Near(self.t.name(name), v.dtype.compute, (count, *self.shape(v)))
        self.t.emit(near)
        return near

    def at(self, near: ir.Near, place: Extent) -> ir.Tile:
        """What lies near at a place, as far as the rows go that the walk is at."""
        whole, t = near.shape[1:], self.t
        return ir.Load(ir.View(near, (place, *self.rows_of(near))), (min(whole[0], t.shape[0]), whole[1]))  # type: ignore[arg-type,type-var]

    def put(self, near: ir.Near, place: Extent, tile: ir.Tile) -> None:
        whole, t = near.shape[1:], self.t
        self.t.emit(ir.Put(near, (place, *self.rows_of(near)), spread_to(tile, (min(whole[0], t.shape[0]), whole[1]))))  # type: ignore[arg-type,type-var]

    def rows_of(self, near: ir.Near) -> tuple[Extent, Extent]:
        rows = self.t.pos[self.p.rows] if self.p.rows is not None and near.shape[1] != 1 else size("#0")
        return rows, size("#1")

    def lazy(self, near: ir.Near, place: Extent, name: str) -> Callable[[], Known]:
        """What lies near, under a name as soon as it is wanted."""
        depth = self.t.depth
        return lambda: (self.t.let(self.at(near, place), name, depth), depth)

    # --- the tiles of a block -----------------------------------------------------------------------------------------------
    def walk_tiles(self, lane: Extent) -> None:
        """Open a loop over the tiles of this block."""
        t = self.t
        name = t.name("tile")
        self.tile = size(name)
        t.push(name)
        if self.p.lane is not None:
            t.pos[self.p.lane] = lane + self.tile * t.shape[1]

    def close_tiles(self, lane: Extent) -> None:
        p, t = self.p, self.t
        count: Extent = p.together
        (name,) = names_in(self.tile)
        if p.lane is not None:
            n = self.size[p.lane]
            if not isinstance(n, int) or n % self.lane_step:
                count = minimum(p.together, ceildiv(n - (lane - size("#1")), t.shape[1]))
            t.pos[p.lane] = lane
        body = t.pop()
        if body:
            t.emit(ir.Stream(name, 0, count, 1, body, (), "forward"))

    # --- what is the same in every step ----------------------------------------------------------------------------------------
    def keep_same(self) -> None:
        """Near memory for what steps need, is the same in each of them, and is no load of neighbours."""
        p, t = self.p, self.t
        varying = {c.before for c in (*p.carries, *p.replayed)}
        for e in p.inner:
            here = e.op is Op.SIZE and bool(names_in(e.attributes["value"]) & t.places)
            if here or any(v in varying for v in e.values):
                varying.add(e.result)
        read = (v for e in p.inner if e.result in varying for v in e.values)
        wanted = dict.fromkeys(v for v in read if v not in varying and v in p.letters.values)
        look = ScanTiles(p, self.memory, True)
        look.pos, look.shape, look.edge = t.pos, t.shape, t.edge
        look.uses.clear()
        nears: dict[ir.Tile, ir.Near] = {}
        for v in wanted:
            mine = set(flat(p.letters.values[v]))
            tile = look.tile(v, look.plain(v))[0]
            if mine & {p.rows, p.lane} and not self.is_near_by(tile):
                if tile not in nears:
                    nears[tile] = self.new_near(v.name or "same", v, p.together if p.lane in mine else 1)
                self.same[v] = nears[tile]

    def is_near_by(self, tile: ir.Tile) -> bool:
        """Whether a tile costs no more than what lies near: a literal, or a load of neighbours or of one for all lanes."""
        if isinstance(tile, (ir.Constant, ir.Scalar)):
            return True
        if not isinstance(tile, ir.Load) or any(tile.view.checks):
            return False
        steps: Extent = 0
        for x, stride in zip(tile.view.index, tile.view.memory.strides, strict=True):  # type: ignore[union-attr]
            try:
                factors, _ = split(x, {"#1"})
            except ValueError:
                return False
            steps = steps + factors.get("#1", 0) * stride
        return steps in (0, 1)

    def fill_same(self) -> None:
        """Compute them, in a loop over the tiles of the block."""
        t = self.t
        for near, v in {near: v for v, near in self.same.items()}.items():
            self.put(near, self.same_place(near), t.here(t.tile(v, t.plain(v))))

    def same_place(self, near: ir.Near) -> Extent:
        return self.tile if near.shape[0] != 1 else 0

    # --- a step ------------------------------------------------------------------------------------------------------------
    def one_walk(self, sinks: list[Sink], befores: dict[Value, tuple[ir.Near, Extent]]) -> None:
        """Write what a step gives. `befores`: where carries, and what is kept of the replay, lie in this step."""
        p, t = self.p, self.t
        needed = self.needed((s.value for s in sinks), befores.keys() | self.same.keys())
        flowing = {v: lies for v, lies in befores.items() if v in needed}
        for v, lies in flowing.items():
            if not self.has_rows(v):
                t.ready[v] = self.known(t.let(self.at(*lies), v.name or name_of(lies[0])))
        for v, near in self.same.items():
            if not self.has_rows(v):
                t.ready[v] = self.lazy(near, self.same_place(near), v.name or "same")
        folds = [e for e in p.inner if e.result in needed and self.folds_rows(e)]
        index, rows, lanes = t.name("row"), t.shape[0], t.shape[1]
        sums = [ir.Name(t.name("sum"), (p.row_tile, lanes), e.values[0].dtype.compute) for e in folds]
        t.push(index, *(s.name for s in sums))
        t.pos[p.rows], t.shape = size(index) + size("#0"), (p.row_tile, lanes)  # type: ignore[index]
        for v, lies in flowing.items():
            if self.has_rows(v):
                t.ready[v] = self.known(t.let(self.at(*lies), v.name or name_of(lies[0])))
        for v, near in self.same.items():
            if self.has_rows(v):
                t.ready[v] = self.lazy(near, self.same_place(near), v.name or "same")
        for s in sinks:
            if self.has_rows(s.value):
                s.write()
        carries = []
        for e, s in zip(folds, sums, strict=True):
            tile = t.operand(e, 0, t.plain_operand(e, 0))
            total = t.map(COMBINE[e.op], [(s, t.depth), (spread_to(t.here(tile), s.shape), t.depth)], s.dtype)[0]
            start = constant(identity(e.op, e.values[0].dtype), s.dtype, s.shape)
            carries.append(ir.Carry(s.name, start, total))
        body = t.pop()
        t.pos[p.rows], t.shape = size("#0"), (rows, lanes)  # type: ignore[index]
        if body or carries:
            t.emit(ir.Stream(index, 0, rows, p.row_tile, body, tuple(carries), "forward"))
        self.register(sums)
        for e, s in zip(folds, sums, strict=True):
            t.ready[e.result] = self.known(t.let(ir.Fold(e.op.value, s, 0), e.result.name or "t"))
        for s in sinks:
            if not self.has_rows(s.value):
                s.write()

    def has_rows(self, v: Value) -> bool:
        return self.p.rows in flat(self.p.letters.values[v])

    def folds_rows(self, e: Equation) -> bool:
        return e.op in REDUCTIONS and self.p.rows in flat(self.p.letters.of(e, 0)) and not self.has_rows(e.result)

    def needed(self, values: Iterable[Value], known: Set[Value]) -> set[Value]:
        """What a step reads and computes for these."""
        found: set[Value] = set()
        todo = list(values)
        while todo:
            v = todo.pop()
            if v not in found:
                found.add(v)
                if v not in known and v in self.t.made:
                    todo += self.t.made[v].values
        return found

    def given(self) -> list[Sink]:
        """What a step gives to results."""

        def sink(result: Value, y: Value, axis: int) -> Sink:
            return Sink(y, lambda: self.give(result, y, self.t.own(y), axis))

        return [sink(result, y, axis) for result, (y, axis) in self.p.ys.items()]

    def puts(self, nears: dict[Value, ir.Near]) -> list[Sink]:
        """What the carries of this tile are next, into near memory."""

        def sink(v: Value, near: ir.Near) -> Sink:
            return Sink(v, lambda: self.put(near, self.tile, self.now_tile(v)))

        return [sink(c.after, nears[c.after]) for c in self.p.carries]

    def now_tile(self, v: Value) -> ir.Tile:
        return self.t.here(self.t.tile(v, self.t.plain(v)))


def name_of(near: ir.Near) -> str:
    """What near memory is called, without its number."""
    return near.name.rsplit("_", 1)[0]
