"""Tiles that combine many elements: Fold, Prefix, Dot, Gather.

Orders are fixed: a Fold combines whole vectors first, neighbours pairwise, then halves of the lanes; a Dot adds its k one
after the other, all of the accumulator for one k before the next (the register-tiled micro-kernel).
Read before: tiles.py. Read next: kernel.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kdsl.codegen.llvm.memory import STORED, Position
from kdsl.codegen.llvm.operations import apply
from kdsl.codegen.llvm.tiles import Stored, Tiles
from kdsl.codegen.llvm.writer import TYPES, Value
from kdsl.dtypes import DType
from kdsl.ir import loops as ir
from kdsl.ir.ops import Op
from kdsl.ir.rules import identity

COMBINE = {"sum": "add", "prod": "mul", "max": "maximum", "min": "minimum", "any": "or", "all": "and"}


class Folds(Tiles):
    """Adds folds, prefixes, dots and gathers."""

    def combine(self, monoid: str, a: Value, b: Value, dtype: DType) -> Value:
        return apply(self, COMBINE[monoid], [a, b], dtype, [dtype, dtype])

    def neutral(self, monoid: str, dtype: DType) -> Value:
        if monoid == "sum" and dtype.is_floating:
            return self.constant(-0.0, dtype)  # keeps a sum of -0.0
        return self.constant(identity(Op(monoid), dtype), dtype)

    def fold(self, tile: ir.Fold, at: tuple[Position, ...], lane: int, width: int) -> Value:
        inner, axis, dtype = tile.tile, tile.axis, tile.dtype.compute
        n = inner.shape[axis]
        if n == 0:
            return self.constant(identity(Op(tile.monoid), dtype), dtype)
        if axis != len(at) - 1 or n == 1:
            parts = (self.element(inner, (*at[:axis], i, *at[axis + 1 :]), lane, width) for i in range(n))
            return self.tree(tile.monoid, parts, dtype)
        step = self.width_of(inner.shape)
        if lane >= 0:  # lanes along another axis: one element of the folded axis after the other
            return self.tree(tile.monoid, (self.element(inner, (*at[:-1], i), lane, width) for i in range(n)), dtype)
        parts = [self.splat(self.element(inner, (*at[:-1], i), axis, step), step) for i in range(0, n, step)]
        if n % step:
            exists = self.integers([int(i < n % step) for i in range(step)], "i1")
            parts[-1] = self.select(exists, parts[-1], self.splat(self.neutral(tile.monoid, dtype), step))
        return self.across(tile.monoid, self.tree(tile.monoid, parts, dtype), dtype)

    def tree(self, monoid: str, parts: Iterable[Value], dtype: DType) -> Value:
        """Neighbours pairwise, each pair as soon as it is there: few values wait for others."""
        waiting: list[tuple[int, Value]] = []  # how many parts, their combination
        for part in parts:
            self.add_part(monoid, waiting, part, dtype)
        return self.whole_tree(monoid, waiting, dtype)

    def add_part(self, monoid: str, waiting: list[tuple[int, Value]], part: Value, dtype: DType) -> None:
        """One part more."""
        count, value = 1, part
        while waiting and waiting[-1][0] == count:
            value = self.combine(monoid, waiting.pop()[1], value, dtype)
            count *= 2
        waiting.append((count, value))

    def whole_tree(self, monoid: str, waiting: list[tuple[int, Value]], dtype: DType) -> Value:
        """All parts combined."""
        value = waiting[-1][1]
        for _, before in reversed(waiting[:-1]):
            value = self.combine(monoid, before, value, dtype)
        return value

    def across(self, monoid: str, v: Value, dtype: DType) -> Value:
        """All lanes into one, by halves."""
        while v.width > 1:
            half = v.width // 2
            v = self.combine(
                monoid, self.shuffle(v, None, range(half)), self.shuffle(v, None, range(half, v.width)), dtype
            )
        return v

    def prefix(self, tile: ir.Prefix) -> Stored:
        inner, axis, dtype = tile.tile, tile.axis, tile.dtype.compute
        out = Stored(tile.shape, self.width_of(tile.shape), TYPES[dtype.name])
        final = axis == len(tile.shape) - 1
        for at in self.groups(tile.shape):
            v = self.splat(self.natural_element(inner, at), out.width)
            if final:
                distance = 1
                while distance < out.width:  # lanes below `distance` keep their own
                    moved = self.shuffle(v, v, [max(i - distance, 0) for i in range(out.width)])
                    keep = self.integers([int(i < distance) for i in range(out.width)], "i1")
                    v = self.select(keep, v, self.combine(tile.monoid, moved, v, dtype))
                    distance *= 2
                if at[-1]:
                    before = out.values[(*at[:-1], at[-1] - out.width)]
                    v = self.combine(tile.monoid, self.extract(before, out.width - 1), v, dtype)
            elif at[axis]:
                v = self.combine(tile.monoid, out.values[(*at[:axis], at[axis] - 1, *at[axis + 1 :])], v, dtype)
            out.values[at] = v
        return out

    def dot(self, tile: ir.Dot) -> Stored:
        """All of the accumulator for one k after the other: scalars of a, vectors of b."""
        out = self.stored(tile.accumulator)
        for k in range(tile.a.shape[-1]):
            self.dot_step(tile, out, k)
        return out

    def dot_step(self, tile: ir.Dot, out: Stored, k: Position) -> None:
        a, b, dtype = tile.a, tile.b, tile.dtype.compute
        ndim = len(tile.shape)
        for at in out.values:
            left = self.operand_at(a, (*at[:-1], k), ndim, -1, 1)
            right = self.operand_at(b, (*at[:-2], k, at[-1]), ndim, ndim - 1, out.width)
            left, right = (self.widened(v, dtype) for v in (left, right))
            out.values[at] = self.multiply_add(left, right, out.values[at], dtype)

    def operand_at(self, tile: ir.Tile, at: Sequence[Position], ndim: int, lane: int, width: int) -> Value:
        """An element of a dot's operand; leading axes broadcast, the last two are positions of its own."""
        skip = ndim - len(tile.shape)
        own = tuple(0 if n == 1 else p for n, p in zip(tile.shape, at[skip:], strict=True))
        return self.element(tile, own, lane - skip if lane >= 0 else -1, width)

    def widened(self, v: Value, dtype: DType) -> Value:
        return self.convert("fpext", v, "double") if dtype.name == "f64" else v

    def multiply_add(self, a: Value, b: Value, c: Value, dtype: DType) -> Value:
        if dtype.is_floating:
            return self.fma(a, b, c)
        return self.binary("add", self.binary("mul", a, b), c)

    def gather(self, tile: ir.Gather, at: tuple[Position, ...], lane: int, width: int) -> Value:
        """Elements at computed positions; where the mask is false nothing is read."""
        ndim, dtype = len(at), tile.memory.dtype
        type = STORED.get(dtype.name, TYPES[dtype.name])
        offset = self.number(0)
        for index, stride in zip(tile.indices, ir.strides(tile.memory), strict=True):
            i = self.operand(index, ndim, at, lane, width)
            i = self.convert("zext" if index.dtype.kind == "unsigned" else "sext", i, "i64")
            offset = self.binary("add", self.binary("mul", i, self.integer(stride)), offset)
        base = self.pointers[ir.root(tile.memory)]
        shared = ir.root(tile.memory) not in self.written
        fill = self.constant(tile.fill, dtype.compute)
        mask = None if tile.mask is None else self.operand(tile.mask, ndim, at, lane, width)
        width = max(offset.width, 1 if mask is None else mask.width)
        valid = self.valid(tile.shape, at, lane, width)
        if valid < width:
            exists = self.integers([int(i < valid) for i in range(width)], "i1")
            mask = exists if mask is None else self.binary("and", mask, exists)
        if width == 1:
            pointer = self.step(base, type, [offset])
            if mask is not None:
                pointer = self.select(mask, pointer, self.fill_block(tile.fill, dtype))
            line = f"load {type}, ptr {pointer.text}, align {dtype.bytes}"
            return self.from_memory(self.read(line, (pointer,), type, 1, shared), dtype)
        offset = self.splat(offset, width)
        pointers = self.pure(
            f"getelementptr {type}, ptr {base.text}, {offset.full} {offset.text}", (base, offset), "ptr", width
        )
        if mask is not None:
            mask = self.splat(mask, width)
        return self.gather_pointers(pointers, mask, dtype, fill, width, shared)
