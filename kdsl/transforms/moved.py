"""What is read at other places than the loops': slices, pads, windows, gathers of values that one kernel makes itself.

In:  equations of one kernel.  Out: Illegal where a value cannot be computed again at another place.
Read before: ties.py. Read next: plan_rows.py, dot_facts.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from kdsl.ir.frame import Illegal
from kdsl.ir.ops import REDUCTIONS, Op
from kdsl.ir.tensor import Equation, Value
from kdsl.transforms.ties import moves, tied_axes


def moved_operand(e: Equation, operand: int) -> bool:
    """Is this operand read at other places than the loop's?"""
    if e.op in (Op.SLICE, Op.PAD):
        return any(moves(e, d) for d in range(len(e.result.shape)))
    if e.op in (Op.CONCAT, Op.WINDOW):
        return True
    return e.op in (Op.TAKE, Op.TAKE_ALONG) and operand == 0


def can_be_moved(e: Equation, made: Mapping[Value, Equation]) -> None:
    """A computed value that is read at other places is computed there again: only maps and movements can be."""
    for i, o in enumerate(e.operands):
        if not isinstance(o, Value) or o not in made or not moved_operand(e, i):
            continue
        tied = {d for j, d, _ in tied_axes(e) if j == i}
        for d, n in enumerate(o.shape):
            if d not in tied and n != 1:
                _movable(o, d, made)


def _movable(v: Value, axis: int, made: Mapping[Value, Equation]) -> None:
    e = made.get(v)
    if e is None:
        return
    if e.op in REDUCTIONS or e.op in (Op.DOT, Op.SORT, Op.ARGSORT, Op.SCATTER_ADD, Op.SCATTER_ALONG, Op.SEARCHSORTED):
        raise Illegal(f"{name_of(v)} ({e.op.value}) is read at other places than it is made at")
    if e.op is Op.RESHAPE:
        raise Illegal(f"{name_of(v)}, a reshape of a computed value, is read at other places than it is made at")
    for i, o in enumerate(e.operands):
        if not isinstance(o, Value):
            continue
        if e.op in (Op.TAKE, Op.TAKE_ALONG) and i == 0 and o in made:
            raise Illegal("a gather from a computed value is read at other places")
        ties = [d for j, d, r in tied_axes(e) if j == i and r == axis]
        if not ties and e.op in (Op.SLICE, Op.PAD, Op.CONCAT, Op.WINDOW):
            ties = [axis] if e.op is not Op.WINDOW or axis < len(o.shape) else [e.attributes["axis"]]
        for d in ties:
            _movable(o, d, made)


def name_of(v: Value) -> str:
    return f"%{v.name}" if v.name else f"a {v.type}"
