"""Gradients equal finite differences in f64, first and second ones, for every op; and PyTorch's where torch has the function."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import kdsl.dtypes as dt
from kdsl.ir.meaning import evaluate
from kdsl.ir.ops import Op
from kdsl.ir.rules import Builder
from kdsl.ir.sizes import size
from kdsl.ir.tensor import Function, TensorType, Value
from kdsl.ir.verify import verify
from kdsl.transforms.differentiate import APART, DERIVATIVES, vjp
from kdsl.transforms.simplify import simplify
from tests.programs import programs
from tests.tolerance import assert_close
from tests.transforms.test_simplify import ops, program

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
SHAPE = (3, 4)


def check_gradient(function, arrays, seed=0, tolerance=1e-5):
    """The pull-back of random cotangents along random directions against central differences, and return the vjp."""
    function = simplify(function)
    backward = vjp(function)
    verify(backward)
    rng = np.random.default_rng(seed)
    results = evaluate(function, *arrays)
    weights = [rng.uniform(-1, 1, r.shape) for r in results if r.dtype.kind == "f"]
    gradients = evaluate(backward, *arrays, *weights)
    floating = [i for i, p in enumerate(function.parameters) if p.dtype.is_floating]
    for g, i in zip(gradients, floating, strict=True):
        assert g.shape == arrays[i].shape and g.dtype == arrays[i].dtype
        direction = rng.uniform(-1, 1, arrays[i].shape)
        step = 1e-5

        def value(t, i=i, direction=direction):
            moved = [a + t * direction if j == i else a for j, a in enumerate(arrays)]
            outs = [r for r in evaluate(function, *moved) if r.dtype.kind == "f"]
            return sum(float(np.sum(w * r)) for w, r in zip(weights, outs, strict=True))

        numeric = (value(step) - value(-step)) / (2 * step)
        derived = float(np.sum(g * direction))
        limit = tolerance * (1 + abs(numeric) + float(np.sum(np.abs(g * direction))))
        assert not (not abs(derived - numeric) <= limit), (
            f"parameter {i}: derived {derived}, numeric {numeric}"
        )
    return backward, (*arrays, *weights)


def check_twice(function, arrays, tolerance=1e-5):
    backward, inputs = check_gradient(function, arrays, tolerance=tolerance)
    check_gradient(backward, inputs, seed=1, tolerance=tolerance * 10)


def floats(*shape, low=-1.5, high=1.5, seed=3):
    return np.random.default_rng(seed).uniform(low, high, shape)


def unary(op, **attributes):
    return program(lambda b, x: b.emit(op, x, **attributes), (dt.f64, SHAPE))


RANGES = {
    **dict.fromkeys((Op.LOG, Op.LOG2, Op.LOG10, Op.SQRT, Op.RSQRT), (0.3, 2.0)), Op.LOG1P: (-0.6, 2.0), Op.ACOSH: (1.2, 3.0),
    **dict.fromkeys((Op.ASIN, Op.ACOS, Op.ATANH), (-0.8, 0.8)), Op.TAN: (-1.2, 1.2),
}  # fmt: skip
DIFFERENTIABLE_UNARY = [
    Op.NEG, Op.ABS, Op.EXP, Op.EXP2, Op.EXPM1, Op.LOG, Op.LOG2, Op.LOG10, Op.LOG1P, Op.SQRT, Op.RSQRT, Op.SIN, Op.COS, Op.TAN,
    Op.ASIN, Op.ACOS, Op.ATAN, Op.SINH, Op.COSH, Op.TANH, Op.ASINH, Op.ACOSH, Op.ATANH, Op.SIGMOID, Op.ERF, Op.BARRIER,
]  # fmt: skip


@pytest.mark.parametrize("op", DIFFERENTIABLE_UNARY, ids=repr)
def test_unary(op):
    check_twice(
        unary(op), (floats(*SHAPE, low=RANGES.get(op, (-1.5, 1.5))[0], high=RANGES.get(op, (-1.5, 1.5))[1]),)
    )


BINARY = {
    Op.ADD: (-1.5, 1.5), Op.SUB: (-1.5, 1.5), Op.MUL: (-1.5, 1.5), Op.DIV: (0.5, 2.0), Op.POW: (0.5, 2.0), Op.MOD: (1.1, 1.9),
    Op.ATAN2: (0.2, 2.0), Op.COPYSIGN: (0.2, 2.0), Op.MAXIMUM: (-1.5, 1.5), Op.MINIMUM: (-1.5, 1.5),
}  # fmt: skip


@pytest.mark.parametrize("op", BINARY, ids=repr)
@pytest.mark.parametrize("literal", [None, 0, 1])
def test_binary(op, literal):
    low, high = BINARY[op]
    x, y = floats(*SHAPE, low=low, high=high), floats(*SHAPE, low=low, high=high, seed=4)
    if literal is None:
        check_twice(program(lambda b, x, y: b.emit(op, x, y), *[(dt.f64, SHAPE)] * 2), (x, y))
    else:
        check_twice(
            program(lambda b, x: b.emit(op, *((x, 0.7) if literal else (0.7, x))), (dt.f64, SHAPE)), (x,)
        )


INDEX = np.array([[0, -1, 2], [1, 1, 0]])
ALONG = np.array([[0, -1], [1, 1], [3, 0]])


def with_index(op, index, **attributes):
    def build(b, x, *rest):
        i = b.emit(Op.CONSTANT, array=index)
        return b.emit(op, x, i, *rest, **attributes)

    return build


STRUCTURE = {
    "broadcast": (lambda b, x: b.emit(Op.BROADCAST, x, shape=(2, 3, 5, 4), axes=(1, 3)), SHAPE),
    "broadcast 1": (lambda b, x: b.emit(Op.BROADCAST, x, shape=(2, 3, 5), axes=(0, 2)), (2, 1)),
    "permute": (lambda b, x: b.emit(Op.PERMUTE, x, axes=(1, 2, 0)), (2, 3, 4)),
    "reshape": (lambda b, x: b.emit(Op.RESHAPE, x, shape=(2, 6)), SHAPE),
    "slice": (lambda b, x: b.emit(Op.SLICE, x, starts=(6, 1), sizes=(3, 2), steps=(-3, 2)), (7, 5)),
    "pad": (lambda b, x: b.emit(Op.PAD, x, low=(1, 0), high=(0, 2), interior=(2, 1), value=3.0), SHAPE),
    "concat": (lambda b, x, y: b.emit(Op.CONCAT, x, y, x, axis=1), SHAPE, (3, 2)),
    "window": (lambda b, x: b.emit(Op.WINDOW, x, axis=0, size=3, stride=2, dilation=2), (11, 2)),
    "window wide": (lambda b, x: b.emit(Op.WINDOW, x, axis=1, size=17, stride=1, dilation=1), (2, 20)),
    "sum": (lambda b, x: b.reduce(Op.SUM, x, (0, 2)), (2, 3, 4)),
    "prod": (lambda b, x: b.reduce(Op.PROD, x, (0, 2)), (2, 3, 4)),
    "max": (lambda b, x: b.reduce(Op.MAX, x, (0,)), SHAPE),
    "min": (lambda b, x: b.reduce(Op.MIN, x, (0, 1)), SHAPE),
    "dot": (lambda b, x, y: b.dot("mk", "nk", "nm", x, y), SHAPE, (5, 4)),
    "dot batch": (lambda b, x, y: b.dot("bmk", "kbn", "bmn", x, y), (2, 3, 4), (4, 2, 5)),
    "dot alone": (lambda b, x, y: b.dot("amk", "knc", "mn", x, y), (2, 3, 4), (4, 5, 2)),
    "dot vector": (lambda b, x, y: b.dot("mk", "k", "m", x, y), SHAPE, (4,)),
    "dot outer": (lambda b, x, y: b.dot("m", "n", "nm", x, y), (3,), (4,)),
    "dot square": (lambda b, x: b.dot("mk", "nk", "mn", x, x), SHAPE),
    "dot diagonal": (lambda b, x, y: b.dot("mm", "mn", "n", x, y), (4, 4), (4, 3)),
    "take": (with_index(Op.TAKE, INDEX, axis=1), SHAPE),
    "take along": (with_index(Op.TAKE_ALONG, ALONG, axis=1), SHAPE),
    "scatter": (with_index(Op.SCATTER_ADD, INDEX, axis=0), SHAPE, (2, 3, 4)),
    "scatter along": (with_index(Op.SCATTER_ALONG, ALONG, axis=1), SHAPE, (3, 2)),
    "sort": (lambda b, x: b.emit(Op.SORT, x, axis=1, descending=True), SHAPE),
    "where": (lambda b, x, y: b.emit(Op.WHERE, b.emit(Op.LT, x, y), b.emit(Op.MUL, x, y), y), SHAPE, SHAPE),
}


@pytest.mark.parametrize("name", STRUCTURE)
def test_structure(name):
    build, *shapes = STRUCTURE[name]
    arrays = tuple(floats(*s, seed=i) for i, s in enumerate(shapes))
    check_twice(program(build, *((dt.f64, s) for s in shapes)), arrays)


def test_the_table_is_total():
    assert set(DERIVATIVES) | APART == set(Op)


@QUICK
@given(programs(dtypes=("f64",), smooth=True, steps=6))
def test_random_programs(p):
    results = evaluate(p.function, *p.arrays)
    if all(np.all(np.isfinite(r)) and np.all(np.abs(r) < 1e3) for r in results):
        check_gradient(p.function, p.arrays, tolerance=1e-4)


@QUICK
@given(programs(dtypes=("f64",), smooth=True, steps=3))
def test_random_second_derivatives(p):
    results = evaluate(p.function, *p.arrays)
    if all(np.all(np.isfinite(r)) and np.all(np.abs(r) < 50) for r in results):
        check_twice(p.function, p.arrays, tolerance=1e-3)


def gradients(build, *arrays, weights=None):
    f = simplify(program(build, *((dt.BY_NUMPY[a.dtype], a.shape) for a in arrays)))
    out = evaluate(f, *arrays)
    weights = weights or [np.ones(r.shape, r.dtype) for r in out]
    return evaluate(vjp(f), *arrays, *weights)


def test_ties_share_equally():
    x = np.array([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
    (g,) = gradients(lambda b, x: b.reduce(Op.MAX, x, (1,)), x)
    np.testing.assert_allclose(g, [[0, 0.5, 0.5], [1 / 3] * 3])
    one, other = gradients(
        lambda b, x, y: b.emit(Op.MAXIMUM, x, y), np.array([1.0, 2.0, 5.0]), np.array([1.0, 3.0, 4.0])
    )
    assert one.tolist() == [0.5, 0, 1] and other.tolist() == [0.5, 1, 0]
    (zero,) = gradients(
        lambda b, x: b.emit(Op.ADD, b.emit(Op.ABS, x), b.emit(Op.SIGN, x)), np.array([0.0, -2.0])
    )
    assert zero.tolist() == [0, -1]


@pytest.mark.parametrize("zeros", [0, 1, 2])
def test_products_with_zeros(zeros):
    x = np.array([2.0, 3.0, 5.0, 7.0])
    x[:zeros] = 0
    (g,) = gradients(lambda b, x: b.reduce(Op.PROD, x, (0,)), x)
    np.testing.assert_allclose(g, [np.prod(np.delete(x, i)) for i in range(4)])
    f = program(lambda b, x: b.reduce(Op.PROD, x, (0,)), (dt.f64, (4,)))
    check_twice(f, (x,))
    n = size("N")
    named = vjp(simplify(program(lambda b, x: b.reduce(Op.PROD, x, (0,)), (dt.f64, (n,)))))
    np.testing.assert_allclose(evaluate(named, x, np.ones(()))[0], g)


def test_where_lets_no_nan_through():
    def f(b, x):
        inside = b.emit(Op.GT, x, 0.0)
        root = b.emit(Op.LOG, b.emit(Op.SQRT, x))
        return b.emit(Op.WHERE, inside, root, 0.0)

    x = np.array([-1.0, 0.0, 4.0])
    (g,) = gradients(f, x)
    assert g.tolist() == [0, 0, 0.125]


def test_powers_at_zero():
    x, p = np.array([0.0, 0.0, 0.0, 2.0]), np.array([0.0, 1.0, 2.0, 3.0])
    by_x, by_p = gradients(lambda b, x, p: b.emit(Op.POW, x, p), x, p)
    np.testing.assert_allclose(by_x, [0, 1, 0, 12])
    np.testing.assert_allclose(by_p, [0, 0, 0, 8 * np.log(2)])


def softmax(b, x, axis=-1):
    axis %= len(x.shape)
    e = b.emit(Op.EXP, b.emit(Op.SUB, x, b.broadcast_to(b.reduce(Op.MAX, x, (axis,), True), x.shape)))
    return b.emit(Op.DIV, e, b.broadcast_to(b.reduce(Op.SUM, e, (axis,), True), x.shape))


def layer_norm(b, x, w, c, n=None):
    n = n or float(x.shape[-1])
    last = (len(x.shape) - 1,)

    def mean(v):
        total = b.reduce(Op.SUM, v, last, True)
        if isinstance(n, float):
            return b.broadcast_to(b.emit(Op.DIV, total, n), x.shape)
        return b.broadcast_to(
            b.emit(Op.DIV, total, b.broadcast_to(b.cast(b.emit(Op.SIZE, value=n), x.dtype), total.shape)),
            x.shape,
        )

    d = b.emit(Op.SUB, x, mean(x))
    scaled = b.emit(Op.MUL, d, b.emit(Op.RSQRT, b.emit(Op.ADD, mean(b.emit(Op.MUL, d, d)), 1e-5)))
    return b.emit(Op.ADD, b.emit(Op.MUL, scaled, b.broadcast_to(w, x.shape)), b.broadcast_to(c, x.shape))


def gelu(b, x):
    cube = b.emit(Op.MUL, b.emit(Op.MUL, x, x), x)
    u = b.emit(Op.MUL, b.emit(Op.ADD, x, b.emit(Op.MUL, cube, 0.044715)), 0.7978845608028654)
    return b.emit(Op.MUL, b.emit(Op.MUL, x, 0.5), b.emit(Op.ADD, b.emit(Op.TANH, u), 1.0))


def cross_entropy(b, x, target):
    m = b.broadcast_to(b.reduce(Op.MAX, x, (1,), True), x.shape)
    lse = b.emit(Op.LOG, b.reduce(Op.SUM, b.emit(Op.EXP, b.emit(Op.SUB, x, m)), (1,)))
    lse = b.emit(Op.ADD, lse, b.reduce(Op.MAX, x, (1,)))
    hit = b.emit(
        Op.EQ,
        b.emit(Op.IOTA, shape=x.shape, axis=1, dtype=dt.i64),
        b.emit(Op.BROADCAST, target, shape=x.shape, axes=(0,)),
    )
    picked = b.reduce(Op.SUM, b.emit(Op.WHERE, hit, x, 0.0), (1,))
    return b.emit(Op.DIV, b.reduce(Op.SUM, b.emit(Op.SUB, lse, picked), (0,)), float(x.shape[0]))


def attention(b, q, k, v):
    s = b.emit(Op.MUL, b.dot("bmd", "bnd", "bmn", q, k), q.shape[-1] ** -0.5)
    rows, columns = (b.emit(Op.IOTA, shape=s.shape, axis=i, dtype=dt.i64) for i in (1, 2))
    s = b.emit(Op.WHERE, b.emit(Op.GE, rows, columns), s, -np.inf)
    return b.dot("bmn", "bnd", "bmd", softmax(b, s), v)


def test_no_gradient_runs_through_the_maximum_of_softmax():
    f = vjp(simplify(program(softmax, (dt.f32, (4, 8)))))
    assert Op.EQ not in ops(f)
    assert ops(f).count(Op.SUM) == 2


def test_layer_norm_backward_has_few_passes():
    for shape in ((6, 8), (size("N"), size("D"))):
        types = (dt.f32, shape), (dt.f32, shape[1:]), (dt.f32, shape[1:])
        named = None if isinstance(shape[1], int) else shape[1]
        f = vjp(simplify(program(lambda b, x, w, c, named=named: layer_norm(b, x, w, c, named), *types)))
        verify(f)
        depth = {}
        for e in f.equations:
            depth[e.result] = max((depth.get(v, 0) for v in e.values), default=0) + (e.op is Op.SUM)
        assert max(depth[r] for r in f.results) == 3, f
        x, w, dy = (
            floats(6, 8).astype("f4"),
            floats(8, seed=1).astype("f4"),
            floats(6, 8, seed=2).astype("f4"),
        )
        if named is None:
            check_gradient(
                program(layer_norm, *((dt.f64, s) for _, s in types)), (floats(6, 8), floats(8), floats(8))
            )
            first = evaluate(f, x, w, w, dy)
        else:
            for got, expected in zip(evaluate(f, x, w, w, dy), first, strict=True):
                assert_close(got, expected, operations=8)


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["softmax", "layer_norm", "gelu", "cross_entropy", "attention"])
def test_equals_torch(name):
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    F = torch.nn.functional
    target = np.array([1, 0, 6, 3, 2])
    cases = {
        "softmax": (softmax, lambda x: torch.softmax(x, -1), [(5, 7)]),
        "layer_norm": (layer_norm, lambda x, w, c: F.layer_norm(x, (7,), w, c), [(5, 7), (7,), (7,)]),
        "gelu": (gelu, lambda x: F.gelu(x, approximate="tanh"), [(5, 7)]),
        "cross_entropy": (
            lambda b, x: cross_entropy(b, x, b.emit(Op.CONSTANT, array=target)),
            lambda x: F.cross_entropy(x, torch.tensor(target)),
            [(5, 7)],
        ),
        "attention": (
            attention,
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
            [(2, 5, 3)] * 3,
        ),
    }
    build, oracle, shapes = cases[name]
    arrays = [floats(*s, seed=i) for i, s in enumerate(shapes)]
    tensors = [torch.tensor(a, requires_grad=True) for a in arrays]
    out = oracle(*tensors)
    weight = floats(*out.shape, seed=9)
    expected = torch.autograd.grad(out, tensors, torch.tensor(weight))
    f = simplify(program(build, *((dt.f64, s) for s in shapes)))
    assert_close(evaluate(f, *arrays)[0], out.detach().numpy(), operations=40)
    for got, want in zip(evaluate(vjp(f), *arrays, weight), expected, strict=True):
        assert_close(got, want.numpy(), operations=40)


def test_sums_of_products_do_not_turn_to_and_fro():
    """softmax(s) @ v where s and v have one shape: sum(p * dp) and sum(do * o) are each other's rewriting."""
    b = Builder()
    s, v = (Value(TensorType(dt.f64, (5, 5)), name) for name in "sv")
    e = b.emit(Op.EXP, s)
    along = b.emit(Op.BROADCAST, b.reduce(Op.SUM, e, (1,)), shape=(5, 5), axes=(0,))
    out = b.dot("ij", "je", "ie", b.emit(Op.DIV, e, along), v)
    rng = np.random.default_rng(0)
    check_gradient(Function("f", (s, v), tuple(b.equations), (out,)), [rng.standard_normal((5, 5)) for _ in "sv"])


