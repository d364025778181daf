"""Section 1 of the contract: what a kernel may be made of, what it takes and what it returns."""
# ruff: noqa: B023 (kernels of a loop run within the loop)

from __future__ import annotations

import functools
import itertools
import subprocess
import sys
import warnings
from unittest import mock

import numpy as np
import pytest

import kdsl as kd
from tests.contract.saying import ODD_SHAPES, Counted, equal, layouts, main_kernels, mistake
from tests.tolerance import assert_close

X = np.array([0.0, -0.0, 1.0, -1.5, np.inf, -np.inf, np.nan], "f4")


def double(x):
    return x + x


class Scaler:
    def __init__(self, by):
        self.by = by

    def apply(self, x):
        return x * self.by

    def __call__(self, x):
        return x * self.by


def _closure(by):
    def scaled(x):
        return x * by

    return scaled


CALLABLES = {
    "function": (double, X + X),
    "lambda": (lambda x: x + x, X + X),
    "closure": (_closure(3.0), X * np.float32(3)),
    "bound method": (Scaler(0.5).apply, X * np.float32(0.5)),
    "partial": (functools.partial(lambda by, x: x * by, 2.0), X * np.float32(2)),
    "partial with a keyword": (functools.partial(lambda x, by: x * by, by=2.0), X * np.float32(2)),
    "callable object": (Scaler(4.0), X * np.float32(4)),
}


@pytest.mark.parametrize("kind", CALLABLES)
def test_kernel_takes_any_python_callable(kind):
    """`@kd.kernel` takes any Python callable: function, lambda, closure, bound method, partial"""
    f, expected = CALLABLES[kind]
    equal(kd.kernel(f)(X), expected)


def test_decorated_method_of_a_class_is_a_kernel_too():
    """takes any Python callable: ... (a function read from a class by an instance binds as Python does)"""

    class Layer:
        def forward(self, x):
            return x * 2.0

    layer = Layer()
    equal(kd.kernel(layer.forward)(X), X * np.float32(2))


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_star_arguments_work(count):
    """`*args` ... work"""

    @kd.kernel
    def total(*xs):
        s = xs[0]
        for x in xs[1:]:
            s = s + x
        return s

    arrays = [np.full(5, i, "f4") for i in range(count)]
    equal(total(*arrays), sum(arrays[1:], arrays[0]))


def test_defaults_work():
    """defaults ... work"""

    @kd.kernel
    def scaled(x, by=2.0, bias=None):
        y = x * by
        return y if bias is None else y + bias

    x = np.arange(5, dtype="f4")
    equal(scaled(x), x * np.float32(2))
    equal(scaled(x, 3.0), x * np.float32(3))
    equal(scaled(x, bias=x), x * np.float32(2) + x)
    equal(scaled(bias=x, x=x, by=0.0), x * np.float32(0) + x)


def test_an_array_as_default_works():
    """defaults ... work (an array among them)"""
    table = np.arange(3, dtype="f4")

    @kd.kernel
    def shifted(x, by=table):
        return x + by

    equal(shifted(np.ones(3, "f4")), table + np.float32(1))


def test_keyword_only_parameters_work():
    """keyword-only parameters work"""

    @kd.kernel
    def scaled(x, *, by, plus=0.0):
        return x * by + plus

    x = np.arange(5, dtype="f4")
    equal(scaled(x, by=3.0), x * np.float32(3) + np.float32(0))
    equal(scaled(x, by=x, plus=1.0), x * x + np.float32(1))


def test_name_is_only_a_label():
    """its name is only a label"""

    def make(by):
        def same_name(x):
            return x * by

        return kd.kernel(same_name)

    two, three = make(2.0), make(3.0)
    x = np.ones(3, "f4")
    equal(two(x), x * 2)
    equal(three(x), x * 3)
    equal(two(x), x * 2)


