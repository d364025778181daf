"""Creation functions mean NumPy's, with f32 and i64 as defaults; random numbers follow their formulas."""

import statistics

import numpy as np
import pytest

import kdsl.dtypes as dt
from kdsl.language import PUBLIC, random
from tests.language.running import run, trace
from tests.tolerance import assert_close

kd = type("kd", (), {k: staticmethod(v) for k, v in PUBLIC.items() if callable(v)})
X = np.arange(6, dtype="i4").reshape(2, 3)

CASES = [
    (lambda: kd.zeros((2, 3)), lambda: np.zeros((2, 3), "f4")),
    (lambda: kd.zeros(4, dtype="int32"), lambda: np.zeros(4, "i4")),
    (lambda: kd.ones((0, 2), dtype=np.float64), lambda: np.ones((0, 2))),
    (lambda: kd.empty(3), lambda: np.zeros(3, "f4")),
    (lambda: kd.full((2,), 7), lambda: np.full((2,), 7)),
    (lambda: kd.full((2,), True), lambda: np.full((2,), True)),
    (lambda: kd.full((), 1.5), lambda: np.full((), 1.5, "f4")),
    (lambda: kd.arange(5), lambda: np.arange(5)),
    (lambda: kd.arange(2, 9, 3), lambda: np.arange(2, 9, 3)),
    (lambda: kd.arange(9, 2, -3), lambda: np.arange(9, 2, -3)),
    (lambda: kd.arange(5, 2), lambda: np.arange(5, 2)),
    (lambda: kd.arange(0.0, 1.0, 0.25), lambda: np.arange(0, 1, 0.25, "f4")),
    (lambda: kd.arange(3, dtype=np.float64), lambda: np.arange(3, dtype="f8")),
    (lambda: kd.arange(np.int64(3), dtype=kdtype("u8")), lambda: np.arange(3, dtype="u1")),
    (lambda: kd.linspace(0, 1, 5), lambda: np.linspace(0, 1, 5, dtype="f4")),
    (lambda: kd.linspace(-1.0, 2.0, 7, endpoint=False), lambda: np.linspace(-1, 2, 7, endpoint=False, dtype="f4")),
    (lambda: kd.linspace(0, 1, 1), lambda: np.linspace(0, 1, 1, dtype="f4")),
    (lambda: kd.linspace(0, 1, 0), lambda: np.linspace(0, 1, 0, dtype="f4")),
    (lambda: kd.eye(3), lambda: np.eye(3, dtype="f4")),
    (lambda: kd.eye(2, 4, k=1, dtype="i8"), lambda: np.eye(2, 4, 1, "i1")),
    (lambda: kd.eye(4, 2, k=-1, dtype="f64"), lambda: np.eye(4, 2, -1)),
    (lambda: kd.meshgrid(kd.arange(2), kd.arange(3))[0], lambda: np.meshgrid(np.arange(2), np.arange(3))[0]),
    (lambda: kd.meshgrid(kd.arange(2), kd.arange(3), indexing="ij")[1],
     lambda: np.meshgrid(np.arange(2), np.arange(3), indexing="ij")[1]),
    (lambda: kd.zeros_like(X), lambda: np.zeros_like(X)),
    (lambda: kd.full_like(X, 2.0, dtype="f32"), lambda: np.full_like(X, 2.0, dtype="f4")),
    (lambda: kd.exp(0.5), lambda: np.exp(np.float32(0.5))),
]  # fmt: skip


def kdtype(name):
    return dt.BY_NAME[name]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_means_numpys(case):
    ours, numpys = CASES[case]
    got, expected = run(ours), np.asarray(numpys())
    assert got.dtype == expected.dtype
    assert_close(got, expected)


def test_like_functions_take_tracers():
    np.testing.assert_array_equal(run(lambda x: np.zeros_like(x) + np.ones_like(x), X), 1)
    assert run(lambda x: kd.full_like(x, 3), X).dtype == np.int32
    np.testing.assert_array_equal(run(lambda x: kd.full((2, 2), x[0, 1]), X), 1)


# --- random -------------------------------------------------------------------------------------------------------------------
KEY = run(lambda: random.key(42))


