"""kd.kernel(f, target="emulator"): the kernels of a program run in the emulator and give what the CPU gives."""

import numpy as np
import pytest

import kdsl as kd
from tests.emulator.kernels import needs_numba
from tests.tolerance import assert_close

pytestmark = [pytest.mark.oracle, needs_numba]


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def both(function, *args):
    return kd.kernel(function, target="emulator")(*args), kd.kernel(function, target="cpu")(*args)


def softmax(x):
    e = kd.exp(x - kd.max(x, axis=-1, keepdims=True))
    return e / kd.sum(e, axis=-1, keepdims=True)


@pytest.mark.parametrize("shape", [(3, 1000), (1, 1), (17, 33)])
def test_softmax(shape):
    assert_close(*both(softmax, normal(0, *shape)), operations=shape[1])


def test_two_results_and_strides():
    x = normal(0, 12, 20)[::-2, 1::3]
    for got, want in zip(*both(lambda x: (kd.exp(x), x * 2), x)):
        assert_close(got, want)


def test_empty_axis():
    got, want = both(softmax, normal(0, 0, 5))
    assert got.shape == want.shape


def test_out():
    f = kd.kernel(lambda x: x + 1, target="emulator")
    x = normal(0, 70)
    want = x + 1
    assert f(x, out=x) is x
    assert_close(x, want)
