"""Functions of shape and order mean NumPy's."""

import numpy as np
import pytest

from kdsl.errors import ArgumentError, AxisError, ShapeError
from kdsl.language import PUBLIC
from tests.language.running import run, trace

kd = type("kd", (), {k: staticmethod(v) for k, v in PUBLIC.items() if callable(v)})
X = np.arange(24, dtype="f4").reshape(2, 3, 4)

CASES = [
    (lambda x: kd.reshape(x, (4, -1)), lambda x: x.reshape(4, -1)),
    (lambda x: x.reshape(6, 4), lambda x: x.reshape(6, 4)),
    (lambda x: x.reshape(-1), lambda x: x.reshape(-1)),
    (lambda x: x.flatten(), lambda x: x.reshape(-1)),
    (lambda x: kd.permute_dims(x, (2, 0, -2)), lambda x: x.transpose(2, 0, 1)),
    (lambda x: x.transpose(), lambda x: x.T),
    (lambda x: x.transpose(1, 0, 2), lambda x: x.transpose(1, 0, 2)),
    (lambda x: x.swapaxes(0, -1), lambda x: x.swapaxes(0, -1)),
    (lambda x: x.mT, lambda x: x.mT),
    (lambda x: x[0].T, lambda x: x[0].T),
    (lambda x: kd.moveaxis(x, 0, -1), lambda x: np.moveaxis(x, 0, -1)),
    (lambda x: kd.moveaxis(x, (0, 2), (1, 0)), lambda x: np.moveaxis(x, (0, 2), (1, 0))),
    (lambda x: kd.expand_dims(x, 1), lambda x: np.expand_dims(x, 1)),
    (lambda x: kd.expand_dims(x, (0, -1)), lambda x: np.expand_dims(x, (0, -1))),
    (lambda x: kd.squeeze(x[:1, :, :1]), lambda x: x[0, :, 0]),
    (lambda x: kd.squeeze(x[:1, :, :1], -1), lambda x: x[:1, :, 0]),
    (lambda x: kd.broadcast_to(x[:, :1], (5, 2, 3, 4)), lambda x: np.broadcast_to(x[:, :1], (5, 2, 3, 4))),
    (lambda x: kd.broadcast_arrays(x, x[0, 0])[1], lambda x: np.broadcast_arrays(x, x[0, 0])[1]),
    (lambda x: kd.concat([x, x * 2], axis=1), lambda x: np.concatenate([x, x * 2], 1)),
    (lambda x: kd.concat([x, x[:, :1]], axis=-2), lambda x: np.concatenate([x, x[:, :1]], 1)),
    (lambda x: kd.concat((x, x), axis=None), lambda x: np.concatenate((x, x), None)),
    (lambda x: kd.stack([x, -x], axis=-1), lambda x: np.stack([x, -x], -1)),
    (lambda x: kd.split(x, 2, axis=-1)[1], lambda x: np.split(x, 2, -1)[1]),
    (lambda x: kd.split(x, [1, -1], axis=2)[1], lambda x: np.split(x, [1, -1], 2)[1]),
    (lambda x: kd.unstack(x, axis=1)[2], lambda x: x[:, 2]),
    (lambda x: kd.flip(x), np.flip),
    (lambda x: kd.flip(x, axis=(0, 2)), lambda x: np.flip(x, (0, 2))),
    (lambda x: kd.roll(x, 5), lambda x: np.roll(x, 5)),
    (lambda x: kd.roll(x, (-1, 6), axis=(0, 2)), lambda x: np.roll(x, (-1, 6), (0, 2))),
    (lambda x: kd.roll(x, 8, axis=-1), lambda x: np.roll(x, 8, -1)),
    (lambda x: kd.repeat(x, 3, axis=1), lambda x: np.repeat(x, 3, 1)),
    (lambda x: kd.repeat(x, 2), lambda x: np.repeat(x, 2)),
    (lambda x: kd.repeat(x, 0, axis=0), lambda x: np.repeat(x, 0, 0)),
    (lambda x: kd.tile(x, (2, 1, 3)), lambda x: np.tile(x, (2, 1, 3))),
    (lambda x: kd.tile(x, 2), lambda x: np.tile(x, 2)),
    (lambda x: kd.tile(x, (2, 1, 1, 2)), lambda x: np.tile(x, (2, 1, 1, 2))),
    (lambda x: kd.pad(x, 1), lambda x: np.pad(x, 1)),
    (lambda x: kd.pad(x, ((0, 0), (2, 1), (0, 3)), -1), lambda x: np.pad(x, ((0, 0), (2, 1), (0, 3)), constant_values=-1)),
    (lambda x: kd.pad(x, (1, 2)), lambda x: np.pad(x, (1, 2))),
    (lambda x: np.pad(x, 1, constant_values=9), lambda x: np.pad(x, 1, constant_values=9)),
    (lambda x: kd.sliding_window(x, 2, -1), lambda x: np.lib.stride_tricks.sliding_window_view(x, 2, -1)),
    (lambda x: kd.sliding_window(x, 2, 2, stride=2), lambda x: np.lib.stride_tricks.sliding_window_view(x, 2, 2)[:, :, ::2]),
    (lambda x: kd.sliding_window(x, 2, 2, dilation=2), lambda x: np.lib.stride_tricks.sliding_window_view(x, 3, 2)[..., ::2]),
    (lambda x: kd.sliding_window(x, (2, 3), (1, 2)), lambda x: np.lib.stride_tricks.sliding_window_view(x, (2, 3), (1, 2))),
    (lambda x: kd.tril(x), np.tril),
    (lambda x: kd.triu(x, k=-1), lambda x: np.triu(x, -1)),
]


