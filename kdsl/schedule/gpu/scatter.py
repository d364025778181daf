"""ScatterPlan -> loop IR for a GPU: owners of parts of the result add what belongs there, in order.

    blocks of the other axes, and of pieces of the scattered one where all its owners read the same indices:
        Stream over the piece: copy x
        Stream (forward) over all updates: If the index lies in the piece: result[index, tile] += updates[tile]
No atomics: the same sum every time. Every owner of a piece reads all indices, which are few beside the updates.
Read before: nest.py. Read next: program.py.
"""

from __future__ import annotations

from collections.abc import Callable

import kdsl.dtypes as dt
from kdsl.ir import loops as ir
from kdsl.ir.frame import ScatterPlan, flat
from kdsl.ir.sizes import Extent, minimum
from kdsl.ir.tensor import Value
from kdsl.schedule.gpu.nest import Nest, State, Walk, power_above
from kdsl.schedule.positions import Known, Memory, number, spread_to
from kdsl.target import Target

LANES = 128  # of one owner's tile
WAVES = 4  # blocks for each multiprocessor: some pieces get more updates than others
LONG = 1024  # what a named extent of the other axes is taken to be
PIECE = 128  # positions of a scattered axis of a named length that a block owns


def schedule_scatter(plan: ScatterPlan, memory: Callable[[Value], Memory], target: Target) -> list[ir.Kernel]:
    """The kernel of a scatter."""
    return [_Scatter(plan, memory, target).kernel()]


class _Scatter:
    def __init__(self, plan: ScatterPlan, memory: Callable[[Value], Memory], target: Target) -> None:
        assert plan.scatter is not None
        self.e, self.size, self.memory, self.target = plan.scatter, plan.letters.size, memory, target
        self.axis = self.e.attributes["axis"]
        axes = plan.letters.values[self.e.result]
        self.scattered = axes[self.axis]
        self.owned = [x for d, letters in enumerate(axes) if d != self.axis for x in letters]
        self.updates = [x for x in flat(plan.letters.of(self.e, 2)) if x not in self.owned]
        self.varies = set(flat(plan.letters.of(self.e, 1))) & set(self.owned)
        last = self.owned[-1] if self.owned else None
        lane = last if last not in self.varies and self.axis != len(axes) - 1 else None
        width = 1 if lane is None else min(LANES, power_above(n)) if isinstance(n := self.size[lane], int) else LANES
        self.t = Nest(plan, memory, {} if lane is None else {lane: 1}, (1, width))

    def kernel(self) -> ir.Kernel:
        t = self.t
        for x in self.owned:
            t.block(x, "owner")
        piece = self.piece()
        whole = [Walk(x, 0, self.size[x]) for x in self.scattered]
        t.streams(whole if piece is None else [Walk(self.scattered[0], *piece)], [], [], [], self.copy)
        t.streams([Walk(x, 0, self.size[x]) for x in self.updates], [], [], [], lambda _: self.add(piece), "forward")
        return t.kernel()

    def piece(self) -> tuple[Extent, Extent] | None:
        """The positions that a block owns; None where it owns them all."""
        if len(self.scattered) != 1 or self.varies:
            return None
        n = self.size[self.scattered[0]]
        blocks = 1
        for x in self.owned:
            extent = self.size[x]
            blocks *= -(-(extent if isinstance(extent, int) else LONG) // self.t.step(x))
        wanted = -(-WAVES * self.target.units // max(1, blocks))
        each = max(1, -(-n // wanted)) if isinstance(n, int) else PIECE
        start = self.t.parallel("piece", 0, n, each)
        return start, minimum(start + each, n)

    def copy(self, _: State) -> State:
        t, e = self.t, self.e
        t.emit(t.store(e.result, t.here(t.operand(e, 0, t.plain_operand(e, 0)))))
        return []

    def add(self, piece: tuple[Extent, Extent] | None) -> State:
        """One update, if it is for this block."""
        t, e = self.t, self.e
        entry = t.index_entry(t.operand(e, 1, t.plain_operand(e, 1)), e.result.shape[self.axis])
        t.push()
        at = list(t.own(e.result))
        at[self.axis] = entry
        view = t.view(self.memory(e.result), tuple(at))
        assert view is not None
        update = t.here(t.operand(e, 2, t.plain_operand(e, 2)))
        old = t.let(ir.Load(view, t.shape_of(view)), "old")
        new = ir.Map("add", (old, spread_to(update, old.shape)), old.dtype)
        t.emit(ir.Store(view, new, e.location))
        body = t.pop()
        if piece is None:
            t.body.extend(body)
        else:
            index: Known = t.count(entry)
            low = t.map("ge", [index, (number(piece[0], dt.i64), 0)], dt.bool_)
            mine = t.map("and", [low, t.map("lt", [index, (number(piece[1], dt.i64), 0)], dt.bool_)], dt.bool_)
            t.emit(ir.If(mine[0], body))
        return []
