"""Section 3 of the contract: functions, indexing, random numbers, empty axes. (Scans are in test_3_scans.py.)"""
# ruff: noqa: B023 (kernels of a loop run within the loop)

from __future__ import annotations

import numpy as np
import pytest

import kdsl as kd
from tests.contract.saying import ODD_SHAPES, equal, layouts, main_kernels, mistake
from tests.tolerance import assert_close

RNG = np.random.default_rng(3)
BREAKING = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 3.0, 1e-30, -1e-30, 1e30, 7.25, np.inf, -np.inf, np.nan]


def run(function, *arrays):
    return kd.kernel(function)(*arrays)


# -- elementwise ------------------------------------------------------------------------------------------------------

REAL = {
    "acos": np.arccos,
    "acosh": np.arccosh,
    "asin": np.arcsin,
    "asinh": np.arcsinh,
    "atan": np.arctan,
    "atanh": np.arctanh,
    "cos": np.cos,
    "cosh": np.cosh,
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "log2": np.log2,
    "log10": np.log10,
    "reciprocal": np.reciprocal,
    "sin": np.sin,
    "sinh": np.sinh,
    "sqrt": np.sqrt,
    "tan": np.tan,
    "tanh": np.tanh,
    "exp2": np.exp2,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}
EXACT = {
    "abs": np.abs,
    "ceil": np.ceil,
    "floor": np.floor,
    "trunc": np.trunc,
    "round": np.round,
    "negative": np.negative,
    "positive": np.positive,
    "sign": np.sign,
    "signbit": np.signbit,
    "square": np.square,
    "isfinite": np.isfinite,
    "isinf": np.isinf,
    "isnan": np.isnan,
}
BINARY = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "floor_divide": np.floor_divide,
    "remainder": np.remainder,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "copysign": np.copysign,
    "equal": np.equal,
    "not_equal": np.not_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "nextafter": np.nextafter,
}
BINARY_REAL = {"atan2": np.arctan2, "hypot": np.hypot, "logaddexp": np.logaddexp, "pow": np.power}
BITS = {
    "bitwise_and": np.bitwise_and,
    "bitwise_or": np.bitwise_or,
    "bitwise_xor": np.bitwise_xor,
    "bitwise_left_shift": np.left_shift,
    "bitwise_right_shift": np.right_shift,
}
LOGIC = {"logical_and": np.logical_and, "logical_or": np.logical_or, "logical_xor": np.logical_xor}
ELEMENTWISE = [*REAL, *EXACT, *BINARY, *BINARY_REAL, *BITS, *LOGIC, "logical_not", "bitwise_invert", "clip", "erf"]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("name", REAL)
def test_elementwise_real_functions(name, dtype):
    """All of the array API's elementwise ... functions (and sigmoid, rsqrt, exp2)"""
    moderate = np.concatenate([np.array([v for v in BREAKING if not 1e20 < abs(v) < 1e40]), RNG.uniform(-3, 3, 100)])
    x = (moderate if name in ("sin", "cos", "tan") else np.concatenate([BREAKING, moderate])).astype(dtype)
    with np.errstate(all="ignore"):
        expected = REAL[name](x.astype("f8"))
        assert_close(run(getattr(kd, name), x), expected.astype(dtype), dtype, operations=16)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("name", EXACT)
def test_elementwise_exact_functions(name, dtype):
    """All of the array API's elementwise ... functions"""
    x = np.array([*BREAKING, *RNG.uniform(-9, 9, 30)], dtype)
    with np.errstate(all="ignore"):
        got, expected = run(getattr(kd, name), x), EXACT[name](x)
        equal(
            got + 0.0 if name == "sign" else got, expected + 0.0 if name == "sign" else expected
        )  # sign(-0.0) is a zero


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("name", BINARY)
def test_elementwise_functions_of_two(name, dtype):
    """All of the array API's elementwise ... functions"""
    x = np.array(BREAKING, dtype)
    a, b = np.repeat(x[:, None], len(x), 1), np.repeat(x[None, :], len(x), 0)
    with np.errstate(all="ignore"):
        got, expected = run(getattr(kd, name), a, b), BINARY[name](a, b)
        if name in ("floor_divide", "remainder"):
            finite = np.isfinite(x)[:, None] & np.isfinite(x)[None, :] & (x != 0)[None, :] & (np.abs(x) > 0.1)[None, :]
            finite &= (np.abs(x) < 1e6)[:, None]
            assert_close(got[finite], expected[finite])
        elif name in ("maximum", "minimum"):
            np.testing.assert_array_equal(got, expected)
        else:
            equal(got, expected)


@pytest.mark.parametrize("name", BINARY_REAL)
def test_elementwise_real_functions_of_two(name):
    """All of the array API's elementwise ... functions"""
    x = np.array([*BREAKING, *RNG.uniform(-3, 3, 10)], "f8")
    with np.errstate(all="ignore"):
        expected = BINARY_REAL[name](x[:, None], x[None, :])
        got = run(getattr(kd, name), x[:, None], x[None, :])
        fine = np.isclose(got, expected, rtol=1e-11, atol=0, equal_nan=True) | (got == expected)
        assert fine.all(), [(x[i], x[j], got[i, j], expected[i, j]) for i, j in zip(*np.nonzero(~fine))][:5]


@pytest.mark.parametrize("dtype", ["i1", "i4", "i8", "u1", "u4", "u8"])
@pytest.mark.parametrize("name", BITS)
def test_elementwise_bit_functions(name, dtype):
    """All of the array API's elementwise ... functions"""
    x = RNG.integers(0, 127, 40).astype(dtype)
    y = (x % 7).astype(dtype) if "shift" in name else x[::-1]
    equal(run(getattr(kd, name), x, y), BITS[name](x, y))
    equal(run(kd.bitwise_invert, x), ~x)


