"""Elementwise functions mean what NumPy's mean, with kdsl's dtypes."""

import math

import ml_dtypes
import numpy as np
import pytest

import kdsl.dtypes as dt
from kdsl.errors import ArgumentError, ConstantError, DtypeError, ShapeError
from kdsl.ir.ops import Op
from kdsl.language import PUBLIC
from tests.language.running import run, trace
from tests.tolerance import assert_close

SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.5, 100.0, -100.0, 1e30, np.inf, -np.inf, np.nan], "f4")
UNARY = {
    "abs": np.abs, "acos": np.arccos, "acosh": np.arccosh, "asin": np.arcsin, "asinh": np.arcsinh, "atan": np.arctan,
    "atanh": np.arctanh, "ceil": np.ceil, "cos": np.cos, "cosh": np.cosh, "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1,
    "floor": np.floor, "isfinite": np.isfinite, "isinf": np.isinf, "isnan": np.isnan, "log": np.log, "log10": np.log10,
    "log1p": np.log1p, "log2": np.log2, "logical_not": np.logical_not, "negative": np.negative, "positive": np.positive,
    "reciprocal": np.reciprocal, "round": np.round, "sign": np.sign, "signbit": np.signbit, "sin": np.sin, "sinh": np.sinh,
    "sqrt": np.sqrt, "square": np.square, "tan": np.tan, "tanh": np.tanh, "trunc": np.trunc,
    "rsqrt": lambda x: 1 / np.sqrt(x), "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "erf": np.vectorize(math.erf, otypes=["f8"]),
    "stop_gradient": lambda x: x,
}  # fmt: skip
BINARY = {
    "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide, "floor_divide": np.floor_divide,
    "remainder": np.remainder, "pow": np.power, "maximum": np.maximum, "minimum": np.minimum, "hypot": np.hypot,
    "logaddexp": np.logaddexp, "atan2": np.arctan2, "copysign": np.copysign, "nextafter": np.nextafter, "equal": np.equal,
    "not_equal": np.not_equal, "less": np.less, "less_equal": np.less_equal, "greater": np.greater,
    "greater_equal": np.greater_equal, "logical_and": np.logical_and, "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
}  # fmt: skip
BITS = {
    "bitwise_and": np.bitwise_and, "bitwise_or": np.bitwise_or, "bitwise_xor": np.bitwise_xor,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet():
    with np.errstate(all="ignore"):
        yield


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_unary_means_numpys(name, dtype):
    x = np.concatenate([SPECIAL.astype(dtype), np.random.default_rng(0).standard_normal(50).astype(dtype)])
    expected = np.asarray(UNARY[name](x.astype("f8")))
    got = run(PUBLIC[name], x)
    assert got.dtype == (expected.dtype if expected.dtype == bool else np.dtype(dtype))
    if dtype == "f4" and expected.dtype != bool:
        expected = expected.astype("f4")
    if name in ("sin", "cos", "tan"):
        got, expected = got[np.abs(x) < 1e6], expected[np.abs(x) < 1e6]
    finite = np.abs(np.where(np.isfinite(expected.astype("f8")), expected, 0)) < 1e20
    assert_close(np.where(finite, got, 0), np.where(finite, expected, 0), scale=1.0)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(expected))


@pytest.mark.parametrize("name", BINARY)
def test_binary_means_numpys(name):
    x, y = (m.ravel() for m in np.meshgrid(SPECIAL, SPECIAL))
    got = run(PUBLIC[name], x, y)
    expected = BINARY[name](x, y)
    if name == "floor_divide":
        expected = np.floor(x.astype("f8") / y)  # NumPy gives NaN for inf // y
        keep = np.isfinite(x) & (y != 0)
        got, expected = got[keep], np.where(np.isinf(y), np.floor_divide(x, y), expected)[keep].astype("f4")
    assert_close(got, expected, scale=1.0)


@pytest.mark.parametrize("name", BITS)
@pytest.mark.parametrize("dtype", ["i4", "u1", "i8", "?"])
def test_bits_mean_numpys(name, dtype):
    x, y = np.array([0, 1, 1, 0], dtype), np.array([1, 1, 0, 0], dtype)
    np.testing.assert_array_equal(run(PUBLIC[name], x, y), BITS[name](x, y))
    np.testing.assert_array_equal(run(lambda x: ~x, x), ~x)


