"""The compiler from top to bottom: one line per stage, each recorded by name and verified.

In:  a traced Function, the strides of its parameters, a Target.  Out: Compiled: something that can be run, and the record of
every stage on the way, which `stages()`, the goldens, the tour and crash reports all read.
Only this file knows the order of the stages. Read before: docs/decisions/stages.md. Read next: transforms/simplify.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kdsl.errors import InternalError, KdslError
from kdsl.ir.meaning import evaluate
from kdsl.ir.printer import show
from kdsl.ir.tensor import Function
from kdsl.ir.verify import verify
from kdsl.target import Target
from kdsl.transforms.differentiate import vjp
from kdsl.transforms.prune import prune
from kdsl.transforms.simplify import simplify

Strides = Sequence[Any]  # for each parameter None (C-contiguous) or its strides in elements


class Record(dict[str, Any]):
    """Every stage's output by name, in order, each checked before it is kept."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def __call__(self, stage: str, program: Any) -> Any:
        self[stage] = program
        if isinstance(program, Function):
            verify(program)
        return program

    def texts(self) -> dict[str, str]:
        """The stages as texts."""
        return {stage: show(program) if isinstance(program, Function) else str(program) for stage, program in self.items()}


@dataclass(eq=False)
class Compiled:
    """A program for one target: what it computes, the stages it went through, and how to run it."""

    function: Function
    record: Record
    target: Target

    def run(self, tensors: Sequence[Any], out: Sequence[Any] | None, sizes: Mapping[str, int]) -> list[Any]:
        results = [np.array(r, copy=True, order="C") for r in evaluate(self.function, *tensors, sizes=sizes)]
        for target, result in zip(out or (), results):
            target[...] = result
        return results


def compile_forward(function: Function, strides: Strides, target: Target) -> Compiled:
    """A kernel as it was traced."""
    record = Record(function.name)
    program = record("traced", function)
    program = record("simplified", simplify(program))
    return _finish(program, strides, target, record)


def compile_vjp(function: Function, wanted: Sequence[int], strides: Strides, target: Target) -> Compiled:
    """The gradients of a traced kernel, those numbered `wanted` among its floating parameters'."""
    record = Record(f"{function.name}.vjp")
    program = record("traced", function)
    program = record("simplified", simplify(program))
    program = record("derived", _gradients(program, wanted))
    return _finish(program, strides, target, record)


def derivative(function: Function, wanted: Sequence[int]) -> Function:
    """The same inside a kernel that is being traced: a program to be inlined."""
    return _gradients(simplify(function), wanted)


def _gradients(program: Function, wanted: Sequence[int]) -> Function:
    derived = vjp(program)
    return prune(replace(derived, results=tuple(derived.results[i] for i in wanted)))


def _finish(program: Function, strides: Strides, target: Target, record: Record) -> Compiled:
    return Compiled(program, record, target)


@dataclass(eq=False)
class Halves:
    """A program cut in two: the forward also returns what the backward needs."""

    forward: Function
    backward: Function
    needed: tuple[int, ...]
    record: Record
