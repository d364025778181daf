"""The invariants of the loop IR, checked after every stage that makes or changes a program.

In:  a Program.  Out: nothing, or a LoopError that names the kernel, the statement and what clashes.
    names      defined once, above their use, of one type; sizes are passed to the kernel that mentions them
    tiles      shapes and dtypes fit; no tile is f16 or bf16; a carry keeps its type
    memory     an unchecked index is provably inside (ir/ranges.py); what is read was written above or is an argument
    races      a Store in a Parallel loop depends on its index (which elements meet, the interpreter finds out)
Read before: ir/loop_scope.py. Read next: ir/interpreter.py, which checks while running what cannot be seen here.
"""

from __future__ import annotations

from kdsl.ir import loops as ir
from kdsl.ir.interpreter_memory import LoopError
from kdsl.ir.loop_scope import Scope, type_of
from kdsl.ir.sizes import Extent, Size, names_in


def verify_loops(program: ir.Program) -> None:
    """Raise LoopError unless all invariants hold."""
    names = [b.name for b in program.buffers]
    _require(len(set(names)) == len(names), f"{program.name}: two buffers have one name")
    written = {b for b in program.buffers if b.role in ("argument", "constant")}
    for kernel in program.kernels:
        _require(
            set(kernel.buffers) <= set(program.buffers), f"{kernel.name} has a buffer that the program lacks"
        )
        _require(set(kernel.sizes) <= set(program.sizes), f"{kernel.name} has a size that the program lacks")
        _Kernel(kernel, written, program.facts).verify()
    for buffer in program.buffers:
        _require(
            buffer.role != "result" or buffer in written,
            f"{program.name}: no kernel writes the result {buffer.name}",
        )


def holds(kernel: ir.Kernel) -> bool:
    """Whether a kernel's invariants can be proved from its text alone."""
    try:
        _Kernel(kernel, set(kernel.buffers)).verify()
    except LoopError:
        return False
    return True


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise LoopError(message)


