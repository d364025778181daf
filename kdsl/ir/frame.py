"""Plans: what one kernel computes and how it walks over its data. Records only: transforms/ decides, schedule/ carries out.

In:  nothing.  Out: the records between grouping (transforms/group.py) and the schedules (schedule/program.py).
Inside a plan every axis of every value is a tuple of *letters*, outermost first: () for an axis of extent 1, two letters for
an axis that a reshape made of two. A broadcast, a permutation and a reshape that splits or merges whole axes vanish into
letters; an axis that is read at other places than it is looped over (sliced, padded, windowed, gathered) has a letter of its
own there, which is nobody's loop. Two axes that are walked as one long axis have one letter: the first of them then has ()
although its extent is not 1, and the letter counts through both (`joined_axes`).
Read before: ir/tensor.py. Read next: transforms/letters.py, transforms/group.py, schedule/program.py.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kdsl.ir.sizes import Extent, ceildiv
from kdsl.ir.tensor import Equation, Function, Shape, Value

Letter = int
Axes = tuple[tuple[Letter, ...], ...]  # for each axis its letters


class Illegal(Exception):
    """These equations cannot share a kernel; the message says why, with numbers, in the words of explain()."""


@dataclass(frozen=True, eq=False)
class Letters:
    """The letters of the axes: one entry for a computed value, one for each *use* of an input (equation, operand number)."""

    values: dict[Value, Axes]
    uses: dict[tuple[Equation, int], Axes]
    size: dict[Letter, Extent]

    def of(self, equation: Equation, operand: int) -> Axes:
        """The letters of an operand where this equation reads it."""
        value = equation.operands[operand]
        found = self.values.get(value)  # type: ignore[arg-type]
        return self.uses[equation, operand] if found is None else found


@dataclass(eq=False)
class Plan:
    """What every kind of plan says. `equations` are in program order and may repeat cheap ones of other plans."""

    name: str
    equations: tuple[Equation, ...]
    inputs: tuple[Value, ...]  # values in memory that it reads
    outputs: tuple[Value, ...]  # values of its equations that it writes
    letters: Letters
    kind: str = "kernel"  # "kernel" | "packing" | "finisher"
    notes: tuple[str, ...] = ()
    bytes: Extent = 0  # inputs and outputs, each element once
    operations: Extent = 0  # elementary operations of one run
    work: float = 0.0  # the same with what is computed more than once and what ops cost, named sizes guessed
    parallel: int = 64  # about how many blocks can run side by side


@dataclass(frozen=True, eq=False)
class OnlineLine:
    """A line that is walked over fewer times than it has passes: while a maximum grows, sums that depend on it are scaled.

    `folds`: the walk of each fold; `when`: the first walk in which a value is final; `corrected`: for a sum, the maxima m of its
    own walk and k, where its terms answer to m -> m + d by the factor exp(k d)."""

    walks: int
    folds: dict[Equation, int]
    when: dict[Value, int]
    corrected: dict[Equation, tuple[tuple[Equation, float], ...]]


@dataclass(eq=False)
class RowPlan(Plan):
    """Maps and folds: rows in any order, and for each row some passes along the line.

    Parallel over blocks of the first row letter, streams over the others; then, for each row, `passes` walks over the line.
    A value is known in pass `when[value]` (line values) or before it (row values, which have no line letter)."""

    rows: tuple[Letter, ...] = ()  # letters of the outer loops, outermost first
    line: tuple[Letter, ...] = ()  # letters of the passes, innermost last; folds used inside drop exactly these
    lane: Letter | None = None  # the letter that lies along the vectors: the last of `line`, or the last of `rows`
    passes: int = 1
    when: dict[Value, int] = field(default_factory=dict)
    kept: dict[Value, Value | None] = field(default_factory=dict)  # line values that wait for a later pass: where (None: near)
    partial: dict[Equation, Value] = field(default_factory=dict)  # folds over rows or blocks of the line: the blocks' parts
    block_count: int = 1  # how many parts; 0 where the partial folds end in this kernel (partial[e] is then e.result)
    reduced: tuple[Letter, ...] = ()  # the row letters over which partial folds go: the last of `rows`
    online: OnlineLine | None = None  # how a GPU walks over a line that no tile holds, where that is less often


@dataclass(eq=False)
class ScatterPlan(Plan):
    """SCATTER_ADD or SCATTER_ALONG: owners of the other axes add the updates in order. Maps that feed it come along."""

    scatter: Equation | None = None


@dataclass(frozen=True, eq=False)
class Carried:
    """What goes from step to step, as values of a ScanPlan's `inner`: before a step (a BARRIER of its start), after it."""

    before: Value
    after: Value


