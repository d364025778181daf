"""Scans: what the attributes of a SCAN equation mean, and how one is made.

A step runs along an axis, one position after the other, and hands its carry on:

    carry, y[t] = step(carry, x[t])                      kd.scan
A SCAN equation gives one result of a scan, number `index`; the equations of one scan share `step` and operands.

    operands    carries before the first step | states | xs | closures (tensors that every step sees whole)
    step        a Function: carries, states, xs without their axis, closures  ->  carries, ys
    results     carries after the last step | ys, stacked along an axis each | checkpoints: the carries before every
                `every`-th step, stacked in front, those of f16 and bf16 in f32 (what a gradient starts from to make the
                states between again)
    attributes  step; carries: how many; axes of xs; out_axes of ys; length; reverse: from the last position to the first;
                every; index; replay: None, or for a gradient a Function (states, xs, closures) -> states: the step of the
                scan whose gradient this is. It runs in the other direction, from the checkpoints that are the operands
                `states`, and gives this scan's step the states before each of its own. combine, of an associative scan as
                it was traced: a Function of the step's parameters, what the carries are after a step that is not the first;
                a step whose first slice is True gives its other slices (transforms/associative_scans.py takes it away)
Read before: ir/tensor.py. Read next: ir/meaning.py, transforms/derivatives_scan.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kdsl.ir.sizes import Extent, ceildiv
from kdsl.ir.tensor import Equation, Function, Operand, Shape, TensorType, Value

FEWEST, MOST = 8, 32  # steps between checkpoints
NAMED = 32  # the same where the length is a name


class Scan:
    """The attributes of one SCAN equation by name, and its operands in their parts."""

    def __init__(self, e: Equation) -> None:
        a = e.attributes
        self.equation = e
        self.step: Function = a["step"]
        self.replay: Function | None = a["replay"]
        self.carries: int = a["carries"]
        self.axes: tuple[int, ...] = a["axes"]
        self.out_axes: tuple[int, ...] = a["out_axes"]
        self.length: Extent = a["length"]
        self.reverse: bool = a["reverse"]
        self.every: int = a["every"]
        self.index: int = a["index"]
        self.parts = parts(a)
        self.init, self.states, self.xs, self.closures = (e.values[part] for part in self.parts)

    def parameters(self, f: Function | None = None) -> tuple[tuple[Value, ...], ...]:
        """The parameters of the step as carries, states, xs, closures."""
        p = self.step.parameters
        return tuple(p[part] for part in self.parts)

    @property
    def ys(self) -> tuple[Value, ...]:
        """What the step gives besides the carries."""
        return self.step.results[self.carries :]

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for the equations of one scan."""
        return self.step, self.replay, self.equation.operands


def parts(a: dict[str, Any]) -> tuple[slice, slice, slice, slice]:
    """Where carries, states, xs and closures stand among the operands, and among the parameters of the step."""
    states = a["carries"] + (len(a["replay"].results) if a["replay"] else 0)
    xs = states + len(a["axes"])
    return slice(0, a["carries"]), slice(a["carries"], states), slice(states, xs), slice(xs, None)


def scan_result(a: dict[str, Any]) -> TensorType:
    """The type of result number `index`."""
    step, carries, index = a["step"], a["carries"], a["index"]
    if index < carries:
        return step.results[index].type
    if index < len(step.results):
        v, axis = step.results[index], a["out_axes"][index - carries]
        return TensorType(v.dtype, (*v.shape[:axis], a["length"], *v.shape[axis:]))
    v = step.results[index - len(step.results)]
    return TensorType(v.dtype.compute, (ceildiv(a["length"], a["every"]), *v.shape))


def scan_mistake(e: Equation) -> str | None:
    """What is wrong with a SCAN equation."""
    s, p = Scan(e), Scan(e).parameters()
    if len(e.values) != len(s.step.parameters) or len(s.out_axes) != len(s.ys):
        return "operands and results are not the step's"
    types = [v.type for v in p[0]]
    if [v.type for v in s.init] != types or [v.type for v in s.step.results[: s.carries]] != types:
        return "the carry changes its type"
    steps = ceildiv(s.length, s.every)
    for v, q in zip(s.states, p[1], strict=True):
        if v.type != TensorType(q.dtype.compute, (steps, *q.shape)):
            return "checkpoints and states do not fit"
    for v, q, axis in zip(s.xs, p[2], s.axes, strict=True):
        if v.type != TensorType(q.dtype, (*q.shape[:axis], s.length, *q.shape[axis:])):
            return "a step does not take a slice of its operand"
    if [v.type for v in s.closures] != [v.type for v in p[3]]:
        return "a closure changes its type"
    if s.replay is not None:
        if [v.type for v in s.replay.parameters] != [v.type for part in p[1:] for v in part]:
            return "a replayed step takes other operands"
        if [v.type for v in s.replay.results] != [v.type for v in p[1]]:
            return "a replayed step gives other states"
    return None if s.every > 0 else "checkpoints at no distance"


def distance(length: Extent) -> int:
    """How many steps lie between two checkpoints: about the square root of the length, so that both sides are small."""
    if not isinstance(length, int):
        return NAMED
    every = FEWEST
    while every < MOST and every * every < length:
        every *= 2
    return every


def scan_attributes(
    step: Function, carries: int, axes: Sequence[int], out_axes: Sequence[int], length: Extent, reverse: bool,
    replay: Function | None = None, every: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """All attributes of a scan but `index`."""
    return {
        "step": step, "carries": carries, "axes": tuple(axes), "out_axes": tuple(out_axes), "length": length,
        "reverse": reverse, "replay": replay, "every": distance(length) if every is None else every,
    }  # fmt: skip


def without(shape: Shape, axis: int) -> Shape:
    """The shape of a slice."""
    return shape[:axis] + shape[axis + 1 :]


def live_parts(step: Function, carries: int, wanted: Sequence[int]) -> tuple[set[int], set[Operand]]:
    """Which carries matter where the results `wanted` of a step do, and the values that the step then needs."""
    made = {e.result: e for e in step.equations}
    live = {i for i in wanted if i < carries}
    number = {p: i for i, p in enumerate(step.parameters[:carries])}
    needed: set[Operand] = set()
    todo: list[Value] = [step.results[i] for i in wanted]
    while todo:
        v = todo.pop()
        if v in needed:
            continue
        needed.add(v)
        if v in number and number[v] not in live:
            live.add(number[v])
            todo.append(step.results[number[v]])
        if v in made:
            todo.extend(made[v].values)
    for i in list(live):
        if step.results[i] not in needed:
            todo.append(step.results[i])
    if todo:
        return live_parts(step, carries, sorted({*wanted, *live}))
    return live, needed
