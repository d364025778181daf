"""Section 5 of the contract: IEEE and the freedoms taken, the same results every time, integers."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import kdsl as kd
from tests.contract.saying import equal
from tests.tolerance import assert_close

X = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 3e38], "f4")
ROOT = Path(__file__).parents[2]


def run(function, *arrays):
    return kd.kernel(function)(*arrays)


UNFOLDED = {
    "x * 0": lambda x: x * 0,
    "x * 0.0": lambda x: x * 0.0,
    "x * -0.0": lambda x: x * -0.0,
    "x + 0.0": lambda x: x + 0.0,
    "x - x": lambda x: x - x,
    "x / x": lambda x: x / x,
    "0 - x": lambda x: 0.0 - x,
    "-x": lambda x: -x,
    "x == x": lambda x: x == x,
    "x != x": lambda x: x != x,
    "x * 1": lambda x: x * 1.0,
    "not less": lambda x: ~(x < 1),
    "x + x - x": lambda x: x + x - x,
    "abs": lambda x: abs(x),
    "0 * (x + 1)": lambda x: 0 * (x + 1),
}


@pytest.mark.parametrize("name", UNFOLDED)
def test_nan_infinity_and_signed_zeros_are_kept(name):
    """IEEE: NaN and infinity pass through every transformation, signed zeros are kept, `x*0` and `x+0.0` are not folded"""
    with np.errstate(all="ignore"):
        equal(run(UNFOLDED[name], X), UNFOLDED[name](X))


def test_nan_passes_through_where_max_and_clip():
    """NaN and infinity pass through every transformation"""
    nan = np.array([np.nan, 1.0], "f4")
    for f in (
        lambda x: kd.maximum(x, 0.0),
        lambda x: kd.clip(x, 0.0, 2.0),
        lambda x: kd.sum(x),
        lambda x: kd.max(x),
        lambda x: x @ x,
    ):
        assert np.isnan(np.asarray(run(f, nan)).ravel()[0])


def test_zero_times_infinity_in_a_contraction_is_nan():
    """NaN and infinity pass through every transformation (a zero in one factor does not hide an infinity in the other)"""
    a, b = np.zeros((5, 7), "f4"), np.ones((7, 3), "f4")
    b[4, 1] = np.inf
    b[2, 2] = np.nan
    with np.errstate(all="ignore"):
        equal(run(lambda a, b: a @ b, a, b), a @ b)
        equal(run(lambda a, b: kd.einsum("ij,jk->i", a, b), a, b), np.full(5, np.nan, "f4"))


@pytest.mark.parametrize("shape", [(1,), (17,), (3, 65)])
def test_a_sum_of_negative_zeros(shape):
    """signed zeros are kept: a product with -0.0 keeps its sign elementwise"""
    x = np.full(shape, -0.0, "f4")
    equal(run(lambda x: x * 1.0, x), x)
    equal(run(lambda x: kd.where(x == 0, x, 1.0), x), x)
    equal(run(lambda x: kd.concat([x, -x]), x), np.concatenate([x, -x]))


def test_astype_is_never_removed():
    """f16/bf16 values stay f32 inside a kernel until stored or cast (`astype` is never removed)"""
    x = np.array([1.0 + 2.0**-12, 70000.0, 1e-9, np.nan, -0.0], "f4")
    with np.errstate(all="ignore"):
        equal(run(lambda x: x.astype(kd.f16).astype(kd.f32), x), x.astype("f2").astype("f4"))
        equal(
            run(lambda x: kd.astype(kd.astype(x, kd.bf16), kd.f32) * 1.0, x), x.astype(ml_dtypes.bfloat16).astype("f4")
        )
        equal(run(lambda x: x.astype(kd.f16).astype(kd.f32) + x, x), x.astype("f2").astype("f4") + x)
    y = np.array([1 + 1e-12, 1e300, -1e-300])
    with np.errstate(all="ignore"):
        equal(run(lambda y: y.astype(kd.f32).astype(kd.f64), y), y.astype("f4").astype("f8"))
    equal(run(lambda y: y.astype(kd.i32).astype(kd.f64), np.array([1.9, -1.9])), np.array([1.0, -1.0]))
    equal(run(lambda i: i.astype(kd.i8).astype(kd.i32), np.array([300, -129], "i4")), np.array([44, 127], "i4"))


@pytest.mark.parametrize("columns", [1, 2, 17, 300])
def test_a_row_that_is_minus_infinity_throughout_gives_what_numpy_gives(columns):
    """A row that is -inf throughout gives what NumPy gives"""
    x = np.full((3, columns), -np.inf, "f4")
    x[1] = 0.5
    with np.errstate(all="ignore"):
        e = np.exp(x - x.max(-1, keepdims=True))
        expected = e / e.sum(-1, keepdims=True)

    def softmax(x):
        e = kd.exp(x - kd.max(x, axis=-1, keepdims=True))
        return e / kd.sum(e, axis=-1, keepdims=True)

    assert_close(run(softmax, x), expected)
    v = np.ones((columns, 4), "f4")
    with np.errstate(all="ignore"):
        assert_close(run(lambda x, v: softmax(x) @ v, x, v), expected @ v, operations=columns)


@pytest.mark.parametrize("where", [0, 5, 16, 299])
def test_one_nan_or_infinity_in_a_row_stays_in_its_row(where):
    """NaN and infinity pass through every transformation"""
    x = np.zeros((3, 300), "f4")
    x[1, where] = np.nan
    got = np.asarray(run(lambda x: kd.exp(x) / kd.sum(kd.exp(x), axis=1, keepdims=True), x))
    assert np.isnan(got[1]).all() and np.isfinite(got[[0, 2]]).all()


PROGRAM = """
import hashlib, numpy as np, kdsl as kd
rng = np.random.default_rng(0)
x, w = rng.standard_normal((1031, 257)).astype("f4"), rng.standard_normal((257, 129)).astype("f4")
i = rng.integers(0, 1031, 5000)
def body(x, w, i):
    return kd.sum(x, axis=0), kd.sum(x), kd.tanh(x @ w), kd.mean(kd.exp(x), axis=1), kd.scatter_add(x, i, x[i % 1031])