@dataclass(frozen=True, eq=False)
class Move:
    """A nest of a step whose values lie in memory: compute `value`, put it `into` memory.

    `how`: "near": into's elements are value's | "scatter": value's updates are added to what lies in into
    | "stack": at the step's place along `axis` | "kept": a checkpoint | "states": at the step's place within its chunk"""

    value: Value
    into: Value
    how: str = "near"
    axis: int = 0


@dataclass(eq=False)
class Resident:
    """A scan whose values lie in memory between the statements of a step: nests in order, once or for each chunk or step.

    A nest may be a scan itself, one that each step runs. Loops are named after `number`: step_0 is the outermost scan's."""

    length: Extent = 0
    every: int = 1
    turned: bool = False  # step number j stands at position length - 1 - j
    number: int = 0
    begin: list[Move | Resident] = field(default_factory=list)
    chunk: list[Move | Resident] = field(default_factory=list)
    replay: list[Move | Resident] = field(default_factory=list)
    step: list[Move | Resident] = field(default_factory=list)
    end: list[Move | Resident] = field(default_factory=list)
    states: dict[Value, Value] = field(default_factory=dict)  # a state as a step reads it: a chunk of states
    near: set[Value] = field(default_factory=set)  # all that lies in near memory; said of the outermost scan

    def scans(self) -> Iterator[Resident]:
        """This scan and those within its steps."""
        yield self
        for m in self.parts():
            if isinstance(m, Resident):
                yield from m.scans()

    def moves(self) -> Iterator[Move]:
        """All nests, those of scans within steps too."""
        for m in self.parts():
            if isinstance(m, Resident):
                yield from m.moves()
            else:
                yield m

    def parts(self) -> Iterator[Move | Resident]:
        """The nests in order."""
        for part in (self.begin, self.chunk, self.replay, self.step, self.end):
            yield from part


@dataclass(eq=False)
class ScanPlan(Plan):
    """One scan with the maps that feed it. `inner` is its step written out between the equations around it: a slice is a
    TAKE at a named place.

    Parallel over `outer` and tiles of `lane`; `rows` is the letter of a tile's other axis, which is whole in it. With
    `lane` None the tile is one element.
    """

    inner: tuple[Equation, ...] = ()
    length: Extent = 0
    every: int = 1
    backward: bool = False  # steps are counted down
    turned: bool = False  # step number j stands at position length - 1 - j
    carries: tuple[Carried, ...] = ()
    replayed: tuple[Carried, ...] = ()
    ys: dict[Value, tuple[Value, int]] = field(default_factory=dict)  # a result: what each step gives, the axis of its stack
    last: dict[Value, int] = field(default_factory=dict)  # a result: the number of the carry that it is at the end
    kept: dict[Value, int] = field(default_factory=dict)  # a result: the number of the carry whose checkpoints it holds
    outer: tuple[Letter, ...] = ()
    lane: Letter | None = None
    rows: Letter | None = None
    width: int = 1
    row_tile: int = 0  # rows that a step takes at a time, its carries near; 0: all of them, its carries in registers
    together: int = 1  # tiles along the lane that one block takes, in turn or (GPU) in warps: its sums over the lane are one part
    again: dict[Value, Value] = field(default_factory=dict)  # values of a step that the replay made: those, kept near
    resident: Resident | None = None
    partial: dict[Equation, Value] = field(default_factory=dict)  # sums over loops that run side by side: the parts
    block_count: int = 1


