"""ScatterPlan -> loop IR for a GPU: owners of the axes that are not scattered add all updates in order.

    blocks of the other axes:
        Stream over the scattered axis: copy x
        Stream (forward) over the updates: index as a 0-d Let, result[index, tile] += updates[tile]
No atomics: the same sum every time.
Read before: nest.py. Read next: program.py.
"""

from __future__ import annotations

from collections.abc import Callable

from kdsl.ir import loops as ir
from kdsl.ir.frame import ScatterPlan, flat
from kdsl.ir.tensor import Value
from kdsl.schedule.gpu.nest import Nest, State, Walk, power_above
from kdsl.schedule.positions import Memory, spread_to
from kdsl.target import Target

LANES = 128  # of one owner's tile


def schedule_scatter(plan: ScatterPlan, memory: Callable[[Value], Memory], target: Target) -> list[ir.Kernel]:
    """The kernel of a scatter."""
    assert plan.scatter is not None
    e, size = plan.scatter, plan.letters.size
    axis, axes = e.attributes["axis"], plan.letters.values[e.result]
    owned = [x for d, letters in enumerate(axes) if d != axis for x in letters]
    updates = [x for x in flat(plan.letters.of(e, 2)) if x not in owned]
    varies = set(flat(plan.letters.of(e, 1)))
    lane = owned[-1] if owned and owned[-1] not in varies and axis != len(axes) - 1 else None
    width = 1 if lane is None else min(LANES, power_above(n)) if isinstance(n := size[lane], int) else LANES
    t = Nest(plan, memory, {} if lane is None else {lane: 1}, (1, width))
    for x in owned:
        t.block(x, "owner")

    def copy(_: State) -> State:
        tile = t.here(t.operand(e, 0, t.plain_operand(e, 0)))
        t.emit(t.store(e.result, tile))
        return []

    def add(_: State) -> State:
        entry = t.index_entry(t.operand(e, 1, t.plain_operand(e, 1)), e.result.shape[axis])
        at = list(t.own(e.result))
        at[axis] = entry
        view = t.view(memory(e.result), tuple(at))
        assert view is not None
        update = t.here(t.operand(e, 2, t.plain_operand(e, 2)))
        old = t.let(ir.Load(view, t.shape_of(view)), "old")
        new = ir.Map("add", (old, spread_to(update, old.shape)), old.dtype)
        t.emit(ir.Store(view, new, e.location))
        return []

    t.streams([Walk(x, 0, size[x]) for x in axes[axis]], [], [], [], copy)
    t.streams([Walk(x, 0, size[x]) for x in updates], [], [], [], add, "forward")
    return [t.kernel()]
