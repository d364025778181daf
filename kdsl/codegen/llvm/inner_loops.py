"""Loops in the text: the counting loop with carried values, and the loops within one statement over a large tile.

In:  bounds, carried values, a function that writes the body.  Out: basic blocks; the carried values after the loop.
A statement that writes a large tile runs as a loop over groups of vectors where its tile can be computed at any position
(it need not be in registers); otherwise every vector is written out.
Read before: tiles.py. Read next: kernel.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kdsl.codegen.llvm.memory import Position
from kdsl.codegen.llvm.tiles import Tiles
from kdsl.codegen.llvm.writer import Frame, Value
from kdsl.ir import loops as ir

Body = Callable[[Value, list[Value]], list[Value]]


class InnerLoops(Tiles):
    """Adds loops."""

    def loop(self, name: str, start: Value, stop: Value, step: int, carried: Sequence[Value], body: Body, sure: bool) -> list[Value]:
        """for i = start; i < stop (or i >= stop where step < 0); i += step. `sure`: runs at least once. Returns the carried values."""
        self.count += 1
        n = self.count
        outer, before = self.label, "slt" if step > 0 else "sge"
        self.frames.append(Frame())
        self.label = f"loop{n}"
        index = Value(f"%i{n}", "i64", 1, self.depth)
        phis = [Value(self.fresh(), v.type, v.width, self.depth) for v in carried]
        after = body(index, phis)
        frame, end = self.frames.pop(), self.label
        out = self.frames[-1].lines
        if sure:
            out.append(f"  br label %loop{n}")
        else:
            out += [f"  %t{n} = icmp {before} i64 {start.text}, {stop.text}", f"  br i1 %t{n}, label %loop{n}, label %exit{n}"]
        out += [f"loop{n}:", f"  %i{n} = phi i64 [ {start.text}, %{outer} ], [ %j{n}, %{end} ]"]
        for phi, first, next_ in zip(phis, carried, after, strict=True):
            out.append(f"  {phi.text} = phi {phi.full} [ {first.text}, %{outer} ], [ {next_.text}, %{end} ]")
        out += frame.lines
        out += [
            f"  %j{n} = add nsw i64 %i{n}, {step}", f"  %u{n} = icmp {before} i64 %j{n}, {stop.text}",
            f"  br i1 %u{n}, label %loop{n}, label %exit{n}", f"exit{n}:",
        ]  # fmt: skip
        self.label = f"exit{n}"
        results = []
        for first, next_ in zip(carried, after, strict=True):
            if sure:
                results.append(Value(next_.text, next_.type, next_.width, self.depth))
            else:
                v = Value(self.fresh(), next_.type, next_.width, self.depth)
                out.append(f"  {v.text} = phi {v.full} [ {first.text}, %{outer} ], [ {next_.text}, %{end} ]")
                results.append(v)
        return results

    def fill_view(self, view: ir.View, tile: ir.Tile) -> None:
        """Write a tile to memory."""
        lane, width = len(tile.shape) - 1, self.width_of(tile.shape)
        todo: list[tuple[tuple[Position, ...], Value]] = []
        for at in self.groups(tile.shape):
            todo.append((at, self.natural_element(tile, at)))
        for at, v in todo:
            self.store(view, at, lane, width, self.valid(tile.shape, at, lane, width), v)
