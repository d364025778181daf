"""Steps whose carry stays in registers: what a chunk keeps near, sums over the lane, and steps unlike the selective scan's."""

from __future__ import annotations

import numpy as np
import pytest

import kdsl as kd
from kdsl.ir.meaning import evaluate
from kdsl.transforms.differentiate import vjp
from kdsl.transforms.simplify import simplify


def selective(x, dt, a, b, c):
    def step(h, now):
        x, dt, b, c = now
        h = kd.exp(dt[:, :, None] * a) * h + (dt * x)[:, :, None] * b[:, None, :]
        return h, kd.sum(h * c[:, None, :], axis=-1)

    return kd.scan(step, kd.zeros((x.shape[0], *a.shape), dtype=a.dtype), (x, dt, b, c), axis=1)[1]


def gated(x, dt, a, b, c):
    """Two dear values, of which one needs the state, and a second sum over the channels."""

    def step(h, now):
        x, dt, b, c = now
        gate = kd.sigmoid(dt[:, :, None] * a + h)
        h = gate * h + kd.tanh(x[:, :, None] * b[:, None, :])
        return h, (kd.sum(h * c[:, None, :], axis=-1), kd.sum(h * gate, axis=1))

    return kd.scan(step, kd.zeros((x.shape[0], *a.shape), dtype=a.dtype), (x, dt, b, c), axis=1)


def states_first(x, dt, a, b, c):
    """The axes of the carry the other way round, from the last step to the first."""

    def step(h, now):
        x, dt, b, c = now
        h = kd.exp(dt[:, None, :] * a.T) * h + (dt * x)[:, None, :] * b[:, :, None]
        return h, kd.max(h * c[:, :, None], axis=1)

    start = kd.zeros((x.shape[0], *a.T.shape), dtype=a.dtype)
    return kd.scan(step, start, (x, dt, b, c), axis=1, reverse=True)


def shared_decay(x, dt, a, b, c):
    """One decay for all channels: its gradient is a sum over everything."""

    def step(h, now):
        x, dt, b, c = now
        h = kd.exp(dt) * h + x
        return h, (h * kd.sum(b * c, axis=-1, keepdims=True), kd.sum(h, axis=1))

    return kd.scan(step, x[:, 0] * a[:, 0], (x, dt, b, c), axis=1)


def waiting(x, dt, a, b, c):
    """Each state waits for a fold over all of them: no step in parts."""

    def step(h, now):
        x, dt, b, c = now
        h = kd.exp(dt[:, :, None] * a) * h + (dt * x)[:, :, None] * b[:, None, :]
        h = h / (1 + kd.sum(h * h, axis=-1, keepdims=True))
        return h, kd.sum(h * c[:, None, :], axis=-1)

    return kd.scan(step, kd.zeros((x.shape[0], *a.shape), dtype=a.dtype), (x, dt, b, c), axis=1)


def turning(x, dt, a, b, c):
    """Carries that wait for each other, one of them without states; folds of two kinds, the states themselves."""

    def step(carry, now):
        h, g, most = carry
        x, dt, b, c = now
        angle = dt[:, :, None] * a
        next_h = x[:, :, None] * b[:, None, :] - angle * g
        next_g = 0.8 * h + angle
        top = kd.max(next_h * c[:, None, :], axis=-1)
        return (next_h, next_g, kd.maximum(most * 0.5, top)), (most + kd.sum(next_g, axis=-1), next_h * next_g)

    zero = kd.zeros((x.shape[0], *a.shape), dtype=a.dtype)
    return kd.scan(step, (zero, zero + 1, x[:, 0]), (x, dt, b, c), axis=1)


STEPS = [selective, gated, states_first, shared_decay, waiting, turning]
SIZES = [(1, 33, 40, 8), (2, 40, 13, 5), (2, 1, 3, 1), (1, 9, 21, 15)]


def arguments(batch, length, width, states, dtype="f8"):
    rng = np.random.default_rng(batch + length + width + states)
    g = lambda *s: (rng.standard_normal(s) * 0.5).astype(dtype)  # noqa: E731
    a = -np.abs(g(width, states))
    return g(batch, length, width), np.abs(g(batch, length, width)), a, g(batch, length, states), g(batch, length, states)


def leaves(results):
    return [np.asarray(results)] if not isinstance(results, (tuple, list)) else [leaf for r in results for leaf in leaves(r)]


