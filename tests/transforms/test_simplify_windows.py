"""Sums over windows of few positions are written out; so are the gradients of windows."""

from __future__ import annotations

import numpy as np
import pytest

import kdsl.dtypes as dt
from kdsl.ir.meaning import evaluate
from kdsl.ir.ops import Op
from kdsl.ir.rules import Builder
from kdsl.ir.sizes import size
from kdsl.ir.tensor import Function, TensorType, Value
from kdsl.ir.verify import verify
from kdsl.transforms.differentiate import vjp
from kdsl.transforms.expand import expand
from kdsl.transforms.simplify import simplify
from tests.tolerance import assert_close

rng = np.random.default_rng(0)


def window(b, x, n=3, axis=1, stride=1, dilation=1):
    return b.emit(Op.WINDOW, x, axis=axis, size=n, stride=stride, dilation=dilation)


def taps(b, x, w):
    """A convolution of each row of x (5, 9, 4) by itself: (5, 7, 4)."""
    windows = window(b, x)
    return b.emit(Op.SUM, b.emit(Op.MUL, windows, b.broadcast_to(w, windows.shape)), axes=(3,))


def image(b, x, w):
    """The sum over a window along each of two axes."""
    both = window(b, window(b, x, 2, 0, 1, 2), 3, 1, 2)
    return b.emit(Op.SUM, b.emit(Op.MUL, both, both), axes=(3, 4))


def turned(b, x, w):
    """The window's axis moved, doubled, masked."""
    windows = b.emit(Op.PERMUTE, window(b, x), axes=(3, 0, 2, 1))
    twice = b.emit(Op.WHERE, b.emit(Op.GT, windows, 0.0), windows, b.emit(Op.MUL, windows, 2.0))
    return b.emit(Op.SUM, twice, axes=(0, 2))


WRITTEN = {"taps": taps, "image": image, "turned": turned}


def program(build, shape=(5, 9, 4), dtype=dt.f32):
    x, w = Value(TensorType(dtype, shape), "x"), Value(TensorType(dtype, (4, 3)), "w")
    b = Builder()
    f = Function("f", (x, w), tuple(b.equations), (build(b, x, w),))
    f = Function("f", (x, w), tuple(b.equations), f.results)
    verify(f)
    return f


def ops(f):
    return {e.op for e in f.equations}


def arrays(f):
    sizes = {"n": 9}
    return [rng.standard_normal([n if isinstance(n, int) else sizes["n"] for n in p.shape]).astype("f4") for p in f.parameters]


@pytest.mark.parametrize("shape", [(5, 9, 4), (5, size("n"), 4)], ids=["fixed", "named"])
@pytest.mark.parametrize("name", WRITTEN)
def test_windows_become_slices(name, shape):
    f = program(WRITTEN[name], shape)
    simple = simplify(f)
    verify(simple)
    assert Op.WINDOW not in ops(simple) and Op.SLICE in ops(simple)
    given = arrays(f)
    for got, expected in zip(evaluate(simple, *given), evaluate(f, *given), strict=True):
        assert_close(got, expected, "float32", operations=16, scale=4.0)


@pytest.mark.parametrize("name", WRITTEN)
def test_so_do_those_of_the_gradient(name):
    f = program(WRITTEN[name])
    derived = expand(vjp(simplify(f)))
    verify(derived)
    assert not {Op.WINDOW, Op.SCATTER_ADD} & ops(derived)
    given = [*arrays(f), *(rng.standard_normal(r.shape).astype("f4") for r in f.results)]
    for got, expected in zip(evaluate(derived, *given), evaluate(vjp(f), *given), strict=True):
        assert_close(got, expected, "float32", operations=64, scale=8.0)


def test_integers_keep_every_bit():
    f = program(lambda b, x, w: b.emit(Op.SUM, window(b, x), axes=(3,)), dtype=dt.i64)
    x, w = rng.integers(-(2**62), 2**62, (5, 9, 4)), np.zeros((4, 3), np.int64)
    np.testing.assert_array_equal(evaluate(simplify(f), x, w)[0], evaluate(f, x, w)[0])


def stays(build):
    return Op.WINDOW in ops(simplify(program(build)))


def test_what_stays_a_window():
    def wide(b, x, w):
        longer = b.emit(Op.CONCAT, x, x, axis=1)
        return b.emit(Op.SUM, window(b, longer, 17), axes=(3,))

    assert stays(wide)
    assert stays(lambda b, x, w: b.emit(Op.SUM, b.emit(Op.EXP, window(b, x)), axes=(3,)))  # dear, and perhaps wanted elsewhere
    assert stays(lambda b, x, w: b.emit(Op.SUM, window(b, x), axes=(1,)))  # over places, not within windows
    assert stays(lambda b, x, w: b.emit(Op.MAX, window(b, x), axes=(3,)))  # ties share equally


def test_sums_over_channels_too_are_products():
    def convolution(b, x, w):
        windows = b.emit(Op.BROADCAST, window(b, x), shape=(5, 7, 4, 6, 3), axes=(0, 1, 2, 4))
        kernel = b.emit(Op.BROADCAST, w, shape=(5, 7, 4, 6, 3), axes=(2, 4))
        kernel = b.emit(Op.MUL, kernel, b.emit(Op.CAST, b.emit(Op.IOTA, shape=kernel.shape, axis=3, dtype=dt.i64), dtype=dt.f32))
        return b.emit(Op.SUM, b.emit(Op.MUL, windows, kernel), axes=(2, 4))

    f = program(convolution)
    given = arrays(f)
    for got, expected in zip(evaluate(simplify(f), *given), evaluate(f, *given), strict=True):
        assert_close(got, expected, "float32", operations=16, scale=30.0)
