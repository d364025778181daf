"""What ranges.py proves, and what it must not prove."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdsl.ir.ranges import Ranges
from kdsl.ir.sizes import evaluate, maximum, minimum, size

N, D, i, j, c, p = map(size, ("N", "D", "i", "j", "c", "p"))
T0, T1 = size("#0"), size("#1")


def ranges(*bounds):
    out = Ranges(frozenset({"N", "D"}))
    for name, lo, hi, tile in bounds:
        out.add_loop(name, lo, hi, tile)
    out.add("#1", 0, 31)
    return out


@pytest.mark.parametrize(
    ("bounds", "index", "extent"),
    [
        ((("i", 0, 96, 32),), i + T1, 96),
        ((("i", 0, N, 1),), i, N),
        ((("i", 0, N - N % 32, 32),), i + T1, N),
        ((("i", 0, N // 32 * 32, 32),), i + T1, N),
        ((("i", 0, N * D, 1),), i // D, N),
        ((("i", 0, N * 64, 1),), i % 64, 64),
        ((("i", 0, N * 64, 1),), i // 64, N),
        ((("p", 0, 8, 1), ("i", 128 * p, 128 * p + 128, 32)), i + T1, 1024),
        ((("p", 0, N, 64), ("i", p, minimum(p + 64, N), 1)), i, N),
        ((("p", 0, N, 64), ("i", maximum(0, p - 3), p + 1, 1)), i, N),
        ((("i", 0, N, 1),), N - 1 - i, N),
        ((("i", 0, N, 1), ("j", 0, i + 1, 1)), i - j, N),
        ((("i", 0, N, 1), ("j", 0, D, 1)), i * D + j, N * D),
        ((("i", 0, 64, 1), ("j", 0, 6, 1)), (i // 8) * 6 + j, 48),
    ],
)
def test_proved(bounds, index, extent):
    assert ranges(*bounds).inside(index, extent)


@pytest.mark.parametrize(
    ("bounds", "index", "extent"),
    [
        ((("i", 0, 97, 32),), i + T1, 97),
        ((("i", 0, N, 32),), i + T1, N),
        ((("i", 0, N, 1),), i + 1, N),
        ((("i", 0, N, 1),), i - 1, N),
        ((("i", 0, N * D, 1),), i // D, D),
        ((("i", 0, N, 1),), i, D),
        ((), size("unknown"), N),
        ((("i", 0, N, 1), ("j", 0, i + 2, 1)), i - j, N),
        ((("i", 0, N, 1), ("j", 0, D, 1)), i * D + j, N * D - 1),
    ],
)
def test_not_proved(bounds, index, extent):
    assert not ranges(*bounds).inside(index, extent)


def test_last_step():
    r = ranges(("p", 0, 1000, 256))
    assert r.last_step(0, 100, 32) == 96
    assert r.last_step(0, N * 32, 32) == N * 32 - 32
    assert r.last_step(0, N, 32) == N - 1
    assert r.last_step(p, minimum(p + 256, 992), 32) == minimum(p + 256, 992) - 32


def expressions(names):
    leaf = st.one_of(st.integers(-3, 9), st.sampled_from([size(n) for n in names]))

    def larger(x):
        pair = st.tuples(x, x)
        divided = st.tuples(x, st.sampled_from([2, 4, 8, 32]))
        return st.one_of(
            pair.map(lambda p: p[0] + p[1]),
            pair.map(lambda p: p[0] - p[1]),
            st.tuples(x, st.integers(-2, 8)).map(lambda p: p[0] * p[1]),
            divided.map(lambda p: p[0] // p[1]),
            divided.map(lambda p: p[0] % p[1]),
            pair.map(lambda p: minimum(*p)),
            pair.map(lambda p: maximum(*p)),
        )

    return st.recursive(leaf, larger, max_leaves=4)


@settings(max_examples=400, deadline=None)
@given(
    expressions(["N", "D"]),
    expressions(["N", "D"]),
    st.sampled_from([1, 2, 4, 8]),
    expressions(["N", "D", "i"]),
    expressions(["N", "D", "i"]),
    st.sampled_from([1, 2, 4]),
    expressions(["N", "D", "i", "j"]),
    expressions(["N", "D"]),
)
def test_what_is_proved_holds(lo, hi, tile, lo2, hi2, tile2, index, extent):
    """Random nests of two loops, run for small sizes: an index that is proved inside never leaves."""
    if not ranges(("i", lo, hi, tile), ("j", lo2, hi2, tile2)).inside(index, extent):
        return
    for n, d in itertools.product(range(1, 8), repeat=2):
        sizes = {"N": n, "D": d}
        for first in range(evaluate(lo, sizes), evaluate(hi, sizes), tile):
            outer = {**sizes, "i": first}
            for second in range(evaluate(lo2, outer), evaluate(hi2, outer), tile2):
                assert 0 <= evaluate(index, {**outer, "j": second}) < evaluate(extent, sizes)


def test_steps_of_loops_tell_remainders():
    """Blocks of 24 rows, in them tiles of 6: (41 - i) // 6 tiles are left, and none of them reaches over the end."""
    known = ranges(("i", 0, 36, 24), ("j", 0, minimum(4, (41 - i) // 6), 1))
    known.add("c", 0, 5)
    assert known.inside(i + 6 * j + c, 36)
    assert not known.inside(i + 6 * j + c, 35)
    odd = ranges(("i", 0, 36, 20), ("j", 0, minimum(4, (41 - i) // 6), 1))
    odd.add("c", 0, 5)
    assert not odd.inside(i + 6 * j + c, 36)
