"""The table of elementwise ops is total for GPUs: each is an operator or a macro, and for each dtype a function for NVVM."""

import re

import numpy as np
import pytest

import kdsl.dtypes as dt
from kdsl.codegen.cuda import scalars
from kdsl.codegen.cuda.names import RESERVED, Names
from kdsl.codegen.cuda.operators import INFIX
from kdsl.ir.ops import BINARY, COMPOSITE, CORE, ELEMENTWISE, TO_BOOL, Op
from tests.codegen.llvm.test_operations import legal
from tests.emulator.kernels import needs_numba

KERNEL_OPS = {"fma", "round_f16", "round_bf16", "philox"}


def test_every_op_has_a_word():
    words = {op.value for op in ELEMENTWISE & CORE} | KERNEL_OPS
    assert words - set(INFIX) - {"neg", "not", "cast", "bitcast"} <= RESERVED


@needs_numba
@pytest.mark.oracle
def test_every_word_has_a_macro_and_no_name_hides_one():
    from kdsl.codegen.cuda.compile import NAMES
    from kdsl.codegen.cuda.macros import CALLS
    from kdsl.codegen.cuda.macros import INFIX as OPERATORS

    words = {op.value for op in ELEMENTWISE & CORE} | KERNEL_OPS
    assert words == set(CALLS) | set(OPERATORS) | {"cast", "bitcast"}
    assert set(INFIX) | {"neg", "not"} == set(OPERATORS)
    assert set(NAMES) <= RESERVED


@pytest.mark.parametrize("d", dt.ALL, ids=str)
def test_every_function_is_text_that_nvvm_reads(d):
    """An old LLVM: no fneg, no intrinsics but fma and sqrt, no poison; a product is never fused with a sum behind its back."""
    ops = [op for op in ELEMENTWISE & CORE - {Op.CAST, Op.BITCAST, Op.WHERE} - COMPOSITE if legal(op, d)]
    for op in sorted(ops, key=lambda o: o.value):
        operands = (d.compute.name,) * (2 if op in BINARY else 1)
        result = "bool" if op in TO_BOOL else d.compute.name
        _, texts = scalars.function(op.value, operands, result)
        whole = "".join(text for _, text in texts)
        assert not re.search(r"\bfneg\b|poison|splat|memory\(none\)|i256|\bptr\b", whole), op
        assert set(re.findall(r"@llvm\.(\w+)", whole)) <= {"fma", "sqrt"}, op
        assert not re.search(r"= (fadd|fmul) (float|double)", whole), op
        called = set(re.findall(r"call [^@\"]*@([\w.]+)\(", whole))
        assert called <= {name for name, _ in texts}, op


def test_casts_between_all_dtypes():
    for source in dt.ALL:
        for target in dt.ALL:
            if target not in (dt.f16, dt.bf16):
                assert scalars.function("cast", (source.compute.name,), target.name)[1]


@pytest.mark.parametrize("name", ["index", "load", "lambda", "f32", "axis0", "block", "N"])
def test_names_of_users_hide_no_macro(name):
    names = Names()
    assert names.of("parameter", name) not in RESERVED
    assert names.of("size", name) != names.of("parameter", name)
    assert names.of("parameter", name) == names.of("parameter", name)


@needs_numba
@pytest.mark.oracle
def test_exp_on_a_gpu_keeps_its_bound():
    """By the machine's power of two; in the emulator that is exact, so this is what the rest loses."""
    from tests.codegen.cuda.test_constructs_on_gpu import program
    from tests.schedule.gpu.emulated import emulated

    x = np.concatenate([np.linspace(-110, 95, 4000), [0.0, -0.0, np.inf, -np.inf, np.nan, 88.73, -103.98]]).astype("f4")
    x = np.resize(x, 4096)
    body = "    for i in parallel(0, 4096, 1024):\n        store(y[i + #0], exp(load(x[i + #0], (1024,))))"
    (y,) = emulated(program({"x": "f32[4096]"}, {"y": "f32[4096]"}, body), [x])
    with np.errstate(all="ignore"):
        want = np.exp(x.astype("f8"))
        exact = want.astype("f4")
        assert np.array_equal(np.isfinite(y), np.isfinite(exact)) and np.array_equal(np.isnan(y), np.isnan(exact))
        fine = np.isfinite(exact)
        unit = np.maximum(np.spacing(exact[fine]), 2.0**-149)
        assert np.max(np.abs(y[fine] - want[fine]) / unit) <= 2.0


@needs_numba
@pytest.mark.oracle
def test_numba_cuda_stays_as_it_was():
    """Kernels that somebody else compiles in this process have all of numba-cuda, its own driver included."""
    import math

    from numba import cuda, types
    from numba.cuda import dispatcher
    from numba.cuda.descriptor import cuda_target

    from tests.codegen.cuda.test_constructs_on_gpu import program
    from tests.schedule.gpu.emulated import emulated

    theirs = dispatcher.get_current_device
    body = "    for i in parallel(0, 256, 256):\n        store(y[i + #0], exp(load(x[i + #0], (256,))))"
    emulated(program({"x": "f32[256]"}, {"y": "f32[256]"}, body), [np.zeros(256, "f4")])

    def kernel(x, y):
        i = cuda.grid(1)
        if i < x.size:
            y[i] = math.sin(x[i]) + math.pow(x[i], 2)

    floats = types.float32[:]
    ptx, _ = cuda.compile(kernel, types.void(floats, floats), device=False, abi="numba", cc=(9, 0))
    assert ".entry" in ptx and dispatcher.get_current_device is theirs
    assert type(cuda_target.target_context).__module__ == "numba.cuda.target"
