"""Scans in chunks side by side, as a GPU runs them: on the emulator, which finds races too."""

from __future__ import annotations

import numpy as np
import pytest

import kdsl as kd
from kdsl.transforms import associative_scans
from tests.emulator.kernels import needs_numba
from tests.gpu_target.checked import check, check_gradients
from tests.transforms.test_parallel_scans import SMALL

pytestmark = [pytest.mark.oracle, needs_numba]
RNG = np.random.default_rng(11)


def recurrence(a, b):
    return kd.scan(lambda h, now: (kd.sigmoid(now[0]) * h + now[1],) * 2, kd.ones((), dtype=a.dtype), (a, b))[1]


@pytest.mark.parametrize("f", [kd.cumulative_sum, kd.cumulative_prod, kd.cumulative_max], ids=["sum", "prod", "max"])
def test_long_rows(f):
    x = RNG.uniform(0.5, 1.5, 331).astype("f4")
    check(lambda x: f(x), x)
    explained = kd.kernel(lambda x: f(x), target="cuda:sm_80").explain(x)
    assert any("side by side" in n for kernel in explained.kernels for n in kernel.notes)


def test_a_recurrence_with_its_gradient():
    args = [RNG.standard_normal(264).astype("f4") for _ in "ab"]
    check(recurrence, *args)
    check_gradients(recurrence, *args)


def test_an_associative_scan_that_is_not_linear(monkeypatch):
    monkeypatch.setattr(associative_scans, "MACHINE", SMALL)
    x = (RNG.standard_normal(50) * 5).astype("f4")
    check(lambda x: kd.associative_scan(kd.logaddexp, x), x)
    check_gradients(lambda x: kd.associative_scan(kd.logaddexp, x), x)


def test_carries_that_wait_for_each_other():
    g = RNG.standard_normal(264).astype("f4")

    def momentum(g):
        def step(carry, g):
            v = 0.9 * carry[0] + g
            return (v, carry[1] - 0.1 * v), carry[1]

        return kd.scan(step, (kd.zeros(()), kd.zeros(())), g)

    check(momentum, g)
    check_gradients(momentum, g)
