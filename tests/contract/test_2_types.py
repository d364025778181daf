"""Section 2 of the contract: types, annotations, named sizes, dtypes and how they meet."""
# ruff: noqa: B023 (kernels of a loop run within the loop)

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import kdsl as kd
from tests.contract.saying import Counted, equal, mistake
from tests.tolerance import assert_close

ANY = {
    "bool": "?",
    "i8": "i1",
    "i16": "i2",
    "i32": "i4",
    "i64": "i8",
    "u8": "u1",
    "u16": "u2",
    "u32": "u4",
    "u64": "u8",
    "f16": "f2",
    "bf16": ml_dtypes.bfloat16,
    "f32": "f4",
    "f64": "f8",
}
SIGNED, UNSIGNED, FLOATS = ["i8", "i16", "i32", "i64"], ["u8", "u16", "u32", "u64"], ["f16", "bf16", "f32", "f64"]


def dtype_of(function, *dtypes):
    """The dtype of what a kernel gives for arguments of these dtypes, with one element each."""
    return np.asarray(kd.kernel(function)(*[np.ones(1, ANY[d]) for d in dtypes])).dtype


# -- types ------------------------------------------------------------------------------------------------------------


def test_types_are_for_ahead_of_time_calls():
    """`kd.f32[4096, 1024]` is a type: for ahead-of-time calls"""
    f = kd.kernel(lambda x: x + 1)
    assert "f32[4096, 1024]" in f.stages(kd.f32[4096, 1024])["traced"]
    with Counted() as n:
        f.llvm(kd.f32[4096, 1023])
        f(np.ones((4, 5), "f4"))
    assert n.made <= 2


@pytest.mark.parametrize("name", ANY)
def test_every_dtype_makes_types(name):
    """`kd.f32[4096, 1024]` is a type: for ahead-of-time calls and as an annotation"""
    dtype = getattr(kd, name)

    def f(x: dtype["N", 3]):
        return x

    x = np.ones((2, 3), ANY[name])
    equal(kd.kernel(f, types=(dtype["N", 3],))(x), x)
    assert f"{name}[2, 3]" in kd.kernel(lambda x: x).stages(dtype[2, 3])["traced"]


def test_a_name_is_a_dynamic_size_and_compiles_once():
    """def layer_norm(x: kd.f32["N", "D"], w: kd.f32["D"])` compiles once for all N and D"""
    runs = []

    @kd.kernel
    def layer_norm(x: kd.f32["N", "D"], w: kd.f32["D"]):
        runs.append(1)
        c = x - kd.mean(x, axis=-1, keepdims=True)
        return c / kd.sqrt(kd.mean(c * c, axis=-1, keepdims=True) + 1e-5) * w

    layer_norm(np.ones((2, 2), "f4"), np.ones(2, "f4"))
    rng = np.random.default_rng(0)
    with Counted() as made:
        for n, d in [(1, 1), (1, 7), (7, 1), (3, 17), (64, 64), (65, 63), (5, 1009), (0, 4)]:
            x, w = rng.standard_normal((n, d)).astype("f4"), rng.standard_normal(d).astype("f4")
            c = x.astype("f8") - x.mean(-1, keepdims=True, dtype="f8")
            assert_close(
                layer_norm(x, w),
                c / np.sqrt((c * c).mean(-1, keepdims=True) + 1e-5) * w,
                "f4",
                operations=8 * d,
                scale=1,
            )
    assert runs == [1] and made.made == 0


def test_named_sizes_may_be_0():
    """compiles once for all N and D"""

    @kd.kernel
    def f(x: kd.f32["N", "D"]):
        return kd.sum(x, axis=0), kd.sum(x, axis=1), x * 2

    for shape in [(0, 0), (0, 3), (3, 0), (1, 1)]:
        x = np.ones(shape, "f4")
        for got, expected in zip(f(x), (x.sum(0), x.sum(1), x * 2)):
            equal(got, expected)


def test_a_number_is_fixed():
    """and a number is fixed"""
    f = kd.kernel(lambda x: x + 1, types=(kd.f32["N", 4],))
    equal(f(np.ones((3, 4), "f4")), np.full((3, 4), 2, "f4"))
    for shape in [(3, 5), (3, 1), (4,), (3, 4, 1), ()]:
        mistake(kd.ShapeError, ValueError, lambda: f(np.ones(shape, "f4")))


