"""Every kind of kernel that the schedules for GPUs make, at sizes that break things: interpreted, and as PTX on the emulator."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import kdsl as kd
from tests.emulator.kernels import needs_numba
from tests.gpu_target.checked import check, check_gradients

pytestmark = [pytest.mark.oracle, needs_numba]
rng = np.random.default_rng(0)


def normal(*shape, dtype="f4"):
    return rng.standard_normal(shape).astype(ml_dtypes.bfloat16 if dtype == "bf16" else dtype)


def softmax(x, axis=-1):
    e = kd.exp(x - kd.max(x, axis=axis, keepdims=True))
    return e / kd.sum(e, axis=axis, keepdims=True)


def layer_norm(x, w, b):
    c = x - kd.mean(x, axis=-1, keepdims=True)
    return c * kd.rsqrt(kd.mean(c * c, axis=-1, keepdims=True) + 1e-5) * w + b


def cross_entropy(x, i):
    m = kd.max(x, axis=-1, keepdims=True)
    picked = kd.take_along_axis(x, i[:, None], axis=1)
    return kd.mean(kd.log(kd.sum(kd.exp(x - m), axis=-1, keepdims=True)) + m - picked)


MAPS = {
    "tail": (lambda x: kd.tanh(x) * 2, normal(1003)),
    "broadcasts": (lambda x, y: x * y + 1, normal(5, 37), normal(37)),
    "down": (lambda x, y: x * y, normal(65, 3), normal(65, 1)),
    "crossed": (lambda x, y: x + y.T, normal(33, 70), normal(70, 33)),
    "backwards": (lambda x: kd.exp(x), normal(9, 20)[::-1, ::-2]),
    "empty": (lambda x: x + 1, normal(0, 5)),
    "one": (lambda x: x * x, normal()),
    "five axes": (lambda x: kd.permute_dims(x, (3, 0, 2, 1, 4)) + 1, normal(2, 3, 2, 5, 3)),
    "moved": (lambda x: kd.concat([kd.pad(x, ((0, 0), (2, 1))), kd.flip(x, axis=1)], axis=1)[::2, 1:9], normal(8, 5)),
    "taken": (lambda x, i: kd.take(x, i, axis=0) * 2, normal(11, 6), np.array([3, -1, 0, 10, 3])),
    "random": (lambda k: kd.random.normal(k, (7, 33)), np.array([1, 2], "u4")),
}


@pytest.mark.parametrize("name", MAPS)
def test_maps(name):
    check(*MAPS[name])


FOLDS = {
    "softmax short": (softmax, normal(33, 7)),
    "softmax": (softmax, normal(3, 1000)),
    "softmax streamed": (softmax, normal(2, 20011)),
    "softmax down": (lambda x: softmax(x, 0), normal(70, 40)),
    "softmax in bf16": (softmax, normal(5, 130, dtype="bf16")),
    "layer norm": (layer_norm, normal(10, 96), normal(96), normal(96)),
    "largest place": (lambda x: (kd.argmax(x, axis=1), kd.argmin(x, axis=0)), normal(13, 77)),
    "rows": (lambda x: kd.sum(x, axis=0), normal(700, 65)),
    "all": (lambda x: (kd.sum(x), kd.max(x)), normal(300, 301)),
    "middle": (lambda x: kd.sum(x * x, axis=1), normal(6, 90, 5)),
    "outer": (lambda x: kd.prod(x, axis=(0, 2)), normal(3, 4, 33)),
    "truth": (lambda x: (kd.any(x > 2, axis=1), kd.all(x > -3, axis=0)), normal(20, 50)),
    "integers": (lambda x: kd.sum(x, axis=-1), rng.integers(-99, 99, (9, 40)).astype("i1")),
    "cross entropy": (cross_entropy, normal(20, 50), rng.integers(0, 50, 20)),
}


@pytest.mark.parametrize("name", FOLDS)
def test_folds(name):
    check(*FOLDS[name])


@pytest.mark.parametrize("shape", [(65, 48), (1, 1), (0, 4)])
def test_backward_of_a_norm_folds_rows_and_lines_at_once(shape):
    check_gradients(layer_norm, normal(*shape), normal(shape[1]), normal(shape[1]))


def test_backward_of_softmax():
    check_gradients(softmax, normal(9, 33))


def test_gradient_of_an_embedding_adds_in_order():
    check_gradients(lambda w, i: kd.take(w, i, axis=0) * 3, normal(23, 40), rng.integers(-23, 23, (4, 9)))


def test_scatters():
    check(lambda x, i, u: kd.scatter_add(x, i, u), normal(9), rng.integers(0, 9, 50), normal(50))
    check(lambda x, i, u: kd.scatter_add(x, i, u, axis=1), normal(3, 9, 5), rng.integers(0, 9, 7), normal(3, 7, 5))


@pytest.mark.parametrize("n, d", [(1, 1), (5, 33), (70, 1030)])
def test_named_sizes(n, d):
    check(softmax, normal(n, d), types={"x": kd.f32["N", "D"]})
    types = {"x": kd.f32["N", "D"], "w": kd.f32["D"], "b": kd.f32["D"]}
    check_gradients(layer_norm, normal(n, d), normal(d), normal(d), types=types)


def test_scans():
    check(lambda x: kd.cumulative_sum(x, axis=0), normal(20, 37))
    check_gradients(lambda x: kd.cumulative_prod(x, axis=1), normal(3, 9))


def test_sorts():
    check(lambda x: (kd.sort(x, axis=1), kd.argsort(x, axis=0)), normal(5, 13))


def test_products():
    check(lambda x, w, b: kd.tanh(x @ w + b), normal(33, 20), normal(20, 17), normal(17))


@pytest.mark.parametrize("k", [37, 56])
def test_products_of_what_lies_between_other_numbers(k):
    """Rows begin at pieces of 16 bytes and end within one, or before one that belongs to others."""
    x, y = normal(40, 64, dtype="f2"), normal(64, 24, dtype="f2")
    check(lambda a, b: a @ b, x[:, :k], y[:k])
    check(lambda a, b: a.T @ b, y[:k, :17], y[:k, 8:19])
