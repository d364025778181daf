"""Neighbours of scans live in their steps: selective scans written in several ways are one kernel that stores no states."""

from __future__ import annotations

import numpy as np
import pytest

import kdsl as kd
from tests.tolerance import assert_close
from tests.transforms.test_derivatives_scan import _count, assert_slopes

RNG = np.random.default_rng(8)


def run(a, b, like):
    _, hs = kd.scan(lambda h, now: (now[0] * h + now[1],) * 2, kd.zeros(like, dtype=a.dtype), (a, b), axis=1)
    return hs


def by_broadcasts(x, dt, a, b, c, d, z):
    dt = kd.log1p(kd.exp(dt))
    hs = run(kd.exp(dt[..., None] * a), (dt * x)[..., None] * b[:, :, None, :], (x.shape[0], *a.shape))
    return (kd.sum(hs * c[:, :, None, :], axis=-1) + d * x) * z * kd.sigmoid(z)


def by_einsum(x, dt, a, b, c, d, z):
    dt = kd.log1p(kd.exp(dt))
    decay = kd.exp(kd.einsum("bld,dn->bldn", dt, a))
    hs = run(decay, kd.einsum("bld,bld,bln->bldn", dt, x, b), (x.shape[0], *a.shape))
    return (kd.einsum("bldn,bln->bld", hs, c) + d * x) * z * kd.sigmoid(z)


def with_the_last_state(x, dt, a, b, c, d, z):
    def step(h, now):
        x, dt, b, c, z = now
        dt = kd.log1p(kd.exp(dt))
        h = kd.exp(dt[:, :, None] * a) * h + (dt * x)[:, :, None] * b[:, None, :]
        return h, kd.sum(h * c[:, None, :], axis=-1) * z

    last, ys = kd.scan(step, kd.zeros((x.shape[0], *a.shape), dtype=x.dtype), (x, dt, b, c, z), axis=1)
    return last, kd.tanh(ys) * d


def arguments(batch, length, width, states, dtype="f4"):
    wide, slim = (batch, length, width), (batch, length, states)
    shapes = [wide, wide, (width, states), slim, slim, (width,), wide]
    args = [RNG.standard_normal(s).astype(dtype) for s in shapes]
    args[2] = -np.abs(args[2])
    return args


WAYS = [by_broadcasts, by_einsum, with_the_last_state]


@pytest.mark.parametrize("f", WAYS)
def test_nothing_of_the_states_size_is_stored(f):
    args = arguments(2, 40, 32, 16)
    k = kd.kernel(f)
    got, want = k(*args), k.reference(*args)
    for g, w in zip(*((x if isinstance(x, tuple) else (x,)) for x in (got, want)), strict=True):
        assert_close(g, w, operations=200, scale=20)  # the states are that large
    forward = k.explain(*args)
    assert [p.kind for p in forward.kernels] == ["kernel"] and not forward.stored_intermediates
    both = k.pullback.explain(*args)
    stored = [_count(s) for s in both.stored_intermediates]
    assert not stored or max(stored) * 4 <= 2 * 40 * 32 * 16
    inputs = sum(x.nbytes for x in args)
    assert forward.kernels[0].bytes <= inputs + sum(np.asarray(x).nbytes for x in (got if isinstance(got, tuple) else (got,)))


@pytest.mark.parametrize("f", WAYS)
@pytest.mark.parametrize("sizes", [(1, 9, 3, 2), (2, 5, 9, 4)])
def test_gradients(f, sizes):
    assert_slopes(f, *arguments(*sizes, dtype="f8"))


def test_what_others_read_stays_outside():
    def f(x, w):
        u = kd.exp(x) * w
        last, ys = kd.scan(lambda h, u: (h * 0.5 + u, h * u), kd.zeros(x.shape[1], dtype=x.dtype), u)
        return u, last, kd.sum(ys, axis=0), kd.sum(ys, axis=1), ys * kd.sum(ys)

    args = RNG.standard_normal((7, 5)), RNG.standard_normal(5)
    k = kd.kernel(f)
    for g, w in zip(k(*args), k.reference(*args), strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-12, atol=1e-12)
    assert_slopes(f, *args)


def test_a_scan_after_a_scan():
    def f(x):
        return kd.cumulative_sum(kd.tanh(kd.cumulative_sum(x, axis=1)) * x, axis=0)

    x = RNG.standard_normal((5, 11))
    np.testing.assert_allclose(kd.kernel(f)(x), np.cumsum(np.tanh(np.cumsum(x, 1)) * x, 0), rtol=1e-12)
    assert_slopes(f, x)
