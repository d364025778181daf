"""Section 4 of the contract: vjp, pullback, grad, rules of one's own, and what happens where there is no derivative."""

from __future__ import annotations

import numpy as np
import pytest

import kdsl as kd
from tests.contract.saying import ODD_SHAPES, equal, layouts, mistake
from tests.tolerance import assert_close

RNG = np.random.default_rng(4)


def slopes(function, x, step=1e-6):
    """The gradient of a sum of function(x) by central differences, in f64."""
    gradient = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        gradient[i] = (np.sum(function(up)) - np.sum(function(down))) / (2 * step)
    return gradient


def gradient(function, x, *others):
    """d sum(function(x)) / dx by kdsl."""
    f = kd.kernel(function)
    ones = np.ones_like(np.asarray(f(x, *others)))
    return f.vjp(x, *others, ones)[0]


# -- vjp --------------------------------------------------------------------------------------------------------------


def test_vjp_returns_a_tuple_with_one_gradient_per_floating_argument():
    """`f.vjp(*args, *cotangents)` returns a tuple: one gradient per positional *tensor* argument that is floating"""
    f = kd.kernel(lambda x, i, y, s: x * y * s + i)
    x, y, i = np.array([1.0, 2.0], "f4"), np.array([3.0, 5.0]), np.array([1, 2])
    got = f.vjp(x, i, y, 2, np.ones(2))
    assert isinstance(got, tuple) and len(got) == 2
    equal(got[0], (y * 2).astype("f4"))
    equal(got[1], x.astype("f8") * 2)


def test_gradients_have_the_arguments_structure_dtype_and_shape():
    """or holds floating leaves (same structure, dtype, shape; None for a leaf that is not floating ...)"""

    @kd.kernel
    def f(tree, z):
        return tree["a"] * tree["b"][0] + z * tree["b"][1]

    a, b, i, z = np.ones((2, 3), "f4"), np.full((1, 3), 2, "f4"), np.array([4, 4, 4]), np.ones(3, "f2")
    got = f.vjp({"a": a, "b": [b, i]}, z, np.ones((2, 3), "f4"))
    assert len(got) == 2 and isinstance(got[0], dict) and isinstance(got[0]["b"], list)
    equal(got[0]["a"], np.full((2, 3), 2, "f4"))
    equal(got[0]["b"][0], np.full((1, 3), 2, "f4"))
    assert got[0]["b"][1] is None
    equal(got[1], np.full(3, 8, "f2"))


def test_an_argument_without_floating_leaves_has_no_gradient():
    """one gradient per positional *tensor* argument that is floating or holds floating leaves"""
    f = kd.kernel(lambda ints, x: x * ints[0])
    got = f.vjp([np.array([2, 3])], np.ones(2, "f4"), np.ones(2, "f4"))
    assert len(got) == 1
    equal(got[0], np.array([2, 3], "f4"))


@pytest.mark.parametrize("shape", ODD_SHAPES)
def test_zeros_where_there_is_no_influence(shape):
    """zeros where there is no influence"""
    f = kd.kernel(lambda x, y: x * 2.0)
    x = np.ones(shape, "f4")
    dx, dy = f.vjp(x, np.full((3, 2), np.nan), x)
    equal(dx, x * 2)
    equal(dy, np.zeros((3, 2)))


def test_static_and_keyword_only_arguments_have_no_gradient():
    """static and keyword-only arguments have none"""

    @kd.kernel
    def f(x, n, *, w, bias=1.0):
        return x * n * w + bias

    x, w = np.array([1.0, 2.0], "f4"), np.array([3.0, 4.0], "f4")
    got = f.vjp(x, 5, np.ones(2, "f4"), w=w)
    assert len(got) == 1
    equal(got[0], w * 5)


def test_an_annotated_number_is_a_tensor_argument_with_a_gradient():
    """one gradient per positional *tensor* argument (`lr: kd.f32` is the 0-d type)"""

    @kd.kernel
    def f(x: kd.f32["N"], s: kd.f32):
        return x * s

    dx, ds = f.vjp(np.array([1.0, 2.0, 3.0], "f4"), 2.0, np.ones(3, "f4"))
    equal(dx, np.full(3, 2, "f4"))
    equal(ds, np.array(6, "f4"))


