"""Section 10 of the contract, what of it can be counted; the times themselves are measured in bench/."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import kdsl as kd
from tests.contract.saying import Counted

ROOT = Path(__file__).parents[2]
BENCH = sorted((ROOT / "bench").glob("bench_*.py"))


def python(program, **environment):
    out = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, **environment},
        cwd=ROOT,
    )
    assert out.returncode == 0, out.stderr
    return out.stdout.strip()


def test_bench_has_one_file_per_question():
    """bench/ (pytest-benchmark) has one file per question"""
    assert len(BENCH) >= 5
    for path in BENCH:
        text = path.read_text()
        assert text.startswith('"""'), f"{path.name} does not say its question"
    assert "benchmark" in "".join(p.read_text() for p in (ROOT / "bench").glob("*.py"))


@pytest.mark.parametrize("path", BENCH, ids=lambda p: p.stem)
def test_correctness_is_checked_before_timing(path):
    """correctness is checked before timing"""
    text = path.read_text() + (ROOT / "bench" / "conftest.py").read_text()
    assert any(word in text for word in ("assert ", "assert_close", "assert_allclose"))


@pytest.mark.parametrize("question", ["compile", "maps", "rows", "matmul", "attention", "gpt"])
def test_every_promised_number_has_a_file(question):
    """the number that counts is the *ratio* (each promised one is measured somewhere)"""
    assert any(question in p.stem for p in BENCH)


def test_one_compilation_per_specialisation():
    """Cold compile of a typical kernel (happens once)"""
    f = kd.kernel(lambda x: kd.exp(x) * 1.53125)
    x = np.ones((5, 7), "f4")
    with Counted() as first:
        f(x)
    with Counted() as again:
        for _ in range(3):
            f(x)
            f(x.copy())
    assert first.made == 1 and again.made == 0


def test_from_the_disk_cache_nothing_is_compiled(tmp_path):
    """from the disk cache (a second process loads and compiles nothing)"""
    program = (
        "import numpy as np, kdsl as kd\n"
        "f = kd.kernel(lambda x: kd.exp(x) / kd.sum(kd.exp(x), axis=-1, keepdims=True))\n"
        "x = np.ones((5, 7), 'f4'); f(x); f.vjp(x, x); print(kd.compilations())"
    )
    first, second = (eval(python(program, KDSL_CACHE_DIR=str(tmp_path))) for _ in range(2))
    assert first["compiled"] >= 2 and first["loaded"] == 0
    assert second["compiled"] == 0 and second["loaded"] >= 2


def test_import_kdsl_imports_nothing_heavy():
    """`import kdsl` adds under 0.1 s to NumPy's (so it imports neither numba nor LLVM's library, and nothing optional)"""
    heavy = (
        "numba",
        "torch",
        "jax",
        "scipy",
        "matplotlib",
        "pandas",
        "safetensors",
        "tqdm",
        "hypothesis",
        "llvmlite.binding",
    )
    program = f"import sys, kdsl; print([m for m in {heavy!r} if m in sys.modules])"
    assert python(program) == "[]"


def test_importing_compiles_and_loads_nothing():
    """`import kdsl` adds under 0.1 s to NumPy's"""
    assert sum(eval(python("import kdsl as kd; print(kd.compilations())")).values()) == 0


def test_a_call_on_small_arrays_runs_no_python_of_kdsl():
    """A call on small arrays costs no more than the same NumPy ufunc (so at most a few Python frames stand in the way)"""
    f = kd.kernel(lambda a, b, c: a + b * c)
    a = np.ones(64, "f4")
    f(a, a, a), f(a, a, a)
    frames = []

    def seen(frame, event, _argument):
        if event == "call":
            frames.append(frame.f_code.co_name)

    sys.setprofile(seen)
    try:
        f(a, a, a)
    finally:
        sys.setprofile(None)
    assert len(frames) <= 3, frames
