"""How long does compiling take: cold, from the disk cache, and the import? (Rows of milliseconds, no competitor.)"""

import os
import subprocess
import sys
import time

import pytest
from conftest import THREADS, record

GALLERY = """
import math, os, sys, time
import numpy as np
import kdsl as kd
rng = np.random.default_rng(0)
a = lambda *s: rng.standard_normal(s).astype("f4")
def gelu(x): return 0.5 * x * (1 + kd.tanh(0.79788456 * (x + 0.044715 * x * x * x)))
def softmax(x):
    e = kd.exp(x - kd.max(x, axis=-1, keepdims=True))
    return e / kd.sum(e, axis=-1, keepdims=True)
def layer_norm(x, w, b):
    d = x - kd.mean(x, axis=-1, keepdims=True)
    return d * kd.rsqrt(kd.mean(d * d, axis=-1, keepdims=True) + 1e-5) * w + b
def linear_gelu(x, w, b): return gelu(x @ w + b)
def attention(q, k, v):
    s = (q @ k.mT) * (1 / math.sqrt(q.shape[-1]))
    i, j = kd.arange(q.shape[-2])[:, None], kd.arange(q.shape[-2])[None, :]
    return softmax(kd.where(j <= i, s, -math.inf)) @ v
def cross_entropy(x, t): return kd.mean(kd.logsumexp(x, axis=-1) - kd.take_along_axis(x, t[:, None], axis=-1)[:, 0])
gallery = {
    "gelu": (gelu, (a(256, 1024),)), "softmax": (softmax, (a(64, 1024),)), "layer norm": (layer_norm, (a(64, 256), a(256), a(256))),
    "linear + GELU": (linear_gelu, (a(64, 96), a(96, 128), a(128))), "attention": (attention, (a(4, 128, 64),) * 3),
    "cross-entropy": (cross_entropy, (a(16, 500), rng.integers(0, 500, 16))),
}
kd.kernel(lambda x: x + 1)(a(3))                            # starting LLVM is not part of compiling a kernel
for name, (f, args) in gallery.items():
    k = kd.kernel(f)
    start = time.perf_counter(); y = k(*args); print(f"{name} forward|{(time.perf_counter() - start) * 1e3}")
    floats = [x for x in args if x.dtype.kind == "f"]
    start = time.perf_counter(); y, pullback = k.pullback(*args); pullback(np.ones_like(y)); print(f"{name} backward|{(time.perf_counter() - start) * 1e3}")
"""


def run_gallery(folder) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", GALLERY], env={**os.environ, "KDSL_CACHE_DIR": str(folder)}, capture_output=True, text=True, check=True)
    return {name: float(ms) for name, _, ms in (line.partition("|") for line in done.stdout.splitlines())}


@pytest.mark.parametrize("state", ["cold", "from the disk cache"])
def test_gallery(benchmark, tmp_path_factory, state):
    folder = tmp_path_factory.getbasetemp() / "kdsl-cache"
    if state == "cold":
        folder = tmp_path_factory.mktemp("cold")
    else:
        run_gallery(folder)
    times = benchmark.pedantic(run_gallery, args=(folder,), rounds=1)
    median = sorted(times.values())[len(times) // 2]
    print(f"\n{state}: median {median:.1f} ms; " + ", ".join(f"{n} {t:.1f}" for n, t in times.items()))
    limits = {"cold": 100, "from the disk cache": 10}
    row = {"question": f"compile the gallery, {state}", "work": "ms each", "threads": THREADS, "target": limits[state],
           "median_ms": {"median": median, **times}, "lowest_ms": {}, "ratios": {}}  # fmt: skip
    record("compile", row)


def test_import(benchmark):
    def seconds(code: str) -> float:
        best = 1e9
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            best = min(best, time.perf_counter() - start)
        return best * 1e3

    numpy, ours = seconds("import numpy"), seconds("import kdsl")
    benchmark.pedantic(lambda: None, rounds=1)
    print(f"\nimport numpy {numpy:.0f} ms, import kdsl {ours:.0f} ms")
    row = {"question": "import kdsl beyond NumPy's", "work": "ms", "threads": THREADS, "target": 100, "median_ms": {"kdsl": ours - numpy, "NumPy": numpy}, "lowest_ms": {}, "ratios": {}}
    record("compile", row)
