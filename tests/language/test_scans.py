"""kd.scan, kd.associative_scan and the cumulative functions: what they mean, for all dtypes and shapes, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

import kdsl as kd
import kdsl.dtypes as dt
from tests.tolerance import assert_close

RNG = np.random.default_rng(0)


def check(f, *args, operations=100):
    """The compiled kernel gives what its NumPy meaning gives."""
    k = kd.kernel(f)
    got, want = k(*args), k.reference(*args)
    got, want = (x if isinstance(x, tuple) else (x,) for x in (got, want))
    for g, w in zip(got, want, strict=True):
        assert g.dtype == w.dtype
        assert_close(g, w, operations=operations, scale=max(1.0, float(np.max(np.abs(w), initial=0))))
    return got


@pytest.mark.parametrize("d", dt.ALL, ids=str)
@pytest.mark.parametrize("name", ["cumulative_sum", "cumulative_prod", "cumulative_max"])
def test_cumulative_functions_of_all_dtypes(name, d):
    x = (RNG.uniform(-2, 3, (3, 17))).astype(d.numpy)
    for axis, initial in ((0, False), (1, True)):
        check(lambda x, axis=axis, initial=initial: getattr(kd, name)(x, axis=axis, include_initial=initial), x)


@pytest.mark.parametrize("shape", [(0,), (1,), (0, 3), (3, 0), (1, 1), (2, 9, 5), (33,)])
def test_cumulative_sums_are_numpys(shape):
    x = RNG.integers(-9, 9, shape)
    for axis in range(len(shape)):
        np.testing.assert_array_equal(kd.cumulative_sum(x, axis=axis), np.cumsum(x, axis))


def test_flipping_reverses_without_a_copy():
    x = RNG.standard_normal((5, 31)).astype("f4")

    @kd.kernel
    def f(x):
        return kd.flip(kd.cumulative_sum(kd.flip(x, axis=1), axis=1), axis=1)

    assert_close(f(x), np.cumsum(x[:, ::-1], 1)[:, ::-1], operations=31, scale=9)
    assert len(f.explain(x).kernels) == 1


@pytest.mark.parametrize("reverse", [False, True])
def test_results_that_are_only_read_turned(reverse):
    """The scan runs the other way; where one of its results is read in place as well, it does not."""
    x, h = RNG.standard_normal((3, 17)).astype("f4"), np.ones(3, "f4")

    def step(c, v):
        return kd.tanh(c + v), {"a": c * v, "b": c}

    def all_turned(h, x):
        last, ys = kd.scan(step, h, x, axis=1, reverse=reverse)
        return last, kd.flip(ys["a"], axis=1), kd.exp(kd.flip(ys["b"], axis=1))

    def one_turned(h, x):
        last, ys = kd.scan(step, h, x, axis=1, reverse=reverse)
        return last, kd.flip(ys["a"], axis=1) * x, ys["b"] + kd.flip(ys["b"], axis=1)

    for f in (all_turned, one_turned):
        check(f, h, x)
    assert len(kd.kernel(all_turned).explain(h, x).kernels) == 1


def test_outside_a_kernel():
    np.testing.assert_array_equal(kd.cumulative_sum(np.arange(5)), np.cumsum(np.arange(5)))


@pytest.mark.parametrize("length", [0, 1, 2, 31, 33])
@pytest.mark.parametrize("reverse", [False, True])
def test_xs_and_ys_along_any_axis(length, reverse):
    x = RNG.standard_normal((2, length, 5)).astype("f4")[:, ::-1]
    check(lambda x: kd.scan(lambda c, v: (c * 0.5 + v, v - c), kd.ones((2, 5)), x, axis=1, reverse=reverse), x)


def test_named_sizes():
    @kd.kernel
    def f(x: kd.f32["L", "D"]):
        return kd.scan(lambda c, v: (c * 0.5 + v, v - c), kd.zeros(x.shape[1]), x)

    for shape in [(0, 3), (1, 1), (7, 8), (5, 37)]:
        x = RNG.standard_normal(shape).astype("f4")
        for g, w in zip(f(x), f.reference(x), strict=True):
            assert_close(g, w, operations=10, scale=4)


def selective_scan(x, dt, a, b, c, d):
    def step(h, now):
        x, dt, b, c = now
        h = kd.exp(dt[:, :, None] * a) * h + (dt * x)[:, :, None] * b[:, None, :]
        return h, kd.sum(h * c[:, None, :], axis=-1) + d * x

    return kd.scan(step, kd.zeros((x.shape[0], *a.shape), dtype=x.dtype), (x, dt, b, c), axis=1)


@pytest.mark.parametrize(("batch", "length", "width", "states"), [(2, 5, 3, 4), (1, 17, 24, 16), (3, 1, 1, 1), (2, 3, 9, 2)])
def test_selective_scan_is_one_kernel_that_stores_no_states(batch, length, width, states):
    def normal(*shape):
        return RNG.standard_normal(shape).astype("f4")

    x, dt, b, c = normal(batch, length, width), normal(batch, length, width), *(normal(batch, length, states) for _ in "bc")
    args = x, np.abs(dt), -np.abs(normal(width, states)), b, c, normal(width)
    check(selective_scan, *args)
    found = kd.kernel(selective_scan).explain(*args)
    assert len(found.kernels) == 1 and not found.stored_intermediates


def test_what_a_scan_refuses():
    x = np.ones((3, 2), "f4")
    with pytest.raises(kd.ArgumentError, match=r"a step returns \(carry, y\)"):
        kd.kernel(lambda x: kd.scan(lambda c, v: c + v, kd.zeros(2), x))(x)
    with pytest.raises(kd.ShapeError, match="cannot scan"):
        kd.kernel(lambda x: kd.scan(lambda c, v: (c, None), 0.0, (x, x.T)))(x)
    with pytest.raises(kd.ShapeError, match="carry changes its type"):
        kd.kernel(lambda x: kd.scan(lambda c, v: (c + v, None), 0.0, x))(x)
    with pytest.raises(kd.ArgumentError, match="structure"):
        kd.kernel(lambda x: kd.scan(lambda c, v: ((c, c), None), 0.0, x))(x)
    with pytest.raises(kd.AxisError, match="needs an axis"):
        kd.kernel(lambda x: kd.cumulative_sum(x))(x)


def test_indices_within_a_step_are_checked():
    table = RNG.standard_normal((11, 4)).astype("f4")

    @kd.kernel
    def f(table, ids):
        def step(place, i):
            place = place + i
            return place, kd.take(table, place, axis=0) + kd.take(table, i, axis=0)

        return kd.scan(step, 0, ids)[1]

    ids = np.array([3, 7, -11, 2])
    assert_close(f(table, ids), table[np.array([3, 10, -1, 1])] + table[ids], operations=2, scale=4)
    for wrong in (np.array([5, 6]), np.array([1, 11]), np.array([-12])):
        with pytest.raises(IndexError):
            f(table, wrong)


def test_long_scans_lose_no_more_than_they_must():
    """65,536 steps whose decays multiply to nothing: within a few roundings of f64, which a parallel prefix would not be."""
    length = 65536
    x, dt = RNG.standard_normal((1, length, 3)).astype("f4"), RNG.uniform(0, 2, (1, length, 3)).astype("f4")
    b, c = (RNG.standard_normal((1, length, 2)).astype("f4") for _ in "bc")
    args = x, dt, np.array([[-0.001, -5], [-0.1, -40], [-1, -0.5]], "f4"), b, c, np.ones(3, "f4")
    _, ys = kd.kernel(selective_scan)(*args)
    x, dt, a, b, c, d = (v.astype("f8") for v in args)
    h, want = np.zeros((3, 2)), []
    for now, t, p, q in zip(x[0], dt[0], b[0], c[0], strict=True):
        h = np.exp(t[:, None] * a) * h + (t * now)[:, None] * p
        want.append((h * q).sum(1) + d * now)
    error = np.abs(ys[0] - np.array(want)).max(0)
    assert (error <= 2.0**-23 * np.array([4000, 400, 100])).all(), error * 2.0**23


def test_gradients_of_long_scans_lose_no_more_than_they_must():
    """The same backward: states are made again from 2048 checkpoints, gradients of B and C are sums in parts."""
    length = 65536
    x, dt = RNG.standard_normal((1, length, 3)).astype("f4"), RNG.uniform(0, 2, (1, length, 3)).astype("f4")
    b, c = (RNG.standard_normal((1, length, 2)).astype("f4") for _ in "bc")
    args = x, dt, np.array([[-0.001, -5], [-0.1, -40], [-1, -0.5]], "f4"), b, c, np.ones(3, "f4")
    cotangents = np.ones((1, 3, 2), "f4"), RNG.standard_normal((1, length, 3)).astype("f4")
    exact = kd.kernel(selective_scan).vjp(*(v.astype("f8") for v in (*args, *cotangents)))
    for g, want in zip(kd.kernel(selective_scan).vjp(*args, *cotangents), exact, strict=True):
        assert np.isfinite(g).all()
        scale = np.abs(want).max()
        assert np.abs(g - want).max() <= 2.0**-23 * 400 * scale, np.abs(g - want).max() / scale * 2.0**23
