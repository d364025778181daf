"""Reductions mean NumPy's, over any axes, with kdsl's dtypes and its rules for empty axes."""

import functools
import warnings

import numpy as np
import pytest

from kdsl.errors import ArgumentError, AxisError, ShapeError
from kdsl.language import PUBLIC
from tests.language.running import run, trace
from tests.tolerance import assert_close

SHAPES = [(), (1,), (7,), (3, 5), (2, 3, 4), (4, 1, 3)]
NAMES = ["sum", "prod", "max", "min", "mean", "var", "std", "any", "all", "count_nonzero"]
RNG = np.random.default_rng(1)


def axes_of(shape):
    n = len(shape)
    return [None, *range(-n, n), *([(0, n - 1), (-1,), ()] if n > 1 else [])]


@pytest.fixture(autouse=True)
def _quiet():
    with np.errstate(all="ignore"):
        yield


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_reductions_mean_numpys(name, shape):
    x = RNG.standard_normal(shape).astype("f4")
    for axis in axes_of(shape):
        for keepdims in (False, True):
            got = run(functools.partial(PUBLIC[name], axis=axis, keepdims=keepdims), x)
            expected = getattr(np, name)(x.astype("f8"), axis=axis, keepdims=keepdims)
            expected = np.asarray(expected, x.dtype if np.asarray(expected).dtype.kind == "f" else None)
            assert got.dtype == expected.dtype
            assert_close(got, expected, operations=x.size, scale=10)


@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_positions(name):
    x = RNG.integers(0, 3, (4, 5, 3)).astype("f4")
    x[0, 2, 1] = np.nan
    for axis in (None, 0, 1, -1):
        for keepdims in (False, True):
            got = run(functools.partial(PUBLIC[name], axis=axis, keepdims=keepdims), x)
            expected = getattr(np, name)(x, axis=axis, keepdims=keepdims)
            assert got.dtype == np.int64
            np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(run(lambda x: PUBLIC[name](x > 1, axis=0), x), getattr(np, name)(x > 1, axis=0))


@pytest.mark.parametrize(
    ("dtype", "result"), [("i4", "i8"), ("u1", "u8"), ("?", "i8"), ("f2", "f2"), ("f8", "f8"), ("u8", "u8"), ("i8", "i8")]
)
def test_sums_of_integers_are_wide(dtype, result):
    x = np.ones((3, 4), dtype)
    assert run(lambda x: x.sum(), x).dtype == result
    assert run(lambda x: x.prod(0), x).dtype == result
    assert run(lambda x: x.sum(dtype="f32"), x).dtype == "f4"
    assert int(run(lambda x: x.sum(), x)) == 12


def test_empty_axes():
    x = np.ones((0, 3), "f4")
    np.testing.assert_array_equal(run(lambda x: x.sum(0), x), 0)
    np.testing.assert_array_equal(run(lambda x: x.prod(0), x), 1)
    np.testing.assert_array_equal(run(lambda x: x.any(0), x), False)
    np.testing.assert_array_equal(run(lambda x: x.all(0), x), True)
    np.testing.assert_array_equal(run(lambda x: x.mean(0), x), np.nan)
    assert run(lambda x: x.max(1), x).shape == (0,)
    for name in ("max", "min", "argmax", "argmin"):
        with pytest.raises(ShapeError, match="empty"):
            trace(functools.partial(PUBLIC[name], axis=0), x)


def test_extrema_of_bools_and_nan():
    x = np.array([[True, False], [False, False]])
    np.testing.assert_array_equal(run(lambda x: x.max(0), x), x.max(0))
    np.testing.assert_array_equal(run(lambda x: x.min(1), x), x.min(1))
    assert np.isnan(run(lambda x: x.max(), np.array([1, np.nan, 2], "f4")))


def test_variance_with_correction():
    x = RNG.standard_normal((5, 3)).astype("f8")
    assert_close(run(lambda x: x.var(0, correction=1), x), x.var(0, ddof=1))
    assert_close(run(lambda x: np.std(x, axis=1, ddof=1), x), x.std(1, ddof=1))
    with warnings.catch_warnings(action="ignore"):
        np.testing.assert_array_equal(run(lambda x: x.var(0, correction=7), x), x.var(0, ddof=7))


def test_logsumexp_is_safe():
    logsumexp = PUBLIC["logsumexp"]
    x = RNG.standard_normal((4, 6)) * 300
    expected = np.logaddexp.reduce(x, axis=1)
    assert_close(run(lambda x: logsumexp(x, axis=1), x), expected)
    assert run(lambda x: logsumexp(x, axis=1, keepdims=True), x).shape == (4, 1)
    rows = np.array([[-np.inf, -np.inf], [np.inf, 0], [np.nan, 0], [1e30, 1e30]], "f4")
    np.testing.assert_array_equal(run(lambda x: logsumexp(x, axis=1), rows), np.array([-np.inf, np.inf, np.nan, 1e30], "f4"))


@pytest.mark.parametrize(
    ("axis", "kind", "text"),
    [(2, AxisError, "axis 2 is out of range"), ((0, 0), AxisError, "twice"), (0.5, ArgumentError, "an axis is an integer")],
)
def test_mistakes(axis, kind, text):
    with pytest.raises(kind, match=text):
        trace(lambda x: x.sum(axis), np.ones((2, 3), "f4"))