@pytest.mark.parametrize("name", LOGIC)
def test_elementwise_logic_functions(name):
    """All of the array API's elementwise ... functions"""
    x, y = np.array([False, False, True, True]), np.array([False, True, False, True])
    equal(run(getattr(kd, name), x, y), LOGIC[name](x, y))
    equal(run(kd.logical_not, x), ~x)


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (None, 0.5), (0, None), (2, 2), (-np.inf, np.inf), (None, None)])
def test_elementwise_clip(low, high):
    """All of the array API's elementwise ... functions"""
    x = np.array(BREAKING, "f4")
    expected = x if low is high is None else np.clip(x, low, high)
    np.testing.assert_array_equal(run(lambda x: kd.clip(x, low, high), x), expected)


@pytest.mark.parametrize("dtype", ["i4", "i8", "u1"])
@pytest.mark.parametrize("name", ["abs", "sign", "square", "floor", "round", "negative", "isfinite", "isnan"])
def test_elementwise_functions_of_integers(name, dtype):
    """All of the array API's elementwise ... functions"""
    x = np.array([0, 1, 2, 7, 100], dtype)
    expected = {"floor": lambda x: x, "round": lambda x: x}.get(name, EXACT[name])(x)
    equal(run(getattr(kd, name), x), expected)


def test_elementwise_erf():
    """Beyond the standard: ... `erf`"""
    from math import erf

    x = np.array([v for v in BREAKING if not np.isnan(v)], "f8")
    assert_close(run(kd.erf, x), np.array([erf(v) for v in x]), operations=4)
    assert np.isnan(run(kd.erf, np.array([np.nan]))).all()


# -- the list of names ------------------------------------------------------------------------------------------------

NAMES = {
    "elementwise": ELEMENTWISE,
    "statistical": ["max", "mean", "min", "prod", "std", "sum", "var"],
    "manipulation": [
        "broadcast_arrays",
        "broadcast_to",
        "concat",
        "expand_dims",
        "flip",
        "moveaxis",
        "permute_dims",
        "repeat",
        "reshape",
        "roll",
        "squeeze",
        "stack",
        "tile",
        "unstack",
    ],
    "creation": [
        "arange",
        "asarray",
        "empty",
        "empty_like",
        "eye",
        "full",
        "full_like",
        "linspace",
        "meshgrid",
        "ones",
        "ones_like",
        "tril",
        "triu",
        "zeros",
        "zeros_like",
    ],
    "searching": ["argmax", "argmin", "count_nonzero", "searchsorted", "where"],
    "indexing": ["take", "take_along_axis"],
    "utility": ["all", "any", "diff"],
    "linear algebra": ["matmul", "matrix_transpose", "tensordot", "vecdot"],
    "dtypes": ["astype", "can_cast", "finfo", "iinfo", "isdtype", "result_type"],
    "constants": ["e", "inf", "nan", "newaxis", "pi"],
    "beyond": [
        "einsum",
        "erf",
        "sigmoid",
        "rsqrt",
        "logsumexp",
        "exp2",
        "pad",
        "scatter_add",
        "sliding_window",
        "stop_gradient",
    ],
    "random": ["key", "split", "fold_in", "uniform", "normal", "bernoulli", "randint"],
}


@pytest.mark.parametrize("family", NAMES)
def test_every_name_of_the_standard_is_there(family):
    """All of the array API's ... functions"""
    place = kd.random if family == "random" else kd
    assert [n for n in NAMES[family] if not hasattr(place, n)] == []


def test_sorting_functions_are_there():
    """All of the array API's ... sorting ... functions"""
    x = np.array([3.0, np.nan, -0.0, 0.0, 2.0, -np.inf], "f4")
    equal(run(lambda x: kd.sort(x), x), np.sort(x, kind="stable"))
    equal(run(lambda x: kd.argsort(x, stable=True), x), np.argsort(x, kind="stable"))
    equal(run(lambda x: kd.sort(x, descending=True), x[[0, 2, 4]]), np.array([3, 2, -0.0], "f4"))


@pytest.mark.parametrize("name", ["cumulative_sum", "cumulative_prod"])
def test_cumulative_functions(name):
    """All of the array API's ... cumulative ... functions"""
    numpys = {"cumulative_sum": np.cumsum, "cumulative_prod": np.cumprod}[name]
    for shape in [(0,), (1,), (7,), (3, 5), (3, 1009)]:
        x = RNG.uniform(0.5, 1.5, shape).astype("f4")
        for axis in range(len(shape)):
            assert_close(run(lambda x: getattr(kd, name)(x, axis=axis), x), numpys(x, axis=axis), operations=1009)


def test_cumulative_max():
    """Beyond the standard: ... `cumulative_max`"""
    x = np.array([1.0, 3.0, 2.0, np.nan, 9.0], "f4")
    equal(run(lambda x: kd.cumulative_max(x, axis=0), x), np.maximum.accumulate(x))


# -- operators, broadcasting, slicing ---------------------------------------------------------------------------------

OPERATORS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "unary -": lambda a, b: -a,
    "unary +": lambda a, b: +a,
    "abs": lambda a, b: abs(a),
    "reflected": lambda a, b: 2 - a + 3 * b - 1,
    "**": lambda a, b: a**2,
}


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i8", "u1"])
@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name, dtype):
    """with operators"""
    a, b = np.array([7, 1, 0, 5, 100], dtype), np.array([3, 1, 2, 5, 7], dtype)
    if name == "reflected" and dtype == "u1":
        pytest.skip("NumPy warns where kdsl wraps")
    expected = OPERATORS[name](a, b)
    if name == "/" and dtype != "f8":
        expected = expected.astype("f4")
    assert_close(run(OPERATORS[name], a, b), expected)
    assert np.asarray(run(OPERATORS[name], a, b)).dtype == expected.dtype


def test_operators_of_bits_and_matmul():
    """with operators"""
    a, b = np.array([6, 3, -1], "i4"), np.array([3, 1, 2], "i4")
    for f in (
        lambda a, b: a & b,
        lambda a, b: a | b,
        lambda a, b: a ^ b,
        lambda a, b: ~a,
        lambda a, b: a << b,
        lambda a, b: a >> b,
    ):
        equal(run(f, a, b), f(a, b))
    x, y = np.ones((2, 3)), np.ones((3, 4))
    equal(run(lambda x, y: x @ y, x, y), x @ y)


