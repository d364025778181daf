"""Programs called with arrays: meaning, memory, `out=`, indices."""

import sys
import threading

import numpy as np
import pytest

from kdsl.dtypes import f32, i64
from kdsl.errors import KdslError, OutOfRangeError, ResultError
from kdsl.ir.loops import Buffer, Kernel, Parallel, Program
from kdsl.ir.sizes import size
from kdsl.runtime.call import ArgumentSpec, Executable, IndexCheck, ResultSpec
from kdsl.runtime.fast import FastCall, Nested, Number, Same, SizeOf, Tensor

from .machine import DOUBLE, N, chain, doubled, index_program, library_of

LENGTHS = (0, 1, 7, 63, 64, 65, 1009, 300_007)


@pytest.fixture(scope="module")
def run():
    return Executable(library_of(chain(4)), [ArgumentSpec(f32, ("N",))], [ResultSpec(f32, 1)], ["N"])


def data(n):
    return np.random.default_rng(n).standard_normal(n).astype("f4")


@pytest.mark.parametrize("n", LENGTHS)
def test_long_way(run, n):
    x = data(n)
    (y,) = run([x])
    assert np.array_equal(y, doubled(x, 4))
    assert y.flags.owndata and y.flags.writeable and y.flags.c_contiguous and y.base is None


@pytest.mark.parametrize(
    "change",
    [lambda x: x[::-1], lambda x: np.repeat(x, 3)[::3], lambda x: x.astype(">f4"), lambda x: unaligned(x), lambda x: frozen(x)],
    ids=["reversed", "every third", "big endian", "unaligned", "read-only"],
)
def test_any_memory(run, change):
    for n in (0, 1, 97):
        x = change(data(n))
        assert np.array_equal(run([x])[0], doubled(x.astype("f4"), 4))


def unaligned(x):
    memory = np.zeros(x.nbytes + 1, np.uint8)
    out = memory[1:].view("f4") if x.size else x
    out[...] = x
    return out


def frozen(x):
    x.flags.writeable = False
    return x


def test_out(run):
    x, out = data(100), np.empty(100, "f4")
    (y,) = run([x], [out])
    assert y is out and np.array_equal(out, doubled(x, 4))


def test_out_with_strides_and_foreign_order(run):
    x = data(100)
    memory = np.empty((100, 2), ">f4")
    run([x], [memory[::-1, 1]])
    assert np.array_equal(memory[::-1, 1], doubled(x, 4))


def test_out_may_overlap_an_argument(run):
    x = data(1000)
    expected = doubled(x[:-1], 4)
    run([x[:-1]], [x[1:]])
    assert np.array_equal(x[1:], expected)


OUTS = np.empty(99, "f4"), np.empty(100, "f8"), frozen(np.empty(100, "f4")), [0.0] * 100, np.broadcast_to(np.zeros(1, "f4"), 100)


@pytest.mark.parametrize("out", OUTS, ids=["length", "dtype", "read-only", "list", "broadcast"])
def test_out_is_checked(run, out):
    with pytest.raises(KdslError, match=r"out\[0\]"):
        run([data(100)], [out])


def test_number_of_outs_is_checked(run):
    with pytest.raises(ResultError, match="2 arrays"):
        run([data(3)], [np.empty(3, "f4")] * 2)


def test_arena_is_reused_by_live_range():
    import ctypes

    def bytes_of(program, n):
        arena = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(library_of(program).address("arena"))
        return arena(ctypes.addressof(ctypes.c_int64(n)))

    place = 2048 * 4 + 9 * 64  # equal elements of neighbouring places do not lie 4096 bytes apart
    assert bytes_of(chain(1), 2048) == 0
    assert bytes_of(chain(2), 2048) == place
    assert bytes_of(chain(9), 2048) == 2 * place  # two places, taken in turn
    assert bytes_of(chain(9, 2048), 0) == 2 * place  # the same where sizes are known


