"""Letters: which axes of which values are the same loop, by union-find over equations.

In:  equations.  Out: ir.frame.Letters, or Illegal.
Elementwise equations make the axes of operands and result equal; broadcasts, permutations and reshapes rename them; folds drop
some. What follows from the equations alone is *hard*; it is the same whatever comes with them, so that a group keeps it and
grows by adding equations. Two things are *soft*, each undone where it makes a clash (one value wanted at two places at once, as
in x @ x.T), and found anew for every set of equations:
    uses of one input are named alike, so that they can share loads;
    a dropped letter is a bound variable and may be named after any loop of its length.
Without the first, softmax is [a b] with a maximum over c: two kernels. Without the second some sums get a loop of their own.
An axis of extent 1 has no letter. An axis may be split in two when a reshape meets it: [12] against [3, 4] becomes two letters.
Read before: ir/frame.py, union.py, ties.py. Read next: joined_letters.py, row_line.py, plan_dots.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from kdsl.ir.frame import Illegal, Letters
from kdsl.ir.ops import REDUCTIONS, Op
from kdsl.ir.tensor import Equation, Value
from kdsl.transforms.joined_letters import joined_letters
from kdsl.transforms.ties import MOVING, Nodes, tie, tied_axes
from kdsl.transforms.union import Union


class HardLetters:
    """What some equations say about axes by themselves. Equations can be added in any order, also before what they read."""

    def __init__(self) -> None:
        self.union = Union()
        self.made: dict[Value, Nodes] = {}
        self.uses: dict[tuple[Equation, int], Nodes] = {}  # operands that no equation here makes
        self.readers: dict[Value, tuple[tuple[Equation, int], ...]] = {}  # their uses
        self.private: tuple[int, ...] = ()  # axes that are read at other places than a loop's: never the name of a loop
        self.rows = 0

    def copy(self) -> HardLetters:
        """The same, to go on from independently."""
        out = HardLetters()
        out.union, out.made, out.uses = self.union.copy(), self.made.copy(), self.uses.copy()
        out.readers, out.private, out.rows = self.readers.copy(), self.private, self.rows
        return out

    def add(self, equations: Iterable[Equation]) -> HardLetters:
        """Add those that are not here yet; Illegal where one value would be wanted at two places at once."""
        for e in equations:
            if e.result not in self.made:
                self._add(e)
        return self

    def _add(self, e: Equation) -> None:
        result = self.made[e.result] = self._row(e.result)
        for use in self.readers.pop(e.result, ()):
            for a, b in zip(self.uses.pop(use), result, strict=True):
                self.union.tie(a, b)
        if e.op is Op.SCAN:  # plan_scan.py writes its step out
            return
        operands: list[Nodes] = []
        for i, o in enumerate(e.operands):
            if not isinstance(o, Value):
                operands.append(())
                continue
            nodes = self.made.get(o)
            if nodes is None:
                nodes = self.uses[e, i] = self._row(o)
                self.readers[o] = (*self.readers.get(o, ()), (e, i))
            operands.append(nodes)
        tie(self.union, e, operands, result)
        if e.op in MOVING:
            tied = {(i, d) for i, d, _ in tied_axes(e)}
            self.private += tuple([n for i, nodes in enumerate(operands) for d, n in enumerate(nodes) if (i, d) not in tied])

    def _row(self, v: Value) -> Nodes:
        self.rows += 1
        return self.union.row(v.shape, 1 << self.rows)


def letters_of(
    equations: Sequence[Equation],
    contiguous: Callable[[Value], bool] | None = None,
    hard: HardLetters | None = None,
    stacked: Iterable[Value] = (),
) -> Letters:
    """The letters of all axes in these equations; Illegal where one value would be wanted at two places at once.

    `hard`: what is known of exactly these equations already. `stacked`: see joined_letters.py."""
    found = HardLetters().add(equations) if hard is None else hard.copy()
    union, made, uses = found.union, found.made, found.uses
    order = {e: i for i, e in enumerate(equations)}
    inputs = list(uses) if hard is None else sorted(uses, key=lambda use: (order[use[0]], use[1]))
    _name_uses_alike(found, inputs)
    _name_bound_letters(found, equations)
    axes = union.letters([*(made[e.result] for e in equations), *(uses[use] for use in inputs)])
    values = {e.result: t for e, t in zip(equations, axes, strict=False)}
    reads = dict(zip(inputs, axes[len(equations) :], strict=True))
    size = {x: union.extent[x] for t in axes for axis in t for x in axis}
    return joined_letters(equations, Letters(values, reads, size), contiguous or (lambda v: True), stacked)


def _name_uses_alike(h: HardLetters, inputs: Sequence[tuple[Equation, int]]) -> None:
    union = h.union
    apart = set(map(union.find, h.private))
    first: dict[tuple[Value, int], int] = {}  # the first use's name for each axis of an input
    for e, i in inputs:
        value = e.operands[i]
        assert isinstance(value, Value)
        nodes = h.uses[e, i]
        pairs = [(first.setdefault((value, d), n), n) for d, n in enumerate(nodes) if not apart or union.find(n) not in apart]
        mark = union.mark()
        try:
            for a, b in pairs:
                if a != b:
                    union.tie(a, b)
        except Illegal:
            union.undo(mark)


def _name_bound_letters(h: HardLetters, equations: Sequence[Equation]) -> None:
    union = h.union
    bound: list[int] = []
    for e in equations:
        if e.op in REDUCTIONS:
            source = h.made.get(e.operands[0]) or h.uses.get((e, 0)) or ()  # type: ignore[arg-type]
            bound += [source[a] for a in e.attributes["axes"]]
    if not bound:
        return
    apart = set(union.leaves(h.private))
    loops = [x for x in dict.fromkeys(union.leaves(n for e in equations for n in h.made[e.result])) if x not in apart]
    for a in union.leaves(bound):
        for b in loops:
            a, b = union.find(a), union.find(b)
            if a != b and union.extent[a] == union.extent[b] and not union.apart(a, b):
                union.tie(a, b)
                break
