"""Long sums of thin rows, as gradients of narrow layers are: their sums wait near while both operands are read once."""

from __future__ import annotations

import numpy as np
import pytest

import kdsl as kd
from tests.tolerance import assert_close

rng = np.random.default_rng(0)


def normal(*shape, dtype="f4"):
    return rng.standard_normal(shape).astype(dtype)


@kd.kernel
def named(x: kd.floating["N", 40], y: kd.floating["N", 72]):
    return x.mT @ y


@kd.kernel
def with_maps(x: kd.f32["N", 13], y: kd.f32["N", 96], b: kd.f32[96]):
    return kd.exp((x.mT @ y) * 0.01) + b


@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, 100, 1024])
@pytest.mark.parametrize("dtype", ["f4", "f8", "f2"])
def test_named_depth(n, dtype):
    x, y = normal(n, 40, dtype=dtype), normal(n, 72, dtype=dtype)
    expected = x.astype("f8").T @ y.astype("f8")
    name = {"f4": "float32", "f8": "float64", "f2": "float16"}[dtype]
    assert_close(named(x, y), expected, name, operations=max(1, n), scale=max(1.0, n**0.5) * 16)


@pytest.mark.parametrize("n", [1, 7, 65, 500])
def test_maps_behind(n):
    x, y, b = normal(n, 13), normal(n, 96), normal(96)
    expected = np.exp(x.astype("f8").T @ y * 0.01) + b
    assert_close(with_maps(x, y, b), expected, "float32", operations=4 * n, scale=4.0)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 300), (6, 8), (7, 17), (64, 256), (65, 33), (256, 8), (601, 5)])
def test_fixed_depth(rows, columns):
    n = 4 * max(rows, columns) + 5
    x, y = normal(n, rows), normal(n, columns)
    got = kd.kernel(lambda x, y: x.mT @ y)(x, y)
    assert_close(got, x.astype("f8").T @ y, "float32", operations=n, scale=n**0.5 * 16)


def test_nothing_is_packed():
    f = kd.kernel(lambda x, y: x.mT @ y)
    assert [k.kind for k in f.explain(kd.f32[2048, 40], kd.f32[2048, 256]).kernels] == ["kernel"]
    assert [k.kind for k in f.explain(kd.f32[2048, 256], kd.f32[2048, 8]).kernels] == ["kernel"]
    assert len(f.explain(kd.f32[2048, 256], kd.f32[2048, 256]).kernels) > 1


def test_strided_operands_agree():
    x, y = normal(40, 333), normal(333, 144)
    assert_close(named(x.T, y[:, ::2]), x.astype("f8") @ y[:, ::2], "float32", operations=333, scale=300.0)
    assert_close(named(x.T[::-1], y[:, 72:]), x[:, ::-1].astype("f8") @ y[:, 72:], "float32", operations=333, scale=300.0)
