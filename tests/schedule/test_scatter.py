"""Scatters add in order: repeated indices, negative ones, every axis."""

from __future__ import annotations

import numpy as np
import pytest

from kdsl.ir.ops import Op
from tests.schedule.grouped import single

rng = np.random.default_rng(1)


def normal(*shape):
    return rng.standard_normal(shape).astype("f4")


@pytest.mark.parametrize("shape, n", [((50, 33), 7), ((5, 64), 40), ((3, 1), 4), ((4,), 9), ((6, 2, 65), 3), ((3, 5), 0)])
def test_scatters(shape, n):
    x = normal(*shape)
    for axis in range(len(shape)):
        index = rng.integers(-shape[axis], shape[axis], (n,)).astype("i8")
        updates = normal(*shape[:axis], n, *shape[axis + 1 :])
        single(Op.SCATTER_ADD, x, index, updates, axis=axis)
        single(Op.SCATTER_ADD, x.astype("f2"), index, updates.astype("f2"), axis=axis)
        for k in (1, 3):
            along = (*shape[:axis], k, *shape[axis + 1 :])
            single(Op.SCATTER_ALONG, x, rng.integers(-shape[axis], shape[axis], along).astype("i8"), normal(*along), axis=axis)
