"""Section 7 of the contract: stages, source, explain, reference, verify."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Mapping

import numpy as np
import pytest

import kdsl as kd
from kdsl.codegen.cuda.assemble import find_nvdisasm
from tests.contract.saying import equal, main_kernels
from tests.tolerance import assert_close

NAMES = ["traced", "simplified", "derived", "grouped", "lowered", "scheduled", "source", "assembly"]


@kd.kernel
def softmax(x):
    e = kd.exp(x - kd.max(x, axis=-1, keepdims=True))
    return e / kd.sum(e, axis=-1, keepdims=True)


def in_order(names, found):
    rest = iter(found)
    return all(name in rest for name in names)


# -- stages and source ------------------------------------------------------------------------------------------------


def test_stages_are_an_ordered_mapping_of_texts():
    """`f.stages(*types)`: ordered mapping, stage name to printable text (traced, simplified, derived, grouped, ...)"""
    stages = softmax.stages(kd.f32[64, 32])
    assert isinstance(stages, Mapping)
    assert in_order([n for n in NAMES if n != "derived"], list(stages)), list(stages)
    assert all(isinstance(text, str) and text.strip() for text in stages.values())
    assert "exp" in stages["traced"]


def test_stages_of_a_backward_have_the_derived_program():
    """`f.vjp` ... are looked at in the same way (`.stages` ...)"""
    stages = softmax.vjp.stages(kd.f32[64, 32], kd.f32[64, 32])
    assert in_order(NAMES, list(stages)), list(stages)


def test_types_are_types_arrays_or_static_values():
    """`*types` below are types, arrays or static values"""
    f = kd.kernel(lambda x, n, s: x * n + s)
    x = np.ones((3, 5), "f4")
    texts = [
        f.llvm(kd.f32[3, 5], 2, kd.f32[()]),
        f.llvm(x, 2, np.float32(1)),
        f.llvm(kd.f32[3, 5], 2, np.float32(7)),
    ]
    assert texts[0] == texts[1] == texts[2]
    assert f.llvm(x, 3, kd.f32[()]) != texts[0]


def test_types_may_be_nested():
    """`*types` below are types ... (in the structure of the arguments)"""
    f = kd.kernel(lambda tree: tree["a"] + tree["b"][0])
    assert "add" in f.stages({"a": kd.f32[3], "b": [kd.f32[3]]})["traced"]


def test_types_may_have_named_sizes():
    """types are `kd.f32["N", 4]` where the annotation says so"""
    f = kd.kernel(lambda x: x + 1, types=(kd.f32["N", 4],))
    assert "N" in f.stages(kd.f32["N", 4])["traced"]
    assert f.stages(kd.f32[7, 4])["traced"] == f.stages(np.ones((9, 4), "f4"))["traced"]


@pytest.mark.parametrize("what", ["source", "llvm", "asm"])
def test_source_llvm_and_asm_are_one_str(what):
    """`f.source(*types, target="cpu"|"cuda")`, `f.llvm(*types)`, `f.asm(*types)` ...: one str"""
    text = getattr(softmax, what)(kd.f32[64, 32])
    assert isinstance(text, str)
    assert {"source": "define", "llvm": "define", "asm": "ret"}[what] in text
    assert softmax.source(kd.f32[64, 32], target="cpu") == softmax.source(kd.f32[64, 32])


def test_looking_takes_several_kernels():
    """several kernels are ... one after another (in one str)"""
    f = kd.kernel(lambda x: (x @ x) @ (x @ x).T)
    assert isinstance(f.llvm(kd.f32[64, 64]), str)


def test_looking_runs_nothing():
    """types are enough: no argument is needed to look"""
    huge = kd.f32[1 << 20, 1 << 20]
    assert "define" in softmax.llvm(huge)
    assert softmax.explain(huge).kernels


@pytest.mark.parametrize("arguments", [(), (kd.f32[3], kd.f32[3]), ("text",)])
def test_types_that_do_not_fit_are_errors(arguments):
    """`*types` ... (what does not fit the kernel is told)"""
    with pytest.raises(kd.KdslError):
        softmax.stages(*arguments)


needs_cuda_compiler = pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="needs numba-cuda: pip install 'kdsl[cuda]'"
)


def test_source_for_cuda_is_readable_numba():
    """`f.source(*types, target="cpu"|"cuda")`"""
    assert "cuda" in softmax.source(kd.f32[4096, 1024], target="cuda")


@pytest.mark.oracle
@needs_cuda_compiler
@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_90a"])
def test_ptx_is_one_str(arch):
    """`f.ptx(*types, arch="sm_80")`: one str"""
    text = softmax.ptx(kd.f32[4096, 1024], arch=arch)
    assert isinstance(text, str) and f".target {arch}" in text


@pytest.mark.oracle
@needs_cuda_compiler
@pytest.mark.skipif(find_nvdisasm() is None, reason="needs nvdisasm: pip install nvidia-cuda-nvdisasm")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_90a"])
def test_sass_is_one_str(arch):
    """`f.sass(*types, arch=…)`: one str"""
    text = softmax.sass(kd.f32[4096, 1024], arch=arch)
    assert isinstance(text, str) and "MUFU.EX2" in text


@pytest.mark.oracle
@needs_cuda_compiler
def test_several_kernels_are_several_ptx_modules():
    """several kernels are several PTX modules one after another"""
    f = kd.kernel(lambda x: (x @ x) @ (x @ x).T, target="cuda")
    count = len(f.explain(kd.f32[256, 256]).kernels)
    assert count > 1 and f.ptx(kd.f32[256, 256]).count(".version") == count


@pytest.mark.oracle
@needs_cuda_compiler
def test_sm_90_never_uses_what_only_sm_90a_has():
    """`sm_90` never uses what only `sm_90a` has"""
    f = kd.kernel(lambda x: x @ x)
    assert not any(word in f.ptx(kd.bf16[1024, 1024], arch="sm_90") for word in ("wgmma", "setmaxnreg"))


# -- explain ----------------------------------------------------------------------------------------------------------


def test_explain_prints_in_words():
    """`f.explain(*types)` prints in words which kernels were formed and why not fewer, bytes and operations of each"""
    text = str(softmax.explain(kd.f32[4096, 1024]))
    assert "softmax" in text and "bytes" in text.lower()
    assert "operation" in text.lower() or "flop" in text.lower()


def test_explain_says_why_not_fewer():
    """and why not fewer"""
    f = kd.kernel(lambda a, b: kd.sort(a) if False else (a @ b) @ (b @ a))
    explained = f.explain(kd.f32[512, 512], kd.f32[512, 512])
    assert len(main_kernels(explained)) > 1
    assert any(k.reasons for k in explained.kernels)
    reasons = [
        str(r) for k in explained.kernels for r in (k.reasons if not isinstance(k.reasons, str) else [k.reasons])
    ]
    assert any(reason.split(":")[-1].strip()[:20] in str(explained) for reason in reasons)


def test_explain_gives_the_roofline_verdict():
    """and the roofline verdict for the machine"""
    text = str(softmax.explain(kd.f32[4096, 1024])).lower()
    assert "memory" in text or "bandwidth" in text or "roofline" in text or "compute" in text


def test_explain_has_kernels_as_data():
    """`.kernels` has it as data (name, kind ...; reads, writes, operations, stored intermediates, reasons)"""
    (kernel,) = softmax.explain(kd.f32[4096, 1024]).kernels
    assert isinstance(kernel.name, str) and kernel.kind == "kernel"
    assert len(kernel.reads) == 1 and "x" in str(kernel.reads[0]) and len(kernel.writes) == 1
    assert kernel.bytes == 2 * 4096 * 1024 * 4
    assert kernel.operations >= 3 * 4096 * 1024
    assert hasattr(kernel, "reasons")
    assert not kernel.stored_intermediates if hasattr(kernel, "stored_intermediates") else not kernel.stored


def test_kinds_are_kernel_packing_or_finisher():
    """kind: kernel, packing or finisher"""
    f = kd.kernel(lambda x, w: (kd.tanh(x @ w), kd.sum(x, axis=0)))
    kinds = {k.kind for k in f.explain(kd.f32[4096, 1024], kd.f32[1024, 1024]).kernels}
    assert kinds <= {"kernel", "packing", "finisher"} and "kernel" in kinds


def test_explain_counts_stored_intermediates():
    """stored intermediates"""
    f = kd.kernel(lambda a, b: (a @ b) @ (b @ a))
    kernels = f.explain(kd.f32[512, 512], kd.f32[512, 512]).kernels
    stored = [k.stored_intermediates if hasattr(k, "stored_intermediates") else k.stored for k in kernels]
    assert any(stored)


def test_vjp_is_looked_at_in_the_same_way():
    """`f.vjp` ... looked at in the same way (`f.vjp.explain(x, dy)`, `.stages`, `.source` …)"""
    x = np.ones((64, 32), "f4")
    assert len(main_kernels(softmax.vjp.explain(x, x))) >= 1
    for what in ("source", "llvm", "asm"):
        assert isinstance(getattr(softmax.vjp, what)(x, x), str)


def test_pullback_explain_lists_forward_and_backward_apart():
    """`f.pullback.explain(*types)` lists forward and backward apart"""
    text = str(softmax.pullback.explain(kd.f32[64, 32])).lower()
    assert "forward" in text and "backward" in text and text.index("forward") < text.rindex("backward")
    assert len(softmax.pullback.explain(kd.f32[64, 32]).kernels) >= 2


def test_pullback_has_stages():
    """the backward of `f.pullback` [is] looked at in the same way"""
    assert isinstance(softmax.pullback.stages(kd.f32[64, 32]), Mapping)
    assert isinstance(softmax.pullback.source(kd.f32[64, 32]), str)


# -- reference --------------------------------------------------------------------------------------------------------


def test_reference_is_the_numpy_meaning_in_f64_rounded():
    """`f.reference(*args)` is the NumPy meaning, floating values in f64, rounded to the kernel's dtypes"""
    f = kd.kernel(lambda x: kd.sum(x))
    x = np.array([1e8, 1.0, -1e8, 1.0], "f4")  # 2 in f64
    equal(f.reference(x), np.array(2, "f4"))
    g = kd.kernel(lambda x: {"a": (x * 0.1, kd.argmax(x)), "n": None})
    got = g.reference(x)
    equal(got["a"][0], (x.astype("f8") * 0.1).astype("f4"))
    equal(got["a"][1], np.array(0))
    assert got["n"] is None


