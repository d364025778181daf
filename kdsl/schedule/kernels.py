"""A finished nest as a Kernel: which buffers and sizes it mentions.

In:  a plan and statements.  Out: ir.loops.Kernel.
Read before: ir/loops.py. Read next: program.py.
"""

from __future__ import annotations

from typing import Any

from kdsl.ir import loops as ir
from kdsl.ir.frame import Plan
from kdsl.ir.sizes import Extent, Size, names_in


def kernel(plan: Plan, body: tuple[ir.Statement, ...], schedule: dict[str, Any]) -> ir.Kernel:
    """The kernel of a plan whose nest is `body`."""
    buffers: dict[ir.Buffer, None] = {}
    names: set[str] = set()
    local: set[str] = set()
    seen: set[int] = set()

    def mention(*extents: Extent) -> None:
        for x in extents:
            if isinstance(x, Size):
                names.update(names_in(x))

    def memory(m: ir.Memory) -> None:
        if not isinstance(m, ir.Near):
            buffer = ir.root(m)
            buffers[buffer] = None
            mention(*m.strides, *m.shape, *buffer.shape, *buffer.strides)
        else:
            mention(*m.shape)

    def tile(t: ir.Tile) -> None:
        if isinstance(t, ir.Load):
            mention(*t.view.index)
        elif isinstance(t, ir.Scalar):
            mention(t.value)
        if (m := ir.memory_read(t)) is not None:
            memory(m)

    for s in ir.walk(body):
        for t in ir.nodes(*ir.tiles_of(s)):
            if id(t) not in seen:
                seen.add(id(t))
                tile(t)
        if isinstance(s, (ir.Parallel, ir.Stream)):
            mention(s.lo, s.hi)
            local.add(s.index)
            local.update(c.name for c in getattr(s, "carries", ()))
        elif isinstance(s, (ir.Store, ir.Prefetch, ir.Copy)):
            memory(s.view.memory)
            mention(*s.view.index)
        elif isinstance(s, ir.Put):
            mention(*s.index)
        elif isinstance(s, ir.Let):
            local.add(s.name)
    sizes = tuple(sorted(n for n in names - local if not n.startswith("#")))
    location = next((e.location for e in reversed(plan.equations) if e.location), None)
    return ir.Kernel(
        plan.name, tuple(buffers), sizes, body, plan.kind, plan.bytes, plan.operations, plan.notes, schedule, location
    )