def test_small_temporaries_fill_gaps():
    def buffer(name, n, role="temporary"):
        return Buffer(name, f32, (n,), (1,), role)

    x, y = buffer("x", 16, "argument"), buffer("y", 16, "result")
    a, b, c = buffer("a", 1600), buffer("b", 16), buffer("c", 160)
    body = (Parallel("i", 0, N, 64, ()),)
    steps = [(x, a), (a, b), (b, c), (c, y)]
    program = Program("p", (x, a, b, c, y), tuple(Kernel(f"k{i}", s, ("N",), body) for i, s in enumerate(steps)), ("N",))
    executable = Executable(library_of(program), [ArgumentSpec(f32, (16,))], [ResultSpec(f32, 1)], ["N"])
    z = data(16)
    assert np.array_equal(executable([z], sizes={"N": 16})[0], doubled(z, 4))


def test_expressions_of_sizes():
    """Floor division, remainder, minimum and maximum in the text mean what they mean in Python; a zero divisor is harmless."""
    from kdsl.ir.sizes import evaluate, floordiv, maximum, minimum, modulo

    m = size("M")
    divisions = [floordiv(N, 7), modulo(N - 50, 7), floordiv(N - 9, m), modulo(N, m)]
    expressions = [N * m + 3, minimum(N, m), maximum(N - 10, m), *divisions]
    buffers = tuple(Buffer(f"r{i}", f32, (e,), (1,), "result", i) for i, e in enumerate(expressions))
    program = Program("p", buffers, (), ("N", "M"))
    run = Executable(library_of(program, ""), [], [ResultSpec(f32, 1)] * len(buffers), ["N", "M"])
    import ctypes

    for n, k in ((0, 1), (1, 1), (5, 2), (100, 7), (6, 100)):
        shapes = run.result_shapes((ctypes.c_int64 * 2)(n, k))
        assert [s[0] for s in shapes] == [evaluate(e, {"N": n, "M": k}) for e in expressions]
    run.result_shapes((ctypes.c_int64 * 2)(3, 0))


def test_large_and_small_kernels_agree():
    """A kernel is shared or not by its size; the values are the same."""
    for n in (59_999, 60_001, 200_000):
        x = data(n)
        run = Executable(library_of(chain(2, n)), [ArgumentSpec(f32, (n,))], [ResultSpec(f32, 1)], ["N"])
        assert np.array_equal(run([x], sizes={"N": n})[0], doubled(x, 2))


# --- the short way ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def fast(run):
    out = FastCall()
    assert out.add(run, [Tensor(0)], single=True)
    return out


@pytest.mark.parametrize("n", LENGTHS)
def test_short_way(fast, n):
    x = data(n)
    y = fast.call(x)
    assert np.array_equal(y, doubled(x, 4))
    assert y.flags.owndata and y.flags.writeable and y.flags.c_contiguous and y.flags.aligned and y.base is None


def test_short_way_refuses_what_does_not_fit(fast):
    x = data(64)
    for arguments in (
        (), (x, x), (x[::2],), (x.astype("f8"),), (x.reshape(8, 8),), (x.astype(">f4"),), (unaligned(x),), (x[0],), (3.0,),
        (None,), (x.tolist(),), (np.ma.array(x),),
    ):  # fmt: skip
        assert fast.call(*arguments) is NotImplemented
    assert fast.call(x, k=1) is NotImplemented and fast.call(x=x) is NotImplemented


def test_results_of_the_short_way_are_ordinary_arrays(fast):
    y = fast.call(data(64))
    y.resize(1000, refcheck=False)
    assert y.shape == (1000,) and not y[64:].any()
    many = [fast.call(data(n % 100)) for n in range(2000)]
    for n, y in enumerate(many):
        assert np.array_equal(y, doubled(data(n % 100), 4))


