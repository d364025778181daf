"""Scans in chunks whose carries wait for each other: momentum, oscillators, recurrences of the second order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kdsl as kd
from kdsl.ir.meaning import evaluate
from kdsl.transforms.expand import expand
from kdsl.transforms.parallel_scans import parallel_scans
from tests.transforms.test_parallel_scans import SMALL, compare, is_parallel, notes, traced

RNG = np.random.default_rng(21)


def momentum(g, rate):
    def step(carry, g):
        v, x = carry
        v = 0.9 * v + g
        x = x - rate * v
        return (v, x), x * v

    zero = kd.zeros((), dtype=g.dtype)
    return kd.scan(step, (zero, zero + 1), g)


def oscillator(force, damping, h):
    """x'' + damping x' + x = force, by half-implicit Euler, from the end."""

    def step(carry, now):
        x, v = carry
        f, d = now
        v = v + h * (f - d * v - x)
        x = x + h * v
        return (x, v), (x, v)

    zero = kd.zeros((), dtype=force.dtype)
    return kd.scan(step, (zero, zero), (force, damping), reverse=True)


def second_order(a, b, x):
    """h[t] = a[t] h[t-1] + b[t] h[t-2] + x[t]"""

    def step(carry, now):
        p, q = carry
        a, b, x = now
        new = a * p + b * q + x
        return (new, p), new

    zero = kd.zeros((a.shape[0],), dtype=x.dtype)
    return kd.scan(step, (zero, zero), (a, b, x), axis=1)[1]


def cascade(x, reset):
    """Three averages of averages, one of them set back now and then, beside one that minds its own business."""

    def step(carry, now):
        a, b, c, d = carry
        x, r = now
        a = 0.5 * a + x
        b = kd.where(r > 1, a, 0.25 * b + 0.75 * a)
        c = kd.tanh(x) * c - b / 3
        d = kd.sigmoid(x) * d + x
        return (a, b, c, d), a + b * c + d

    zero = kd.zeros((), dtype=x.dtype)
    return kd.scan(step, (zero,) * 4, (x, reset))[1]


@pytest.mark.parametrize("length", [7, 24, 33])
def test_momentum(length):
    compare(momentum, (RNG.standard_normal(length), np.array(0.01)), parallel=None if length < 16 else True)


@pytest.mark.parametrize("length", [6, 31])
@pytest.mark.parametrize("f", [oscillator, second_order, cascade], ids=lambda f: f.__name__)
def test_others(f, length):
    x, y, z = (RNG.standard_normal((2, length)) for _ in "xyz")
    args = {oscillator: (x[0], np.abs(y[0]), np.array(0.1)), second_order: (x / 2, y / 3, z), cascade: (x[0], y[0])}[f]
    compare(f, args, parallel=None if length < 16 else True)


@pytest.mark.parametrize("dtype", ["f2", "f4", "i4", "u8", "i8"])
def test_dtypes(dtype):
    if dtype == "f2":
        x = RNG.standard_normal(66).astype(dtype)
        return compare(lambda x: second_order(x[None] / 2, x[None] / 4, x[None]), (x,), tolerance=2e-2, gradient=False)
    if dtype == "f4":
        x = RNG.standard_normal((3, 66)).astype(dtype)
        return compare(lambda x: second_order(x[:1] / 2, x[1:2] / 4, x[2:]), (x,), tolerance=2e-4)
    x = RNG.integers(0, 100, (1, 66)).astype(dtype)  # Fibonacci's numbers wrap
    return compare(second_order, (np.ones_like(x), np.ones_like(x), x), gradient=False)


