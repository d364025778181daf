"""Slices, windows, concatenations and gathers move through maps towards the inputs, where they are index maps of loads.

In:  a Function in core ops.  Out: a Function in which a view stands before the maps, if all that the maps read is in memory:

    slice(exp(x) * y)           ->  exp(slice(x)) * slice(y)            less is computed, and nothing is stored in between
    concat(exp(x), exp(y))      ->  exp(concat(x, y))
    take_along(x - total, i)    ->  take_along(x, i) - total            total is the same along the axis; i is no longer than it
A view stops at reductions, contractions, gathers and reshapes; a map that has other readers too is repeated only if it is
cheap, and the maps behind a contraction stay with it (they are done while its result is in registers).
Read before: transforms/rewrite.py, transforms/simplify_movement.py.
"""

from __future__ import annotations

from typing import Any

from kdsl.ir.ops import ELEMENTWISE, SOURCES, Op
from kdsl.ir.sizes import Extent, at_least
from kdsl.ir.tensor import Equation, Function, Operand, Value, users
from kdsl.transforms.prune import prune
from kdsl.transforms.rewrite import Simplifier

CHEAP = frozenset({
    Op.ADD, Op.SUB, Op.MUL, Op.NEG, Op.ABS, Op.MAXIMUM, Op.MINIMUM, Op.WHERE, Op.CAST, Op.AND, Op.OR, Op.XOR,
    Op.NOT, Op.EQ, Op.NE, Op.LT, Op.LE, Op.GT, Op.GE,
})  # fmt: skip
VIEWS = frozenset(
    {Op.SLICE, Op.WINDOW, Op.PERMUTE, Op.BROADCAST, Op.PAD, Op.CONCAT}
)  # of what is in memory: in memory


GATHERS = (Op.TAKE, Op.TAKE_ALONG)


def push_views(function: Function) -> Function:
    """The program with its views as far up as they go."""
    if not any(e.op in (Op.SLICE, Op.WINDOW, Op.CONCAT, *GATHERS) for e in function.equations):
        return function
    b = Pusher(function)
    results = b.replay(function, {p: p for p in function.parameters})
    made = tuple(b.as_value(r) for r in results)
    return prune(Function(function.name, function.parameters, tuple(b.equations), made, function.location))


class Pusher(Simplifier):
    """A Simplifier that emits the view of a map as the map of views."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        readers = users(function)
        self._shared = {v for v, equations in readers.items() if len(equations) > 1} | set(function.results)
        self._twins: set[Value] = set()  # values of the new program that stand for shared ones
        self._near: dict[Value, bool] = {}

    def replay(self, function: Function, environment: dict[Value, Operand]) -> list[Operand]:
        for e in function.equations:
            self.location = e.location
            x = [environment[o] if isinstance(o, Value) else o for o in e.operands]
            out = environment[e.result] = self.emit(e.op, *x, name=e.result.name, **e.attributes)
            if e.result in self._shared and isinstance(out, Value):
                self._twins.add(out)
        return [environment[r] for r in function.results]

    def emit(self, op: Op, *operands: Operand, name: str = "", **attributes: Any) -> Operand:
        if op in (Op.SLICE, Op.WINDOW):
            e = self.define(operands[0], *ELEMENTWISE)
            if e is not None and self._may_repeat(e, op) and self._in_memory(e.result):
                moved = [self.emit(op, o, **attributes) if isinstance(o, Value) else o for o in e.operands]
                return self.emit(e.op, *moved, **e.attributes)
        if op is Op.CONCAT:
            joined = self._joined(operands, attributes)
            if joined is not None:
                return joined
        if op in GATHERS:
            x, index = map(self.as_value, operands)
            if self._gathers(x, index, op, attributes["axis"]):
                return self._gathered(op, x, index, attributes["axis"])
        return super().emit(op, *operands, name=name, **attributes)

    def _may_repeat(self, e: Equation, view: Op) -> bool:
        return e.op in CHEAP or (e.result not in self._twins and view is Op.SLICE)

    def _in_memory(self, v: Value) -> bool:
        """Whether v is made by maps and views of inputs and sources alone."""
        known = self._near.get(v)
        if known is None:
            e = self.home.get(v)
            known = e is None or (
                e.op in ELEMENTWISE | SOURCES | VIEWS and all(self._in_memory(o) for o in e.values)
            )
            self._near[v] = known
        return known

    def _gathers(self, x: Value, index: Value, op: Op, axis: int) -> bool:
        """Whether the maps that make x are rather done with what is gathered: not more elements, all of them in memory."""
        if self.define(x, *ELEMENTWISE) is None or not at_least(x.shape[axis], _gathered_count(x, index, op, axis)):
            return False
        if op is Op.TAKE_ALONG and any(n != m for d, (n, m) in enumerate(zip(x.shape, index.shape, strict=True)) if d != axis):
            return False
        leaves = self._leaves(x, axis)
        return bool(leaves) and all(self._in_memory(v) for v in leaves)

    def _leaves(self, v: Value, axis: int) -> set[Value]:
        """What the maps that make v start from, but for what does not vary along the axis."""
        if self._same_along(v, axis):
            return set()
        e = self.define(v, *ELEMENTWISE)
        return {v} if e is None else {leaf for o in e.values for leaf in self._leaves(o, axis)}

    def _same_along(self, v: Value, axis: int) -> bool:
        e = self.define(v, Op.BROADCAST)
        return e is not None and axis not in e.attributes["axes"]

    def _gathered(self, op: Op, x: Value, index: Value, axis: int) -> Operand:
        e = self.define(x, *ELEMENTWISE, Op.BROADCAST)
        if e is not None and e.op is not Op.BROADCAST:
            moved = [self._gathered(op, o, index, axis) if isinstance(o, Value) else o for o in e.operands]
            return self.emit(e.op, *moved, **e.attributes)
        if e is None or not self._same_along(x, axis):
            return super().emit(op, x, index, axis=axis)
        shape = index.shape if op is Op.TAKE_ALONG else (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])
        more = 0 if op is Op.TAKE_ALONG else len(index.shape) - 1
        axes = tuple(d if d < axis else d + more for d in e.attributes["axes"])
        return self.emit(Op.BROADCAST, e.values[0], shape=shape, axes=axes)

    def _joined(self, parts: tuple[Operand, ...], attributes: dict[str, Any]) -> Operand | None:
        """concat(f(x), f(y)) -> f(concat(x, y))"""
        made = [self.define(p, *ELEMENTWISE) for p in parts]
        first = made[0]
        if len(parts) < 2 or first is None or not all(e is not None and self._fits(first, e) for e in made):
            return None
        columns = list(zip(*(e.operands for e in made if e is not None), strict=True))
        for column in columns:
            literals = [o for o in column if not isinstance(o, Value)]
            if literals and (len(literals) < len(column) or len({repr(o) for o in literals}) > 1):
                return None
        moved = [self.emit(Op.CONCAT, *c, **attributes) if isinstance(c[0], Value) else c[0] for c in columns]
        return self.emit(first.op, *moved, **first.attributes)

    def _fits(self, first: Equation, e: Equation) -> bool:
        same = e.op is first.op and e.attributes == first.attributes
        return same and e.result not in self._twins and self._in_memory(e.result)


def _gathered_count(x: Value, index: Value, op: Op, axis: int) -> Extent:
    """How many elements are taken for each element of the other axes."""
    return index.shape[axis] if op is Op.TAKE_ALONG else index.type.count
