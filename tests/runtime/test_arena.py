"""The allocator: blocks are used again, whole, by one owner at a time, and given back in the end."""

import threading

import numpy as np
import pytest

from kdsl.runtime.buffers import empty
from kdsl.runtime.native import native, statistics, trim


def test_results_reuse_dead_results():
    trim()
    for n in (10, 1000, 5_000_000):
        x = empty((n,), np.dtype("f4"))
        where = x.ctypes.data
        assert where % 64 == 0
        del x
        y = empty((n,), np.dtype("f4"))
        assert y.ctypes.data == where
    assert statistics()["reused_blocks"] >= 3


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 5), (7,), (1000, 1000)])
def test_any_shape(shape):
    x = empty(shape, np.dtype("f8"))
    x[...] = 1
    assert x.shape == shape and x.flags.owndata and x.sum() == x.size


def test_sizes_do_not_overlap():
    rng = np.random.default_rng(0)
    live = {}
    for step in range(3000):
        n = int(rng.integers(0, 3)) if step % 3 else int(2 ** rng.uniform(0, 17))
        if len(live) > 50:
            key = list(live)[int(rng.integers(len(live)))]
            assert (live.pop(key) == key % 251).all()
        live[step] = empty((n,), np.dtype("u1"))
        live[step][...] = step % 251
    for key, x in live.items():
        assert (x == key % 251).all()


def test_trim_gives_everything_back():
    del_me = empty((1000,), np.dtype("f4"))
    del del_me
    assert statistics()["kept_bytes"] > 0
    trim()
    assert statistics()["kept_bytes"] == 0


def test_impossible_sizes():
    assert native().allocate(1 << 62) is None


def test_many_threads():
    wrong = []

    def work(number):
        for n in range(300):
            x = empty((n * 7,), np.dtype("i8"))
            x[...] = number
            if not (x == number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_no_more_is_kept_than_allowed():
    import ctypes

    from kdsl.runtime import arena

    allow = ctypes.CFUNCTYPE(None, ctypes.c_int64)(native().address("arena_limit"))
    allow(1 << 20)
    try:
        trim()
        blocks = [empty((100_000,), np.dtype("u1")) for _ in range(30)]
        while blocks:
            blocks.pop()
            assert statistics()["kept_bytes"] <= 1 << 20
        large = empty((1 << 21,), np.dtype("u1"))
        del large
        assert statistics()["kept_bytes"] <= 1 << 20
    finally:
        allow(arena.limit())
