"""Finishers: partial sums are added, in order, by a later kernel; by their only reader where that is legal.

In:  groups with their plans, in launch order.  Out: all plans in launch order.

    kernel      parts[b] = sum of the rows of block b              finisher    sum(parts); maps of such sums, all side by side

Read before: judge.py, row_parts.py. Read next: group.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from kdsl.ir.frame import Illegal, Plan, RowPlan, ScanPlan
from kdsl.ir.tensor import Equation, Shape, Value
from kdsl.transforms.cost import bytes_of, time_of
from kdsl.transforms.judge import Group, Judge
from kdsl.transforms.letters import HardLetters

FINISHER_ELEMENTS = 1024  # with so little work beside its sums a kernel still is a finisher


class Finishers:
    """The kernels behind those with partial sums."""

    def __init__(self, judge: Judge) -> None:
        self.judge, self.free, self.target, self.name = judge, judge.free, judge.target, judge.function.name

    def behind(self, ordered: list[Group]) -> list[Plan]:
        """Plans in launch order, with the finishers of partial sums."""
        finishers: dict[Value, Equation] = {}
        plans: list[Plan] = []
        for g in ordered:
            p = g.plan
            assert p is not None
            pending = [v for v in dict.fromkeys(self.root_values(p.inputs)) if v in finishers]
            if pending:
                alone = [v for v, f in finishers.items() if not self.free.readers_of(self.free.made[v])]  # nobody reads them here
                for more in (alone, []):
                    taken = [*pending, *(v for v in more if v not in pending)]
                    merged = self.with_finishers(p, g, [finishers[v] for v in taken])
                    if merged is not None:
                        break
                if merged is not None:
                    for v in taken:
                        finishers.pop(v)
                    plans.append(merged)
                    continue
                plans += self.finishing([finishers.pop(v) for v in pending])
            plans.append(p)
            finishers.update({e.result: e for e in adding(p)})
        plans += self.finishing(list(finishers.values()))
        for number, p in enumerate(plans):
            p.name = self.name if len(plans) == 1 else f"{self.name}_{number}"
        return plans

    def root_values(self, values: Iterable[Value]) -> list[Value]:
        return [self.free.root(v) for v in values]

    def with_finishers(self, p: Plan, g: Group, finishers: list[Equation]) -> Plan | None:
        """The only reader of partial sums adds them itself, where that is legal."""
        inside = set(g.equations)
        if not all(self.free.readers_of(self.free.made[f.result]) <= inside for f in finishers):
            return None
        written = [f.result for f in finishers if f.result in self.free.kept_results]
        closed = [e for e in p.equations]
        names = {f.result for f in finishers}
        if any(v not in names and self.free.root(v) in names for v in p.inputs):
            return None
        try:
            equations = [*finishers, *closed]
            merged = self.judge.judge(equations, [*p.outputs, *written], self.alike(equations, finishers))
        except Illegal:
            return None
        if time_of(merged, self.target) > time_of(p, self.target) + 2.0 or (isinstance(merged, RowPlan) and merged.partial):
            return None
        small = all(bytes_of(e.result.type) <= 8 * FINISHER_ELEMENTS for e in p.equations)
        return replace(merged, kind="finisher" if small else "kernel")

    def finishing(self, equations: list[Equation]) -> list[Plan]:
        """Finishers: those of equal shapes share a kernel, side by side."""
        alike: dict[tuple, list[Equation]] = {}
        for e in equations:
            alike.setdefault((e.values[0].shape, e.attributes["axes"]), []).append(e)
        plans: list[Plan] = []
        for group in alike.values():
            plans.append(replace(self.side_by_side(group), kind="finisher"))
            plans += self.finishing(adding(plans[-1]))  # so many parts that they are added in parts
        return plans

    def side_by_side(self, equations: list[Equation]) -> Plan:
        """One kernel for equations of equal shapes that have nothing in common."""
        return self.judge.judge(equations, [e.result for e in equations], self.alike(equations, equations))

    def alike(self, equations: list[Equation], finishers: list[Equation]) -> HardLetters:
        """The letters of these equations; finishers of parts of one shape, though they share nothing, walk as one."""
        hard = HardLetters().add(equations)
        first: dict[Shape, Equation] = {}
        for e in finishers:
            like = first.setdefault(e.values[0].shape, e)
            for a, b in zip(hard.uses[like, 0], hard.uses[e, 0], strict=True):
                hard.union.tie(a, b)
        return hard


def adding(p: Plan) -> list[Equation]:
    """The sums of the parts that a plan leaves."""
    if not isinstance(p, (RowPlan, ScanPlan)) or not p.block_count:
        return []
    return [Equation(e.result, e.op, (part,), {"axes": (0,)}, e.location) for e, part in p.partial.items()]
