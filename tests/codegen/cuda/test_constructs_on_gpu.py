"""Constructs of the loop IR one by one as GPU code in the emulator, against the interpreter: prefixes, slices, permutations,
near memory read in other threads than wrote it, what a kernel reads of its own, conditions, dtypes, strides."""

import importlib.util

import numpy as np
import pytest

from kdsl.codegen.cuda.kernels import emit_cuda
from kdsl.ir.interpreter import interpret
from kdsl.ir.loop_parser import parse_loops
from kdsl.ir.loop_verify import verify_loops
from tests.schedule.gpu.emulated import emulated

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(importlib.util.find_spec("numba_cuda") is None, reason="needs numba-cuda: pip install 'kdsl[cuda]'"),
]
X = np.random.default_rng(0).standard_normal((37, 256)).astype("f4")


def program(arguments, results, body, warps=(4, 1)):
    """A program of one kernel."""
    named = {**arguments, **results}
    lines = ["program('p')", ""]
    lines += [f"{n} = argument({t})" for n, t in arguments.items()] + [f"{n} = result({t})" for n, t in results.items()]
    lines += ["", f"@kernel('kernel', schedule={{'warps': {warps}}})", f"def k({', '.join(named)}):", body]
    p = parse_loops("\n".join(lines) + "\n")
    verify_loops(p)
    return p


def check(p, *arrays, atol=1e-6):
    for got, want in zip(emulated(p, arrays), interpret(p, *arrays)):
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got.astype("f8"), want.astype("f8"), rtol=1e-5, atol=atol)


@pytest.mark.parametrize("shape", [(1, 256), (4, 64), (8, 16), (256, 1)])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("warps", [(1, 1), (2, 2), (8, 1)])
def test_running_folds(shape, axis, warps):
    body = f"""
    for i in parallel(0, 1, 1):
        store(y[#0, #1], prefix_sum(load(x[#0, #1], {shape}), {axis}))
        store(z[#0, #1], prefix_max(load(x[#0, #1], {shape}), {axis}))
"""
    kind = f"f32[{shape[0]}, {shape[1]}]"
    x = X.ravel()[: shape[0] * shape[1]].reshape(shape)
    check(program({"x": kind}, {"y": kind, "z": kind}, body, warps), x, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "monoids"),
    [("f64", "sum prod max min"), ("i64", "sum prod max min"), ("u8", "sum max min"), ("i16", "sum min"), ("bool", "any all")],
)
@pytest.mark.parametrize("axis", [0, 1])
def test_folds_of_every_kind(dtype, monoids, axis):
    words, shape = monoids.split(), ("1, 128" if axis == 0 else "16, 1")
    stores = "".join(
        f"        store(y{i}[#0, #1], fold_{m}(load(x[#0, #1], (16, 128)), {axis}))\n"
        f"        store(z{i}[#0, #1], prefix_{m}(load(x[#0, #1], (16, 128)), {axis}))\n"
        for i, m in enumerate(words)
    )
    results = {f"{w}{i}": f"{dtype}[{s}]" for i in range(len(words)) for w, s in (("y", shape), ("z", "16, 128"))}
    p = program({"x": f"{dtype}[16, 128]"}, results, f"    for i in parallel(0, 1, 1):\n{stores}", (2, 2))
    values = np.random.default_rng(1).standard_normal((16, 128)) / 4 + 1
    array = values > 0 if dtype == "bool" else (values * (1 if dtype == "f64" else 2)).astype(p.buffers[0].dtype.numpy)
    check(p, array)


def test_permuted_and_sliced_tiles():
    body = """
    for i in parallel(0, 1, 1):
        a = load(x[#0, #1], (16, 64))
        m = fold_max(a, 1)
        b = exp(a - m)
        store(y[#0, #1], permute(b, (1, 0)) + load(x[#1, #0], (64, 16)))
        store(z[#0, #1], slice(b, (4, 32), (8, 16)) * load(x[#0, #1], (8, 16)))
        store(w[#0, #1], permute(m, (1, 0)) + fold_sum(permute(b, (1, 0)), 0))
"""
    results = {"y": "f32[64, 16]", "z": "f32[8, 16]", "w": "f32[1, 16]"}
    check(program({"x": "f32[16, 64]"}, results, body), X[:4].reshape(16, 64))