def test_cotangents_come_last_one_per_floating_result_leaf():
    """One cotangent per floating result leaf, in result order, last"""
    f = kd.kernel(lambda x: {"b": x * 2, "a": (kd.argmax(x), x * x), "n": None, "c": kd.sum(x)})
    x = np.array([1.0, 3.0], "f4")
    (dx,) = f.vjp(x, np.array([1, 10], "f4"), np.array([100, 1000], "f4"), np.float32(7))
    equal(dx, np.array([2 + 200 + 7, 20 + 6000 + 7], "f4"))


def test_too_few_and_too_many_cotangents_are_errors():
    """One cotangent per floating result leaf"""
    f = kd.kernel(lambda x: (x, x * 2))
    x = np.ones(3, "f4")
    for cotangents in ((), (x,), (x, x, x)):
        with pytest.raises(kd.KdslError):
            f.vjp(x, *cotangents)


@pytest.mark.parametrize("wrong", [np.ones(4, "f4"), np.ones((3, 1), "f4"), np.ones((), "f4")])
def test_a_cotangent_of_another_shape_is_a_ShapeError(wrong):
    """One cotangent per floating result leaf (of its shape)"""
    with pytest.raises(kd.ShapeError):
        kd.kernel(lambda x: x * 2).vjp(np.ones(3, "f4"), wrong)


def test_with_star_arguments_the_smallest_number_of_cotangents_that_fits():
    """With `*args`, the smallest number of cotangents that fits"""

    @kd.kernel
    def total(*xs):
        return sum(xs[1:], xs[0])

    @kd.kernel
    def each(*xs):
        return tuple(x * (i + 1) for i, x in enumerate(xs))

    x = np.ones(2, "f4")
    assert len(total.vjp(x, x, x, x)) == 3
    got = each.vjp(x, x, x * 5, x * 7)
    assert len(got) == 2
    equal(got[0], x * 5)
    equal(got[1], x * 14)


@pytest.mark.parametrize("layout", range(4))
def test_vjp_takes_any_layout(layout):
    """(of arguments and cotangents)"""
    x, y = (
        layouts(RNG.standard_normal((5, 7)).astype("f4"))[layout],
        layouts(RNG.standard_normal((5, 7)).astype("f4"))[3 - layout],
    )
    dx, dy = kd.kernel(lambda x, y: x * y).vjp(x, y, x)
    equal(dx, np.ascontiguousarray(x * y))
    equal(dy, np.ascontiguousarray(x * x))


# -- pullback ---------------------------------------------------------------------------------------------------------


def test_pullback_runs_the_forward_once_and_gives_what_vjp_gives():
    """`results, pullback = f.pullback(*args)` ...; `pullback(*cotangents)` gives the tuple of `vjp`"""

    @kd.kernel
    def f(x, i, w):
        h = kd.tanh(x @ w)
        return h, {"s": kd.sum(h * h, axis=1)}, kd.argmax(h, axis=1) + i

    x, w, i = RNG.standard_normal((5, 3)).astype("f4"), RNG.standard_normal((3, 4)).astype("f4"), np.arange(5)
    results, pullback = f.pullback(x, i, w)
    for got, expected in zip(
        (results[0], results[1]["s"], results[2]), (lambda r: (r[0], r[1]["s"], r[2]))(f(x, i, w))
    ):
        assert_close(got, expected)
    dh, ds = np.ones((5, 4), "f4"), np.arange(5, dtype="f4")
    got, expected = pullback(dh, ds), f.vjp(x, i, w, dh, ds)
    assert isinstance(got, tuple) and len(got) == 2
    for g, e in zip(got, expected):
        assert_close(g, e, operations=20, scale=4)
    for g, e in zip(pullback(dh * 2, ds * 2), expected):  # it may be called again
        assert_close(g, e * 2, operations=20, scale=8)


def test_pullback_keeps_its_values_when_results_are_written():
    """runs the forward once and keeps what the compiler chose to keep"""
    f = kd.kernel(lambda x: kd.exp(x))
    x = np.array([0.0, 1.0], "f4")
    results, pullback = f.pullback(x)
    expected = np.exp(x)
    results[...] = 7  # the results belong to the caller
    assert_close(pullback(np.ones(2, "f4"))[0], expected)


