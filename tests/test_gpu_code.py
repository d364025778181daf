"""PTX and cubins: kept on disk, found without the compiler, and a clear word where a piece of it is missing."""

import os
import subprocess
import sys

import pytest

import kdsl as kd
from kdsl import gpu_code
from kdsl.codegen.cuda import assemble
from kdsl.codegen.cuda.kernels import GpuKernel, Parameter
from tests.emulator.kernels import needs_numba

X = kd.f32[64, 128]


@kd.kernel(target="cuda")
def double(x):
    return x + x


def test_stages_end_with_source_and_ptx_where_the_target_is_a_gpu(monkeypatch):
    monkeypatch.setattr(gpu_code, "_compiled", lambda kernel, arch: f".version 9.0 of {kernel.name} for {arch}")
    stages = kd.kernel(lambda x: x - 1.5, target="cuda:sm_90").stages(X)
    assert list(stages)[-2:] == ["source", "assembly"]
    assert "store(" in stages["source"] and "for sm_90" in stages["assembly"]


def test_code_is_kept_for_each_architecture(monkeypatch):
    monkeypatch.setattr(gpu_code, "_compiled", lambda kernel, arch: f".version 9.0 of {kernel.name}\n.target {arch}")
    monkeypatch.setattr(gpu_code, "assemble", lambda ptx, name, arch: assemble.Assembled(name, arch, ptx.encode(), 8, 0, 0, 0))
    kernel = GpuKernel("k", "def k(n):\n    pass", 32, 0, 1, (Parameter("n", "size"),), ())
    for arch in ("sm_80", "sm_90a"):
        assert arch in gpu_code.ptx_of(kernel, arch)
        found = gpu_code.assembled(kernel, arch)
        assert found.arch == arch and arch.encode() in found.cubin


def test_sources_of_derivatives():
    assert "def double_vjp(" in double.vjp.source(X, X, target="cuda")
    assert double.pullback.source(X, target="cuda").count("(numba.cuda)") == 2


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.setattr(gpu_code, "_version", lambda name: None if "nvvm" in name else "1")
    with pytest.raises(kd.TargetError, match="PTX for sm_80 needs nvidia-nvvm") as caught:
        kd.kernel(lambda x: x * 1.625).ptx(X)
    assert "pip install 'kdsl[cuda]'" in str(caught.value)


def test_a_missing_disassembler_is_named(monkeypatch):
    monkeypatch.setattr(assemble, "find_nvdisasm", lambda: None)
    with pytest.raises(kd.TargetError, match="nvdisasm, which is not installed"):
        assemble.disassemble(assemble.Assembled("k", "sm_80", b"", 8, 0, 0, 0))


def test_what_is_no_architecture_is_refused():
    with pytest.raises(kd.TargetError, match="not compiled for 'sm_10'"):
        double.ptx(X, arch="sm_10")


def test_facts_are_read_off_the_linkers_log():
    log = "k\n    8 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads\nptxas info: Used 40 registers, 512 bytes smem"
    assert assemble.facts(log) == (40, 28, 8, 512)
    with pytest.raises(ValueError, match="does not say"):
        assemble.facts("nothing")


@needs_numba
@pytest.mark.oracle
def test_a_kernel_on_disk_is_found_without_the_compiler(tmp_path):
    program = """
import sys, time
import kdsl.gpu_code as gpu
from kdsl import kept
kept.cache.IMPORTED = time.time() + 10
from kdsl.codegen.cuda.kernels import GpuKernel, Parameter
kernel = GpuKernel("k", "def k(n):\\n    pass", 32, 0, 1, (Parameter("n", "size"),), ())
print(gpu.assembled(kernel, "sm_80").registers, ".entry k" in gpu.ptx_of(kernel, "sm_80"), "numba" in sys.modules)
"""
    environment = {**os.environ, "KDSL_CACHE_DIR": str(tmp_path)}
    first, second = (
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
        ).stdout.split()
        for _ in range(2)
    )
    assert first[1:] == ["True", "True"] and second == [first[0], "True", "False"]
