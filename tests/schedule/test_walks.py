"""Walks over rows at break-prone sizes, as machine code: across rows, upright, short lines, named sizes."""

from __future__ import annotations

import numpy as np
import pytest

import kdsl as kd
import kdsl.dtypes as dt
from kdsl.ir.interpreter import interpret
from kdsl.ir.loop_verify import verify_loops
from kdsl.ir.meaning import evaluate
from kdsl.ir.ops import Op
from kdsl.ir.rules import Builder
from kdsl.ir.tensor import Function, TensorType, Value
from kdsl.schedule.program import schedule
from kdsl.target import parse_target
from kdsl.transforms.group import group

SHAPES = [(0, 5), (5, 0), (1, 70), (47, 3), (33, 64), (65, 129), (130, 31)]
FUNCTIONS = {
    "turned": lambda x: kd.exp(x.T) * 2,
    "turned twice": lambda x: (x.T + 1).T * x,
    "mean down": lambda x: kd.mean(x, axis=0),
    "spread down": lambda x: (x - kd.mean(x, axis=0)) * kd.rsqrt(kd.var(x, axis=0) + 1),
    "spread along": lambda x: (x - kd.mean(x, axis=1, keepdims=True)) * kd.rsqrt(kd.var(x, axis=1, keepdims=True) + 1),
    "largest": lambda x: x * kd.sum(x, axis=1, keepdims=True) - kd.sum(kd.abs(x), axis=0),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_walks(name):
    function = FUNCTIONS[name]
    fixed = kd.kernel(function)
    named = kd.kernel(function, types={"x": kd.f32["n", "m"]})
    rng = np.random.default_rng(0)
    for shape in SHAPES:
        x = rng.standard_normal(shape).astype("f4")
        for given in (x, np.asfortranarray(x)):
            want = fixed.reference(given)
            for k in (fixed, named):
                np.testing.assert_allclose(k(given), want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", ["f2", "f8", "i1", "i8"])
def test_turned_maps_of_every_width(dtype):
    x = np.arange(67 * 37).reshape(67, 37).astype(dtype)
    y = np.arange(67 * 37).reshape(37, 67).astype(dtype)
    np.testing.assert_array_equal(kd.kernel(lambda x, y: x + y.T)(x, y), x + y.T)
    np.testing.assert_array_equal(kd.kernel(lambda x, y: (x + y.T).T)(x, y), (x + y.T).T)


def test_each_tile_of_joined_rows_folds_anew():
    """What was computed from a fold in one tile of rows must not be used in the next, narrower one."""
    x = Value(TensorType(dt.f64, (1, 5)), "x")
    b = Builder()
    y = b.emit(Op.NEG, x)
    e = b.emit(Op.EXP, b.emit(Op.SUB, y, b.broadcast_to(b.reduce(Op.MAX, y, (1,), keepdims=True), (1, 5))))
    p = b.emit(Op.DIV, e, b.broadcast_to(b.reduce(Op.SUM, e, (1,), keepdims=True), (1, 5)))
    joined = b.emit(Op.CONCAT, p, x, axis=1)
    z = b.emit(Op.NEG, x)
    function = Function("joined", (x,), tuple(b.equations), (z, joined))
    target = parse_target("cpu:x86-64-v3")
    program = schedule(group(function, target), target)
    verify_loops(program)
    values = np.linspace(-1, 2, 5)[None, :]
    for got, want in zip(interpret(program, values), evaluate(function, values), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-13)
