"""Calls of kernels, vjps and pullbacks that look like an earlier one: the same results without reading the signature again."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref

import numpy as np
import pytest

import kdsl as kd

X = np.linspace(-1, 1, 15, dtype=np.float32).reshape(3, 5)
W = np.linspace(0.5, 2, 5, dtype=np.float32)
LENGTHS = (5, 1, 0, 7)


@pytest.fixture
def short(monkeypatch):
    """From now on the signature of the kernel must not be read."""

    def long_way(*args):
        raise AssertionError("the long way")

    return lambda kernel: monkeypatch.setattr(kernel, "read", long_way)


def same(a, b):
    assert type(a) is type(b)
    if isinstance(a, (tuple, list)):
        assert len(a) == len(b)
        for x, y in zip(a, b):
            same(x, y)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        same(list(a.values()), list(b.values()))
    else:
        assert np.array_equal(a, b)


@kd.kernel
def scaled(x: kd.f32["N", "D"], w: kd.f32["D"], k: kd.f32 = 2.0):
    return kd.sum(kd.exp(x * w), axis=-1) * k


@kd.kernel
def nested(params, rate, *, power=2):
    (a, b), c = params["pair"], params["other"]
    return {"a": [a * b**power], "both": (c * rate, kd.sum(c))}


def test_gradients_take_the_short_way(short):
    dy = X[:, 0]
    calls = [(X, W, 1.5), (X, W, 0.5), (X[:2], W, 0.0)]
    expected = [
        (scaled(*c), scaled.vjp(*c, dy[: len(c[0])]), scaled.pullback(*c)[1](dy[: len(c[0])])) for c in calls
    ]
    short(scaled)
    for c, (y, gradients, pulled) in zip(calls, expected):
        cotangent = dy[: len(c[0])]
        same(scaled(*c), y)
        same(scaled.vjp(*c, cotangent), gradients)
        results, pullback = scaled.pullback(*c)
        same(results, y)
        for _ in range(2):
            same(pullback(cotangent), pulled)
        same(gradients, pulled)


def test_defaults_take_the_short_way(short):
    expected = scaled(X, W), scaled.vjp(X, W, X[:, 0]), scaled.pullback(X, W)[1](X[:, 0])
    pullback = scaled.pullback(X, W)[1]
    short(scaled)
    same(scaled(X, W), expected[0])
    same(scaled.vjp(X, W, X[:, 0]), expected[1])
    same(pullback(X[:, 0]), expected[2])


def test_nested_arguments_take_the_short_way(short):
    def arguments():
        return {"pair": [X + 0, X * 2], "other": W + 0}, 0.25

    cotangents = X, W, np.float32(3)
    shapes = [np.asarray(c) for c in cotangents]
    expected = nested(*arguments(), power=3), nested.vjp(*arguments(), *shapes, power=3)
    nested.pullback(*arguments(), power=3)[1](*shapes)
    short(nested)
    same(nested(*arguments(), power=3), expected[0])
    same(nested.vjp(*arguments(), *shapes, power=3), expected[1])
    results, pullback = nested.pullback(*arguments(), power=3)
    same(results, expected[0])
    same(pullback(*shapes), expected[1])


@pytest.mark.parametrize("n", LENGTHS)
def test_sizes_that_no_array_of_the_backward_tells(n):
    total = kd.kernel(lambda x: kd.sum(x), types=(kd.f32["N"],))
    for length in (n, *LENGTHS, n):
        x = np.ones(length, np.float32)
        for cotangent in (2.0, np.full((), 2, np.float32)):
            (gradient,) = total.pullback(x)[1](cotangent)
            assert np.array_equal(gradient, np.full(length, 2, np.float32))


def test_pullbacks_of_one_kernel_do_not_mix():
    product = kd.kernel(lambda x, w: kd.sum(x * w, axis=-1), types=(kd.f32["N", "D"], kd.f32["D"]))
    several = [product.pullback(X[:n] * n, W + n)[1] for n in (1, 2, 3, 2)]
    for n, pullback in reversed(list(zip((1, 2, 3, 2), several))):
        dx, dw = pullback(np.ones(n, np.float32))
        assert np.allclose(dx, np.broadcast_to(W + n, (n, 5)))
        assert np.allclose(dw, np.sum(X[:n] * n, 0))
        with pytest.raises(kd.ShapeError):
            pullback(np.ones(n + 1, np.float32))


def test_a_pullback_keeps_alive_what_it_needs_and_no_more():
    f = kd.kernel(lambda x, w: kd.sum(x * 2) + kd.sum(w * w))
    for _ in range(3):
        x, w = np.ones(100, np.float32), np.ones(50, np.float32)
        watched = weakref.ref(x), weakref.ref(w)
        _, pullback = f.pullback(x, w)
        del x, w
        gc.collect()
        assert watched[0]() is None
        assert watched[1]() is not None
        assert np.array_equal(pullback(1.0)[1], np.full(50, 2, np.float32))
        del pullback
        gc.collect()
        assert watched[1]() is None


def test_results_may_be_written_without_harm_to_the_pullback():
    f = kd.kernel(lambda x, w: kd.tanh(x @ w))
    x, w = X @ X.T, X.copy()
    expected = f.vjp(x, w, X)
    for _ in range(3):
        y, pullback = f.pullback(x, w)
        y[...] = 0
        assert np.allclose(pullback(X)[0], expected[0], atol=1e-6)


def test_an_argument_that_was_given_another_shape_is_told():
    f = kd.kernel(lambda x: kd.sum(x * x))
    for _ in range(2):
        x = np.ones((4, 6), np.float32)
        _, pullback = f.pullback(x)
        pullback(1.0)
        x.shape = (2, 12)
        with pytest.raises(kd.ShapeError, match=r"had the shape \(4, 6\)"):
            pullback(1.0)


def test_rules_run_once_for_each_kind_of_arguments():
    runs = []

    @kd.kernel
    def f(x):
        return x * x

    @f.defvjp
    def rule(args, results, cotangents):
        runs.append(1)
        return (cotangents[0] * 10,)

    for _ in range(3):
        assert np.array_equal(f.vjp(X, X)[0], X * 10)
        assert np.array_equal(f.pullback(X)[1](X)[0], X * 10)
    before = len(runs)
    assert before <= 2
    f.defvjp(lambda args, results, cotangents: (cotangents[0] * 3,))
    assert np.array_equal(f.vjp(X, X)[0], X * 3)
    assert np.array_equal(f.pullback(X)[1](X)[0], X * 3)


def test_a_kernel_on_arrays_within_a_kernel_is_a_part_of_it_however_often_it_ran():
    inner = kd.kernel(lambda c: c * 3)
    texts = []
    for _ in range(2):
        f = kd.kernel(lambda x: x + inner(W)[0])
        texts.append(f.stages(kd.f32[5])["traced"])
        assert np.array_equal(f(W), W + W[0] * 3)
        inner(W)
    assert texts[0] == texts[1]


def test_the_target_of_the_environment_is_read_once(monkeypatch):
    f = kd.kernel(lambda x: x + 1)
    f(X)
    monkeypatch.setenv("KDSL_TARGET", "nonsense")
    assert np.array_equal(f(X), X + 1)
    assert np.array_equal(f(X[:2]), X[:2] + 1)


def test_the_target_of_the_environment_is_used():
    code = "import numpy as np, kdsl as kd; print(kd.kernel(lambda x: x + 1)(np.ones(3, 'f4')))"
    environment = {**os.environ, "KDSL_TARGET": "nonsense"}
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=600)
    assert ran.returncode != 0
    assert "no target is called 'nonsense'" in ran.stderr