@pytest.mark.parametrize(("kind", "right"), [("floating", FLOATS), ("integer", SIGNED + UNSIGNED), ("any", list(ANY))])
def test_kinds_leave_the_dtype_to_the_call(kind, right):
    """`kd.floating["N", "D"]` (also `kd.integer`, `kd.any`) leaves the dtype to the call"""
    f = kd.kernel(lambda x: x, types=(getattr(kd, kind)["N", "D"],))
    for name, dtype in ANY.items():
        x = np.ones((2, 3), dtype)
        if name in right:
            equal(f(x), x)
        else:
            mistake(kd.DtypeError, TypeError, lambda: f(x))


def test_any_is_still_a_function():
    """`kd.any` is an annotation and the array API's function"""
    assert bool(kd.kernel(lambda x: kd.any(x > 1))(np.array([0.0, 2.0])))


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 2, 3), (1, 0, 2, 3)])
def test_a_leading_ellipsis_is_any_number_of_axes(shape):
    """a leading `...` stands for any number of axes"""
    f = kd.kernel(lambda x, w: x * w, types=(kd.f32[..., "D"], kd.f32["D"]))
    equal(f(np.ones(shape, "f4"), np.arange(3, dtype="f4")), np.ones(shape, "f4") * np.arange(3, dtype="f4"))


def test_a_leading_ellipsis_checks_the_axes_that_are_named():
    """what the annotation does not allow is a DtypeError or ShapeError"""
    f = kd.kernel(lambda x: x * 2, types=(kd.f32[..., "D", 3],))
    mistake(kd.ShapeError, ValueError, lambda: f(np.ones((2, 2, 4), "f4")))
    mistake(kd.ShapeError, ValueError, lambda: f(np.ones(3, "f4")))


@pytest.mark.parametrize("dtype", ["f8", "i4", "f2", "?"])
def test_another_dtype_than_annotated_is_a_DtypeError(dtype):
    """what the annotation does not allow is a DtypeError or ShapeError"""

    @kd.kernel
    def f(x: kd.f32["N"]):
        return x + 1

    mistake(kd.DtypeError, TypeError, lambda: f(np.ones(3, dtype)))
    equal(f(np.ones(3, "f4")), np.full(3, 2, "f4"))


def test_types_annotate_what_cannot_carry_annotations():
    """`kd.kernel(f, types=…)` annotates what cannot carry annotations"""
    f = kd.kernel(lambda x, w: x @ w, types=(kd.f32["N", "K"], kd.f32["K", 2]))
    for n, k in [(1, 1), (3, 5), (0, 2), (2, 0)]:
        equal(f(np.ones((n, k), "f4"), np.ones((k, 2), "f4")), np.full((n, 2), k, "f4"))
    mistake(kd.ShapeError, ValueError, lambda: f(np.ones((2, 3), "f4"), np.ones((4, 2), "f4")))


def test_types_may_annotate_by_name():
    """`kd.kernel(f, types=…)` annotates what cannot carry annotations (by name, too: keyword-only parameters have no position)"""
    f = kd.kernel(lambda x, *, by: x * by, types={"x": kd.f32["N"], "by": kd.f32})
    equal(f(np.ones(3, "f4"), by=2), np.full(3, 2, "f4"))


def test_without_annotation_shape_and_dtype_are_specialised():
    """A parameter without annotation is specialised to shape and dtype"""
    seen = []

    @kd.kernel
    def f(x, y: kd.any["N"]):
        seen.append((x.shape, x.dtype))
        return x

    for x in (np.ones(3, "f4"), np.ones(3, "f4"), np.ones(4, "f4"), np.ones(4, "f8"), np.ones((4, 1), "f8")):
        f(x, np.ones(2))
    assert [s for s, _ in seen] == [(3,), (4,), (4,), (4, 1)]
    assert [t for _, t in seen] == [kd.f32, kd.f32, kd.f64, kd.f64]


