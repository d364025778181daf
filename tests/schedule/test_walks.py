"""Walks over rows at break-prone sizes, as machine code: across rows, upright, short lines, named sizes."""

from __future__ import annotations

import numpy as np
import pytest

import kdsl as kd

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

    def f(x):
        e = kd.exp(-x - kd.max(-x, axis=1, keepdims=True))
        return -x, kd.concat([e / kd.sum(e, axis=1, keepdims=True), x], axis=1)

    f = kd.kernel(f)
    for n in (5, 7, 13):
        x = np.linspace(-1, 2, n)[None, :]
        for got, want in zip(f(x), f.reference(x), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-13)
