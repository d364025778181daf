"""simplify keeps the meaning of programs; each rule does what it says."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kdsl.dtypes as dt
from kdsl.ir.meaning import evaluate
from kdsl.ir.numbers import limits
from kdsl.ir.ops import Op
from kdsl.ir.printer import show
from kdsl.ir.rules import Builder
from kdsl.ir.sizes import size
from kdsl.ir.tensor import Function, TensorType, Value
from kdsl.ir.verify import verify
from kdsl.transforms.differentiate import vjp
from kdsl.transforms.expand import expand
from kdsl.transforms.simplify import RULES, simplify
from tests.programs import programs
from tests.tolerance import assert_close

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def program(build, *types):
    """A Function made by `build(builder, *values)`; types are (dtype, shape)."""
    parameters = tuple(Value(TensorType(d, s), "xyzwuv"[i]) for i, (d, s) in enumerate(types))
    b = Builder()
    out = build(b, *parameters)
    results = out if isinstance(out, tuple) else (out,)
    f = Function("f", parameters, tuple(b.equations), results)
    verify(f)
    return f


def ops(function):
    return [e.op for e in function.equations]


@QUICK
@given(programs(dtypes=("f64",)))
def test_random_programs_keep_their_meaning(p):
    simple = simplify(p.function)
    verify(simple)
    for got, expected in zip(evaluate(simple, *p.arrays), evaluate(p.function, *p.arrays), strict=True):
        assert_close(got, expected, "float32", operations=100, scale=1.0)
    again = simplify(simple)
    verify(again)


INTEGER_OPS = (
    Op.ADD, Op.SUB, Op.MUL, Op.FLOOR_DIV, Op.MOD, Op.POW, Op.MAXIMUM, Op.MINIMUM, Op.AND, Op.OR, Op.XOR, Op.SHL, Op.SHR,
)  # fmt: skip


@pytest.mark.parametrize("dtype", [dt.i8, dt.u8, dt.i32, dt.u64], ids=repr)
@settings(QUICK, max_examples=60)
@given(data=st.data())
def test_random_integer_programs_keep_every_bit(dtype, data):
    b = Builder()
    x, y = (Value(TensorType(dtype, (6,)), name) for name in "xy")
    low, high = limits(dtype)
    literals = (0, 1, 2, 3, 7, high, low, high - 1, low + 1)
    values = [x, y, b.full(data.draw(st.sampled_from(literals)), (6,), dtype)]
    for _ in range(data.draw(st.integers(1, 6))):
        op, v = data.draw(st.sampled_from((*INTEGER_OPS, Op.NEG, Op.NOT, Op.WHERE))), data.draw(st.sampled_from(values))
        other = data.draw(st.sampled_from((*values, *literals)))
        if op in (Op.NEG, Op.NOT):
            values.append(b.emit(op, v))
        elif op is Op.WHERE:
            c = b.emit(Op.NOT, b.emit(data.draw(st.sampled_from((Op.LT, Op.GE, Op.EQ))), other, v))
            values.append(b.emit(Op.WHERE, c, v, other))
        else:
            values.append(b.emit(op, *((v, other) if data.draw(st.booleans()) else (other, v))))
    f = Function("f", (x, y), tuple(b.equations), tuple(values[-2:]))
    verify(f)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    pool = np.array([low, low + 1, high, 0, 1, 2, 3, 9], dtype.numpy)
    arrays = [rng.choice(pool, 6) for _ in "xy"]
    for g in (simplify(f), expand(f)):
        verify(g)
        for got, expected in zip(evaluate(g, *arrays), evaluate(f, *arrays), strict=True):
            np.testing.assert_array_equal(got, expected)


@settings(QUICK, max_examples=60)
@given(programs(dtypes=("f16", "bf16", "f32")))
def test_half_types_and_gradients_are_well_formed(p):
    simple = simplify(p.function)
    for g in (simple, vjp(simple), expand(simple), expand(vjp(simple))):
        verify(g)
    outs = evaluate(expand(simple), *p.arrays)
    exact = evaluate(p.function, *p.arrays, exact=True)
    assert [(o.dtype, o.shape) for o in outs] == [(e.dtype, e.shape) for e in exact]


def test_every_rule_says_what_it_does():
    for rules in RULES.values():
        for r in rules:
            assert r.text, r.name


N = size("N")
ROW = (dt.f32, (4, 8))


def test_softmax_divides_small_arrays():
    def softmax(b, x):
        m = b.broadcast_to(b.reduce(Op.MAX, x, (1,), True), x.shape)
        e = b.emit(Op.EXP, b.emit(Op.SUB, x, m))
        return b.emit(Op.DIV, e, b.broadcast_to(b.reduce(Op.SUM, e, (1,), True), x.shape))

    assert show(simplify(program(softmax, ROW))) == (
        "f(x:f32[4, 8])\n  %0:f32[4] = max x {axes=(1,)}\n  %1:f32[4, 8] = broadcast %0 {axes=(0,), shape=(4, 8)}\n"
        "  %2:f32[4, 8] = sub x %1\n  %3:f32[4, 8] = exp %2\n  %4:f32[4] = sum %3 {axes=(1,)}\n  %5:f32[4] = div 1.0 %4\n"
        "  %6:f32[4, 8] = broadcast %5 {axes=(0,), shape=(4, 8)}\n  %7:f32[4, 8] = mul %3 %6\n  return %7"
    )


def test_division_leaves_attention():
    def f(b, s, v):
        k = b.broadcast_to(b.reduce(Op.SUM, s, (1,), True), s.shape)
        return b.dot("mk", "kn", "mn", b.emit(Op.DIV, b.emit(Op.EXP, s), k), v)

    assert ops(simplify(program(f, ROW, (dt.f32, (8, 3))))) == [
        Op.SUM, Op.EXP, Op.DIV, Op.DOT, Op.BROADCAST, Op.MUL,
    ]  # fmt: skip


def test_a_sum_of_products_is_a_dot_and_the_other_way_round():
    def f(b, x, y):
        p = b.emit(Op.BROADCAST, x, shape=(4, 3, 8), axes=(0, 2))
        q = b.emit(Op.BROADCAST, y, shape=(4, 3, 8), axes=(1, 2))
        return b.reduce(Op.SUM, b.emit(Op.MUL, p, q), (2,))

    assert ops(simplify(program(f, ROW, (dt.f32, (3, 8))))) == [Op.DOT]
    assert Op.DOT not in ops(
        simplify(program(lambda b, x, y: b.dot("mk", "k", "m", x, y), ROW, (dt.f32, (8,))))
    )


def test_a_product_of_one_row_is_no_product_of_matrices():
    cases = [((1, 5), (3, 5), "mk nk mn"), ((2, 1, 5), (2, 3, 5), "bmk bnk bmn"), ((4, 1), (3, 1), "mk nk mn")]
    for left, right, letters in cases:
        f = program(lambda b, x, y, letters=letters: b.dot(*letters.split(), x, y), (dt.f32, left), (dt.f32, right))
        simple = simplify(f)
        assert Op.DOT not in ops(simple)
        x, y = (np.random.default_rng(0).standard_normal(s).astype("f4") for s in (left, right))
        np.testing.assert_allclose(evaluate(simple, x, y)[0], evaluate(f, x, y)[0], rtol=1e-6)


def test_numbers_keep_their_nan_and_signs():
    def f(b, x):
        return b.emit(Op.MUL, x, 0.0), b.emit(Op.ADD, x, 0.0), b.emit(Op.SUB, x, x), b.emit(Op.DIV, x, x)

    simple = simplify(program(f, (dt.f32, (5,))))
    assert len(simple.equations) == 4
    x = np.array([np.nan, np.inf, -0.0, 0.0, 1.0], np.float32)
    for got, expected in zip(evaluate(simple, x), evaluate(program(f, (dt.f32, (5,))), x), strict=True):
        np.testing.assert_array_equal(np.signbit(got), np.signbit(expected))
        np.testing.assert_array_equal(got, expected)


def test_integers_fold_as_they_are_computed():
    def f(b, x):
        full = b.full(200, (3,), dt.u8)
        return b.emit(Op.ADD, b.emit(Op.ADD, b.emit(Op.ADD, full, 100), x), 0), b.emit(
            Op.ADD, b.emit(Op.ADD, x, 250), 10
        )

    simple = simplify(program(f, (dt.u8, (3,))))
    assert [e.operands[1] for e in simple.equations] == [44, 4]


def test_a_named_size_is_not_one():
    def f(b, x):
        return b.reduce(Op.SUM, x, (1,)), b.emit(Op.RESHAPE, x, shape=(N * 1,))

    assert ops(simplify(program(f, (dt.f32, (N, 1))))) == [Op.RESHAPE]
    assert ops(simplify(program(lambda b, x: b.reduce(Op.SUM, x, (0,)), (dt.f32, (N, 1))))) == [Op.SUM]


@pytest.mark.parametrize("dtype", [dt.f16, dt.bf16])
def test_casts_to_half_types_stay(dtype):
    f = program(lambda b, x: b.emit(Op.CAST, b.emit(Op.CAST, x, dtype=dtype), dtype=dt.f32), (dt.f32, (3,)))
    assert ops(simplify(f)) == [Op.CAST, Op.CAST]
    wide = program(
        lambda b, x: b.emit(Op.CAST, b.emit(Op.CAST, x, dtype=dt.f64), dtype=dt.f32), (dt.f32, (3,))
    )
    assert ops(simplify(wide)) == []


def test_sum_of_constant_over_a_named_axis_counts_it():
    f = program(
        lambda b, x: b.reduce(Op.SUM, b.emit(Op.BROADCAST, x, shape=(3, N), axes=(0,)), (1,)), (dt.f32, (3,))
    )
    simple = simplify(f)
    verify(simple)
    x = np.array([1, 2, 3], np.float32)
    np.testing.assert_array_equal(evaluate(simple, x, sizes={"N": 7})[0], 7 * x)
    assert Op.SUM not in ops(simple)


def _products(*steps):
    """x times one factor after another."""

    def build(b, x, y):
        for step in steps:
            x = b.emit(Op.MUL, x, y if step == "y" else step)
        return x

    return program(build, (dt.f32, (4,)), (dt.f32, (4,)))


@pytest.mark.parametrize(
    "steps",
    [(3.0, 7.0), (2.0**20, 2.0**-20), (0.5, 0.5), (1e10, 1e-10), (0.1, "y"), (0.5, "y"), (2.0, "y", 0.5), (3.0, "y", 7.0),
     (-3.0, -7.0, "y")],
)  # fmt: skip
def test_factors_that_users_wrote_keep_every_bit(steps):
    f = _products(*steps)
    big = np.float32([3.4e38, 1.1754942e-38, 1e-45, 0.1])
    for x in (big, -big, np.float32([np.inf, np.nan, -0.0, 0.3])):
        for y in (big, big[::-1]):
            with np.errstate(all="ignore"):
                expected, got = (evaluate(g, x, y)[0] for g in (f, expand(simplify(f))))
            assert np.array_equal(expected, got, equal_nan=True)
            assert np.array_equal(np.signbit(expected), np.signbit(got))


def test_signs_and_growing_powers_of_two_meet():
    for steps, factors in (((3.0, -1.0), [-3.0]), ((-1.0, "y", -1.0), []), ((2.0, 4.0), [8.0]), ((0.5, 2.0), [0.5, 2.0])):
        f = simplify(_products(*steps))
        assert [e.operands[1] for e in f.equations if not isinstance(e.operands[1], Value)] == factors


def test_gelu_is_one_sigmoid():
    def gelu(b, x):
        inner = b.emit(Op.MUL, b.emit(Op.ADD, x, b.emit(Op.MUL, b.emit(Op.POW, x, 3.0), 0.044715)), 0.797884561)
        return b.emit(Op.MUL, b.emit(Op.MUL, x, 0.5), b.emit(Op.ADD, b.emit(Op.TANH, inner), 1.0))

    f = simplify(program(gelu, (dt.f32, (4,))))
    assert ops(f) == [Op.MUL, Op.MUL, Op.MUL, Op.ADD, Op.MUL, Op.SIGMOID, Op.MUL]
