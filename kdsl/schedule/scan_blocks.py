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

from kdsl.ir import loops as ir
from kdsl.ir.frame import ScanPlan
from kdsl.ir.ops import Op
from kdsl.ir.sizes import Extent, names_in, size, split, substitute
from kdsl.ir.tensor import Equation, Value
from kdsl.schedule.positions import Known, Memory, Position, number, spread_to
from kdsl.schedule.scan import ScanNest
from kdsl.schedule.scan_tiles import ScanTiles
from kdsl.target import Target

BLOCK = 8  # steps
STEP = "step_0"


def schedule_blocks(plan: ScanPlan, memory: Callable[[Value], Memory], target: Target) -> ir.Kernel | None:
    """The kernel of a scan whose steps are contiguous in memory."""
    possible = plan.resident is None and plan.rows is None and plan.lane is not None and not plan.replayed and not plan.partial
    if not possible or not isinstance(plan.length, int) or plan.length % BLOCK or (plan.kept and plan.every % BLOCK):
        return None
    nest = BlockNest(plan, memory, target.lanes(4))
    kernel = nest.kernel()
    return kernel if nest.blocks.blocks or nest.near else None


class BlockTiles(ScanTiles):
    """Tiles of step number `now` of a block."""

    now = 0
    level = 0  # of the loop over blocks

    def __init__(self, plan: ScanPlan, memory: Callable[[Value], Memory]) -> None:
        super().__init__(plan, memory)
        self.blocks: dict[tuple, ir.Tile] = {}

    def at_now(self, x: Extent) -> Extent:
        """An index of the loop's step, for this one."""
        return substitute(x, {STEP: size(STEP) + self.now})

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
        turn = view and turned_by(view)
        if not view or not turn:
            return super().load(v, at)
        row = self.now if turn > 0 else BLOCK - 1 - self.now
        first = size(STEP) - self.now + (size("#0") if turn > 0 else BLOCK - 1 - size("#0"))
        index = tuple(substitute(x, {STEP: first}) for x in view.index)
        key = (view.memory.name, index)
        if key not in self.blocks:
            whole = ir.Load(ir.View(view.memory, index), (BLOCK, self.shape[1]))
            self.blocks[key] = self.let(whole, v.name or "block", self.level)
        return ir.Slice(self.blocks[key], (row, 0), (1, self.shape[1])), self.depth


def turned_by(view: ir.View) -> int:
    """1 or -1 where neighbouring steps are neighbours in memory and neighbouring lanes are not, else 0."""
    if any(view.checks) or any("#0" in names_in(x) for x in view.index):
        return 0
    steps: Extent = 0
    lanes: Extent = 0
    strides = view.memory.strides if not isinstance(view.memory, ir.Near) else ()
    for x, stride in zip(view.index, strides, strict=True):
        try:
            factors, _ = split(x, {STEP, "#1"})
        except ValueError:
            return 0
        steps = steps + factors.get(STEP, 0) * stride
        lanes = lanes + factors.get("#1", 0) * stride
    return steps if steps in (1, -1) and lanes not in (0, 1) else 0  # type: ignore[return-value]


class BlockNest(ScanNest):
    """The nest of a scan, with eight steps in each turn of its loop."""

    def __init__(self, plan: ScanPlan, memory: Callable[[Value], Memory], width: int) -> None:
        super().__init__(plan, memory)
        self.blocks = self.t = BlockTiles(plan, memory)
        self.width = width
        self.step, self.replay, self.chunk = self.t.name("step"), self.t.name("replay"), self.t.name("chunk")
        self.near: dict[Value, tuple[ir.Near, ir.View]] = {}

    def tile_shape(self, rows: int) -> tuple[int, int]:
        return rows, min(self.p.width, self.width)

    def block(self) -> None:
        p, t = self.p, self.blocks
        starts = self.starts(p.carries)
        names = [ir.Name(t.name(c.after.name or "carry"), s.shape, s.dtype) for c, s in zip(p.carries, starts, strict=True)]
        outside = t.depth
        t.push(self.step, *(n.name for n in names))
        t.level = t.depth
        now: list[ir.Tile] = list(names)
        for t.now in range(BLOCK):
            t.push()
            t.depth_of[STEP] = t.depth  # every step is a loop of its own, written out
            for c, tile in zip(p.carries, now, strict=True):
                t.ready[c.before] = self.known(tile)
            self.one_step(now)  # type: ignore[arg-type]
            after = [spread_to(t.here(t.tile(c.after, t.plain(c.after))), n.shape) for c, n in zip(p.carries, names, strict=True)]
            now = [a if isinstance(a, (ir.Name, ir.Constant)) else t.let(a, "carry") for a in after]
            statements = t.pop()
            t.body.extend(statements)
        t.depth_of[STEP] = t.level
        for result, (near, view) in self.near.items():
            self.put_away(result, near, view)
        body = t.pop()
        made = tuple(ir.Carry(n.name, s, a) for n, s, a in zip(names, starts, now, strict=True))
        for near, _ in self.near.values():
            t.emit(near)
        t.emit(ir.Stream(self.step, 0, p.length, BLOCK, body, made, "forward"))
        assert t.depth == outside
        self.register(names)
        for result, i in p.last.items():
            self.store(result, t.own(p.carries[i].after), names[i])

    def one_step(self, names: Sequence[ir.Name]) -> None:
        """Store the checkpoint that is due, and what the step gives."""
        p, t = self.p, self.blocks
        now = size(self.step) + t.now
        if p.kept and t.now == 0:
            self.checkpoint(names)
        place = p.length - 1 - now if p.turned else now
        for result, (y, axis) in p.ys.items():
            at = t.own(y)
            at = (*at[:axis], place, *at[axis:])
            tile = t.here(t.tile(y, t.plain(y)))
            view = t.view(self.memory(result), at)
            turn = view and turned_by(view)
            if not view or not turn:
                self.store(result, at, tile)
                continue
            if result not in self.near:
                near = ir.Near(t.name("given"), result.dtype.compute, (BLOCK, t.shape[1]))
                self.near[result] = near, view
            row = t.now if turn > 0 else BLOCK - 1 - t.now
            t.emit(ir.Put(self.near[result][0], (row, size("#1")), spread_to(tile, (1, t.shape[1]))))

    def put_away(self, result: Value, near: ir.Near, view: ir.View) -> None:
        """What eight steps gave, lane by lane. `view`: where the first of them stands."""
        turn = turned_by(view)
        first = size(STEP) + (size("#1") if turn > 0 else BLOCK - 1 - size("#1"))
        index = tuple(substitute(x, {STEP: first, "#1": size("#0")}) for x in view.index)
        shape = (self.t.shape[1], BLOCK)
        self.t.emit(ir.Store(ir.View(view.memory, index), ir.Load(ir.View(near, (size("#1"), size("#0"))), shape), None))
