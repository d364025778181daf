"""`out=` behaves as if all was read first, however the arrays lie; nothing is copied where that cannot be told."""

from __future__ import annotations

import numpy as np
import pytest

import kdsl as kd

rng = np.random.default_rng(11)
N = 3000


def fresh(n=N):
    return rng.standard_normal(n).astype("f4")


def adam(w, g, m, v):
    m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
    return w - 0.1 * m / (kd.sqrt(v) + 1e-3), m, v


PROGRAMS = {  # name: (kernel, number of arguments)
    "map": (lambda x, y: x * 2 + y, 2),
    "flipped": (lambda x: x[::-1] * 1, 1),
    "one of them flipped": (lambda x, y: x + y[::-1], 2),
    "shifted": (lambda x: kd.roll(x, 1), 1),
    "several": (adam, 4),
    "crossed": (lambda x, y: (y + 1, x * 2), 2),
    "row": (lambda x: x / kd.sum(kd.abs(x)), 1),
    "value and sum": (lambda x: (x + 1, x * kd.sum(x)), 1),
    "pieces": (lambda x, y: kd.concat([y[: N // 3], x[N // 3 :]]), 2),
    "moved pieces": (lambda x, y: kd.concat([y[N // 3 :], x[: N // 3]]), 2),
    "running": (lambda x: kd.cumulative_sum(x), 1),
    "sorted": (lambda x: kd.sort(x), 1),
    "matrix": (lambda x: kd.reshape(kd.reshape(x, (50, 60)) @ kd.reshape(x, (60, 50)), (2500,))[:1] + x, 1),
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("named", [False, True])
def test_over_every_argument(name, named):
    function, count = PROGRAMS[name]
    if named and ("piece" in name or name == "matrix"):
        pytest.skip("its sizes are fixed")
    f = kd.kernel(function, types=(kd.f32["N"],) * count if named else None)
    arguments = [fresh() for _ in range(count)]
    expected = f(*arguments)
    single = isinstance(expected, np.ndarray)
    for _ in range(2):  # the long way, then the short one
        for first in range(count):
            given = [x.copy() for x in arguments]
            if single:
                assert f(*given, out=given[first]) is given[first]
                np.testing.assert_array_equal(given[first], expected)
            else:
                wanted = [given[(first + i) % count] for i in range(min(count, len(expected)))]
                wanted += [np.empty(N, "f4") for _ in range(len(expected) - len(wanted))]
                f(*given, out=wanted)
                for got, want in zip(wanted, expected):
                    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("shift", [-7, -1, 0, 1, 8, N])
def test_views_of_one_memory(shift):
    f = kd.kernel(lambda x, y: x * 2 + y)
    for step in (1, 2, -1):
        for _ in range(2):
            memory = fresh(4 * N)
            lies = slice(N, N + step * N, step) if step > 0 else slice(2 * N, N, -1)
            x, y, out = memory[N : 2 * N], fresh(), memory[lies]
            if step > 0:
                out = memory[N + shift : N + shift + step * N : step]
            expected = x * 2 + y
            f(x, y, out=out)
            np.testing.assert_allclose(out, expected, rtol=1e-6)


def test_one_memory_for_two_arguments_and_for_two_results():
    f = kd.kernel(lambda x, y: (x + y, x - y))
    for _ in range(2):
        x, memory = fresh(), np.zeros(2 * N, "f4")
        plus, minus = f(x, x)
        out = x.copy()
        f(out, out, out=(memory[:N], out))
        np.testing.assert_array_equal(memory[:N], plus)
        np.testing.assert_array_equal(out, minus)
        f(x, x, out=(memory[:N], memory[N // 2 : N // 2 + N]))  # the later one wins where they meet
        np.testing.assert_array_equal(memory[N // 2 : N // 2 + N], minus)
        np.testing.assert_array_equal(memory[: N // 2], plus[: N // 2])


def test_an_index_outside_leaves_what_was_there():
    f = kd.kernel(lambda x, i: kd.take(x, i))
    x, i, out = fresh(10), np.arange(10), np.zeros(10, "f4")
    f(x, i, out=out)
    np.testing.assert_array_equal(out, x)
    i[3] = 10
    for _ in range(2):
        before = i.copy(), x.copy()
        with pytest.raises(kd.OutOfRangeError, match="index 10"):
            f(x, i, out=x)
        np.testing.assert_array_equal(x, before[1])


def test_no_copy_in_place():
    """The result's memory is the argument's where each element is read before it is written."""
    from kdsl.ir.in_place import in_place

    def pairs(function, *types):
        return set(in_place(kd.kernel(function).looked_at(types, {}, None)[0].record["scheduled"]))

    t = kd.f32[1000, 7]
    assert {(0, 0), (2, 1), (3, 2)} <= pairs(adam, t, t, t, t)
    assert (0, 0) in pairs(lambda x, y: x + y, kd.f32["N"], kd.f32["N"])
    assert pairs(lambda x: x[::-1] * 1, kd.f32[100]) == set()
    assert pairs(lambda x, y: x + y[::-1], kd.f32[100], kd.f32[100]) == {(0, 0)}
    assert pairs(lambda x: x - kd.max(x), kd.f32[100]) == set()
    assert pairs(lambda x: kd.cumulative_sum(x), kd.f32[100]) <= {(0, 0)}
