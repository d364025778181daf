"""Runs tensor programs as kernels: grouped, scheduled, verified, interpreted; and compares with their meaning.

In:  equations and arrays.  Out: the plans, or an assertion that names the element that differs.
"""

from __future__ import annotations

import numpy as np

from kdsl.dtypes import BY_NUMPY
from kdsl.ir.frame import Grouping
from kdsl.ir.interpreter import interpret
from kdsl.ir.loop_verify import verify_loops
from kdsl.ir.meaning import evaluate
from kdsl.ir.rules import Builder
from kdsl.ir.tensor import Equation, Function, TensorType, Value
from kdsl.schedule.program import schedule
from kdsl.target import parse_target
from kdsl.transforms.group import group

TARGET = parse_target("cpu:x86-64-v3")


def parameters(*arrays, shapes=None) -> list[Value]:
    shapes = shapes or [a.shape for a in arrays]
    return [Value(TensorType(BY_NUMPY[a.dtype], s), "xyzabcdefg"[i]) for i, (a, s) in enumerate(zip(arrays, shapes, strict=True))]


def agrees(inputs: list[Value], equations: list[Equation], results: list[Value], arrays, strides=None) -> Grouping:
    """Group, schedule, verify and interpret a program; its results must be those of its meaning."""
    function = Function("f", tuple(inputs), tuple(equations), tuple(results))
    grouping = group(function, TARGET, strides)
    program = schedule(grouping, TARGET)
    verify_loops(program)
    got = interpret(program, *arrays)
    want = evaluate(function, *arrays)
    for a, b in zip(got, want, strict=False):
        assert a.shape == b.shape and a.dtype == b.dtype
        bound = 1e-2 if a.dtype.itemsize == 2 and a.dtype.kind in "fV" else 2e-5
        np.testing.assert_allclose(np.asarray(a, "f8"), np.asarray(b, "f8"), rtol=bound, atol=bound)
    return grouping


def single(op, *arrays, **attributes) -> Grouping:
    """One equation by itself."""
    inputs, b = parameters(*arrays), Builder()
    result = b.emit(op, *inputs, **attributes)
    return agrees(inputs, b.equations, [result], arrays)