def test_assignment_operators_make_new_values():
    """with operators: `x += 1` in a body rebinds the name and writes no argument"""

    @kd.kernel
    def f(x):
        y = x
        y += 1
        y *= 2
        return x, y

    x = np.arange(3, dtype="float32")
    got = f(x)
    equal(got[0], np.arange(3, dtype="float32"))
    equal(got[1], (np.arange(3, dtype="float32") + 1) * 2)
    equal(x, np.arange(3, dtype="float32"))


BROADCAST = [
    ((3,), ()),
    ((3,), (1,)),
    ((1,), (0,)),
    ((2, 1), (1, 3)),
    ((5, 1, 4), (3, 1)),
    ((1, 1), (7, 65)),
    ((0, 3), (1, 3)),
    ((2, 3, 4), (4,)),
]


@pytest.mark.parametrize("shapes", BROADCAST, ids=str)
def test_broadcasting(shapes):
    """broadcasting"""
    a, b = (RNG.standard_normal(s).astype("f4") for s in shapes)
    equal(run(lambda a, b: a + b, a, b), a + b)
    equal(run(lambda a, b: kd.where(a > b, a, b), b, a), np.where(b > a, b, a))


SLICES = [
    np.s_[0],
    np.s_[-1],
    np.s_[1:3],
    np.s_[:0],
    np.s_[::2],
    np.s_[::-1],
    np.s_[5:1:-2],
    np.s_[-3:],
    np.s_[:-1],
    np.s_[100:],
    np.s_[-100:100:3],
    np.s_[..., 0],
    np.s_[:, -1],
    np.s_[..., None],
    np.s_[None, 1, ..., ::-2],
    np.s_[1, 2],
    np.s_[:, None, 1:1],
    np.s_[...],
    np.s_[()],
    np.s_[::-1, ::-1],
    np.s_[2:3, 1:100:7],
]


@pytest.mark.parametrize("layout", range(4))
@pytest.mark.parametrize("index", SLICES, ids=str)
def test_slicing(index, layout):
    """Indexing: integers, slices with any step, `...`, None; negative static indices ... count from the end"""
    x = layouts(np.arange(42, dtype="float32").reshape(6, 7))[layout]
    equal(run(lambda x: x[index], x), np.ascontiguousarray(x)[index])


# -- reductions -------------------------------------------------------------------------------------------------------

REDUCTIONS = {
    "sum": np.sum,
    "prod": np.prod,
    "max": np.max,
    "min": np.min,
    "mean": np.mean,
    "var": np.var,
    "std": np.std,
    "any": np.any,
    "all": np.all,
}
AXES = {1: [None, 0, -1], 2: [None, 0, 1, -1, (0, 1), ()], 3: [None, 0, 1, 2, (0, 2), (1, -1), (0, 1, 2)]}


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name, keepdims):
    """All of the array API's ... statistical, reduction ... functions"""
    for shape in [(1,), (7,), (65,), (13, 31), (1, 5), (3, 4, 5), (1, 1, 1)]:
        x = RNG.uniform(0.5, 1.5, shape).astype("f4")
        axes = AXES[len(shape)]

        @kd.kernel
        def f(x):
            return [getattr(kd, name)(x, axis=axis, keepdims=keepdims) for axis in axes]

        for got, axis in zip(f(x), axes):
            expected = REDUCTIONS[name](x.astype("f8"), axis=axis, keepdims=keepdims)
            expected = expected.astype("?" if name in ("any", "all") else "f4")
            assert np.shape(got) == np.shape(expected)
            assert_close(got, expected, operations=x.size, scale=2)


@pytest.mark.parametrize("correction", [0, 1, 0.5])
def test_var_and_std_take_a_correction(correction):
    """statistical ... functions (correction=)"""
    x = RNG.standard_normal((5, 7))
    got = run(lambda x: (kd.var(x, axis=1, correction=correction), kd.std(x, correction=correction)), x)
    assert_close(got[0], np.var(x, axis=1, ddof=correction), operations=7)
    assert_close(got[1], np.std(x, ddof=correction), operations=35)


def test_sum_takes_a_dtype():
    """statistical ... functions (dtype=)"""
    x = np.full(300, 100, "u1")
    equal(run(lambda x: kd.sum(x, dtype=kd.f32), x), np.array(30000, "f4"))
    equal(run(lambda x: kd.sum(x, dtype=kd.u8), x), np.sum(x, dtype="u1"))


@pytest.mark.parametrize("name", ["max", "min", "sum", "mean"])
def test_reductions_pass_nan_on(name):
    """(NaN is in the result wherever it is in what is reduced)"""
    x = np.ones((4, 67), "f4")
    x[0, 66] = x[2, 0] = np.nan
    equal(run(lambda x: getattr(kd, name)(x, axis=1), x), REDUCTIONS[name](x, axis=1))


def test_argmax_and_argmin_take_the_first():
    """searching (the first of equal ones, NaN before all)"""
    x = np.array([[1, 3, 3], [3, 1, 1], [np.nan, 5, np.nan], [-0.0, 0.0, -0.0], [-np.inf] * 3], "f4")
    for axis in (None, 0, 1):
        equal(run(lambda x: kd.argmax(x, axis=axis), x), np.asarray(np.argmax(x, axis=axis)))
        equal(run(lambda x: kd.argmin(x, axis=axis), x), np.asarray(np.argmin(x, axis=axis)))
    equal(run(lambda x: kd.argmax(x, axis=1, keepdims=True), x), np.argmax(x, axis=1, keepdims=True))


def test_logsumexp():
    """Beyond the standard: ... `logsumexp`"""
    x = RNG.standard_normal((5, 7)).astype("f4") * 50
    assert_close(run(lambda x: kd.logsumexp(x, axis=1), x), np.logaddexp.reduce(x.astype("f8"), axis=1), "f4")
    assert np.asarray(run(lambda x: kd.logsumexp(x), np.full(3, -np.inf, "f4"))) == -np.inf


# -- manipulation, creation, searching --------------------------------------------------------------------------------

