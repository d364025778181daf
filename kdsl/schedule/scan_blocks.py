"""ScanPlan -> loop IR where the steps lie beside each other in memory and the lanes far apart: eight steps at a time.

    Parallel over blocks of lanes: Stream over steps by 8 {
        block = x[lanes, 8 steps]                one vector of each lane, turned in registers
        8 steps, of the block's rows             what they give goes into near memory, row by row
        y[lanes, 8 steps] = near memory, turned }
A running sum along the last axis is one: lane by lane, each step would touch as many cache lines as there are lanes.
In:  a ScanPlan.  Out: its kernel, or None where no operand and no result lies so, or the number of steps is not known to fit.
Read before: scan.py. Read next: codegen/llvm/transposes.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from kdsl.ir import loops as ir
from kdsl.ir.frame import Carried, ScanPlan
from kdsl.ir.ops import Op
from kdsl.ir.sizes import Extent, names_in, size, split, substitute
from kdsl.ir.tensor import Equation, Value
from kdsl.schedule.positions import Known, Memory, Position, number, spread_to
from kdsl.schedule.scan import ScanNest
from kdsl.schedule.scan_tiles import ScanTiles
from kdsl.target import Target

BLOCK = 8  # steps


def schedule_blocks(plan: ScanPlan, memory: Callable[[Value], Memory], target: Target) -> ir.Kernel | None:
    """The kernel of a scan whose steps are contiguous in memory."""
    possible = plan.resident is None and plan.rows is None and plan.lane is not None and not plan.partial
    if not possible or not isinstance(plan.length, int) or plan.length % BLOCK:
        return None
    if (plan.kept and plan.every % BLOCK) or (plan.replayed and (plan.every % BLOCK or plan.length % plan.every)):
        return None
    nest = BlockNest(plan, memory, target.lanes(4))
    kernel = nest.kernel()
    return kernel if nest.is_turned else None


class BlockTiles(ScanTiles):
    """Tiles of step number `now` of a block; `loop`: the index that counts the steps, `level`: of that loop."""

    now = 0
    level = 0
    loop = ""

    def __init__(self, plan: ScanPlan, memory: Callable[[Value], Memory]) -> None:
        super().__init__(plan, memory)
        self.blocks: dict[tuple, ir.Tile] = {}

    def at_now(self, x: Extent) -> Extent:
        """An index of the loop's step, for this one."""
        return substitute(x, {self.loop: size(self.loop) + self.now})

    def compute(self, e: Equation, at: Position) -> Known:
        if e.op is Op.TAKE:
            index = self.made.get(e.values[1])
            if index is not None and index.op is Op.SIZE and names_in(index.attributes["value"]) & self.places:
                axis = e.attributes["axis"]
                return self.operand(e, 0, (*at[:axis], self.at_now(index.attributes["value"]), *at[axis:]))
        if e.op is Op.SIZE and names_in(e.attributes["value"]) & self.places:
            value = self.at_now(e.attributes["value"])
            return number(value, e.result.dtype), self.depth_at(value)
        return super().compute(e, at)

    def load(self, v: Value, at: Position) -> Known:
        view = self.view(self.memory(v), at)
        turn = self.turned(view)
        if not view or not turn:
            return super().load(v, at)
        row = self.now if turn > 0 else BLOCK - 1 - self.now
        first = size(self.loop) - self.now + (size("#0") if turn > 0 else BLOCK - 1 - size("#0"))
        index = tuple(substitute(x, {self.loop: first}) for x in view.index)
        key = (view.memory.name, index)
        if key not in self.blocks:
            whole = ir.Load(ir.View(view.memory, index), (BLOCK, self.shape[1]))
            self.blocks[key] = self.let(whole, v.name or "block", self.level)
        return ir.Slice(self.blocks[key], (row, 0), (1, self.shape[1])), self.depth

    def turned(self, view: ir.View | None) -> int:
        """1 or -1 where neighbouring steps are neighbours in memory and neighbouring lanes are not, else 0."""
        if view is None or any(view.checks) or isinstance(view.memory, ir.Near) or any("#0" in names_in(x) for x in view.index):
            return 0
        steps: Extent = 0
        lanes: Extent = 0
        for x, stride in zip(view.index, view.memory.strides, strict=True):
            try:
                factors, _ = split(x, {self.loop, "#1"})
            except ValueError:
                return 0
            steps = steps + factors.get(self.loop, 0) * stride
            lanes = lanes + factors.get("#1", 0) * stride
        return (1 if steps == 1 else -1) if steps in (1, -1) and lanes not in (0, 1) else 0


