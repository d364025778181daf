"""The three programs of tests/codegen/cuda run in the emulator, and every barrier or wait taken out of them is noticed."""

import re

import ml_dtypes
import numpy as np
import pytest

from kdsl.emulator import Emulator
from kdsl.errors import EmulatorError, OutOfBoundsError, RaceError, UnwaitedCopyError, UnwrittenError
from tests.emulator.kernels import needs_numba, program

pytestmark = [pytest.mark.oracle, needs_numba]
bf16 = ml_dtypes.bfloat16


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def softmax(ptx, rows=3):
    x = normal(0, rows, 1000)
    x[1, 5:] = -np.inf
    gpu = Emulator(ptx)
    X, Y = gpu.put(x, "x"), gpu.room(x.nbytes, "y")
    gpu.launch("softmax", rows, 128, 0, [X, Y, rows])
    e = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    error = abs(gpu.read(Y, np.float32, x.shape) - e / e.sum(1, keepdims=True)).max()
    assert error < 1e-6
    return gpu


def linear_gelu(ptx, rows=136):
    x, w, bias = (a.astype(bf16) for a in (normal(0, rows, 256) / 8, normal(1, 256, 384), normal(2, 384)))
    gpu = Emulator(ptx)
    X, W, B, Y = gpu.put(x, "x"), gpu.put(w, "w"), gpu.put(bias, "bias"), gpu.room(rows * 384 * 2, "y")
    gpu.launch("linear_gelu", 3 * -(-rows // 128), 256, 65536, [X, W, B, Y, rows])
    z = x.astype("f8") @ w.astype("f8") + bias.astype("f8")
    want = z / 2 * (1 + np.tanh(0.7978845608028654 * (z + 0.044715 * z**3)))
    got = gpu.read(Y, bf16, want.shape).astype("f8")
    assert abs(got - want).max() < 4e-3 * abs(want).max()
    return gpu


def attention(ptx, T=130):
    q, k, v = (normal(i, 2, T, 64).astype(bf16) for i in range(3))
    gpu = Emulator(ptx)
    buffers = [gpu.put(a, n) for a, n in zip((q, k, v), "qkv")]
    O, L = gpu.room(q.nbytes, "o"), gpu.room(8 * T, "lse")
    gpu.launch("attention", (T + 63) // 64 * 2, 128, 40960, [*buffers, O, L, 2, T])
    s = q.astype("f8") @ k.astype("f8").transpose(0, 2, 1) / 8
    s = np.where(np.tril(np.ones((T, T), bool)), s, -np.inf)
    e = np.exp(s - s.max(2, keepdims=True))
    want = e / e.sum(2, keepdims=True) @ v.astype("f8")
    assert abs(gpu.read(O, bf16, q.shape).astype("f8") - want).max() < 8e-3 * abs(want).max()
    lse = s.max(2) + np.log(e.sum(2))
    assert abs(gpu.read(L, np.float32, lse.shape) - lse).max() < 1e-5
    return gpu


RUN = {"softmax": softmax, "linear_gelu": linear_gelu, "attention": attention}


@pytest.mark.parametrize("name", RUN)
def test_results(name):
    RUN[name](program(name))


@pytest.mark.parametrize("T", [1, 63, 65])
def test_attention_of_other_lengths(T):
    attention(program("attention"), T)


CUTS = [
    ("softmax", r"bar\.sync\s+0;", 2, RaceError),
    ("linear_gelu", r"bar\.sync\s+0;", 1, RaceError),
    ("linear_gelu", r"cp\.async\.wait_group 2;", 1, UnwaitedCopyError),
    ("attention", r"bar\.sync\s+0;", 2, RaceError),
    ("attention", r"cp\.async\.wait_group 0;", 2, UnwaitedCopyError),
]


@pytest.mark.parametrize(
    ("name", "pattern", "number", "count", "error"), [(n, p, i, k, e) for n, p, k, e in CUTS for i in range(k)]
)
def test_a_missing_barrier_or_wait_is_noticed(name, pattern, number, count, error):
    ptx = program(name)
    found = list(re.finditer(pattern, ptx))
    assert len(found) == count
    cut = found[number]
    with pytest.raises(error):
        RUN[name](ptx[: cut.start()] + ptx[cut.end() :])


def test_a_wrong_row_count_and_an_unwritten_argument_are_noticed():
    x = normal(0, 2, 1000)
    gpu = Emulator(program("softmax"))
    X, Y, Z = gpu.put(x, "x"), gpu.room(x.nbytes, "y"), gpu.room(x.nbytes, "z")
    with pytest.raises(OutOfBoundsError, match=r"block 2 .*outside of every buffer"):
        gpu.launch("softmax", 3, 128, 0, [X, Y, 3])
    with pytest.raises(UnwrittenError, match="reads memory that nobody has written"):
        gpu.launch("softmax", 2, 128, 0, [Z, Y, 2])
    with pytest.raises(UnwrittenError, match="8000 bytes of z were never written"):
        gpu.read(Z, np.float32, x.shape)
    with pytest.raises(EmulatorError, match="256 threads"):
        gpu.launch("softmax", 2, 256, 0, [X, Y, 2])