MANIPULATION = {
    "broadcast_to": (lambda k, x: k.broadcast_to(x, (5, 3, 4)), None),
    "concat": (lambda k, x: k.concat([x, x[:1], x[:0], x], axis=0), None),
    "concat flat": (lambda k, x: k.concat((x, x), axis=None), None),
    "expand_dims": (lambda k, x: k.expand_dims(x, axis=1), None),
    "flip": (lambda k, x: k.flip(x, axis=1), None),
    "flip all": (lambda k, x: k.flip(x), None),
    "moveaxis": (lambda k, x: k.moveaxis(x[None], 0, -1), None),
    "permute_dims": (lambda k, x: k.permute_dims(x[None], (2, 0, 1)), None),
    "repeat": (lambda k, x: k.repeat(x, 3, axis=1), None),
    "repeat flat": (lambda k, x: k.repeat(x, 2), None),
    "repeat 0": (lambda k, x: k.repeat(x, 0, axis=0), None),
    "reshape": (lambda k, x: k.reshape(x, (2, -1)), None),
    "roll": (lambda k, x: k.roll(x, -2, axis=1), None),
    "roll far": (lambda k, x: k.roll(x, 9, axis=0), None),
    "roll flat": (lambda k, x: k.roll(x, 5), None),
    "squeeze": (lambda k, x: k.squeeze(x[:, None], axis=1), None),
    "stack": (lambda k, x: k.stack([x, x + 1, x], axis=1), None),
    "tile": (lambda k, x: k.tile(x, (2, 1, 3)), None),
    "tril": (lambda k, x: k.tril(x, k=-1), None),
    "triu": (lambda k, x: k.triu(x, k=1), None),
    "matrix_transpose": (lambda k, x: k.matrix_transpose(x), None),
    "unstack": (lambda k, x: k.unstack(x, axis=1)[1], None),
    "take_along_axis": (lambda k, x: k.take_along_axis(x, k.argmax(x, axis=1, keepdims=True), axis=1), None),
    "count_nonzero": (lambda k, x: k.count_nonzero(x, axis=0), None),
    "where": (lambda k, x: k.where(x > 3, x, x * 0), None),
    "zeros_like": (lambda k, x: k.zeros_like(x), None),
    "ones_like": (lambda k, x: k.ones_like(x), None),
    "full_like": (lambda k, x: k.full_like(x, 2.5), None),
    "pad": (lambda k, x: k.pad(x, ((1, 0), (2, 3))), None),
    "diff": (lambda k, x: k.diff(x, axis=1), None),
    "diff twice": (lambda k, x: k.diff(x, axis=0, n=2), None),
}


@pytest.mark.parametrize("layout", range(4))
@pytest.mark.parametrize("name", MANIPULATION)
def test_manipulation(name, layout):
    """All of the array API's ... manipulation ... functions (`repeat` takes an integer)"""
    function = MANIPULATION[name][0]
    x = layouts(np.array([[5, 0, 3, 2], [9, 2, 0, 1], [4, 8, 7, 6]], "f4"))[layout]
    equal(run(lambda x: function(kd, x), x), np.ascontiguousarray(function(np, np.ascontiguousarray(x))))


def test_unstack_and_broadcast_arrays_and_meshgrid_give_several():
    """All of the array API's ... manipulation, creation ... functions"""
    x = np.arange(6, dtype="float32").reshape(2, 3)
    for got, e in zip(run(lambda x: tuple(kd.unstack(x)), x), x):
        equal(got, e)
    for got, e in zip(run(lambda x: list(kd.broadcast_arrays(x, x[:, :1])), x), np.broadcast_arrays(x, x[:, :1])):
        equal(got, e)
    a, b = np.arange(3, dtype="float32"), np.arange(2, dtype="float32")
    for indexing in ("xy", "ij"):
        got = run(lambda a, b: list(kd.meshgrid(a, b, indexing=indexing)), a, b)
        for g, e in zip(got, np.meshgrid(a, b, indexing=indexing)):
            equal(g, e)


def test_split():
    """(issue: concat, split) pieces by count and by positions"""
    x = np.arange(24, dtype="float32").reshape(4, 6)
    for got, e in zip(run(lambda x: list(kd.split(x, 3, axis=1)), x), np.split(x, 3, axis=1)):
        equal(got, np.ascontiguousarray(e))


CREATION = {
    "arange": lambda k: k.arange(2, 11, 3),
    "arange down": lambda k: k.arange(5, 0, -2),
    "arange none": lambda k: k.arange(3, 3),
    "zeros": lambda k: k.zeros((2, 0, 3), dtype="float32"),
    "ones": lambda k: k.ones(3, dtype="int32"),
    "full": lambda k: k.full((2, 2), -1),
    "eye": lambda k: k.eye(3, 4, k=1, dtype="float32"),
    "tri": lambda k: k.tril(k.ones((3, 3), dtype="float64")),
    "0-d": lambda k: k.zeros((), dtype="float32"),
}


@pytest.mark.parametrize("name", CREATION)
def test_creation(name):
    """All of the array API's ... creation ... functions"""
    equal(run(lambda x: CREATION[name](kd), np.ones(1)), np.asarray(CREATION[name](np)))


@pytest.mark.parametrize(("n", "endpoint"), [(0, True), (1, True), (2, True), (7, True), (7, False)])
def test_linspace(n, endpoint):
    """All of the array API's ... creation ... functions"""
    got = run(lambda x: kd.linspace(-1, 2, n, dtype=kd.f64, endpoint=endpoint), np.ones(1))
    assert_close(got, np.linspace(-1, 2, n, endpoint=endpoint))


def test_empty_gives_zeros():
    """`empty` gives zeros"""
    for got in run(lambda x: (kd.empty((3, 5)), kd.empty_like(x)), np.ones((2, 2))):
        assert not np.asarray(got).any()


def test_repeat_takes_an_integer_only():
    """`repeat` takes an integer"""
    with pytest.raises(kd.KdslError):
        run(lambda x, n: kd.repeat(x, n), np.ones(2), np.array([1, 2]))


