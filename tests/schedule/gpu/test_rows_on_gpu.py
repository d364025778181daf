"""Rows that no tile holds: one walk for a maximum and the sums under it, and the values that break it."""

from __future__ import annotations

import numpy as np
import pytest

import kdsl as kd
from kdsl.ir import loops as ir
from kdsl.ir.interpreter import interpret
from tests.gpu_target.checked import check

rng = np.random.default_rng(0)
LONG = 20_011
INTERPRETED = (interpret,)


def streams(program):
    """How many loops each kernel has."""
    return [sum(isinstance(s, ir.Stream) for s in ir.walk(k.body)) for k in program.kernels]


def softmax(x):
    e = kd.exp(x - kd.max(x, axis=-1, keepdims=True))
    return e / kd.sum(e, axis=-1, keepdims=True)


def weighted(x, w):
    m = kd.max(x, axis=1, keepdims=True)
    e = kd.exp(2 * (x - m)) * w
    return kd.log(kd.sum(e, axis=1)) + kd.sum(kd.exp(x - m) * w * w, axis=1)


def long_rows(rows=70):
    x = (rng.standard_normal((rows, LONG)) * 9).astype("f4")
    x[1, : LONG // 2] = -np.inf
    x[2, 5] = 80
    return x


def test_softmax_walks_twice():
    assert streams(check(softmax, long_rows(), on=INTERPRETED)) == [2]


def test_sums_under_one_maximum_share_its_walk():
    assert streams(check(weighted, long_rows(), rng.uniform(0, 1, LONG).astype("f4"), on=INTERPRETED)) == [1]


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_special_values(special):
    x = long_rows()
    x[0, -1] = special
    if special == -np.inf:
        x[0] = special
    check(softmax, x, on=INTERPRETED)


def test_a_column_sum_of_shifted_values_waits_for_the_maximum():
    def both(x):
        e = kd.exp(x - kd.max(x, axis=1, keepdims=True))
        return kd.sum(e, axis=1), kd.sum(e, axis=0)

    check(both, long_rows(40), on=INTERPRETED)


def test_named_rows_and_lines():
    for n in (1, 7, 5000):
        check(softmax, long_rows()[:, :n], types={"x": kd.f32["N", "D"]}, on=INTERPRETED)


@pytest.mark.parametrize("rows", [1, 3])
def test_blocks_share_few_long_rows(rows):
    x = (rng.standard_normal((rows, 40_003)) * 3).astype("f4")
    program = check(lambda x: (kd.sum(x * x, axis=1), kd.max(x, axis=1)), x, on=INTERPRETED)
    assert len(program.kernels) == 2 and len(ir.grid(program.kernels[0])) == 1 + (rows > 1)
    check(softmax, x, on=INTERPRETED)