@pytest.mark.parametrize("case", range(len(CASES)))
@pytest.mark.parametrize("dtype", ["f4", "i8"])
def test_means_numpys(case, dtype):
    ours, numpys = CASES[case]
    x = X.astype(dtype)
    got, expected = run(ours, x), numpys(x)
    assert got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)


def test_iterating_and_unpacking_go_over_the_first_axis():
    a, b = run(lambda x: tuple(r * 2 for r in x), X)
    np.testing.assert_array_equal(a, X[0] * 2)
    np.testing.assert_array_equal(b, X[1] * 2)

    def unpack(x):
        first, *rest = x
        return first + len(x) + len(rest)

    np.testing.assert_array_equal(run(unpack, X), X[0] + 3)


@pytest.mark.parametrize("n", [0, 1])
def test_empty_and_single(n):
    x = X[:n]
    np.testing.assert_array_equal(run(lambda x: kd.roll(x, 1, axis=0), x), x)
    np.testing.assert_array_equal(run(lambda x: kd.flip(x), x), np.flip(x))
    np.testing.assert_array_equal(run(lambda x: kd.reshape(x, (n, 12)), x), x.reshape(n, 12))
    np.testing.assert_array_equal(run(lambda x: kd.concat([x, x]), x), np.concatenate([x, x]))


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        (lambda x: kd.reshape(x, (5, 5)), ShapeError, "24 elements do not fill it"),
        (lambda x: kd.reshape(x, (5, -1)), ShapeError, "24 elements"),
        (lambda x: kd.reshape(x, (-1, -1)), ShapeError, "one size may be -1"),
        (lambda x: kd.squeeze(x, 0), ShapeError, "its size is 2"),
        (lambda x: kd.permute_dims(x, (0, 1)), AxisError, "does not name each"),
        (lambda x: kd.broadcast_to(x, (3, 4)), ShapeError, "cannot broadcast"),
        (lambda x: kd.concat([x, x[0]]), ShapeError, "the other axes must be equal"),
        (lambda x: kd.concat([]), ArgumentError, "one tensor or more"),
        (lambda x: kd.stack([x, x[:1]]), ShapeError, "shapes must be equal"),
        (lambda x: kd.split(x, 5, axis=1), ShapeError, "into 5 equal parts"),
        (lambda x: kd.sliding_window(x, 9, 0), ShapeError, "a window of 9 does not fit"),
        (lambda x: kd.pad(x, ((1, 1),) * 2), ArgumentError, "pair for each of 3 axes"),
        (lambda x: x.T, ShapeError, "use .mT"),
        (lambda x: kd.moveaxis(x, 0, 7), AxisError, "axis 7"),
        (lambda x: kd.zeros(x[0, 0, 0]), TypeError, "must be known before"),
    ],
)
def test_mistakes(body, kind, text):
    with pytest.raises(kind, match=text):
        trace(body, X)
