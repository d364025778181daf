"""Indexing means NumPy's, or is refused."""

import re

import numpy as np
import pytest

from kdsl.errors import ArgumentError, DtypeError, OutOfRangeError
from kdsl.ir.ops import Op
from kdsl.language import PUBLIC
from tests.language.running import run, trace

X = np.arange(60, dtype="f4").reshape(3, 4, 5)
I = np.array([[2, 0, -1], [1, 1, 0]])
KEYS = [
    0, -1, (1, -2), (0, 1, 2), slice(1, None), slice(None, None, -1), slice(5, 0, -2), slice(1, 100), slice(-2, None),
    slice(2, 1),
    (slice(None), slice(None, None, 2)), (Ellipsis, 0), (0, Ellipsis, slice(1, 3)), None, (None, 0, None), (Ellipsis, None),
    (slice(None), None, 1), Ellipsis, (), (slice(-1, None, -1), slice(3, None, -3)), np.int64(1),
    I, [0, 2], (I,), (slice(None), I), (Ellipsis, I), (0, I), (I, 0), (slice(1, None), I, slice(None, None, -1)),
    (0, slice(None), I), (I, slice(None), 0), (None, I), (I, None, 0), ([],), (0, I, 1), (Ellipsis, I, None), np.array(2),
    (slice(None), np.array(-1)),
]  # fmt: skip


@pytest.mark.parametrize("n", range(len(KEYS)), ids=lambda n: str(KEYS[n]).replace("\n", ""))
def test_indexing_means_numpys(n):
    key = KEYS[n]
    numpys = tuple(np.array(k, np.int64) if isinstance(k, list) else k for k in key) if isinstance(key, tuple) else key
    np.testing.assert_array_equal(run(lambda x: x[key], X), X[numpys])


def test_index_tensors_count_from_the_end_and_may_be_0d():
    np.testing.assert_array_equal(run(lambda x, i: x[i], X, I), X[I])
    np.testing.assert_array_equal(run(lambda x, i: x[1:, i], X, I.astype("i4")), X[1:, I])
    np.testing.assert_array_equal(run(lambda x, i: x[..., i], X, np.array(-2)), X[..., -2])
    np.testing.assert_array_equal(run(lambda x, i: x[i], X, np.array([0, 2], "u1")), X[[0, 2]])
    np.testing.assert_array_equal(run(lambda x, i: PUBLIC["take"](x, i), X, I), np.take(X, I))
    np.testing.assert_array_equal(run(lambda x, i: np.take(x, i, axis=1), X, I), np.take(X, I, axis=1))


def test_take_along_axis_and_scatter_add():
    i = np.array([[[1], [0], [-1], [2]]] * 3)
    np.testing.assert_array_equal(
        run(lambda x, i: PUBLIC["take_along_axis"](x, i, axis=-1), X, i), np.take_along_axis(X, i, -1)
    )
    np.testing.assert_array_equal(
        run(lambda x, i: PUBLIC["take_along_axis"](x, i, axis=1), X, i[:1]), np.take_along_axis(X, i[:1], 1)
    )
    updates = np.ones((2, 3, 4, 5), "f4")
    expected = X.copy()
    np.add.at(expected, I, updates)
    np.testing.assert_array_equal(run(lambda x, i, u: PUBLIC["scatter_add"](x, i, u), X, I, updates), expected)
    np.testing.assert_array_equal(run(lambda x, i: PUBLIC["scatter_add"](x, i, 1.0), X, I), expected)
    along = X.copy()
    np.add.at(along, (slice(None), [3, 3]), 2)
    np.testing.assert_array_equal(run(lambda x: PUBLIC["scatter_add"](x, [3, 3], 2, axis=1), X), along)


def test_plain_slices_are_one_equation():
    function, _ = trace(lambda x: x[1:, ::-1], X)
    assert [e.op for e in function.equations] == [Op.SLICE]
    function, _ = trace(lambda x: x[...], X)
    assert not function.equations


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        (lambda x: x[3], OutOfRangeError, "index 3 is out of range: axis 0"),
        (lambda x: x[:, -5], IndexError, "axis 1 of .* has 4 elements"),
        (lambda x: x[0, 0, 0, 0], OutOfRangeError, "4 indices for"),
        (lambda x: x[[0, 3]], OutOfRangeError, "index 3 is out of range"),
        (lambda x: x[x > 0], DtypeError, "kd.where"),
        (lambda x: x[True], DtypeError, "mask"),
        (lambda x: x[x], DtypeError, "an index is an integer tensor"),
        (lambda x: x["a"], OutOfRangeError, "not an index"),
        (lambda x: x[1.5], OutOfRangeError, "not an index"),
        (lambda x: x[[0], [1]], ArgumentError, "one integer tensor at most"),
        (lambda x: x[..., ...], OutOfRangeError, "at most one"),
        (lambda x: x.__setitem__(0, 1), ArgumentError, "cannot be written to"),
    ],
)
def test_mistakes(body, kind, text):
    with pytest.raises(kind) as caught:
        trace(body, X)
    assert re.search(text, str(caught.value))