# -- sizes ------------------------------------------------------------------------------------------------------------


def test_shape_is_a_tuple_of_integers():
    """`x.shape` is a tuple (integers ...); `x.ndim, x.size, x.dtype`"""
    seen = {}

    @kd.kernel
    def f(x):
        seen.update(shape=x.shape, ndim=x.ndim, size=x.size, dtype=x.dtype)
        return x

    f(np.ones((2, 3, 5), "f2"))
    assert type(seen["shape"]) is tuple and seen["shape"] == (2, 3, 5) and all(type(n) is int for n in seen["shape"])
    assert seen["ndim"] == 3 and seen["size"] == 30 and seen["dtype"] == kd.f16


def test_shape_holds_sizes_where_names_are_used():
    """`x.shape` is a tuple (..., or sizes where names are used)"""
    seen = []

    @kd.kernel
    def f(x: kd.f32["N", 4]):
        seen.append((x.shape, x.size))
        return x

    f(np.ones((3, 4), "f4"))
    shape, size = seen[0]
    assert type(shape) is tuple and shape[1] == 4 and not isinstance(shape[0], int) and "N" in str(shape[0])
    assert "N" in str(size)


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (2, 5)])
def test_T_swaps_the_axes_of_a_matrix(shape):
    """x.T` (2-D)"""
    x = np.arange(shape[0] * shape[1], dtype="f4").reshape(shape)
    equal(kd.kernel(lambda x: x.T)(x), np.ascontiguousarray(x.T))


@pytest.mark.parametrize("shape", [(3,), (), (2, 3, 4)])
def test_T_is_for_matrices_only(shape):
    """x.T` (2-D)"""
    with pytest.raises(kd.KdslError):
        kd.kernel(lambda x: x.T)(np.ones(shape, "f4"))


def test_mT_swaps_the_last_two_axes():
    """x.mT`"""
    x = np.arange(24, dtype="f4").reshape(2, 3, 4)
    equal(kd.kernel(lambda x: x.mT)(x), np.ascontiguousarray(np.swapaxes(x, 1, 2)))
    with pytest.raises(kd.KdslError):
        kd.kernel(lambda x: x.mT)(np.ones(3, "f4"))


ARITHMETIC = {
    "n + m": lambda n, m: n + m,
    "n + 3": lambda n, m: n + 3,
    "3 + n": lambda n, m: 3 + n,
    "n - m": lambda n, m: n - m,
    "n - 1": lambda n, m: n - 1,
    "9 - n": lambda n, m: 9 - n,
    "n * m": lambda n, m: n * m,
    "2 * n": lambda n, m: 2 * n,
    "n * 0": lambda n, m: n * 0,
    "n // 2": lambda n, m: n // 2,
    "n // m": lambda n, m: n // m,
    "9 // n": lambda n, m: 9 // n,
    "n % 2": lambda n, m: n % 2,
    "n % m": lambda n, m: n % m,
    "9 % n": lambda n, m: 9 % n,
    "(n + 2) * m // 3 - n % 4": lambda n, m: (n + 2) * m // 3 - n % 4,
    "n * m - m * n + n": lambda n, m: n * m - m * n + n,
}


@pytest.mark.parametrize("name", ARITHMETIC)
def test_sizes_take_arithmetic(name):
    """A named size takes `+ - * // %` with integers and sizes"""
    formula = ARITHMETIC[name]

    @kd.kernel
    def f(x: kd.f32["N"], y: kd.f32["M"]):
        return formula(x.shape[0], y.shape[0]) + kd.zeros((), dtype=kd.i64)

    for n, m in [(1, 1), (5, 2), (7, 3), (2, 9), (8, 8)]:
        assert int(f(np.ones(n, "f4"), np.ones(m, "f4"))) == formula(n, m), (n, m)