def test_integers_wrap_divide_and_shift_as_the_contract_says():
    x = np.array([-(2**31), 7, -7, 2**31 - 1], "i4")
    np.testing.assert_array_equal(run(lambda x: x + 1, x), x + np.int32(1))
    np.testing.assert_array_equal(run(lambda x: x // 0, x), 0)
    np.testing.assert_array_equal(run(lambda x: x % 0, x), 0)
    np.testing.assert_array_equal(run(lambda x: x // -1, x), [-(2**31), -7, 7, -(2**31) + 1])
    np.testing.assert_array_equal(run(lambda x: x // 2, x), x // 2)
    np.testing.assert_array_equal(run(lambda x: x << 32, x), 0)
    np.testing.assert_array_equal(run(lambda x: x >> 40, x), [-1, 0, -1, 0])
    np.testing.assert_array_equal(run(lambda x: 1 << x, np.array([0, 3], "i4")), [1, 8])


def test_casts_truncate_saturate_and_send_nan_to_zero():
    x = np.array([1.9, -1.9, 1e30, -1e30, np.nan, np.inf], "f4")
    np.testing.assert_array_equal(run(lambda x: x.astype(dt.i8), x), [1, -1, 127, -128, 0, 127])
    np.testing.assert_array_equal(run(lambda x: x.astype("bool"), x), [1, 1, 1, 1, 1, 1])
    assert run(lambda x: x.astype(np.float16), x).dtype == np.float16


NP = {"bool": "?", "i8": "i1", "i16": "i2", "i32": "i4", "i64": "i8", "u8": "u1", "u16": "u2", "u32": "u4", "u64": "u8",
      "f16": "f2", "bf16": ml_dtypes.bfloat16, "f32": "f4", "f64": "f8"}  # fmt: skip


@pytest.mark.parametrize(
    ("a", "b", "result"),
    [("i32", "f32", "f32"), ("i64", "f16", "f16"), ("f16", "bf16", "f32"), ("u8", "i8", "i16"), ("u32", "i32", "i64"),
     ("bool", "f64", "f64"), ("bool", "u8", "u8"), ("bf16", "f32", "f32"), ("i8", "i16", "i16")],
)  # fmt: skip
def test_tensors_promote(a, b, result):
    x, y = np.ones(3, NP[a]), np.ones(3, NP[b])
    assert run(lambda x, y: x + y, x, y).dtype == np.dtype(NP[result])
    assert run(lambda x, y: y * x, x, y).dtype == np.dtype(NP[result])


@pytest.mark.parametrize(
    ("a", "weak", "result"),
    [("f32", 2, "f32"), ("f16", 2.5, "f16"), ("bf16", np.float64(2.5), "bf16"), ("f32", np.float64(2), "f32"), ("i32", 2, "i32"),
     ("i32", np.int64(2), "i32"), ("i32", 2.5, "f32"), ("u8", True, "u8"), ("bool", 2, "i64"), ("bool", 0.5, "f32"),
     ("f64", 1, "f64")],
)  # fmt: skip
def test_numbers_are_weak(a, weak, result):
    x = np.ones(3, NP[a])
    assert run(lambda x: x * weak, x).dtype == np.dtype(NP[result])
    assert run(lambda x: weak * x, x).dtype == np.dtype(NP[result])
    assert run(lambda x: PUBLIC["where"](x > 0, weak, x), x).dtype == np.dtype(NP[result])


@pytest.mark.parametrize(("dtype", "result"), [("i32", "f32"), ("bool", "f32"), ("i64", "f32"), ("f16", "f16"), ("f64", "f64")])
def test_division_and_exp_of_integers_give_f32(dtype, result):
    x = np.ones(3, NP[dtype])
    for f in (lambda x: x / x, lambda x: x / 2, PUBLIC["exp"], PUBLIC["mean"], lambda x: 1 / x):
        assert run(f, x).dtype == np.dtype(NP[result])


def test_unsigned_64_and_signed_have_no_common_type():
    with pytest.raises(DtypeError, match="u64 and i32"):
        trace(lambda x, y: x + y, np.ones(2, "u8"), np.ones(2, "i4"))
    with pytest.raises(TypeError):
        trace(lambda x, y: x + y, np.ones(2, "u8"), np.ones(2, "i4"))


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        (lambda x: (x > 0) + (x > 1), DtypeError, "cannot add bools"),
        (lambda x: -(x > 0), DtypeError, "negative needs numbers"),
        (lambda x: x & 1, DtypeError, "bits are of"),
        (lambda x: x.astype("i1") + 300, DtypeError, "300 does not fit i8"),
        (lambda x: x.astype("i4") ** -1, DtypeError, "not an integer"),
        (lambda x: [1, 2, 3] * x, ArgumentError, "not a tensor"),
        (lambda x: x + np.zeros(20000), ConstantError, "too large"),
        (lambda x: x + np.array(["a"]), DtypeError, "no tensors of"),
        (lambda x: x + np.zeros(4, "f4"), ShapeError, "last axes are 3 and 4"),
        (lambda x: x.astype("complex64"), DtypeError, "not a dtype"),
        (lambda x: x @ np.float32(3), ShapeError, "0-d"),
    ],
)
def test_mistakes(body, kind, text):
    with pytest.raises(kind, match=text):
        trace(body, np.ones(3, "f4"))


def test_a_mistake_shows_the_line_and_a_way_out():
    with pytest.raises(ShapeError) as caught:
        trace(lambda x, y: x + y, np.ones((64, 768), "f4"), np.ones(64, "f4"))
    lines = str(caught.value).split("\n")
    assert lines[0] == "cannot add f32[64, 768] and f32[64]: last axes are 768 and 64"
    assert "test_elementwise.py" in lines[1]
    assert lines[3].strip().endswith("^^^^^ f32[64, 768] + f32[64]")
    assert lines[4].strip() == "= axes line up from the right. To add along the rows write y[:, None]"


def test_comparing_with_a_number_beyond_the_dtype_is_exact():
    x = np.array([0, 255], "u1")
    np.testing.assert_array_equal(run(lambda x: x < 300, x), [True, True])
    np.testing.assert_array_equal(run(lambda x: x == -1, x), [False, False])


def test_every_equation_knows_its_place():
    function, _ = trace(lambda x: np.exp(x) + 1, np.ones(3, "f4"))
    assert [e.op for e in function.equations] == [Op.EXP, Op.ADD]
    assert all(e.location.file.endswith("test_elementwise.py") for e in function.equations)
    assert function.equations[0].location.start < function.equations[1].location.stop


def test_clip_passes_its_bounds_and_keeps_nan():
    x = np.array([-2, -1, 0, 1, 2, np.nan], "f4")
    np.testing.assert_array_equal(run(lambda x: PUBLIC["clip"](x, -1, 1), x), np.clip(x, -1, 1))
    np.testing.assert_array_equal(run(lambda x: PUBLIC["clip"](x, None, 1), x), np.clip(x, None, 1))
    np.testing.assert_array_equal(run(lambda x: x.clip(0.5), x), np.clip(x, 0.5, None))
    np.testing.assert_array_equal(run(lambda x: np.clip(x, x - 1, x * 0), x), np.clip(x, x - 1, x * 0))
    np.testing.assert_array_equal(run(lambda x: PUBLIC["clip"](0.5, x, 3), x), np.clip(np.float32(0.5), x, 3))
    np.testing.assert_array_equal(run(lambda x: PUBLIC["clip"](x), x), x)


def test_small_arrays_are_constants_and_read_at_trace_time():
    table = np.arange(3, dtype="f4")[::-1]
    function, _ = trace(lambda x: x + table, np.ones(3, "f4"))
    assert function.equations[0].op is Op.CONSTANT
    table[0] = 100
    np.testing.assert_array_equal(function.equations[0].attributes["array"], [2, 1, 0])
    np.testing.assert_array_equal(run(lambda x: np.ones(3, ">i4") + x, np.ones(3, "f4")), [2, 2, 2])


@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (3, 0, 5), (2, 3, 1)])
def test_shapes_broadcast(shape):
    x = np.ones(shape, "f4")
    y = np.ones((*shape[:-1], 1) if shape else (4,), "f4")
    assert run(lambda x, y: x * y + 1, x, y).shape == (x * y).shape