def test_pullback_of_star_arguments_takes_cotangents_apart():
    """`results, pullback = f.pullback(*args)`"""
    f = kd.kernel(lambda *xs: [x * x for x in xs])
    results, pullback = f.pullback(np.float32(2), np.float32(3))
    assert [float(r) for r in results] == [4, 9]
    assert [float(g) for g in pullback(np.float32(1), np.float32(10))] == [4, 60]


# -- grad -------------------------------------------------------------------------------------------------------------


def test_grad_is_the_gradient_of_a_0_d_result():
    """`kd.grad(f, argnums=0)` ... for a 0-d floating result"""

    @kd.kernel
    def f(x, y):
        return kd.sum(x * x * y)

    x, y = np.array([1.0, 2.0], "f4"), np.array([3.0, 4.0], "f4")
    equal(kd.grad(f)(x, y), 2 * x * y)
    equal(kd.grad(f, argnums=1)(x, y), x * x)
    both = kd.grad(f, argnums=(0, 1))(x, y)
    equal(both[0], 2 * x * y)
    equal(both[1], x * x)


def test_value_and_grad_gives_both():
    """`kd.value_and_grad(f, argnums=0)`"""
    f = kd.kernel(lambda x: kd.sum(x * x))
    value, slope = kd.value_and_grad(f)(np.array([1.0, 2.0]))
    equal(value, np.array(5.0))
    equal(slope, np.array([2.0, 4.0]))


def test_grad_takes_a_plain_function():
    """`kd.grad(f, argnums=0)` (f any callable)"""
    equal(kd.grad(lambda x: kd.sum(x**3))(np.array([1.0, 2.0])), np.array([3.0, 12.0]))


@pytest.mark.parametrize("f", [lambda x: x, lambda x: kd.argmax(x), lambda x: (kd.sum(x), kd.sum(x))])
def test_grad_refuses_other_results(f):
    """for a 0-d floating result"""
    with pytest.raises(kd.KdslError):
        kd.grad(f)(np.ones(3))


def test_grad_of_a_nested_argument_has_its_structure():
    """`kd.grad(f, argnums=0)`: same structure as the argument"""
    g = kd.grad(lambda p: kd.sum(p["w"] * 3) + kd.sum(p["b"][0] ** 2))({"w": np.ones(2), "b": (np.array([4.0]),)})
    equal(g["w"], np.full(2, 3.0))
    equal(g["b"][0], np.array([8.0]))


def test_all_of_these_nest():
    """All of these nest (second derivatives)"""
    x = np.array([0.3, -1.2, 2.0])
    second = kd.grad(lambda x: kd.sum(kd.grad(lambda y: kd.sum(kd.sin(y)))(x)))
    assert_close(second(x), -np.sin(x), operations=4)
    third = kd.grad(lambda x: kd.grad(lambda x: kd.grad(lambda x: x**4)(x))(x))
    assert_close(third(np.float64(2.0)), np.array(48.0))
    value, slope = kd.value_and_grad(lambda x: kd.sum(kd.value_and_grad(lambda y: kd.sum(kd.exp(y)))(x)[1]))(x)
    assert_close(value, np.array(np.exp(x).sum()))
    assert_close(slope, np.exp(x))


def test_vjp_of_a_vjp():
    """All of these nest (second derivatives)"""
    f = kd.kernel(lambda x: kd.tanh(x) * x)
    g = kd.kernel(lambda x, c: f.vjp(x, c)[0])
    x, c, v = RNG.standard_normal(5), RNG.standard_normal(5), RNG.standard_normal(5)
    dx, dc = g.vjp(x, c, v)
    assert_close(g(x, c), c * ((1 - np.tanh(x) ** 2) * x + np.tanh(x)), operations=8)
    assert_close(dx, v * slopes(lambda x: c * ((1 - np.tanh(x) ** 2) * x + np.tanh(x)), x), "f4")
    assert_close(dc, v * ((1 - np.tanh(x) ** 2) * x + np.tanh(x)), operations=8)


