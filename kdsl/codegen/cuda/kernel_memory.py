"""What a kernel does to memory, as far as its source depends on it.

In:  a kernel of the loop IR.  Out: `written_arrays`, `shared_arrays` (those that need barriers), `indexing_names` (those whose
values are the same for a whole block), `operands` (near memory that products read).
Read before: ir/loops.py, choose_layouts.py. Read next: emit.py.
"""

from __future__ import annotations

from itertools import combinations

from kdsl.codegen.cuda.addresses import walk
from kdsl.codegen.cuda.choose_layouts import all_tiles
from kdsl.ir import loops as ir
from kdsl.ir.sizes import names_in


def written_arrays(kernel: ir.Kernel) -> set[str]:
    """The arrays that it stores to, by name."""
    return {ir.root(s.view.memory).name for s in ir.walk(kernel.body) if isinstance(s, ir.Store)}


def operands(kernel: ir.Kernel) -> set[ir.Memory]:
    """The memory from which products take their operands, by name or in place."""
    lets = {s.name: s.tile for s in ir.walk(kernel.body) if isinstance(s, ir.Let)}
    dots = [t for t in all_tiles(kernel) if isinstance(t, ir.Dot)]
    found = [x for t in dots for o in (t.a, t.b) for x in (o, lets.get(o.name) if isinstance(o, ir.Name) else None)]
    return {x.view.memory for x in found if isinstance(x, ir.Load)}


def shared_arrays(kernel: ir.Kernel) -> set[str]:
    """The arrays where a thread may meet what another one wrote: read again, written by several statements, or at loaded indices.

    A single store writes each element from one thread, whatever loops are around it."""
    stores = [s for s in ir.walk(kernel.body) if isinstance(s, ir.Store)]
    loaded = {s.name for s in ir.walk(kernel.body) if isinstance(s, ir.Let) and not isinstance(s.tile, ir.Scalar)}
    places = {p.index for p in ir.grid(kernel)} | set(kernel.sizes)
    pairs = [(a, b) for a, b in combinations(stores, 2) if ir.root(a.view.memory).name == ir.root(b.view.memory).name]
    met = {ir.root(a.view.memory).name for a, b in pairs if not _apart(a, b, places)}
    scattered = {ir.root(s.view.memory).name for s in stores if any(names_in(e) & loaded for e in s.view.index)}
    return {ir.root(m).name for m in _read(kernel)} | met | scattered


def indexing_names(kernel: ir.Kernel) -> set[str]:
    """The names that stand in indices, bounds and sizes."""
    out: set[str] = set()

    def view(v: ir.View) -> None:
        for e in (*v.index, *v.memory.shape):
            out.update(names_in(e))

    for s in ir.walk(kernel.body):
        if isinstance(s, (ir.Parallel, ir.Stream)):
            out.update(names_in(s.lo) | names_in(s.hi))
        elif isinstance(s, (ir.Store, ir.Copy)):
            view(s.view)
        if isinstance(s, ir.Put):
            view(s.view)
    for t in all_tiles(kernel):
        if isinstance(t, ir.Load):
            view(t.view)
        elif isinstance(t, ir.Scalar):
            out.update(names_in(t.value))
    return out


def _apart(a: ir.Store, b: ir.Store, fixed: set[str]) -> bool:
    """Whether two stores of a block never meet: along an axis, where `fixed` names alone say where, one ends before the other."""
    for x, y in zip(a.view.index, b.view.index):
        steps = walk(x)
        if a.view.memory is b.view.memory and steps is not None and len(steps[0]) == 1 and names_in(steps[1]) <= fixed:
            ((axis, step),) = steps[0].items()
            if step == 1 and isinstance(x - y, int) and abs(x - y) >= max(a.tile.shape[axis], b.tile.shape[axis]):
                return True
    return False


def _read(kernel: ir.Kernel) -> list[ir.Memory]:
    """What its loads, gathers and copies read."""
    out = [m for t in all_tiles(kernel) if (m := ir.memory_read(t)) is not None]
    return out + [s.view.memory for s in ir.walk(kernel.body) if isinstance(s, ir.Copy)]
