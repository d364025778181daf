"""Statements of a kernel as lines of its source: one macro call or operator each, the user's line above what it became.

In:  statements of the loop IR.  Out: lines, with what each does to memory that threads share.
Read before: expressions.py. Read next: streams.py, emit.py.
"""

from __future__ import annotations

import linecache
from collections.abc import Sequence

from kdsl.codegen.cuda.addresses import one_thread_each
from kdsl.codegen.cuda.barriers import Access
from kdsl.codegen.cuda.bulk import Bringer
from kdsl.codegen.cuda.choose_layouts import Layouts, Unsupported
from kdsl.codegen.cuda.expressions import Expressions
from kdsl.codegen.cuda.kernel_memory import shared_arrays
from kdsl.codegen.cuda.lines import Block, Line
from kdsl.codegen.cuda.names import Names
from kdsl.codegen.cuda.operators import infix
from kdsl.codegen.cuda.streams import Streams
from kdsl.codegen.cuda.views import Views
from kdsl.ir import loops as ir
from kdsl.ir.tensor import Location

COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")


class Statements:
    """The statements of one kernel. `bringer`: what its copy engine brings and takes, where it has one."""

    def __init__(
        self, kernel: ir.Kernel, tiles: Expressions, views: Views, layouts: Layouts, names: Names, bringer: Bringer | None
    ) -> None:
        self.tiles, self.views, self.layouts, self.names, self.bringer = tiles, views, layouts, names, bringer
        self.streams = Streams(tiles, views, layouts, names, bringer, self.lines)
        self.shared = shared_arrays(kernel)
        self.fixed = {p.index for p in ir.grid(kernel)} | set(kernel.sizes)  # one number as long as the kernel runs
        self.location = ("", 0)  # of the statement before

    def lines(self, statements: Sequence[ir.Statement]) -> list[Line | Block]:
        """The lines of statements that follow one another."""
        out: list[Line | Block] = []
        for s in statements:
            out += self._comment(getattr(s, "location", None))
            out += self._statement(s)
        return out

    def _statement(self, s: ir.Statement) -> Sequence[Line | Block]:
        if isinstance(s, ir.Let):
            return self._let(s)
        if isinstance(s, ir.Store):
            return self._store(s)
        if isinstance(s, ir.Put):
            if self.views.rings[s.near].depth != 1:
                raise Unsupported(f"near memory {s.near.name} is filled by copies and by tiles")
            return self._write("put", s.view, s.tile, s.near.name)
        if isinstance(s, ir.Copy):
            return [self.streams.copies([s], "0", 0, {})]
        if isinstance(s, ir.Stream):
            return self.streams.lines(s)
        if isinstance(s, ir.If):
            return self._condition(s)
        if isinstance(s, (ir.Near, ir.Prefetch)):
            return []
        raise Unsupported(f"a {type(s).__name__} in a CUDA kernel")

    def _comment(self, place: Location | None) -> list[Line]:
        """The user's line, above the first statement of several that it became."""
        if place is None or (place.file, place.line) == self.location:
            return []
        self.location = place.file, place.line
        line = linecache.getline(place.file, place.line).strip()
        return [Line([f"# {line}"])] if line else []

    def _store(self, s: ir.Store) -> list[Line]:
        root = ir.root(s.view.memory).name
        if root in self.shared:
            return self._write("store", s.view, s.tile, f"global {root}")
        send = self.bringer and self.bringer.sends(s, self.tiles.layout(s.tile), self.views.extent)
        return self.tiles.line(s.tile, send) if send else self._write("store", s.view, s.tile, None)

    def _write(self, word: str, view: ir.View, tile: ir.Tile, ring: str | None) -> list[Line]:
        """A store or a put, into a ring that threads share. What reads the memory that it writes is computed before, by all."""
        alone = one_thread_each(view, tuple(tile.shape), self.views.steps, self.fixed)
        kind = f"own {id(view)}" if alone else "write"
        written: list[Access] = [(kind, ring, 0, 1)] if ring is not None else []
        at = self.views.place(view, tuple(tile.shape), self.tiles.layout(tile))
        lines = self.tiles.line(tile, lambda x: f"{word}({at}, {x})")
        if any(read[:2] == ("read", w[1]) for line in lines for read in line.accesses for w in written):
            name = self.names.of("value", f"value_{len(self.names.taken)}")
            lines = self.tiles.line(tile, lambda x: f"{name} = {x}")
            lines.append(Line([f"{word}({at}, {name})"]))
        lines[-1].accesses += written
        return lines

    def _let(self, s: ir.Let) -> list[Line]:
        name = self.names.of("let", s.name)
        self.views.called[s.name] = name
        if isinstance(s.tile, ir.Scalar):
            self.tiles.uniform.add(s.name)
            if self.views.is_natural(s.tile.value):
                self.views.natural.add(s.name)
            return [Line([f"{name} = size({self.views.extent(s.tile.value)})"])]
        layout = self.tiles.layout(s.tile)
        if s.tile.shape == () and s.tile.dtype.is_integer and s.name in self.tiles.indexing:
            lines = self.tiles.line(s.tile, lambda x: f"{name} = uniform({x})", layout)
            self.tiles.uniform.add(s.name)
            return lines
        if s.name in self.layouts.left and isinstance(s.tile, ir.Load):
            lines = [self._left_operand(name, self.layouts.left[s.name], s.tile)]
            layout = self.layouts.operand(tuple(s.tile.shape))
        else:
            lines = self.tiles.line(s.tile, lambda x: f"{name} = {x}", layout)
        self.tiles.held[s.name] = layout
        return lines

    def _left_operand(self, name: str, half: str, load: ir.Load) -> Line:
        """A tile that tensor cores take in registers, from near memory."""
        shape = tuple(load.shape)
        reads = self.views.read(load.view.memory)
        at = self.views.place(load.view, shape)
        tile = self.layouts.tile(half, shape, self.layouts.operand(shape))
        return Line([f"{name} = take({tile}, {at})"], reads)

    def _condition(self, s: ir.If) -> list[Line | Block]:
        *before, test = self.tiles.line(s.condition, lambda x: x)
        head = f"holds({test.text[0]})"
        if isinstance(s.condition, ir.Map) and s.condition.op in COMPARISONS:
            if all(map(self.tiles.is_number, s.condition.operands)):
                operands = [self.tiles.operand_text(o, self.layouts.of(())) for o in s.condition.operands]
                head, _ = infix(s.condition, operands)
        body = self.lines(s.body) or [Line(["pass"])]
        return [*before, Line([], test.accesses), Block(f"if {head}:", body, once=True)]
