"""Folds along a line: what is carried from tile to tile, how tiles join it, and what it gives at the end.

In:  a fold equation.  Out: carried tiles, and the statistic of each row.
A fold by a place (argmax) carries the best value and its place side by side. NaN counts as the best of all.
Read before: tiles.py. Read next: rows.py.
"""

from __future__ import annotations

import kdsl.dtypes as dt
from kdsl.ir import loops as ir
from kdsl.ir.ops import Op
from kdsl.ir.rules import identity
from kdsl.ir.tensor import Equation
from kdsl.schedule.positions import constant, spread_to

COMBINE = {
    Op.SUM: "add", Op.PROD: "mul", Op.MAX: "maximum", Op.MIN: "minimum", Op.ANY: "or", Op.ALL: "and",
    Op.ARGMAX: "maximum", Op.ARGMIN: "minimum",
}  # fmt: skip
MONOID = {Op.ARGMAX: "max", Op.ARGMIN: "min"}
PLACES = (Op.ARGMAX, Op.ARGMIN)
BEYOND = (1 << 62) - 1  # a place after all places


class LineFold:
    """One fold along the line. Its carried tiles: [value] or, for a place, [best value, its place]."""

    def __init__(self, equation: Equation) -> None:
        self.equation, self.op = equation, equation.op
        operand = equation.values[0]
        self.dtype = operand.dtype.compute
        self.start = identity(equation.op, operand.dtype)
        self.monoid = MONOID.get(self.op, self.op.value)

    def init(self, shape: ir.TileShape) -> list[ir.Tile]:
        best: list[ir.Tile] = [constant(self.start, self.dtype, shape)]
        return best if self.op not in PLACES else [*best, ir.Constant(BEYOND, dt.i64, shape)]

    def join(self, old: list[ir.Tile], new: list[ir.Tile]) -> list[ir.Tile]:
        """Carried tiles and those of a later part of the line."""
        if self.op not in PLACES:
            return [ir.Map(COMBINE[self.op], (old[0], new[0]), self.dtype)]
        (a, i), (b, j) = old, new
        later = ir.Map("gt" if self.op is Op.ARGMAX else "lt", (b, a), dt.bool_)
        if self.dtype.is_floating:
            first_nan = _and(ir.Map("is_nan", (b,), dt.bool_), ir.Map("not", (ir.Map("is_nan", (a,), dt.bool_),), dt.bool_))
            later = ir.Map("or", (later, first_nan), dt.bool_)
        none_yet = ir.Map("eq", (i, ir.Constant(BEYOND, dt.i64)), dt.bool_)
        later = ir.Map("or", (later, none_yet), dt.bool_)
        return [ir.Map("where", (later, b, a), self.dtype), ir.Map("where", (later, j, i), dt.i64)]

    def step(self, old: list[ir.Tile], value: ir.Tile, place: ir.Tile | None, shape: ir.TileShape) -> list[ir.Tile]:
        new = (
            [spread_to(value, shape)] if self.op not in PLACES else [spread_to(value, shape), spread_to(_required(place), shape)]
        )
        return self.join(old, new)

    def alone(self, value: ir.Tile, place: ir.Tile | None, shape: ir.TileShape) -> list[ir.Tile]:
        """A tile by itself as carried tiles."""
        return (
            [spread_to(value, shape)] if self.op not in PLACES else [spread_to(value, shape), spread_to(_required(place), shape)]
        )

    def collapse(self, carried: list[ir.Tile], axis: int) -> list[ir.Tile]:
        """Carried tiles folded along a tile axis: extent 1 remains."""
        if self.op not in PLACES:
            return [ir.Fold(self.monoid, carried[0], axis)]
        values, places = carried
        best = ir.Fold(self.monoid, values, axis)
        hit: ir.Tile = ir.Map("eq", (values, best), dt.bool_)
        if self.dtype.is_floating:
            both = _and(ir.Map("is_nan", (values,), dt.bool_), ir.Map("is_nan", (best,), dt.bool_))
            hit = ir.Map("or", (hit, both), dt.bool_)
        candidates = ir.Map("where", (hit, places, ir.Constant(BEYOND, dt.i64)), dt.i64)
        return [best, ir.Fold("min", candidates, axis)]

    def result(self, collapsed: list[ir.Tile]) -> ir.Tile:
        return collapsed[-1]


def _and(a: ir.Tile, b: ir.Tile) -> ir.Tile:
    return ir.Map("and", (a, b), dt.bool_)


def _required(tile: ir.Tile | None) -> ir.Tile:
    assert tile is not None
    return tile