@pytest.mark.parametrize("side", ["left", "right"])
def test_searchsorted(side):
    """searching"""
    table, x = np.array([-1.0, 0.0, 0.0, 2.0], "f4"), np.array([-5, -1, 0.0, 1, 2, 3], "f4")
    equal(run(lambda t, x: kd.searchsorted(t, x, side=side), table, x), np.searchsorted(table, x, side=side))


# -- contractions -----------------------------------------------------------------------------------------------------

MATMULS = [
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (3, 2)),
    ((1, 1), (1, 1)),
    ((2, 3), (3, 5)),
    ((65, 17), (17, 31)),
    ((0, 3), (3, 2)),
    ((2, 0), (0, 3)),
    ((4, 2, 3), (3, 5)),
    ((4, 1, 2, 3), (5, 3, 2)),
    ((127, 129), (129, 1)),
    ((1, 7), (7, 97)),
]


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i8"])
@pytest.mark.parametrize("shapes", MATMULS, ids=str)
def test_matmul(shapes, dtype):
    """linear-algebra (matmul ...) functions"""
    a, b = (RNG.integers(-4, 5, s).astype(dtype) for s in shapes)
    equal(run(lambda a, b: a @ b, a, b) + np.dtype(dtype).type(0), np.asarray(a @ b) + np.dtype(dtype).type(0))


@pytest.mark.parametrize("layout", range(4))
def test_matmul_of_any_layout(layout):
    """linear-algebra (matmul ...) functions"""
    a, b = RNG.integers(-4, 5, (13, 17)).astype("f4"), RNG.integers(-4, 5, (17, 19)).astype("f4")
    equal(run(kd.matmul, layouts(a)[layout], layouts(b)[3 - layout]), a @ b)


def test_tensordot_and_vecdot():
    """linear-algebra (..., tensordot, vecdot) functions"""
    a, b = RNG.integers(-3, 4, (2, 3, 4)).astype("f8"), RNG.integers(-3, 4, (4, 3, 5)).astype("f8")
    for axes in (0, 1, ((1, 2), (1, 0)), ([2], [0])):
        equal(run(lambda a, b: kd.tensordot(a, b, axes=axes), a, b) + 0, np.tensordot(a, b, axes=axes) + 0)
    equal(run(lambda a, b: kd.vecdot(a, b), a, a[:1]) + 0, np.vecdot(a, a[:1]) + 0)
    equal(run(lambda a, b: kd.vecdot(a, b, axis=-2), a, a) + 0, np.einsum("ijk,ijk->ik", a, a) + 0)


EINSUMS = {
    "ij,jk->ik": [(3, 4), (4, 5)],
    "ij->ji": [(3, 4)],
    "ii->i": [(3, 3)],
    "ii": [(4, 4)],
    "ij->": [(3, 4)],
    "i,j->ij": [(3,), (4,)],
    "bij,bjk,bkl->bil": [(2, 3, 4), (2, 4, 5), (2, 5, 3)],
    "...ij,...jk": [(2, 3, 4), (4, 5)],
    "ij,ij,ij->i": [(3, 4)] * 3,
    "a,b,c,d->dcba": [(2,), (3,), (1,), (2,)],
    "ij,j": [(3, 4), (4,)],
    "bhqd,bhkd->bhqk": [(2, 3, 5, 4), (2, 3, 7, 4)],
    "ij,kj->": [(2, 0), (3, 0)],
}


@pytest.mark.parametrize("text", EINSUMS)
def test_einsum(text):
    """Beyond the standard: `einsum` (any number of operands)"""
    arrays = [RNG.integers(-3, 4, s).astype("f8") for s in EINSUMS[text]]
    equal(run(lambda *a: kd.einsum(text, *a), *arrays) + 0, np.asarray(np.einsum(text, *arrays)) + 0)


# -- beyond the standard ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_scatter_add(axis):
    """`scatter_add(x, index, updates, axis=0)`"""
    x = RNG.integers(-5, 5, (5, 6)).astype("f4")
    index = np.array([0, 3, -1, 3, 3])
    shape = (5, 6) if axis == 0 else (5, 5)
    updates = RNG.integers(-5, 5, shape).astype("f4")
    expected = x.copy()
    if axis == 0:
        np.add.at(expected, index, updates)
    else:
        np.add.at(expected, (slice(None), index), updates)
    equal(run(lambda x, i, u: kd.scatter_add(x, i, u, axis=axis), x, index, updates), expected)
    equal(run(lambda x, i: kd.scatter_add(x, i, x[:0] if axis == 0 else x[:, :0], axis=axis), x, index[:0]), x)


@pytest.mark.parametrize("case", [(3, 1, 1), (1, 1, 1), (7, 1, 1), (2, 3, 1), (3, 1, 2), (2, 2, 3)])
def test_sliding_window(case):
    """`sliding_window(x, window, axis, stride=1, dilation=1)`"""
    window, stride, dilation = case
    x = np.arange(21, dtype="float32").reshape(3, 7)
    expected = np.lib.stride_tricks.sliding_window_view(x, (window - 1) * dilation + 1, 1)[:, ::stride, ::dilation]
    equal(
        run(lambda x: kd.sliding_window(x, window, 1, stride=stride, dilation=dilation), x),
        np.ascontiguousarray(expected),
    )


def test_convolution_is_a_window_and_a_contraction():
    """(convolution and pooling are a window and a contraction or reduction)"""
    x, w = RNG.integers(-3, 4, (2, 3, 8, 9)).astype("f4"), RNG.integers(-3, 4, (4, 3, 3, 2)).astype("f4")

    @kd.kernel
    def f(x, w):
        windows = kd.sliding_window(x, (3, 2), (2, 3))
        return kd.einsum("bchwij,ocij->bohw", windows, w), kd.max(kd.sliding_window(x, 2, -1, stride=2), axis=-1)

    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 2), (2, 3))
    got = f(x, w)
    equal(got[0] + np.float32(0), np.einsum("bchwij,ocij->bohw", windows, w) + np.float32(0))
    equal(got[1], np.lib.stride_tricks.sliding_window_view(x, 2, -1)[..., ::2, :].max(-1))


