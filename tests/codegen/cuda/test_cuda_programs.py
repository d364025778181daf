"""Three programs with GPU tiles: their meaning by the interpreter, their source as golden text, their PTX where numba-cuda is."""

import importlib.util
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from kdsl.codegen.cuda.choose_layouts import Unsupported
from kdsl.codegen.cuda.kernels import emit_cuda, ptx
from kdsl.ir.interpreter import interpret
from kdsl.ir.loop_parser import parse_loops
from kdsl.ir.loop_printer import show_loops
from kdsl.ir.loop_verify import verify_loops

FOLDER = Path(__file__).parent / "programs"
NAMES = ("softmax", "linear_gelu", "attention")
needs_numba = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None
    or importlib.util.find_spec("numba.cuda") is None
    or importlib.util.find_spec("numba_cuda") is None,
    reason="needs numba-cuda",
)


def read(name):
    program = parse_loops((FOLDER / f"{name}.loops").read_text())
    verify_loops(program)
    return program


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def half(seed, *shape):
    return normal(seed, *shape).astype(ml_dtypes.bfloat16)


def exact(x):
    return x.astype(np.float64)


def close(got, want, tolerance):
    assert got.shape == want.shape
    error = np.max(np.abs(exact(got) - want)) / np.max(np.abs(want))
    assert error <= tolerance, error


@pytest.mark.parametrize("name", NAMES)
def test_source(name, golden):
    program = read(name)
    assert show_loops(parse_loops(show_loops(program))) == show_loops(program)
    golden(f"cuda/{name}", emit_cuda(program))


def test_meaning_of_softmax():
    x = normal(0, 3, 1000)
    x[1, 5:] = -np.inf
    e = np.exp(exact(x) - x.max(1, keepdims=True))
    close(interpret(read("softmax"), x)[0], e / e.sum(1, keepdims=True), 1e-6)


def test_meaning_of_linear_gelu():
    x, w, bias = half(0, 136, 256) / 8, half(1, 256, 384), half(2, 384)
    z = exact(x) @ exact(w) + exact(bias)
    close(
        interpret(read("linear_gelu"), x, w, bias)[0],
        z / 2 * (1 + np.tanh(0.7978845608028654 * (z + 0.044715 * z**3))),
        4e-3,
    )


@pytest.mark.parametrize("T", [1, 63, 65, 130])
def test_meaning_of_attention(T):
    q, k, v = (half(i, 2, T, 64) for i in range(3))
    s = np.where(np.tril(np.ones((T, T), bool)), exact(q) @ exact(k).transpose(0, 2, 1) / 8, -np.inf)
    e = np.exp(s - s.max(2, keepdims=True))
    o, lse = interpret(read("attention"), q, k, v)
    close(o, e / e.sum(2, keepdims=True) @ exact(v), 8e-3)
    close(lse, s.max(2) + np.log(e.sum(2)), 1e-6)


@pytest.mark.oracle
@needs_numba
@pytest.mark.parametrize(
    ("name", "instructions"),
    [
        ("softmax", {"shfl.sync.bfly": 10, "ex2.approx": 8, "bar.sync": 2}),
        ("linear_gelu", {"mma.sync": 32, "ldmatrix": 12, "cp.async.cg": 16, "cp.async.commit_group": 4}),
        ("attention", {"mma.sync": 64, "ldmatrix": 36, "cp.async.cg": 20, "cp.async.wait_group": 2}),
    ],
)
def test_ptx(name, instructions):
    text = "".join(ptx(k, "sm_80") for k in emit_cuda(read(name)).kernels)
    assert re.findall(r"\.entry (\w+)", text) == [name]
    assert ".target sm_80" in text
    for word, count in instructions.items():
        assert text.count(word) == count, word
    assert ".local" not in text  # tiles stay in registers


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("(1, 1024)", "(1, 1000)", "powers of two"),
    ],
)
def test_refusals(old, new, message):
    text = (FOLDER / "softmax.loops").read_text().replace(old, new)
    with pytest.raises(Unsupported, match=message):
        emit_cuda(parse_loops(text))
