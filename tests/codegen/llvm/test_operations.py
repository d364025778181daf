"""Meaning: every elementwise op, for every dtype, as machine code: equal to the NumPy meaning (ir/meaning.py)."""

import ml_dtypes
import numpy as np
import pytest

import kdsl.dtypes as dt
from kdsl.ir.interpreter_maps import map_values
from kdsl.ir.ops import BINARY, ELEMENTWISE, TO_BOOL, UNARY, Op

from .harness import elementwise, run

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")  # NaN and infinity are among the values

FLOATING_ONLY = {
    Op.EXP, Op.EXP2, Op.EXPM1, Op.LOG, Op.LOG2, Op.LOG10, Op.LOG1P, Op.SQRT, Op.RSQRT, Op.SIN, Op.COS, Op.TAN, Op.ASIN, Op.ACOS,
    Op.ATAN, Op.SINH, Op.COSH, Op.TANH, Op.ASINH, Op.ACOSH, Op.ATANH, Op.SIGMOID, Op.ERF, Op.DIV, Op.ATAN2, Op.COPYSIGN,
    Op.NEXTAFTER,
}  # fmt: skip
INTEGER_ONLY = {Op.SHL, Op.SHR}
BITS = {Op.NOT, Op.AND, Op.OR, Op.XOR}
NOT_BOOL = {Op.NEG, Op.ABS, Op.SIGN, Op.FLOOR_DIV, Op.MOD, Op.POW, Op.SUB, Op.FLOOR, Op.CEIL, Op.ROUND, Op.TRUNC, Op.SIGN_BIT,
            Op.IS_NAN, Op.IS_INF, Op.ADD, Op.MUL}  # fmt: skip
INEXACT = FLOATING_ONLY - {Op.SQRT, Op.DIV, Op.COPYSIGN, Op.NEXTAFTER} | {Op.POW}
REGISTERS = [d for d in dt.ALL if d not in (dt.f16, dt.bf16)]