def test_reference_keeps_f64_within_and_rounds_at_the_end():
    """floating values in f64, rounded to the kernel's dtypes"""
    x = np.array([1.0, 3.0], "f2")
    equal(kd.kernel(lambda x: x / 3.0 * 3.0).reference(x), x)


@pytest.mark.parametrize("shape", [(0,), (1,), (7,), (3, 5)])
def test_reference_agrees_with_the_kernel(shape):
    """`f.reference(*args)` is the NumPy meaning"""
    x = np.random.default_rng(0).standard_normal(shape).astype("f4")
    f = kd.kernel(lambda x: (kd.tanh(x) * x, kd.sum(x, axis=-1)))
    for got, expected in zip(f(x), f.reference(x)):
        assert_close(got, expected, operations=8, scale=2)


# -- verify -----------------------------------------------------------------------------------------------------------


def test_verify_compares_on_every_target():
    """`f.verify(*args)` ... rows `numpy, cpu, emulator, cuda, gradient`, one that cannot run says why"""
    text = str(softmax.verify(np.random.default_rng(0).standard_normal((5, 7)).astype("f4")))
    assert in_order(["numpy", "cpu", "emulator", "cuda", "gradient"], text.split()), text
    for line in text.splitlines():
        if line.split()[:1] in (["emulator"], ["cuda"]) and "agrees" not in line:
            assert len(line.split()) > 3, line


