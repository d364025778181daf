"""The thread pool: each block exactly once, from any number of threads, before and after a fork; equal bits for any size."""

import ctypes
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from kdsl.runtime import pool
from kdsl.runtime.cpu import load
from kdsl.runtime.native import native

from .machine import COUNT, HOST


def count(rounds: int, blocks: int) -> None:
    """Every block of every launch runs exactly once."""
    launch = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(native().launch)
    kernel = load(COUNT, HOST).address("count")
    counters = np.zeros(max(1, blocks), np.int64)
    for _ in range(rounds):
        launch(kernel, counters.ctypes.data, blocks)
    assert (counters[:blocks] == rounds).all(), counters


@pytest.mark.parametrize("blocks", [0, 1, 2, 7, 64, 1009])
def test_each_block_once(blocks):
    count(2000, blocks)


def test_after_the_workers_fell_asleep():
    for _ in range(10):
        time.sleep(0.003)
        count(1, 40)


def test_many_threads_at_once():
    failures = []

    def run(blocks):
        try:
            count(2000, blocks)
        except AssertionError as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(b,)) for b in (2, 17, 64, 1000)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process")
def test_after_fork():
    count(100, 20)
    child = os.fork()
    if child == 0:
        try:
            count(100, 20)
            test_many_threads_at_once()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    count(100, 20)


PROGRAM = """
import hashlib, sys
import numpy as np
import kdsl as kd
from kdsl.dtypes import f32
from kdsl.runtime.call import ArgumentSpec, Executable, ResultSpec
from tests.runtime.machine import chain, doubled, library_of
from tests.runtime.test_pool import count
run = Executable(library_of(chain(3)), [ArgumentSpec(f32, ("N",))], [ResultSpec(f32, 1)], ["N"])
x = np.random.default_rng(0).standard_normal(1_000_003).astype("f4")
for _ in range(20):
    (y,) = run([x])
    assert np.array_equal(y, doubled(x, 3))
count(500, 100)
x = x[:1_000_000].reshape(2000, 500)
kernels = (
    lambda x: kd.sum(x), lambda x: kd.sum(x, axis=0), lambda x: kd.max(x, axis=1), lambda x: x[:500].T @ x[500:1000],
    lambda x: kd.exp(x - kd.max(x, axis=-1, keepdims=True)) / kd.sum(kd.exp(x), axis=-1, keepdims=True),
)
digest = hashlib.sha256(y.tobytes())
for f in map(kd.kernel, kernels):
    digest.update(f(x).tobytes())
print(digest.hexdigest())
"""


def test_equal_bits_for_any_number_of_threads(own_cache):
    outputs = set()
    for threads in (1, 2, 4):
        environment = {**os.environ, "KDSL_THREADS": str(threads)}
        command = [sys.executable, "-c", PROGRAM]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr
        outputs.add(done.stdout)
    assert len(outputs) == 1


def test_number_of_threads(monkeypatch):
    monkeypatch.setenv("KDSL_THREADS", "3")
    assert pool.threads() == 3
    monkeypatch.delenv("KDSL_THREADS")
    assert pool.threads() >= 1
    for wrong in ("0", "-1", "many"):
        monkeypatch.setenv("KDSL_THREADS", wrong)
        with pytest.raises(TypeError, match="KDSL_THREADS"):
            pool.threads()


def test_other_machines_get_valid_text():
    from kdsl.runtime import arena
    from kdsl.runtime.cpu import asm
    from kdsl.target import LEVELS

    text = pool.text(arm=True, mac=True) + arena.text(arm=True, linux=False)
    assert "yield" in asm(text, LEVELS["arm64"]) or HOST.level == "arm64"
