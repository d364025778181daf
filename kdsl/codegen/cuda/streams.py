"""A stream as a `while` loop, its copies some tiles ahead.

In:  a Stream of the loop IR.  Out: lines: the carries' first tiles, the first copies, the loop.
A Copy of depth d runs d - 1 tiles ahead: the first ones are started before the loop, each later one by the step that has read
the tile whose place it takes. Where a warp of its own brings tiles (bulk.py), the loop waits for them instead.
Read before: expressions.py, bulk.py. Read next: statements.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kdsl.codegen.cuda.bulk import Bringer
from kdsl.codegen.cuda.choose_layouts import Layouts, Unsupported
from kdsl.codegen.cuda.expressions import Expressions
from kdsl.codegen.cuda.lines import Block, Line, indented
from kdsl.codegen.cuda.names import Names
from kdsl.codegen.cuda.records import BYTES
from kdsl.codegen.cuda.views import Views
from kdsl.ir import loops as ir
from kdsl.ir.sizes import Extent, ceildiv, size, substitute

Body = Callable[[Sequence[ir.Statement]], list[Line | Block]]


class Streams:
    """The streams of one kernel. `body` gives the lines of what stands in them."""

    def __init__(
        self, tiles: Expressions, views: Views, layouts: Layouts, names: Names, bringer: Bringer | None, body: Body
    ) -> None:
        self.tiles, self.views, self.layouts, self.names = tiles, views, layouts, names
        self.bringer, self.body = bringer, body

    def lines(self, s: ir.Stream) -> list[Line | Block]:
        """All that a stream becomes."""
        bringer = self.bringer if self.bringer and s is self.bringer.stream else None
        ahead = [] if bringer else [c for c in s.body if isinstance(c, ir.Copy) and c.depth > 1]
        depth = max((c.depth for c in ahead), default=1)
        if any(c.depth != depth for c in ahead):
            raise Unsupported(f"the copies of stream {s.index} have several depths")
        back = s.order == "backward"
        out = self._starts(s.carries)
        first = s.lo + (ceildiv(s.hi - s.lo, s.tile) - 1) * s.tile if back else s.lo
        i = self.views.loop(s.index, s.lo, s.tile)
        end, step = self.names.of("end", f"{i}_end"), -s.tile if back else s.tile
        bound = self.views.extent(s.lo if back else s.hi)
        out.append(Line([f"{i}, {end} = size({self.views.extent(first)}), size({bound})"]))
        body: list[Line | Block] = []
        count = self.names.of("count", f"{i}_count") if ahead else ""
        if ahead:
            out += self._first_copies(s, ahead, first, step, i, end)
            out.append(Line([f"{count} = size(0)"]))
            body.append(self._later_copies(s, ahead, step, i, end, count))
        if bringer:
            body.append(Line([f"landed({bringer.gates}, {bringer.count})"]))
            for c in bringer.copies:
                self.views.rings[c.near].number = bringer.count
        if any(self.layouts.crosses_warps(t) for inner in (*ir.walk(s.body), s) for t in ir.tiles_of(inner)):
            body.append(Line(["barrier()"]))  # folds across warps use scratch of their own, step after step
        body += self.body([b for b in s.body if b not in ahead and not (bringer and isinstance(b, ir.Copy))])
        body += self._nexts(s.carries, bringer)
        sign = "-" if back else "+"
        body.append(Line([f"{i} = {i} {sign} {s.tile}"] + ([f"{count} = {count} + 1"] if ahead else [])))
        for c in [*ahead, *(bringer.copies if bringer else ())]:
            self.views.rings[c.near].number = ""
        sure = isinstance(s.lo, int) and isinstance(s.hi, int) and s.lo < s.hi
        out.append(Block(f"while {i} {'>=' if back else '<'} {end}:", body, depth, sure=sure))
        return out

    # --- carries -----------------------------------------------------------------------------------------------------------
    def _starts(self, carries: Sequence[ir.Carry]) -> list[Line | Block]:
        """The tiles that the carries begin with."""
        out: list[Line | Block] = []
        for c in carries:
            layout = self.layouts.of(tuple(c.init.shape))
            self.views.called[c.name] = name = self.names.of("carry", c.name)
            out += self.tiles.line(c.init, lambda x, name=name: f"{name} = {x}", layout)  # type: ignore[misc]
            self.tiles.held[c.name] = layout
        return out

    def _nexts(self, carries: Sequence[ir.Carry], bringer: Bringer | None) -> list[Line | Block]:
        """The end of a step: all carries go on at once."""
        out: list[Line | Block] = []
        nexts = []
        for c in carries:
            name = self.views.called[c.name]
            if isinstance(c.next, ir.Name) and self.tiles.held.get(c.next.name) == self.tiles.held[c.name]:
                nexts.append(self.views.called[c.next.name])
                continue
            nexts.append(self.names.of("next", f"{name}_next"))
            out += self.tiles.line(c.next, lambda x: f"{nexts[-1]} = {x}", self.tiles.held[c.name])
        if bringer:
            leave = f"leave({bringer.gates}, {bringer.count})"
            out.append(Line([leave, f"{bringer.count} = {bringer.count} + 1"]))
        if carries:
            out.append(Line([f"{', '.join(self.views.called[c.name] for c in carries)} = {', '.join(nexts)}"]))
        return out

    # --- copies ------------------------------------------------------------------------------------------------------------
    def copies(self, copies: Sequence[ir.Copy], number: str, at: object, values: dict[str, Extent]) -> Line:
        """Start copies, as one group, to tile `number` of their rings; `values` replace loop indices."""
        text, accesses = [], []
        for c in copies:
            index = tuple(substitute(e, values) if values else e for e in c.view.index)
            place = self.views.place(ir.View(c.view.memory, index, c.view.checks, c.view.fill), tuple(c.shape))
            run = int(place[2 : place.index("(")]) if place.startswith("by") else 1
            whole = tuple(c.shape) == tuple(c.near.shape) and list(map(str, c.index)) == [f"#{k}" for k in range(len(c.shape))]
            if run * BYTES[c.near.dtype.name] != 16 or not whole or c.view.fill != 0 or c.near.dtype != c.view.memory.dtype:
                raise Unsupported(
                    f"a copy from {c.view.memory.name} goes in pieces of 16 bytes, a whole tile at a time, with fill 0"
                )
            text.append(f"copy(near({self.names.of('near', c.near.name.upper())}, {number}), {place})")
            accesses.append(("copy", c.near.name, at, self.views.rings[c.near].depth))
        return Line([*text, "commit()"], accesses)  # type: ignore[arg-type]

    def _first_copies(
        self, s: ir.Stream, ahead: Sequence[ir.Copy], first: Extent, step: int, i: str, end: str
    ) -> list[Line]:
        """Those of the first tiles, before the loop."""
        out = []
        for n in range(ahead[0].depth - 1):
            start = self.copies(ahead, str(n), n, {s.index: first + n * step})
            if not (isinstance(s.lo, int) and isinstance(s.hi, int) and s.lo + n * s.tile < s.hi):  # there may be no such tile
                *starts, commit = start.text
                ahead_by = f" {'-' if step < 0 else '+'} {n * s.tile}" if n else ""
                inside = f"{i}{ahead_by} {'>=' if step < 0 else '<'} {end}"
                start.text = [f"if {inside}:", *indented(starts), commit]
            out.append(start)
        return out

    def _later_copies(self, s: ir.Stream, ahead: Sequence[ir.Copy], step: int, i: str, end: str, count: str) -> Line:
        """Those that a step starts; from here on loads mean the tile of this step."""
        before = ahead[0].depth - 1
        more = self.copies(ahead, f"{count} + {before}", _later(before), {s.index: size(s.index) + before * step})
        *starts, commit = more.text
        inside = f"{i} - {-before * step} >= {end}" if step < 0 else f"{i} + {before * step} < {end}"
        for c in ahead:
            ring = self.views.rings[c.near]
            ring.number, ring.step = count, _later(0)
        return Line([f"if {inside}:", *indented(starts), commit], more.accesses)


def _later(n: int) -> Callable[[int], int]:
    return lambda step: step + n
