"""Groups of equations, and the judge who says what one kernel of them would be.

In:  a prepared Function.  Out: for any of its equations the plan of one kernel, or the reason why there is none.
A question that was asked before is not answered anew; a group keeps the letters of its equations, so that it can grow.
Read before: free.py, letters.py, plan.py. Read next: group.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kdsl.ir.frame import Illegal, Plan
from kdsl.ir.tensor import Equation, Function, Shape, Value
from kdsl.target import Target
from kdsl.transforms.cost import CACHE_BYTES, NEAR_BYTES
from kdsl.transforms.free import FreeValues
from kdsl.transforms.letters import HardLetters
from kdsl.transforms.plan import plan


@dataclass(eq=False)
class Group:
    """Equations of one kernel, without the free ones that it repeats."""

    number: int
    equations: list[Equation]
    plan: Plan | None  # made when it is first needed
    inputs: tuple[Value, ...]
    time: float
    reads: set[Equation] = field(default_factory=set)  # equations of other groups that it reads
    hard: HardLetters | None = None  # the letters of its plan's equations, before any is named after another


class Judge:
    """The equations of a program, what is free among them, and what has been planned of them."""

    def __init__(
        self,
        function: Function,
        results: tuple[Value, ...],
        target: Target,
        strides: Mapping[Value, Shape],
        stored: set[Equation],
    ) -> None:
        self.function, self.results, self.target, self.strides = function, results, target, strides
        self.order = {e: i for i, e in enumerate(function.equations)}
        near = NEAR_BYTES if target.kind == "cpu" else CACHE_BYTES
        self.free = FreeValues(function, results, strides, stored, near)
        self.memo: dict[frozenset[Equation], tuple[Plan | str, HardLetters | None]] = {}
        self.attempts = 0  # plans that were asked for

    def attempt(self, equations: list[Equation], *parts: Group) -> tuple[Plan | str, HardLetters | None]:
        """The plan of these equations with what they repeat, or why there is none; and their letters.

        `parts`: groups whose equations are among them, so that not all letters must be found again."""
        key = frozenset(equations)
        found = self.memo.get(key)
        if found is None:
            self.attempts += 1
            inside = set(equations)
            closed = sorted(self.free.close(inside), key=self.order.__getitem__)
            outputs = [e.result for e in sorted(inside, key=self.order.__getitem__) if self.free.is_read_outside(e, inside)]
            known = max((g.hard for g in parts if g.hard), key=lambda h: len(h.made), default=None)
            try:
                if len(equations) > 1 and not self.free.placed.isdisjoint(equations):
                    raise Illegal("parts that are written side by side, each by its own kernel")
                hard = (known.copy() if known else HardLetters()).add(closed)
                found = self.judge(closed, outputs, hard), hard
            except Illegal as reason:
                found = str(reason), None
            self.memo[key] = found
        return found

    def contiguous(self, v: Value) -> bool:
        return v not in self.strides

    def judge(self, equations: list[Equation], outputs: list[Value], hard: HardLetters) -> Plan:
        return plan(equations, outputs, self.function.name, self.contiguous, self.target, hard)
