"""What a step may do: every kind of function of the language, in a scan's step, and scans within scans.

Each step gets a carry h:[3, 5] and slices x:[3, 5]; values are those of the NumPy meaning, gradients those of the meaning of
the derived program, second derivatives too.
"""

from __future__ import annotations

import numpy as np
import pytest

import kdsl as kd
from kdsl.ir.meaning import evaluate
from kdsl.transforms.differentiate import vjp
from kdsl.transforms.simplify import simplify

RNG = np.random.default_rng(11)


def leaves(x):
    if isinstance(x, dict):
        x = tuple(x.values())
    return [y for part in x for y in leaves(part)] if isinstance(x, (tuple, list)) else [] if x is None else [x]


def same(got, want, tolerance=1e-9):
    for g, w in zip(got, want, strict=True):
        assert g.dtype == w.dtype
        assert g.shape == w.shape
        np.testing.assert_allclose(g, w, rtol=tolerance, atol=tolerance)


def check(f, *args):
    """Values, gradients by vjp and by pullback."""
    k = kd.kernel(f)
    results = leaves(k(*args))
    same(results, leaves(k.reference(*args)))
    cotangents = [RNG.standard_normal(r.shape) for r in results if r.dtype.kind == "f"]
    want = evaluate(vjp(simplify(k.traced(k.read(args, {})).function)), *args, *cotangents)
    _, pullback = k.pullback(*args)
    for gradients in (k.vjp(*args, *cotangents), pullback(*cotangents)):
        same([g for g in gradients if g is not None], want, 1e-8)


def normal(*shape):
    return RNG.standard_normal(shape)


