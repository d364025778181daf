"""The NumPy meaning of ops: total, equal to NumPy, and as the contract says where NumPy leaves it open."""

import numpy as np
import pytest

import kdsl.dtypes as dt
from kdsl.errors import OutOfRangeError
from kdsl.ir import numbers
from kdsl.ir.meaning import MEANING, evaluate
from kdsl.ir.ops import ELEMENTWISE, UNARY, Op
from kdsl.ir.printer import show
from kdsl.ir.rules import Builder
from kdsl.ir.sizes import size
from kdsl.ir.tensor import Function, TensorType, Value
from kdsl.ir.verify import MalformedProgram, verify


def run(op, *arrays, exact=False, **attributes):
    """One equation on arrays (Python numbers stay literals)."""
    b = Builder()
    operands = [
        x if not isinstance(x, np.ndarray) else Value(TensorType(dt.BY_NUMPY[x.dtype], x.shape))
        for x in arrays
    ]
    out = b.emit(op, *operands, **attributes)
    f = Function("f", tuple(o for o in operands if isinstance(o, Value)), tuple(b.equations), (out,))
    verify(f)
    return evaluate(f, *(x for x in arrays if isinstance(x, np.ndarray)), exact=exact)[0]


def test_every_op_has_a_meaning():
    assert set(MEANING) == set(Op)


@pytest.mark.parametrize("dtype", [d for d in dt.ALL if d.is_integer], ids=repr)
def test_integer_arithmetic_wraps_and_is_total(dtype):
    low, high = numbers.limits(dtype)
    x = np.array([low, high, 0, 1, 7, high - 1, low, 5], dtype.numpy)
    y = np.array([high, high, 0, 3, 2, low, 0, 0], dtype.numpy)
    if dtype.kind == "signed":
        y[0] = -1
    wrap = np.frompyfunc(lambda v: numbers.canonical(int(v), dtype), 1, 1)

    def expect(f):
        return wrap(np.frompyfunc(f, 2, 1)(x.astype(object), y.astype(object))).astype(dtype.numpy)

    np.testing.assert_array_equal(run(Op.ADD, x, y), expect(lambda a, b: a + b))
    np.testing.assert_array_equal(run(Op.MUL, x, y), expect(lambda a, b: a * b))
    np.testing.assert_array_equal(run(Op.FLOOR_DIV, x, y), expect(lambda a, b: a // b if b else 0))
    np.testing.assert_array_equal(run(Op.MOD, x, y), expect(lambda a, b: a % b if b else 0))
    np.testing.assert_array_equal(
        run(Op.SHL, x, y), expect(lambda a, b: a << b if 0 <= b < dtype.bits else 0)
    )
    np.testing.assert_array_equal(
        run(Op.SHR, x, y), expect(lambda a, b: a >> b if 0 <= b < dtype.bits else -1 if a < 0 else 0)
    )
    small = np.array([3, 2, 0, 1, 7, 5, 0, 2], dtype.numpy)
    np.testing.assert_array_equal(
        run(Op.POW, small, small), wrap(small.astype(object) ** small.astype(object)).astype(dtype.numpy)
    )


@pytest.mark.parametrize("dtype", [d for d in dt.ALL if d.is_integer], ids=repr)
def test_casts_saturate(dtype):
    low, high = numbers.limits(dtype)
    x = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 2.9, -2.9, 0.0])
    expected = [0, high, low, high, low, 2, max(low, -2), 0]
    assert run(Op.CAST, x, dtype=dtype).tolist() == expected
    assert run(Op.CAST, x, dtype=dt.bool_).tolist() == [True] * 7 + [False]


def test_philox_known_answers():
    def words(*text):
        return np.array([[int(w, 16) for w in t.split()] for t in text], np.uint32)

    assert (
        numbers.philox(np.array([0, 0]), words("0 0 0 0")) == words("6627e8d5 e169c58d bc57ac4c 9b00dbd8")
    ).all()
    ones = "ffffffff ffffffff ffffffff ffffffff"
    assert (
        numbers.philox(np.array([0xFFFFFFFF] * 2), words(ones))
        == words("408f276d 41c83b0e a20bc7c6 6d5451fd")
    ).all()
    counter, key = words("243f6a88 85a308d3 13198a2e 03707344"), np.array([0xA4093822, 0x299F31D0])
    assert (numbers.philox(key, counter) == words("d16cfe09 94fdcceb 5001e420 24126ea1")).all()
    key = np.array([1, 2], np.uint32)
    whole = run(Op.RANDOM_BITS, key, shape=(3, 5))
    assert (whole.ravel()[:7] == run(Op.RANDOM_BITS, key, shape=(7,))).all()


