"""Online walks: how often a GPU walks along the line of a strip, and which sums are corrected on the way.

A GPU keeps no strip of line values: each walk computes the products again, tile by tile, and adds up what it can.

    m = max(s);  p = exp(s - m);  l = sum(p);  o = p @ v        one walk: when m grows to n, l and o are scaled by exp(m - n)

A sum may be corrected for a maximum of its own walk if its terms answer to a shift d of the maximum by the factor exp(k d), k < 0
(transforms/shift.py), and are 0 where the maximum's operand is -inf (what was summed while the maximum was -inf is then 0).
Any other sum of values that need a fold's result waits for the next walk.
In:  Facts of a strip and its frame.  Out: the frame with its walks, or Illegal with numbers.
Read before: transforms/plan_strips.py, transforms/shift.py. Read next: schedule/gpu/chain.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kdsl.ir.dot_frame import DotFrame, LineWalk
from kdsl.ir.frame import Illegal, Letter, Letters, OnlineLine, flat
from kdsl.ir.ops import REDUCTIONS, Op
from kdsl.ir.tensor import Equation, Function, Operand, Value
from kdsl.transforms.cut import through
from kdsl.transforms.dot_facts import Facts
from kdsl.transforms.shift import shift_degrees

WIDEST = 256  # columns of the tiles that wait in registers while a line is walked over


def online_frame(facts: Facts, frame: DotFrame) -> DotFrame:
    """The frame of a strip as a GPU walks over it."""
    if frame.row is None:
        raise Illegal("a strip of one row, which is no tile for a GPU")
    width = 0
    for p in frame.products:
        if p.column != frame.line:
            n = 1 if p.column is None else facts.letters.size[p.column]
            if not isinstance(n, int):
                raise Illegal(f"{n} columns behind a strip, which would wait in registers")
            width += 1 << max(4, (n - 1).bit_length())
    if width > WIDEST:
        raise Illegal(f"{width} columns behind a strip would wait in registers ({WIDEST})")
    walks = _Walks(facts, frame).walks()
    consumers = any(p.column != frame.line for p in frame.products)
    if not consumers and any(v in facts.after for w in walks for v in w.stores):
        raise Illegal("a product that is stored and folded: larger tiles make it sooner than a walk along its columns")
    return replace(frame, walks=walks)


def online_line(
    equations: Sequence[Equation], letters: Letters, outputs: Sequence[Value], line: Letter
) -> OnlineLine | None:
    """How a line of maps and folds is walked over online; None where that corrects nothing."""
    found = _Walks(_Line(equations, letters, outputs), DotFrame((), None, (), line))
    count = len(found.walks())
    corrected = {e: c for e, c in found.corrected.items() if c}
    return OnlineLine(count, found.of_sum, found.ready, corrected) if corrected else None


@dataclass(frozen=True, eq=False)
class _Line:
    """What is asked about a kernel without products."""

    equations: Sequence[Equation]
    letters: Letters
    outputs: Sequence[Value]
    after: frozenset[Value] = frozenset()


class _Walks:
    """`of_sum`: the walk of each fold and consumer; `ready`: the first walk that may use the final value."""

    def __init__(self, facts: Facts | _Line, frame: DotFrame) -> None:
        self.facts, self.frame = facts, frame
        self.consumers = {p.equation for p in frame.products if p.column != frame.line}
        self.of_sum: dict[Equation, int] = {}
        self.ready: dict[Value, int] = {}
        self.behind: dict[Value, frozenset[Equation]] = {}  # the sums that a value is computed from
        self.corrected: dict[Equation, tuple[tuple[Equation, float], ...]] = {}
        self.degrees: dict[Equation, dict] = {}

    def walks(self) -> tuple[LineWalk, ...]:
        for e in self.facts.equations:
            sums = frozenset().union(*(self.behind.get(v, frozenset()) for v in e.values))
            ready = max((self.ready.get(v, 0) for v in e.values), default=0)
            if e in self.consumers or e.op in REDUCTIONS:
                walk = next(w for w in range(ready + 1) if self._may_walk(e, sums, w))
                self.of_sum[e] = walk
                late = [q for q in sums if self.of_sum[q] == walk]
                self.corrected[e] = tuple((q, k) for q in self._ordered(late) if (k := self._factor(e, q)))
                sums, ready = sums | {e}, walk + 1
            self.behind[e.result], self.ready[e.result] = sums, ready
        stores = [v for v in self.facts.outputs if self.frame.line in flat(self.facts.letters.values[v])]
        count = 1 + max([*self.of_sum.values(), *(self.ready[v] for v in stores)], default=0)
        return tuple(
            LineWalk(
                tuple(e for e, w in self.of_sum.items() if w == k),
                {e: c for e, c in self.corrected.items() if self.of_sum[e] == k and c},
                tuple(v for v in stores if self.ready[v] == k),
            )
            for k in range(count)
        )

    def _ordered(self, sums: list[Equation]) -> list[Equation]:
        return sorted(sums, key=self.facts.equations.index)

    def _may_walk(self, e: Equation, sums: frozenset[Equation], walk: int) -> bool:
        """Are all sums that e needs known in this walk, or correctable in it?"""
        late = [q for q in sums if self.of_sum[q] >= walk]
        return all(self.of_sum[q] == walk and self._factor(e, q) is not None for q in late)

    def _term(self, e: Equation) -> Value:
        """What a sum adds, or the operand of a consumer that is computed here."""
        if e not in self.consumers:
            (v,) = e.values
            return v
        return next(v for v in e.values if self.behind.get(v) or v in self.facts.after)

    def _factor(self, e: Equation, top: Equation) -> float | None:
        """k where the terms of e answer to a shift of the maximum `top` by exp(k d): 0 for not at all, None for otherwise."""
        if top.op is not Op.MAX or not top.result.dtype.is_floating or self.corrected.get(top):
            return None
        if top not in self.degrees:
            whole = Function("strip", (), self.facts.equations, ())  # type: ignore[arg-type]
            self.degrees[top] = shift_degrees(whole, top.result)
        term = self._term(e)
        if term not in self.degrees[top]:
            return 0.0
        degree = self.degrees[top][term]
        if degree is None or (degree.kind == "shift" and degree.k != 0):
            return None
        if degree.k == 0:
            return 0.0
        good = (e.op is Op.SUM or e in self.consumers) and degree.k < 0 and self._nothing_below(top, term)
        return degree.k if good else None

    def _nothing_below(self, top: Equation, term: Value) -> bool:
        """Is `term` 0 wherever the maximum's operand is -inf and the maximum is not?"""
        there: dict[Value, float] = {top.values[0]: -math.inf}

        def of(o: Operand) -> float | None:
            return there.get(o) if isinstance(o, Value) else float(o)

        for e in self.facts.equations:
            if e.result not in there and e.op not in REDUCTIONS and e.op is not Op.DOT and any(o in there for o in e.values):
                value = through(e, of)
                if value is not None:
                    there[e.result] = value
        return there.get(term) == 0.0