def test_stop_gradient():
    """`stop_gradient`"""
    f = kd.kernel(lambda x: kd.stop_gradient(x) * x)
    x = np.array([1.0, -2.0, 0.0], "f4")
    equal(f(x), x * x)
    equal(f.vjp(x, np.ones(3, "f4"))[0], x)


@pytest.mark.parametrize("value", [0, 1.5, -np.inf])
def test_pad_with_a_value(value):
    """Beyond the standard: ... `pad`"""
    x = np.arange(6, dtype="float32").reshape(2, 3)
    equal(
        run(lambda x: kd.pad(x, ((0, 2), (1, 0)), value=value), x), np.pad(x, ((0, 2), (1, 0)), constant_values=value)
    )


# -- outside a kernel -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ODD_SHAPES)
def test_functions_outside_a_kernel_run_on_arrays(shape):
    """Outside a kernel they run as one-equation kernels on arrays"""
    x = RNG.uniform(0.5, 2, shape).astype("f4")
    assert_close(kd.exp(x), np.exp(x))
    equal(kd.add(x, x), x + x)
    equal(kd.where(x > 1, x, 0.0), np.where(x > 1, x, np.float32(0)))
    assert_close(kd.sum(x, axis=0), x.sum(0), operations=x.size, scale=2)


def test_functions_outside_a_kernel_are_compiled():
    """Outside a kernel they run as one-equation kernels on arrays (in compiled code: NumPy would raise here)"""
    x = np.array([0.0, 1e38], "f4")
    kd.log(x), kd.multiply(x, x)
    with np.errstate(all="raise"):
        equal(kd.log(x)[:1], np.array([-np.inf], "f4"))
        equal(kd.multiply(x, x), np.array([0, np.inf], "f4"))


def test_without_arrays_results_are_numpys():
    """with no array argument results are NumPy's"""
    equal(kd.zeros((2, 3)), np.zeros((2, 3), "f4"))
    equal(kd.arange(4), np.arange(4))
    equal(kd.eye(2, dtype=kd.f64), np.eye(2))
    for got in (kd.zeros(3), kd.arange(3), kd.linspace(0, 1, 3), kd.exp(1.0), kd.random.key(0)):
        assert isinstance(got, np.ndarray | np.generic)


NUMPYS = {
    "exp": lambda x: np.exp(x),
    "add": lambda x: np.add(x, 1),
    "maximum": lambda x: np.maximum(x, 0.5),
    "negative": lambda x: np.negative(x),
    "sum": lambda x: np.sum(x, axis=1),
    "mean": lambda x: np.mean(x, axis=0, keepdims=True),
    "where": lambda x: np.where(x > 1, x, -x),
    "concatenate": lambda x: np.concatenate([x, x], axis=1),
    "stack": lambda x: np.stack([x, x]),
    "max": lambda x: np.max(x),
    "transpose": lambda x: np.transpose(x),
    "reshape": lambda x: np.reshape(x, (3, 2)),
    "matmul": lambda x: np.matmul(x, x.T),
    "einsum": lambda x: np.einsum("ij,kj->ik", x, x),
    "expand_dims": lambda x: np.expand_dims(x, 0),
    "clip": lambda x: np.clip(x, 0.75, 1.25),
    "array on the left": lambda x: np.ones(3, "f4") + x,
    "scalar on the left": lambda x: np.float32(2) * x,
    "zeros_like": lambda x: np.zeros_like(x),
    "tanh": lambda x: np.tanh(x),
    "power": lambda x: np.power(x, 2),
    "argmax": lambda x: np.argmax(x, axis=1),
    "floor": lambda x: np.floor(x),
    "arctan2": lambda x: np.arctan2(x, x),
    "take": lambda x: np.take(x, 1, axis=1),
    "broadcast_to": lambda x: np.broadcast_to(x, (2, 2, 3)),
    "cumsum": lambda x: np.cumsum(x),
    "cumsum along an axis": lambda x: np.cumsum(x, 1),
    "cumprod": lambda x: np.cumprod(x, axis=0),
    "add.accumulate": lambda x: np.add.accumulate(x),
    "multiply.accumulate": lambda x: np.multiply.accumulate(x, axis=1),
    "maximum.accumulate": lambda x: np.maximum.accumulate(x, axis=1),
}
if hasattr(np, "cumulative_sum"):  # from NumPy 2.1 on
    NUMPYS["cumulative_sum"] = lambda x: np.cumulative_sum(x, axis=1, include_initial=True)
    NUMPYS["cumulative_prod"] = lambda x: np.cumulative_prod(x, axis=-1)


@pytest.mark.parametrize("name", NUMPYS)
def test_numpy_functions_on_a_tracer_mean_the_same(name):
    """NumPy functions on a tracer (`np.exp(x)`) mean the same (`__array_ufunc__`, `__array_function__`)"""
    x = np.array([[0.5, 1.0, 1.5], [2.0, 0.25, 1.25]], "f4")
    expected = np.ascontiguousarray(NUMPYS[name](x))
    got = run(NUMPYS[name], x)
    assert_close(np.asarray(got).reshape(expected.shape), expected, operations=4)
    assert np.asarray(got).dtype == expected.dtype


# -- indexing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["i4", "i8", "u1"])
def test_one_integer_tensor_as_an_index(dtype):
    """Indexing: ... one integer tensor"""
    x = np.arange(20, dtype="float32").reshape(5, 4)
    i = np.array([[0, 4], [2, 2]], dtype)
    equal(run(lambda x, i: x[i], x, i), x[i])
    equal(run(lambda x, i: x[:, i], x, (i % 4).astype(dtype)), x[:, i % 4])
    equal(run(lambda x, i: x[1:, i], x, (i % 4).astype(dtype)), x[1:, i % 4])
    equal(run(lambda x, i: x[i], x, i[:0]), x[i[:0]])