UNARY_NUMPY = {
    Op.NEG: np.negative, Op.ABS: np.abs, Op.SIGN: np.sign, Op.EXP: np.exp, Op.EXP2: np.exp2, Op.EXPM1: np.expm1, Op.LOG: np.log,
    Op.LOG2: np.log2, Op.LOG10: np.log10, Op.LOG1P: np.log1p, Op.SQRT: np.sqrt, Op.SIN: np.sin, Op.COS: np.cos, Op.TAN: np.tan,
    Op.TANH: np.tanh, Op.FLOOR: np.floor, Op.CEIL: np.ceil, Op.ROUND: np.round, Op.TRUNC: np.trunc, Op.IS_NAN: np.isnan,
    Op.IS_INF: np.isinf, Op.SIGN_BIT: np.signbit,
}  # fmt: skip


@pytest.mark.parametrize("dtype", [d for d in dt.ALL if d.is_floating], ids=repr)
@pytest.mark.parametrize("op", UNARY_NUMPY, ids=repr)
def test_unary_equals_numpy(op, dtype):
    x = np.array([0.0, -0.0, 1.5, -2.5, 3.5, np.inf, -np.inf, np.nan, 0.3], np.float32).astype(dtype.numpy)
    with np.errstate(all="ignore"):
        expected = UNARY_NUMPY[op](x.astype(dtype.compute.numpy))
    got = run(op, x)
    assert got.dtype == (bool if expected.dtype == bool else dtype.numpy)
    rounded = expected.astype(got.dtype).astype(np.float64)
    np.testing.assert_array_equal(got.astype(np.float64), rounded)


def test_sums_of_half_types_are_taken_in_f32_and_exact_in_f64():
    x = np.full(5000, 0.1, np.float16)
    assert abs(float(run(Op.SUM, x, axes=(0,))) - 5000 * float(x[0])) < 0.5
    y = np.array([1e8, 1.0, -1e8], np.float32)
    assert run(Op.SUM, y, axes=(0,), exact=True) == 1.0


def test_extremes_keep_nan_and_arg_finds_the_first():
    x = np.array([[1.0, np.nan, 3.0, np.nan], [2.0, 5.0, 5.0, 1.0]])
    np.testing.assert_array_equal(run(Op.MAX, x, axes=(1,)), [np.nan, 5.0])
    np.testing.assert_array_equal(run(Op.ARGMAX, x, axes=(1,)), [1, 1])
    np.testing.assert_array_equal(run(Op.ARGMIN, x, axes=(1,)), [1, 3])
    np.testing.assert_array_equal(
        run(Op.MAXIMUM, x, np.zeros_like(x)), [[1, np.nan, 3, np.nan], [2, 5, 5, 1]]
    )
    assert run(Op.SUM, np.zeros((3, 0)), axes=(1,)).tolist() == [0, 0, 0]
    assert run(Op.PROD, np.zeros((0,)), axes=(0,)) == 1


def test_indexing_counts_from_the_end_and_refuses_the_rest():
    x = np.arange(12.0).reshape(3, 4)
    index = np.array([[0, -1], [2, -3]])
    np.testing.assert_array_equal(run(Op.TAKE, x, index, axis=0), x[index])
    np.testing.assert_array_equal(run(Op.TAKE, x, index, axis=1), x[:, index])
    along = np.array([[0], [-1], [2]])
    np.testing.assert_array_equal(run(Op.TAKE_ALONG, x, along, axis=1), np.take_along_axis(x, along, 1))
    updates = np.ones((2, 2, 4))
    expected = x.copy()
    np.add.at(expected, index, updates)
    np.testing.assert_array_equal(run(Op.SCATTER_ADD, x, index, updates, axis=0), expected)
    for bad in (3, -4):
        with pytest.raises(OutOfRangeError):
            run(Op.TAKE, x, np.array([bad]), axis=0)
        with pytest.raises(OutOfRangeError):
            run(Op.SCATTER_ADD, x, np.array([bad]), np.ones((1, 4)), axis=0)


