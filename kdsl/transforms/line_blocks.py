"""A long line is walked in blocks: products that are folded at once are never stored (linear + cross-entropy).

In:  a Function in core ops, a target.  Out: one in which the line of such products is two axes, (block, place in the block).

    s = x @ w                   sj = x @ w[:, block j]                          for each j; a block stays near the core
    m = max(s)                  mj = max(sj)                m = max_j mj
    z = sum(exp(s - m))         zj = sum(exp(sj - mj))      z = sum_j zj * exp(mj - m)
    s[i, t[i]]                  sum_d x[i, d] * w[d, t[i]]

The parts have one element for each row and block. Where mj is -inf it counts as 0 inside the block, so that a block without
anything makes no NaN; a block that gives 0 adds 0; a row that is -inf throughout gives what it gives when it is whole.
Places beyond the end of the line, in the last block, count as nothing in every fold.
Read before: transforms/long_lines.py. Read next: transforms/group.py.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import kdsl.dtypes as dt
from kdsl.ir.ops import Op
from kdsl.ir.rules import Builder, identity
from kdsl.ir.sizes import Extent
from kdsl.ir.tensor import Equation, Function, Literal, Operand, Value
from kdsl.target import Target
from kdsl.transforms.cost import estimate
from kdsl.transforms.long_lines import LongLine, is_neutral, long_line
from kdsl.transforms.prune import prune

LEAST, MOST = 128, 1024  # positions of a block: folds end once in each, and every row tile walks over its part of w
STEP = 64  # blocks are whole vectors


def line_blocks(function: Function, target: Target) -> Function:
    """The program with its long lines in blocks."""
    for e in [e for e in function.equations if e.op is Op.DOT]:
        line = long_line(function, e, target)
        if line is not None:
            function = prune(_Blocks(function, line, target).function())
    return function


def block_length(line: LongLine, target: Target) -> int:
    """As long as the walked-over part of a block stays in the second cache; a whole number of blocks where one is near."""
    walked = line.product.values[line.operand]
    each = max(1, estimate(walked.type.count) // max(1, line.length)) * walked.dtype.compute.bytes
    most = max(LEAST, min(MOST, target.l2_bytes * 3 // 4 // each // STEP * STEP))
    even = [n for n in range(most, most // 2, -1) if line.length % n == 0 and n % 16 == 0]
    return even[0] if even else most


class _Blocks(Builder):
    """The program once more, with one line in blocks."""

    def __init__(self, function: Function, line: LongLine, target: Target) -> None:
        super().__init__()
        self.source, self.line = function, line
        self.length = block_length(line, target)
        self.count = -(-line.length // self.length)
        self.new: dict[Value, Value] = {}  # values of the program -> of the new one
        self.parts: dict[Value, Value] = {}  # early folds -> one value for each block
        self.blocked: dict[Value, Value] = {}  # line values and what follows a running extreme, in blocks
        self.padded = self.count * self.length != line.length
        self.neutral = self.padded and is_neutral(line)  # -inf beyond the end of the line counts as nothing in every fold

    def function(self) -> Function:
        line = self.line
        for e in self.source.equations:
            self.location = e.location
            if e in line.early:
                self.parts[e.result] = self.fold(e)
                self.new[e.result] = self.make(e.op, self.parts[e.result], axes=(line.axis,))
            elif e in line.late:
                self.new[e.result] = self.late(e, *line.late[e])
            elif e in line.gathers:
                self.new[e.result] = self.gathered(e.values[0], e.values[1])
            elif e.result not in line.values:
                operands = tuple(self.here(o) for o in e.operands)
                if operands == e.operands:
                    self.equations.append(e)
                else:
                    self.new[e.result] = self.make(e.op, *operands, name=e.result.name, **e.attributes)
        results = tuple(self.new.get(r, r) for r in self.source.results)
        return replace(self.source, equations=tuple(self.equations), results=results)

    def make(self, op: Op, *operands: Operand, **attributes: Any) -> Value:
        out = self.emit(op, *operands, **attributes)
        assert isinstance(out, Value)
        return out

    def here(self, o: Operand) -> Operand:
        return self.new.get(o, o) if isinstance(o, Value) else o

    # --- folds ---------------------------------------------------------------------------------------------------------
    def fold(self, e: Equation) -> Value:
        """One value for each block."""
        x = self.block(e.values[0])
        if self.padded and not self.neutral:
            x = self.on_line(x, identity(e.op, x.dtype))
        return self.make(e.op, x, axes=(self.line.axis + 1,))

    def on_line(self, x: Value, beyond: Literal) -> Value:
        """x, but `beyond` behind the end of the line."""
        place = self.make(Op.IOTA, shape=(self.length,), axis=0, dtype=dt.i64)
        block = self.make(Op.IOTA, shape=(self.count,), axis=0, dtype=dt.i64)
        left = self.make(Op.SUB, self.line.length, self.make(Op.MUL, block, self.length))  # of the line, from a block on
        sides = (self.make(Op.BROADCAST, v, shape=x.shape, axes=(self.line.axis + i,)) for i, v in ((1, place), (0, left)))
        return self.make(Op.WHERE, self.make(Op.LT, *sides), x, beyond, dtype=x.dtype)

    def late(self, e: Equation, r: Value, k: float) -> Value:
        """The sum over blocks, each scaled from its own running extreme to the whole line's."""
        axis, part = self.line.axis, self.fold(e)
        mine = self.block(r)
        whole = self.here(r)
        assert isinstance(whole, Value)
        whole = self.make(Op.BROADCAST, whole, shape=mine.shape, axes=tuple(range(axis)))
        distance = self.make(Op.SUB, whole, mine)
        factor = self.make(Op.EXP, distance if k == 1 else self.make(Op.MUL, distance, float(k)))
        nothing = self.make(Op.AND, self.make(Op.EQ, part, 0.0), self.make(Op.NE, whole, math.copysign(math.inf, k)))
        scaled = self.make(Op.WHERE, nothing, 0.0, self.make(Op.MUL, part, factor), dtype=part.dtype)
        return self.make(Op.SUM, scaled, axes=(axis,))

    # --- values in blocks ----------------------------------------------------------------------------------------------
    def block(self, v: Value) -> Value:
        """A line value, or what follows a running extreme, with an axis for the blocks."""
        found = self.blocked.get(v)
        if found is None:
            found = self.blocked[v] = self._block(v)
        return found

    def _block(self, v: Value) -> Value:
        line, e = self.line, self.line.made[v]
        if e is line.product:
            return self.product()
        if v in line.values:
            operands = (self.operand(o) if isinstance(o, Value) else o for o in e.operands)
            return self.make(e.op, *operands, name=v.name, **e.attributes)
        r = self.follow(v)
        k = next(k for source, k in line.late.values() if source is v)
        empty = self.make(Op.EQ, r, math.copysign(math.inf, k))
        return self.make(Op.WHERE, empty, 0.0, r, dtype=r.dtype)

    def follow(self, v: Value) -> Value:
        """What a row value is for one block."""
        if v in self.parts:
            return self.parts[v]
        e = self.line.made[v]
        return self.make(e.op, *(self.follow(o) if isinstance(o, Value) else o for o in e.operands), **e.attributes)

    def product(self) -> Value:
        e, line = self.line.product, self.line
        sides = [self.here(o) for o in e.operands]
        letters = [e.attributes["left"], e.attributes["right"]]
        name = letters[line.operand][line.place]
        both = f"{name}.block", name
        sides[line.operand] = self.in_blocks(sides[line.operand], line.place)  # type: ignore[arg-type]
        side = letters[line.operand]
        letters[line.operand] = (*side[: line.place], *both, *side[line.place + 1 :])
        out = (*e.attributes["out"][:-1], *both)
        product = self.make(Op.DOT, *sides, name=e.result.name, left=letters[0], right=letters[1], out=out)
        return self.on_line(product, -math.inf) if self.neutral else product

    def operand(self, v: Value) -> Value:
        """An operand of a map along the line."""
        if v in self.line.values:
            return self.block(v)
        e, axis = self.line.made[v], self.line.axis
        (x,), axes = e.values, e.attributes["axes"]
        shape: tuple[Extent, ...] = (*v.shape[:-1], self.count, self.length)
        if axes == (axis,):
            x = self.in_blocks(self.here(x), 0)  # type: ignore[arg-type]
            return self.make(Op.BROADCAST, x, shape=shape, axes=(axis, axis + 1))
        if any(x is r for r, _ in self.line.late.values()):
            return self.make(Op.BROADCAST, self.block(x), shape=shape, axes=tuple(range(axis + 1)))
        return self.make(Op.BROADCAST, self.here(x), shape=shape, axes=axes)

    def in_blocks(self, x: Value, axis: int) -> Value:
        """An axis of the line's length as two; zeros fill the last block."""
        more = self.count * self.length - self.line.length
        if more:
            none = (0,) * len(x.shape)
            high = tuple(more if d == axis else 0 for d in range(len(x.shape)))
            x = self.make(Op.PAD, x, low=none, high=high, interior=none, value=0)
        return self.make(Op.RESHAPE, x, shape=(*x.shape[:axis], self.count, self.length, *x.shape[axis + 1 :]))

    # --- gathers ---------------------------------------------------------------------------------------------------------
    def gathered(self, v: Value, index: Value) -> Value:
        """The elements of a line value at one place of the line for each row, computed from what is gathered."""
        line, shape = self.line, index.shape
        e = line.made[v]
        if e is line.product:
            return self.make(Op.RESHAPE, self.row_products(index), shape=shape)
        if v in line.values:
            operands = (self.gathered(o, index) if isinstance(o, Value) else o for o in e.operands)
            return self.make(e.op, *operands, **e.attributes)
        (x,), axes = e.values, e.attributes["axes"]
        x = self.here(x)  # type: ignore[assignment]
        if axes == (line.axis,):
            return self.make(Op.TAKE, x, index, axis=0)
        return self.make(Op.BROADCAST, x, shape=shape, axes=axes)

    def row_products(self, index: Value) -> Value:
        """sum_d x[i, d] * w[d, t[i]]"""
        line, e = self.line, self.line.product
        rows = e.attributes["out"][:-1]
        at = self.make(Op.RESHAPE, self.here(index), shape=index.shape[:-1])
        sides: list[Value] = []
        letters = [e.attributes["left"], e.attributes["right"]]
        summed = [c for c in letters[line.operand] if c != letters[line.operand][line.place]]
        order = (*rows, *summed)
        for i, o in enumerate(e.values):
            x = self.here(o)
            assert isinstance(x, Value)
            mine = letters[i]
            if i == line.operand:
                x = self.make(Op.TAKE, x, at, axis=line.place)
                mine = (*mine[: line.place], *rows, *mine[line.place + 1 :])
            places = tuple(mine.index(c) for c in order)
            sides.append(x if places == tuple(range(len(places))) else self.make(Op.PERMUTE, x, axes=places))
        product = self.make(Op.MUL, *sides)
        return self.make(Op.SUM, product, axes=tuple(range(len(rows), len(order)))) if summed else product