def test_body_runs_once_per_specialisation():
    """The body is ordinary Python, run once per specialisation on tracers"""
    runs = []

    @kd.kernel
    def f(x):
        runs.append(type(x))
        return x + 1

    for _ in range(3):
        f(np.ones(3, "f4"))
    assert len(runs) == 1
    f(np.ones(4, "f4"))
    f(np.ones(3, "f8"))
    f(np.ones(3, "f4"))
    assert len(runs) == 3
    assert not any(issubclass(t, np.ndarray) for t in runs)


def test_python_loops_unroll():
    """Python loops unroll"""

    @kd.kernel
    def f(x, n):
        for i in range(n):
            x = x * i + 1
        return x

    x = np.arange(7, dtype="i8")
    for n in (0, 1, 5):
        y = x
        for i in range(n):
            y = y * i + 1
        equal(f(x, n), y)


def test_python_branches_on_static_values_are_taken_while_tracing():
    """The body is ordinary Python"""

    @kd.kernel
    def f(x, mode):
        if mode == "square":
            return x * x
        elif x.ndim == 1:
            return x + 1
        return -x

    x = np.arange(6, dtype="f4")
    equal(f(x, "square"), x * x)
    equal(f(x, "other"), x + 1)
    equal(f(x.reshape(2, 3), "other"), -x.reshape(2, 3))


def test_helpers_inline():
    """helpers inline"""

    def centred(x):
        return x - kd.mean(x, axis=-1, keepdims=True)

    @kd.kernel
    def f(x):
        return kd.exp(centred(centred(x)) * 0.0)

    x = np.arange(12, dtype="f4").reshape(3, 4)
    equal(f(x), np.ones((3, 4), "f4"))
    assert len(main_kernels(f.explain(x))) == 1


def test_a_kernel_called_in_a_kernel_inlines():
    """a kernel called in a kernel inlines"""
    inner = kd.kernel(lambda x: x * 2.0)

    @kd.kernel
    def outer(x):
        return kd.exp(inner(x) + 1.0)

    x = np.arange(7, dtype="f4")
    assert_close(outer(x), np.exp(x * 2 + 1))
    assert len(main_kernels(outer.explain(x))) == 1


def test_an_inlined_kernel_keeps_its_own_vjp_rule():
    """a kernel called in a kernel inlines (with its own vjp rule)"""

    @kd.kernel
    def strange(x):
        return x * 2.0

    @strange.defvjp
    def rule(args, results, cotangents):
        return (cotangents[0] * 100.0,)

    @kd.kernel
    def outer(x):
        return strange(x) * 3.0

    x = np.arange(3, dtype="f4")
    equal(outer(x), x * 6)
    equal(outer.vjp(x, np.ones(3, "f4"))[0], np.full(3, 300, "f4"))


def test_annotations_of_an_inlined_kernel_are_checked():
    """a kernel called in a kernel inlines (...; annotations are checked)"""

    @kd.kernel
    def inner(x: kd.f32["N", 4], y: kd.f32["N"]):
        return x + y[:, None]

    @kd.kernel
    def outer(x, y):
        return inner(x, y)

    equal(outer(np.ones((3, 4), "f4"), np.ones(3, "f4")), np.full((3, 4), 2, "f4"))
    mistake(kd.ShapeError, ValueError, lambda: outer(np.ones((3, 5), "f4"), np.ones(3, "f4")))
    mistake(kd.ShapeError, ValueError, lambda: outer(np.ones((3, 4), "f4"), np.ones(2, "f4")))
    mistake(kd.DtypeError, TypeError, lambda: outer(np.ones((3, 4), "f8"), np.ones(3, "f4")))


def test_kernel_with_options():
    """`kd.kernel(f, target=…)` is the same with options"""
    equal(kd.kernel(double, target="cpu")(X), X + X)


def test_kernel_with_a_target_as_a_decorator():
    """`kd.kernel(f, target=…)` is the same with options (as a decorator: functools.partial(kd.kernel, target=…))"""

    @functools.partial(kd.kernel, target="cpu")
    def f(x):
        return x * 3.0

    equal(f(X), X * np.float32(3))


