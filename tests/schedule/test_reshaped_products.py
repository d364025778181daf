"""Products whose result is seen under another shape, named sizes: a tile that hangs over a row does not reach the next one."""

from __future__ import annotations

import numpy as np
import pytest

import kdsl as kd
import kdsl.dtypes as dt
from kdsl.ir import loops as ir
from kdsl.schedule.positions import Apart, joined_memory

PROGRAMS = [
    lambda x, w: kd.reshape(kd.exp(x) @ w, (x.shape[0] * x.shape[1], w.shape[1])),
    lambda x, w: kd.reshape(x @ w, (x.shape[0] * x.shape[1] * w.shape[1],)) * 2,
    lambda x, w: kd.reshape(kd.einsum("btk,kn->nbt", x, w), (-1,)),
    lambda x, w: kd.reshape(kd.einsum("btk,bsk->bts", kd.exp(x), x), (-1,)),
    lambda x, w: kd.reshape(kd.exp(kd.einsum("btk,bsk->bts", x, x)) @ x, (-1,)),
]


@pytest.mark.parametrize("shape", [(3, 7, 5, 9), (2, 13, 16, 33), (4, 17, 8, 24), (3, 1, 4, 4)])
@pytest.mark.parametrize("number", range(len(PROGRAMS)))
@pytest.mark.parametrize("named", [False, True])
def test_reshaped_products(number, shape, named):
    b, t, k, n = shape
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((b, t, k)), rng.standard_normal((k, n))
    types = {"x": kd.f64["B", "T", "K"], "w": kd.f64["K", "N"]} if named else None
    kernel = kd.kernel(PROGRAMS[number], types=types)
    for array in (x, np.asfortranarray(x)):
        np.testing.assert_allclose(kernel(array, w), kernel.reference(array, w), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("time", [1, 4, 7, 12])
@pytest.mark.parametrize("first", [lambda x: x, kd.exp])
def test_products_of_padded_chunks_of_channels(time, first):
    """A reshape of a slice is read elsewhere by the padding: the product cannot make it again, and does not read it unwritten."""

    def f(x: kd.f64["B", "T", 24]):
        x = first(x)
        chunks = (x.shape[1] + 3) // 4
        parts = []
        for part in (x[..., :8], x[..., 8:16], x[..., 16:]):
            part = part.reshape((x.shape[0], x.shape[1], 2, 4))
            part = kd.pad(part, ((0, 0), (0, chunks * 4 - x.shape[1]), (0, 0), (0, 0)))
            parts.append(part.reshape((x.shape[0], chunks, 4, 2, 4)))
        a, b, c = parts
        seen = kd.einsum("bclgn,bcsgn->bcgls", a, b) * 0.5
        y = kd.einsum("bcgls,bcsgn->bclgn", seen, c).reshape((x.shape[0], chunks * 4, 2, 4))[:, : x.shape[1]]
        return y + x[..., 16:].reshape((x.shape[0], x.shape[1], 2, 4))

    x = np.random.default_rng(0).standard_normal((2, time, 24)) * 0.5
    kernel = kd.kernel(f)
    np.testing.assert_allclose(kernel(x), kernel.reference(x), rtol=1e-9, atol=1e-9)


def test_an_axis_taken_apart_has_the_strides_of_its_parts():
    buffer = ir.Buffer("x", dt.f32, (6, 4), (4, 1), "result", 0)
    memory, entries = joined_memory(buffer, (Apart(((1, 2), (2, 3))), 0))
    assert (memory.shape, memory.strides, entries) == ((2, 3, 4), (12, 4, 1), [1, 2, 0])