def test_all_of_these_may_be_used_inside_a_kernel():
    """and may be used inside a kernel"""
    loss = kd.kernel(lambda w, x: kd.sum((x @ w) ** 2))

    @kd.kernel
    def step(w, x, lr: kd.f32):
        value, dw = kd.value_and_grad(loss)(w, x)
        (again, _) = loss.vjp(w, x, kd.ones(()))
        results, pullback = loss.pullback(w, x)
        return value, w - lr * dw, again - pullback(kd.ones(()))[0], results - value

    w, x = RNG.standard_normal(3).astype("f4"), RNG.standard_normal((4, 3)).astype("f4")
    value, new, zero, nothing = step(w, x, 0.1)
    assert_close(value, np.sum((x @ w) ** 2, dtype="f4"), operations=16)
    assert_close(new, w - np.float32(0.1) * 2 * x.T @ (x @ w), operations=16, scale=4)
    assert_close(zero + 1, np.ones(3, "f4"), operations=16, scale=8)
    assert_close(nothing + 1, np.ones((), "f4"), operations=16, scale=8)


def test_gradients_flow_to_what_an_inner_function_captures():
    """may be used inside a kernel (an inner derivative may use the outer kernel's tensors)"""

    @kd.kernel
    def f(x, w):
        return kd.sum(kd.grad(lambda y: kd.sum(y * y * w))(x))

    x, w = np.array([1.0, 2.0]), np.array([3.0, 5.0])
    dx, dw = f.vjp(x, w, np.float64(1))
    equal(dx, 2 * w)
    equal(dw, 2 * x)


# -- a rule of one's own ----------------------------------------------------------------------------------------------


def test_a_users_own_rule():
    """`@f.defvjp` on `rule(args, results, cotangents)`, a kernel body that returns one gradient or None per ... argument"""

    @kd.kernel
    def f(x, i, y):
        return kd.exp(x) * y, x + i

    seen = []

    @f.defvjp
    def rule(args, results, cotangents):
        seen.append((len(args), len(results), len(cotangents)))
        return results[0] * 0 + cotangents[0] * 10 + cotangents[1], None, None

    x, i = np.array([0.0, 1.0]), np.array([1, 2])
    got = f.vjp(x, i, x, np.array([1.0, 2.0]), np.array([5.0, 5.0]))
    assert seen == [(3, 2, 2)]
    equal(got[0], np.array([15.0, 25.0]))
    equal(got[1], np.zeros(2))
    _, pullback = f.pullback(x, i, x)
    equal(pullback(np.array([1.0, 2.0]), np.array([5.0, 5.0]))[0], np.array([15.0, 25.0]))


def test_a_rule_for_a_kernel_with_static_arguments():
    """one gradient or None per positional argument (a static one's is None)"""
    f = kd.kernel(lambda x, n: x * n)

    @f.defvjp
    def rule(args, results, cotangents):
        return cotangents[0] * args[1] * 2, None

    equal(f.vjp(np.ones(2), 3, np.ones(2))[0], np.full(2, 6.0))
    equal(kd.grad(lambda x: kd.sum(f(x, 4)))(np.ones(2)), np.full(2, 8.0))


@pytest.mark.parametrize("gives", [lambda c: (), lambda c: (c, c), lambda c: (c[0][:1],), lambda c: ("text",)])
def test_a_rule_that_returns_something_else_is_an_error(gives):
    """returns one gradient or None per positional argument"""
    f = kd.kernel(lambda x: x * 2)

    @f.defvjp
    def rule(args, results, cotangents):
        return gives(cotangents)

    with pytest.raises(kd.KdslError):
        f.vjp(np.ones(3), np.ones(3))


# -- where there is no derivative -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["max", "min"])
def test_ties_of_max_and_min_share_equally(name):
    """ties of max, min, maximum share equally"""
    sign = 1 if name == "max" else -1
    x = np.array([[1, 3, 3, 2], [5, 5, 5, 5], [0.0, -0.0, -1, -1], [7, 1, 2, 3]]) * sign
    expected = np.array([[0, 0.5, 0.5, 0], [0.25] * 4, [0.5, 0.5, 0, 0], [1, 0, 0, 0]])
    assert_close(gradient(lambda x: getattr(kd, name)(x, axis=1), x), expected)
    assert_close(gradient(lambda x: getattr(kd, name)(x), np.ones((2, 3))), np.full((2, 3), 1 / 6))


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_ties_of_maximum_share_equally(name):
    """ties of ... maximum share equally"""
    a, b = np.array([1.0, 2.0, 0.0, 3.0]), np.array([1.0, 1.0, -0.0, 4.0])
    da, db = kd.kernel(getattr(kd, name)).vjp(a, b, np.ones(4))
    first = [0.5, 1, 0.5, 0] if name == "maximum" else [0.5, 0, 0.5, 1]
    equal(da, np.array(first))
    equal(db, 1 - np.array(first))


