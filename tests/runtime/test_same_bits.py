"""Calls side by side, after a fork, and with any number of threads give the same bits."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

PROGRAM = """
import hashlib, numpy as np, kdsl as kd
rng = np.random.default_rng(0)
n = lambda *s: rng.standard_normal(s).astype("f4")
def softmax(s):
    e = kd.exp(s - kd.max(s, axis=-1, keepdims=True)); return e / kd.sum(e, axis=-1, keepdims=True)
def norm(x, w, b):
    c = x - kd.mean(x, axis=-1, keepdims=True)
    return c * kd.rsqrt(kd.mean(c * c, axis=-1, keepdims=True) + 1e-5) * w + b
x, q, k, v = n(513, 384), n(6, 130, 32), n(6, 130, 32), n(6, 130, 32)
attention = kd.kernel(lambda q, k, v: softmax(q @ k.mT) @ v)
table, index = n(1000, 96), rng.integers(0, 1000, 5000)
calls = [
    lambda: kd.kernel(lambda x, w: kd.tanh(x @ w))(x, n(384, 200)), lambda: attention(q, k, v),
    lambda: attention.vjp(q, k, v, n(6, 130, 32)), lambda: kd.kernel(norm).vjp(x, n(384), n(384), n(513, 384)),
    lambda: kd.kernel(lambda t, u: kd.scatter_add(t, index, u))(table, n(5000, 96)),
    lambda: kd.kernel(lambda t: t[index]).vjp(table, n(5000, 96)), lambda: kd.kernel(lambda x: kd.sum(x * x))(n(1999, 333)),
    lambda: kd.kernel(softmax)(n(2000, 700)), lambda: kd.kernel(lambda x: kd.sum(x, axis=0))(n(3000, 301)),
]
def digest(results):
    parts = results if isinstance(results, (tuple, list)) else [results]
    return hashlib.sha256(b"".join(np.ascontiguousarray(p).tobytes() for p in parts)).hexdigest()
"""


def run(program, **environment):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + program], env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


def test_any_number_of_threads():
    found = [run("print(*[digest(c()) for c in calls])", KDSL_THREADS=n) for n in ("1", "2", "4")]
    assert len(found[0]) == 9 and found[0] == found[1] == found[2]


def test_after_a_fork():
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    child = """
import os, sys
a = n(2000, 700); f = kd.kernel(softmax); before = digest(f(a))
if os.fork() == 0:
    os._exit(0 if digest(f(a)) == before else 1)
print(os.WEXITSTATUS(os.wait()[1]), digest(f(a)) == before)
"""
    assert run(child, KDSL_THREADS="2") == ["0", "True"]


def test_large_kernels_from_several_threads():
    import kdsl as kd

    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((700, 300)).astype("f4"), rng.standard_normal((300, 260)).astype("f4")
    product, total = kd.kernel(lambda x, w: kd.tanh(x @ w)), kd.kernel(lambda x: kd.sum(kd.exp(x), axis=0))
    want = product(x, w), total(x)
    wrong = []

    def work():
        for _ in range(20):
            if not np.array_equal(product(x, w), want[0]) or not np.array_equal(total(x), want[1]):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
