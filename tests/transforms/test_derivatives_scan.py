"""Derivatives of scans: finite differences in f64, second derivatives, both halves of a pullback, what is stored."""

from __future__ import annotations

import numpy as np
import pytest

import kdsl as kd

RNG = np.random.default_rng(4)


def normal(*shape):
    return RNG.standard_normal(shape)


def leaves(x):
    return [y for part in x for y in leaves(part)] if isinstance(x, (tuple, list)) else [] if x is None else [x]


def assert_slopes(f, *args, step=1e-6):
    """The derived gradients along a random direction of each argument are the slopes of the kernel."""
    k = f if isinstance(f, kd.Kernel) else kd.kernel(f)
    results = leaves(k(*args))
    cotangents = [normal(*r.shape) for r in results]
    gradients = k.vjp(*args, *cotangents)
    _, pullback = k.pullback(*args)
    for i, (g, again) in enumerate(zip(gradients, pullback(*cotangents), strict=True)):
        np.testing.assert_allclose(again, g, rtol=1e-12, atol=1e-12)
        direction = normal(*args[i].shape)
        near = [leaves(k(*args[:i], args[i] + sign * step * direction, *args[i + 1 :])) for sign in (1, -1)]
        slope = sum(((a - b) * c).sum() for a, b, c in zip(*near, cotangents, strict=True)) / (2 * step)
        assert abs(slope - (g * direction).sum()) <= 2e-7 * max(1, abs(slope)), f"argument {i}"


LENGTHS = [0, 1, 2, 7, 8, 9, 16, 17, 33]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_step_that_is_not_linear(length, reverse):
    def f(w, h, xs):
        return kd.scan(lambda c, x: (kd.tanh(c * w + x), c * c), h, xs, reverse=reverse)

    assert_slopes(f, normal(3), normal(3), normal(length, 3))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_linear_step(length, reverse):
    def f(a, xs):
        last, ys = kd.scan(lambda c, x: (c * x[0] + x[1], c + x[1]), kd.zeros(5, dtype=kd.f64), (a, xs), axis=1, reverse=reverse)
        return last, ys

    assert_slopes(f, normal(5, length), normal(5, length))


def selective_scan(x, dt, a, b, c, d):
    def step(h, now):
        x, dt, b, c = now
        h = kd.exp(dt[:, :, None] * a) * h + (dt * x)[:, :, None] * b[:, None, :]
        return h, kd.sum(h * c[:, None, :], axis=-1) + d * x

    return kd.scan(step, kd.zeros((x.shape[0], *a.shape), dtype=x.dtype), (x, dt, b, c), axis=1)


@pytest.mark.parametrize(("batch", "length", "width", "states"), [(2, 5, 3, 4), (1, 17, 24, 16), (3, 1, 1, 1), (2, 3, 9, 2)])
def test_selective_scan(batch, length, width, states):
    wide, slim = (batch, length, width), (batch, length, states)
    args = normal(*wide), abs(normal(*wide)), -abs(normal(width, states)), normal(*slim), normal(*slim), normal(width)
    assert_slopes(selective_scan, *args)
    largest = batch * length * width * states
    found = kd.kernel(selective_scan).pullback.explain(*args)
    assert not [s for s in found.stored_intermediates if width > 9 and _count(s) >= largest]


def _count(buffer):
    text = buffer.split("[")[1].rstrip("]")
    return int(np.prod([int(n) for n in text.split(",") if n.strip()]))


def test_second_derivatives():
    def f(w, xs):
        last, ys = kd.scan(lambda c, x: (kd.sin(c * w + x), c * c), w, xs)
        return kd.sum(last) + kd.sum(ys * xs)

    def slope(w, xs):
        dw, dxs = kd.grad(f, argnums=(0, 1))(w, xs)
        return kd.sum(dw * dw) + kd.sum(dxs * dxs * xs)

    for length in (0, 1, 2, 9):
        assert_slopes(lambda w, xs: kd.grad(f, argnums=(0, 1))(w, xs), normal(2), normal(length, 2))
        assert_slopes(slope, normal(2), normal(length, 2))


def test_gradients_of_cumulative_functions():
    for name in ("cumulative_sum", "cumulative_prod", "cumulative_max"):
        assert_slopes(lambda x, name=name: getattr(kd, name)(x, axis=1), normal(3, 17))