class BlockNest(ScanNest):
    """The nest of a scan, with eight steps in each turn of its loops."""

    def __init__(self, plan: ScanPlan, memory: Callable[[Value], Memory], width: int) -> None:
        super().__init__(plan, memory)
        names = self.step, self.replay, self.chunk
        self.blocks = self.t = BlockTiles(plan, memory)
        self.step, self.replay, self.chunk = (self.t.name(name.split("_")[0]) for name in names)
        self.width = width
        self.near: dict[Value, tuple[ir.Near, ir.View]] = {}  # where a result waits, and where its first step stands

    @property
    def is_turned(self) -> bool:
        return bool(self.blocks.blocks or self.near)

    def tile_shape(self, rows: int) -> tuple[int, int]:
        return rows, min(self.p.width, self.width)

    def now(self, index: str) -> Extent:
        return size(index) + self.blocks.now

    def run(
        self, carries: tuple[Carried, ...], starts: Sequence[ir.Tile], index: str, lo: Extent, hi: Extent,
        step: Callable[[Sequence[ir.Name]], None],
    ) -> list[ir.Name]:  # fmt: skip
        """Steps lo … hi - 1, eight in a turn; the carries after the last."""
        t = self.blocks
        names = [ir.Name(t.name(c.after.name or "carry"), s.shape, s.dtype) for c, s in zip(carries, starts, strict=True)]
        backward = self.p.backward and index == self.step
        t.push(index, *(n.name for n in names))
        t.level, t.loop = t.depth, index
        carried: list[ir.Tile] = list(names)
        for t.now in range(BLOCK)[:: -1 if backward else 1]:
            t.push()
            t.depth_of[index] = t.depth  # every step is a loop of its own, written out
            for c, tile in zip(carries, carried, strict=True):
                t.ready[c.before] = self.known(tile)
            step(carried)  # type: ignore[arg-type]
            after = [spread_to(t.here(t.tile(c.after, t.plain(c.after))), n.shape) for c, n in zip(carries, names, strict=True)]
            carried = [a if isinstance(a, (ir.Name, ir.Constant)) else t.let(a, "carry") for a in after]
            statements = t.pop()
            t.body.extend(statements)
        t.now, t.depth_of[index] = 0, t.level
        if index == self.step:
            for near, view in self.near.values():
                self.put_away(near, view)
        body = t.pop()
        made = tuple(ir.Carry(n.name, s, a) for n, s, a in zip(names, starts, carried, strict=True))
        t.emit(ir.Stream(index, lo, hi, BLOCK, body, made, "backward" if backward else "forward"))
        self.register(names)
        return names

    def one_step(self, names: Sequence[ir.Name]) -> None:
        """Store the checkpoint that is due, and what the step gives."""
        p, t = self.p, self.blocks
        if p.kept and t.now == 0:
            self.checkpoint(names)
        now = self.now(self.step)
        place = p.length - 1 - now if p.turned else now
        for result, (y, axis) in p.ys.items():
            at = t.own(y)
            at = (*at[:axis], place, *at[axis:])
            tile = t.here(t.tile(y, t.plain(y)))
            view = t.view(self.memory(result), at)
            turn = t.turned(view)
            if not view or not turn:
                self.store(result, at, tile)
                continue
            if result not in self.near:
                near = ir.Near(t.name("given"), result.dtype.compute, (BLOCK, t.shape[1]))
                t.levels[0].body.append(near)
                begin = {t.loop: size(t.loop) - t.now}
                self.near[result] = near, replace(view, index=tuple(substitute(x, begin) for x in view.index))
            row = t.now if turn > 0 else BLOCK - 1 - t.now
            t.emit(ir.Put(self.near[result][0], (row, size("#1")), spread_to(tile, (1, t.shape[1]))))

    def put_away(self, near: ir.Near, view: ir.View) -> None:
        """What eight steps gave, lane by lane."""
        t = self.blocks
        first = size(t.loop) + (size("#1") if t.turned(view) > 0 else BLOCK - 1 - size("#1"))
        index = tuple(substitute(x, {t.loop: first, "#1": size("#0")}) for x in view.index)
        turned = ir.Load(ir.View(near, (size("#1"), size("#0"))), (t.shape[1], BLOCK))
        t.emit(ir.Store(ir.View(view.memory, index), turned, None))
