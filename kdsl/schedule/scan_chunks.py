"""A gradient's scan on a CPU: chunk by chunk, with what a chunk needs in near memory.

    Parallel over blocks: Stream backward over chunks: Stream over the tiles of the block {
        Stream forward: the states of the chunk and what is dear of each step into near memory
        Stream backward: the steps; sums over the lane are added to vectors in near memory }
      then the lanes of these sums are added up, once for each step of a chunk
A block takes `together` tiles along the lane, so that few lanes are added up and few parts of sums are stored; between the
chunks their carries lie near. Nothing is carried in registers by the replay: a state is read where the step before put it.
Read before: scan_rows.py. Read next: program.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kdsl.ir import loops as ir
from kdsl.ir.frame import ScanPlan, flat
from kdsl.ir.sizes import Extent, ceildiv, minimum, size
from kdsl.ir.tensor import Equation, Value
from kdsl.schedule.positions import Memory, constant
from kdsl.schedule.scan import ScanNest
from kdsl.schedule.scan_ahead import rows_ahead
from kdsl.schedule.scan_resident import schedule_resident
from kdsl.schedule.scan_rows import RowsNest, Sink, name_of
from kdsl.schedule.scan_walk import ScanWalk
from kdsl.target import Target


def schedule_scan(plan: ScanPlan, memory: Callable[[Value], Memory], target: Target) -> list[ir.Kernel]:
    """The kernel of a scan."""
    if plan.resident is not None:
        return schedule_resident(plan, memory, target)
    nest = ScanChunks if plan.replayed else ScanWalk if plan.row_tile else ScanNest
    return [nest(plan, memory, still=True).kernel()]


class ScanChunks(RowsNest):
    def __init__(self, plan: ScanPlan, memory: Callable[[Value], Memory], still: bool) -> None:
        super().__init__(plan, memory, still)
        self.near: dict[Value, ir.Near] = {}  # of the replay's values: states (one more than steps) and what is kept
        self.sums: dict[Value, tuple[Equation, ir.Near]] = {}  # results that are summed over the lane: the fold, its vectors
        self.first: Extent = 0  # step of the chunk

    def block(self) -> None:
        p, t = self.p, self.t
        self.declare()
        if self.sums or p.row_tile:
            return self.tiles_together()
        names = self.chunks()
        for result, i in p.last.items():
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
        after = {c.after for c in p.replayed}
        sinks = [self.keeping(v, place + 1 if v in after else place) for v in sorted(self.near, key=lambda v: v in after)]
        self.one_step_of(sinks, {c.before: (self.near[c.after], place) for c in p.replayed})
        t.emit(ir.Stream(self.replay, self.first, last, 1, t.pop(), (), "forward"))

    def keeping(self, v: Value, place: Extent) -> Sink:
        return Sink(v, lambda: self.put(self.near[v], place, self.now_tile(v)))

    def one_step_of(self, sinks: list[Sink], befores: dict[Value, tuple[ir.Near, Extent]]) -> None:
        """What a step gives, all rows at once or a few at a time."""
        if self.p.row_tile:
            return self.one_walk(sinks, befores)
        for v, (near, place) in befores.items():
            self.t.ready[v] = self.lazy(near, place, v.name or name_of(near))
        for s in sinks:
            s.write()

    def kept_near(self) -> dict[Value, tuple[ir.Near, Extent]]:
        """Where the states, and what was kept of the replay, lie for a step."""
        p, place = self.p, size(self.step) - self.first
        after = {c.after for c in p.replayed}
        lies = {c.before: (self.near[c.after], place) for c in p.replayed}
        return lies | {v: (self.near[made], place + 1 if made in after else place) for v, made in p.again.items()}

    def one_step(self, names: Sequence[ir.Name]) -> None:
        for v, (near, place) in self.kept_near().items():
            self.t.ready[v] = self.lazy(near, place, v.name or name_of(near))
        super().one_step(names)

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
    def tiles_together(self) -> None:
        """Chunk by chunk from the last one, and in each chunk tile by tile, with the carries near."""
        p, t = self.p, self.t
        nears = {c.after: self.new_near("carries", c.before, p.together) for c in p.carries}
        lane: Extent = t.pos[p.lane] if p.lane is not None else 0
        if p.row_tile:
            self.keep_same()
        self.walk_tiles(lane)
        for near, start in zip(nears.values(), self.starts(p.carries), strict=True):
            self.put(near, self.tile, start)
        self.fill_same()
        self.close_tiles(lane)
        t.push(self.chunk)
        last = self.chunk_of_steps()
        self.clear_sums()
        self.walk_tiles(lane)
        self.replay_steps(last)
        if p.row_tile:
            self.steps_by_rows(nears, last)
        else:
            starts = [self.at(near, self.tile) for near in nears.values()]
            after = self.run(p.carries, starts, self.step, self.first, last, self.one_step)
            for near, name in zip(nears.values(), after, strict=True):
                self.put(near, self.tile, name)
        self.close_tiles(lane)
        if self.sums:
            self.add_lanes(last)
        t.emit(ir.Stream(self.chunk, 0, ceildiv(p.length, p.every), 1, t.pop(), (), "backward"))
        self.walk_tiles(lane)
        for result, i in p.last.items():
            self.store(result, t.own(p.carries[i].after), self.at(nears[p.carries[i].after], self.tile))
        self.close_tiles(lane)

    def steps_by_rows(self, nears: dict[Value, ir.Near], last: Extent) -> None:
        """The steps of a chunk, a few rows at a time."""
        p, t = self.p, self.t
        t.push(self.step)
        befores = self.kept_near() | {c.before: (nears[c.after], self.tile) for c in p.carries}
        self.one_walk([*self.given(), *self.puts(nears)], befores)
        body = t.pop()
        ahead = rows_ahead(body, self.step, True)
        t.emit(ir.Stream(self.step, self.first, last, 1, (*ahead, *body), (), "backward"))

    def clear_sums(self) -> None:
        t, zero = self.t, self.t.name("zero")
        t.push(zero)
        for _, near in self.sums.values():
            self.put(near, size(zero), constant(0, near.dtype))
        if body := t.pop():
            t.emit(ir.Stream(zero, 0, self.p.every, 1, body, (), "forward"))

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
