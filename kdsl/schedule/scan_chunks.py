"""A gradient's scan on a CPU: chunk by chunk, with what a chunk needs in near memory.

    Parallel over blocks: Stream backward over chunks: Stream over the tiles of the block {
        Stream forward: the states of the chunk and what is dear of each step into near memory
        Stream backward: the steps; sums over the lane are added to vectors in near memory }
      then the lanes of these sums are added up, once for each step of a chunk
A block takes `together` tiles along the lane, so that few lanes are added up and few parts of sums are stored; between the
chunks their carries lie near. Nothing is carried in registers by the replay: a state is read where the step before put it.
Read before: scan.py. Read next: program.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kdsl.ir import loops as ir
from kdsl.ir.frame import ScanPlan, flat
from kdsl.ir.sizes import Extent, ceildiv, minimum, size
from kdsl.ir.tensor import Equation, Value
from kdsl.schedule.positions import Known, Memory, constant, spread_to
from kdsl.schedule.scan import ScanNest
from kdsl.schedule.scan_resident import schedule_resident
from kdsl.target import Target


def schedule_scan(plan: ScanPlan, memory: Callable[[Value], Memory], target: Target) -> list[ir.Kernel]:
    """The kernel of a scan."""
    if plan.resident is not None:
        return schedule_resident(plan, memory, target)
    return [(ScanChunks if plan.replayed else ScanNest)(plan, memory, still=True).kernel()]


class ScanChunks(ScanNest):
    def __init__(self, plan: ScanPlan, memory: Callable[[Value], Memory], still: bool) -> None:
        super().__init__(plan, memory, still)
        self.near: dict[Value, ir.Near] = {}  # of the replay's values: states (one more than steps) and what is kept
        self.sums: dict[Value, tuple[Equation, ir.Near]] = {}  # results that are summed over the lane: the fold, its vectors
        self.first: Extent = 0  # step of the chunk

    @property
    def lane_step(self) -> int:
        return self.t.shape[1] * self.p.together

    def block(self) -> None:
        p, t = self.p, self.t
        self.declare()
        names = self.tiles_together() if self.sums else self.chunks()
        for result, i in p.last.items():
            if not self.sums:
                self.store(result, t.own(p.carries[i].after), names[i])

    def declare(self) -> None:
        """Near memory for what a chunk keeps, and for its sums over the lane."""
        p, t = self.p, self.t
        for c in p.replayed:
            self.near[c.after] = self.new_near("states", c.before, p.every + 1)
        for made in p.again.values():
            if made not in self.near:
                self.near[made] = self.new_near(made.name or "kept", made, p.every)
        for e in p.partial:
            fold = self.sum_of(e.values[0])
            if p.lane in flat(p.letters.of(fold, 0)) and p.lane not in flat(p.letters.values[fold.result]):
                letters = flat(p.letters.of(fold, 0))
                shape = (t.shape[0] if p.rows in letters else 1, t.shape[1])
                near = ir.Near(t.name("sums"), fold.result.dtype.compute, (p.every, *shape))
                t.emit(near)
                self.sums[e.result] = fold, near

    def new_near(self, name: str, v: Value, steps: int) -> ir.Near:
        near = ir.Near(self.t.name(name), v.dtype.compute, (steps, *self.shape(v)))
        self.t.emit(near)
        return near

    def at(self, near: ir.Near, place: Extent) -> ir.Tile:
        return ir.Load(ir.View(near, (place, size("#0"), size("#1"))), near.shape[1:])  # type: ignore[arg-type]

    def put(self, near: ir.Near, place: Extent, tile: ir.Tile) -> None:
        self.t.emit(ir.Put(near, (place, size("#0"), size("#1")), spread_to(tile, near.shape[1:])))  # type: ignore[arg-type]

    # --- a chunk ----------------------------------------------------------------------------------------------------------
    def chunk_of_steps(self) -> Extent:
        """Open the loop over chunks; the step behind its last."""
        self.first = size(self.chunk) * self.p.every
        return minimum(self.first + self.p.every, self.p.length)

    def replay_steps(self, last: Extent) -> None:
        """The states of a chunk, and what its steps need again, into near memory."""
        p, t = self.p, self.t
        for c, start in zip(p.replayed, self.starts(p.replayed), strict=True):
            self.put(self.near[c.after], 0, start)
        t.push(self.replay)
        place = size(self.replay) - self.first
        for c in p.replayed:
            t.ready[c.before] = self.known(t.let(self.at(self.near[c.after], place), c.before.name or "state"))
        after = {c.after for c in p.replayed}
        for v in sorted(self.near, key=lambda v: v in after):
            self.put(self.near[v], place + 1 if v in after else place, t.here(t.tile(v, t.plain(v))))
        t.emit(ir.Stream(self.replay, self.first, last, 1, t.pop(), (), "forward"))

    def one_step(self, names: Sequence[ir.Name]) -> None:
        p, t = self.p, self.t
        place = size(self.step) - self.first
        after = {c.after for c in p.replayed}
        for c in p.replayed:
            t.ready[c.before] = self.lazy(self.near[c.after], place, c.before.name or "state")
        for v, made in p.again.items():
            t.ready[v] = self.lazy(self.near[made], place + 1 if made in after else place, v.name or "kept")
        super().one_step(names)

    def lazy(self, near: ir.Near, place: Extent, name: str) -> Callable[[], Known]:
        depth = self.t.depth
        return lambda: (self.t.let(self.at(near, place), name, depth), depth)

    def give(self, result: Value, y: Value, at: tuple, axis: int) -> None:
        found = self.sums.get(result)
        if found is None:
            return super().give(result, y, at, axis)
        fold, near = found
        t, place = self.t, size(self.step) - self.first
        tile = t.masked(t.operand(fold, 0, t.plain_operand(fold, 0)), 1, constant(0, near.dtype))
        total = t.map("add", [(self.at(near, place), t.depth), tile], near.dtype)
        self.put(near, place, total[0])

    def chunks(self) -> list[ir.Name]:
        """Chunk by chunk from the last one, with the carries in registers."""
        p, t = self.p, self.t
        starts = self.starts(p.carries)
        names = [ir.Name(t.name("chunked"), s.shape, s.dtype) for s in starts]
        t.push(self.chunk, *(n.name for n in names))
        last = self.chunk_of_steps()
        self.replay_steps(last)
        after = self.run(p.carries, names, self.step, self.first, last, self.one_step)
        made = tuple(ir.Carry(n.name, s, a) for n, s, a in zip(names, starts, after, strict=True))
        t.emit(ir.Stream(self.chunk, 0, ceildiv(p.length, p.every), 1, t.pop(), made, "backward"))
        self.register(names)
        return names

    # --- several tiles together ---------------------------------------------------------------------------------------------
    def tiles_together(self) -> list[ir.Name]:
        """Chunk by chunk from the last one, and in each chunk tile by tile, with the carries near."""
        p, t = self.p, self.t
        carries = [self.new_near("carries", c.before, p.together) for c in p.carries]
        lane = t.pos[p.lane]  # type: ignore[index]
        self.walk_tiles(lane)
        for near, start in zip(carries, self.starts(p.carries), strict=True):
            self.put(near, size(self.tile), start)
        self.close_tiles(lane)
        t.push(self.chunk)
        last = self.chunk_of_steps()
        zero = t.name("zero")
        t.push(zero)
        for _, near in self.sums.values():
            self.put(near, size(zero), constant(0, near.dtype))
        t.emit(ir.Stream(zero, 0, p.every, 1, t.pop(), (), "forward"))
        self.walk_tiles(lane)
        self.replay_steps(last)
        starts = [self.at(near, size(self.tile)) for near in carries]
        after = self.run(p.carries, starts, self.step, self.first, last, self.one_step)
        for near, name in zip(carries, after, strict=True):
            self.put(near, size(self.tile), name)
        self.close_tiles(lane)
        self.add_lanes(last)
        t.emit(ir.Stream(self.chunk, 0, ceildiv(p.length, p.every), 1, t.pop(), (), "backward"))
        self.walk_tiles(lane)
        for result, i in p.last.items():
            self.store(result, t.own(p.carries[i].after), self.at(carries[i], size(self.tile)))
        self.close_tiles(lane)
        return []

    def walk_tiles(self, lane: Extent) -> None:
        """Open a loop over the tiles of this block."""
        t = self.t
        self.tile = t.name("tile")
        t.push(self.tile)
        t.pos[self.p.lane] = lane + size(self.tile) * t.shape[1]  # type: ignore[index]

    def close_tiles(self, lane: Extent) -> None:
        p, t = self.p, self.t
        n = self.size[p.lane]  # type: ignore[index]
        count: Extent = p.together
        if not isinstance(n, int) or n % self.lane_step:
            count = minimum(p.together, ceildiv(n - (lane - size("#1")), t.shape[1]))
        t.emit(ir.Stream(self.tile, 0, count, 1, t.pop(), (), "forward"))
        t.pos[p.lane] = lane  # type: ignore[index]

    def add_lanes(self, last: Extent) -> None:
        """Store the sums of each step of a chunk."""
        p, t = self.p, self.t
        index = t.name("sum")
        t.push(index)
        for e, part in p.partial.items():
            if e.result in self.sums:
                y, axis = p.ys[e.result]
                total = ir.Fold("sum", self.at(self.sums[e.result][1], size(index) - self.first), 1)
                self.store(part, (self.parts[e.result][1], *self.stacked(t.own(y), axis, size(index))), total)
        t.emit(ir.Stream(index, self.first, last, 1, t.pop(), (), "forward"))
