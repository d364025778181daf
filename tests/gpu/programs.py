"""Kernels of every frame kind, with arguments: what tests on a GPU run (tests/gpu), and bench/gpu_speed.py measures larger."""

from __future__ import annotations

import numpy as np

import kdsl as kd

rng = np.random.default_rng(7)


def normal(*shape, dtype="f4"):
    return rng.standard_normal(shape).astype(dtype)


def gelu(x):
    return 0.5 * x * (1 + kd.erf(x * 2**-0.5))


def softmax(x):
    e = kd.exp(x - kd.max(x, axis=-1, keepdims=True))
    return e / kd.sum(e, axis=-1, keepdims=True)


def layer_norm(x, w, b):
    centred = x - kd.mean(x, axis=-1, keepdims=True)
    return centred * kd.rsqrt(kd.mean(centred * centred, axis=-1, keepdims=True) + 1e-5) * w + b


def cross_entropy(x, targets):
    picked = kd.take_along_axis(x, targets[:, None], axis=-1)[:, 0]
    return kd.mean(kd.logsumexp(x, axis=-1) - picked)


def linear(x, w, b):
    return gelu(x @ w + b)


def attention(q, k, v):
    n = q.shape[-2]
    mask = kd.arange(n)[:, None] >= kd.arange(n)[None, :]
    return softmax(kd.where(mask, q @ k.mT * q.shape[-1] ** -0.5, -np.inf)) @ v


PROGRAMS = {
    "map": (gelu, [normal(1003)]),
    "map of rows": (lambda x, y: x * 2 + y, [normal(37, 129), normal(129)]),
    "transposed": (lambda x, y: x.T + y, [normal(65, 33), normal(33, 65)]),
    "row folds": (softmax, [normal(33, 1000)]),
    "long rows": (softmax, [normal(3, 70001)]),
    "norm": (layer_norm, [normal(65, 768), normal(768), normal(768)]),
    "columns": (lambda x: kd.sum(x, axis=0), [normal(1009, 65)]),
    "everything": (lambda x: kd.sum(x * x), [normal(333, 77)]),
    "cross-entropy": (cross_entropy, [normal(64, 5003), rng.integers(0, 5003, 64)]),
    "product": (lambda x, y: x @ y, [normal(129, 65), normal(65, 257)]),
    "product with epilogue": (linear, [normal(128, 192), normal(192, 256), normal(256)]),
    "products side by side": (lambda x, y: x @ y, [normal(3, 5, 33, 17), normal(3, 5, 17, 9)]),
    "attention": (attention, [normal(2, 3, 130, 64) for _ in range(3)]),
    "scatter": (lambda x, i, u: kd.scatter_add(x, i, u), [normal(100, 65), rng.integers(0, 100, 300), normal(300, 65)]),
    "gather": (lambda x, i: x[i], [normal(100, 65), rng.integers(-100, 100, 77)]),
    "running": (lambda x: kd.cumulative_sum(x, axis=0), [normal(257, 33)]),
    "sort": (lambda x: kd.sort(x), [normal(5, 1003)]),
    "random": (lambda key: kd.random.uniform(key, (1001,)), [np.array([1, 2], "u4")]),
}