class _Kernel(Scope):
    """One walk over a kernel's statements."""

    def verify(self) -> None:
        for buffer in self.kernel.buffers:
            for extent in (*buffer.shape, *buffer.strides):
                self.require(
                    names_in(extent) <= self.sizes,
                    f"{buffer.name} has the extent {extent}, which is no size of it",
                )
        self.body(self.kernel.body, top=True)

    def body(self, statements: tuple[ir.Statement, ...], top: bool = False) -> None:
        for position, statement in enumerate(statements):
            if isinstance(statement, ir.Parallel):
                self.require(top, f"the parallel loop {statement.index} is not outermost")
                last = position == len(statements) - 1
                self.require(last, f"statements follow the parallel loop {statement.index}")
                self.require(
                    all(isinstance(s, ir.Let) for s in statements[:-1]),
                    "more than Lets stand before a parallel loop",
                )
            getattr(self, "on_" + type(statement).__name__)(statement)

    def on_Parallel(self, loop: ir.Parallel) -> None:
        self.index(loop.lo, loop.hi)
        self.require(loop.tile > 0, f"{loop.index} goes in steps of {loop.tile}")
        self.define_index(loop.index)
        if not (isinstance(loop.lo, int) and isinstance(loop.hi, int) and loop.hi - loop.lo <= loop.tile):
            self.parallel.append(loop.index)
        self.depends[loop.index] = {loop.index} | self.dependence(loop.lo)
        self.inner(loop, loop.body, top=True)

    def on_Stream(self, loop: ir.Stream) -> None:
        self.index(loop.lo, loop.hi)
        self.require(
            loop.tile > 0 and loop.order in ("any", "forward", "backward"),
            f"the stream {loop.index} is malformed",
        )
        self.define_index(loop.index)
        self.depends[loop.index] = self.dependence(loop.lo) | self.dependence(loop.hi)
        for carry in loop.carries:
            self.tiles(carry.init)
        for carry in loop.carries:
            self.define(carry.name)
            self.types[carry.name] = (tuple(carry.init.shape), carry.init.dtype)
            same = (tuple(carry.next.shape), carry.next.dtype) == self.types[carry.name]
            self.require(
                same, f"{carry.name} starts as {type_of(carry.init)} and goes on as {type_of(carry.next)}"
            )
        self.inner(loop, loop.body, after=loop.carries)

    def inner(
        self,
        loop: ir.Parallel | ir.Stream,
        body: tuple[ir.Statement, ...],
        top: bool = False,
        after: tuple[ir.Carry, ...] = (),
    ) -> None:
        """A loop's body in a scope of its own; `after` are the carries whose next tiles are seen at its end."""
        outer = dict(self.types), dict(self.near), self.unreachable
        span = self.ranges.span(loop.hi - loop.lo)
        self.unreachable = self.unreachable or (span is not None and span[1] <= 0)
        self.ranges.add_loop(loop.index, loop.lo, loop.hi, loop.tile)
        self.body(body, top)
        self.tiles(*(c.next for c in after))
        written = {n for n, done in self.near.items() if done}
        self.types, near, self.unreachable = outer
        self.types.update((c.name, (tuple(c.init.shape), c.init.dtype)) for c in after)
        self.near = {n: done or n in written for n, done in near.items()}
        del self.ranges.bounds[loop.index]

    def on_If(self, statement: ir.If) -> None:
        self.tiles(statement.condition)
        self.require(
            type_of(statement.condition) == "bool[]", f"a condition is {type_of(statement.condition)}, not bool[]"
        )
        types, near = dict(self.types), dict(self.near)
        parallel, self.parallel = self.parallel, []  # the condition may choose one iteration
        self.body(statement.body)
        self.parallel = parallel
        self.types, self.near = types, {n: self.near[n] for n in near}

    def on_Let(self, statement: ir.Let) -> None:
        self.tiles(statement.tile)
        self.define(statement.name)
        self.types[statement.name] = tuple(statement.tile.shape), statement.tile.dtype
        self.depends[statement.name] = set(self.parallel)
        limits = (
            limits_of(statement.tile)
            if statement.tile.dtype.is_integer and not statement.tile.shape
            else (None, None)
        )
        if limits[0] is not None and limits[1] is not None:
            self.ranges.add(statement.name, limits[0], limits[1])

    def on_Near(self, near: ir.Near) -> None:
        self.define(near.name)
        self.require(
            all(isinstance(n, int) for n in near.shape),
            f"near memory {near.name} has no fixed size: {near.shape}",
        )
        self.near[near] = False

    def on_Copy(self, copy: ir.Copy) -> None:
        self.reads(copy.view, copy.shape)
        self.require(
            copy.near.dtype is copy.view.memory.dtype, f"a copy to {copy.near.name} changes the dtype"
        )
        self.require(copy.depth >= 1, f"a copy to {copy.near.name} has no depth")
        self.writes(ir.View(copy.near, copy.index), copy.shape)

    def on_Put(self, put: ir.Put) -> None:
        self.tiles(put.tile)
        self.require(
            put.tile.dtype is put.near.dtype.compute,
            f"{type_of(put.tile)} is put into {put.near.dtype} {put.near.name}",
        )
        self.writes(put.view, put.tile.shape)

    def on_Store(self, store: ir.Store) -> None:
        self.tiles(store.tile)
        memory = store.view.memory
        self.require(
            store.tile.dtype is memory.dtype.compute,
            f"{type_of(store.tile)} is stored into {memory.dtype} {memory.name}",
        )
        self.writes(store.view, store.tile.shape)
        if not isinstance(memory, ir.Near):
            found = (
                set().union(*(self.dependence(e) for e in store.view.index)) if store.view.index else set()
            )
            missing = [p for p in self.parallel if p not in found]
            self.require(
                not missing,
                f"every iteration of {', '.join(missing)} writes the same elements of {memory.name}",
            )

    def on_Prefetch(self, statement: ir.Prefetch) -> None:
        self.view(statement.view, statement.shape, prove=False)


def limits_of(tile: ir.Tile) -> tuple[Extent | None, Extent | None]:
    """What bounds a 0-d integer tile from below and above, where its expression says so: sums, and clamps of anything."""
    if isinstance(tile, ir.Scalar):
        return tile.value, tile.value
    if isinstance(tile, ir.Constant):
        return int(tile.value), int(tile.value)
    if isinstance(tile, ir.Map) and tile.op in ("minimum", "maximum"):
        (a, b), (c, d) = map(limits_of, tile.operands)
        if tile.op == "minimum":
            return (
                Size({(("min", a, c),): 1}) if a != c else a
            ) if a is not None and c is not None else None, d if b is None else b
        return c if a is None else a, (
            Size({(("max", b, d),): 1}) if b != d else b
        ) if b is not None and d is not None else None
    return None, None