@pytest.mark.parametrize("axis", [0, 1])
def test_movement(axis):
    x = np.arange(30.0).reshape(5, 6)
    np.testing.assert_array_equal(run(Op.SLICE, x, starts=(4, 0), sizes=(5, 3), steps=(-1, 2)), x[::-1, ::2])
    np.testing.assert_array_equal(
        run(Op.PAD, x, low=(1, 0), high=(0, 2), interior=(1, 0), value=7.0).shape, (10, 8)
    )
    windows = run(Op.WINDOW, x, axis=axis, size=2, stride=2, dilation=2)
    expected = np.lib.stride_tricks.sliding_window_view(x, 3, axis)[..., ::2]
    np.testing.assert_array_equal(windows, expected[::2] if axis == 0 else expected[:, ::2])
    np.testing.assert_array_equal(run(Op.CONCAT, x, x, axis=axis), np.concatenate([x, x], axis))
    np.testing.assert_array_equal(
        run(Op.BROADCAST, x[:, :1], shape=(5, 2, 3), axes=(0, 2)), np.broadcast_to(x[:, :1, None], (5, 2, 3))
    )


@pytest.mark.parametrize("descending", [False, True])
def test_sorting_is_stable(descending):
    x = np.array([3.0, 1.0, 3.0, 2.0, 1.0])
    order = run(Op.ARGSORT, x, axis=0, descending=descending)
    assert order.tolist() == ([0, 2, 3, 1, 4] if descending else [1, 4, 3, 0, 2])
    np.testing.assert_array_equal(run(Op.SORT, x, axis=0, descending=descending), x[order])


def test_dot_sums_every_letter_that_out_lacks():
    a, b = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(
        run(Op.DOT, a, b, left=tuple("mk"), right=tuple("kn"), out=tuple("nm")), (a @ b).T
    )
    np.testing.assert_array_equal(
        run(Op.DOT, a, b, left=tuple("mk"), right=tuple("xn"), out=("m",)), a.sum(1) * b.sum()
    )


def test_named_sizes_are_read_off_the_arguments():
    n = size("N")
    x = Value(TensorType(dt.f32, (2 * n,)))
    y = Value(TensorType(dt.f32, (n,)))
    b = Builder()
    total = b.emit(Op.CONCAT, x, y, axis=0)
    f = Function("f", (x, y), (*b.equations,), (total,))
    assert evaluate(f, np.zeros(6, np.float32), np.zeros(3, np.float32))[0].shape == (9,)
    with pytest.raises(ValueError):
        evaluate(f, np.zeros(5, np.float32), np.zeros(3, np.float32))


def test_text_is_stable_and_verify_refuses():
    def make():
        x = Value(TensorType(dt.f32, (4, 8)), "x")
        b = Builder()
        s = b.reduce(Op.SUM, b.emit(Op.EXP, b.emit(Op.MUL, x, 2.0)), (1,), keepdims=True)
        return Function("rows", (x,), tuple(b.equations), (s,))

    assert (
        show(make())
        == show(make())
        == (
            "rows(x:f32[4, 8])\n  %0:f32[4, 8] = mul x 2.0\n  %1:f32[4, 8] = exp %0\n  %2:f32[4] = sum %1 {axes=(1,)}\n"
            "  %3:f32[4, 1] = broadcast %2 {axes=(0,), shape=(4, 1)}\n  return %3"
        )
    )
    f = make()
    verify(f)
    with pytest.raises(MalformedProgram, match="before it is made"):
        verify(Function("f", f.parameters, f.equations[1:], f.results))
    with pytest.raises(MalformedProgram, match="made twice"):
        verify(Function("f", f.parameters, (*f.equations, f.equations[0]), f.results))


def test_every_elementwise_op_runs_on_empty_and_scalar_arrays():
    for op in ELEMENTWISE - {Op.CAST, Op.BITCAST, Op.WHERE}:
        dtype = np.uint32 if op in (Op.NOT, Op.AND, Op.OR, Op.XOR, Op.SHL, Op.SHR, Op.MULHI) else np.float32
        for shape in ((), (0,), (1,)):
            x = np.ones(shape, dtype)
            assert run(op, *([x] if op in UNARY else [x, x])).shape == shape