def test_gradient_of_an_associative_scan():
    def f(a, b):
        return kd.associative_scan(lambda p, q: (p[0] * q[0], p[1] * q[0] + q[1]), (a, b), axis=1)

    assert_slopes(f, normal(2, 9), normal(2, 9))


def test_integer_carries_have_no_gradient():
    def f(xs):
        def step(carry, x):
            h, count = carry
            return (h * 0.5 + x * count.astype(kd.f64), count + 1), h

        (h, _), ys = kd.scan(step, (kd.zeros(2, dtype=kd.f64), 1), xs)
        return h, ys

    assert_slopes(f, normal(19, 2))


@pytest.mark.parametrize("sizes", [(2, 3, 4, 5), (1, 1, 1, 1), (3, 13, 7, 9), (2, 4, 3, 0)])
def test_a_step_with_products(sizes):
    """What a closure gets from a product is contracted once over all steps, not added up step by step."""
    batch, state, width, length = sizes

    def f(h, u, w, bias, xs):
        def step(h, x):
            h = kd.tanh(h @ u + x @ w + bias)
            return h, h

        return kd.scan(step, h, xs)

    args = normal(batch, state), normal(state, state) / 2, normal(width, state), normal(state), normal(length, batch, width)
    assert_slopes(f, *args)


def test_a_carry_that_is_shifted_and_turned():
    def f(h, xs):
        return kd.scan(lambda c, x: (kd.concat([c[1:] * 0.9, c[:1]]) + x, c[::-1] @ c), h, xs)

    assert_slopes(f, normal(5), normal(7, 5))


def test_small_matrices():
    def f(p, a, q, xs):
        def step(p, x):
            p = a @ p @ a.mT + q * x[:, None, None]
            return p, kd.sum(p * p, axis=(1, 2))

        return kd.scan(step, p, xs)

    assert_slopes(f, normal(2, 3, 3), normal(3, 3), normal(3, 3), normal(6, 2))


def test_rows_of_a_table():
    ids = RNG.integers(0, 5, (7, 2))

    def f(table, u, h):
        def step(h, i):
            h = kd.tanh(h * 0.5 + kd.take(table, i, axis=0) @ u)
            return h, h

        return kd.scan(step, h, ids)

    assert_slopes(f, normal(5, 4), normal(4, 3), normal(2, 3))


# --- memory ----------------------------------------------------------------------------------------------------------------
def test_explain_says_what_is_kept(capsys):
    batch, length, width, states = 2, 64, 24, 16
    wide, slim = kd.f32[batch, length, width], kd.f32[batch, length, states]
    found = kd.kernel(selective_scan).pullback.explain(wide, wide, kd.f32[width, states], slim, slim, kd.f32[width])
    (forward,) = (k for k in found.kernels if k.part.endswith("forward"))
    assert "states kept every 8 steps: 24.6 kbytes" in forward.notes  # 8 of (2, 24, 16) in f32
    assert "states made again from those kept, 8 steps at a time" in str(found)
    assert "between kernels" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_a_pullback_keeps_states_in_f32(dtype):
    """So that its gradient is the vjp's, bit for bit, and states are not rounded once more on the way back."""
    d = getattr(kd, dtype)

    def elementwise(w, h, xs):
        return kd.scan(lambda c, x: (kd.tanh(c * w + x), c * c), h, xs)

    def product(w, h, xs):
        return kd.scan(lambda c, x: (kd.tanh(c @ w + x), c), h, xs)

    for f, shapes in ((elementwise, ((9,), (2, 9), (40, 2, 9))), (product, ((9, 9), (2, 9), (40, 2, 9)))):
        args = [(normal(*s) / 2).astype(d.numpy) for s in shapes]
        k = kd.kernel(f)
        results, pullback = k.pullback(*args)
        cotangents = [normal(*r.shape).astype(d.numpy) for r in results]
        for g, again in zip(k.vjp(*args, *cotangents), pullback(*cotangents), strict=True):
            np.testing.assert_array_equal(g.view("u2"), again.view("u2"))
        kept = [w for k in k.pullback.explain(*args).kernels for w in k.writes if "[5, 2, 9]" in w]
        assert kept
        assert all(": f32[" in w for w in kept)
