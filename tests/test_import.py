"""`import kdsl` brings only what naming kernels takes; the compiler, LLVM and all that looks at kernels come when asked for."""

import subprocess
import sys

import pytest

OURS = ("pipeline", "kept", "transforms", "schedule", "codegen", "ir.meaning", "ir.loops", "ir.interpreter", "emulator",
        "inspection.verify", "inspection.explain", "interop.torch")  # fmt: skip
OTHERS = ("numba", "llvmlite", "torch", "matplotlib", "cuda", "safetensors", "tqdm", "scipy", "nn", "importlib.metadata",
          "hashlib")  # fmt: skip


@pytest.fixture(scope="module")
def imported():
    """What `import kdsl` adds to what NumPy has brought."""
    code = "import sys, numpy; before = set(sys.modules); import kdsl; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("name", [f"kdsl.{n}" for n in OURS] + list(OTHERS))
def test_comes_later(name, imported):
    assert name not in imported


def test_a_kernel_on_the_cpu_never_imports_numba():
    code = (
        "import sys, numpy as np, kdsl as kd\n"
        "x = np.ones(3, 'f4'); f = kd.kernel(lambda x: kd.exp(x)); f(x); f.vjp(x, x)\n"
        "print([n for n in ('numba', 'torch', 'matplotlib') if n in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