def test_half_types_keep_their_types():
    f = simplify(program(softmax, (dt.bf16, (3, 5))))
    g = vjp(f)
    verify(g)
    assert [r.dtype for r in g.results] == [dt.bf16]
    h = vjp(simplify(program(lambda b, x: b.emit(Op.CAST, x, dtype=dt.f32), (dt.f16, (3,)))))
    assert [p.dtype for p in h.parameters] == [dt.f16, dt.f32] and h.results[0].dtype is dt.f16


def test_parameters_without_influence_get_zeros():
    f = vjp(
        simplify(
            program(lambda b, x, i, y: (b.emit(Op.FLOOR, x), y), (dt.f64, (2,)), (dt.i64, (2,)), (dt.f64, ()))
        )
    )
    one = np.ones(2)
    zero, y = evaluate(f, one, np.ones(2, np.int64), np.ones(()), one, np.full((), 3.0))
    assert zero.tolist() == [0, 0] and y == 3


def test_rules_of_the_user_are_called():
    inner = program(lambda b, x: (b.emit(Op.EXP, x), b.emit(Op.SIN, x)), (dt.f64, (3,)))

    def rule():
        x, y, z, g, h = (Value(TensorType(dt.f64, (3,))) for _ in range(5))
        b = Builder()
        out = b.emit(Op.MUL, b.emit(Op.ADD, g, h), b.emit(Op.MUL, y, 10.0))
        return Function("rule", (x, y, z, g, h), tuple(b.equations), (out,))

    def f(b, x):
        return b.emit(Op.CALL, b.emit(Op.MUL, x, 2.0), function=inner, rule=rule, index=0)

    x = np.array([0.0, 0.5, 1.0])
    np.testing.assert_allclose(gradients(f, x)[0], 20 * np.exp(2 * x))
    plain = program(lambda b, x: b.emit(Op.CALL, x, function=inner, rule=None, index=1), (dt.f64, (3,)))
    check_twice(plain, (x,))