def test_sizes_are_accepted_by_zeros_and_arange():
    """is accepted wherever a size or bound is (zeros, arange ...)"""

    @kd.kernel
    def f(x: kd.f32["N", "M"]):
        n, m = x.shape
        return kd.zeros((n + 1, m)), kd.ones(2 * n), kd.arange(n), kd.arange(1, n * m, 2), kd.full((m,), 7), kd.eye(n)

    for n, m in [(1, 1), (3, 2), (5, 4)]:
        got = f(np.ones((n, m), "f4"))
        expected = (
            np.zeros((n + 1, m), "f4"),
            np.ones(2 * n, "f4"),
            np.arange(n),
            np.arange(1, n * m, 2),
            np.full(m, 7),
            np.eye(n, dtype="f4"),
        )
        for g, e in zip(got, expected):
            equal(g, e)


def test_sizes_are_accepted_by_reshape_with_one_minus_1():
    """reshape with one -1"""

    @kd.kernel
    def f(x: kd.f32["N", "H", 4]):
        n, h, d = x.shape
        return kd.reshape(x, (n, h * d)), kd.reshape(x, (-1, d)), x.reshape(n * h * d), kd.reshape(x, (n, -1))

    for n, h in [(1, 1), (3, 2), (2, 7)]:
        x = np.arange(n * h * 4, dtype="f4").reshape(n, h, 4)
        for g, e in zip(f(x), (x.reshape(n, h * 4), x.reshape(-1, 4), x.ravel(), x.reshape(n, -1))):
            equal(g, e)


