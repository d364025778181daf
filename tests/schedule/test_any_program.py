"""Random programs, and their gradients, mean as kernels what they mean as equations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import HealthCheck, given, settings

import kdsl.dtypes as dt
from kdsl.ir.interpreter import interpret
from kdsl.ir.loop_verify import verify_loops
from kdsl.ir.meaning import evaluate
from kdsl.ir.tensor import Function
from kdsl.schedule.program import schedule
from kdsl.target import parse_target
from kdsl.transforms.differentiate import vjp
from kdsl.transforms.expand import expand
from kdsl.transforms.group import group
from kdsl.transforms.simplify import simplify
from tests.programs import programs

TARGET = parse_target("cpu:x86-64-v3")
SOME = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def agrees(function: Function, arrays) -> None:
    program = schedule(group(function, TARGET), TARGET)
    verify_loops(program)
    got, want = interpret(program, *arrays), evaluate(function, *arrays)
    for a, b in zip(got, want, strict=False):
        assert a.shape == b.shape and a.dtype == b.dtype
        if a.dtype.kind in "fV":
            a, b = np.asarray(a, "f8"), np.asarray(b, "f8")
            scale = np.max(np.abs(b[np.isfinite(b)]), initial=1.0)
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * scale)
        else:
            np.testing.assert_array_equal(a, b)


@SOME
@given(programs(dtypes=("f32", "f64")))
def test_random_programs(program):
    agrees(program.function, program.arrays)


@SOME
@given(programs(dtypes=("f64",), smooth=True))
def test_random_gradients(program):
    derived = expand(simplify(vjp(simplify(program.function))))
    floating = [r for r in program.function.results if r.dtype.is_floating]
    rng = np.random.default_rng(0)
    cotangents = [rng.standard_normal([int(n) for n in r.shape]).astype(r.dtype.numpy) for r in floating]
    derived = replace(derived, results=tuple(r for r in derived.results if r.dtype is dt.f64))
    if derived.results:
        agrees(derived, [*program.arrays, *cotangents])
