"""The way to a GPU, over a driver that does nothing (tests/runtime/stub): built with gcc, used by a process of its own."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import kdsl as kd

HERE = Path(__file__).parent / "stub"
TESTS = [n.name for n in ast.parse((HERE / "calls.py").read_text()).body if getattr(n, "name", "").startswith("test_")]


@pytest.fixture(scope="session")
def stub(tmp_path_factory):
    """A folder with the do-nothing libcuda."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    folder = tmp_path_factory.mktemp("stub")
    command = ["gcc", "-shared", "-fPIC", "-O1", "-w", "-o", str(folder / "libcuda.so.1"), str(HERE / "driver.c"), "-ldl"]
    subprocess.run(command, check=True, timeout=600)
    return folder


def run_with(folder, *command):
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(HERE.parents[2])}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="session")
def answers(stub):
    for package in ("cuda.bindings", "numba.cuda"):
        pytest.importorskip(package)
    done = run_with(stub, "-m", "tests.runtime.stub.calls")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.oracle
@pytest.mark.parametrize("name", TESTS)
def test_over_a_driver_that_does_nothing(answers, name):
    assert not answers[name], answers[name]


HIT = """
import sys, numpy as np, kdsl as kd
kd.kernel(lambda x: x * 3)(kd.asarray(np.ones(10, "f4"), device="cuda"))
print("numba" in sys.modules)
"""


@pytest.mark.oracle
def test_a_program_on_disk_needs_no_numba(stub, answers, tmp_path, monkeypatch):
    monkeypatch.setenv("KDSL_CACHE_DIR", str(tmp_path))
    path = tmp_path / "hit.py"
    path.write_text(HIT)
    assert [run_with(stub, str(path)).stdout.strip() for _ in range(2)] == ["True", "False"]


def test_without_a_gpu_the_error_says_what_is_missing():
    from kdsl.runtime import cuda_driver

    if cuda_driver.missing() is None:
        pytest.skip("there is a GPU")
    import numpy as np

    with pytest.raises(kd.TargetError, match="no GPU can be used here"):
        kd.kernel(lambda x: x, target="cuda")(np.ones(3))
    with pytest.raises(kd.DeviceError, match="cannot lie on a GPU"):
        kd.asarray(np.ones(3), device="cuda")
