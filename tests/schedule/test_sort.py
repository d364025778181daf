"""Sorts: stable, NaN the greatest, every dtype, axis and length; the derivative goes back by the permutation."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import kdsl as kd

rng = np.random.default_rng(5)
DTYPES = ["f4", "f8", "f2", ml_dtypes.bfloat16, "i1", "u1", "i2", "i4", "u4", "i8", "u8", "?"]


def many_equals(shape, dtype):
    """Few different values, so that stability shows; NaN, infinities and both zeros where there are some."""
    kind = "f" if dtype is ml_dtypes.bfloat16 else np.dtype(dtype).kind
    if kind == "b":
        return rng.random(shape) < 0.5
    if kind in "iu":
        return rng.integers(0, 9, shape).astype(dtype)
    return rng.choice(np.array([-2, -1, -0.0, 0.0, 3, np.nan, np.inf, -np.inf], "f4"), shape).astype(dtype)


def order(x, axis, descending):
    x = x.astype("f4") if x.dtype.kind == "V" else x
    if not descending:
        return np.argsort(x, axis, kind="stable")
    return np.flip(x.shape[axis] - 1 - np.argsort(np.flip(x, axis), axis, kind="stable"), axis)


def check(x, axis, descending):
    both = kd.kernel(lambda x: (kd.sort(x, axis=axis, descending=descending), kd.argsort(x, axis=axis, descending=descending)))
    ordered, places = both(x)
    expected = order(x, axis, descending)
    np.testing.assert_array_equal(places, expected)
    assert ordered.tobytes() == np.take_along_axis(x, expected, axis).tobytes() and ordered.dtype == x.dtype


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("descending", [False, True])
def test_dtypes(dtype, descending):
    check(many_equals((3, 37), dtype), 1, descending)


@pytest.mark.parametrize("shape", [(0,), (1,), (2,), (31,), (33,), (5000,), (3, 0), (0, 3), (2, 5, 9)])
def test_shapes(shape):
    for axis in range(len(shape)):
        check(many_equals(shape, "f4"), axis, False)
        check(many_equals(shape, "f4")[::-1], axis, True)


def test_a_named_length_and_both_results_in_one_kernel():
    f = kd.kernel(lambda x: (kd.sort(x), kd.argsort(x)), types=(kd.f32["N"],))
    for n in (0, 1, 2, 3, 64, 65, 1009):
        x = many_equals((n,), "f4")
        ordered, places = f(x)
        np.testing.assert_array_equal(places, order(x, 0, False))
        assert ordered.tobytes() == x[places].tobytes()
    assert len(f.explain(kd.f32[100]).kernels) == 1


def test_what_feeds_a_sort_is_stored_first():
    x = rng.standard_normal((4, 6)).astype("f4")
    f = kd.kernel(lambda x: kd.sort(kd.permute_dims(x[:, ::2], (1, 0)) * 2 + 1, axis=0) - 1)
    np.testing.assert_allclose(f(x), np.sort(x[:, ::2].T * 2 + 1, axis=0) - 1, rtol=1e-6)
    np.testing.assert_array_equal(kd.kernel(lambda x: kd.sort(x.T))(x), np.sort(x.T))


def test_the_derivative_goes_back_by_the_permutation():
    x, dy = rng.standard_normal((2, 3, 8)).astype("f4")
    f = kd.kernel(lambda x, descending: kd.sort(x, axis=0, descending=descending))
    for descending in (False, True):
        (dx,) = f.vjp(x, descending, dy)
        expected = np.zeros_like(x)
        np.put_along_axis(expected, order(x, 0, descending), dy, 0)
        np.testing.assert_array_equal(dx, expected)
        f.verify(x, descending)


def test_numpys_names():
    x = rng.standard_normal((3, 5)).astype("f4")
    np.testing.assert_array_equal(kd.kernel(lambda x: np.sort(x))(x), np.sort(x))
    np.testing.assert_array_equal(kd.kernel(lambda x: np.argsort(x, axis=0))(x), np.argsort(x, axis=0))
