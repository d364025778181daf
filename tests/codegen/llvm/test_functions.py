"""The error of every floating function over its whole range, in units of the last place, as its docstring states."""

import math

import numpy as np
import pytest

import kdsl.dtypes as dt

from .harness import elementwise, run

L = np.longdouble
ERF = np.vectorize(lambda x: L(math.erf(x)), otypes=[L])  # itself right to 1 ulp of f64
BOUNDS = {  # op: (reference, interval for f32, for f64, ulp f32, ulp f64)
    "exp": (np.exp, (-87, 89), (-708, 710), 1.0, 1.0),
    "exp2": (np.exp2, (-126, 128), (-1022, 1024), 1.0, 1.1),
    "expm1": (np.expm1, (-20, 89), (-45, 710), 1.5, 1.8),
    "tanh": (np.tanh, (-10, 10), (-25, 25), 1.5, 1.5),
    "erf": (ERF, (-5, 5), (-6.5, 6.5), 1.0, 2.0),
    "log": (np.log, (0, 100), (0, 100), 1.0, 1.0),
    "log2": (np.log2, (0, 100), (0, 100), 1.1, 1.1),
    "log10": (np.log10, (0, 100), (0, 100), 1.5, 1.5),
    "log1p": (np.log1p, (-1, 100), (-1, 100), 1.5, 1.5),
    "sin": (np.sin, (-100, 100), (-100, 100), 1.6, 2.5),
    "cos": (np.cos, (-100, 100), (-100, 100), 1.6, 2.5),
    "tan": (np.tan, (-100, 100), (-100, 100), 4.5, 5.0),
    "atan": (np.arctan, (-10, 10), (-10, 10), 3.0, 1.0),
    "asin": (np.arcsin, (-1, 1), (-1, 1), 4.0, 3.0),
    "acos": (np.arccos, (-1, 1), (-1, 1), 4.0, 3.0),
    "sinh": (np.sinh, (-89, 89), (-710, 710), 4.0, 4.0),
    "cosh": (np.cosh, (-89, 89), (-710, 710), 3.0, 3.0),
    "asinh": (np.arcsinh, (-100, 100), (-100, 100), 3.5, 3.5),
    "acosh": (np.arccosh, (1, 100), (1, 100), 3.5, 3.5),
    "atanh": (np.arctanh, (-1, 1), (-1, 1), 3.5, 3.5),
}


@pytest.mark.parametrize("d", [dt.f32, dt.f64], ids=str)
@pytest.mark.parametrize("op", BOUNDS)
def test_error(op, d):
    reference, narrow, wide, *ulps = BOUNDS[op]
    rng, n, t = np.random.default_rng(0), 4000, d.numpy
    low, high = narrow if d is dt.f32 else wide
    info = np.finfo(t)
    special = [
        0,
        -0.0,
        np.inf,
        -np.inf,
        np.nan,
        1,
        -1,
        info.tiny,
        info.smallest_subnormal,
        info.max,
        -info.max,
        0.5,
        88.72,
        709.78,
    ]
    bits = rng.integers(0, 2 ** (8 * d.bytes) - 1, n, np.uint64).astype(f"u{d.bytes}").view(t)
    with np.errstate(all="ignore"):
        parts = [
            np.array(special, t),
            rng.uniform(low, high, n),
            rng.uniform(max(low, -2), min(high, 2), n),
            bits,
            np.exp(rng.uniform(-60, 0, n)),
        ]
        x = np.concatenate([p.astype(t) for p in parts])
        (y,) = run(elementwise(op, (d,), d, len(x)), x)
        want = reference(x.astype(L))
        rounded = want.astype(t)
        error = np.abs(y.astype(L) - want) / np.maximum(np.spacing(np.abs(rounded)), info.smallest_subnormal).astype(L)
        error = np.where(
            np.isfinite(rounded), error, np.where((y == rounded) | (np.isnan(y) & np.isnan(rounded)), 0, np.inf)
        )
        error = np.where(np.abs(rounded) < info.tiny, error / 1.6, error)
    worst = int(np.argmax(np.where(np.isnan(error), np.inf, error)))
    assert error[worst] <= ulps[d is dt.f64], (x[worst], y[worst], want[worst], error[worst])
    if op not in ("exp", "exp2", "log", "log2", "log10", "cos", "acos", "cosh", "acosh"):
        assert not np.signbit(y[0]) and np.signbit(y[1])


@pytest.mark.parametrize("tile", [16, 32, 40, 64])
def test_exponentials_side_by_side_are_those_of_one_vector(tile):
    """Also where one of them leaves the normal numbers, and the others of its group do not."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-80, 80, 64 * 40).astype("f4")
    borders = [k * math.log(2) for k in (-149.5, -126.5, -126, -125.5, -125, 126.5, 127, 127.5, 128)]
    odd = [np.nan, np.inf, -np.inf, -104, -103, 88.7228, 88.73, 89, 3e38, -3e38, 1e-45, -0.0]
    seldom = np.array([*odd, *borders, *(np.nextafter(np.float32(b), np.float32(s)) for b in borders for s in (-200, 200))], "f4")
    x[rng.permutation(len(x))[: len(seldom) * 3 : 3]] = seldom
    with np.errstate(all="ignore"):
        alone = run(elementwise("exp", [dt.f32], dt.f32, len(x), tile=8), x)[0]
        several = run(elementwise("exp", [dt.f32], dt.f32, len(x), tile=tile), x)[0]
    np.testing.assert_array_equal(several, alone)
    assert np.isfinite(alone[np.abs(x) < 80]).all() and np.isnan(alone[np.isnan(x)]).all()