@pytest.mark.parametrize("name", ["abs", "sign"])
def test_abs_and_sign_give_0_at_0(name):
    """abs and sign give 0"""
    x = np.array([0.0, -0.0, 2.0, -3.0])
    np.testing.assert_array_equal(gradient(getattr(kd, name), x), [0, 0, 1, -1] if name == "abs" else [0] * 4)


def test_clip_passes_at_its_bounds():
    """clip passes at its bounds"""
    x = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    np.testing.assert_array_equal(gradient(lambda x: kd.clip(x, -0.5, 0.5), x), [0, 1, 1, 1, 0])


def test_where_passes_the_chosen_side_only():
    """where passes the chosen side only (no NaN from the other)"""
    x = np.array([0.0, 4.0, -1.0])
    got = gradient(lambda x: kd.where(x > 0, kd.sqrt(x), 0.0), x)
    np.testing.assert_array_equal(got, [0, 0.25, 0])
    got = gradient(lambda x: kd.where(x > 0, kd.log(x) / x, x * 2), np.array([0.0, 1.0]))
    np.testing.assert_array_equal(got, [2, 1])
    got = gradient(lambda x: kd.sum(kd.where(x != 0, 1 / x, 0.0)), np.array([0.0, 2.0, np.inf]))
    np.testing.assert_array_equal(got, [0, -0.25, 0])


def test_where_with_infinite_cotangents_keeps_the_other_side_clean():
    """where passes the chosen side only"""
    f = kd.kernel(lambda a, b: kd.where(a > 0, a, b))
    da, db = f.vjp(np.array([1.0, -1.0]), np.array([1.0, 1.0]), np.array([np.inf, np.nan]))
    np.testing.assert_array_equal(da, [np.inf, 0])
    np.testing.assert_array_equal(db, [0, np.nan])


@pytest.mark.parametrize("name", ["floor", "ceil", "round", "trunc"])
def test_floor_and_round_give_0(name):
    """floor, round ... give 0"""
    np.testing.assert_array_equal(gradient(getattr(kd, name), np.array([0.5, 1.0, -2.5])), [0, 0, 0])


def test_argmax_and_comparisons_give_0():
    """argmax, comparisons give 0"""
    x = np.array([1.0, 3.0, 2.0])
    np.testing.assert_array_equal(
        gradient(lambda x: kd.argmax(x) * 1.0 + kd.sum(kd.astype(x > 1, kd.f64)), x), [0, 0, 0]
    )
    np.testing.assert_array_equal(gradient(lambda x: x * (x > 1.5), x), [0, 1, 1])


@pytest.mark.parametrize("values", [[2, 3, 4], [0, 3, 4], [0, 0, 4], [0, 0, 0], [5], [1, -2, 0, 7]])
def test_prod_is_right_with_zeros(values):
    """prod ... right with zeros"""
    x = np.array(values, "f8")
    expected = [np.prod(np.delete(x, i)) for i in range(len(x))]
    np.testing.assert_allclose(gradient(lambda x: kd.prod(x), x), expected, rtol=1e-13)
    rows = np.stack([x, x + 1, x * 0])
    expected = [[np.prod(np.delete(r, i)) for i in range(len(x))] for r in rows]
    np.testing.assert_allclose(gradient(lambda x: kd.prod(x, axis=1), rows), expected, rtol=1e-13)


@pytest.mark.parametrize("values", [[2, 3, 4], [0, 3, 4], [1, 0, 0, 4]])
def test_cumulative_prod_is_right_with_zeros(values):
    """cumulative_prod ... right with zeros"""
    x = np.array(values, "f8")
    np.testing.assert_allclose(gradient(lambda x: kd.cumulative_prod(x, axis=0), x), slopes(np.cumprod, x), atol=1e-7)


# -- the gradients themselves -----------------------------------------------------------------------------------------


