"""Grouping: which equations share a kernel.

In:  an expanded Function, a target.  Out: ir.frame.Grouping: plans in launch order, and why not fewer.
Every equation starts as a group of its own and is merged, greedily, with the groups that it reads from and with those that
read the same arrays. A merge is legal if the planner returns a nest for it instead of a reason, if no third group lies
between, and if the modelled time does not grow. Movements, sources and masks made of them are *free*: every reader repeats
them, no kernel stores them. A fold over rows leaves partial sums, which a finisher adds in a later kernel.
Read before: judge.py, finishers.py. Read next: schedule/program.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kdsl.ir.frame import Grouping, Illegal, Plan, Refusal
from kdsl.ir.ops import ELEMENTWISE, REDUCTIONS, Op
from kdsl.ir.scans import Scan
from kdsl.ir.tensor import Equation, Function, Shape, Value
from kdsl.target import Target
from kdsl.transforms.cost import bytes_of, modelled_time, time_of, work_of
from kdsl.transforms.finishers import Finishers
from kdsl.transforms.judge import Group, Judge
from kdsl.transforms.letters import HardLetters
from kdsl.transforms.line_blocks import line_blocks
from kdsl.transforms.parallel_scans import parallel_scans
from kdsl.transforms.prepare import prepare
from kdsl.transforms.repeat import repeat_sources
from kdsl.transforms.views import CHEAP

PLANNED_AT_ONCE = (Op.DOT, Op.SCAN, Op.SCATTER_ADD, Op.SCATTER_ALONG)  # their plans may be refused by what feeds them
SHARED = 0.2  # siblings share at least this part of the smaller one's bytes


def group(function: Function, target: Target, strides: Mapping[Value, Shape] | None = None) -> Grouping:
    """The kernels of a program, in launch order."""
    ready = prepare(repeat_sources(parallel_scans(line_blocks(function, target), target)), strides or {})
    stored: set[Equation] = set()
    while True:
        work = _Grouper(ready.function, ready.written, target, strides or {}, stored)
        try:
            work.grow()
            break
        except _Stored as given_up:  # kernels planned so far repeat it: plan again without
            stored |= given_up.equations
    plans = Finishers(work).behind(work.sorted_groups())
    aliases = dict(work.free.aliases(ready.written))
    for v, base in zip(ready.results, ready.written, strict=True):
        if v is not base:
            del aliases[v]
            aliases[base] = v
    refusals, arrays = tuple(work.refusals), {e.result: e.attributes["array"] for e in work.free.lying}
    given, placed = dict(strides or {}), work.free.placed
    return Grouping(function, tuple(plans), ready.results, aliases, refusals, ready.checks, given, arrays, placed)


class _Stored(Exception):
    """Virtual equations that some reader cannot repeat."""

    def __init__(self, equations: set[Equation]) -> None:
        self.equations = equations


class _Grouper(Judge):
    """Groups as they grow."""

    def __init__(
        self,
        function: Function,
        results: tuple[Value, ...],
        target: Target,
        strides: Mapping[Value, Shape],
        stored: set[Equation],
    ) -> None:
        super().__init__(function, results, target, strides, stored)
        self.home: dict[Equation, Group] = {}
        self.groups: list[Group] = []
        self.refusals: list[Refusal] = []
        self.counter = 0

    # --- growing ---------------------------------------------------------------------------------------------------------
    def grow(self) -> None:
        for members in self.chains():
            if members[-1].op in PLANNED_AT_ONCE:
                self.place(*members)
            else:
                g = self.new(None, members)
                self.merge_around(g, [*self.producers(g), *self.siblings(g)])
        self.settle()
        for g in list(self.groups):  # groups may have become mergeable through later members
            if g in self.groups:
                self.merge_around(g, self.producers(g))

    def chains(self) -> list[list[Equation]]:
        """Maps with the only reader of each, which may be a fold: they share a kernel whatever else happens."""
        chain: dict[Equation, list[Equation]] = {}
        scans: dict[tuple, Equation] = {}
        for e in self.function.equations:
            if self.free.is_free(e):
                continue
            if e.op is Op.SCAN:  # the equations of one scan stand where the first does
                first = scans.setdefault(Scan(e).key, e)
                chain.setdefault(first, []).append(e)
                continue
            chain[e] = [e]
            if e.op not in ELEMENTWISE and e.op not in REDUCTIONS:
                continue
            for v in dict.fromkeys(e.values):
                q, moved = self.behind_moves(v)
                if (
                    q in chain
                    and q.op in ELEMENTWISE
                    and (not moved or q.op in CHEAP)
                    and self.free.readers_of(q) == {e}
                    and not self.free.is_read_outside(q, {e})
                ):
                    chain[e] += chain.pop(q)
        return [sorted(members, key=self.order.__getitem__) for members in chain.values()]

    def behind_moves(self, v: Value) -> tuple[Equation | None, bool]:
        """What makes v but for slices and pads, and whether there are any: a reader makes it where it reads it."""
        q, moved = self.free.made.get(v), False
        while q is not None and q.op in (Op.SLICE, Op.PAD) and self.free.is_free(q):
            q, moved = self.free.made.get(q.values[0]), True
        return q, moved

    def settle(self) -> None:
        """Plan the groups that nothing was merged with."""
        for g in list(self.groups):
            if not self.plan_alone(g):
                self.groups.remove(g)
                for e in g.equations:
                    self.place(e)

    def plan_alone(self, g: Group) -> bool:
        """Plan a group that nothing was merged with; whether there is a plan."""
        if g.plan is None:
            found, g.hard = self.attempt(g.equations)
            if isinstance(found, str):
                return False
            g.plan, g.time = found, time_of(found, self.target)
        return True

    def place(self, *members: Equation) -> None:
        e, members_list = members[-1], list(members)
        found, hard = self.attempt(members_list)
        while isinstance(found, str):
            stored = self.free.store_operands(e)
            if not stored:
                raise Illegal(f"{e.op.value} by itself: {found}")
            if given_up := self.free.virtual & set(stored):
                raise _Stored(given_up)
            self.memo.clear()
            for g in set(self.home.values()):  # who repeated them reads them from now on
                g.reads, g.hard = self.read_by(g.equations), None
            for q in stored:
                if q.op is not Op.CONSTANT:
                    self.place(q)
            found, hard = self.attempt(members_list)
        g = self.new(found, members_list, hard)
        self.merge_around(g, [*self.producers(g), *self.siblings(g)])

    def new(self, p: Plan | None, equations: list[Equation], hard: HardLetters | None = None) -> Group:
        if p is None:
            closed = self.free.close(set(equations))
            made = {e.result for e in closed}
            inputs = tuple(dict.fromkeys(v for e in closed for v in e.values if v not in made))
            moved = sum(bytes_of(v.type) for v in (*inputs, equations[-1].result))
            time = modelled_time(moved, sum(map(work_of, closed)), self.target.units, self.target)
            g = Group(self.counter, equations, None, inputs, time)
        else:
            g = Group(self.counter, equations, p, p.inputs, time_of(p, self.target), hard=hard)
        self.counter += 1
        for e in equations:
            self.home[e] = g
        g.reads = self.read_by(equations)
        self.groups.append(g)
        return g

    def read_by(self, equations: Sequence[Equation]) -> set[Equation]:
        """The equations of other groups that these read."""
        inside = set(equations)
        return {q for e in equations for q in self.free.sources(e) if q not in inside}

    def producers(self, g: Group) -> list[Group]:
        """The groups that it reads from, those with most bytes first."""
        found: dict[Group, int] = {}
        for e in sorted(g.reads, key=self.order.__getitem__):
            q = self.home.get(e)
            if q is not None and q is not g:
                found[q] = found.get(q, 0) + bytes_of(e.result.type)
        return sorted(found, key=lambda q: -found[q])

    def siblings(self, g: Group) -> list[Group]:
        """Groups that read the same arrays, those with most bytes in common first."""
        mine = {v: bytes_of(v.type) for v in g.inputs}
        total = sum(mine.values())
        found = []
        for q in self.groups:
            if q is g:
                continue
            common = sum(mine.get(v, 0) for v in q.inputs)
            other = sum(bytes_of(v.type) for v in q.inputs)
            if common and common >= SHARED * min(total, other):
                found.append((common, q))
        return [q for _, q in sorted(found, key=lambda x: -x[0])]

    def merge_around(self, g: Group, others: list[Group]) -> None:
        for q in others:
            if q is g or q not in self.groups or g not in self.groups:
                continue
            merged = self.merge(q, g)
            if merged is not None:
                g = merged

    def merge(self, a: Group, b: Group) -> Group | None:
        if self.between(a, b) or self.between(b, a):
            return None
        found, hard = self.attempt(a.equations + b.equations, a, b)
        if not isinstance(found, str):
            time = time_of(found, self.target)
            if time > a.time + b.time:  # what was guessed of them is asked before it decides
                self.plan_alone(a)
                self.plan_alone(b)
            if time > a.time + b.time:
                found = f"one kernel would take {time:.1f} us, two take {a.time + b.time:.1f} us"
        if isinstance(found, str):
            made = frozenset(e.result for e in (*a.equations, *b.equations))
            self.refusals.append(Refusal(_title(a), _title(b), found, made))
            return None
        self.groups.remove(a)
        self.groups.remove(b)
        return self.new(found, sorted(a.equations + b.equations, key=self.order.__getitem__), hard)

    def between(self, a: Group, b: Group) -> bool:
        """Is there a path from a to b through a third group?"""
        todo = [g for g in self.groups_read(b) if g is not a and g is not b]
        seen: set[Group] = {a, b}
        while todo:
            g = todo.pop()
            if g in seen:
                continue
            seen.add(g)
            for h in self.groups_read(g):
                if h is a:
                    return True
                if h not in seen:
                    todo.append(h)
        return False

    def groups_read(self, g: Group) -> list[Group]:
        """The groups whose values it reads; an equation that has no group yet stands for those that it reads."""
        found: dict[Group, None] = {}
        todo = list(g.reads)
        while todo:
            q = todo.pop()
            h = self.home.get(q)
            if h is None:
                todo += self.free.sources(q)
            else:
                found[h] = None
        return list(found)

    def sorted_groups(self) -> list[Group]:
        out: list[Group] = []
        done: set[Group] = set()

        def visit(g: Group) -> None:
            stack = [(g, iter(sorted(g.reads, key=self.order.__getitem__)))]
            done.add(g)
            while stack:
                top, reads = stack[-1]
                for q in reads:
                    h = self.home.get(q)
                    if h is not None and h not in done:
                        done.add(h)
                        stack.append((h, iter(sorted(h.reads, key=self.order.__getitem__))))
                        break
                else:
                    out.append(top)
                    stack.pop()

        for g in sorted(self.groups, key=lambda g: self.order[g.equations[0]]):
            if g not in done:
                visit(g)
        return out


def _title(g: Group) -> str:
    """A group in a few words."""
    last = g.equations[-1]
    ops = ", ".join(dict.fromkeys(e.op.value for e in g.equations if e.op is not Op.CAST))
    return f"%{last.result.name or last.op.value} ({ops})"
