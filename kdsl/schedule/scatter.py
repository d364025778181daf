"""ScatterPlan -> loop IR: owners of the axes that are not scattered add all updates in order.

    Parallel over tiles of the other axes:
        Stream over the scattered axis: copy x
        Stream (forward) over the updates: index as a 0-d Let, result[index, tile] += updates[tile]
Read before: tiles.py. Read next: program.py.
"""

from __future__ import annotations

from collections.abc import Callable

from kdsl.ir import loops as ir
from kdsl.ir.frame import Letter, ScatterPlan, flat
from kdsl.ir.sizes import ceildiv, size
from kdsl.ir.tensor import Value
from kdsl.schedule.kernels import kernel
from kdsl.schedule.positions import Memory, spread_to
from kdsl.schedule.tiles import Tiles
from kdsl.target import Target

VECTORS = 8  # of one owner's tile


def schedule_scatter(plan: ScatterPlan, memory: Callable[[Value], Memory], target: Target) -> list[ir.Kernel]:
    """The kernel of a scatter."""
    return [_Scatter(plan, memory, target).kernel()]


class _Scatter:
    def __init__(self, plan: ScatterPlan, memory: Callable[[Value], Memory], target: Target) -> None:
        assert plan.scatter is not None
        self.p, self.e, self.t, self.memory = plan, plan.scatter, Tiles(plan, memory), memory
        self.size, self.axis = plan.letters.size, plan.scatter.attributes["axis"]
        axes = plan.letters.values[self.e.result]
        owned = [x for d, letters in enumerate(axes) if d != self.axis for x in letters]
        self.scattered = list(axes[self.axis])
        uses = flat(plan.letters.of(self.e, 2))
        self.updates = [x for x in uses if x not in owned]
        varies = set(flat(plan.letters.of(self.e, 1)))
        self.lane = owned[-1] if owned and owned[-1] not in varies and axes[-1] and self.axis != len(axes) - 1 else None
        self.owned = [x for x in owned if x != self.lane]
        self.width = target.lanes(self.e.result.dtype.bytes) * VECTORS

    def kernel(self) -> ir.Kernel:
        t = self.t
        loops: list[ir.Parallel] = []
        for x in self.owned:
            index = t.name("b")
            t.depth_of[index] = 0
            loops.append(ir.Parallel(index, 0, self.size[x], 1, ()))
            t.pos[x] = size(index)
        self.lanes(loops)
        body = tuple(t.levels[0].body)
        for loop in reversed(loops):
            body = (ir.Parallel(loop.index, loop.lo, loop.hi, loop.tile, body),)
        return kernel(self.p, body, {"width": self.width})

    def lanes(self, loops: list[ir.Parallel]) -> None:
        """One tile of the owners along the vectors for each iteration; the last one is checked where it may be narrower."""
        t = self.t
        index = t.name("b")
        t.depth_of[index] = 0
        if self.lane is None:
            loops.append(ir.Parallel(index, 0, 1, 1, ()))
        else:
            n = self.size[self.lane]
            width = min(self.width, max(1, n)) if isinstance(n, int) else self.width
            loops.append(ir.Parallel(index, 0, ceildiv(n, width), 1, ()))
            t.shape = (1, width)
            t.pos[self.lane] = size(index) * width + size("#1")
            t.edge = set() if isinstance(n, int) and n % width == 0 else {"#1"}
        self.nest(self.scattered, self.copy, "any")
        self.nest(self.updates, self.add, "forward")

    def nest(self, letters: list[Letter], inside: Callable[[], None], order: str) -> None:
        t = self.t
        if not letters:
            t.push()
            inside()
            body = t.pop()
            t.body.extend(body)
            return
        x, *rest = letters
        index = t.name("r")
        t.push(index)
        saved = t.pos.get(x)
        t.pos[x] = size(index)
        self.nest(rest, inside, order)
        body = t.pop()
        if saved is not None:
            t.pos[x] = saved
        t.emit(ir.Stream(index, 0, self.size[x], 1, body, (), order))

    def copy(self) -> None:
        t = self.t
        tile, _ = t.operand(self.e, 0, t.plain_operand(self.e, 0))
        self.store(t.own(self.e.result), tile)

    def add(self) -> None:
        t, e = self.t, self.e
        index = t.operand(e, 1, t.plain_operand(e, 1))
        entry = t.index_entry(index, e.result.shape[self.axis])
        at = list(t.own(e.result))
        at[self.axis] = entry
        update = t.operand(e, 2, t.plain_operand(e, 2))
        view = t.view(self.memory(e.result), tuple(at))
        assert view is not None
        old = t.let(ir.Load(view, t.shape_of(view)), "old")
        new = ir.Map("add", (old, spread_to(t.join([update])[0][0], old.shape)), old.dtype)
        t.emit(ir.Store(view, new, e.location))

    def store(self, at: tuple, tile: ir.Tile) -> None:
        t = self.t
        view = t.view(self.memory(self.e.result), at)
        assert view is not None
        t.emit(ir.Store(view, spread_to(tile, t.shape_of(view)), self.e.location))
