"""Random scans of tests/random_steps.py: values, gradients, all dtypes, named sizes, the gradients of jax.

The few that run each time are drawn by hypothesis; `slow` runs many by number.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kdsl as kd
from kdsl.ir.meaning import evaluate
from kdsl.transforms.differentiate import vjp
from kdsl.transforms.simplify import simplify
from tests.random_steps import Jax, Kdsl, RandomStep

NAMES = ("h", "s", "xs", "us", "w", "bias", "scale", "words", "masks", "indices")
FLOATING = 8  # of the arguments
JUMPS = (13, 16, 21)  # moves whose results jump where a rounding decides a comparison
TOLERANCE = {"f64": 1e-9, "f32": 1e-5, "f16": 4e-3, "bf16": 3e-2}


def kernel(step, named=False):
    if not named:
        return kd.kernel(lambda *a: step.run(Kdsl, *a))
    t = lambda *shape: (*shape[: step.axis], "T", *shape[step.axis :])  # noqa: E731
    shapes = [("N", "M"), ("N",), t("N", "M"), t("N"), ("M", "M"), ("M",), (), ("K", "N", "M"), t("N", "M"), t("M")]
    dtypes = [kd.f64] * FLOATING + [kd.bool, kd.i64]
    types = {n: d[s] if s else d for n, d, s in zip(NAMES, dtypes, shapes, strict=True)}

    def f(h, s, xs, us, w, bias, scale, words, masks, indices):
        return step.run(Kdsl, h, s, xs, us, w, bias, scale, words, masks, indices)

    return kd.kernel(f, types=types)


def compare(seed, dtype="f64", named=False):
    """Values equal the meaning's, gradients the meaning's of the derived program."""
    step, d, tolerance = RandomStep(seed), getattr(kd, dtype), TOLERANCE[dtype]
    if dtype != "f64":
        step.moves = [m for m in step.moves if m not in JUMPS] or [0]
    args, k = step.arguments(d.numpy), kernel(step, named)
    results = k(*args)
    same(results, k.reference(*args), tolerance, seed)
    cotangents = [step.rng.standard_normal(r.shape).astype(r.dtype) for r in results]
    derived = vjp(simplify(k.traced(k.read(args, {})).function))
    want = evaluate(derived, *args, *cotangents, exact=True)
    _, pullback = k.pullback(*args)
    for gradients in (k.vjp(*args, *cotangents), pullback(*cotangents)):
        same(gradients[:FLOATING], want, 20 * tolerance, seed)


def same(got, want, tolerance, seed):
    for g, w in zip(got, want, strict=True):
        assert g.shape == w.shape
        scale = max(1.0, np.abs(w.astype("f8")).max(initial=0))
        np.testing.assert_allclose(
            g.astype("f8"), w.astype("f8"), rtol=tolerance, atol=tolerance * scale, err_msg=f"seed {seed}"
        )


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 1_000_000), st.sampled_from(("f64", "f64", "f32", "f16", "bf16")))
def test_random_scans(seed, dtype):
    compare(seed, dtype)


@settings(max_examples=2, deadline=None)
@given(st.integers(0, 1_000_000))
def test_random_scans_of_named_sizes(seed):
    compare(seed, named=True)


def against_jax(seed):
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    step = RandomStep(seed)
    step.length = max(1, step.length)
    args, k = step.arguments(), kernel(step)
    results = k(*args)
    want, pull = jax.vjp(lambda *a: step.run(Jax(), *a, *args[FLOATING:]), *args[:FLOATING])
    same(results, [np.asarray(w) for w in want], 1e-9, seed)
    cotangents = [step.rng.standard_normal(r.shape) for r in results]
    gradients = [np.asarray(g) for g in pull(tuple(cotangents))]
    same(k.vjp(*args, *cotangents)[:FLOATING], gradients, 1e-7, seed)


@pytest.mark.oracle
@pytest.mark.parametrize("seed", range(3))
def test_gradients_are_those_of_jax(seed):
    against_jax(seed)


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("seed", range(3, 100))
def test_more_gradients_are_those_of_jax(seed):
    against_jax(seed)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("seed", range(40))
def test_more_random_scans(seed, dtype):
    compare(seed, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_more_random_scans_of_named_sizes(seed):
    compare(seed, named=True)


def numbers(seed, dtype):
    """A scan of integers or truth values: sums that wrap, extrema, bits, sorts, counts."""
    rng, d = np.random.default_rng(seed), getattr(kd, dtype)
    n, length = int(rng.choice((1, 2, 5, 17))), int(rng.choice((0, 1, 2, 9, 33)))
    top = 2 if dtype == "bool" else 120
    h, xs = (rng.integers(0, top, s).astype(d.numpy) for s in ((3, n), (length, 3, n)))
    ids = rng.integers(-n, n, (length, n))
    moves = [int(k) for k in rng.integers(0, 6, 3)]

    def step(c, now):
        x, i = now
        for k in moves:
            if k == 0:
                c = kd.where(x > c, x, c)
            elif k == 1:
                c = c ^ x if dtype != "bool" else c != x
            elif k == 2:
                c = kd.sort(c, axis=1, descending=bool(n % 2))
            elif k == 3:
                c = kd.take(c, i, axis=1)
            elif k == 4:
                c = kd.scatter_add(kd.zeros_like(c), i, x, axis=1) if dtype != "bool" else c & x
            else:
                c = kd.flip(c, axis=1) + x if dtype != "bool" else c | x
        return c, (kd.argmax(c, axis=1), kd.sum(c, axis=1), kd.any(c > x, axis=0), kd.cumulative_max(c, axis=1))

    k = kd.kernel(lambda h, xs, ids: kd.scan(step, h, (xs, ids), reverse=bool(seed % 2)))
    (last, ys), (want, want_ys) = k(h, xs, ids), k.reference(h, xs, ids)
    for g, w in zip((last, *ys), (want, *want_ys), strict=True):
        assert g.dtype == w.dtype
        np.testing.assert_array_equal(g, w, err_msg=f"seed {seed}")


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 1_000_000), st.sampled_from(("i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64", "bool")))
def test_random_scans_of_integers(seed, dtype):
    numbers(seed, dtype)
