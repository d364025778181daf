"""Arrays caught from outside a kernel: whoever reads them, alone or beside others, they are what they were."""

import numpy as np
import pytest

import kdsl as kd
from tests.tolerance import assert_close

LINE, PLACES, MATRIX = np.array([3, 1, 2], "f4"), np.array([2, 0, 1]), np.arange(9, dtype="f4").reshape(3, 3) / 4
X = np.array([0.5, -1, 2], "f4")
READ = {
    "sorted": lambda x: kd.sort(LINE) + x,
    "sorted alone and with others": lambda x: (kd.sort(LINE), kd.sort(x), kd.argsort(LINE * x)),
    "sorted under another shape": lambda x: kd.sort(kd.reshape(LINE[::-1], (3, 1)) * 1, axis=0)[:, 0] * x,
    "scattered": lambda x: (kd.scatter_add(LINE, PLACES, x), kd.scatter_add(x, PLACES, LINE)),
    "gathered": lambda x: (kd.take(LINE, PLACES, axis=0) * x, kd.take_along_axis(LINE, kd.argsort(x), axis=0)),
    "scanned": lambda x: (kd.cumulative_sum(LINE) + x, kd.scan(lambda c, v: (c + v, c * v), 0.0, LINE)[1] + x),
    "where a scan begins": lambda x: kd.scan(lambda c, v: (kd.sort(c) * 0.5 + v, c), LINE, x[:, None] + MATRIX),
    "multiplied": lambda x: (LINE @ MATRIX @ x, MATRIX @ MATRIX, kd.sum(LINE)),
    "returned": lambda x: (LINE, LINE, LINE[::-1], MATRIX.T),
}


@pytest.mark.parametrize("name", READ)
def test_an_array_from_outside(name):
    kernel = kd.kernel(READ[name])

    def leaves(r):
        return [y for part in r for y in leaves(part)] if isinstance(r, tuple) else [r]

    got = leaves(kernel(X))
    for g, w in zip(got, leaves(kernel.reference(X)), strict=True):
        assert g.dtype == w.dtype
        assert_close(g, w, operations=20, scale=10)
    (slope,) = kernel.vjp(X, *(np.ones_like(g) for g in got if g.dtype.kind == "f"))
    assert np.isfinite(slope).all()
