"""ScanPlan -> loop IR: a carry in registers, one step after the other.

    Parallel over blocks: Stream over steps, carrying the tiles of the carry { store what the step gives }
A gradient's scan starts from checkpoints; each chunk of states is made again before it is walked backwards:
    Parallel over blocks: Stream backward over chunks { Stream forward: states into near memory; Stream backward: the steps }
Sums over what runs side by side are stored as parts, one for each block.
Read before: scan_tiles.py. Read next: scan_chunks.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import kdsl.dtypes as dt
from kdsl.ir import loops as ir
from kdsl.ir.frame import Carried, ScanPlan, flat
from kdsl.ir.ops import Op
from kdsl.ir.sizes import Extent, ceildiv, floordiv, minimum, modulo, size
from kdsl.ir.tensor import Equation, Value
from kdsl.schedule.kernels import kernel
from kdsl.schedule.positions import Known, Memory, spread_to
from kdsl.schedule.scan_ahead import rows_ahead
from kdsl.schedule.scan_tiles import ScanTiles


class ScanNest:
    def __init__(self, plan: ScanPlan, memory: Callable[[Value], Memory], still: bool = False) -> None:
        """`still`: what is the same in every step is read once, before the steps."""
        self.p, self.memory, self.t = plan, memory, ScanTiles(plan, memory, still)
        self.step, self.replay, self.chunk = self.t.name("step"), self.t.name("replay"), self.t.name("chunk")
        self.size = plan.letters.size

    def kernel(self) -> ir.Kernel:
        p, t = self.p, self.t
        loops: list[ir.Parallel] = []
        for x in p.outer:
            loops.append(self.parallel(self.size[x], 1))
            t.pos[x] = size(loops[-1].index)
        rows = 1 if p.rows is None else self.size[p.rows]
        assert isinstance(rows, int)
        t.shape = self.tile_shape(rows)
        if p.rows is not None:
            t.pos[p.rows] = size("#0")
        if p.lane is not None:
            loops.append(self.parallel(self.size[p.lane], self.lane_step))
            t.pos[p.lane] = size(loops[-1].index) + size("#1")
        for axis, n in enumerate((rows, 1 if p.lane is None else self.size[p.lane])):
            if not isinstance(n, int) or n % t.shape[axis]:
                t.edge.add(f"#{axis}")
        loops = loops or [self.parallel(1, 1)]
        self.parts = {e.result: (part, self.part_number(e.values[0], loops)) for e, part in p.partial.items()}
        self.block()
        body = tuple(t.levels[0].body)
        for loop in reversed(loops):
            body = (ir.Parallel(loop.index, loop.lo, loop.hi, loop.tile, body),)
        return kernel(p, body, self.schedule())

    def tile_shape(self, rows: int) -> tuple[int, int]:
        return rows, self.p.width

    @property
    def lane_step(self) -> int:
        """Elements of the lane that a block has."""
        return self.t.shape[1]

    def schedule(self) -> dict[str, Any]:
        return {"width": self.p.width, "every": self.p.every}

    def parallel(self, n: Extent, tile: int) -> ir.Parallel:
        index = self.t.name("b")
        self.t.depth_of[index] = 0
        return ir.Parallel(index, 0, n, tile, ())

    def part_number(self, y: Value, loops: list[ir.Parallel]) -> Extent:
        """Which of the parts of a sum this block has."""
        p, out = self.p, 0
        kept = set(flat(p.letters.values[y]))
        for x, loop in zip((*p.outer, p.lane), loops, strict=False):
            if x is not None and x not in kept:
                out = out * ceildiv(self.size[x], loop.tile) + floordiv(size(loop.index), loop.tile)  # type: ignore[assignment]
        return out

    # --- what a block does ----------------------------------------------------------------------------------------------
    def block(self) -> None:
        p, t = self.p, self.t
        if not p.replayed:
            names = self.run(p.carries, self.starts(p.carries), self.step, 0, p.length, self.one_step)
        else:
            names = self.chunks()
        for result, i in p.last.items():
            self.store(result, t.own(p.carries[i].after), names[i])

    def starts(self, carries: tuple[Carried, ...]) -> list[ir.Tile]:
        """What the carries are before the first step."""
        t, out = self.t, []
        for c in carries:
            e = t.made[c.before]
            out.append(spread_to(t.here(t.operand(e, 0, t.plain_operand(e, 0))), self.shape(c.before)))
        return out

    def shape(self, v: Value) -> ir.TileShape:
        """The tile of a carry."""
        mine, p = set(flat(self.p.letters.values[v])), self.p
        return (self.t.shape[0] if p.rows in mine else 1, self.t.shape[1] if p.lane in mine else 1)

    def now(self, index: str) -> Extent:
        """The number of the step that a loop is at."""
        return size(index)

    def run(
        self, carries: tuple[Carried, ...], starts: Sequence[ir.Tile], index: str, lo: Extent, hi: Extent,
        step: Callable[[Sequence[ir.Name]], None],
    ) -> list[ir.Name]:  # fmt: skip
        """Steps lo … hi - 1; the carries after the last."""
        t = self.t
        names = [ir.Name(t.name(c.after.name or "carry"), s.shape, s.dtype) for c, s in zip(carries, starts, strict=True)]
        t.push(index, *(n.name for n in names))
        for c, n in zip(carries, names, strict=True):
            t.ready[c.before] = self.known(n)
        step(names)
        after = [spread_to(t.here(t.tile(c.after, t.plain(c.after))), n.shape) for c, n in zip(carries, names, strict=True)]
        made = tuple(ir.Carry(n.name, s, a) for n, s, a in zip(names, starts, after, strict=True))
        order = "backward" if self.p.backward and index == self.step else "forward"
        body = t.pop()
        if t.still:  # on a CPU
            body = (*rows_ahead(body, index, order == "backward"), *body)
        t.emit(ir.Stream(index, lo, hi, 1, body, made, order))
        self.register(names)
        return names

    def register(self, names: list[ir.Name]) -> None:
        """The carries of a loop that has ended are known where it stands."""
        for n in names:
            self.t.levels[-1].names.add(n.name)
            self.t.depth_of[n.name] = self.t.depth

    def known(self, tile: ir.Tile) -> Callable[[], Known]:
        depth = self.t.depth
        return lambda: (tile, depth)

    def one_step(self, names: Sequence[ir.Name]) -> None:
        """Store the checkpoint that is due, and what the step gives."""
        p, t = self.p, self.t
        if p.kept:
            self.checkpoint(names)
        for result, (y, axis) in p.ys.items():
            self.give(result, y, t.own(y), axis)

    def give(self, result: Value, y: Value, at: tuple, axis: int) -> None:
        """Store what a step gives."""
        t, place = self.t, self.stacked(at, axis, size(self.step))
        if result in self.parts:
            part, number = self.parts[result]
            v = self.sum_of(y).result
            self.store(part, (number, *place), t.here(t.tile(v, t.plain(v))))
        else:
            self.store(result, place, t.here(t.tile(y, t.plain(y))))

    def sum_of(self, y: Value) -> Equation:
        """The sum, of which a block has a part, that a step gives cast."""
        e = self.t.made[y]
        while e.op is not Op.SUM:
            e = self.t.made[e.values[0]]
        return e

    def stacked(self, at: tuple, axis: int, step: Extent) -> tuple:
        """Where a step's slice lies in the stack."""
        place = self.p.length - 1 - step if self.p.turned else step
        return (*at[:axis], place, *at[axis:])

    def checkpoint(self, names: Sequence[ir.Name]) -> None:
        """Store the carries where a checkpoint is due."""
        p, t, now = self.p, self.t, size(self.step)
        due = ir.Map("eq", (ir.Scalar(modulo(now, p.every), dt.i64), ir.Constant(0, dt.i64)), dt.bool_)
        t.push()
        for result, i in p.kept.items():
            self.store(result, (floordiv(now, p.every), *t.own(p.carries[i].before)), names[i])
        t.emit(ir.If(due, t.pop()))

    def store(self, v: Value, at: tuple, tile: ir.Tile) -> None:
        view = self.t.view(self.memory(v), at)
        assert view is not None
        self.t.emit(ir.Store(view, spread_to(tile, self.t.shape_of(view) or (1, 1)), None))

    # --- from checkpoints -----------------------------------------------------------------------------------------------
    def chunks(self) -> list[ir.Name]:
        """Chunk by chunk from the last one: the states of a chunk, then its steps."""
        p, t = self.p, self.t
        nears = {c.before: self.near_states(c.before) for c in p.replayed}
        for near in nears.values():
            t.emit(near)
        starts = self.starts(p.carries)
        names = [ir.Name(t.name("chunked"), s.shape, s.dtype) for s in starts]
        t.push(self.chunk, *(n.name for n in names))
        first = size(self.chunk) * p.every
        whole = isinstance(p.length, int) and p.length % p.every == 0
        last = first + p.every if whole else minimum(first + p.every, p.length)

        def keep(states: Sequence[ir.Name]) -> None:
            for c, state in zip(p.replayed, states, strict=True):
                t.emit(ir.Put(nears[c.before], self.lies(self.now(self.replay) - first), state))

        def backwards(carries: Sequence[ir.Name]) -> None:
            for c in p.replayed:
                view = ir.View(nears[c.before], self.lies(self.now(self.step) - first))
                t.ready[c.before] = self.known(t.let(ir.Load(view, self.shape(c.before)), c.before.name or "state"))
            self.one_step(carries)

        self.run(p.replayed, self.starts(p.replayed), self.replay, first, last, keep)
        after = self.run(p.carries, names, self.step, first, last, backwards)
        made = tuple(ir.Carry(n.name, s, a) for n, s, a in zip(names, starts, after, strict=True))
        t.emit(ir.Stream(self.chunk, 0, ceildiv(p.length, p.every), 1, t.pop(), made, "backward"))
        self.register(names)
        return names

    def near_states(self, v: Value) -> ir.Near:
        """Memory for a carry at each step of a chunk."""
        return ir.Near(self.t.name("states"), v.dtype.compute, (self.p.every, *self.shape(v)))

    def lies(self, step: Extent) -> tuple[Extent, ...]:
        """Where in it the carry of a step lies."""
        return step, size("#0"), size("#1")
