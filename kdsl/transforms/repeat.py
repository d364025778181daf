"""One array of indices for each use: so that arange(T)[:, None] >= arange(T)[None, :] may stand in one kernel.

In:  a Function.  Out: one in which what is made of sources alone (counts, constants of one number, arithmetic on them) and is
read twice is written once for each reader. A value has one place in a kernel; these cost nothing to compute again.

    i = iota(T); m = ge(i[:, None], i[None, :])      ->      i = iota(T); j = iota(T); m = ge(i[:, None], j[None, :])

Read before: transforms/letters.py. Read next: transforms/group.py.
"""

from __future__ import annotations

from dataclasses import replace

from kdsl.ir.ops import ELEMENTWISE, MOVEMENT, Op
from kdsl.ir.tensor import Equation, Function, Operand, Value

SOURCES = frozenset({Op.IOTA, Op.FULL, Op.SIZE})
LARGEST = 24  # equations of one copy


def repeat_sources(function: Function) -> Function:
    """Give each reader of source arithmetic a copy of its own."""
    made: dict[Value, Equation] = {}
    readers: dict[Value, int] = dict.fromkeys(function.results, 1)
    for e in function.equations:
        if e.op in SOURCES or (
            e.values and (e.op in MOVEMENT or e.op in ELEMENTWISE) and all(v in made for v in e.values)
        ):
            made[e.result] = e
        for o in e.operands:
            if isinstance(o, Value):
                readers[o] = readers.get(o, 0) + 1
    if not any(readers.get(v, 0) > 1 for v in made):
        return function
    kept = set(function.results)
    out: list[Equation] = []

    def copy(v: Value) -> Value:
        cone = _cone(v, made)
        if len(cone) > LARGEST or not any(readers[q.result] > 1 for q in cone):
            return v

        def again(x: Value) -> Value:
            q = made[x]
            fresh = Value(x.type, x.name)
            out.append(
                Equation(
                    fresh,
                    q.op,
                    tuple(again(o) if isinstance(o, Value) else o for o in q.operands),
                    q.attributes,
                    q.location,
                )
            )
            return fresh

        return again(v)

    for e in function.equations:
        own_row = e.op is Op.SCAN  # the equations of one scan share their operands; scan_steps.py copies them
        if own_row or (e.result in made and e.result not in kept):
            out.append(e)
            continue
        operands: list[Operand] = [copy(o) if isinstance(o, Value) and o in made else o for o in e.operands]
        out.append(e if operands == list(e.operands) else replace(e, operands=tuple(operands)))
    wanted, live = set(function.results), []
    for e in reversed(out):
        if e.result in wanted:
            live.append(e)
            wanted.update(e.values)
    return replace(function, equations=tuple(live[::-1]))


def _cone(v: Value, made: dict[Value, Equation]) -> list[Equation]:
    out: list[Equation] = []
    todo = [v]
    while todo and len(out) <= LARGEST:
        e = made[todo.pop()]
        out.append(e)
        todo += e.values
    return out
