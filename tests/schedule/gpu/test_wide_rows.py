"""Rows of any length in accesses of 16 bytes: tiles that begin before a row, size classes, and what must not come of either."""

from __future__ import annotations

import importlib.util

import ml_dtypes
import numpy as np
import pytest

import kdsl as kd
from kdsl.ir.interpreter import interpret
from kdsl.target import size_class
from kdsl.testing import loads_per_byte, wide_share
from tests.gpu_target.checked import check, check_gradients

rng = np.random.default_rng(0)
needs_numba = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="needs numba-cuda: pip install 'kdsl[cuda]'"
)
INTERPRETED = (interpret,)


def normal(*shape, dtype="f4"):
    return rng.standard_normal(shape).astype(ml_dtypes.bfloat16 if dtype == "bf16" else dtype)


def softmax(x):
    e = kd.exp(x - kd.max(x, axis=-1, keepdims=True))
    return e / kd.sum(e, axis=-1, keepdims=True)


def layer_norm(x, w, b):
    c = x - kd.mean(x, axis=-1, keepdims=True)
    return c * kd.rsqrt(kd.mean(c * c, axis=-1, keepdims=True) + 1e-5) * w + b


def add(x, y):
    return x + y


NAMED = {"x": kd.f32["N", "D"]}
NORM = {"x": kd.f32["N", "D"], "w": kd.f32["D"], "b": kd.f32["D"]}


def shifts(program):
    """Which kernels begin rows at pieces."""
    return ["aligned" in k.schedule for k in program.kernels]


