"""What ranges.py proves, and what it must not prove."""

import pytest

from kdsl.ir.ranges import Ranges
from kdsl.ir.sizes import maximum, minimum, size

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
