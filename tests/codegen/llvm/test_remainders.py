"""`%` and `//` of floating numbers are exact: every bit as NumPy's, over all exponents, signs, infinities and NaN."""

from __future__ import annotations

import numpy as np
import pytest

import kdsl.dtypes as dt
from kdsl.codegen.llvm.module import emit_kernels
from kdsl.target import LEVELS

from .harness import elementwise, run


def pairs(d, n=6000):
    rng, t = np.random.default_rng(3), d.numpy
    info = np.finfo(t)
    special = [0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 3, 0.1, info.tiny, info.smallest_subnormal, info.max, -info.max]
    a, b = np.array([(x, y) for x in special for y in special], t).T
    bits = rng.integers(0, 2 ** (8 * d.bytes) - 1, (2, n), np.uint64).astype(f"u{d.bytes}").view(t)
    near = (rng.integers(-50, 50, n) * rng.choice([0.1, 0.5, 1, 3], n)).astype(t)
    small = rng.choice([0.1, 0.25, 0.7, 3, -7], n).astype(t)
    tiny = rng.integers(1, 99, n).astype(f"u{d.bytes}").view(t)
    return np.concatenate([a, bits[0], near, bits[0], near]), np.concatenate([b, bits[1], small, tiny, near[::-1]])


def same(got, expected, a, b):
    differs = (got.view(f"u{got.itemsize}") != expected.view(f"u{got.itemsize}")) & ~(np.isnan(got) & np.isnan(expected))
    assert not differs.any(), [(a[i], b[i], got[i], expected[i]) for i in np.flatnonzero(differs)[:5]]


@pytest.mark.parametrize("level", ["x86-64-v3", "x86-64-v4"])
@pytest.mark.parametrize("d", [dt.f32, dt.f64], ids=str)
@pytest.mark.parametrize("op", ["mod", "floor_div"])
def test_as_numpy(op, d, level):
    a, b = pairs(d)
    (got,) = run(elementwise(op, (d, d), d, len(a)), a, b, level=level)
    with np.errstate(all="ignore"):
        same(got, {"mod": np.mod, "floor_div": np.floor_divide}[op](a, b), a, b)


@pytest.mark.parametrize("d", [dt.f32, dt.f64], ids=str)
def test_no_library_is_called(d):
    text, _ = emit_kernels(elementwise("mod", (d, d), d, 100), LEVELS["x86-64-v3"])
    assert "frem" not in text and "fmod" not in text