STEPS = {
    "sort": lambda h, x: (kd.sort(h + x, axis=-1), h),
    "sort along the first axis, downwards": lambda h, x: (kd.sort(h * x, axis=0, descending=True), kd.sort(x, axis=1)),
    "argsort": lambda h, x: (h + x, kd.argsort(h, axis=1)),
    "scatter_add": lambda h, x: (kd.scatter_add(h * 0.5, kd.argsort(x[0])[:4], x[:, :4], axis=1), h),
    "scatter_add in rows": lambda h, x: (kd.scatter_add(h * 0.5, kd.argmax(x, axis=1)[:2] % 3, kd.sin(x)[:2], axis=0), h),
    "take": lambda h, x: (kd.tanh(kd.take(h, kd.argmax(x, axis=1), axis=1)[:, :1] + x), h),
    "an integer tensor as an index": lambda h, x: (kd.tanh(h + x), h[kd.argmax(x[:, 0])]),
    "take_along_axis": lambda h, x: (kd.tanh(kd.take_along_axis(h, kd.argsort(x, axis=1), axis=1) + x), h),
    "the place of a maximum": lambda h, x: (
        kd.tanh(h + x), kd.take_along_axis(h, kd.argmax(h * x, axis=1, keepdims=True), axis=1)
    ),
    "cumulative_sum": lambda h, x: (kd.tanh(kd.cumulative_sum(h, axis=-1) + x), h),
    "cumulative_prod": lambda h, x: (kd.tanh(kd.cumulative_prod(h + x, axis=0)), kd.cumulative_max(h, axis=1)),
    "associative_scan": lambda h, x: (
        kd.associative_scan(lambda p, q: (p[0] * q[0], p[1] * q[0] + q[1]), (kd.tanh(h), x), axis=1)[1], h
    ),
    "searchsorted": lambda h, x: (h * 0.9 + x, kd.searchsorted(kd.sort(x[0]), h)),
    "random numbers": lambda h, x: (h * 0.5 + x * kd.random.uniform(kd.random.key(3), (3, 5), dtype=kd.f64), h),
    "folds over both axes": lambda h, x: (h / (1 + kd.sum(h * h)) + kd.max(x, axis=1, keepdims=True), kd.std(h, axis=0)),
    "logsumexp": lambda h, x: (h - kd.logsumexp(h, axis=1, keepdims=True) + x, kd.var(h)),
    "products": lambda h, x: (kd.tanh(h @ kd.matrix_transpose(x) @ h), kd.einsum("ij,kj->ik", h, x)),
    "windows": lambda h, x: (kd.sum(kd.sliding_window(kd.pad(h, ((0, 0), (1, 1))), 3, axis=1) * 0.3, axis=-1) + x, h),
    "roll, flip, tile, repeat": lambda h, x: (
        kd.roll(h, 2, axis=1) * 0.5 + kd.flip(x), kd.tile(h, (1, 2)) * kd.repeat(x, 2, axis=1)
    ),
    "reshape, stack, split": lambda h, x: (
        kd.reshape(kd.reshape(h, (5, 3)), (3, 5)) * 0.5 + x, kd.stack([*kd.split(h, [2], axis=1)[1:], x[:, 2:]])
    ),
    "triangles": lambda h, x: (kd.tanh(kd.tril(h) + kd.triu(x)), kd.eye(3, 5, dtype=kd.f64) * h),
    "strides": lambda h, x: (kd.concat([h[:, ::2], x[:, 1::2]], axis=1), h[::-1, ::-2]),
    "integers and booleans": lambda h, x: (kd.where((kd.astype(h * 4, kd.i32) & 1) == 0, h, x) * 0.9, kd.any(h > x, axis=1)),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_a_step_of(name):
    check(lambda h, xs: kd.scan(STEPS[name], h, xs), normal(3, 5), normal(10, 3, 5))


@pytest.mark.parametrize("name", ["sort", "scatter_add", "take_along_axis", "cumulative_prod"])
def test_second_derivatives(name):
    def slope(h, xs):
        return kd.grad(lambda h, xs: kd.sum(kd.sin(kd.scan(STEPS[name], h, xs)[0])), argnums=(0, 1))(h, xs)

    check(slope, normal(3, 5), normal(9, 3, 5))


@pytest.mark.parametrize("name", ["sort", "scatter_add", "take_along_axis", "cumulative_sum"])
@pytest.mark.parametrize("length", [0, 1, 2])
def test_few_steps(name, length):
    check(lambda h, xs: kd.scan(STEPS[name], h, xs, reverse=True), normal(3, 5), normal(length, 3, 5))


@pytest.mark.parametrize("name", ["sort", "scatter_add", "take_along_axis", "cumulative_sum", "products"])
def test_a_batch_around_the_step(name):
    """Blocks for each of the batch where the step keeps them apart."""

    def f(h, xs):
        out = [kd.scan(STEPS[name], h[i], xs[i]) for i in range(2)]
        return kd.stack([last for last, _ in out])

    check(f, normal(2, 3, 5), normal(2, 4, 3, 5))


@pytest.mark.parametrize("dtype", ["i32", "u8", "f16", "bf16", "f32", "bool"])
def test_sorts_and_scatters_of_other_dtypes(dtype):
    d = getattr(kd, dtype)
    h, xs = (RNG.integers(0, 2 if dtype == "bool" else 50, s).astype(d.numpy) for s in ((3, 5), (7, 3, 5)))
    ids = RNG.integers(-5, 5, (7, 5))

    def step(carry, now):
        h, n = carry
        x, i = now
        n = kd.scatter_add(n, i, kd.astype(x, n.dtype), axis=1)
        larger = h | x if dtype == "bool" else kd.maximum(h, x)
        return (kd.sort(larger, axis=1), n), (kd.argsort(x, axis=1), kd.take(h, i, axis=1))

    k = kd.kernel(lambda h, xs, ids: kd.scan(step, (h, kd.zeros((3, 5), dtype=kd.i32 if dtype == "bool" else d)), (xs, ids)))
    for g, w in zip(leaves(k(h, xs, ids)), leaves(k.reference(h, xs, ids)), strict=True):
        assert g.dtype == w.dtype
        np.testing.assert_allclose(g.astype("f8"), w.astype("f8"), rtol=0.02 if dtype == "bf16" else 0.002)


# --- scans within scans ----------------------------------------------------------------------------------------------------
def rows_of_rows(h, w, xs):
    """A recurrence over the words of each sentence, its last state carried over sentences."""

    def sentence(c, words):
        last, ys = kd.scan(lambda a, b: (kd.tanh(a @ w + b), a * b), c, words)
        return last, (ys, kd.sum(ys, axis=0))

    return kd.scan(sentence, h, xs)


@pytest.mark.parametrize("lengths", [(6, 11), (0, 4), (6, 0), (1, 1), (2, 33), (17, 2)])
def test_a_scan_within_a_scan(lengths):
    check(rows_of_rows, normal(3), normal(3, 3) / 2, normal(*lengths, 3))


@pytest.mark.parametrize("reverse", [False, True])
def test_scans_along_other_axes_in_other_directions(reverse):
    def f(h, w, xs):
        def outer(c, x):
            last, ys = kd.scan(
                lambda a, b: (kd.tanh(a * w + b + kd.sum(c)), kd.sin(a) * b), c, x, axis=1, reverse=not reverse
            )
            return last * 0.5, ys

        return kd.scan(outer, h, xs, reverse=reverse)

    check(f, normal(3), normal(3) / 2, normal(6, 3, 9))


def test_three_deep():
    def f(h, xs):
        def outer(c, x):
            return kd.scan(lambda a, b: (kd.scan(lambda p, q: (p * 0.5 + q * b, p), a, kd.stack([a, b]))[0], a), c, x)

        return kd.scan(outer, h, xs)

    check(f, normal(3), normal(4, 5, 3))


def test_two_scans_in_a_step():
    def f(h, xs):
        def step(c, x):
            a = kd.cumulative_sum(kd.sort(c, axis=1) * x, axis=1)
            b = kd.scan(lambda p, q: (p + q, p * q), a[0], x)[1]
            return kd.tanh(a + kd.flip(b, axis=0)), b

        return kd.scan(step, h, xs)

    check(f, normal(3, 5), normal(9, 3, 5))


def test_second_derivatives_of_scans_within_scans():
    def slope(h, w, xs):
        return kd.grad(lambda h, w, xs: kd.sum(kd.sin(rows_of_rows(h, w, xs)[1][0])), argnums=(0, 1, 2))(h, w, xs)

    check(slope, normal(3), normal(3, 3) / 2, normal(4, 9, 3))


def test_scans_of_a_batch():
    """The batch is a loop around all: what each step keeps is of one element of it."""

    def f(h, xs):
        def outer(c, x):
            return kd.scan(lambda a, b: (kd.tanh(a + kd.sum(a * b, axis=1, keepdims=True)), a), c, x, axis=1)

        return kd.scan(outer, h, xs)

    h, xs = normal(4, 3), normal(5, 4, 6, 3)
    check(f, h, xs)
    assert len(kd.kernel(f).explain(h, xs).kernels) == 1


def test_named_sizes():
    @kd.kernel
    def f(h: kd.f64["N"], xs: kd.f64["T", "S", "N"], ids: kd.i64["T", "N"]):
        def outer(c, now):
            x, i = now
            last, ys = kd.scan(lambda a, b: (kd.tanh(a + b), a * b), c, x)
            return kd.sort(kd.scatter_add(last, i, c, axis=0), axis=0), ys

        return kd.scan(outer, h, (xs, ids))

    for t, s, n in ((3, 2, 5), (1, 9, 1), (0, 3, 2), (2, 0, 17), (9, 3, 33)):
        args = normal(n), normal(t, s, n), RNG.integers(-n, n, (t, n))
        same(leaves(f(*args)), leaves(f.reference(*args)))
        cotangents = [RNG.standard_normal(r.shape) for r in leaves(f(*args))]
        want = evaluate(vjp(simplify(f.traced(f.read(args, {})).function)), *args, *cotangents)
        same([g for g in f.vjp(*args, *cotangents) if g is not None], want, 1e-8)


def test_indices_in_the_steps_of_steps_are_checked():
    @kd.kernel
    def f(table, ids):
        def outer(c, row):
            place, ys = kd.scan(lambda p, i: (p + i, kd.take(table, p + i, axis=0)), c * 0, row)
            return c + 0 * place, kd.scatter_add(kd.sum(ys, axis=0), row[:2], ys[0][:2], axis=0)

        return kd.scan(outer, 0, ids)[1]

    table = normal(11, 4)
    good = np.array([[3, -1, 2], [1, 1, 1]])
    same([f(table, good)], [f.reference(table, good)])
    for wrong in ([[3, 1, 7], [0, 0, 0]], [[0, 0, 0], [0, 2, 9]], [[0, 5, 0], [0, 0, 0]]):
        with pytest.raises(IndexError):
            f(table, np.array(wrong))


# --- arrays caught from outside ----------------------------------------------------------------------------------------------
WEIGHTS, ROW, PLACES = normal(5, 5) / 2, normal(5), np.array([4, 0, -1, 2, 2])
CAUGHT = {
    "a row": lambda h, x: (kd.tanh(h * ROW + x), h),
    "a matrix": lambda h, x: (kd.tanh(h @ WEIGHTS + x), h),
    "an index": lambda h, x: (kd.take(h, PLACES, axis=1) * 0.5 + x, h),
    "what a step gives": lambda h, x: (h * 0.5 + x, (ROW, PLACES, h * ROW)),
    "the next carry": lambda h, x: (kd.ones((3, 1), dtype=kd.f64) * ROW, h * x),
    "linear": lambda h, x: (h * ROW + x, h),
    "twice": lambda h, x: (kd.tanh(h * ROW + x * ROW.copy()), kd.sum(h * ROW, axis=1)),
    "in a scan of the step": lambda h, x: (
        kd.tanh(h * 0.5 + kd.scan(lambda a, b: (kd.tanh(a * ROW[:3] + b), a), h[:, 0], x, axis=1)[1]), h
    ),
}


@pytest.mark.parametrize("name", CAUGHT)
@pytest.mark.parametrize("length", [0, 1, 9])
def test_a_step_that_catches(name, length):
    check(lambda h, xs: kd.scan(CAUGHT[name], h, xs), normal(3, 5), normal(length, 3, 5))


def test_second_derivatives_of_a_step_that_catches_an_array():
    def slope(h, xs):
        return kd.grad(lambda h, xs: kd.sum(kd.sin(kd.scan(CAUGHT["a matrix"], h, xs)[0])), argnums=(0, 1))(h, xs)

    check(slope, normal(3, 5), normal(9, 3, 5))


def test_a_users_rule_that_catches_an_array_in_a_step():
    @kd.kernel
    def scaled(x):
        return x * ROW

    scaled.defvjp(lambda args, results, cotangents: (cotangents[0] * ROW,))
    check(lambda h, xs: kd.scan(lambda h, x: (kd.tanh(scaled(h) + x), scaled(x)), h, xs), normal(3, 5), normal(9, 3, 5))
