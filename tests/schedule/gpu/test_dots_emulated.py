"""Products and chains as PTX: run by the emulator, which checks bounds, races and waits; what instructions they are made of."""

import importlib.util
import re

import numpy as np
import pytest

import kdsl.dtypes as dt
from kdsl.codegen.cuda.assemble import assemble
from kdsl.codegen.cuda.kernels import emit_cuda, ptx
from kdsl.ir.meaning import evaluate
from kdsl.ir.rules import Builder
from kdsl.ir.tensor import Function
from kdsl.schedule.gpu.chain_tiling import ChainTiling
from kdsl.schedule.gpu.dot_tiling import Tiling
from tests.schedule.dot_programs import attention, parameter, values
from tests.schedule.gpu.gpu_dots import program
from tests.schedule.test_chains import gradient
from tests.tolerance import assert_close

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(importlib.util.find_spec("numba_cuda") is None, reason="needs numba-cuda"),
]


def product(letters, dtype, **sizes):
    left, right, out = letters
    b = Builder()
    x, y = (parameter(n, [sizes[c] for c in s], dtype) for n, s in (("x", left), ("y", right)))
    return b, [x, y], [b.dot(left, right, out, x, y)]


def agrees(built, tiling=None):
    from tests.schedule.gpu.emulated import emulated

    builder, parameters, results = built
    p = program(builder, parameters, results, tiling)
    arrays = values(np.random.default_rng(0), parameters)
    function = Function("f", tuple(parameters), tuple(builder.equations), tuple(results))
    for got, want in zip(emulated(p, arrays), evaluate(function, *arrays), strict=True):
        assert_close(got, want, operations=4096)


PLAIN, TURNED = ("mk", "kn", "mn"), ("km", "nk", "mn")
SMALL = ChainTiling(16, 16, (1, 1))


@pytest.mark.parametrize(
    ("letters", "dtype", "sizes"),
    [
        (PLAIN, dt.bf16, {"m": 40, "k": 64, "n": 72}), (TURNED, dt.bf16, {"m": 40, "k": 48, "n": 64}),
        (PLAIN, dt.bf16, {"m": 37, "k": 50, "n": 51}), (PLAIN, dt.f16, {"m": 33, "k": 32, "n": 40}),
        (PLAIN, dt.f32, {"m": 20, "k": 24, "n": 36}), (TURNED, dt.f32, {"m": 20, "k": 21, "n": 36}),
        (PLAIN, dt.f64, {"m": 17, "k": 9, "n": 35}), (PLAIN, dt.i64, {"m": 17, "k": 9, "n": 35}),
        (PLAIN, dt.u8, {"m": 17, "k": 9, "n": 35}), (PLAIN, dt.f32, {"m": 1, "k": 200, "n": 70}),
        (("mk", "nk", "mn"), dt.bf16, {"m": 2, "k": 130, "n": 66}),
        (("bmk", "kn", "bmn"), dt.bf16, {"b": 2, "m": 20, "k": 16, "n": 24}),
    ],
)  # fmt: skip
def test_products(letters, dtype, sizes):
    agrees(product(letters, dtype, **sizes))


def test_a_product_in_parts():
    agrees(product(PLAIN, dt.f32, m=16, k=1000, n=32), Tiling(16, 32, 16, (1, 1), 2, 3))


@pytest.mark.parametrize(
    ("shape", "variant", "dtype"),
    [
        ((1, 40, 40, 16), {}, dt.bf16), ((1, 37, 37, 16), {}, dt.f16), ((1, 33, 33, 16), {}, dt.f32),
        ((1, 70, 70, 16), {"window": 20}, dt.bf16), ((1, 20, 40, 16), {"mask": None, "cap": 5.0}, dt.bf16),
    ],
)  # fmt: skip
def test_attention(shape, variant, dtype):
    agrees(attention(*shape, **variant, dtype=dtype), SMALL)


@pytest.mark.parametrize("by", ["rows", "columns"])
def test_gradients_of_attention(by):
    agrees(gradient(1, 40, 16, by), SMALL)


def counts(p, arch):
    """How often each instruction stands in the PTX of a program's kernels."""
    text = ""
    for kernel in emit_cuda(p).kernels:
        own = ptx(kernel, arch)
        code = assemble(own, kernel.name, arch)
        assert code.spill_bytes == code.stack_bytes == 0 and code.registers <= 255
        text += own
    found = re.findall(r"\b(mma\.sync|ldmatrix|cp\.async\.cg|st\.shared|fma\.rn\.f32|ex2\.approx|bar\.sync)\b", text)
    return {word: found.count(word) for word in dict.fromkeys(found)}


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_instructions_of_a_product(arch):
    """Of each step of 32 k: 64 x 64 a warp are 64 products from 16 reads of four 8 x 8 matrices, three steps ahead."""
    builder, parameters, results = product(PLAIN, dt.bf16, m=4096, k=4096, n=4096)
    got = counts(program(builder, parameters, results), arch)
    assert (got["mma.sync"], got["ldmatrix"], got["cp.async.cg"], got["bar.sync"]) == (64, 16, 24, 1)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_instructions_of_attention(arch):
    """Two streams, with and without the mask: each two products of 64 x 64 x 64 over four warps, and no score in memory."""
    builder, parameters, results = attention(8, 1024, 1024, 64, dtype=dt.bf16)
    got = counts(program(builder, parameters, results), arch)
    assert (got["mma.sync"], got["ldmatrix"]) == (128, 72)
    assert "st.shared" not in got
