"""Scans of every kind on a GPU: interpreted, and as PTX on the emulator, which looks for races, missing waits and wild accesses.

A carry in registers, through near memory, through memory; steps that multiply, fold, shift, gather; gradients from
checkpoints, and theirs.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import kdsl as kd
from examples import recurrences
from kdsl.ir.interpreter import interpret
from kdsl.testing import gpu_code
from kdsl.transforms.differentiate import vjp
from kdsl.transforms.prune import prune
from kdsl.transforms.simplify import simplify
from tests.emulator.kernels import needs_numba
from tests.gpu_target.checked import agrees, check, check_gradients, traced
from tests.gpu_target.on_emulator import run as run_on_the_emulator
from tests.schedule.test_random_scans import Step
from tests.whole import cotangents

pytestmark = [pytest.mark.oracle, needs_numba]
rng = np.random.default_rng(0)


def normal(*shape, dtype="f4"):
    return (rng.standard_normal(shape) / 2).astype(ml_dtypes.bfloat16 if dtype == "bf16" else dtype)


# --- through memory ---------------------------------------------------------------------------------------------------------
def gru(t, b, d, h):
    return recurrences.gru.function, normal(t, b, d), normal(b, h), normal(d, 3 * h), normal(h, 3 * h) / 2, normal(3 * h)


def lstm(t, b, d, h):
    arrays = normal(t, b, d), normal(b, h), normal(b, h), normal(d, 4 * h), normal(h, 4 * h) / 2, normal(4 * h)
    return (recurrences.lstm.function, *arrays)


def kalman(t, s):
    eye = np.eye(s, dtype="f4")
    arrays = normal(t), normal(s), eye, eye + normal(s, s) / 5, eye / 10, normal(s), np.array(0.5, "f4")
    return (recurrences.kalman.function, *arrays)


def rolled(x):
    return kd.scan(lambda c, v: (kd.concat([c[1:], c[:1]]) * 0.5 + v, c), kd.zeros(x.shape[1]), x)


def weights_in_the_step(w, x):
    return kd.scan(lambda c, v: (kd.tanh(c @ kd.tanh(w)) + v, c), kd.zeros(x.shape[1:]), x)


def several_folds(x, w):
    def step(c, v):
        c = kd.exp(c - kd.max(c, axis=-1, keepdims=True)) * w + v
        return c / kd.sum(c * c, axis=-1, keepdims=True), kd.argmax(c, axis=-1)

    return kd.scan(step, x[0], x)


TURN = normal(5, 5)


def an_array_from_outside(x):
    return kd.scan(lambda c, v: (kd.tanh(c @ TURN) + v, (c, c * TURN[0])), x[0], x)


def in_a_row(x):
    return kd.scan(lambda c, v: (c * TURN[0] + v, c), x[0], x)


THROUGH_MEMORY = {
    "an array from outside": (an_array_from_outside, normal(4, 3, 5)),
    "a row from outside": (in_a_row, normal(4, 3, 5)),
    "gru": gru(5, 2, 3, 4),
    "lstm of 21": lstm(3, 2, 5, 21),
    "kalman": kalman(3, 5),
    "rolled": (rolled, normal(10, 300)),
    "wide": (weights_in_the_step, normal(100, 100) / 5, normal(2, 2, 100)),
    "several folds": (several_folds, normal(4, 3, 41), normal(41)),
    "no step": gru(0, 2, 3, 4),
    "in bf16": (rolled, normal(9, 33, dtype="bf16")),
}
SLOW = {
    "gru of 64": gru(9, 3, 16, 64),
    "lstm of 100": lstm(4, 2, 30, 100),
    "kalman of 20": kalman(9, 20),
    "flat in near memory": (rolled, normal(3, 7000)),
    "in memory": (rolled, normal(3, 40000)),
}


@pytest.mark.parametrize("name", THROUGH_MEMORY)
def test_steps_through_memory(name):
    check(*THROUGH_MEMORY[name])


@pytest.mark.parametrize("name", ["gru", "rolled", "an array from outside", "a row from outside"])
def test_their_gradients(name):
    check_gradients(*THROUGH_MEMORY[name])


@pytest.mark.parametrize("name", ["rolled small", "gru small"])
def test_their_second_derivatives(name):
    f, *arrays = {"rolled small": (rolled, normal(5, 7)), "gru small": gru(3, 2, 3, 3)}[name]
    count = len(arrays)

    def gradient(*args):
        return kd.grad(lambda *args: kd.sum(f(*args)[1] ** 2), tuple(range(count)))(*args)

    check_gradients(gradient, *arrays, on=(interpret, run_on_the_emulator) if name == "rolled small" else (interpret,))


@pytest.mark.parametrize("t, b, h", [(3, 2, 4), pytest.param(1, 1, 33, marks=pytest.mark.slow)])
def test_named_sizes_through_memory(t, b, h):
    types = {"x": kd.f32["T", "B", "D"], "h": kd.f32["B", "H"], "w": kd.f32["D", "H"], "u": kd.f32["H", "H"]}

    def cell(x, h, w, u):
        return kd.scan(lambda h, v: (kd.tanh(v @ w + h @ u),) * 2, h, x)

    arrays = normal(t, b, 3), normal(b, h), normal(3, h), normal(h, h) / 2
    check(cell, *arrays, types=types)
    check_gradients(cell, *arrays, types=types)


def test_folds_that_share_their_scratch_memory(monkeypatch):
    """As if the arrays of a kernel's folds had taken all that there is: one value at a time, between barriers."""
    monkeypatch.setattr("kdsl.codegen.cuda.folds.MOST_SCRATCH", 0)
    check(several_folds, normal(3, 5, 43), normal(43))
    check(lambda x: kd.scan(lambda c, v: (kd.cumulative_sum(c) * 0.5 + v, c), kd.zeros(300), x), normal(3, 300))


def test_folds_of_a_step_fit_the_memory_of_an_architecture():
    def step(c, v):
        for i in range(12):
            c = kd.sin(c) * kd.sum(c * (i + 1.0), axis=1, keepdims=True) + kd.max(c, axis=0, keepdims=True)
        return c, kd.sum(c)

    code = gpu_code(kd.kernel(lambda x: kd.scan(step, x[0], x)), kd.f64[3, 64, 64])
    assert all(k.spill_bytes == 0 for k in code.kernels)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*THROUGH_MEMORY, *SLOW])
def test_larger_ones_and_all_gradients(name):
    case = {**THROUGH_MEMORY, **SLOW}[name]
    check(*case)
    if name != "several folds":
        check_gradients(*case)


@pytest.mark.parametrize("seed", [pytest.param(n, marks=() if n < 2 else pytest.mark.slow) for n in range(60)])
def test_random_steps(seed):
    step = Step(seed)
    arrays = step.arguments("f4")
    on = (interpret,) if seed % 3 else (interpret, run_on_the_emulator)
    function = traced(step.__call__, *arrays)
    agrees(function, arrays, on)
    derived = prune(simplify(vjp(simplify(function))))
    agrees(derived, [*arrays, *cotangents(function, arrays)], on)
