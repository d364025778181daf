"""Scans in chunks: they mean what the steps one after the other mean, gradients too, whatever the numbers are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import kdsl as kd
from kdsl import pipeline
from kdsl.ir.meaning import evaluate
from kdsl.ir.ops import Op
from kdsl.ir.verify import verify
from kdsl.target import parse_target
from kdsl.transforms.differentiate import vjp
from kdsl.transforms.expand import expand
from kdsl.transforms.parallel_scans import parallel_scans
from kdsl.transforms.simplify import simplify

CHOICES = (("scan enough", 64), ("scan steps", 3), ("scan lanes", 24), ("scan chunks", 2), ("scan even", 1), ("scan long", 0))
SMALL = replace(parse_target("cpu:x86-64-v3"), choices=CHOICES)  # chunks of a few steps
RNG = np.random.default_rng(7)


def notes(function):
    return [e.attributes.get("note", "") for e in function.equations if e.op is Op.SCAN]


def is_parallel(function):
    return any("side by side" in n for n in notes(function)) and not any("one after the other" in n for n in notes(function))


def traced(f, *args):
    k = kd.kernel(f)
    return simplify(k.traced(k.read(args, {})).function)


def compare(f, args, parallel=True, gradient=True, tolerance=1e-9):
    """In chunks, as a program and as machine code, it gives what the steps give; so does its derivative."""
    program = traced(f, *args)
    cotangents = [np.asarray(RNG.standard_normal(r.shape), r.dtype.numpy) for r in program.results if r.dtype.is_floating]
    both = [(program, args)] + [(vjp(program), (*args, *cotangents))] * gradient
    for function, values in both:
        function = expand(function)
        chunked = parallel_scans(function, SMALL)
        verify(chunked)
        assert parallel is None or is_parallel(chunked) == parallel, notes(chunked)
        want = evaluate(function, *values)
        compiled = pipeline.compile_forward(function, [None] * len(values), SMALL)
        for results in (evaluate(chunked, *values), compiled.run(values, None, {})):
            for a, b in zip(results, want, strict=True):
                assert a.dtype == b.dtype
                scale = np.abs(b[np.isfinite(b)]).max(initial=1) if b.dtype.kind in "fV" else 1
                np.testing.assert_allclose(np.asarray(a, "f8"), np.asarray(b, "f8"), rtol=tolerance, atol=tolerance * scale)


def decay(x):
    return kd.scan(lambda h, v: (0.9 * h + 0.1 * v, h * v), kd.zeros((), dtype=x.dtype), x)


def gated(x, w):
    def step(h, v):
        h = kd.sigmoid(v * w) * h + kd.sin(v)
        return h, h * h * w

    return kd.scan(step, x[0], x, reverse=True)


def reset(x, w):
    def step(h, v):
        h = kd.where(v > 0.5, v, h - h * kd.tanh(v) + w)
        return h, kd.exp(-h * h)

    return kd.scan(step, w, x)


LENGTHS = (6, 7, 17, 24, 31, 33, 64, 65, 97)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("f", [kd.cumulative_sum, kd.cumulative_prod, kd.cumulative_max, decay])
def test_long_rows(f, length):
    compare(lambda x: f(x), (RNG.standard_normal(length),), parallel=True if length > 24 else None)


@pytest.mark.parametrize("length", [0, 1, 2])
def test_few_steps_are_walked(length):
    for f in (kd.cumulative_sum, kd.cumulative_max, decay):
        compare(lambda x, f=f: f(x), (RNG.standard_normal(length),), parallel=False)


@pytest.mark.parametrize("length", [17, 33, 64, 97])
@pytest.mark.parametrize("f", [gated, reset])
def test_recurrences_of_the_first_order(f, length):
    compare(f, (RNG.standard_normal(length), np.array(0.4)), parallel=True if length > 32 else None)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_along_any_axis_with_folds_in_the_step(axis):
    shape = [2, 3, 2]
    shape[axis] = 40
    x = RNG.standard_normal(shape)

    def f(x):
        start = kd.zeros(tuple(n for i, n in enumerate(x.shape) if i != axis), dtype=x.dtype)

        def step(h, v):
            h = kd.cos(v) * h + v
            return h, (h, kd.sum(h, axis=0, keepdims=True))

        return kd.scan(step, start, x, axis=axis, reverse=axis == 1)

    compare(f, (x,))


@pytest.mark.parametrize("dtype", ["i4", "u1", "i8"])
def test_integers_wrap_as_they_do_step_by_step(dtype):
    x = RNG.integers(0, 100, 50).astype(dtype)

    def f(x):
        return kd.scan(lambda h, v: (h * v + v, h), x[0], x)

    compare(f, (x,), gradient=False)
    for g in (kd.cumulative_sum, kd.cumulative_prod, kd.cumulative_max):
        compare(lambda x, g=g: g(x), (x,), gradient=False)


def test_bools_and_bits():
    flags, bits = RNG.random(50) < 0.04, RNG.integers(0, 1 << 30, 50)
    compare(lambda x: kd.cumulative_max(x), (flags,), gradient=False)
    for op in (kd.bitwise_and, kd.bitwise_or, kd.bitwise_xor):
        compare(lambda x, op=op: kd.scan(lambda h, v: (op(h, v), h), x[0], x), (bits,), gradient=False)
    compare(lambda x: kd.scan(lambda h, v: (h & v, h), x[0], x), (~flags,), gradient=False)


@pytest.mark.parametrize("dtype", [kd.f16, kd.bf16])
def test_narrow_dtypes(dtype):
    x = RNG.random(60).astype(dtype.numpy)
    compare(lambda x: kd.cumulative_sum(x), (x,), tolerance=4e-3 if dtype is kd.f16 else 3e-2)
    compare(decay, (x,), tolerance=4e-3 if dtype is kd.f16 else 3e-2)


def test_an_associative_scan_that_is_linear():
    def f(a, b):
        return kd.associative_scan(lambda p, q: (p[0] * q[0], p[1] * q[0] + q[1]), (a, b))

    a, b = RNG.random(50), RNG.standard_normal(50)
    compare(f, (a.astype("f4"), b.astype("f4")), gradient=False, tolerance=1e-5)


# --- why not ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("f", "why"),
    [
        (lambda x: kd.scan(lambda h, v: (kd.tanh(h + v), h), kd.zeros((), dtype=x.dtype), x), "takes tanh of its carry"),
        (lambda x: kd.scan(lambda c, v: ((c[0] + v, kd.maximum(c[1], c[0])), c[1]), (x[0], x[1]), x), "takes maximum of"),
        (lambda x: kd.scan(lambda h, v: ((h + v).astype(kd.f32).astype(kd.f64), h), x[0], x), "rounds its carry"),
    ],
)
def test_it_says_why_steps_run_one_after_the_other(f, why):
    compare(f, (RNG.random(40),), parallel=False, gradient=False)
    found = parallel_scans(expand(traced(f, RNG.random(40))), SMALL)
    assert all(why in n for n in notes(found))


def test_other_axes_suffice():
    x = RNG.random((40, 100)).astype("f4")
    program = parallel_scans(expand(traced(lambda x: kd.cumulative_sum(x, axis=0), x)), SMALL)
    assert notes(program) == ["its steps run one after the other: 100 elements of a step fill the machine"]


# --- numbers ---------------------------------------------------------------------------------------------------------------
def linear(a, b):
    return kd.scan(lambda h, now: (now[0] * h + now[1],) * 2, kd.ones((), dtype=a.dtype), (a, b))[1]


def both_ways(f, *args):
    function = expand(traced(f, *args))
    chunked = parallel_scans(function, SMALL)
    assert is_parallel(chunked)
    return function, chunked


LINEAR = {d: [both_ways(linear, np.ones(40, d), np.ones(40, d))] for d in ("f4", "f8")}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1 << 30), st.sampled_from(["f4", "f8"]), st.booleans(), st.sampled_from([0.0, 0.02, 0.2]))
def test_infinities_nan_zeros_and_growth_pass_as_they_do_step_by_step(seed, dtype, decays, often):
    rng = np.random.default_rng(seed)
    a, b = (rng.choice([0.5, 1, 2, 1e10, 1e-10, -3], 40) for _ in "ab")
    a[:] = np.where(rng.random(40) < often, rng.choice([0, -0.0, np.nan], 40), a)
    b[:] = np.where(rng.random(40) < often, rng.choice([0, np.inf, -np.inf, np.nan], 40), b if decays else 0)
    power = 1 if dtype == "f4" else 8
    a, b = ((np.sign(v) * abs(v) ** power).astype(dtype) for v in (a, b))
    limits = np.finfo(dtype)
    h, lost, least, most, losses = np.longdouble(1), np.longdouble(0), 1.0, 1.0, []
    for slope, more in zip(a, b, strict=True):
        with np.errstate(all="ignore"):
            grown = slope * h
            lost = abs(slope) * lost + limits.eps * (abs(grown) + abs(more))  # what rounding step by step may lose
            h = grown + more
        if np.isfinite(h) and h:
            least = min(least, abs(h))
        most = max([most, *(abs(v) for v in (grown, h) if np.isfinite(v))])
        losses.append(lost)
    assume(least > 1e4 * limits.tiny and most < limits.max / 1e4)
    for function, chunked in LINEAR[dtype]:
        with np.errstate(all="ignore"):
            (got,), (want,) = evaluate(chunked, a, b), evaluate(function, a, b)
        finite = np.isfinite(want)
        np.testing.assert_array_equal(got[~finite], want[~finite])
        assert (abs(got[finite] - want[finite]) <= np.array(losses)[finite]).all()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_products_that_leave_the_range_of_the_dtype(dtype):
    """Decays that underflow, growth that only a start of 0 survives, and both within one product."""
    small = 1e-30 if dtype == "f4" else 1e-250
    function, chunked = LINEAR[dtype][0]
    for first, then, b in [(small, small, 1), (1 / small, 1 / small, 0), (small, 1 / small, 0)]:
        a, b = np.full(40, first, dtype), np.full(40, b, dtype)
        a[20:] = then
        if b[0] == 0:
            a[0] = 0
        (got,), (want,) = evaluate(chunked, a, b), evaluate(function, a, b)
        assert np.isfinite(want).all()
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_an_infinity_hides_what_would_have_grown_too_large():
    function, chunked = LINEAR["f8"][0]
    a, b = np.ones(40), np.zeros(40)
    a[1:4], a[6] = 1e80, 1e80
    b[5] = -np.inf
    (got,), (want,) = evaluate(chunked, a, b), evaluate(function, a, b)
    assert np.isfinite(want[:5]).all() and (want[5:] == -np.inf).all()
    np.testing.assert_array_equal(got, want)


def test_a_cumulative_product_that_is_an_ordinary_number_at_every_step():
    x = np.tile(np.repeat([1e200, 1e-200], 1), 25) * RNG.uniform(0.9, 1.1, 50)
    compare(lambda x: kd.cumulative_prod(x), (x,), gradient=False)
    x = np.concatenate([np.full(300, 10.0), np.full(600, 0.1), np.full(300, 10.0)])
    _, chunked = both_ways(lambda x: kd.cumulative_prod(x), x)
    np.testing.assert_allclose(evaluate(chunked, x)[0], np.cumprod(x), rtol=1e-10)
    x[500], x[700] = 0, -1
    np.testing.assert_array_equal(np.signbit(evaluate(chunked, x)[0]), np.signbit(np.cumprod(x)))


def test_a_segment_with_nan_does_not_reach_the_next():
    x = np.ones(60)
    x[7] = np.nan
    first = np.arange(60) % 20 == 0

    def f(x, first):
        return kd.scan(lambda h, now: (kd.where(now[1], now[0], h + now[0]),) * 2, kd.zeros((), dtype=x.dtype), (x, first))[1]

    for dtype in ("f4", "f8"):
        function = expand(traced(f, x.astype(dtype), first))
        chunked = parallel_scans(function, SMALL)
        assert is_parallel(chunked)
        np.testing.assert_array_equal(evaluate(chunked, x.astype(dtype), first)[0], evaluate(function, x.astype(dtype), first)[0])


def test_a_long_row_is_as_exact_as_its_steps():
    n = 65536
    x, a = RNG.random(n).astype("f4"), (0.9 + 0.2 * RNG.random(n)).astype("f4").clip(0, 1)
    k = kd.kernel(linear)
    assert "side by side" in str(k.explain(a, x))
    want, wide, one = np.empty(n), 1.0, np.float32(1)
    steps = np.empty(n, "f4")
    for i in range(n):
        wide = float(a[i]) * wide + float(x[i])
        one = np.float32(a[i] * one) + x[i]
        want[i], steps[i] = wide, one
    assert np.abs(k(a, x) - want).max() <= 1.5 * np.abs(steps - want).max()
    assert np.abs(kd.cumulative_sum(x) - np.cumsum(x, dtype="f8")).max() <= np.abs(np.cumsum(x) - np.cumsum(x, dtype="f8")).max()


# --- the kernels --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("n", [4096, 5000, 8191, 16384, 20480])
def test_long_rows_are_numpys(n):
    x = RNG.standard_normal(n)
    np.testing.assert_allclose(kd.cumulative_sum(x), np.cumsum(x), atol=1e-9)
    np.testing.assert_array_equal(kd.cumulative_max(x), np.maximum.accumulate(x))
    np.testing.assert_array_equal(kd.cumulative_sum(x.astype("i8")), np.cumsum(x.astype("i8")))
    grown = (1 + 1e-3 * x).astype("f4")
    np.testing.assert_allclose(kd.cumulative_prod(grown), np.cumprod(grown.astype("f8")), rtol=1e-3)
    np.testing.assert_allclose(kd.cumulative_sum(x[::-1]), np.cumsum(x[::-1]), atol=1e-9)


@pytest.mark.parametrize("length", [640, 1036, 1049])
def test_many_chunks_come_together_in_groups(length):
    """On a GPU, where a step takes long, 128 chunks one after the other are enough."""
    choices = (("scan steps", 2), ("scan chunks", 2), ("scan even", 1), ("scan lanes", 4096))
    gpu = replace(parse_target("cuda:sm_80"), choices=choices)
    args = RNG.uniform(0.5, 1.1, length), RNG.standard_normal(length)
    function = traced(linear, *args)
    for f, values in ((function, args), (vjp(function), (*args, RNG.standard_normal(length)))):
        f = expand(f)
        chunked = parallel_scans(f, gpu)
        assert is_parallel(chunked)
        for a, b in zip(evaluate(chunked, *values), evaluate(f, *values), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)


def test_second_derivatives():
    def f(x, w):
        def slope(x, w):
            return kd.sum(gated(x, w)[1] ** 2)

        dx, dw = kd.grad(slope, argnums=(0, 1))(x, w)
        return kd.sum(dx * dx) + dw

    compare(f, (RNG.standard_normal(33), np.array(0.3)), parallel=None)


def test_a_step_that_gathers():
    table, index, x = RNG.random((5, 2)), RNG.integers(-5, 5, 70), RNG.standard_normal(70)

    def f(table, x, index):
        def step(h, now):
            v, i = now
            h = kd.take(table, i, axis=0) * h + v
            return h, h * kd.take(table, 1 - i * 0, axis=0)

        return kd.scan(step, kd.ones(2, dtype=x.dtype), (x, index))

    compare(f, (table, x, index))
    long = np.zeros(5000, "i8")
    k = kd.kernel(f)
    assert "side by side" in str(k.explain(table, x[:1].repeat(5000), long))
    long[4321] = 5
    with pytest.raises(IndexError, match="5"):
        k(table, x[:1].repeat(5000), long)


def test_sums_of_closures_and_several_carries():
    x, w = RNG.standard_normal((50, 2)), RNG.standard_normal(2)

    def f(x, w):
        def step(carry, v):
            h, m, n, last = carry
            return (kd.sigmoid(w) * h + v, kd.maximum(m, v * w), n + 1, v), (h * m, last)

        start = kd.zeros(2, dtype=x.dtype)
        (h, m, n, last), ys = kd.scan(step, (start, start, kd.zeros((), dtype=kd.i64), start), x)
        return h, m, n, last, *ys

    compare(f, (x, w))
    compare(f, (x[:33], w), parallel=None)
