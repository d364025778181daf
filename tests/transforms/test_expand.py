"""expand leaves core ops only and keeps the meaning; the written-out functions are accurate; views reach the loads."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import kdsl.dtypes as dt
from kdsl.ir.meaning import evaluate
from kdsl.ir.ops import COMPOSITE, CORE, Op
from kdsl.ir.verify import verify
from kdsl.transforms.differentiate import vjp
from kdsl.transforms.expand import expand
from kdsl.transforms.simplify import simplify
from tests.programs import programs
from tests.tolerance import assert_close
from tests.transforms.test_differentiate import floats, gelu, gradients
from tests.transforms.test_simplify import ops, program

QUICK = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@QUICK
@given(programs(dtypes=("f64",)))
def test_random_programs_keep_their_meaning(p):
    core = expand(simplify(p.function))
    verify(core)
    assert {e.op for e in core.equations} <= CORE
    for got, expected in zip(evaluate(core, *p.arrays), evaluate(p.function, *p.arrays), strict=True):
        assert_close(got, expected, "float32", operations=100, scale=1.0)


@QUICK
@given(programs(dtypes=("f64",), smooth=True, only=("movement", "unary", "binary", "literal")))
def test_views_keep_the_meaning_and_gradients(p):
    for f, arrays in ((simplify(p.function), p.arrays), (vjp(simplify(p.function)), None)):
        if arrays is None:
            arrays = (*p.arrays, *(np.ones(r.shape) for r in p.function.results))
        for got, expected in zip(evaluate(expand(f), *arrays), evaluate(f, *arrays), strict=True):
            assert_close(got, expected, "float32", operations=100, scale=1.0)


SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 1e-8, -1e-8, 1e-30, 30.0, -30.0, 88.5, 100.0, -100.0, 1e5, 1e20, -1e20]


@pytest.mark.parametrize("dtype", [dt.f32, dt.f64])
@pytest.mark.parametrize("op", sorted(COMPOSITE, key=lambda op: op.value), ids=repr)
def test_composites_within_a_few_ulp(op, dtype):
    x = np.concatenate([SPECIAL, np.linspace(-4, 4, 999), np.logspace(-9, 2.5, 500), 1 + np.logspace(-7, 5, 400)])
    x = x.astype(dtype.numpy)
    f = program(lambda b, x: b.emit(op, x), (dtype, x.shape))
    core = expand(f)
    verify(core)
    got = evaluate(core, x)[0].astype(np.longdouble)
    with np.errstate(all="ignore"):
        wide = x.astype(np.longdouble)
        reference = {
            Op.SIGMOID: lambda: 1 / (1 + np.exp(-wide)), Op.SINH: lambda: np.sinh(wide), Op.COSH: lambda: np.cosh(wide),
            Op.ASINH: lambda: np.arcsinh(wide), Op.ACOSH: lambda: np.arccosh(wide), Op.ATANH: lambda: np.arctanh(wide),
        }[op]()  # fmt: skip
        expected = reference.astype(dtype.numpy)
        ulp = np.spacing(np.abs(expected)).astype(np.longdouble)
        close = np.abs(got - reference) <= 4 * ulp
    if op is Op.SIGMOID:
        close |= np.abs(got - reference) < np.finfo(dtype.numpy).tiny * 4
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    assert np.all(same | close), (x[~(same | close)], got[~(same | close)], expected[~(same | close)])
    if op is not Op.ACOSH:
        np.testing.assert_array_equal(np.signbit(got[:2]), np.signbit(expected[:2]))


def test_sigmoid_folds_into_its_neighbours():
    core = expand(simplify(program(gelu, (dt.f32, (5,)))))
    assert Op.TANH not in ops(core) and ops(core).count(Op.DIV) == 1
    x = floats(5).astype("f4")
    assert_close(evaluate(core, x)[0], evaluate(program(gelu, (dt.f32, (5,))), x)[0])


def test_powers():
    for c in (4.0, -2.0, 0.5, -0.5, 2.0, 3.0, -1.0, 0.7):
        f = program(lambda b, x, c=c: b.emit(Op.POW, x, c), (dt.f64, (7,)))
        x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 2.0, 0.3])
        for g in (simplify(f), expand(f)):
            np.testing.assert_allclose(evaluate(g, x)[0], evaluate(f, x)[0], rtol=1e-15)


def test_calls_and_stops_are_gone():
    inner = program(lambda b, x: (b.emit(Op.EXP, x), b.emit(Op.SIN, x)), (dt.f64, (3,)))

    def f(b, x):
        parts = [b.emit(Op.CALL, x, function=inner, rule=None, index=i) for i in (0, 1)]
        return b.emit(Op.STOP_GRADIENT, b.emit(Op.ADD, *parts))

    assert ops(expand(program(f, (dt.f64, (3,))))) == [Op.EXP, Op.SIN, Op.ADD]


ALL = {"starts": (0,), "steps": (1,)}


def test_a_slice_moves_to_the_load():
    def f(b, x, y):
        return b.emit(Op.SLICE, b.emit(Op.MUL, b.emit(Op.EXP, x), y), starts=(1,), sizes=(2,), steps=(1,))

    assert ops(expand(program(f, *[(dt.f32, (5,))] * 2))) == [Op.SLICE, Op.EXP, Op.SLICE, Op.MUL]


def test_heavy_work_with_other_readers_is_not_repeated():
    def f(b, x):
        e = b.emit(Op.EXP, x)
        return e, b.emit(Op.SLICE, e, sizes=(2,), **ALL)

    assert ops(expand(program(f, (dt.f32, (5,))))) == [Op.EXP, Op.SLICE]


def test_maps_behind_a_product_stay_with_it():
    def f(b, x, w, c):
        y = b.emit(Op.ADD, b.dot("mk", "kn", "mn", x, w), c)
        return b.emit(Op.SLICE, y, starts=(0, 0), sizes=(2, 1), steps=(1, 1))

    assert ops(expand(program(f, (dt.f32, (2, 3)), (dt.f32, (3, 4)), (dt.f32, (2, 4))))) == [Op.DOT, Op.ADD, Op.SLICE]


def test_the_gradient_of_slices_is_one_concat():
    def f(b, x):
        parts = [b.emit(Op.SLICE, x, starts=(0, 4 * i), sizes=(3, 4), steps=(1, 1)) for i in range(3)]
        return b.emit(Op.MUL, b.emit(Op.MUL, parts[0], parts[1]), parts[2])

    x = floats(3, 12)
    backward = vjp(simplify(program(f, (dt.f64, (3, 12)))))
    assert Op.PAD not in ops(backward) and ops(backward).count(Op.CONCAT) == 1
    product = np.prod(x.reshape(3, 3, 4), 1, keepdims=True)
    np.testing.assert_allclose(gradients(f, x)[0], (product / x.reshape(3, 3, 4)).reshape(3, 12))