def test_verify_says_why_there_is_no_gradient():
    """one that cannot run says why"""
    text = str(kd.kernel(lambda i: i * 2).verify(np.array([1, 2])))
    line = next(line for line in text.splitlines() if "gradient" in line)
    assert len(line.split()) > 3


def test_verify_takes_all_kinds_of_arguments():
    """`f.verify(*args)`"""
    f = kd.kernel(lambda tree, n, i: kd.sum(tree["x"][i] ** n))
    assert "cpu" in str(f.verify({"x": np.ones(5, "f4")}, 2, np.array([0, 0, 3])))


def test_a_disagreement_raises_VerifyError(monkeypatch):
    """a disagreement raises `VerifyError` naming the first index, both values and the bound"""
    import kdsl.inspection.verify as verify

    meaning = verify.evaluate

    def wrong(*arguments, **options):
        results = [np.array(r) for r in meaning(*arguments, **options)]
        results[0][1, 2] += 3
        return results

    monkeypatch.setattr(verify, "evaluate", wrong)
    with pytest.raises(kd.VerifyError) as caught:
        kd.kernel(lambda x: x * x).verify(np.full((2, 3), 2.0, "f4"))
    text = str(caught.value)
    assert isinstance(caught.value, kd.KdslError)
    assert "[1, 2]" in text or "(1, 2)" in text
    assert "4" in text and "7" in text and "bound" in text


def test_a_wrong_gradient_raises_VerifyError():
    """and checks gradients by finite differences; ... a disagreement raises `VerifyError`"""
    f = kd.kernel(lambda x: kd.stop_gradient(x) * x)  # the derivative is x, the slope is 2 x
    with pytest.raises(kd.VerifyError, match="bound"):
        f.verify(np.array([1.5, 2.0, 3.0]))


def test_looking_needs_no_gpu():
    """GPU code, on a machine without a GPU (nothing of CUDA is imported to look at CPU code)"""
    program = (
        "import sys, kdsl as kd\nf = kd.kernel(lambda x: x + 1)\nf.stages(kd.f32[3]); f.explain(kd.f32[3]); f.asm(kd.f32[3])\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('numba', 'cuda', 'cupy')])"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)
    assert out.stdout.strip().endswith("[]"), out.stderr
