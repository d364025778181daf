"""Passes over the line: in which one a value is known, and what waits from one for another.

In:  RowFacts with a line, the partial folds.  Out: the pass of every value; the values that are kept, and where.
There is one walk over the line for each fold that waits for another. A value known in an earlier pass is kept where its own op
is dear, else it is computed again from the inputs.
Read before: row_parts.py. Read next: plan_rows.py, schedule/one_row.py.
"""

from __future__ import annotations

from kdsl.ir.frame import flat
from kdsl.ir.ops import ELEMENTWISE, REDUCTIONS
from kdsl.ir.tensor import Equation, Operand, Value
from kdsl.transforms.cost import HEAVY, NEAR_BYTES, cost_of
from kdsl.transforms.moved import moved_operand
from kdsl.transforms.row_line import RowFacts


def passes_of(w: RowFacts, partial: list[Equation]) -> tuple[dict[Value, int], int]:
    when: dict[Value, int] = {}
    line = set(w.line)
    for e in w.equations:
        known = max((when.get(o, 0) for o in e.values), default=0)
        d = w.folds.get(e)
        when[e.result] = known + bool(d and line <= d)
    passes = 0
    for k, _ in _roots(w, partial, when):
        passes = max(passes, k + 1)
    return when, passes


def _roots(w: RowFacts, partial: list[Equation], when: dict[Value, int]) -> list[tuple[int, Operand]]:
    """(pass, line value wanted in it); folds over rows come in the last pass, where they share its loads."""
    line = set(w.line)
    known = lambda o: when.get(o, 0) if isinstance(o, Value) else 0  # noqa: E731
    roots = [(known(e.operands[0]), e.operands[0]) for e, d in w.folds.items() if d and line <= d]
    roots += [(when[v], v) for v in w.outputs if v not in {e.result for e in w.folds if w.folds[e]} and w.on_line(v)]
    columns = [e for e in partial if not line <= w.folds[e] and set(flat(w.letters.of(e, 0))) & line]
    if columns:
        last = max([k for k, _ in roots] + [known(e.operands[0]) for e in columns])
        roots += [(last, e.operands[0]) for e in columns]
    return roots


def kept_values(w: RowFacts, partial: list[Equation], when: dict[Value, int], passes: int) -> dict[Value, Value | None]:
    """Line values that wait for a later pass, each in the output that replaces it or (None) in near memory."""
    price: dict[Value, int] = {}

    def cost(o: Operand) -> int:
        if not isinstance(o, Value):
            return 0
        e = w.made.get(o)
        if e is None:
            return 1
        if o not in price:
            free = bool(w.folds.get(e)) or not w.on_line(o)
            price[o] = 0 if free else sum(map(cost, e.operands)) + cost_of(e.op)
        return price[o]

    def heavy(e: Equation) -> bool:
        dear = sum(isinstance(o, Value) and o in w.made and cost(o) > HEAVY for o in e.operands)
        return e.op in ELEMENTWISE and (cost_of(e.op) >= HEAVY or dear > 1)

    wanted: dict[Value, None] = {}
    seen: set[tuple[Value, int]] = set()

    def want(v: Operand, k: int) -> None:
        if not isinstance(v, Value) or v not in w.made or (v, k) in seen or not w.on_line(v):
            return
        seen.add((v, k))
        e = w.made[v]
        if when[v] < k and cost(v) > HEAVY + 2 and w.whole_line(v) and set(w.rows) <= set(flat(w.letters.values[v])) and heavy(e):
            wanted[v] = None
            return
        if w.folds.get(e):
            return
        for i, o in enumerate(e.operands):
            if not moved_operand(e, i):
                want(o, k)

    for k, v in _roots(w, partial, when):
        want(v, k)
    kept: dict[Value, Value | None] = {}
    taken: set[Value] = set()
    near = 0
    for v in wanted:
        home = next((o for o in w.outputs if o not in taken and _replaces(w, v, o, when, passes)), None)
        if home is not None:
            taken.add(home)
            kept[v] = home
            continue
        extent = 1
        for x in w.line:
            n = w.letters.size[x]
            extent = extent * n if isinstance(n, int) else 1 << 62
        size = extent * v.dtype.compute.bytes * (1 if w.lane in w.line else 32)
        if near + size <= NEAR_BYTES:
            near += size
            kept[v] = None
    return kept


def _replaces(w: RowFacts, v: Value, o: Value, when: dict[Value, int], passes: int) -> bool:
    """May v wait in the memory of output o, until o overwrites it in the last pass?"""
    if o.dtype is not v.dtype or o.dtype.compute is not o.dtype or w.made[o].op in REDUCTIONS:
        return False
    if w.letters.values[o] != w.letters.values[v] or o.shape != v.shape or when[o] != passes - 1 or v in w.outputs:
        return False
    seen, todo = set(), [o]
    while todo:
        x = todo.pop()
        if x is v:
            return True
        if x in w.made and x not in seen:
            seen.add(x)
            todo += w.made[x].values
    return False
