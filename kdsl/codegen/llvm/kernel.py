"""One kernel: its statements become basic blocks, its loops carry tiles in registers.

In:  an ir.loops.Kernel.  Out: `define void @name(ptr %args, i64 %lo, i64 %hi)` (docs/decisions/stages.md), which runs blocks
lo .. hi-1 of the grid of all Parallel loops.

A Let computes nothing by itself. What it loads is read at the Let's place, or later where nothing was written in between:
before a statement (or loop) writes to memory, the Lets that read that memory are computed.
A Stream becomes one basic block that jumps to itself, with a phi for each vector of each carry and for the index; a Stream
that provably runs once is no loop at all.
Near memory lies on the stack: a kernel needs the sum of its Nears, and 64 KB for what LLVM spills.
Read before: tiles.py, folds.py. Read next: module.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kdsl.codegen.llvm.inner_loops import MOST
from kdsl.codegen.llvm.memory import STORED, Plan
from kdsl.codegen.llvm.tiles import Owner, Stored, memories
from kdsl.codegen.llvm.together import Together
from kdsl.codegen.llvm.writer import TYPES, Frame, Value
from kdsl.ir import loops as ir
from kdsl.ir.loops import Memory, Statement, walk
from kdsl.ir.sizes import Extent, ceildiv
from kdsl.target import Target


def lanes_of(kernel: ir.Kernel, target: Target) -> int:
    """One vector width for a whole kernel: 4-byte elements, or 8-byte ones where nothing in memory is narrower."""
    sizes = {b.dtype.compute.bytes for b in kernel.buffers if b.dtype.kind != "bool"}
    return target.lanes(8 if sizes == {8} else 4)


def writes(body: Iterable[Statement]) -> set[Memory]:
    """The memory that statements write."""
    out: set[Memory] = set()
    for s in walk(tuple(body)):
        if isinstance(s, ir.Store):
            out.add(ir.root(s.view.memory))
        elif isinstance(s, (ir.Put, ir.Copy)):
            out.add(s.near)
    return out


class Emitter(Together):
    """Writes one kernel."""

    def __init__(self, kernel: ir.Kernel, target: Target, declarations: set[str]) -> None:
        super().__init__(target, lanes_of(kernel, target), declarations)
        self.kernel = kernel
        self.names = {n: Value(f"%s{i}", "i64") for i, n in enumerate(kernel.sizes)}
        self.natural = set(kernel.sizes)
        self.pointers = {b: Value(f"%b{i}", "ptr") for i, b in enumerate(kernel.buffers)}
        self.written = writes(kernel.body)
        self.plans: dict[tuple[ir.View, int], Plan] = {}
        self.named: dict[str, Owner | Stored] = {}
        self.pending: dict[Memory, list[Owner]] = {}
        self.owner = Owner(None, 0)
        self.owners, self.early = {}, {}

    # --- the function ---------------------------------------------------------------------------------------------------
    def text(self, name: str) -> str:
        """The kernel as two functions: the body, whose pointers do not alias, and the entry that unpacks the table."""
        self.blocks()
        buffers, sizes = self.kernel.buffers, self.kernel.sizes
        unpack, arguments = [], []
        for i in range(len(buffers) + len(sizes)):
            type, to = ("ptr", f"%b{i}") if i < len(buffers) else ("i64", f"%s{i - len(buffers)}")
            unpack += [f"  %a{i} = getelementptr i64, ptr %args, i64 {i}", f"  {to} = load {type}, ptr %a{i}, align 8"]
            arguments.append(f"{type} noalias {to}" if type == "ptr" else f"{type} {to}")
        arguments += ["i64 %lo", "i64 %hi"]
        passed = ", ".join(a.replace(" noalias", "") for a in arguments)
        return "\n".join(
            [
                f"define internal void @{name}.body({', '.join(arguments)}) {{", "entry:",
                *self.frames[0].lines, "  ret void", "}",
                f"define void @{name}(ptr %args, i64 %lo, i64 %hi) {{", *unpack,
                f"  call void @{name}.body({passed})", "  ret void", "}", "",
            ]
        )  # fmt: skip

    def blocks(self) -> None:
        """The loop over this call's blocks; the number of a block is taken apart into the Parallel indices."""
        lo, hi = Value("%lo", "i64"), Value("%hi", "i64")
        nest = ir.grid(self.kernel)
        counts = [ceildiv(p.hi - p.lo, p.tile) for p in nest]

        def body(block: Value) -> None:
            rest = block
            for level in reversed(range(len(nest))):
                p, count = nest[level], self.integer(counts[level])
                if level:
                    number = self.floor_division("%", rest, count, True)
                    rest = self.floor_division("//", rest, count, True)
                else:
                    number = rest
                self.bind(p.index, p.lo, self.add(self.integer(p.lo), self.times(number, self.number(p.tile))))
            self.statements(self.kernel.body)

        def run(block: Value, _: list[Value]) -> list[Value]:
            body(block)
            return []

        self.loop("block", lo, hi, 1, [], run, sure=False)

    def bind(self, index: str, lo: Extent, value: Value) -> None:
        if self.is_natural(lo):
            self.natural.add(index)
        self.names[index] = value

    # --- statements -----------------------------------------------------------------------------------------------------
    def statements(self, body: Sequence[Statement], carries: Sequence[ir.Carry] = ()) -> None:
        """The statements of a loop's body; what its carries are next, where that comes out on the way."""
        for i, s in enumerate(body):
            first = i == 0 or isinstance(body[i - 1], (ir.If, ir.Stream, ir.Near, ir.Prefetch))
            if first and isinstance(s, (ir.Let, ir.Put, ir.Store)):
                left = self.together(body[i:], carries)
                if left is not None:
                    self.one_by_one(left)
                    return
            self.one_by_one((s,))

    def one_by_one(self, body: Iterable[Statement]) -> None:
        for s in body:
            self.force(writes((s,)) if not isinstance(s, ir.Parallel) else set())
            owner = self.owners.get(s) if isinstance(s, (ir.Put, ir.Store)) else None
            self.owner, self.place = owner or Owner(None, self.depth), self.depth
            getattr(self, f"do_{type(s).__name__}")(s)

    def force(self, touched: set[Memory]) -> None:
        """Compute the Lets that read memory which is about to be written."""
        for memory in touched & self.pending.keys():
            for owner in self.pending.pop(memory):
                assert owner.tile is not None
                self.owner, self.place = owner, owner.place
                stored = self.stored(owner.tile)
                for name, bound in self.named.items():
                    if bound is owner:
                        self.named[name] = stored

    def do_Parallel(self, s: ir.Parallel) -> None:
        self.statements(s.body)

    def do_Let(self, s: ir.Let) -> None:
        owner = Owner(s.tile, self.depth)
        self.named[s.name] = owner
        for memory in memories(s.tile, self.named) & self.written:
            self.pending.setdefault(memory, []).append(owner)
        if self.has_long_loop(s.tile):
            self.owner = owner
            self.named[s.name] = self.stored(s.tile)
            return
        if not s.tile.shape and s.tile.dtype.is_integer:
            self.owner = owner
            v = self.element(s.tile, (), -1, 1)
            self.names[s.name] = self.convert("zext" if s.tile.dtype.kind == "unsigned" else "sext", v, "i64")
            if v.const is not None:
                self.names[s.name] = self.number(v.const)
            if s.tile.dtype.kind == "unsigned" or (isinstance(s.tile, ir.Scalar) and self.is_natural(s.tile.value)):
                self.natural.add(s.name)

    def has_long_loop(self, tile: ir.Tile) -> bool:
        """Whether computing the tile takes a loop, which must stand where the Let does."""
        if (
            (isinstance(tile, ir.Fold)
            and tile.tile.shape[tile.axis] > 4 * MOST)
            or (isinstance(tile, ir.Dot)
            and tile.a.shape[-1] > MOST)
        ):
            return True
        return any(map(self.has_long_loop, ir.children(tile)))

    def do_Near(self, s: ir.Near) -> None:
        count: Extent = 1
        for extent in s.shape:
            count = count * extent
        type = STORED.get(s.dtype.name, TYPES[s.dtype.name])
        place = f"%near{self.count}"
        self.count += 1
        n = self.integer(count) if isinstance(count, int) else None
        assert n is not None, "near memory has a fixed size"
        self.frames[0].lines.append(f"  {place} = alloca [{max(n.const or 0, 1)} x {type}], align 64")
        self.pointers[s] = Value(place, "ptr")

    def do_Copy(self, s: ir.Copy) -> None:
        self.do_Put(ir.Put(s.near, s.index, ir.Load(s.view, s.shape)))

    def do_Put(self, s: ir.Put) -> None:
        self.fill_view(s.view, s.tile)

    def do_Store(self, s: ir.Store) -> None:
        self.fill_view(s.view, s.tile)

    def do_Prefetch(self, s: ir.Prefetch) -> None:
        f = self.declare("llvm.prefetch.p0", "void", ("ptr", "i32", "i32", "i32"))
        plan = self.plan(s.view, len(s.shape))
        step = max(1, 64 // s.view.memory.dtype.bytes)
        seen = set()
        for at in self.groups(s.shape):
            if at and at[-1] % step and self.width_of(s.shape) < step:
                continue
            pointer, _ = self.address(plan, s.view.memory, at, -1, 1)
            if pointer.text not in seen:
                seen.add(pointer.text)
                self.line(f"call void {f}(ptr {pointer.text}, i32 0, i32 3, i32 1)")

    def do_If(self, s: ir.If) -> None:
        condition = self.element(s.condition, (0,) * len(s.condition.shape), -1, 1)
        if condition.const is not None:
            if condition.const:
                self.statements(s.body)
            return
        self.count += 1
        yes, no = f"then{self.count}", f"endif{self.count}"
        self.frames.append(Frame())
        self.label = yes
        self.statements(s.body)
        inner = self.frames.pop()
        self.frames[-1].lines += [
            f"  br i1 {condition.text}, label %{yes}, label %{no}", f"{yes}:", *inner.lines, f"  br label %{no}", f"{no}:",
        ]  # fmt: skip
        self.label = no
        self.drop_pending()

    def do_Stream(self, s: ir.Stream) -> None:
        # what a loop body writes must be read before the loop: `statements` has seen to it
        lo, hi = self.integer(s.lo), self.integer(s.hi)
        first = []
        for c in s.carries:
            self.owner = Owner(None, self.depth)
            first.append(self.stored(c.init))
        trips = ceildiv(s.hi - s.lo, s.tile)
        count = self.integer(trips).const
        if count is not None and count <= 0:
            self.named.update({c.name: v for c, v in zip(s.carries, first, strict=True)})
            return
        if count == 1:
            self.bind(s.index, s.lo, lo)
            self.named.update({c.name: v for c, v in zip(s.carries, first, strict=True)})
            self.statements(s.body, s.carries)
            self.named.update({c.name: v for c, v in zip(s.carries, self.next_of(s), strict=True)})
            return

        def body(index: Value, carried: list[Value]) -> list[Value]:
            self.bind(s.index, s.lo, index)
            at = iter(carried)
            for c, initial in zip(s.carries, first, strict=True):
                stored = self.named[c.name] = Stored(initial.shape, initial.width, initial.type)
                stored.values = {key: next(at) for key in initial.values}
            self.statements(s.body, s.carries)
            return [v for stored in self.next_of(s) for v in stored.values.values()]

        initial = [v for all_of in first for v in all_of.values.values()]
        if s.order == "backward":
            steps = self.floor_division(
                "//", self.subtract(self.subtract(hi, lo), self.number(1)), self.number(s.tile), False
            )
            start = self.add(lo, self.times(steps, self.number(s.tile)))
            final = self.loop(s.index, start, lo, -s.tile, initial, body, sure=count is not None)
        else:
            final = self.loop(s.index, lo, hi, s.tile, initial, body, sure=count is not None)
        values = iter(final)
        for c, before in zip(s.carries, first, strict=True):
            stored = self.named[c.name] = Stored(before.shape, before.width, before.type)
            stored.values = {key: next(values) for key in before.values}
        self.drop_pending()

    def next_of(self, s: ir.Stream) -> list[Stored]:
        """The carries' next tiles, all from the old ones."""
        out = []
        for c in s.carries:
            self.owner, self.place = self.owners.get(c) or Owner(None, self.depth), self.depth
            out.append(self.early.pop(c, None) or self.stored(c.next))
        return out

    def drop_pending(self) -> None:
        """Forget the Lets of a body that has ended."""
        for memory, owners in self.pending.items():
            self.pending[memory] = [o for o in owners if o.place <= self.depth]