def test_sizes_are_accepted_by_slices():
    """slices"""

    @kd.kernel
    def f(x: kd.f32["N"]):
        n = x.shape[0]
        return x[: n // 2], x[n // 2 :], x[: n - 1], x[::-1], x[n - 1], x[::2]

    for n in (1, 2, 7, 64):
        x = np.arange(n, dtype="f4")
        for g, e in zip(f(x), (x[: n // 2], x[n // 2 :], x[: n - 1], x[::-1], x[n - 1], x[::2])):
            equal(g, np.asarray(e))


def test_sizes_become_tensors_when_mixed_divided_or_given_to_a_function():
    """and becomes a 0-d i64 tensor when mixed with tensors, divided by `/`, or given to a function"""

    @kd.kernel
    def f(x: kd.f32["N"], i: kd.i32["M"]):
        n, m = x.shape[0], i.shape[0]
        return x / n, x * n, i + n, n / 2, 1 / n, n / m, kd.sqrt(n), kd.maximum(n, m), n + i[0]

    for n, m in [(1, 1), (3, 5), (64, 2)]:
        x, i = np.arange(n, dtype="f4"), np.arange(m, dtype="i4")
        got = f(x, i)
        expected = (
            x / np.float32(n),
            x * np.float32(n),
            i + np.int64(n),
            n / 2,
            1 / n,
            n / m,
            np.sqrt(n),
            max(n, m),
            n + 0,
        )
        dtypes = ["f4", "f4", "i8", "f4", "f4", "f4", "f4", "i8", "i8"]
        for g, e, d in zip(got, expected, dtypes):
            assert_close(g, np.asarray(e).astype(d))
            assert np.asarray(g).dtype == d


def test_a_size_may_be_returned():
    """becomes a 0-d i64 tensor ... (as a result, which is a tensor)"""
    f = kd.kernel(lambda x: (x.shape[0], x.shape[1] * 2), types=(kd.f32["N", "M"],))
    for g, e in zip(f(np.ones((3, 5), "f4")), (3, 10)):
        equal(g, np.array(e))


DECIDED = [
    (lambda n, m: n == n, True),
    (lambda n, m: n != n, False),
    (lambda n, m: n >= 0, True),
    (lambda n, m: n < 0, False),
    (lambda n, m: n + 1 > n, True),
    (lambda n, m: n + m >= n, True),
    (lambda n, m: n + 1 > 0, True),
    (lambda n, m: n * 2 == n + n, True),
    (lambda n, m: n + 1 == n, False),
    (lambda n, m: n > -1, True),
    (lambda n, m: n <= n + m, True),
    (lambda n, m: n * m >= 0, True),
]


@pytest.mark.parametrize("case", range(len(DECIDED)))
def test_comparing_sizes_is_decided_if_it_holds_for_all_values(case):
    """Comparing sizes is decided if it holds for all values"""
    comparison, expected = DECIDED[case]
    seen = []

    @kd.kernel
    def f(x: kd.f32["N"], y: kd.f32["M"]):
        seen.append(bool(comparison(x.shape[0], y.shape[0])))
        return x

    f(np.ones(3, "f4"), np.ones(2, "f4"))
    assert seen == [expected]


UNDECIDED = [
    lambda n, m: n > 4,
    lambda n, m: n == m,
    lambda n, m: n != m,
    lambda n, m: n < m,
    lambda n, m: n == 1,
    lambda n, m: n > 0,
    lambda n, m: n % 2 == 0,
    lambda n, m: n == 3,
    lambda n, m: n * n > n,
    lambda n, m: n,
]


@pytest.mark.parametrize("case", range(len(UNDECIDED)))
def test_other_comparisons_of_sizes_are_ControlFlowErrors(case):
    """else it is a ControlFlowError"""
    comparison = UNDECIDED[case]

    @kd.kernel
    def f(x: kd.f32["N"], y: kd.f32["M"]):
        if comparison(x.shape[0], y.shape[0]):
            return x
        return x + 1

    with pytest.raises(kd.ControlFlowError):
        f(np.ones(3, "f4"), np.ones(2, "f4"))


@pytest.mark.parametrize("shapes", [((3,), (4,)), ((1,), (3,)), ((3,), (1,)), ((0,), (1,))])
def test_equal_names_mean_equal_sizes(shapes):
    """Equal names mean equal sizes (checked at the call)"""
    f = kd.kernel(lambda x, y: x + y, types=(kd.f32["N"], kd.f32["N"]))
    f(np.ones(2, "f4"), np.ones(2, "f4"))
    mistake(kd.ShapeError, ValueError, lambda: f(np.ones(shapes[0], "f4"), np.ones(shapes[1], "f4")))


def test_equal_names_within_one_argument_mean_equal_sizes():
    """Equal names mean equal sizes"""
    f = kd.kernel(lambda x: x + x.T, types=(kd.f32["N", "N"],))
    x = np.arange(9, dtype="f4").reshape(3, 3)
    equal(f(x), x + x.T)
    mistake(kd.ShapeError, ValueError, lambda: f(np.ones((3, 1), "f4")))


def test_a_named_size_is_never_taken_to_be_1():
    """A named size is never taken to be 1"""

    @kd.kernel
    def f(x: kd.f32["N", "D"], y: kd.f32["M", "D"]):
        return x + y

    with pytest.raises(kd.ShapeError):
        f(np.ones((3, 4), "f4"), np.ones((3, 4), "f4"))
    with pytest.raises(kd.ShapeError):  # not even where it is
        f(np.ones((3, 4), "f4"), np.ones((1, 4), "f4"))


def test_a_named_size_does_not_broadcast_against_a_number():
    """A named size is never taken to be 1"""
    f = kd.kernel(lambda x, y: x + y, types=(kd.f32["N"], kd.f32[5]))
    with pytest.raises(kd.ShapeError):
        f(np.ones(1, "f4"), np.ones(5, "f4"))
    with pytest.raises(kd.ShapeError):
        kd.kernel(lambda x: kd.squeeze(x, 0), types=(kd.f32["N", 3],))(np.ones((1, 3), "f4"))


@pytest.mark.parametrize("n", [1, 2, 5])
def test_an_axis_of_1_broadcasts_against_a_named_size(n):
    """A named size is never taken to be 1 (a 1 still broadcasts against it)"""
    f = kd.kernel(lambda x, y: x[:, None] * y + 1, types=(kd.f32["N"], kd.f32[1, "M"]))
    equal(
        f(np.arange(n, dtype="f4"), np.ones((1, 3), "f4")),
        np.arange(n, dtype="f4")[:, None] * np.ones((1, 3), "f4") + 1,
    )


def test_a_reshape_that_must_divide_is_checked_at_the_call():
    """What cannot be known while tracing (a reshape that must divide ...) is checked at the call"""
    f = kd.kernel(lambda x: kd.reshape(x, (-1, 4)), types=(kd.f32["N"],))
    for n in (0, 4, 8, 12):
        equal(f(np.arange(n, dtype="f4")), np.arange(n, dtype="f4").reshape(-1, 4))
    for n in (1, 3, 5, 7):
        mistake(kd.ShapeError, ValueError, lambda: f(np.ones(n, "f4")))
    equal(f(np.ones(8, "f4")), np.ones((2, 4), "f4"))


def test_an_index_in_bounds_is_checked_at_the_call():
    """What cannot be known while tracing (..., a slice in bounds) is checked at the call"""
    f = kd.kernel(lambda x: x[3], types=(kd.f32["N"],))
    equal(f(np.arange(4, dtype="f4")), np.array(3, "f4"))
    for n in (0, 1, 3):
        with pytest.raises(kd.KdslError):
            f(np.ones(n, "f4"))


def test_a_slice_in_bounds_is_checked_at_the_call():
    """What cannot be known while tracing (..., a slice in bounds) is checked at the call: never a wrong number"""
    f = kd.kernel(lambda x: x[2:5], types=(kd.f32["N"],))
    for n in (5, 6, 100):
        equal(f(np.arange(n, dtype="f4")), np.arange(n, dtype="f4")[2:5])
    for n in (0, 1, 4):
        x = np.arange(n, dtype="f4")
        try:
            got = f(x)
        except kd.KdslError:
            continue
        equal(got, x[2:5])


def test_a_size_that_would_be_negative_is_refused():
    """What cannot be known while tracing ... is checked at the call"""
    f = kd.kernel(lambda x: kd.zeros(x.shape[0] - 3), types=(kd.f32["N"],))
    equal(f(np.ones(5, "f4")), np.zeros(2, "f4"))
    equal(f(np.ones(3, "f4")), np.zeros(0, "f4"))
    with pytest.raises(kd.KdslError):
        f(np.ones(2, "f4"))


# -- dtypes -----------------------------------------------------------------------------------------------------------

ALIASES = {
    "int8": "i8",
    "int16": "i16",
    "int32": "i32",
    "int64": "i64",
    "uint8": "u8",
    "uint16": "u16",
    "uint32": "u32",
    "uint64": "u64",
    "float16": "f16",
    "bfloat16": "bf16",
    "float32": "f32",
    "float64": "f64",
}


@pytest.mark.parametrize("alias", ALIASES)
def test_the_standards_names_are_aliases(alias):
    """with the standard's names as aliases"""
    assert getattr(kd, alias) is getattr(kd, ALIASES[alias])


@pytest.mark.parametrize("name", ANY)
def test_every_dtype_computes(name):
    """dtypes: bool, i8 i16 i32 i64, u8 u16 u32 u64, f16, bf16 (ml_dtypes), f32, f64"""
    x = np.array([0, 1, 1, 0, 1], ANY[name])
    equal(kd.kernel(lambda a, b: kd.where(a == b, a, b))(x, x[::-1]), np.where(x == x[::-1], x, x[::-1]))


@pytest.mark.parametrize("name", ANY)
def test_dtype_takes_kdsls_numpys_or_a_name(name):
    """`dtype=` takes kd's, NumPy's or a name"""
    numpys = np.dtype(ANY[name])
    for given in (getattr(kd, name), numpys, numpys.type, name, numpys.name):
        got = kd.kernel(lambda x: (kd.zeros(3, dtype=given), kd.astype(x, given)))(np.ones(2, "f4"))
        equal(got[0], np.zeros(3, numpys))
        equal(got[1], np.ones(2, numpys))


def test_defaults_are_i64_and_f32():
    """Defaults: i64 and f32"""
    f = kd.kernel(
        lambda x: (
            kd.arange(3),
            kd.arange(3.0),
            kd.zeros(2),
            kd.ones(2),
            kd.full(2, 1),
            kd.full(2, 1.0),
            kd.linspace(0, 1, 3),
            kd.eye(2),
        )
    )
    dtypes = [np.asarray(r).dtype.str[1:] for r in f(np.ones(1))]
    assert dtypes == ["i8", "f4", "f4", "f4", "i8", "f4", "f4", "f4"]


WEAK = [
    2,
    2.5,
    -1,
    0,
    -0.0,
    np.float64(2.5),
    np.float32(2.5),
    np.int64(3),
    np.int8(3),
    -np.inf,
    np.nan,
    np.sqrt(2),
    np.float16(2),
]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("scalar", WEAK, ids=repr)
def test_numbers_and_numpy_scalars_in_the_body_are_weak(scalar, dtype):
    """Python numbers *and NumPy scalars in the body* are weak everywhere"""
    x = np.array([1.0, -2.0, 0.5], ANY[dtype])
    for f in (
        lambda x: x * scalar,
        lambda x: scalar * x,
        lambda x: x + scalar,
        lambda x: kd.where(x > 0, x, scalar),
        lambda x: kd.maximum(scalar, x),
        lambda x: scalar - x,
        lambda x: kd.where(x > 0, scalar, x),
    ):
        assert np.asarray(kd.kernel(f)(x)).dtype == ANY[dtype]
    with np.errstate(all="ignore"):
        wide = np.float64 if dtype == "f64" else np.float32
        assert_close(kd.kernel(lambda x: scalar * x)(x), (x.astype(wide) * wide(scalar)).astype(ANY[dtype]))


def test_minus_infinity_and_sqrt_2_stay_f32():
    """(`kd.where(m, x, -np.inf)`, `np.sqrt(2) * x` stay f32)"""
    x = np.array([1.0, 2.0, 3.0], "f4")
    equal(kd.kernel(lambda m, x: kd.where(m, x, -np.inf))(x > 1, x), np.array([-np.inf, 2, 3], "f4"))
    equal(kd.kernel(lambda x: np.sqrt(2) * x)(x), np.float32(np.sqrt(2)) * x)


@pytest.mark.parametrize("dtype", ["i8", "i16", "i32", "u8", "u16", "u32", "u64"])
def test_integers_in_the_body_keep_an_integer_tensors_dtype(dtype):
    """Python numbers and NumPy scalars in the body are weak everywhere"""
    x = np.array([1, 2, 3], ANY[dtype])
    for scalar in (1, np.int64(1), np.uint8(1), True, np.bool_(True)):
        equal(kd.kernel(lambda x: x + scalar)(x), x + x.dtype.type(1))


@pytest.mark.parametrize(
    "function", [lambda b, x: b + x, lambda b, x: x * b, lambda b, x: kd.maximum(b, x), lambda b, x: kd.where(b, x, b)]
)
@pytest.mark.parametrize("name", SIGNED + UNSIGNED + FLOATS)
def test_bool_is_below_integer_and_floating(name, function):
    """bool < integer < floating"""
    assert dtype_of(function, "bool", name) == ANY[name]


@pytest.mark.parametrize("floating", FLOATS)
@pytest.mark.parametrize("integer", SIGNED + UNSIGNED)
def test_an_integer_tensor_with_a_floating_one_gives_the_floating_dtype(integer, floating):
    """an integer tensor with a floating one gives the floating dtype"""
    assert dtype_of(lambda a, b: a + b, integer, floating) == ANY[floating]
    assert dtype_of(lambda a, b: kd.where(a > b, b, a), integer, floating) == ANY[floating]


@pytest.mark.parametrize("integer", ["bool", *SIGNED, *UNSIGNED])
@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + 1.5,
        lambda x: 2.0 * x,
        lambda x: x / x,
        lambda x: x / 2,
        lambda x: 1 / x,
        lambda x: kd.mean(x),
        lambda x: kd.exp(x),
        lambda x: kd.sqrt(x),
        lambda x: kd.sin(x),
        lambda x: kd.tanh(x),
        lambda x: kd.erf(x),
        lambda x: kd.sigmoid(x),
        lambda x: kd.log1p(x),
        lambda x: x + np.float64(1.5),
        lambda x: kd.atan2(x, x),
        lambda x: kd.logsumexp(x),
        lambda x: kd.var(x),
        lambda x: kd.std(x),
    ],
)
def test_integers_give_f32_where_the_mathematics_is_real(integer, function):
    """an integer with a Python float, `/`, mean and exp-like functions of integers and bools give f32"""
    assert dtype_of(function, integer) == np.float32


def test_f16_with_bf16_gives_f32():
    """f16 with bf16 gives f32"""
    assert dtype_of(lambda a, b: a + b, "f16", "bf16") == np.float32
    assert dtype_of(lambda a, b: a @ b, "bf16", "f16") == np.float32


@pytest.mark.parametrize(
    "pair",
    [("f16", "f32"), ("bf16", "f32"), ("f32", "f64"), ("f16", "f64"), ("i8", "i64"), ("u8", "u32"), ("f64", "f64")],
)
def test_the_wider_of_one_kind_wins(pair):
    """(of one kind the wider wins, as in the standard)"""
    assert dtype_of(lambda a, b: a * b, *pair) == dtype_of(lambda a, b: b * a, *pair) == ANY[pair[1]]


@pytest.mark.parametrize(
    ("pair", "result"), [(("u8", "i8"), "i16"), (("u16", "i8"), "i32"), (("u32", "i32"), "i64"), (("u8", "i64"), "i64")]
)
def test_signed_with_unsigned_is_the_standards(pair, result):
    """names not listed follow the array API (mixed signs: the next wider signed type)"""
    assert dtype_of(lambda a, b: a + b, *pair) == ANY[result]


@pytest.mark.parametrize("signed", SIGNED)
def test_u64_with_signed_is_a_DtypeError(signed):
    """u64 with signed is a DtypeError"""
    for f in (lambda a, b: a + b, lambda a, b: b * a, lambda a, b: kd.where(a > 0, a, b), lambda a, b: a < b):
        mistake(kd.DtypeError, TypeError, lambda: dtype_of(f, "u64", signed))


@pytest.mark.parametrize("name", ["bool", *SIGNED, *UNSIGNED])
def test_sum_and_prod_of_integers_give_i64_or_u64(name):
    """sum and prod of integers give i64 (u64 for unsigned)"""
    wide = np.uint64 if name in UNSIGNED else np.int64
    assert dtype_of(lambda x: kd.sum(x), name) == wide
    assert dtype_of(lambda x: kd.prod(x, axis=0), name) == wide
    x = np.full(1000, np.iinfo(ANY[name]).max if name != "bool" and name not in ("i64", "u64") else 1, ANY[name])
    equal(kd.kernel(lambda x: kd.sum(x))(x), np.sum(x, dtype=wide))


@pytest.mark.parametrize("name", SIGNED + UNSIGNED + FLOATS)
def test_argmax_gives_i64(name):
    """argmax gives i64"""
    assert dtype_of(lambda x: kd.argmax(x), name) == dtype_of(lambda x: kd.argmin(x, axis=0), name) == np.int64


@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_half_types_are_stored_so_and_computed_in_f32(name):
    """f16 and bf16 are stored so and computed in f32"""
    dtype = np.dtype(ANY[name])
    x = np.array([1.0, 3.0, 1000.0, -0.1, np.inf, np.nan, -0.0, 60000.0], "f4").astype(dtype)
    wide = x.astype("f4")
    with np.errstate(all="ignore"):
        equal(
            kd.kernel(lambda x: x * x / x)(x).astype("f4"), (wide * wide / wide).astype(dtype).astype("f4")
        )  # overflows in f16
        got = kd.kernel(lambda x: (x * 1e-4) * 1e-4 * 1e8)(x)
        assert_close(got, (wide * np.float32(1e-4) * np.float32(1e-4) * np.float32(1e8)).astype(dtype))


@pytest.mark.parametrize("name", ["f16", "bf16"])
def test_sums_and_contractions_of_half_types_accumulate_in_f32(name):
    """their sums and contractions accumulate in f32"""
    dtype = np.dtype(ANY[name])
    x = np.full(8192, 0.25, dtype)
    equal(kd.kernel(lambda x: kd.sum(x))(x), np.array(2048, dtype))
    one = np.ones((1, 4096), dtype)
    equal(kd.kernel(lambda a, b: a @ b)(one, one.T), np.array([[4096]], dtype))
    equal(kd.kernel(lambda a: kd.sum(a, axis=1, dtype=kd.f32))(np.full((3, 4097), 1, dtype)), np.full(3, 4097, "f4"))
    equal(kd.kernel(lambda a, b: kd.einsum("ij,kj->ik", a, b))(one, one), np.array([[4096]], dtype))
