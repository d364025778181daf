"""How long does compiling take: cold, from the disk cache, and the import? (Rows of milliseconds, no competitor.)

Measured is processor time, user and system: compiling runs on one thread, and what other processes do does not count."""

import os
import subprocess
import sys

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
    "gelu": (gelu, (a(256, 1024),)), "softmax": (softmax, (a(64, 1024),)),
    "layer norm": (layer_norm, (a(64, 256), a(256), a(256))),
    "linear + GELU": (linear_gelu, (a(64, 96), a(96, 128), a(128))), "attention": (attention, (a(4, 128, 64),) * 3),
    "cross-entropy": (cross_entropy, (a(16, 500), rng.integers(0, 500, 16))),
}
kd.kernel(lambda x: x + 1)(a(3))                            # starting LLVM is not part of compiling a kernel
for name, (f, args) in gallery.items():
    k = kd.kernel(f)
    start = time.process_time(); y = k(*args); print(f"{name} forward|{(time.process_time() - start) * 1e3}")
    want = k.reference(*args)
    assert np.abs(y - want).max() <= 1e-3 * (1 + np.abs(want).max()), name
    floats = [x for x in args if x.dtype.kind == "f"]
    start = time.process_time(); y, pullback = k.pullback(*args); pullback(np.ones_like(y))
    print(f"{name} backward|{(time.process_time() - start) * 1e3}")
"""


GPU_GALLERY = GALLERY.split("gallery = {")[0] + """
import numba.cuda
h, f = kd.bf16, kd.f32
gallery = {
    "gelu": (gelu, (f[256, 1024],)), "softmax": (softmax, (f[64, 1024],)),
    "layer norm": (layer_norm, (f[64, 256], f[256], f[256])), "cross-entropy": (cross_entropy, (f[16, 500], kd.i64[16])),
    "linear + GELU": (linear_gelu, (h[512, 512], h[512, 512], h[512])),
    "attention": (attention, (h[4, 512, 64],) * 3),
}
for name, (function, kinds) in gallery.items():
    k = kd.kernel(function)
    start = time.process_time(); k.ptx(*kinds, arch="sm_90a"); print(f"{name}|{(time.process_time() - start) * 1e3}")
"""


def run_gallery(folder, code: str = GALLERY) -> dict[str, float]:
    env = {**os.environ, "KDSL_CACHE_DIR": str(folder)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
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


def test_gpu_gallery(benchmark, tmp_path):
    """To PTX for sm_90a, after numba's import; the first kernel brings its end of the compiler along."""
    pytest.importorskip("numba_cuda")
    times = benchmark.pedantic(run_gallery, args=(tmp_path, GPU_GALLERY), rounds=1)
    tiles = ("linear + GELU", "attention")
    print("\nPTX, cold: " + ", ".join(f"{n} {t:.0f}" for n, t in times.items()) + " ms")
    for kind, names, limit in (("maps and rows", set(times) - {*tiles}, 600), ("tiles", tiles, 2000)):
        row = {"question": f"compile the gallery to PTX, cold: {kind}", "work": "ms each", "threads": THREADS, "target": limit,
               "median_ms": {n: t for n, t in times.items() if n in names}, "lowest_ms": {}, "ratios": {}}  # fmt: skip
        record("compile", row)


def test_import(benchmark, tmp_path):
    """User and system time of the process: another's work does not count. Bytecode is kept, as it is for users."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = str(tmp_path)

    def seconds(module: str) -> float:
        code = f"import {module}, time; print(time.process_time())"
        return float(subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True).stdout)

    seconds("kdsl")
    pairs = sorted((seconds("kdsl") - seconds("numpy")) * 1e3 for _ in range(9))
    ours, numpy = pairs[len(pairs) // 2], seconds("numpy") * 1e3
    benchmark.pedantic(lambda: None, rounds=1)
    print(f"\nimport kdsl: {ours:.0f} ms beyond NumPy's {numpy:.0f} ms")
    row = {"question": "import kdsl beyond NumPy's", "work": "ms", "threads": THREADS, "target": 100,
           "median_ms": {"kdsl": ours, "NumPy": numpy}, "lowest_ms": {}, "ratios": {}}  # fmt: skip
    record("compile", row)


SHARES = GALLERY.replace(
    "for name, (f, args)",
    """
from kdsl import pipeline, record
spent = {}
def timed(module, name, stage):
    inner = getattr(module, name)
    def outer(*args):
        start = time.process_time()
        try: return inner(*args)
        finally: spent[stage] = spent.get(stage, 0) + (time.process_time() - start) * 1e3
    setattr(module, name, outer)
for name in ("simplify", "vjp", "expand", "group", "schedule", "emit_module", "load"): timed(pipeline, name, name)
for name in ("verify", "verify_loops"): timed(record, name, "verify")
for name, (f, args)""",
) + """
for stage, ms in spent.items(): print(f"{stage}|{ms}")
"""


def test_shares(benchmark, tmp_path):
    """Which stage takes how much of compiling the gallery cold, in user time; verification is to stay under 5 %."""
    times = benchmark.pedantic(run_gallery, args=(tmp_path, SHARES), rounds=1)
    stages = {name: ms for name, ms in times.items() if " " not in name}
    total = sum(stages.values())
    print("\n" + ", ".join(f"{name} {100 * ms / total:.0f} %" for name, ms in stages.items()) + f" of {total:.0f} ms")