@pytest.mark.parametrize("n", [510, 513, 1001, 1021, 1024, 2047, 9001])
@pytest.mark.parametrize("dtype", ["f4", "bf16", "f8"])
def test_rows_of_odd_length(n, dtype):
    x = normal(5, n, dtype=dtype)
    x[1] = -np.inf
    x[2, 0] = np.nan
    program = check(softmax, x, on=INTERPRETED)
    assert shifts(program) == [n % (16 // x.itemsize) > 0]
    check(lambda x: (kd.sum(x, axis=1), kd.min(x * x, axis=1), kd.any(x > 3, axis=1)), x, on=INTERPRETED)
    check(add, normal(5, n, dtype=dtype), normal(n, dtype=dtype), on=INTERPRETED)


def test_no_element_before_a_row_is_the_greatest():
    x = np.full((3, 1001), -np.inf, "f4")
    program = check(lambda x: kd.argmax(x, axis=1), x, on=INTERPRETED)
    assert shifts(program) == [False]


def test_slices_and_turned_rows_are_read_one_by_one():
    x = normal(9, 2100)
    check(softmax, x[:, 3:1004], on=INTERPRETED)
    check(softmax, x[::-2, 7:2020:2], on=INTERPRETED)
    check(lambda x, y: softmax(x) * y, x[:, 1:1002], x[:, :1001], on=INTERPRETED)
    check(softmax, normal(3, 2, 1003).transpose(1, 0, 2), on=INTERPRETED)


def test_few_long_rows_in_pieces():
    x = normal(3, 100_003)
    program = check(lambda x: kd.sum(x * x, axis=1), x, on=INTERPRETED)
    assert shifts(program)[0]
    check(lambda x: (kd.exp(x), kd.max(x, axis=1)), x, on=INTERPRETED)


def test_classes():
    assert size_class("D", 1000) == ("D", 2048, 8) and size_class("D", 1001) == ("D", 2048, 1)
    assert size_class("D", 8193) == ("D", 0, 1) and size_class("D", 0) == ("D", 128, 8)


@needs_numba
@pytest.mark.oracle
@pytest.mark.parametrize("d", [0, 1, 24, 129, 600, 768, 1001, 2051])
def test_a_call_compiles_for_its_class(d):
    f, g = kd.kernel(softmax, target="emulator", types=NAMED), kd.kernel(layer_norm, target="emulator", types=NORM)
    x, w = normal(7, d), normal(d)
    if d:
        np.testing.assert_allclose(f(x), kd.kernel(softmax)(x), rtol=1e-5, atol=1e-6)
    for have, want in zip(g.vjp(x, w, w, x), kd.kernel(layer_norm).vjp(x, w, w, x), strict=True):
        np.testing.assert_allclose(have, want, rtol=3e-4, atol=3e-4)
    for have, want in zip(g.pullback(x, w, w)[1](x), kd.kernel(layer_norm).vjp(x, w, w, x), strict=True):
        np.testing.assert_allclose(have, want, rtol=3e-4, atol=3e-4)


@needs_numba
@pytest.mark.oracle
def test_one_kernel_serves_all_its_classes():
    f = kd.kernel(softmax, target="emulator", types=NAMED)
    for d in (1001, 7, 768, 1001, 64):
        x = normal(3, d)
        np.testing.assert_allclose(f(x), kd.kernel(softmax)(x), rtol=1e-5, atol=1e-6)


@needs_numba
@pytest.mark.oracle
@pytest.mark.parametrize("d, share, norm", [(1024, 1.0, 1.0), (1001, 0.98, 0.5)])
def test_traffic_of_named_rows(d, share, norm):
    x, w = normal(8, d), normal(d)
    f, g = kd.kernel(softmax, types=NAMED), kd.kernel(layer_norm, types=NORM)
    assert wide_share(f, x) >= share and loads_per_byte(f, x) == 1.0
    assert wide_share(f.vjp, x, x) >= share and loads_per_byte(f.vjp, x, x) == 1.0
    assert wide_share(g, x, w, w) >= norm
    rows = x.nbytes + 2 * 8 * w.nbytes  # weights are read for every row
    assert loads_per_byte(g, x, w, w) * (x.nbytes + 2 * w.nbytes) == rows


@needs_numba
@pytest.mark.oracle
def test_turned_maps_go_in_squares():
    def turned(x):
        return kd.exp(x.T)

    def both(x, y):
        return x + y.T

    x, y = normal(96, 200), normal(200, 96)
    assert wide_share(kd.kernel(turned), x) == 1.0 and loads_per_byte(kd.kernel(turned), x) == 1.0
    assert wide_share(kd.kernel(both), x, y) == 1.0
    check(turned, x)
    check(both, normal(33, 70), normal(70, 33))
    check(turned, normal(130, 67, dtype="bf16"))
    check(lambda x: kd.permute_dims(x, (2, 0, 1)) * 2, normal(5, 34, 41))
    check(turned, normal(70, 33), types=NAMED)


@needs_numba
@pytest.mark.oracle
def test_on_the_emulator():
    x = normal(3, 1001)
    check(softmax, x)
    check(softmax, normal(2, 2501), types=NAMED)
    check(add, normal(3, 2501), normal(2501), types={"x": kd.f32["N", "D"], "y": kd.f32["D"]})
    check_gradients(layer_norm, x, normal(1001), normal(1001))
    check(lambda x: kd.sum(x, axis=1), normal(2, 40_003))
    check(softmax, normal(3, 777, dtype="bf16"))


def blocks(f, *types):
    """Blocks and threads of each kernel."""
    (program,) = f.looked_at(types, {}, "cuda:sm_80")
    return [(k.blocks, k.threads) for k in program.kernels]


def test_short_columns_and_few_rows_fill_a_gpu():
    columns, rows = kd.kernel(lambda x: softmax(x.T).T), kd.kernel(softmax)
    assert blocks(columns, kd.f32[1000, 1000])[0][0] >= 60
    assert all(b <= 16384 and t >= 128 for b, t in blocks(kd.kernel(lambda x: kd.sum(x, axis=0)), kd.f32[16, 1 << 20]))
    (b, t) = blocks(rows, kd.f32[3, 100_003])[-1]  # adds up the parts of a row's sum, and divides by it
    assert b <= 3 * 64 and t == 256
    check(softmax, normal(3, 40_003), on=INTERPRETED)
    check(lambda x: softmax(x.T).T, normal(300, 70), on=INTERPRETED)
    check(lambda x: kd.sum(x, axis=0), normal(3, 1003), on=INTERPRETED)