def test_what_waits_in_other_ways_runs_step_by_step():
    x = RNG.standard_normal(64)

    def product(x):  # not linear in both together
        return kd.scan(lambda c, v: ((c[0] + v, c[0] * c[1]), c[1]), (x[0], x[1]), x)[1]

    def largest(x):
        return kd.scan(lambda c, v: ((c[0] + v, kd.maximum(c[1], c[0])), c[1]), (x[0], x[1]), x)[1]

    def many(x):
        def step(c, v):
            return (c[1], c[2], c[3], c[4], 0.5 * c[0] + v), c[0]

        return kd.scan(step, (x[0],) * 5, x)[1]

    for f in (product, largest, many):
        compare(f, (x,), parallel=False, gradient=False)
    chunked = parallel_scans(expand(traced(many, x)), SMALL)
    assert any("5 carries wait for each other" in n for n in notes(chunked))


def by_steps(f, *args):
    with np.errstate(all="ignore"):
        return evaluate(expand(traced(f, *args)), *args)


def chunked(f, *args):
    program = parallel_scans(expand(traced(f, *args)), SMALL)
    assert is_parallel(program)
    with np.errstate(all="ignore"):
        return evaluate(program, *args)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["f4", "f8"]))
def test_infinities_and_nan_reach_what_they_reach_step_by_step(seed, dtype):
    """Where the steps give a finite number so do chunks, and the same; where chunks do, the steps do."""
    rng = np.random.default_rng(seed)
    x, reset = rng.standard_normal(64), rng.standard_normal(64)
    for value in (np.inf, -np.inf, np.nan):
        x[rng.integers(0, 64)] = value

    def f(x, reset):
        def step(carry, now):
            v, h = carry
            x, r = now
            v = kd.where(r > 1, 0.0, 0.5 * v + x)
            h = kd.where(r > 1, 1.0, 0.5 * h - v)
            return (v, h), (v, h)

        zero = kd.zeros((), dtype=x.dtype)
        return kd.scan(step, (zero, zero), (x, reset))[1]

    args = x.astype(dtype), reset.astype(dtype)
    for got, want in zip(chunked(f, *args), by_steps(f, *args), strict=True):
        finite = np.isfinite(want)
        np.testing.assert_array_equal(np.isfinite(got), finite)
        np.testing.assert_allclose(got[finite], want[finite], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_products_that_leave_the_range(dtype):
    """Growth beyond the range in a chunk and decay in the next, while the carry itself stays in range; decays that underflow."""
    big = 1e12 if dtype == "f4" else 1e100
    a = np.ones((1, 96), dtype)
    a[:, 8:20], a[:, 20:32] = big, 1 / big
    a[:, 40:80] = 1e-30
    x = np.zeros_like(a)
    x[:, 33], x[:, 70] = 1, 2

    def f(a, x):
        def step(carry, now):
            p, q = carry
            a, x = now
            p = a * p + x
            q = a * q + p
            return (p, q), (p, q)

        zero = kd.zeros((1,), dtype=x.dtype)
        return kd.scan(step, (zero, zero), (a, x), axis=1)[1]

    for got, want in zip(chunked(f, a, x), by_steps(f, a, x), strict=True):
        assert np.isfinite(want).all()
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-30)


def test_65536_steps_are_as_exact_as_one_after_the_other():
    n = 65536
    g = RNG.standard_normal(n)
    f = kd.kernel(lambda g: momentum(g, 0.01)[1])
    f4 = f(g.astype("f4")).astype("f8")
    assert any("side by side" in note for k in f.explain(g.astype("f4")).kernels for note in k.notes)
    v = x = 0.0
    s = t = np.float32(0)
    exact, single = np.empty(n), np.empty(n)
    x, t = 1.0, np.float32(1)
    rate, decay = np.float32(0.01), np.float32(0.9)
    for i, now in enumerate(g):
        v = 0.9 * v + float(np.float32(now))
        x = x - 0.01 * v
        exact[i] = x * v
        s = decay * s + np.float32(now)
        t = t - rate * s
        single[i] = t * s
    mine, theirs = np.abs(f4 - exact).max(), np.abs(single - exact).max()
    assert not mine > 1.5 * theirs + 1e-5