def test_negative_index_tensors_count_from_the_end():
    """negative static indices and negative index tensors count from the end"""
    x = np.arange(7, dtype="float32")
    i = np.array([-1, -7, 0, 6, -3])
    equal(run(lambda x, i: x[i], x, i), x[i])
    equal(run(lambda x, i: kd.take(x, i, axis=0), x, i), x[i])
    equal(run(lambda x, i: kd.take_along_axis(x, i, axis=0), x, i), x[i])
    equal(run(lambda x: x[-7] + x[-1], x), np.array(6, "f4"))


def test_a_0_d_integer_tensor_is_an_index():
    """Indexing: ... one integer tensor (of no axes)"""
    x = np.arange(12, dtype="float32").reshape(3, 4)
    for i in (0, 2, -1):
        equal(run(lambda x, i: x[i], x, np.int64(i)), x[i])


def test_an_array_in_the_body_is_an_index():
    """Indexing: ... one integer tensor (a constant)"""
    x = np.arange(5, dtype="float32")
    equal(run(lambda x: x[np.array([3, 1, -1])], x), x[[3, 1, -1]])


@pytest.mark.parametrize("index", [3, -4, 100])
def test_a_static_index_out_of_range_is_an_IndexError(index):
    """out of range is an IndexError"""
    said = mistake(kd.KdslError, IndexError, lambda: run(lambda x: x[index], np.ones(3, "f4")))
    assert str(index) in said.whole


@pytest.mark.parametrize("index", [[3], [-4], [0, 1, 2, 3], [2**40], [-(2**62)]])
@pytest.mark.parametrize("name", ["take", "index", "take_along_axis", "scatter_add"])
def test_an_index_tensor_out_of_range_is_an_IndexError(name, index):
    """out of range is an IndexError"""
    f = {
        "take": lambda x, i: kd.take(x, i, axis=0),
        "index": lambda x, i: x[i] + 1,
        "take_along_axis": lambda x, i: kd.take_along_axis(x, i, axis=0),
        "scatter_add": lambda x, i: kd.scatter_add(x, i, 1.0 + kd.astype(i, kd.f32)),
    }[name]
    said = mistake(kd.KdslError, IndexError, lambda: run(f, np.ones(3, "f4"), np.array(index)))
    assert str(index[-1]) in said.whole


def test_a_boolean_mask_as_an_index_names_where():
    """A boolean mask as an index is an error that names kd.where"""
    x = np.ones(3, "f4")
    for f in (lambda x: x[x > 0], lambda x: x[np.array([True, False, True])]):
        with pytest.raises(kd.KdslError, match=r"kd\.where"):
            run(f, x)


def test_iterating_goes_over_a_fixed_first_axis():
    """Iterating or unpacking a tracer goes over a fixed first axis"""
    x = np.arange(6, dtype="float32").reshape(3, 2)

    @kd.kernel
    def f(x):
        a, b, c = x
        return a + b * c, [row * 2 for row in x], len(x)

    got = f(x)
    equal(got[0], x[0] + x[1] * x[2])
    for g, e in zip(got[1], x * 2):
        equal(g, e)
    equal(got[2], np.array(3))


def test_iterating_over_a_named_axis_is_an_error():
    """Iterating or unpacking a tracer goes over a *fixed* first axis"""
    with pytest.raises(kd.KdslError):
        kd.kernel(lambda x: list(x), types=(kd.f32["N", 2],))(np.ones((3, 2), "f4"))
    with pytest.raises(kd.KdslError):
        run(lambda x: [r for r in x], np.float32(2))


# -- random -----------------------------------------------------------------------------------------------------------


def philox(counter, key):
    """Philox4x32-10 as its paper has it: four words for a counter of four words and a key of two."""
    c, k, mask = list(counter), list(key), 0xFFFFFFFF
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & mask, (a >> 32) ^ c[3] ^ k[1], a & mask]
        k = [(k[0] + 0x9E3779B9) & mask, (k[1] + 0xBB67AE85) & mask]
    return c


