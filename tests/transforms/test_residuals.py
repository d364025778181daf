"""Forward and backward apart give the gradients of the whole; what is kept is small."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import kdsl.dtypes as dt
from kdsl.ir.meaning import evaluate
from kdsl.ir.ops import Op
from kdsl.ir.verify import verify
from kdsl.transforms.differentiate import vjp
from kdsl.transforms.residuals import split_forward_backward
from kdsl.transforms.simplify import simplify
from tests.programs import programs
from tests.tolerance import assert_close
from tests.transforms.test_differentiate import attention, cross_entropy, floats, gelu, layer_norm, softmax
from tests.transforms.test_simplify import ops, program

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


def check_split(function, arrays, wanted=None):
    function = simplify(function)
    split = split_forward_backward(function, wanted)
    verify(split.forward)
    verify(split.backward)
    outs = evaluate(split.forward, *arrays)
    results, residuals = outs[: len(function.results)], outs[len(function.results) :]
    cotangents = [np.ones(r.shape, r.dtype) for r in results if r.dtype.kind != "i"]
    expected = evaluate(vjp(function), *arrays, *cotangents)
    expected = expected if wanted is None else [expected[i] for i in wanted]
    got = evaluate(split.backward, *(arrays[i] for i in split.needed), *residuals, *cotangents)
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_allclose(g, e, rtol=1e-12)
    return split


@QUICK
@given(programs(dtypes=("f64",)))
def test_random_programs(p):
    check_split(p.function, p.arrays)


def of(build, *shapes):
    arrays = tuple(floats(*s, seed=i) for i, s in enumerate(shapes))
    return check_split(program(build, *((dt.f64, s) for s in shapes)), arrays)


def kept(split):
    return [tuple(v.shape) for v in split.residuals]


def test_row_statistics_are_kept():
    assert kept(of(softmax, (5, 16))) == [(5,), (5,)]
    assert kept(of(layer_norm, (5, 16), (16,), (16,))) == [(5,), (5,)]
    target = np.array([1, 0, 6, 3, 2])
    split = of(lambda b, x: cross_entropy(b, x, b.emit(Op.CONSTANT, array=target)), (5, 16))
    assert kept(split) == [(5,), (5,)] and Op.SUM not in ops(split.backward)


def test_maps_are_computed_again():
    assert kept(of(gelu, (5, 16))) == []


def test_scores_are_not_kept():
    split = of(attention, (2, 16, 4), (2, 16, 4), (2, 16, 4))
    assert (2, 16, 16) not in kept(split)
    assert (2, 16, 4) in kept(split)


def products(function):
    return [e.result for e in function.equations if e.op is Op.DOT]


def test_dear_maps_that_two_products_read_are_kept():
    def build(f):
        def layer(b, x, u, v):
            y = f(b, x)
            times = lambda p, w: b.dot("mk", "kn", "mn", p, w)  # noqa: E731
            return times(y, u), times(b.emit(Op.EXP, y), v), times(y, v)

        return of(layer, (5, 16), (16, 3), (16, 4))

    dear, cheap = build(lambda b, x: b.emit(Op.TANH, x)), build(lambda b, x: b.emit(Op.MUL, x, x))
    assert (5, 16) in kept(dear) and Op.EXP in ops(dear.backward)
    assert Op.TANH not in ops(dear.backward)
    assert (5, 16) not in kept(cheap)


def test_products_are_kept_and_idle_parameters_are_not():
    def f(b, x, w, c):
        y = b.emit(Op.ADD, b.dot("mk", "kn", "mn", x, w), b.emit(Op.BROADCAST, c, shape=(5, 8), axes=(1,)))
        return gelu(b, y)

    split = of(f, (5, 16), (16, 8), (8,))
    assert kept(split) == [(5, 8)] and split.needed == (0, 1)
    assert all(v not in split.forward.results for v in products(split.forward))
    plain = of(lambda b, x, c: b.emit(Op.ADD, x, b.emit(Op.BROADCAST, c, shape=(5, 8), axes=(1,))), (5, 8), (8,))
    assert plain.needed == ()


def test_only_the_wanted_gradients():
    x, w = floats(5, 16), floats(16, 8)
    f = program(lambda b, x, w: b.dot("mk", "kn", "mn", x, w), (dt.f64, (5, 16)), (dt.f64, (16, 8)))
    assert check_split(f, (x, w), wanted=(1,)).needed == (0,)


@pytest.mark.parametrize("dtype", [dt.f16, dt.bf16])
def test_half_types(dtype):
    f = simplify(program(softmax, (dtype, (5, 16))))
    split = split_forward_backward(f)
    verify(split.backward)
    x = floats(5, 16).astype(dtype.numpy)
    y, *residuals = evaluate(split.forward, x)
    g = floats(5, 16, seed=5).astype(dtype.numpy)
    got = evaluate(split.backward, *(x for _ in split.needed), *residuals, g)[0]
    assert_close(got, evaluate(vjp(f), x, g)[0].astype(np.float32), operations=16)
    assert y.dtype == dtype.numpy
