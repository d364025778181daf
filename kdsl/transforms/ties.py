"""Ties: which axes of an equation's operands and result are one loop.

In:  an equation, a union-find with its axes.  Out: the union-find, with these axes made one.
Read before: union.py, ir/ops.py. Read next: letters.py.
"""

from __future__ import annotations

from functools import lru_cache

from kdsl.ir.ops import ELEMENTWISE, REDUCTIONS, Op
from kdsl.ir.tensor import Equation, Value
from kdsl.transforms.union import Node, Union

MOVING = frozenset({Op.SLICE, Op.PAD, Op.CONCAT, Op.WINDOW, Op.TAKE, Op.TAKE_ALONG})  # may read axes elsewhere
Nodes = tuple[Node, ...]  # of the axes of a value


def tie(union: Union, e: Equation, operands: list[Nodes], result: Nodes) -> None:
    """Make the axes one that the equation walks as one; Illegal where they do not fit."""
    if e.op is Op.DOT:
        by: dict[str, Node] = {}
        for names, nodes in (
            (e.attributes["left"], operands[0]),
            (e.attributes["right"], operands[1]),
            (e.attributes["out"], result),
        ):
            for name, node in zip(names, nodes, strict=True):
                union.tie(by.setdefault(name, node), node)
        return
    if e.op is Op.RESHAPE:
        union.unify(operands[0], result)
        return
    if e.op in (Op.SCATTER_ADD, Op.SCATTER_ALONG):
        _tie_scatter(union, e, operands, result)
        return
    for i, d, r in tied_axes(e):
        union.tie(operands[i][d], result[r])


def _tie_scatter(union: Union, e: Equation, operands: list[Nodes], result: Nodes) -> None:
    axis, (x, index, updates) = e.attributes["axis"], operands
    for a, b in zip(x, result, strict=True):
        union.tie(a, b)
    if e.op is Op.SCATTER_ADD:
        for d in range(len(result)):
            if d != axis:
                union.tie(updates[d if d < axis else d + len(index) - 1], result[d])
        for d, node in enumerate(index):
            union.tie(updates[axis + d], node)
        return
    for d, node in enumerate(index):
        union.tie(updates[d], node)
        if d != axis and union.extent[union.find(node)] == union.extent[union.find(result[d])]:
            union.tie(node, result[d])


@lru_cache(maxsize=8192)
def tied_axes(equation: Equation) -> list[tuple[int, int, int]]:
    """(operand, its axis, axis of the result) that are the same loop, for every op but DOT, RESHAPE and the scatters.

    Axes that are not listed are folded away, made anew, or read at other places than the loop's."""
    op, attributes, result = equation.op, equation.attributes, equation.result
    values = [(i, o) for i, o in enumerate(equation.operands) if isinstance(o, Value)]
    if op in ELEMENTWISE or op in (Op.BARRIER, Op.SORT, Op.ARGSORT):
        return [(i, d, d) for i, o in values for d in range(len(o.shape))]
    if op in REDUCTIONS:
        kept = [d for d in range(len(values[0][1].shape)) if d not in attributes["axes"]]
        return [(0, d, r) for r, d in enumerate(kept)]
    if op is Op.BROADCAST:
        return [(0, d, r) for d, r in enumerate(attributes["axes"]) if values[0][1].shape[d] == result.shape[r]]
    if op is Op.PERMUTE:
        return [(0, d, r) for r, d in enumerate(attributes["axes"])]
    if op is Op.SLICE:
        return [(0, d, d) for d in range(len(result.shape)) if not moves(equation, d)]
    if op is Op.PAD:
        return [(0, d, d) for d in range(len(result.shape)) if not moves(equation, d)]
    if op is Op.CONCAT:
        return [(i, d, d) for i, o in values for d in range(len(result.shape)) if d != attributes["axis"]]
    if op is Op.WINDOW:
        return [(0, d, d) for d in range(len(result.shape) - 1) if d != attributes["axis"]]
    if op is Op.TAKE:
        axis, n = attributes["axis"], len(values[1][1].shape)
        x = [(0, d, d if d < axis else d + n - 1) for d in range(len(values[0][1].shape)) if d != axis]
        return x + [(1, d, axis + d) for d in range(n)]
    if op is Op.TAKE_ALONG:
        n = len(result.shape)
        axis = attributes["axis"]
        x = [(0, d, d) for d in range(n) if d != axis and values[0][1].shape[d] == result.shape[d]]
        return x + [(1, d, d) for d in range(n)]
    if op is Op.SEARCHSORTED:
        return [(1, d, d) for d in range(len(result.shape))]
    return []


def moves(equation: Equation, axis: int) -> bool:
    """Does a SLICE or PAD read this axis at another place than its loop's?"""
    a = equation.attributes
    if equation.op is Op.SLICE:
        operand = equation.operands[0]
        assert isinstance(operand, Value)
        return a["starts"][axis] != 0 or a["steps"][axis] != 1 or a["sizes"][axis] != operand.shape[axis]
    return any(a[key][axis] != 0 for key in ("low", "high", "interior"))
