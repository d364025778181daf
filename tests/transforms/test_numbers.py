"""Named sizes that a step folds are numbers in the program of a call: the same meaning, registers, and few programs."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import kdsl as kd
from kdsl.ir.verify import verify
from kdsl.transforms.numbers import folded_names, with_numbers
from tests.transforms.test_derivatives_scan import assert_slopes

RNG = np.random.default_rng(3)


def normal(*shape):
    return RNG.standard_normal(shape)


def selective(types):
    @kd.kernel(types=types)
    def f(x, dt, a, b, c, d):
        def step(h, now):
            x, dt, b, c = now
            h = kd.exp(dt[:, :, None] * a) * h + (dt * x)[:, :, None] * b[:, None, :]
            return h, kd.sum(h * c[:, None, :], axis=-1) + d * x

        return kd.scan(step, kd.zeros((x.shape[0], *a.shape), dtype=x.dtype), (x, dt, b, c), axis=1)[1]

    return f


def types(t, b, l, d, n):
    return t[b, l, d], t[b, l, d], t[d, n], t[b, l, n], t[b, l, n], t[d]


def arguments(b, l, d, n):
    return (
        normal(b, l, d), np.abs(normal(b, l, d)) / 4, -np.abs(normal(d, n)), normal(b, l, n), normal(b, l, n), normal(d)
    )  # fmt: skip


NAMED = selective(types(kd.f64, "B", "L", "D", "N"))
FIXED = selective(types(kd.f64, "B", "L", "D", 5))


@pytest.mark.parametrize("n", [0, 1, 2, 7, 16, 64, 65])
@pytest.mark.parametrize("length", [0, 1, 9])
def test_any_number_of_states(n, length):
    args = arguments(2, length, 3, n)
    y = NAMED(*args)
    np.testing.assert_allclose(y, NAMED.reference(*args), rtol=1e-12, atol=1e-12)
    again = NAMED(*args)  # by the short way
    np.testing.assert_array_equal(again, y)
    dy = normal(*y.shape)
    want = selective(types(kd.f64, 2, length, 3, n)).vjp(*args, dy)
    _, pullback = NAMED.pullback(*args)
    for got in (NAMED.vjp(*args, dy), pullback(dy), NAMED.pullback(*args)[1](dy)):
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_gradients_are_slopes():
    assert_slopes(NAMED, *arguments(2, 11, 3, 4))


def test_second_derivatives():
    def second(k, annotations):
        def slope(x, dt, a, b, c, d):
            return kd.grad(lambda b: kd.sum(k(x, dt, a, b, c, d) ** 2))(b)

        @kd.kernel(types=annotations)
        def f(x, dt, a, b, c, d):
            return kd.grad(lambda dt, a: kd.sum(slope(x, dt, a, b, c, d) ** 2), argnums=(0, 1))(dt, a)

        return f

    args = arguments(1, 6, 2, 5)
    named, fixed = second(NAMED, types(kd.f64, "B", "L", "D", "N")), second(FIXED, None)
    for a, b in zip(named(*args), fixed(*args), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_the_carry_stays_in_registers():
    args = [v.astype("f4") for v in arguments(2, 8, 16, 16)]
    k = selective(types(kd.f32, "B", "L", "D", "N"))
    for explained in (k.explain(*args), k.vjp.explain(*args, args[0]), k.pullback.explain(*args)):
        notes = [n for kernel in explained.kernels for n in kernel.notes]
        assert not any("lie in memory" in n for n in notes), notes
    large = [v.astype("f4") for v in arguments(2, 8, 16, 100)]
    assert any("lie in memory" in n for kernel in k.explain(*large).kernels for n in kernel.notes)


def test_one_program_for_each_number_of_states_and_for_nothing_else():
    k = selective(types(kd.f32, "B", "L", "D", "N"))

    def call(*sizes):
        args = [v.astype("f4") for v in arguments(*sizes)]
        np.testing.assert_allclose(k(*args), k.reference(*args), rtol=1e-4, atol=1e-4)

    call(2, 5, 3, 4), call(2, 5, 3, 100)
    before = sum(kd.compilations().values())
    for sizes in [(1, 7, 9, 4), (3, 1, 1, 4), (2, 5, 3, 90), (1, 5, 3, 65)]:
        call(*sizes)
    assert sum(kd.compilations().values()) == before
    call(2, 5, 3, 6)
    assert sum(kd.compilations().values()) == before + 1


def test_results_do_not_depend_on_what_was_called_before():
    args, large = ([v.astype("f4") for v in arguments(2, 9, 3, n)] for n in (16, 70))
    first = selective(types(kd.f32, "B", "L", "D", "N"))
    want = first(*args)
    second = selective(types(kd.f32, "B", "L", "D", "N"))
    second(*large), second(*large)
    np.testing.assert_array_equal(second(*args), want)
    np.testing.assert_array_equal(second(*args), want)


def test_very_many_numbers_are_said_once():
    @kd.kernel
    def f(h: kd.f32["N"], x: kd.f32["L"]):
        return kd.scan(lambda h, v: (h * v, kd.sum(h)), h, x)[1]

    x = np.ones(3, "f4")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n in range(1, 17):
            f(np.ones(n, "f4"), x)
    with pytest.warns(kd.SpecialisationWarning, match="named size N keeps changing"):
        f(np.ones(17, "f4"), x)


def names(f, *args):
    k = kd.kernel(f, types=args)
    return set(folded_names(k.traced(k.read(k.reader.completed((), {}), {})).function))


def test_which_names_are_numbers():
    vector, square, rows = kd.f32["N"], kd.f32["N", "N"], kd.f32["L", "N"]
    assert names(lambda h, xs: kd.scan(lambda h, x: (h + x, h * x), h, xs), vector, rows) == set()
    assert names(lambda h, xs: kd.scan(lambda h, x: (h + x, kd.max(h)), h, xs), vector, rows) == {"N"}
    assert names(lambda h, w, xs: kd.scan(lambda h, x: (kd.tanh(h @ w + x), h), h, xs), vector, square, rows) == {"N"}
    assert names(lambda h, xs: kd.sum(kd.scan(lambda h, x: (h + x, h * x), h, xs)[1], axis=1), vector, rows) == {"N"}
    assert names(lambda h, xs: kd.sum(kd.scan(lambda h, x: (h + x, h * x), h, xs)[1]), vector, rows) == set()
    assert names(lambda x: kd.sum(x, axis=-1), rows) == set()
    assert names(lambda h, xs: kd.sum(xs, axis=1) + kd.sum(kd.scan(lambda h, x: (h + x, h), h, xs)[1]), vector, rows) == set()


def test_a_name_that_is_a_length_too_and_stands_in_arithmetic():
    @kd.kernel
    def f(h: kd.f64["N"], w: kd.f64["N", "N"], xs: kd.f64["N", "N"]):
        def step(h, x):
            h = kd.tanh(h @ w + x) / h.shape[0]
            return h, kd.concat([h, x[: h.shape[0] // 2]])

        return kd.scan(step, h, kd.flip(xs, axis=0))

    for n in (1, 2, 5, 8):
        args = normal(n), normal(n, n), normal(n, n)
        program = f.traced(f.read(args, {})).function
        assert folded_names(program) == {"N"}
        verify(with_numbers(program, {"N": n}))
        for got, want in zip(f(*args), f.reference(*args), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)
    assert_slopes(f, normal(4), normal(4, 4), normal(4, 4))


def test_a_rule_of_the_users_keeps_its_names():
    inner = kd.kernel(lambda h: h * 2, types=(kd.f64["N"],))
    inner.defvjp(lambda args, results, cotangents: cotangents[0] * 3)

    @kd.kernel
    def f(h: kd.f64["N"], xs: kd.f64["L", "N"]):
        return kd.scan(lambda h, x: (h * x, kd.sum(inner(h))), h, xs)[1]

    h, xs = normal(3), normal(4, 3)
    np.testing.assert_allclose(f(h, xs), f.reference(h, xs))
    assert f.vjp(h, xs, normal(4))[0].shape == (3,)


def test_strided_arguments():
    args = arguments(2, 6, 3, 4)
    want = NAMED(*args)
    turned = [np.ascontiguousarray(v.T).T for v in args]
    spread = [np.repeat(v, 2, axis=-1)[..., ::2] for v in args]
    for given in (turned, spread):
        np.testing.assert_allclose(NAMED(*given), want, rtol=1e-12, atol=1e-12)


def test_a_gpu_has_the_code_of_numbers():
    args = [v.astype("f4") for v in arguments(2, 8, 16, 16)]
    named, fixed = selective(types(kd.f32, "B", "L", "D", "N")), selective(types(kd.f32, "B", "L", "D", 16))
    for a, b in ((named, fixed), (named.pullback, fixed.pullback)):
        assert a.source(*args, target="cuda") == b.source(*args, target="cuda")