def values(d, seed, n=1003):
    """Special values against each other, then random ones."""
    rng = np.random.default_rng(seed)
    if d is dt.bool_:
        return rng.integers(0, 2, n).astype(bool)
    if d.is_integer:
        info = np.iinfo(d.numpy)
        special = np.array(
            [info.min, info.max, 0, 1, min(2, info.max), info.max - 1, d.bits - 1, d.bits, d.bits + 1, info.min + 1]
        )
        mixed = np.concatenate(
            [rng.integers(info.min, info.max, n // 2, d.numpy, True), rng.integers(0, 9, n, d.numpy)]
        )
        start = np.tile(special, 10) if seed else np.repeat(special, 10)
        return np.concatenate([start, mixed])[:n].astype(d.numpy)
    t = d.numpy
    tiny = np.finfo(t).tiny if d.name in ("f32", "f64") else ml_dtypes.finfo(t).tiny
    special = np.array(
        [0, -0.0, np.inf, -np.inf, np.nan, 1, -1, 2.5, -2.5, 0.5, 3, -3, float(tiny), -float(tiny) / 4], t
    )
    start = np.tile(special, 14) if seed else np.repeat(special, 14)
    with np.errstate(over="ignore"):
        mixed = np.concatenate(
            [rng.standard_normal(n // 3) * 3, rng.uniform(-1, 1, n // 3), np.exp(rng.uniform(-40, 40, n))]
        )
        return np.concatenate([start, mixed.astype(t)])[:n]


def assert_equal(result, wanted, ulp=0.0):
    assert result.dtype == wanted.dtype and result.shape == wanted.shape
    if result.dtype.kind not in "f" or result.dtype.itemsize < 4:
        same = (result == wanted) | ((result != result) & (wanted != wanted))
    else:
        near = np.abs(result.astype(np.longdouble) - wanted) <= ulp * np.spacing(np.abs(wanted)).astype(np.longdouble)
        same = (result == wanted) | (np.isnan(result) & np.isnan(wanted)) | (near & np.isfinite(wanted))
    worst = np.flatnonzero(~same)
    assert not len(worst), [(int(i), result[i], wanted[i]) for i in worst[:5]]


def legal(op, d):
    if op in FLOATING_ONLY:
        return d.is_floating
    if op in INTEGER_ONLY:
        return d.is_integer
    if op in BITS:
        return not d.is_floating
    if op is Op.MULHI:
        return d is dt.u32
    return d is not dt.bool_ or op not in NOT_BOOL


CASES = [
    (op, d)
    for op in sorted(ELEMENTWISE - {Op.CAST, Op.BITCAST, Op.WHERE}, key=lambda o: o.value)
    for d in REGISTERS
    if legal(op, d)
]


@pytest.mark.parametrize(("op", "d"), CASES, ids=lambda x: getattr(x, "value", getattr(x, "name", None)))
def test_op(op, d):
    arguments = [values(d, seed) for seed in range(2 if op in BINARY else 1)]
    result = dt.bool_ if op in TO_BOOL else d
    (out,) = run(elementwise(op.value, (d,) * len(arguments), result, len(arguments[0])), *arguments)
    with np.errstate(all="ignore"):
        wanted = map_values(op.value, arguments, result)
        if op in INEXACT and d is dt.f32:
            wide = [a.astype(np.float64) for a in arguments]
            wanted = map_values(op.value, wide, dt.f64).astype(np.float32)
    assert_equal(out, wanted, 6 if op in INEXACT else 0)
    assert op in UNARY | BINARY


@pytest.mark.parametrize("level", ["x86-64-v4", "arm64"])
@pytest.mark.parametrize("op", ["exp", "log", "tanh", "sin", "pow", "add", "maximum"])
@pytest.mark.parametrize("d", [dt.f32, dt.f64], ids=str)
def test_same_for_other_lanes(op, d, level):
    arguments = [values(d, seed) for seed in range(2 if Op(op) in BINARY else 1)]
    program = elementwise(op, (d,) * len(arguments), d, len(arguments[0]))
    np.testing.assert_array_equal(run(program, *arguments, level=level)[0], run(program, *arguments)[0])


@pytest.mark.parametrize("source", dt.ALL, ids=str)
@pytest.mark.parametrize("target", dt.ALL, ids=str)
def test_cast(source, target):
    x = values(source, 0)
    (out,) = run(elementwise("cast", (source,), target, len(x)), x)
    from kdsl.ir.numbers import cast

    with np.errstate(all="ignore"):
        wide = x.astype(np.float32) if source in (dt.f16, dt.bf16) else x
        assert_equal(out, np.asarray(cast(wide, target, target.numpy)))


@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_rounding_is_to_even_and_keeps_nan(name):
    d = dt.BY_NAME[name]
    x = np.random.default_rng(0).integers(0, 2**32, 20000, np.uint32).view(np.float32)
    (out,) = run(elementwise(f"round_{name}", (dt.f32,), dt.f32, len(x)), x)
    with np.errstate(all="ignore"):
        assert_equal(out, x.astype(d.numpy).astype(np.float32))


def test_where():
    c, a, b = values(dt.bool_, 0), values(dt.f32, 0), values(dt.f32, 1)
    (out,) = run(elementwise("where", (dt.bool_, dt.f32, dt.f32), dt.f32, len(c)), c, a, b)
    assert_equal(out, np.where(c, a, b))


@pytest.mark.parametrize(("source", "target"), [("f32", "i32"), ("u64", "f64"), ("u8", "i8"), ("i64", "u64")])
def test_bitcast(source, target):
    s, t = dt.BY_NAME[source], dt.BY_NAME[target]
    x = values(s, 0)
    x = x[x == x]
    (out,) = run(elementwise("bitcast", (s,), t, len(x)), x)
    np.testing.assert_array_equal(out.view(s.numpy), x)


def test_philox_gives_the_known_answers():
    """Random123's kat_vectors: counter and key all zero."""
    from kdsl.ir import loops as ir
    from kdsl.ir.sizes import size

    key = ir.Buffer("key", dt.u32, (2,), (1,), "argument", 0)
    y = ir.Buffer("y", dt.u32, (9,), (1,), "result", 0)
    i = size("i")
    number = ir.Map("add", (ir.Scalar(i, dt.i64), ir.Index(0, (4,), dt.i64)), dt.i64)
    words = [ir.Load(ir.View(key, (k,)), ()) for k in (0, 1)]
    store = ir.Store(ir.View(y, (i + ir.axis(0),), (True,)), ir.Map("philox", (*words, number), dt.u32))
    kernel = ir.Kernel("bits", (key, y), (), (ir.Parallel("i", 0, 9, 4, (store,)),))
    (out,) = run(ir.Program("bits", (key, y), (kernel,)), np.zeros(2, np.uint32))
    assert [hex(v) for v in out[:4]] == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]
