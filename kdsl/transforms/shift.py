"""How every value of a program answers when the elements of one value m are shifted: proves gradients zero.

In:  a Function and one of its values m.  Out: a degree for each value that depends on m:
    Degree("shift", k): m -> m + d makes it v + k*d        Degree("scale", k): it becomes v * exp(k*d)        None: anything else
Each element of m is shifted by a d of its own, so a degree also says on which axes of the value the axes of m lie (`places`): an
element answers to the d at its own place only. A sum along such an axis mixes several d, and a product of values that lie
differently has two: both are "anything else".
The maximum inside softmax: exp(x - m) has scale -1, its sum too, their quotient scale 0, so softmax does not depend on m and
the gradient through m is zero whatever m is.
Read before: ir/tensor.py. Read next: transforms/differentiate.py.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from kdsl.ir.ops import Op
from kdsl.ir.sizes import Extent
from kdsl.ir.tensor import Equation, Function, Operand, Shape, Value

Places = tuple[int, ...]  # for each axis of m that is longer than 1: the axis of the value on which it lies


class Degree(NamedTuple):
    kind: str  # "shift" | "scale"
    k: float


INVARIANT = Degree("shift", 0.0)
MOVES = frozenset({Op.BROADCAST, Op.PERMUTE, Op.RESHAPE, Op.SLICE, Op.WINDOW, Op.STOP_GRADIENT, Op.BARRIER})


def shift_degrees(function: Function, m: Value) -> dict[Value, Degree | None]:
    """The degree of every value that depends on m; what is not in the table does not depend on it."""
    degrees: dict[Value, Degree | None] = {m: Degree("shift", 1.0)}
    places: dict[Value, Places] = {m: tuple(i for i, n in enumerate(m.shape) if n != 1)}
    for e in function.equations:
        if e.result is m or not any(v in degrees for v in e.values):
            continue
        x = [degrees.get(o, INVARIANT) if isinstance(o, Value) else INVARIANT for o in e.operands]
        degree = _degree(e, x)
        if degree is not None and any(d != INVARIANT for d in x):
            where = {
                _places_of_result(e, i, places[o])
                for i, (o, d) in enumerate(zip(e.operands, x, strict=True))
                if isinstance(o, Value) and d != INVARIANT
            }
            place = where.pop()
            if where or place is None:
                degree = None
            else:
                places[e.result] = place
        degrees[e.result] = INVARIANT if degree is not None and degree.k == 0 else degree
    return degrees


def without_influence(function: Function, m: Value) -> bool:
    """Whether no result answers to a shift of m: the gradient through m is identically zero."""
    degrees = shift_degrees(function, m)
    return all(degrees.get(r, INVARIANT) == INVARIANT for r in function.results)


def _places_of_result(e: Equation, number: int, places: Places) -> Places | None:
    """Where the axes of m lie in the result, if they lie at `places` in operand `number`; None where elements of m meet."""
    operand = e.operands[number]
    assert isinstance(operand, Value)
    a = e.attributes
    if e.op is Op.BROADCAST:
        return tuple(a["axes"][i] for i in places)
    if e.op is Op.PERMUTE:
        return tuple(a["axes"].index(i) for i in places)
    if e.op is Op.RESHAPE:
        return _reshaped(places, operand.shape, e.result.shape)
    if e.op is Op.SLICE:
        whole = all(
            (a["starts"][i], a["steps"][i]) == (0, 1) and a["sizes"][i] == operand.shape[i] for i in places
        )
        return places if whole else None
    if e.op in (Op.WINDOW, Op.CONCAT):
        return None if a["axis"] in places else places
    if e.op in (Op.MAX, Op.MIN, Op.SUM):
        if set(a["axes"]) & set(places):
            return None
        kept = [i for i in range(len(operand.shape)) if i not in a["axes"]]
        return tuple(kept.index(i) for i in places)
    if e.op is Op.DOT:
        letters = [a["left" if number == 0 else "right"][i] for i in places]
        return tuple(a["out"].index(c) for c in letters) if set(letters) <= set(a["out"]) else None
    return places


def _reshaped(places: Places, before: Shape, after: Shape) -> Places | None:
    """The same axes after a reshape: those that keep their extent and the number of elements in front of them."""

    def fronts(shape: Shape) -> dict[tuple[Extent, Extent], int]:
        out: dict[tuple[Extent, Extent], int] = {}
        front: Extent = 1
        for i, n in enumerate(shape):
            if n != 1:
                out[front, n] = i
            front = front * n
        return out

    old = {i: key for key, i in fronts(before).items()}
    new = fronts(after)
    return tuple(new[old[i]] for i in places) if all(old[i] in new for i in places) else None


def _degree(e: Equation, x: list[Degree | None]) -> Degree | None:
    if all(d == INVARIANT for d in x):
        return INVARIANT
    if any(d is None for d in x):
        return None
    known = [d for d in x if d is not None]
    first = known[0]
    if e.op in MOVES or (e.op is Op.CAST and e.result.dtype.is_floating):
        return first
    if e.op in (Op.MAX, Op.MIN) or (e.op is Op.SUM and first.kind == "scale"):
        return first
    if e.op in (Op.MAXIMUM, Op.MINIMUM, Op.CONCAT):
        return first if len(set(known)) == 1 and all(isinstance(o, Value) for o in e.operands) else None
    if e.op in (Op.ADD, Op.SUB) and all(d.kind == "shift" for d in known):
        return Degree("shift", first.k + (known[1].k if e.op is Op.ADD else -known[1].k))
    if e.op in (Op.ADD, Op.SUB) and first == known[1] and all(isinstance(o, Value) for o in e.operands):
        return first
    if e.op in (Op.EXP, Op.EXP2) and first.kind == "shift":
        return Degree("scale", first.k if e.op is Op.EXP else first.k * math.log(2))
    if e.op is Op.LOG and first.kind == "scale":
        return Degree("shift", first.k)
    if e.op in (Op.EQ, Op.NE, Op.LT, Op.LE, Op.GT, Op.GE) and len(set(known)) == 1 and first.kind == "shift":
        return INVARIANT
    if e.op in (Op.MUL, Op.DOT, Op.DIV):
        return _product(e, known)
    if e.op is Op.WHERE and first == INVARIANT:
        return _choice(e.operands[1:], known[1:])
    return None


def _scale(d: Degree) -> float | None:
    return d.k if d.kind == "scale" else 0.0 if d == INVARIANT else None


def _product(e: Equation, x: list[Degree]) -> Degree | None:
    p, q = _scale(x[0]), _scale(x[1])
    if p is not None and q is not None:
        return Degree("scale", p - q if e.op is Op.DIV else p + q)
    factor = e.operands[1]
    if e.op is Op.MUL and not isinstance(factor, Value) and x[0].kind == "shift":
        return Degree("shift", x[0].k * factor)
    return None


def _choice(operands: tuple[Operand, ...], x: list[Degree]) -> Degree | None:
    """A literal side is neutral if it answers as the other side does: 0 to scaling, infinities to a shift."""
    scaled = any(d.kind == "scale" for d in x)
    kept = {
        d
        for d, o in zip(x, operands, strict=True)
        if isinstance(o, Value) or not (o == 0 if scaled else math.isinf(o))
    }
    return next(iter(kept)) if len(kept) == 1 else None