def test_keys():
    np.testing.assert_array_equal(KEY, np.array([42, 0], "u4"))
    np.testing.assert_array_equal(run(lambda: random.key(2**40 + 3)), np.array([3, 256], "u4"))
    np.testing.assert_array_equal(run(lambda s: random.key(s), np.array(2**40 + 3)), np.array([3, 256], "u4"))
    np.testing.assert_array_equal(run(lambda s: random.key(s), np.array(-1)), run(lambda: random.key(-1)))
    keys = run(lambda k: random.split(k, 5), KEY)
    assert keys.shape == (5, 2) and keys.dtype == np.uint32 and len({tuple(k) for k in keys}) == 5
    a, b = run(lambda k: tuple(random.split(k)), KEY)
    np.testing.assert_array_equal([a, b], keys[:2])
    folded = run(lambda: [random.fold_in(random.key(s), i) for s in range(8) for i in range(8)])
    assert len({tuple(f) for f in folded}) == 64
    traced = run(lambda k, i: random.fold_in(k, i), KEY, np.array(3))
    np.testing.assert_array_equal(traced, run(lambda k: random.fold_in(k, 3), KEY))


def test_bits_and_uniform_follow_the_formula():
    bits = run(lambda k: random.bits(k, (1000,)), KEY)
    assert bits.dtype == np.uint32
    np.testing.assert_array_equal(run(lambda k: random.uniform(k, (10, 100)), KEY).ravel(), (bits >> 8) * np.float32(2**-24))
    for dtype in (dt.f16, dt.f32, dt.f64, dt.bf16):
        u = run(lambda k, dtype=dtype: random.uniform(k, (4001,), dtype), KEY).astype("f8")
        assert 0 <= u.min() and u.max() < 1 and abs(u.mean() - 0.5) < 0.02


def test_other_distributions():
    u = run(lambda k: random.uniform(k, (5000,)), KEY)
    np.testing.assert_array_equal(run(lambda k: random.bernoulli(k, 0.3, (5000,)), KEY), u < np.float32(0.3))
    r = run(lambda k: random.randint(k, (5000,), -2, 4), KEY)
    assert r.dtype == np.int64 and set(r) == set(range(-2, 4))
    r = run(lambda k: random.randint(k, (5000,), 0, 2**32, "u64"), KEY)
    np.testing.assert_array_equal(r, run(lambda k: random.bits(k, (5000,)), KEY))


@pytest.mark.parametrize(("dtype", "tolerance"), [("f32", 2e-6), ("f64", 1e-12)])
def test_normal_is_the_inverse_distribution_function(dtype, tolerance):
    x = run(lambda k: random.normal(k, (3000,), dtype), KEY).astype("f8")
    assert abs(x.mean()) < 0.05 and abs(x.std() - 1) < 0.05
    if dtype == "f32":
        p = ((run(lambda k: random.bits(k, (3000,)), KEY) >> 9) + 0.5) * 2.0**-23
        expected = np.array([statistics.NormalDist().inv_cdf(float(v)) for v in p])
        assert np.abs(x - expected).max() < tolerance * 8


def test_the_inverse_normal_in_the_tails():
    p = np.array([2.0**-24, 1e-5, 0.0749, 0.0751, 0.3, 0.5, 0.9, 0.925, 0.9999, 1 - 2.0**-24])
    exact = np.array([statistics.NormalDist().inv_cdf(v) for v in p])
    assert np.abs(run(random._inverse_normal, p) - exact).max() < 1e-13
    far = run(random._inverse_normal, np.array([1e-30, 1e-300]))
    np.testing.assert_allclose(far, [-11.464024988, -37.0470964], rtol=1e-7)
    single = np.array([statistics.NormalDist().inv_cdf(float(v)) for v in p.astype("f4")])
    assert np.abs(run(random._inverse_normal, p.astype("f4")) / np.where(single, single, 1) - np.where(single, 1, 0)).max() < 2e-6


def test_mistakes():
    with pytest.raises(TypeError, match="a key is u32"):
        trace(lambda k: random.uniform(k, (3,)), np.zeros(2, "i4"))
    with pytest.raises(TypeError, match="low < high"):
        trace(lambda k: random.randint(k, (3,), 4, 4), KEY)
    with pytest.raises(ValueError, match="sizes are at least 0"):
        trace(lambda: kd.zeros((2, -1)))
