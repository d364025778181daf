"""What may be a kernel, what may be an argument, what comes back, and when the body runs again."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pytest

import kdsl as kd

X = np.arange(12, dtype=np.float32).reshape(3, 4)
FACTOR = 2.0


def times_factor(x):
    return x * FACTOR


@kd.kernel
def double(x):
    return x + x


class Scaled:
    def __init__(self, by):
        self.by = by

    def method(self, x):
        return x * self.by

    @kd.kernel
    def kernel_method(self, x):
        return x * self.by


CALLABLES = {
    "function": kd.kernel(times_factor),
    "lambda": kd.kernel(lambda x: x * 2),
    "closure": (lambda k: kd.kernel(lambda x: x * k))(2.0),
    "bound method": kd.kernel(Scaled(2).method),
    "kernel in a class": Scaled(2).kernel_method,
    "partial": kd.kernel(functools.partial(lambda y, x: x * y, 2)),
    "star arguments": kd.kernel(lambda *xs: xs[0] * len(xs) * 2),
    "defaults": kd.kernel(lambda x, k=2: x * k),
    "keyword only": kd.kernel(lambda x, *, k=2: x * k),
    "kernel of a kernel": kd.kernel(double),
}


@pytest.mark.parametrize("kernel", CALLABLES.values(), ids=CALLABLES)
def test_any_callable_is_a_kernel(kernel):
    assert np.array_equal(kernel(X), X * 2)


def test_nested_arguments_and_results():
    @kd.kernel
    def f(params, pair):
        a, (b, scale) = pair
        return {"sum": params["w"] + a, "rest": [b * scale, None, (3, 2.5, True)]}

    out = f({"w": X}, (X, (X, 3)))
    assert np.array_equal(out["sum"], 2 * X)
    b, none, (three, half, true) = out["rest"]
    assert np.array_equal(b, 3 * X)
    assert none is None
    assert [v.dtype for v in (three, half, true)] == [np.int64, np.float32, np.bool_]
    assert (three, half, true) == (3, 2.5, True)


def test_results_are_new_contiguous_and_alias_nothing():
    same, turned, again = kd.kernel(lambda x: (x, x.T, x))(X)
    for result in (same, turned, again):
        assert result.flags.c_contiguous
        assert not np.may_share_memory(result, X)
    assert not np.may_share_memory(same, again)
    assert np.array_equal(turned, X.T)


def test_the_body_runs_once_for_each_kind_of_arguments():
    runs = []

    def body(x, k):
        runs.append(k)
        return x * k

    f = kd.kernel(body)
    for _ in range(3):
        f(X, 2)
    f(X, 3)
    f(X[:2], 2)
    assert runs == [2, 3, 2]


def test_static_values_of_equal_worth_but_other_type_differ():
    f = kd.kernel(lambda x, k: x * k if k is not True else x + 1)
    ints = np.arange(4)
    assert f(ints, 1).dtype == np.int64
    assert f(ints, 1.0).dtype == np.float32
    assert np.array_equal(f(ints, True), ints + 1)
    sign = kd.kernel(lambda x, k: kd.copysign(x, k * kd.ones_like(x)))
    assert np.array_equal(sign(X[:, 0] + 1, 0.0), X[:, 0] + 1)
    assert np.array_equal(sign(X[:, 0] + 1, -0.0), -X[:, 0] - 1)


def test_a_number_is_traced_where_the_annotation_says_so():
    runs = []

    @kd.kernel
    def step(w, g, lr: kd.f32):
        runs.append(lr)
        return w - lr * g

    for lr in (0.5, 0.25, 1):
        assert np.array_equal(step(X, X, lr), X - np.float32(lr) * X)
    assert len(runs) == 1


def test_named_sizes_compile_once():
    runs = []

    @kd.kernel
    def f(x: kd.f32["N", "D"], w: kd.f32["D"]):
        runs.append(x.shape)
        return kd.sum(x * w, axis=-1)

    for n, d in ((3, 4), (5, 7), (1, 1), (0, 3), (2, 33)):
        x, w = np.ones((n, d), np.float32), np.arange(d, dtype=np.float32)
        assert np.allclose(f(x, w), x @ w)
    assert len(runs) == 1
    wide = np.ones((6, 20), np.float32)
    assert np.allclose(f(wide[:, ::2], np.ones(10, np.float32)), np.full(6, 10))
    assert np.allclose(f(wide.T, np.ones(6, np.float32)), np.full(20, 6))


def test_types_annotate_what_has_no_annotations():
    runs = []
    f = kd.kernel(lambda x, k: runs.append(1) or x * k, types=(kd.floating[..., "N"], kd.f32))
    assert np.array_equal(f(X, 2), X * 2)
    assert np.array_equal(f(X[:, :3], 3.0), X[:, :3] * 3)
    assert len(runs) == 1


def test_globals_are_constants_of_a_specialisation(monkeypatch):
    f = kd.kernel(lambda x: times_factor(x))
    assert np.array_equal(f(X), X * 2)
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert np.array_equal(f(X), X * 2)  # read when the body ran
    assert np.array_equal(f(X[:2]), X[:2] * 3)  # another specialisation: the body runs, and reads the new value
    assert np.array_equal(f(X), X * 2)
    assert np.array_equal(kd.kernel(lambda x: times_factor(x))(X), X * 3)


def test_closure_values_are_constants_of_a_specialisation():
    k = 2.0
    f = kd.kernel(lambda x: x * k)
    assert np.array_equal(f(X), X * 2)
    k = 5.0
    for _ in range(2):
        assert np.array_equal(f(X), X * 2)
        assert np.array_equal(f(X[0]), X[0] * 5)
        assert np.array_equal(f.vjp(X, X)[0], X * 2)  # the derivative of what runs


def test_one_code_object_with_two_closures_is_two_kernels():
    def scaled(k):
        return kd.kernel(lambda x: x * k)

    kernels = [scaled(float(k)) for k in range(3)]
    for _ in range(2):
        for k, f in enumerate(kernels):
            assert np.array_equal(f(X), X * np.float32(k))


def test_equal_programs_share_their_code():
    kernels = [kd.kernel(lambda x, y: kd.exp(x) * y - 3.25) for _ in range(3)]
    kernels[0](X, X)
    before = kd.compilations()
    for kernel in kernels[1:]:
        kernel(X, X)
    assert kd.compilations() == before


def test_many_specialisations_are_told():
    f = kd.kernel(lambda x, rate: x * rate)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for i in range(18):
            f(X, i / 8)
    assert [w.category for w in told] == [kd.SpecialisationWarning]
    assert "the static value of rate keeps changing" in str(told[0].message)
    assert told[0].filename == __file__


def test_a_kernel_in_a_kernel_is_inlined_and_its_annotations_checked():
    @kd.kernel
    def inner(x: kd.f32["N"], k: kd.f32 = 2.0):
        return x * k

    assert np.array_equal(kd.kernel(lambda x: inner(x[0]) + 1)(X), X[0] * 2 + 1)
    with pytest.raises(kd.ShapeError):
        kd.kernel(lambda x: inner(x))(X)
    with pytest.raises(kd.DtypeError):
        kd.kernel(lambda x: inner(x.astype(kd.f64)[0]))(X)


def test_out_is_filled_and_may_be_an_argument():
    f = kd.kernel(lambda x: (x.T @ x, x * 2))
    out = (np.empty((4, 4), np.float32), np.empty_like(X))
    assert f(X, out=out) is out
    assert np.array_equal(out[0], X.T @ X)
    g = kd.kernel(lambda x: x + x[::-1])
    y = X.copy()
    g(y, out=y)
    assert np.array_equal(y, X + X[::-1])


def test_functions_outside_a_kernel():
    assert np.allclose(kd.exp(X), np.exp(X))
    assert kd.zeros((2, 3)).dtype == np.float32
    assert np.allclose(kd.concat([X, X], axis=1), np.concatenate([X, X], 1))
    assert kd.any(X > 5) == True  # noqa: E712


def test_reference_is_the_meaning_in_f64():
    x = np.array([1e8, 1.0, -1e8], np.float32)
    assert kd.kernel(lambda x: kd.sum(x)).reference(x) == np.float32(1.0)
