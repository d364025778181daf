"""A concatenation that a product reads is no kernel's work: its parts are written side by side."""

from __future__ import annotations

import numpy as np
import pytest

import kdsl as kd
from tests.tolerance import assert_close

rng = np.random.default_rng(0)


def normal(*shape):
    return rng.standard_normal(shape).astype("f4")


def products(x, y, w, axis=-1):
    """Two products and a product of both, side by side."""
    return kd.concat([x @ y, y.mT @ x.mT + 1.0], axis=axis) @ w


def running(x, w):
    """A scan's results, and row sums of other values, which another reader wants too."""
    _, before = kd.scan(lambda h, v: (0.5 * h + v, h * v), kd.zeros(x.shape[1:]), x)
    share = x * x / kd.sum(x * x, axis=-1, keepdims=True)
    both = kd.concat([before, share, before @ kd.ones((x.shape[1], 3))], axis=1)
    return both @ w, kd.sum(both[:, 1:2] + share[:, :1])


def split_of_a_product(x, w, a, b):
    """Its gradient lays the gradients of three parts side by side."""
    u, v, z = kd.split(x @ w, 3, axis=-1)
    return kd.tanh(u @ a) + (v * v) @ b + kd.exp(-((z @ b) ** 2))


@pytest.mark.parametrize(("n", "k"), [(1, 1), (5, 7), (16, 16), (33, 24)])
@pytest.mark.parametrize("axis", [0, -1])
def test_products_side_by_side(n, k, axis):
    x, y = normal(n, k), normal(k, n)
    w = normal(2 * n if axis else n, 9)
    got = kd.kernel(products)(x, y, w, axis=axis)
    both = np.concatenate([x @ y, y.T @ x.T + 1], axis)
    assert_close(got, both.astype("f8") @ w, "float32", operations=2 * n * k, scale=float(np.abs(both).max() * np.abs(w).max()))


def test_no_kernel_copies():
    f = kd.kernel(products)
    types = (kd.f32[48, 32], kd.f32[32, 48], kd.f32[96, 16])
    assert sum(k.kind == "kernel" for k in f.explain(*types).kernels) == 3
    assert "where(" not in f.stages(*types)["scheduled"]


def test_named_sizes():
    def f(x: kd.f32["N", "K"], y: kd.f32["K", "M"], z: kd.f32["K", "P"], w: kd.f32["M", 5], v: kd.f32["P", 5]):
        wide = kd.concat([x @ y, x @ z + 2.0], axis=1) @ kd.concat([w, v], axis=0)  # (N, 5)
        return wide, kd.concat([x @ y, kd.exp(x @ y)], axis=0) @ w  # (2N, 5)

    f = kd.kernel(f)
    for n in (1, 8, 31):
        f.verify(normal(n, 4), normal(4, n + 1), normal(4, 3), normal(n + 1, 5), normal(3, 5))


@pytest.mark.parametrize("shape", [(2, 3), (7, 5), (40, 16)])
def test_parts_that_others_read(shape):
    f = kd.kernel(running)
    f.verify(normal(*shape), normal(2 * shape[1] + 3, 6))


@pytest.mark.parametrize("dtype", ["f4", "f8", "f2"])
def test_gradient_of_a_split(dtype):
    x, w, a, b = (normal(*s).astype(dtype) for s in ((9, 8), (8, 36), (12, 4), (12, 4)))
    f = kd.kernel(split_of_a_product)
    f.verify(x, w, a, b)


def test_gradient_writes_in_place():
    """The gradients of u, v, z lie in one array that both products of the gradient read."""
    f = kd.kernel(split_of_a_product)
    text = f.vjp.stages(*(kd.f32[s] for s in ((64, 32), (32, 96), (32, 32), (32, 32), (64, 32))))["scheduled"]
    assert "temporary(f32[64, 96]" in text
    assert "where(" not in text