@dataclass(eq=False)
class SortPlan(Plan):
    """SORT and ARGSORT of one operand along one axis. It has no letters: nothing is fused with a sort."""


@dataclass(eq=False)
class DotPlan(Plan):
    """Contractions with maps and row folds around and between them; transforms/plan_dots.py fills `frame` with its findings."""

    frame: Any = None


@dataclass(eq=False)
class Refusal:
    """Two groups that were not merged: their names, why, and the values that both make."""

    first: str
    second: str
    reason: str
    values: frozenset[Value] = frozenset()


@dataclass(eq=False)
class IndexCheck:
    """An index tensor whose values must lie in -extent … extent-1: its largest and least value are hidden results."""

    extent: Extent
    largest: Value
    least: Value
    location: Any = None


@dataclass(eq=False)
class Grouping:
    """A program as plans in launch order.

    `results` are the function's results (each a value that some plan writes, each once), then the values of `checks`.
    `aliases`: values that are the same memory as another value under another shape. `strides`: of parameters that are not
    C-contiguous, in elements. `arrays`: constants that plans read from memory, besides those that stand among their equations.
    `placed`: concatenations that need no kernel where their parts are written side by side."""

    function: Function
    plans: tuple[Plan, ...]
    results: tuple[Value, ...]
    aliases: dict[Value, Value] = field(default_factory=dict)
    refusals: tuple[Refusal, ...] = ()
    checks: tuple[IndexCheck, ...] = ()
    strides: Mapping[Value, Shape] = field(default_factory=dict)
    arrays: Mapping[Value, Any] = field(default_factory=dict)
    placed: frozenset[Equation] = frozenset()


def stacked_axes(m: Move, axes: Axes) -> tuple[tuple[Letter, ...] | None, ...]:
    """The letters of the axes of what a nest puts into memory, None for that along which steps are stacked."""
    if m.how not in ("stack", "kept", "states"):
        return axes
    place = m.axis if m.how == "stack" else 0
    return (*axes[:place], None, *axes[place:])


def stacked_shape(m: Move, scan: Resident) -> Shape:
    """The shape of what a nest of a scan puts into memory."""
    if m.how not in ("stack", "kept", "states"):
        return m.value.shape
    n = {"stack": scan.length, "kept": ceildiv(scan.length, scan.every), "states": scan.every}[m.how]
    place = m.axis if m.how == "stack" else 0
    return (*m.value.shape[:place], n, *m.value.shape[place:])


def joined_axes(axes: Axes, shape: Shape, size: Mapping[Letter, Extent]) -> list[tuple[list[int], tuple[Letter, ...]]]:
    """Which neighbouring axes are walked as one: (axis numbers, their letters) with one index for each entry."""
    out: list[tuple[list[int], tuple[Letter, ...]]] = []
    numbers: list[int] = []
    letters: tuple[Letter, ...] = ()
    elements: Extent = 1
    walked: Extent = 1
    for i, axis in enumerate(axes):
        numbers.append(i)
        letters += axis
        elements = elements * shape[i]
        for x in axis:
            walked = walked * size[x]
        if walked == elements:
            out.append((numbers, letters))
            numbers, letters, elements, walked = [], (), 1, 1
    assert not numbers, "the letters of a value do not cover its axes"
    return out


def within(axis: tuple[Letter, ...], n: Extent, loops: Container[Letter], size: Mapping[Letter, Extent]) -> Extent:
    """How many of the `n` elements of an axis stand at one place of `loops`: an axis may be walked by them in part."""
    if not any(x in loops for x in axis):
        return n
    out: Extent = 1
    for x in axis:
        out = out if x in loops else out * size[x]
    return out


def flat(axes: Axes) -> tuple[Letter, ...]:
    """All letters of a value, outermost first."""
    return tuple(x for axis in axes for x in axis)
