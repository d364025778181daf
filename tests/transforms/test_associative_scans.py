"""Associative scans in chunks: they mean what the steps one after the other mean, gradients too."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kdsl as kd
from kdsl.ir.meaning import evaluate
from kdsl.ir.ops import Op
from kdsl.ir.verify import verify
from kdsl.transforms import associative_scans as of
from kdsl.transforms.associative_scans import associative_scans
from tests.transforms.test_derivatives_scan import assert_slopes
from tests.transforms.test_parallel_scans import SMALL

RNG = np.random.default_rng(12)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(of, "MACHINE", SMALL)


def log_sum_exp(earlier, later):
    """Of pairs (largest, sum of exp relative to it)."""
    m = kd.maximum(earlier[0], later[0])
    return m, earlier[1] * kd.exp(earlier[0] - m) + later[1] * kd.exp(later[0] - m)


def softly(x):
    m, s = kd.associative_scan(log_sum_exp, (x, kd.ones_like(x)))
    return m + kd.log(s)


def moments(x, w):
    """Running weight, mean and sum of squares by Chan's formula, from the end."""

    def combine(a, b):
        n = a["n"] + b["n"]
        d = b["mean"] - a["mean"]
        mean = a["mean"] + d * b["n"] / n
        return {"n": n, "mean": mean, "m2": a["m2"] + b["m2"] + d * d * a["n"] * b["n"] / n}

    return kd.associative_scan(combine, {"n": w, "mean": x, "m2": kd.zeros_like(x)}, axis=1, reverse=True)


def scaled(x, c):
    """log(exp(a) + c exp(b)) with a tensor that the combination closes over: not associative for every c, but for 1."""
    return kd.associative_scan(lambda a, b: kd.logaddexp(a, b) * c, x)


def program(f, *args):
    k = kd.kernel(f)
    return k.traced(k.read(args, {})).function


def count(function):
    return len({e.attributes["step"] for e in function.equations if e.op is Op.SCAN})


LENGTHS = (6, 7, 12, 24, 31, 33, 64, 65, 97)


def check(f, *args, chunks=True, tolerance=1e-9):
    traced = program(f, *args)
    chunked = associative_scans(traced)
    verify(chunked)
    assert (count(chunked) >= 3) == chunks
    assert not any("combine" in e.attributes for e in chunked.equations)
    want = evaluate(traced, *args)
    got = kd.kernel(f)(*args)
    got = list(got.values()) if isinstance(got, dict) else [got] if isinstance(got, np.ndarray) else got
    for results in (evaluate(chunked, *args), got):
        for a, b in zip(results, want, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(np.asarray(a, "f8"), np.asarray(b, "f8"), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("length", LENGTHS)
def test_log_sum_exp(length):
    x = RNG.standard_normal(length) * 20
    check(softly, x)
    np.testing.assert_allclose(kd.kernel(softly)(x), np.logaddexp.accumulate(x), rtol=1e-12)


@pytest.mark.parametrize("length", LENGTHS)
def test_nested_and_reversed_along_the_last_axis(length):
    check(moments, RNG.standard_normal((2, length)), RNG.uniform(0.5, 2, (2, length)))


def test_a_closure():
    check(scaled, RNG.standard_normal(48), np.array(1.0))


@pytest.mark.parametrize("length", [24, 31])
def test_gradients_are_slopes(length):
    assert_slopes(softly, RNG.standard_normal(length))


def test_gradients_of_closures_and_of_nested_results():
    assert_slopes(lambda x, w: tuple(moments(x, w).values()), RNG.standard_normal((1, 26)), RNG.uniform(0.5, 2, (1, 26)))
    assert_slopes(scaled, RNG.standard_normal(25), np.array(1.0))


def test_second_derivatives():
    x = RNG.standard_normal(26)
    first = kd.grad(lambda x: kd.sum(softly(x) ** 2))
    got = kd.grad(lambda x: kd.sum(first(x) ** 2))(x)
    step = 1e-5
    for i in (0, 11, 25):
        e = np.zeros(26)
        e[i] = step
        slope = (np.sum(first(x + e) ** 2) - np.sum(first(x - e) ** 2)) / (2 * step)
        assert abs(slope - got[i]) < 1e-5 * max(1, abs(slope))


@settings(max_examples=8, deadline=None)
@given(st.integers(6, 100), st.booleans(), st.sampled_from(["f4", "f8"]))
def test_any_length(length, reverse, dtype):
    x = (RNG.standard_normal(length) * 5).astype(dtype)
    k = kd.kernel(lambda x: kd.associative_scan(kd.logaddexp, x, reverse=reverse))
    want = np.logaddexp.accumulate(x[::-1].astype("f8"))[::-1] if reverse else np.logaddexp.accumulate(x.astype("f8"))
    np.testing.assert_allclose(k(x), want, rtol=2e-5 if dtype == "f4" else 1e-12, atol=2e-5 if dtype == "f4" else 1e-12)


@pytest.mark.parametrize("dtype", [kd.bf16, kd.f16])
def test_narrow_dtypes(dtype):
    x = RNG.standard_normal(48).astype(dtype.numpy)
    k = kd.kernel(lambda x: kd.associative_scan(kd.logaddexp, x))
    got = k(x)
    assert got.dtype == x.dtype
    np.testing.assert_allclose(got.astype("f8"), np.logaddexp.accumulate(x.astype("f8")), rtol=2e-2, atol=2e-2)


def test_infinities_and_nan_pass():
    x = RNG.standard_normal(48)
    x[:5], x[20], x[40] = -np.inf, -np.inf, np.nan
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(
            kd.kernel(lambda x: kd.associative_scan(kd.logaddexp, x))(x), np.logaddexp.accumulate(x), rtol=1e-12
        )


def test_what_runs_step_by_step():
    x = RNG.standard_normal(48)
    check(lambda x: kd.associative_scan(kd.maximum, x), x, chunks=False)  # parallel_scans.py knows it
    check(lambda x: kd.associative_scan(lambda a, b: a * b, x), x, chunks=False)
    check(lambda m: kd.associative_scan(lambda a, b: kd.tanh(b @ a), m), RNG.standard_normal((48, 2, 2)), chunks=False)
    check(lambda x: kd.associative_scan(kd.logaddexp, x), RNG.standard_normal((48, 90)), chunks=False)  # others suffice
    check(lambda x: kd.associative_scan(kd.logaddexp, x), x[:5], chunks=False)


def test_named_lengths_run_step_by_step():
    k = kd.kernel(lambda x: kd.associative_scan(kd.logaddexp, x), types=(kd.f64["N"],))
    for n in (0, 1, 48, 100):
        x = RNG.standard_normal(n)
        np.testing.assert_allclose(k(x), np.logaddexp.accumulate(x) if n else x, rtol=1e-12)


def test_a_program_of_several():
    def both(x):
        y = softly(x)
        return y, kd.associative_scan(kd.logaddexp, y * 0.5, reverse=True)

    check(both, RNG.standard_normal(40))


