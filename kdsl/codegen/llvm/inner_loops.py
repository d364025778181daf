"""Loops in the text: the counting loop with carried values, and the loops within one statement over a large tile.

In:  bounds, carried values, a function that writes the body.  Out: basic blocks; the carried values after the loop.
A statement that writes a large tile runs as a loop over groups of vectors where its tile can be computed at any position
(it need not be in registers); otherwise every vector is written out.
Read before: tiles.py, folds.py. Read next: kernel.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kdsl.codegen.llvm.folds import Folds
from kdsl.codegen.llvm.memory import Position
from kdsl.codegen.llvm.tiles import Owner, Stored, memories
from kdsl.codegen.llvm.writer import Frame, Value
from kdsl.ir import loops as ir

MOST = 16  # a tile of more vectors is written in a loop
UNROLL = 8  # vectors in one turn of such a loop
Body = Callable[[Value, list[Value]], list[Value]]


class InnerLoops(Folds):
    """Adds loops."""

    def loop(
        self, name: str, start: Value, stop: Value, step: int, carried: Sequence[Value], body: Body, sure: bool
    ) -> list[Value]:
        """for i = start; i < stop (or i >= stop where step < 0); i += step. Returns the carried values.

        `sure`: runs at least once.
        """
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
            out += [
                f"  %t{n} = icmp {before} i64 {start.text}, {stop.text}",
                f"  br i1 %t{n}, label %loop{n}, label %exit{n}",
            ]
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

    # --- statements over large tiles --------------------------------------------------------------------------------------
    def fill_view(self, view: ir.View, tile: ir.Tile) -> None:
        """Write a tile to memory, in loops where it is large."""
        lane, width = len(tile.shape) - 1, self.width_of(tile.shape)

        def one(at: tuple[Position, ...]) -> None:
            value = self.natural_element(tile, at)
            self.store(view, at, lane, width, self.valid(tile.shape, at, lane, width), value)

        if not self.same_place(tile, view, tile.shape):  # what is read might be overwritten: all of it first
            everything = self.stored(tile)
            for at, value in everything.values.items():
                self.store(view, at, lane, width, self.valid(tile.shape, at, lane, width), value)
        elif sum(1 for _ in self.groups(tile.shape)) > MOST and self.walkable(tile, self.long_axes(tile.shape)):
            self.nest(tile.shape, (), one)
        else:
            for at in self.groups(tile.shape):
                one(at)

    def same_place(self, tile: ir.Tile, view: ir.View, shape: ir.TileShape) -> bool:
        """Whether each element may be written at once: the tile reads this memory at that element or not at all."""
        memory = ir.root(view.memory)
        seen: set[ir.Tile] = set()
        todo = [tile]
        while todo:
            t = todo.pop()
            if t in seen:  # tiles share what they are computed from
                continue
            seen.add(t)
            bound = self.named.get(t.name) if isinstance(t, ir.Name) else None
            if isinstance(t, ir.Load) and ir.root(t.view.memory) is memory:
                if not (t.view.memory is view.memory and t.view.index == view.index and t.shape == shape):
                    return False
            elif isinstance(t, (ir.Map, ir.Convert)):
                todo += ir.children(t)
            elif isinstance(bound, Owner) and bound.tile is not None:
                todo.append(bound.tile)
            elif bound is None and memory in memories(t, self.named):
                return False
        return True

    @staticmethod
    def long_axes(shape: ir.TileShape) -> frozenset[int]:
        return frozenset(k for k, n in enumerate(shape) if n > 1)

    def walkable(self, tile: ir.Tile, axes: frozenset[int]) -> bool:
        """Whether the tile can be computed at positions along these axes that only the loop knows."""
        axes &= self.long_axes(tile.shape)
        if not axes or isinstance(tile, (ir.Load, ir.Constant, ir.Scalar, ir.Index)):
            return True
        if isinstance(tile, (ir.Map, ir.Broadcast, ir.Gather)):
            n = len(tile.shape)
            return all(self.walkable(t, frozenset(k - (n - len(t.shape)) for k in axes)) for t in ir.children(tile))
        if isinstance(tile, ir.Permute):
            return self.walkable(tile.tile, frozenset(tile.axes[k] for k in axes))
        if isinstance(tile, (ir.Slice, ir.Convert, ir.Fold)):
            return self.walkable(tile.tile, axes)
        bound = self.named[tile.name] if isinstance(tile, ir.Name) else None
        return isinstance(bound, Owner) and bound.tile is not None and self.walkable(bound.tile, axes)

    def nest(self, shape: ir.TileShape, at: tuple[Position, ...], one: Callable[[tuple[Position, ...]], None]) -> None:
        """one(position) for every vector of a tile, in loops; about 8 vectors are written out in each body."""
        k = len(at)
        if k == len(shape):
            one(at)
            return
        step = self.width_of(shape) if k == len(shape) - 1 else 1
        inside = 1  # vectors of one position
        if k + 1 < len(shape):
            inside = -(-shape[-1] // self.width_of(shape))
            for n in shape[k + 1 : -1]:
                inside *= n
        full = shape[k] // step  # a last, partial vector is written out
        unroll = max(1, UNROLL // inside)
        looped = full // unroll * unroll if full > unroll else 0

        def body(index: Value, _: list[Value]) -> list[Value]:
            for u in range(unroll):
                self.nest(shape, (*at, self.add(index, self.number(u * step))), one)
            return []

        if looped:
            self.loop("e", self.number(0), self.number(looped * step), unroll * step, [], body, sure=True)
        for p in range(looped * step, shape[k], step):
            self.nest(shape, (*at, p), one)

    # --- long folds and dots ------------------------------------------------------------------------------------------------
    def dot(self, tile: ir.Dot) -> Stored:
        """A dot over a long k is a loop that carries the accumulator."""
        length = tile.a.shape[-1]
        along_a, along_b = frozenset({len(tile.a.shape) - 1}), frozenset({len(tile.b.shape) - 2})
        here = self.owner.place == self.depth
        if length <= MOST or not here or not (self.walkable(tile.a, along_a) and self.walkable(tile.b, along_b)):
            return super().dot(tile)
        out = self.stored(tile.accumulator)
        unroll = max(1, min(UNROLL, 8 * UNROLL // max(1, len(out.values))))
        looped = length // unroll * unroll

        def body(k: Value, carried: list[Value]) -> list[Value]:
            out.values = dict(zip(out.values, carried, strict=True))
            for u in range(unroll):
                self.dot_step(tile, out, self.add(k, self.number(u)))
            return list(out.values.values())

        final = self.loop("k", self.number(0), self.number(looped), unroll, list(out.values.values()), body, sure=True)
        out.values = dict(zip(out.values, final, strict=True))
        for k in range(looped, length):
            self.dot_step(tile, out, k)
        return out

    def fold(self, tile: ir.Fold, at: tuple[Position, ...], lane: int, width: int) -> Value:
        """A fold over many vectors is a loop that carries four accumulators."""
        inner, axis, dtype = tile.tile, tile.axis, tile.dtype.compute
        last_axis = axis == len(at) - 1 and lane < 0
        step = self.width_of(inner.shape) if last_axis else 1
        count = inner.shape[axis] // step
        here = self.owner.place == self.depth
        if (
            count <= 4 * MOST
            or not here
            or (axis == len(at) - 1 and not last_axis)
            or not self.walkable(inner, frozenset({axis}))
        ):
            return super().fold(tile, at, lane, width)
        lanes = step if last_axis else width
        looped = count // 4 * 4

        def part(p: Position) -> Value:
            return self.splat(
                self.element(inner, (*at[:axis], p, *at[axis + 1 :]), axis if last_axis else lane, lanes), lanes
            )

        def body(index: Value, carried: list[Value]) -> list[Value]:
            return [
                self.combine(tile.monoid, part(self.add(index, self.number(u * step))), c, dtype)
                for u, c in enumerate(carried)
            ]

        start = [self.splat(self.neutral(tile.monoid, dtype), lanes)] * 4
        parts = self.loop("f", self.number(0), self.number(looped * step), 4 * step, start, body, sure=True)
        for p in range(looped * step, inner.shape[axis], step):
            v, left = part(p), inner.shape[axis] - p
            if left < step:
                exists = self.integers([int(i < left) for i in range(step)], "i1")
                v = self.select(exists, v, self.splat(self.neutral(tile.monoid, dtype), step))
            parts.append(v)
        v = self.tree(tile.monoid, parts, dtype)
        return self.across(tile.monoid, v, dtype) if last_axis else v