def test_known_answers_of_random123_hold():
    """Random123's known answers hold"""
    assert philox([0] * 4, [0] * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert philox([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    zero = np.zeros(2, "u4")
    equal(
        run(lambda k: kd.random.bits(k, (4,)), zero), np.array([0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8], "u4")
    )


@pytest.mark.parametrize("shape", [(0,), (1,), (5,), (2, 3, 5), (67,)])
@pytest.mark.parametrize("key", [(0, 0), (1, 0), (0xFFFFFFFF, 0xFFFFFFFF), (0xA4093822, 0x299F31D0)])
def test_element_i_takes_word_i_mod_4_of_counter_i_div_4(key, shape):
    """Philox4x32-10: element i in C order takes word i % 4 of counter i // 4, whatever the schedule"""
    count = int(np.prod(shape))
    expected = np.array([philox([i // 4, 0, 0, 0], key)[i % 4] for i in range(count)], "u4").reshape(shape)
    equal(run(lambda k: kd.random.bits(k, shape), np.array(key, "u4")), expected)
    equal(run(lambda k: kd.random.bits(k, shape).T, np.array(key, "u4")), np.ascontiguousarray(expected.T)) if len(
        shape
    ) == 2 else None
    equal(
        run(lambda k: kd.flip(kd.random.bits(k, shape), axis=0), np.array(key, "u4")),
        np.ascontiguousarray(expected[::-1]),
    )


def test_key_is_a_tensor_of_two_words():
    """`key = kd.random.key(seed)` is a u32[2] tensor (traced)"""
    seen = []

    @kd.kernel
    def f(seed: kd.i64):
        k = kd.random.key(seed)
        seen.append((k.shape, k.dtype))
        return k

    keys = [np.asarray(f(s)) for s in (0, 1, 2**31, 2**40)]
    assert seen == [((2,), kd.u32)]
    assert len({k.tobytes() for k in keys}) == 4
    for s, k in zip((0, 1, 2**31, 2**40), keys):
        equal(np.asarray(kd.random.key(s)), k)


def test_split_and_fold_in_give_other_keys():
    """`kd.random.split(key, n)`, `fold_in(key, i)`"""
    key = kd.random.key(7)
    parts = np.asarray(run(lambda k: kd.random.split(k, 5), key))
    assert parts.shape == (5, 2) and parts.dtype == np.uint32
    folded = [np.asarray(run(lambda k, i: kd.random.fold_in(k, i), key, np.int32(i))) for i in range(5)]
    assert all(f.shape == (2,) and f.dtype == np.uint32 for f in folded)
    assert len({p.tobytes() for p in parts} | {np.asarray(key).tobytes()}) == 6
    assert len({p.tobytes() for p in folded} | {np.asarray(key).tobytes()}) == 6


@pytest.mark.parametrize("dtype", ["f32", "f64", "f16", "bf16"])
def test_uniform_is_in_0_1(dtype):
    """`uniform(key, shape, dtype=f32)`"""
    got = run(lambda k: kd.random.uniform(k, (100, 101), dtype=getattr(kd, dtype)), kd.random.key(0))
    x = np.asarray(got).astype("f8")
    assert got.dtype == getattr(kd, dtype) or str(got.dtype) == {
        "f32": "float32",
        "f64": "float64",
        "f16": "float16",
    }.get(dtype, "bfloat16")
    assert (
        x.min() >= 0
        and x.max() <= (1 if dtype in ("f16", "bf16") else np.nextafter(1, 0))
        and abs(x.mean() - 0.5) < 0.01
    )
    assert np.asarray(run(lambda k: kd.random.uniform(k, (3,)), kd.random.key(0))).dtype == np.float32


def test_normal_has_mean_0_and_variance_1():
    """`normal(key, shape, dtype=f32)`"""
    x = np.asarray(run(lambda k: kd.random.normal(k, (40001,)), kd.random.key(1))).astype("f8")
    assert (
        np.isfinite(x).all()
        and abs(x.mean()) < 0.03
        and abs(x.var() - 1) < 0.04
        and abs((x**3).mean()) < 0.1
        and np.abs(x).max() > 3.5
    )


@pytest.mark.parametrize("p", [0.0, 1.0, 0.25])
def test_bernoulli(p):
    """`bernoulli(key, p, shape)`"""
    x = np.asarray(run(lambda k: kd.random.bernoulli(k, p, (20000,)), kd.random.key(1)))
    assert x.dtype == np.bool_ and abs(x.mean() - p) < 0.02 and (p not in (0, 1) or x.mean() == p)


def test_randint():
    """`randint`"""
    x = np.asarray(run(lambda k: kd.random.randint(k, (5000,), -3, 4), kd.random.key(1)))
    assert x.dtype.kind == "i" and set(np.unique(x)) == set(range(-3, 4))


def test_random_numbers_are_equal_eager_and_fused():
    """bits, uniform and bernoulli are equal ... bit for bit, ... whatever the schedule"""
    key = kd.random.key(3)
    u = np.asarray(kd.random.uniform(key, (17, 33)))
    equal(run(lambda k: kd.random.uniform(k, (17, 33)), key), u)
    equal(
        run(lambda k, x: x + kd.random.uniform(k, (17, 33))[:, ::-1], key, np.zeros((17, 33), "f4")),
        np.ascontiguousarray(u[:, ::-1]),
    )
    equal(
        run(lambda k, x: kd.where(kd.random.uniform(k, (17, 33)) < 0.5, x, 0.0), key, u),
        np.where(u < 0.5, u, np.float32(0)),
    )


# -- empty axes -------------------------------------------------------------------------------------------------------

EMPTY = {"sum": 0.0, "prod": 1.0, "all": True, "any": False, "mean": np.nan}


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 0), (2, 0, 5)])
@pytest.mark.parametrize("name", EMPTY)
def test_over_an_empty_axis(name, shape):
    """Over an empty axis: sum 0, prod 1, all True, any False, mean NaN"""
    axis = shape.index(0)
    x = np.ones(shape, "f4")
    expected = np.full(
        [n for i, n in enumerate(shape) if i != axis], EMPTY[name], "?" if name in ("all", "any") else "f4"
    )
    equal(run(lambda x: getattr(kd, name)(x, axis=axis), x), expected)
    equal(run(lambda x: getattr(kd, name)(x), x), np.array(EMPTY[name], expected.dtype))


@pytest.mark.parametrize("name", ["max", "min", "argmax", "argmin"])
def test_over_an_empty_axis_there_is_no_largest(name):
    """max/min/argmax a ShapeError"""
    for axis in (0, None):
        mistake(
            kd.ShapeError, ValueError, lambda: run(lambda x: getattr(kd, name)(x, axis=axis), np.ones((0, 3), "f4"))
        )
    equal(
        run(lambda x: getattr(kd, name)(x, axis=1), np.ones((0, 3), "f4")), np.zeros(0, "i8" if "arg" in name else "f4")
    )


def test_over_a_named_axis_that_is_empty_at_the_call_there_is_no_largest():
    """max/min/argmax a ShapeError (checked at the call for a named size)"""
    f = kd.kernel(lambda x: kd.max(x, axis=0), types=(kd.f32["N"],))
    equal(f(np.array([1, 3], "f4")), np.array(3, "f4"))
    mistake(kd.ShapeError, ValueError, lambda: f(np.ones(0, "f4")))


@pytest.mark.parametrize("shapes", [((2, 0), (0, 3)), ((4, 2, 0), (0, 3)), ((0,), (0,)), ((1, 0), (0, 1))])
def test_an_inner_size_of_0_gives_zeros(shapes):
    """an inner size of 0 gives zeros"""
    a, b = np.ones(shapes[0], "f4"), np.ones(shapes[1], "f4")
    equal(run(lambda a, b: a @ b, a, b), np.asarray(a @ b))
    equal(run(lambda a, b: kd.exp(a @ b), a, b), np.asarray(a @ b) + np.float32(1))


def test_windows_and_contractions_form_one_kernel():
    """(convolution and pooling are a window and a contraction or reduction: nothing is copied into windows)"""
    f = kd.kernel(lambda x, w: kd.sum(kd.sliding_window(x, 3, 1) * w, axis=-1))
    x, w = np.ones((5, 9), "f4"), np.ones(3, "f4")
    equal(f(x, w), np.full((5, 7), 3, "f4"))
    assert len(main_kernels(f.explain(x, w))) == 1