f = kd.kernel(body)
results = f(x, w, i)
results += f.vjp(x, w, i, np.ones(257, "f4"), np.float32(1), np.ones((1031, 129), "f4"), np.ones(1031, "f4"), x)
print(hashlib.sha256(b"".join(np.asarray(r).tobytes() for r in results)).hexdigest())
"""


def _digest(**environment):
    out = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, **environment},
        cwd=ROOT,
    )
    assert out.returncode == 0, out.stderr
    return out.stdout


def test_same_results_every_run_and_for_every_number_of_threads():
    """Same results every run (for one tuning state) and for every number of threads, bit for bit"""
    assert len({_digest(KDSL_THREADS=n) for n in ("1", "2", "5")}) == 1


def test_same_results_every_call():
    """Same results every run"""
    x = np.random.default_rng(0).standard_normal((513, 1027)).astype("f4")
    f = kd.kernel(lambda x: (kd.sum(x), kd.sum(x, axis=0), x @ x.T))
    digests = {hashlib.sha256(b"".join(np.asarray(r).tobytes() for r in f(x))).hexdigest() for _ in range(4)}
    assert len(digests) == 1


def test_eager_and_compiled_agree_within_the_table():
    """Between ... fusions, eager and compiled: within the tolerance table"""

    def gelu(x):
        return 0.5 * x * (1 + kd.tanh(0.7978845608 * (x + 0.044715 * x**3)))

    x = np.linspace(-6, 6, 1001, dtype="f4")
    eager = kd.multiply(
        kd.multiply(x, 0.5),
        kd.add(1.0, kd.tanh(kd.multiply(0.7978845608, kd.add(x, kd.multiply(0.044715, kd.pow(x, 3)))))),
    )
    assert_close(run(gelu, x), eager, operations=16, scale=1)


def test_instruction_sets_agree_within_the_table():
    """Between ... instruction sets ...: within the tolerance table"""
    program = "import sys, numpy as np, kdsl as kd\nx = np.linspace(-5, 5, 999, dtype='f4').reshape(27, 37)\n" + (
        "f = kd.kernel(lambda x: kd.exp(x) @ kd.tanh(x.T) / kd.sum(x * x))\nsys.stdout.buffer.write(f(x).tobytes())\n"
    )
    got = []
    for target in ("cpu", "cpu:x86-64-v3"):
        environment = {**os.environ, "KDSL_TARGET": target}
        out = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, timeout=600, env=environment, cwd=ROOT
        )
        assert out.returncode == 0, out.stderr.decode()
        got.append(np.frombuffer(out.stdout, "f4"))
    assert_close(got[0], got[1], operations=64, scale=1)


def test_the_tolerance_table_is_written_down():
    """within the tolerance table of docs/numerics.md"""
    text = (ROOT / "docs" / "numerics.md").read_text()
    assert all(name in text for name in ("f32", "f64", "f16", "bf16"))


INTEGERS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_wrap(dtype):
    """Integers wrap"""
    info = np.iinfo(dtype)
    x = np.array([info.max, info.min, 0, 1, info.max - 1], dtype)
    with np.errstate(all="ignore"):
        equal(run(lambda x: x + 1, x), x + np.ones((), dtype))
        equal(run(lambda x: x * x, x), x * x)
        equal(run(lambda x: x - x[::-1], x), x - x[::-1])
        equal(run(lambda x: -x, x), -x)
        if info.min < 0:
            equal(run(lambda x: abs(x), x), np.abs(x))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_floor_division_and_remainder_floor(dtype):
    """`//` and `%` floor"""
    low = -7 if np.iinfo(dtype).min < 0 else 0
    a, b = (m.ravel().astype(dtype) for m in np.meshgrid(np.arange(low, 8), [n for n in range(low // 2, 4) if n != 0]))
    equal(run(lambda a, b: a // b, a, b), a // b)
    equal(run(lambda a, b: a % b, a, b), a % b)
    equal(run(lambda a: a // 3, a), a // np.array(3, dtype))
    equal(run(lambda a: a % 3, a), a % np.array(3, dtype))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_floating_floor_division_and_remainder_floor(dtype):
    """`//` and `%` floor (floating values too)"""
    a, b = (m.ravel().astype(dtype) for m in np.meshgrid([-7.5, -1.0, 0.0, 0.5, 3.0, 7.25], [-2.0, -0.5, 0.75, 3.0]))
    equal(run(lambda a, b: a // b, a, b) + 0, a // b + 0)
    equal(run(lambda a, b: a % b, a, b) + 0, a % b + 0)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integer_division_by_zero_gives_0(dtype):
    """integer division by zero gives 0"""
    x = np.array([0, 1, np.iinfo(dtype).max, np.iinfo(dtype).min, 3], dtype)
    zero = np.zeros(5, dtype)
    for f in (lambda x, z: x // z, lambda x, z: x % z, lambda x, z: x // 0, lambda x, z: x % 0):
        equal(run(f, x, zero), zero)


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8"])
def test_the_least_integer_divided_by_minus_1_wraps(dtype):
    """the least integer // -1 wraps"""
    least = np.array([np.iinfo(dtype).min] * 9, dtype)
    equal(run(lambda x, y: x // y, least, np.full(9, -1, dtype)), least)
    equal(run(lambda x: x // -1, least), least)
    equal(run(lambda x, y: x % y, least, np.full(9, -1, dtype)), np.zeros(9, dtype))


@pytest.mark.parametrize("dtype", INTEGERS)
def test_shifts_by_the_width_or_more_give_0_or_the_sign(dtype):
    """shifts by the width or more give 0 or the sign"""
    info = np.iinfo(dtype)
    x = np.array([1, info.max, info.min, 5], dtype)
    for by in (info.bits, info.bits + 1, 100):
        for f in (lambda x, n: x << n, lambda x, n, by=by: x << by):
            equal(run(f, x, np.full(4, by, dtype)), np.zeros(4, dtype))
        for f in (lambda x, n: x >> n, lambda x, n, by=by: x >> by):
            equal(run(f, x, np.full(4, by, dtype)), np.where(x < 0, -1, 0).astype(dtype))
    equal(run(lambda x, n: x >> n, x, np.full(4, info.bits - 1, dtype)), x >> np.full(4, info.bits - 1, dtype))


@pytest.mark.parametrize("source", ["f2", "f4", "f8"])
@pytest.mark.parametrize("dtype", INTEGERS)
def test_float_to_integer_truncates_saturates_and_sends_nan_to_0(dtype, source):
    """float to integer truncates, saturates and sends NaN to 0"""
    info = np.iinfo(dtype)
    with np.errstate(all="ignore"):
        x = np.array(
            [
                0.5,
                -0.5,
                1.99,
                -1.99,
                100.7,
                np.nan,
                np.inf,
                -np.inf,
                3e9,
                -3e9,
                1e19,
                -1e19,
                2.0**31,
                2.0**63,
                256,
                -129,
            ],
            source,
        )

    def expected(v):
        return 0 if np.isnan(v) else info.max if v >= info.max else info.min if v <= info.min else int(v)

    equal(run(lambda x: x.astype(dtype_name(dtype)), x), np.array([expected(float(v)) for v in x], dtype))


def dtype_name(dtype):
    return np.dtype(dtype).name


def test_float_to_bool_is_whether_it_differs_from_0():
    """float to integer ... (to bool as NumPy: NaN is True)"""
    equal(run(lambda x: x.astype(kd.bool), X), X.astype("?"))


@pytest.mark.oracle
def test_integers_are_the_same_on_every_target():
    """on every target"""
    pytest.importorskip("numba_cuda", reason="needs numba-cuda: pip install 'kdsl[cuda]'")
    x = np.array([7, 0, -(2**31)], "i4")
    equal(kd.kernel(lambda x: x // x, target="emulator")(x), np.array([1, 0, 1], "i4"))
