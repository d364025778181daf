"""Named sizes: arithmetic stays exact, comparisons are decided or refused, shapes work, the rest is checked at the call."""

import math

import numpy as np
import pytest

from kdsl.errors import ArgumentError, ControlFlowError, KdslError, OutOfRangeError, ShapeError
from kdsl.ir.sizes import evaluate, size
from kdsl.language import PUBLIC, NamedSize
from tests.language.running import run, trace
from tests.tolerance import assert_close

kd = type("kd", (), {k: staticmethod(v) for k, v in PUBLIC.items() if callable(v)})
N = NamedSize(size("N"))
M = NamedSize(size("M"))
X = np.random.default_rng(3).standard_normal((6, 4)).astype("f4")
NAMED = [("N", 4)]


def checks(body, *arrays, shapes=NAMED):
    return [(c.left, c.relation, c.right) for c in trace(body, *arrays, shapes=shapes)[1]]


def test_arithmetic_stays_a_size():
    assert str((N + 1) * 4 - 4) == "4*N"
    assert (N * 64) // 64 == N and isinstance((N * 64) // 64, NamedSize)
    assert N - N == 0 and (2 * N) % 2 == 0
    assert str(10 - N) == "-N + 10" or str(10 - N) == "10 - N"
    assert str(7 // N) and str(-N) and +N == N


def test_comparisons_that_hold_for_all_values_are_decided():
    assert N >= 0 and N + 1 > 0 and not N < 0 and N + 2 != 1 and N != N + 1 and N == N and N <= 2 * N + 1
    assert (N, 64) == (N, 64) and (N, 64) != (N, 65) and not (N + 3 == 2)
    assert 0 <= N and 5 < N + 6


@pytest.mark.parametrize(
    "ask",
    [lambda: N == 4, lambda: N > 4, lambda: N == M, lambda: N <= M, lambda: bool(N), lambda: 4 < N, lambda: range(N),
     lambda: int(N), lambda: math.sqrt(N), lambda: [1, 2][N], lambda: N % 2 == 0, lambda: (N, 4) == (4, N)],
)  # fmt: skip
def test_everything_else_is_refused(ask):
    with pytest.raises(ControlFlowError):
        ask()


def test_a_size_becomes_a_tensor_among_tensors():
    def body(x):
        n = x.shape[0]
        return x / n, x * (n + 1), n / 4, kd.sqrt(n), np.sqrt(n), n * 0.5, x.sum() / x.size, 1 / n, n**2, kd.where(x > 0, n, 0)

    got = run(body, X, shapes=NAMED)
    expected = X / 6, X * 7, 1.5, math.sqrt(6), math.sqrt(6), 3.0, X.mean(), 1 / 6, 36, np.where(X > 0, 6, 0)
    for g, e in zip(got, expected):
        assert_close(g, np.asarray(e, g.dtype), operations=24)
    assert [g.dtype.name for g in got] == ["float32"] * 8 + ["int64"] * 2


@pytest.mark.parametrize(
    "body",
    [
        lambda x: x - kd.max(x, axis=0, keepdims=True),
        lambda x: kd.mean(x, axis=0), lambda x: kd.var(x, axis=0, correction=1), lambda x: kd.logsumexp(x, axis=0),
        lambda x: x.mT @ x, lambda x: x @ x.mT, lambda x: kd.einsum("ij,kj->ik", x, x),
        lambda x: kd.reshape(x, (-1, 2)), lambda x: kd.reshape(x, (x.shape[0] * 4,)), lambda x: kd.reshape(x, (4, -1)),
        lambda x: kd.reshape(x, (x.shape[0] // 2, 2, 4)), lambda x: x.flatten(),
        lambda x: kd.concat([x, x[1:]]), lambda x: x[::-1], lambda x: x[:-1], lambda x: x[1::2], lambda x: x[-2:, 1:],
        lambda x: x[-1], lambda x: x[0], lambda x: x[: x.shape[0] // 2], lambda x: x[:3], lambda x: x[:, None],
        lambda x: x[4:1:-1], lambda x: x[kd.arange(x.shape[0])], lambda x: kd.take(x, [0, -1], axis=0),
        lambda x: kd.roll(x, 2, axis=0), lambda x: kd.roll(x, -1), lambda x: kd.flip(x), lambda x: kd.split(x, 3)[1],
        lambda x: kd.split(x, [2, 4])[1], lambda x: kd.pad(x, ((1, 2), (0, 0))), lambda x: kd.repeat(x, 2, axis=0),
        lambda x: kd.tile(x, (2, 1)), lambda x: kd.tril(x @ x.mT), lambda x: kd.sliding_window(x, 3, 0),
        lambda x: kd.zeros((x.shape[0], 2)) + x[:, :2], lambda x: kd.arange(1, x.shape[0]), lambda x: kd.eye(x.shape[0]),
        lambda x: kd.arange(x.shape[0], 0, -1), lambda x: kd.arange(0, x.shape[0], 4), lambda x: kd.argmax(x, axis=0),
        lambda x: kd.stack([x, x], axis=1), lambda x: kd.broadcast_to(x[:, :1], (x.shape[0], 3)), lambda x: kd.argmax(x),
        lambda x: kd.meshgrid(x[:, 0], x[0])[0], lambda x: kd.scatter_add(x, [0, 0], 1.0),
        lambda x: kd.tensordot(x, x, axes=([0], [0])),
    ],
)  # fmt: skip
def test_shapes_with_names_give_what_numbers_give(body):
    function, found = trace(body, X, shapes=NAMED)
    expected = run(body, X)
    got = run(body, X, shapes=NAMED)
    assert got.shape == expected.shape
    assert_close(got, expected, operations=8)
    assert tuple(evaluate(n, {"N": 6}) for n in function.results[0].shape) == expected.shape
    for c in found:
        left, right = evaluate(c.left, {"N": 6}), evaluate(c.right, {"N": 6})
        assert left == right if c.relation == "==" else left >= right
        assert isinstance(c.mistake, KdslError)


def test_what_must_hold_is_checked_at_the_call():
    assert checks(lambda x: kd.reshape(x, (-1, 64)), X) == [((size("N") * 4) % 64, "==", 0)]
    assert checks(lambda x: x.reshape(12, 2), X) == [(size("N") * 4, "==", 24)]
    assert checks(lambda x: x.reshape(-1, 2, 2), X) == []
    assert checks(lambda x: x[:5], X) == [(size("N"), ">=", 5)]
    assert checks(lambda x: x[3], X) == [(size("N"), ">=", 4)]
    assert checks(lambda x: x[-1:], X) == [(size("N") - 1, ">=", 0)]
    assert checks(lambda x: x[: x.shape[0]], X) == []
    assert checks(lambda x: kd.max(x, axis=0), X) == [(size("N"), ">=", 1)]
    assert checks(lambda x: kd.sliding_window(x, 3, 0), X) == [(size("N"), ">=", 3)]
    assert checks(lambda x: kd.zeros(5)[: x.shape[0]], X) == [(5, ">=", size("N"))]


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        (lambda x, y: x + y, ShapeError, "axes -2 are N and M"),
        (lambda x, y: x + np.ones((6, 4), "f4"), ShapeError, "named size is never taken to be 1"),
        (lambda x, y: kd.squeeze(x, 0), ShapeError, "its size is N"),
        (lambda x, y: [r for r in x], ControlFlowError, "cannot iterate over a first axis of named size N"),
        (lambda x, y: len(x), ControlFlowError, "the length N is not known"),
        (lambda x, y: kd.unstack(x), ShapeError, "would depend on the call"),
        (lambda x, y: x @ y, ShapeError, "inner sizes are 4 and M"),
        (lambda x, y: kd.split(x, x.shape[0]), ArgumentError, "must be an integer"),
        (lambda x, y: x[-2 - x.shape[0]], OutOfRangeError, "out of range"),
    ],
)
def test_mistakes(body, kind, text):
    with pytest.raises(kind, match=text):
        trace(body, X, X[:5], shapes=[("N", 4), ("M", 4)])