FACTOR = 2.0


def test_globals_are_read_when_the_body_runs():
    """Globals and closure values are read at that moment and are constants"""
    global FACTOR
    FACTOR = 2.0

    @kd.kernel
    def f(x):
        return x * FACTOR

    FACTOR = 5.0  # after the decoration, before the body runs
    try:
        equal(f(np.ones(3, "f4")), np.full(3, 5, "f4"))
    finally:
        FACTOR = 2.0


def test_closure_values_are_read_when_the_body_runs():
    """Globals and closure values are read at that moment"""
    by = 2.0

    @kd.kernel
    def f(x):
        return x * by

    by = 7.0
    equal(f(np.ones(3, "f4")), np.full(3, 7, "f4"))
    by = 9.0
    equal(f(np.ones(4, "f4")), np.full(4, 9, "f4"))  # another specialisation: the body runs again


def test_closure_values_are_constants_of_the_program():
    """Globals and closure values ... are constants"""
    by = 7.0
    f = kd.kernel(lambda x: x * by)
    assert "7" in f.stages(kd.f32[3])["traced"]


def test_one_code_object_with_two_closures_is_two_kernels():
    """Caches are keyed by the traced program ...: one code object with two closures is two kernels"""
    x = np.ones(3, "f4")
    kernels = [kd.kernel(_closure(float(i))) for i in (0, 1, -1, 5)]
    assert len({k for k in (_closure(1.0).__code__, _closure(2.0).__code__)}) == 1
    for _ in range(2):
        for k, i in zip(kernels, (0, 1, -1, 5)):
            equal(k(x), x * np.float32(i))


def test_equal_programs_of_two_sources_share_one_compilation():
    """Caches are keyed by the *traced program*, never by source text or name"""
    x = np.ones(1013, "f4")

    def first(a):
        return a * 1234.5 + 17.0

    def second(b):
        c = 1234.5 * b if False else b * 1234.5
        return c + 17.0

    kd.kernel(first)(x)
    with Counted() as n:
        equal(kd.kernel(second)(x), x * np.float32(1234.5) + np.float32(17))
    assert n.made == 0


@pytest.mark.parametrize("bound", ["closure", "default"])
def test_constants_that_differ_only_in_sign_of_zero_or_kind_are_told_apart(bound):
    """Caches are keyed by the *traced program*: 0.0 and -0.0, 1 and 1.0 and True are different programs"""
    x = np.array([-0.0, 0.0], "f4")
    for by in (0.0, -0.0, 0.0):
        k = kd.kernel(lambda a, b=by: a + b) if bound == "default" else kd.kernel(lambda a: a + by)
        equal(k(x), x + np.float32(by))
    i = np.array([1, 2], "i4")
    for by in (1, 1.0, True, 1):
        k = kd.kernel(lambda a: a * by)
        assert np.asarray(k(i)).dtype == (np.float32 if isinstance(by, float) else np.int32)