def compare(f, args, dtype="f8", bound=1e-9):
    k = kd.kernel(f)
    results, wide = leaves(k(*args)), [np.asarray(v, "f8") for v in args]
    exact = kd.kernel(f)
    for got, want in zip(results, leaves(exact.reference(*wide)), strict=True):
        np.testing.assert_allclose(np.asarray(got, "f8"), want, rtol=bound, atol=bound)
    rng = np.random.default_rng(0)
    cotangents = [rng.standard_normal(r.shape).astype(r.dtype) for r in results]
    function = simplify(exact.traced(exact.read(tuple(wide), {})).function)
    wanted = evaluate(vjp(function), *wide, *(np.asarray(v, "f8") for v in cotangents))
    _, pullback = k.pullback(*args)
    for gradients in (k.vjp(*args, *cotangents), pullback(*cotangents)):
        for got, want in zip(gradients, wanted, strict=True):
            scale = max(1.0, np.abs(want).max(initial=0))
            np.testing.assert_allclose(np.asarray(got, "f8"), want, rtol=bound, atol=bound * scale)


@pytest.mark.parametrize("f", STEPS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_values_and_gradients(f, sizes):
    compare(f, arguments(*sizes))


@pytest.mark.parametrize("sizes", [(2, 70, 24, 16), (1, 17, 200, 24), (2, 9, 16, 64)], ids=str)
def test_f32(sizes):
    compare(selective, arguments(*sizes, "f4"), bound=2e-5)


@pytest.mark.parametrize(
    "names", [("B", "L", 24, 16), ("B", "L", "D", 16), (2, 37, "D", 16), ("B", "L", "D", "N")], ids=str
)
def test_named_sizes(names):
    B, L, D, N = names
    types = [kd.f64[B, L, D], kd.f64[B, L, D], kd.f64[D, N], kd.f64[B, L, N], kd.f64[B, L, N]]
    compare(kd.kernel(selective, types=types), arguments(2, 37, 24, 16))


def half(x, dt, a, b, c):
    """Halves in memory: what a step gives is cast after its sum."""

    def step(h, now):
        x, dt, b, c = (kd.astype(v, kd.f32) for v in now)
        h = kd.exp(dt[:, :, None] * a) * h + (dt * x)[:, :, None] * b[:, None, :]
        return h, kd.astype(kd.sum(h * c[:, None, :], axis=-1), kd.bf16)

    return kd.scan(step, kd.zeros((x.shape[0], *a.shape)), (x, dt, b, c), axis=1)[1]


def test_casts_of_results_leave_the_carry_in_registers():
    x, dt, a, b, c = arguments(2, 40, 24, 16, "f4")
    args = [v if v is a else v.astype(kd.bf16.numpy) for v in (x, dt, a, b, c)]
    exact = [v.astype("f4") for v in args]
    k, f = kd.kernel(half), kd.kernel(selective)
    y, z = k(*args), f(*exact)
    np.testing.assert_array_equal(y, z.astype(y.dtype))
    text = k.vjp.stages(*args, y)["scheduled"]
    assert "states_0 = near(f32[" in text
    for got, want in zip(k.vjp(*args, y), f.vjp(*exact, y.astype("f4")), strict=True):
        np.testing.assert_allclose(got.astype("f4"), want, rtol=2**-8, atol=1e-5)


def scheduled(f, sizes):
    args = arguments(*sizes, "f4")
    k = kd.kernel(f)
    return k.vjp.stages(*args, *leaves(k(*args)))["scheduled"]


def test_what_the_replay_made_is_not_made_again():
    text = scheduled(selective, (4, 128, 384, 16))
    kernel = next(part for part in text.split("@kernel") if "replay_0" in part)
    assert kernel.count("exp(") == 1
    assert "put(kept_0[" in kernel and "put(sums_0[" in kernel
    assert "temporary(f32[6, 4, 128, 16]" in text  # 48 tiles of channels, 8 to a block


def test_invariants_are_read_before_the_steps():
    k = kd.kernel(selective)
    text = k.stages(*arguments(4, 128, 384, 16, "f4"))["scheduled"]
    steps = text[text.index("for step_0") :]
    assert "load(a[" not in steps and "load(a[" in text


def test_rows_far_apart_are_asked_for_ahead():
    """The processor's own prefetching ends at every page; nearer rows, and what a step has in one line, it finds itself."""
    f, kernel = kd.f32, kd.kernel(selective)
    wide, narrow = (
        kernel.stages(f[2, 64, n], f[2, 64, n], f[n, 4], f[2, 64, 4], f[2, 64, 4])["scheduled"] for n in (96, 32)
    )
    assert wide.count("prefetch(") == 3 and "step_0 + 16" in wide  # x, dt and the result
    assert "prefetch(" not in narrow