def _shares(k, x, axis):
    e = k.exp(x - k.max(x, axis=-1, keepdims=True))
    return e / k.sum(e, axis=axis, keepdims=True)


SMOOTH = {
    "acos": lambda k, x: k.acos(x / 4),
    "acosh": lambda k, x: k.acosh(x + 3),
    "asin": lambda k, x: k.asin(x / 4),
    "asinh": lambda k, x: k.asinh(x),
    "atan": lambda k, x: k.atan(x),
    "atanh": lambda k, x: k.atanh(x / 4),
    "atan2": lambda k, x: k.atan2(x, x * x + 1),
    "cos": lambda k, x: k.cos(x),
    "cosh": lambda k, x: k.cosh(x),
    "exp": lambda k, x: k.exp(x),
    "exp2": lambda k, x: k.exp2(x),
    "expm1": lambda k, x: k.expm1(x),
    "hypot": lambda k, x: k.hypot(x, x + 1),
    "log": lambda k, x: k.log(x + 3),
    "log1p": lambda k, x: k.log1p(x + 3),
    "log2": lambda k, x: k.log2(x + 3),
    "log10": lambda k, x: k.log10(x + 3),
    "logaddexp": lambda k, x: k.logaddexp(x, x * x),
    "pow": lambda k, x: k.pow(x + 3, x),
    "power": lambda k, x: x**3 + (x + 3) ** 0.5 + x**-2,
    "reciprocal": lambda k, x: 1 / (x + 3),
    "sin": lambda k, x: k.sin(x),
    "sinh": lambda k, x: k.sinh(x),
    "sqrt": lambda k, x: k.sqrt(x + 3),
    "square": lambda k, x: k.square(x),
    "tan": lambda k, x: k.tan(x / 2),
    "tanh": lambda k, x: k.tanh(x),
    "var": lambda k, x: k.var(x, axis=1) * 3,
    "std": lambda k, x: k.std(x, axis=0),
    "mean": lambda k, x: k.mean(x * x, axis=(0, 1)),
    "matmul": lambda k, x: k.tanh(x @ x.T),
    "matmul vector": lambda k, x: x @ x[0],
    "einsum": lambda k, x: k.einsum("ij,kj,il->kl", x, x, x),
    "tensordot": lambda k, x: k.tensordot(x, x, axes=2) * x,
    "flip": lambda k, x: k.flip(x, axis=1) * x,
    "roll": lambda k, x: k.roll(x, 1, axis=1) * x,
    "slices": lambda k, x: x[::-1, ::2] * x[:, 1:] * x[1, 0],
    "concat": lambda k, x: k.concat([x * x, x[:1]], axis=0) * 2,
    "stack": lambda k, x: k.stack([x, x * x], axis=1),
    "reshape": lambda k, x: k.reshape(x, (-1,)) * k.reshape(x, (-1,))[::-1],
    "broadcast": lambda k, x: x[:, None] * x[None] + k.broadcast_to(x[:1], x.shape),
    "tril": lambda k, x: k.tril(x * x) + k.triu(x, k=1) ** 3,
    "repeat": lambda k, x: k.repeat(x, 2, axis=0) ** 2,
    "tile": lambda k, x: k.tile(x, (2, 1)) ** 2,
    "permute": lambda k, x: k.permute_dims(x[None] ** 2, (2, 0, 1)),
    "softmax": lambda k, x: _shares(k, x, -1) ** 2,
    "row maxima, one sum": lambda k, x: _shares(k, x, (0, 1)) ** 2,  # not shift invariant: the maxima have a gradient
    "squared logits": lambda k, x: k.exp(x - k.max(x, axis=-1, keepdims=True)) * x,
    "max": lambda k, x: k.max(x, axis=1) ** 2,
    "moveaxis": lambda k, x: k.moveaxis(x[None], 2, 0) ** 2,
}
NUMPY_NAMES = {
    "acos": "arccos",
    "acosh": "arccosh",
    "asin": "arcsin",
    "asinh": "arcsinh",
    "atan": "arctan",
    "atanh": "arctanh",
}


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_are_the_slopes(name):
    """Derivatives: every function that has one"""
    x = np.array([[0.7, -1.3], [1.9, 0.4]])
    expected = slopes(lambda x: np.asarray(SMOOTH[name](np, x)), x)
    np.testing.assert_allclose(gradient(lambda x: SMOOTH[name](kd, x), x), expected, rtol=2e-7, atol=2e-8)