def test_tiles_of_three_axes():
    body = """
    for i in parallel(0, 1, 1):
        a = load(x[#0, #1, #2], (4, 8, 32))
        store(y[#0, #1, #2], a / fold_sum(a * a, 2) - fold_max(a, 0))
        store(z[#0, #1, #2], permute(a, (2, 0, 1)))
"""
    kinds = {"y": "f32[4, 8, 32]", "z": "f32[32, 4, 8]"}
    check(program({"x": "f32[4, 8, 32]"}, kinds, body), X[:4].reshape(4, 8, 32))


def test_near_memory_in_parts_and_shifted():
    body = """
    for i in parallel(0, 37, 1):
        strip = near(f32[2, 256])
        put(strip[0, #1], load(x[i, #1], (1, 256)))
        put(strip[1, #1], load(x[i, #1], (1, 256)) * 2.0)
        for c in stream(0, 256, 64, total=full(0.0, (1, 64), f32)):
            a = load(strip[1, edge(c + #1 - 3)], (1, 64), fill=7.0)
            put(strip[0, c + #1], load(strip[0, 255 - c - #1], (1, 64)) + a)
            next(total=total + a)
        store(y[i, #1], load(strip[0, #1], (1, 256)))
        store(z[i, #1], total)
"""
    check(program({"x": "f32[37, 256]"}, {"y": "f32[37, 256]", "z": "f32[37, 64]"}, body), X)


def test_what_a_kernel_reads_of_its_own():
    body = """
    for i in parallel(0, 37, 1):
        store(y[i, #1], load(x[i, #1], (1, 256)) + 1.0)
        a = load(y[i, 255 - #1], (1, 256))
        store(z[i, #1], a * fold_sum(load(y[i, #1], (1, 256)), 1))
"""
    check(program({"x": "f32[37, 256]"}, {"y": "f32[37, 256]", "z": "f32[37, 256]"}, body), X)


def test_conditions_and_loaded_indices():
    body = """
    for i in parallel(0, 37, 1):
        store(y[i, #1], full(0.0, (1, 256), f32))
        n = load(at[i], ())
        if n >= 0:
            store(y[i, edge(n + #1)], load(x[edge(n), #1], (1, 256), fill=-1.0))
        if scalar(i % 2) == 1:
            store(w[edge(i // 2), #1], load(x[i, #1], (1, 256)))
"""
    at = np.random.default_rng(2).integers(-3, 50, 37)
    check(program({"x": "f32[37, 256]", "at": "i64[37]"}, {"y": "f32[37, 256]", "w": "f32[18, 256]"}, body), X, at)


def test_gathered_elements():
    body = """
    for i in parallel(0, 8, 1):
        rows = load(at[32 * i + #0], (32, 1))
        good = (rows >= 0) & (rows < 37)
        store(y[32 * i + #0, #1], gather(x, (rows, index(1, (1, 16)) * 3), (32, 16), mask=good, fill=-2.0))
"""
    at = np.random.default_rng(2).integers(-9, 50, 256)
    check(program({"x": "f32[37, 256]", "at": "i64[256]"}, {"y": "f32[256, 16]"}, body), X, at)


def test_indices_that_are_no_walk():
    body = """
    for i in parallel(0, 4, 1):
        store(y[i, #1], load(x[(i * 64 + #1) // 8, (i * 64 + #1) % 8 * 5], (1, 64)))
        store(z[i, #1], load(x[i, edge(max(60 - #1 * 2, 0))], (1, 64)))
"""
    check(program({"x": "f32[37, 256]"}, {"y": "f32[4, 64]", "z": "f32[4, 64]"}, body), X)


@pytest.mark.parametrize("dtype", ["bool", "i8", "u16", "f16", "bf16", "i32", "f64"])
@pytest.mark.parametrize("columns", [64, 63])
def test_copies_of_every_width(dtype, columns):
    body = f"""
    for i in parallel(0, 5, 4):
        a = load(x[edge(i + #0), edge(#1)], (4, 64))
        store(y[edge(i + #0), edge(#1)], a)
        store(z[edge({columns - 1} - #1), edge(i + #0)], a)
"""
    kind = f"{dtype}[5, {columns}]"
    p = program({"x": kind}, {"y": kind, "z": f"{dtype}[{columns}, 5]"}, body)
    array = (np.random.default_rng(3).standard_normal((5, columns)) * 50).astype(p.buffers[0].dtype.numpy)
    check(p, array)
    assert (" by2(" in emit_cuda(p)) == (columns == 64)  # as many as a thread holds side by side
