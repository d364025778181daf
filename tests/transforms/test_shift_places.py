"""A maximum's gradient is left out only where each element's own shift cancels (found by tests/contract)."""

import numpy as np
import pytest

import kdsl as kd

rng = np.random.default_rng(5)


def per_row_maximum_one_sum(x):
    e = kd.exp(x - kd.max(x, axis=-1, keepdims=True))
    return (e / kd.sum(e)) ** 2


def quotient_with_the_transpose(x):
    e = kd.exp(x - kd.max(x, axis=-1, keepdims=True))
    return e / (e.T + 0.0 * e)


def columns_and_rows(x):
    e = kd.exp(x - kd.max(x, axis=-1, keepdims=True))
    return e / kd.sum(e, axis=0, keepdims=True)


def softmax_of_a_reshape(x):
    y = kd.reshape(x, (x.shape[0], x.shape[1], 1))
    e = kd.exp(y - kd.max(y, axis=1, keepdims=True))
    return e / kd.sum(e, axis=1, keepdims=True)


@pytest.mark.parametrize("f", [per_row_maximum_one_sum, quotient_with_the_transpose, columns_and_rows, softmax_of_a_reshape])
def test_gradients_are_the_slopes(f):
    x = rng.standard_normal((3, 3))
    f = kd.kernel(f)
    y = f(x)
    g = rng.standard_normal(y.shape)
    (got,) = f.vjp(x, g)
    want = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i] = 1e-6
        want[i] = np.sum((f.reference(x + step) - f.reference(x - step)) * g) / 2e-6
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)