BEYOND = {
    "erf": lambda x: kd.erf(x),
    "sigmoid": lambda x: kd.sigmoid(x),
    "rsqrt": lambda x: kd.rsqrt(x + 3),
    "logsumexp": lambda x: kd.logsumexp(x, axis=1),
    "pad": lambda x: kd.pad(x, ((1, 0), (0, 2))) ** 2,
    "window": lambda x: kd.sum(kd.sliding_window(x, 2, 1), axis=-1) ** 2,
    "take": lambda x: kd.take(x, np.array([1, 1, 0, -1]), axis=0) ** 2,
    "take_along_axis": lambda x: kd.take_along_axis(x, np.array([[1, 0, 1], [0, 0, 0]]), axis=1) ** 2,
    "scatter_add": lambda x: kd.scatter_add(x, np.array([1, 1, 0]), kd.concat([x, x[:1] * 3])) ** 2,
    "copysign": lambda x: kd.copysign(x, -x) ** 3,
    "astype": lambda x: kd.astype(x, kd.f32) * 1.0 + kd.astype(kd.astype(x, kd.f32), kd.f64) * x,
}


@pytest.mark.parametrize("name", BEYOND)
def test_gradients_of_the_functions_beyond_the_standard(name):
    """Derivatives: every function that has one"""
    x = np.array([[0.75, -1.25], [1.875, 0.5]])
    f = kd.kernel(BEYOND[name])
    tolerance, step = (1e-2, 2.0**-6) if name == "astype" else (3e-7, 1e-6)
    np.testing.assert_allclose(
        gradient(BEYOND[name], x), slopes(lambda x: np.asarray(f(x), "f8"), x, step), rtol=tolerance, atol=1e-8
    )


@pytest.mark.parametrize(
    "name",
    ["tanh", "softmax", "row maxima, one sum", "matmul", "var", "einsum", "log", "hypot", "max", "slices", "pow"],
)
def test_second_derivatives_are_the_slopes_of_the_first(name):
    """All of these nest (second derivatives)"""
    x = np.array([[0.7, -1.3], [1.9, 0.4]])
    first = kd.kernel(kd.grad(lambda x: kd.sum(SMOOTH[name](kd, x))))
    second = kd.kernel(kd.grad(lambda x: kd.sum(first(x) * np.array([[1.0, 2.0], [3.0, 4.0]]))))
    expected = slopes(lambda x: np.asarray(first(x)) * np.array([[1.0, 2.0], [3.0, 4.0]]), x)
    np.testing.assert_allclose(second(x), expected, rtol=2e-6, atol=1e-7)


def test_f32_inputs_of_a_vjp_are_never_widened():
    """same ... dtype"""
    for dtype in ("f2", "f4", "f8"):
        (g,) = kd.kernel(lambda x: kd.mean(kd.exp(x))).vjp(np.ones(3, dtype), np.ones((), dtype))
        assert g.dtype == dtype


def test_gradients_through_named_sizes():
    """Derivatives (compiled once for all N)"""

    @kd.kernel
    def f(x: kd.f32["N", "D"], w: kd.f32["D"]):
        return kd.sum(kd.tanh(x) * w, axis=1) / x.shape[1]

    for n, d in [(1, 1), (3, 5), (2, 65), (0, 3)]:
        x, w, c = RNG.standard_normal((n, d)).astype("f4"), np.ones(d, "f4"), np.ones(n, "f4")
        dx, dw = f.vjp(x, w, c)
        assert_close(dx, (1 - np.tanh(x.astype("f8")) ** 2) / d, "f4", operations=8)
        assert_close(dw, np.sum(np.tanh(x.astype("f8")), axis=0) / d, "f4", operations=8 + n, scale=1)


def test_errors_of_vjp_point_at_the_call():
    """(a cotangent too few is told where vjp was called)"""
    f = kd.kernel(lambda x: (x, x))
    said = mistake(kd.KdslError, TypeError, lambda: f.vjp(np.ones(3, "f4"), np.ones(3, "f4")))
    assert said.file.endswith("test_4_derivatives.py")
