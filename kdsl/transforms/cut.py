"""Cuts: an index mask that makes positions of the line neutral bounds the walk along it.

In:  Facts of a strip, its row and line.  Out: a Cut, or None.

    where(row >= line, s, -inf) -> exp(. - max) -> sum, product        every position line > row adds exactly nothing

A position is masked where a predicate, affine in the row's and the line's index, is false. What each line value is there is
followed through the equations (-inf, 0 or unknown); the cut holds if every fold and product gets its neutral element.
Read before: transforms/dot_facts.py. Read next: schedule/chain.py.
"""

from __future__ import annotations

import math

from kdsl.ir.dot_frame import Cut
from kdsl.ir.frame import Letter, flat
from kdsl.ir.ops import REDUCTIONS, Op
from kdsl.ir.rules import identity
from kdsl.ir.sizes import Extent
from kdsl.ir.tensor import Equation, Operand, Value
from kdsl.transforms.dot_facts import RENAMES, Facts

Affine = tuple[int, int, Extent]  # factors of row and line, and the rest

FAR = 2**30  # an index with less added does not wrap in 32 bits


def find_cut(facts: Facts, row: Letter, line: Letter, consumers: list[Equation]) -> Cut | None:
    """The tightest bounds that the masks of this strip allow; `consumers`: the products that sum it."""
    behind = {e.result for e in consumers}
    for v in facts.outputs:
        if line in flat(facts.letters.values[v]) and not any(e.result in behind for e in facts.cone(v)):
            return None
    below: Extent | None = None
    above: Extent | None = None
    masks: list[tuple[Value, Extent | None, Extent | None]] = []
    for predicate in dict.fromkeys(e.operands[0] for e in facts.equations if e.op is Op.WHERE):
        if not isinstance(predicate, Value):
            continue
        parts, decided = _parts(facts, predicate, row, line)
        if decided and len({b is None for b, _ in parts}) == len(parts):  # at most one bound on either side
            masks.append(
                (
                    predicate,
                    next((b for b, _ in parts if b is not None), None),
                    next((a for _, a in parts if a is not None), None),
                )
            )
        if parts and _neutral(facts, predicate, line, consumers):
            for b, a in parts:
                below = b if below is None else below
                above = a if above is None else above
    return None if below is None and above is None else Cut(below, above, tuple(masks))


def _parts(
    facts: Facts, predicate: Value, row: Letter, line: Letter
) -> tuple[list[tuple[Extent | None, Extent | None]], bool]:
    """The bounds (below, above) of each comparison in a predicate, a conjunction; and whether they are all of it."""
    out: list[tuple[Extent | None, Extent | None]] = []
    decided = True
    todo: list[Operand] = [predicate]
    while todo:
        e = facts.made.get(todo.pop())  # type: ignore[arg-type]
        if e is not None and (e.op is Op.AND or e.op in RENAMES):
            todo += e.operands
            continue
        bounds = None if e is None else _bounds(facts, e, row, line)
        if bounds is None:
            decided = False
        else:
            out.append(bounds)
    return out, decided


def _bounds(facts: Facts, e: Equation, row: Letter, line: Letter) -> tuple[Extent | None, Extent | None] | None:
    """The bounds (below, above) of a comparison of the row's with the line's index; None for anything else."""
    if e.op not in (Op.LE, Op.LT, Op.GE, Op.GT):
        return None
    x, y = (_affine(facts, o, row, line) for o in e.operands)
    if x is None or y is None:
        return None
    if e.op in (Op.LE, Op.LT):
        x, y = y, x  # now x >= y, or x > y
    strict = int(e.op in (Op.LT, Op.GT))
    factors = x[0] - y[0], x[1] - y[1]
    rest = x[2] - y[2] - strict  # factor * row + factor * line + rest >= 0
    return (rest, None) if factors == (1, -1) else (None, rest) if factors == (-1, 1) else None


def _affine(facts: Facts, v: Operand, row: Letter, line: Letter) -> Affine | None:
    if not isinstance(v, Value):
        return (0, 0, v) if isinstance(v, int) and not isinstance(v, bool) and abs(v) < FAR else None
    e = facts.made.get(v)
    if e is None or v.dtype.kind != "signed" or v.dtype.bits < 32:  # narrow integers wrap within a line
        return None
    if e.op in RENAMES or e.op is Op.CAST:
        return _affine(facts, e.operands[0], row, line)
    if e.op is Op.SIZE or e.op is Op.FULL:
        value = e.attributes["value"]
        return (0, 0, value) if not isinstance(value, (bool, float)) else None
    if e.op is Op.IOTA:
        letters = facts.letters.values[v][e.attributes["axis"]]
        return (
            (1, 0, 0)
            if letters == (row,)
            else (0, 1, 0)
            if letters == (line,)
            else (0, 0, 0)
            if letters == ()
            else None
        )
    if e.op in (Op.ADD, Op.SUB):
        x, y = (_affine(facts, o, row, line) for o in e.operands)
        if x is None or y is None:
            return None
        s = 1 if e.op is Op.ADD else -1
        return x[0] + s * y[0], x[1] + s * y[1], x[2] + y[2] * s
    return None


def _neutral(facts: Facts, predicate: Value, line: Letter, consumers: list[Equation]) -> bool:
    """Where `predicate` is false, does every fold and product along the line get its neutral element?"""
    there: dict[Value, float] = {}

    def of(o: Operand) -> float | None:
        return there.get(o) if isinstance(o, Value) else float(o)

    for e in facts.equations:
        on_line = [o for o in e.values if o in there]
        if e.op in REDUCTIONS:
            if line in facts.of(e, 0) and of(e.operands[0]) != identity(e.op, e.result.dtype):
                return False
        elif e.op is Op.DOT:
            if e in consumers and not any(of(o) == 0 for o in e.operands):
                return False
        elif e.op is Op.WHERE and e.operands[0] is predicate:
            value = of(e.operands[2])
            if value is not None:
                there[e.result] = value
        elif on_line:
            value = through(e, of)
            if value is not None:
                there[e.result] = value
    return True


def through(e: Equation, of) -> float | None:  # type: ignore[no-untyped-def]
    """What an equation gives at a masked position, if that is -inf, inf or 0."""
    x = [of(o) for o in e.operands]
    if e.op in RENAMES or e.op is Op.CAST:
        return x[0]
    if e.op in (Op.EXP, Op.EXP2):
        return 0.0 if x[0] == -math.inf else None
    if e.op is Op.NEG:
        return -x[0]
    if e.op in (Op.ADD, Op.SUB):
        if x[0] is not None and math.isinf(x[0]):
            return x[0]
        if x[1] is not None and math.isinf(x[1]):
            return x[1] if e.op is Op.ADD else -x[1]
        return None
    if e.op is Op.MUL:
        if 0.0 in x:
            return 0.0
        literal = next((float(o) for o in e.operands if not isinstance(o, Value)), None)
        infinite = next(
            (v for o, v in zip(e.operands, x, strict=True) if isinstance(o, Value) and v is not None), None
        )
        return (
            math.copysign(math.inf, infinite * literal)
            if literal and infinite is not None and math.isinf(infinite)
            else None
        )
    if e.op is Op.DIV:
        return 0.0 if x[0] == 0.0 else None
    if e.op is Op.WHERE:
        return x[1] if x[1] is not None and x[1] == x[2] else None
    return None