def test_static_values_and_structures(run):
    fast, flag = FastCall(), object()
    fast.add(run, [Same(flag), Tensor(0)], finish=lambda results: {"y": results[0]})
    x = data(10)
    assert np.array_equal(fast.call(flag, x)["y"], doubled(x, 4))
    assert fast.call(object(), x) is NotImplemented
    fast.add(run, [Tensor(0)])
    assert isinstance(fast.call(x), tuple)


def test_an_error_in_finish_comes_through(run):
    def fail(results):
        raise KeyError("mine")

    fast = FastCall()
    fast.add(run, [Tensor(0)], finish=fail)
    with pytest.raises(KeyError, match="mine"):
        fast.call(data(3))


def test_exact_sizes(run):
    fast = FastCall()
    fast.add(run, [Tensor(0)], single=True, sizes={"N": 10})
    assert fast.call(data(10)).shape == (10,)
    assert fast.call(data(11)) is NotImplemented


def test_python_floats():
    """A traced number: a 0-d argument that is a Python float."""
    x, y = Buffer("x", f32, (), (), "argument"), Buffer("y", f32, (), (), "result")
    text = DOUBLE.replace("%n = load i64, ptr %n.at", "%n = add i64 1, 0")
    library = library_of(Program("p", (x, y), (Kernel("k", (x, y), (), ()),)), text)
    run = Executable(library, [ArgumentSpec(f32, ())], [ResultSpec(f32, 0)])
    assert run([np.float32(3)])[0] == 7
    fast = FastCall()
    assert fast.add(run, [Number(0)], single=True)
    assert fast.call(3.0) == 7 and fast.call(3.0).shape == ()
    assert fast.call(3) is NotImplemented and fast.call(np.float64(3)) is NotImplemented


def test_equal_names_must_be_equal_sizes():
    x = Buffer("x", f32, (N,), (1,), "argument")
    other = Buffer("other", f32, (N,), (size("other.stride0"),), "argument", 1)
    y = Buffer("y", f32, (N,), (1,), "result")
    program = Program("p", (x, other, y), (Kernel("k", (x, y), ("N",), (Parallel("i", 0, N, 64, ()),)),), ("N", "other.stride0"))
    specs = [ArgumentSpec(f32, ("N",)), ArgumentSpec(f32, ("N",), ("other.stride0",))]
    run = Executable(library_of(program), specs, [ResultSpec(f32, 1)], program.sizes)
    fast = FastCall()
    assert fast.add(run, [Tensor(0), Tensor(1)], single=True)
    a, b = data(10), np.zeros(30, "f4")
    for second in (b[:10], b[::3], b[::-3]):
        assert np.array_equal(fast.call(a, second), doubled(a, 1))
        assert np.array_equal(run([a, second])[0], doubled(a, 1))
    assert fast.call(a, b) is NotImplemented


@pytest.mark.parametrize("index", [[0, 4, -5], [0], [], [5], [-6, 0], [0, 1 << 40]])
def test_indices_out_of_range(index):
    from .machine import BOUNDS

    run = Executable(
        library_of(index_program(), BOUNDS, "bounds"), [ArgumentSpec(i64, ("N",))], [ResultSpec(i64, 0)] * 2, ["N"],
        checks=[IndexCheck(0, 1, 5)],
    )  # fmt: skip
    fast = FastCall()
    assert fast.add(run, [Tensor(0)])
    x = np.array(index, np.int64)
    wrong = [i for i in index if not -5 <= i < 5]
    if wrong:
        assert fast.call(x) is NotImplemented
        with pytest.raises(OutOfRangeError, match=f"index {wrong[0]} is out of range for an axis of size 5"):
            run([x])
    else:
        assert fast.call(x) == () and run([x]) == []