@pytest.mark.parametrize("bytes_", [0, 4, 65532, 65536])
def test_an_array_caught_in_a_closure_is_a_constant_up_to_64_KiB(bytes_):
    """An array caught in a closure is a constant up to 64 KiB"""
    table = np.arange(bytes_ // 4, dtype="f4")
    f = kd.kernel(lambda x: x + table)
    x = np.ones(bytes_ // 4, "f4")
    equal(f(x), table + 1)
    equal(kd.kernel(lambda x: table * x)(np.float32(2)), table * 2)


@pytest.mark.parametrize("layout", range(4))
def test_a_caught_array_of_any_layout_is_right(layout):
    """An array caught in a closure is a constant"""
    table = layouts(np.arange(12, dtype="f8").reshape(3, 4))[layout]
    equal(kd.kernel(lambda x: x + table)(np.zeros((3, 4))), np.arange(12.0).reshape(3, 4))


def test_a_larger_caught_array_is_an_error_that_says_to_pass_it():
    """beyond that an error that says to pass it"""
    table = np.zeros(65536 // 4 + 1, "f4")
    f = kd.kernel(lambda x: x + table)
    with pytest.raises(kd.KdslError, match=r"(?i)argument|pass") as caught:
        f(np.ones(65536 // 4 + 1, "f4"))
    assert "pass" in str(caught.value).lower()


@pytest.mark.parametrize("shape", ODD_SHAPES)
@pytest.mark.parametrize("layout", range(4))
def test_tensor_arguments_are_arrays_of_any_shape_and_layout(shape, layout):
    """Tensor arguments are arrays"""
    base = np.random.default_rng(0).standard_normal(shape).astype("f4")
    x = layouts(base)[layout]
    equal(kd.kernel(lambda a: a * 2.0 - 1.0)(x), base * 2 - 1)


@pytest.mark.parametrize(
    "scalar", [np.float32(1.5), np.float64(1.5), np.int64(3), np.int32(-3), np.bool_(True), np.uint8(255)]
)
def test_numpy_scalars_are_0_d_tensors(scalar):
    """NumPy scalars (0-d)"""
    seen = []

    @kd.kernel
    def f(x):
        seen.append((x.shape, x.ndim))
        return x, x[None]

    a, b = f(scalar)
    assert seen == [((), 0)]
    equal(a, np.asarray(scalar))
    equal(b, np.asarray(scalar)[None])


def test_numpy_scalars_are_traced_not_static():
    """Tensor arguments are ... NumPy scalars (0-d): the body does not run again for another value"""
    runs = []

    @kd.kernel
    def f(x, s):
        runs.append(s)
        return x * s

    for value in (0.0, 1.0, -2.5):
        equal(f(np.ones(3, "f4"), np.float32(value)), np.full(3, value, "f4"))
    assert len(runs) == 1


def test_0_d_arrays_are_tensors():
    """Tensor arguments are arrays (0-d ones too)"""
    equal(kd.kernel(lambda x: x + 1)(np.array(2.5)), np.array(3.5))


def test_arguments_may_be_nested_tuples_lists_and_dicts():
    """and tuples, lists and dicts of them, nested"""

    @kd.kernel
    def f(tree):
        (a, [b]), d = tree["p"], tree["q"]
        return a + b * d["deep"][0]

    x = np.arange(3, dtype="f4")
    equal(f({"p": (x, [x + 1]), "q": {"deep": (x + 2,)}}), x + (x + 1) * (x + 2))


def test_empty_containers_are_arguments_too():
    """tuples, lists and dicts of them, nested (empty ones too)"""

    @kd.kernel
    def f(x, a, b, c):
        return x + len(a) + len(b) + len(c)

    equal(f(np.ones(2, "f4"), (), [], {}), np.ones(2, "f4"))


def test_structure_is_part_of_the_specialisation():
    """tuples, lists and dicts of them, nested: another structure is another specialisation"""

    @kd.kernel
    def f(tree):
        if isinstance(tree, dict):
            return tree["a"] - tree["b"]
        return tree[0] - tree[1]

    x, y = np.full(2, 5, "f4"), np.full(2, 3, "f4")
    equal(f({"a": x, "b": y}), x - y)
    equal(f({"b": y, "a": x}), x - y)
    equal(f((x, y)), x - y)
    equal(f([y, x]), y - x)


class Mode:
    def __init__(self, name):
        self.name = name

    def __eq__(self, other):
        return isinstance(other, Mode) and self.name == other.name

    def __hash__(self):
        return hash(self.name)


@pytest.mark.parametrize(
    "static", [0, 1, -1, 2.5, True, None, "text", b"bytes", Mode("m"), frozenset({1, 2}), slice, int, double], ids=repr
)
def test_everything_else_is_static(static):
    """Everything else is static"""
    seen = []

    @kd.kernel
    def f(x, s):
        seen.append(s)
        return x + 1

    f(np.ones(2, "f4"), static)
    f(np.ones(2, "f4"), static)
    assert len(seen) == 1
    assert seen[0] is static or seen[0] == static


def test_statics_must_be_hashable():
    """must be hashable"""

    class Unhashable:
        __hash__ = None

    f = kd.kernel(lambda x, s: x + 1)
    for value in ({1, 2}, bytearray(b"x"), Unhashable()):
        with pytest.raises(kd.KdslError) as caught:
            f(np.ones(2, "f4"), value)
        assert isinstance(caught.value, TypeError)
        assert "hash" in str(caught.value)


def test_statics_are_part_of_the_specialisation():
    """and is part of the specialisation"""
    f = kd.kernel(lambda x, s: x * s)
    x = np.arange(4, dtype="i4")
    for s in (2, 3, 0, 2, -1):
        equal(f(x, s), x * np.int32(s))


def test_equal_statics_of_different_kind_are_different_specialisations():
    """and is part of the specialisation: 1, 1.0 and True are equal in Python and mean different programs"""
    f = kd.kernel(lambda x, s: x * s)
    x = np.arange(4, dtype="i4")
    for s, dtype in [(1, "i4"), (1.0, "f4"), (True, "i4"), (1.0, "f4"), (1, "i4")]:
        equal(f(x, s), x.astype(dtype))
    g = kd.kernel(lambda x, s: x + s[0])
    equal(g(x, (1,)), x + np.int32(1))
    equal(g(x, (1.0,)), (x + 1).astype("f4"))


def test_static_signed_zeros_are_different_specialisations():
    """and is part of the specialisation: 0.0 == -0.0, yet x + s differs"""
    f = kd.kernel(lambda x, s: x + s)
    x = np.array([-0.0, 0.0], "f4")
    for s in (0.0, -0.0, 0.0):
        equal(f(x, s), x + np.float32(s))


def test_static_nan_is_one_specialisation():
    """and is part of the specialisation: NaN differs from itself, yet it is one program"""
    runs = []

    @kd.kernel
    def f(x, s):
        runs.append(s)
        return x * s

    nan = float("nan")
    for _ in range(3):
        equal(f(np.ones(2, "f4"), nan), np.full(2, np.nan, "f4"))
    assert len(runs) == 1


def test_a_python_number_is_traced_where_the_annotation_says_so():
    """A Python number is traced instead where the annotation says so (`lr: kd.f32` is the 0-d type)"""
    runs = []

    @kd.kernel
    def step(p: kd.f32["N"], lr: kd.f32):
        runs.append(lr.shape)
        assert lr.dtype == kd.f32
        return p - lr * p

    p = np.arange(5, dtype="f4")
    for lr in (0.0, 0.1, 1, -2.5, True):
        assert_close(step(p, lr), p - np.float32(lr) * p)
    assert runs == [()]


def test_an_annotated_integer_is_traced_and_keeps_its_dtype():
    """A Python number is traced instead where the annotation says so"""
    runs = []

    @kd.kernel
    def f(n: kd.i32):
        runs.append(n)
        return n * 2

    for n in (0, 1, -7, 2**30 - 1):
        equal(f(n), np.array(2 * n, "i4"))
    assert len(runs) == 1


def test_an_annotated_number_that_does_not_fit_is_refused():
    """A Python number is traced where the annotation says so (a float for i32, 2**40 for i32: DtypeError, not another number)"""
    f = kd.kernel(lambda n: n * 2, types=(kd.i32,))
    for wrong in (2.5, 2**40):
        with pytest.raises(kd.KdslError):
            f(wrong)


def test_after_16_specialisations_a_warning_names_the_axis():
    """After 16 specialisations a `kd.SpecialisationWarning` names the argument or axis that keeps changing"""
    f = kd.kernel(lambda data: data + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n in range(1, 17):
            f(np.ones((3, n), "f4"))
    with pytest.warns(kd.SpecialisationWarning, match="data") as caught:
        f(np.ones((3, 17), "f4"))
    text = str(caught[0].message)
    assert "axis 1" in text or "second axis" in text or "last axis" in text
    assert "axis 0" not in text


def test_after_16_specialisations_a_warning_names_the_static_argument():
    """names the argument ... that keeps changing"""
    f = kd.kernel(lambda x, other, count: x * 0 + other)
    for i in range(16):
        f(np.ones(3, "f4"), 1, i)
    with pytest.warns(kd.SpecialisationWarning, match="count") as caught:
        f(np.ones(3, "f4"), 1, 16)
    assert "other" not in str(caught[0].message)


def test_named_sizes_never_warn():
    """After 16 specialisations ... (a named size is one specialisation)"""

    @kd.kernel
    def f(x: kd.f32["N"]):
        return x + 1

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n in range(30):
            equal(f(np.ones(n, "f4")), np.full(n, 2, "f4"))


def test_results_are_tensors_or_nested_tuples_lists_and_dicts():
    """Results are tensors, or tuples, lists and dicts of them, nested"""

    @kd.kernel
    def f(x):
        return {"a": (x, [x + 1, x + 2]), "b": {"c": x * 2}, "d": ()}

    x = np.arange(3, dtype="f4")
    got = f(x)
    assert isinstance(got, dict) and list(got) == ["a", "b", "d"]
    assert isinstance(got["a"], tuple) and isinstance(got["a"][1], list) and got["d"] == ()
    equal(got["a"][0], x)
    equal(got["a"][1][0], x + 1)
    equal(got["a"][1][1], x + 2)
    equal(got["b"]["c"], x * 2)


@pytest.mark.parametrize(
    ("number", "dtype"), [(0, "i8"), (-3, "i8"), (2.5, "f4"), (-0.0, "f4"), (True, "?"), (float("inf"), "f4")], ids=repr
)
def test_a_python_number_becomes_a_0_d_tensor(number, dtype):
    """a Python number becomes a 0-d tensor"""
    f = kd.kernel(lambda x: (x, number))
    equal(f(np.ones(2, "f4"))[1], np.array(number, dtype))


def test_a_number_alone_is_a_result():
    """a Python number becomes a 0-d tensor (with no tensor beside it)"""
    equal(kd.kernel(lambda x: 3)(np.ones(2, "f4")), np.array(3, "i8"))


def test_none_stays_none():
    """None stays None"""
    got = kd.kernel(lambda x: (None, x, {"n": None}))(np.ones(2, "f4"))
    assert got[0] is None and got[2] == {"n": None}
    assert kd.kernel(lambda x: None)(np.ones(2, "f4")) is None


def test_other_results_are_errors():
    """Results are tensors, or tuples, lists and dicts of them (anything else is an error at the return)"""
    f = kd.kernel(lambda x: "text")
    with pytest.raises(kd.KdslError) as caught:
        f(np.ones(2, "f4"))
    assert isinstance(caught.value, TypeError)


RETURNS = {
    "x": lambda x: x,
    "x.T": lambda x: x.T,
    "slice": lambda x: x[:, ::-1],
    "reshape": lambda x: kd.reshape(x, (-1,)),
    "broadcast": lambda x: kd.broadcast_to(x[:1], x.shape),
    "constant": lambda x: kd.ones((2, 3)),
}


@pytest.mark.parametrize("layout", range(4))
@pytest.mark.parametrize("name", RETURNS)
def test_results_are_new_and_C_contiguous(name, layout):
    """They are new, C-contiguous, and alias neither an argument nor each other (returning `x.T` or `x` copies)"""
    base = np.arange(12, dtype="f4").reshape(3, 4)
    x = layouts(base)[layout]
    expected = {
        "x": base,
        "x.T": base.T,
        "slice": base[:, ::-1],
        "reshape": base.ravel(),
        "broadcast": np.broadcast_to(base[:1], (3, 4)),
        "constant": np.ones((2, 3), "f4"),
    }[name]
    got = kd.kernel(RETURNS[name])(x)
    equal(got, expected)
    assert got.flags.c_contiguous and got.flags.writeable
    assert not np.shares_memory(got, x)


def test_results_do_not_alias_each_other():
    """and alias neither an argument nor each other"""

    @kd.kernel
    def f(x):
        y = x + 1
        return y, y, x, x, y.T, kd.reshape(y, (-1,)), [y]

    x = np.arange(9, dtype="f4").reshape(3, 3)
    a, b, c, d, e, g, (h,) = got = f(x)
    for one, other in itertools.combinations([*got[:-1], h, x], 2):
        assert not np.shares_memory(one, other)
    for result, expected in zip((a, b, c, d, e, g, h), (x + 1, x + 1, x, x, (x + 1).T, (x + 1).ravel(), x + 1)):
        equal(result, expected)


def test_results_of_two_calls_do_not_alias():
    """They are new"""
    f = kd.kernel(lambda x: (x + 1, kd.ones(3)))
    x = np.ones(3, "f4")
    a, b = f(x), f(x)
    assert not np.shares_memory(a[0], b[0]) and not np.shares_memory(a[1], b[1])
    a[0][:] = 7
    a[1][:] = 7
    equal(f(x)[1], np.ones(3, "f4"))
    equal(b[0], np.full(3, 2, "f4"))


def test_a_returned_0_d_argument_is_copied():
    """(returning ... `x` copies)"""
    x = np.array(3.0, "f4")
    got = kd.kernel(lambda a: a)(x)
    x[...] = 9
    equal(got, np.array(3.0, "f4"))


def test_every_equation_runs_in_compiled_code():
    """Every equation runs in code that kdsl compiled: no NumPy ... fallback (NumPy would raise floating point errors here)"""

    @kd.kernel
    def f(x, w, i):
        z = kd.log(x) / x + kd.sqrt(-x) + kd.exp(x * 1e30)
        s = kd.sum(z, axis=0, keepdims=True) * kd.max(z) + kd.mean(z) + kd.var(z) + kd.argmax(x)
        m = (x * 1e30) @ (w * 1e30) + kd.einsum("ij,jk->ik", x * 1e30, w * 1e30)
        return kd.take(s + m, i, axis=0), kd.scatter_add(z, i, m[:2]), kd.where(x > 0, m, 1 / x)

    x, w, i = np.linspace(0, 1, 16, dtype="f4").reshape(4, 4), np.ones((4, 4), "f4"), np.array([0, 3])
    names = [
        "exp",
        "log",
        "sqrt",
        "matmul",
        "dot",
        "einsum",
        "sum",
        "add",
        "multiply",
        "divide",
        "max",
        "mean",
        "var",
        "where",
    ]

    def no(*_args, **_kwargs):
        raise AssertionError("NumPy computed")

    f(x, w, i)  # compiled
    with np.errstate(all="raise"), mock.patch.multiple(np, **dict.fromkeys(names, no)):
        got = f(x, w, i)
    assert all(g.dtype == np.float32 for g in got)


def test_no_other_library_computes():
    """no NumPy, BLAS, torch or interpreter fallback"""
    program = (
        "import sys, numpy as np, kdsl as kd\n"
        "f = kd.kernel(lambda x, w: kd.sum(kd.exp(x @ w), axis=1))\n"
        "x = np.ones((8, 8), 'f4')\n"
        "f(x, x); f.vjp(x, x, np.ones(8, 'f4'))\n"
        "print([m for m in ('torch', 'scipy', 'numba', 'jax', 'cupy', 'numexpr') if m in sys.modules])\n"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=600)
    assert out.stdout.strip() == "[]"
