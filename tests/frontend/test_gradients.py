"""vjp, pullback, grad, rules: structure, nesting, use inside kernels. Values are compared with finite differences or by hand."""

from __future__ import annotations

import numpy as np
import pytest

import kdsl as kd

RNG = np.random.default_rng(0)
X = RNG.standard_normal((5, 7)).astype(np.float32)
W = RNG.standard_normal(7).astype(np.float32)


@kd.kernel
def scaled(x, w, k=2, *, shift: kd.f32 = 0.0):
    return kd.sum(x * w, axis=-1) * k + shift


def test_one_gradient_for_each_positional_floating_argument():
    d = np.ones(5, np.float32)
    dx, dw = scaled.vjp(X, W, d)
    assert np.allclose(dx, np.broadcast_to(2 * W, X.shape))
    assert np.allclose(dw, 2 * X.sum(0), atol=1e-5)
    dx, dw = scaled.vjp(X, W, 3, d, shift=1.0)
    assert np.allclose(dx, np.broadcast_to(3 * W, X.shape))


def test_nested_arguments_give_nested_gradients():
    f = kd.kernel(lambda p, n: {"a": p["w"] * n, "b": [p["b"], p["i"]]})
    p = {"w": X, "i": np.arange(3), "b": W, "k": None}
    (dp,) = f.vjp(p, 3.0, X, W)
    assert list(dp) == ["w", "i", "b", "k"]
    assert dp["i"] is None
    assert dp["k"] is None
    assert np.allclose(dp["w"], 3 * X)
    assert np.allclose(dp["b"], W)


def test_zeros_where_there_is_no_influence():
    f = kd.kernel(lambda x, w: x * 2)
    _, dw = f.vjp(X, W, X)
    assert np.array_equal(dw, np.zeros_like(W))


def test_star_arguments_take_the_fewest_cotangents_that_fit():
    f = kd.kernel(lambda *xs: xs[0] * xs[-1])
    da, db = f.vjp(X, X + 1, np.ones_like(X))
    assert np.allclose(da, X + 1)
    assert np.allclose(db, X)


def test_pullback_gives_results_and_the_gradients_of_vjp():
    def softmax(x):
        e = kd.exp(x - kd.max(x, axis=-1, keepdims=True))
        return e / kd.sum(e, axis=-1, keepdims=True)

    f = kd.kernel(softmax)
    y, pullback = f.pullback(X)
    assert np.allclose(y, f(X))
    for d in (X, X[::-1], X.copy(order="F")):
        assert np.allclose(pullback(d)[0], f.vjp(X, d)[0], atol=1e-6)


@pytest.mark.parametrize("n", [0, 1, 2, 7, 33])
def test_pullback_with_named_sizes(n):
    x, w = RNG.standard_normal((n, 6)).astype(np.float32), RNG.standard_normal(6).astype(np.float32)
    y, pullback = named.pullback(x, w)
    d = RNG.standard_normal((6, n)).astype(np.float32).T
    t = np.tanh(x * w)
    assert np.allclose(y, t, atol=1e-6)
    dx, dw = pullback(d)
    assert np.allclose(dx, d * (1 - t * t) * w, atol=1e-5)
    assert np.allclose(dw, (d * (1 - t * t) * x).sum(0), atol=1e-5)
    assert np.allclose(named.vjp(x, w, d)[1], dw, atol=1e-5)


@kd.kernel
def named(x: kd.f32["N", "D"], w: kd.f32["D"]):
    return kd.tanh(x * w)


def test_grad_and_value_and_grad():
    loss = lambda w, x: kd.sum((x @ w) ** 2)  # noqa: E731
    g = kd.grad(loss)(W, X)
    assert np.allclose(g, 2 * X.T @ (X @ W), atol=1e-4)
    value, (dw, dx) = kd.value_and_grad(loss, (0, 1))(W, X)
    assert np.allclose(value, ((X @ W) ** 2).sum(), rtol=1e-5)
    assert np.allclose(dw, g, atol=1e-4)
    assert np.allclose(dx, 2 * np.outer(X @ W, W), atol=1e-4)
    assert np.allclose(kd.grad(loss, -1)(W, X), dx, atol=1e-4)


def test_derivatives_nest():
    cube = lambda x: kd.sum(x**3)  # noqa: E731
    second = kd.grad(lambda x: kd.sum(kd.grad(cube)(x)))
    assert np.allclose(second(X), 6 * X, atol=1e-4)
    third = kd.grad(lambda x: kd.sum(second(x)))
    assert np.allclose(third(X), np.full_like(X, 6), atol=1e-4)


def test_derivatives_inside_a_kernel():
    f = kd.kernel(lambda x: x**2)

    @kd.kernel
    def step(x, d):
        y, pullback = f.pullback(x)
        return y, pullback(d)[0], f.vjp(x, d)[0], kd.grad(lambda z: kd.sum(z * d))(x)

    y, a, b, c = step(X, X + 1)
    assert np.allclose(y, X**2, atol=1e-6)
    assert np.allclose(a, 2 * X * (X + 1), atol=1e-5)
    assert np.allclose(a, b)
    assert np.allclose(c, X + 1)


def test_a_rule_of_the_users():
    @kd.kernel
    def clipped(x, low, n):
        return kd.maximum(x, low), kd.sum(x) * n

    @clipped.defvjp
    def rule(args, results, cotangents):
        _, _, n = args
        y, _ = results
        dy, dt = cotangents
        return dy * 10 + y * 0 + dt * n, None, None

    dx, dlow = clipped.vjp(X, W, 3, X, np.float32(1))
    assert np.allclose(dx, X * 10 + 3, atol=1e-5)
    assert np.array_equal(dlow, np.zeros_like(W))
    outer = kd.grad(lambda x: kd.sum(clipped(x, W, 1)[0]) * 2)
    assert np.allclose(outer(X), np.full_like(X, 20))
    y, pullback = clipped.pullback(X, W, 3)
    assert np.allclose(y[0], np.maximum(X, W))
    assert np.allclose(pullback(X, np.float32(1))[0], dx)


def test_looking_at_derivatives():
    assert "derived" in scaled.vjp.stages(X, W, np.ones(5, np.float32))
    report = scaled.pullback.explain(kd.f32[5, 7], kd.f32[7])
    assert {k.part for k in report.kernels} == {"scaled_forward", "scaled_backward"}


def test_a_cotangent_is_not_taken_for_a_function_that_is_a_default():
    def scaled(x, change=lambda s: 2 * s):
        return change(x)

    x = np.ones(4, "f4")
    np.testing.assert_array_equal(kd.kernel(scaled).vjp(x, 3 * x)[0], 6 * x)