def test_short_way_with_out(fast):
    x = data(64)
    expected, out = doubled(x, 4), np.empty((64, 2), "f4")[:, 1]
    assert fast.into(out, x) is out and np.array_equal(out, expected)
    assert fast.into(x, x) is x and np.array_equal(x, expected)
    read_only, folded = np.empty(64, "f4"), np.broadcast_to(np.zeros((), "f4"), 64)
    read_only.flags.writeable, folded.flags.writeable = False, True
    for other in ([out, out], [], {"a": out}, np.empty(63, "f4"), np.empty(64, "f8"), read_only, folded, "out", None):
        assert fast.into(other, x) is NotImplemented


def test_short_way_into_containers(run):
    fast = FastCall()
    tensor = Nested(dict, (Nested(list, (Tensor(0), Same("b"))),), ("a",))
    assert fast.add(run, [Nested(tuple, (Same(300), tensor))], single=True)
    x = data(64)
    assert np.array_equal(fast.call((300, {"a": [x, "b"]})), doubled(x, 4))
    for other in (
        [300, {"a": [x, "b"]}], (301, {"a": [x, "b"]}), (300, {"b": [x, "b"]}), (300, {"a": [x]}), (300, {"a": (x, "b")}),
        (300, {"a": [x, "c"]}), (300, {"a": ["b", x]}), (300, {"a": [x, "b"], "b": 1}), (300, {}),
        (300.0, {"a": [x, "b"]}), (), x,
    ):  # fmt: skip
        assert fast.call(other) is NotImplemented


def test_short_way_with_keywords_and_static_values(run):
    fast = FastCall()
    statics = [1000, -0.0, None, "text", float("nan"), (2, (3,))]
    nested = Nested(tuple, (Same(2), Nested(tuple, (Same(3),))))
    assert fast.add(run, [Tensor(0), *map(Same, statics[:-1]), nested], single=True, keywords=[f"k{i}" for i in range(6)])
    x = data(64)
    given = {f"k{i}": v for i, v in enumerate(statics)}
    assert np.array_equal(fast.call(x, **given), doubled(x, 4))
    given["k0"] = int("1000")  # another object of the same value
    assert np.array_equal(fast.call(x, **given), doubled(x, 4))
    for name, value in (("k0", 1000.0), ("k0", True), ("k1", 0.0), ("k1", 0), ("k3", "texts"), ("k5", (2, (4,))), ("k5", 2)):
        assert fast.call(x, **{**given, name: value}) is NotImplemented
    assert fast.call(x) is NotImplemented
    assert fast.call(x, **dict(reversed(given.items()))) is NotImplemented


def test_short_way_hands_on_arguments_and_sizes(run):
    fast, x = FastCall(), data(64)
    assert fast.add(run, [Nested(list, (Tensor(0),))], finish=lambda given: given, held=[0, 0], told=["N"])
    before = sys.getrefcount(x)
    for n in (64, 10, 0):
        y, first, second, told = fast.call([x[:n]])
        assert np.array_equal(y, doubled(x[:n], 4)) and first is second and first.size == n and told == n
    del first, second
    assert sys.getrefcount(x) == before


def test_a_size_that_no_array_tells():
    run = Executable(library_of(chain(4)), [ArgumentSpec(f32, ("N",))], [ResultSpec(f32, 1)], ["N"])
    fast, x = FastCall(), data(64)
    assert fast.add(run, [Tensor(0), SizeOf("N"), SizeOf("M")], single=True)
    assert np.array_equal(fast.call(x, 64, 1 << 40), doubled(x, 4))
    assert fast.call(x, 63, 5) is NotImplemented and fast.call(x, 64.0, 5) is NotImplemented


def test_elements_of_a_list_live_while_other_threads_run(run):
    fast = FastCall()
    assert fast.add(run, [Nested(list, (Tensor(0),))], single=True)
    items, expected = [data(300_007)], doubled(data(300_007), 4)

    def replace():
        for _ in range(200):
            items[0] = data(300_007)

    other = threading.Thread(target=replace)
    other.start()
    while other.is_alive():
        assert np.array_equal(fast.call(items), expected)
    other.join()
