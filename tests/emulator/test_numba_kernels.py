"""Kernels that numba-cuda compiles give in the emulator what NumPy gives."""

import math

import numpy as np
import pytest

from kdsl.emulator import Emulator
from tests.emulator.kernels import array, compiled, needs_numba

pytestmark = [pytest.mark.oracle, needs_numba]


def run(function, types, arrays, outputs, scalars=(), grid=1, threads=128, **options):
    """Launch a kernel on arrays; what it left in the last `outputs` of them."""
    from numba.cuda import types as t

    kinds = [t.Array(getattr(t, a.dtype.name), a.ndim, "C") for a in arrays] + [getattr(t, s) for s in types]
    gpu = Emulator(compiled(function, t.void(*kinds), **options))
    buffers = [gpu.put(a) for a in arrays]
    arguments = [p for b, a in zip(buffers, arrays) for p in array(b, a)]
    gpu.launch(function.__name__, grid, threads, 0, [*arguments, *scalars])
    return [gpu.read(b, a.dtype, a.shape) for b, a in list(zip(buffers, arrays))[-outputs:]]


def test_elementwise_with_a_tail():
    from numba import cuda

    def saxpy(x, y, out, n):
        i = cuda.grid(1)
        if i < n:
            out[i] = 2 * x[i] + y[i]

    x, y = np.random.default_rng(0).standard_normal((2, 1000)).astype("f4")
    (out,) = run(saxpy, ["int64"], [x, y, np.zeros_like(x)], 1, [1000], grid=8)
    np.testing.assert_allclose(out, 2 * x + y, rtol=1e-6)


def test_loops_of_different_length_in_one_warp():
    from numba import cuda

    def collatz(x, out):
        i = cuda.grid(1)
        if i < x.size:
            n, steps = x[i], 0
            while n != 1:
                if n % 2 == 0:
                    n = n // 2
                else:
                    n = 3 * n + 1
                steps += 1
            out[i] = steps

    def want(n):
        steps = 0
        while n != 1:
            n, steps = (n // 2 if n % 2 == 0 else 3 * n + 1), steps + 1
        return steps

    x = np.arange(1, 301)
    (out,) = run(collatz, [], [x, np.zeros_like(x)], 1, grid=3)
    np.testing.assert_array_equal(out, [want(int(n)) for n in x])


@pytest.mark.parametrize("name", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
def test_integers(name):
    from numba import cuda

    def integers(x, y, out):
        i = cuda.grid(1)
        if i < x.size:
            out[i, 0] = x[i] + y[i]
            out[i, 1] = x[i] * y[i] - (x[i] & y[i])
            if y[i] != 0:
                out[i, 2] = x[i] // y[i]
                out[i, 3] = x[i] % y[i]
            out[i, 4] = min(x[i], y[i]) ^ (x[i] >> 3)
            out[i, 5] = (x[i] << 2) | (1 if x[i] < y[i] else 0)

    dtype = np.dtype(name)
    info = np.iinfo(dtype)
    random = np.random.default_rng(1)
    x, y = (random.integers(info.min, info.max, 200, dtype, endpoint=True) for _ in range(2))
    y[:4] = 0, 1, 2, 3
    x[4:6], y[4:6] = info.min, 3
    (out,) = run(integers, [], [x, y, np.zeros((200, 6), dtype)], 1, grid=2)
    with np.errstate(all="ignore"):
        some = np.where(y == 0, 1, y)
        want = [
            x + y,
            x * y - (x & y),
            np.where(y == 0, 0, x // some),
            np.where(y == 0, 0, x % some),
            np.minimum(x, y) ^ (x >> 3),
            (x << 2) | (x < y),
        ]
    np.testing.assert_array_equal(out, np.stack(want, 1).astype(dtype))


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_functions_of_libdevice(name):
    from numba import cuda

    def functions(x, out):
        i = cuda.grid(1)
        if i < x.size:
            v = x[i]
            out[i, 0] = math.exp(v)
            out[i, 1] = math.log(abs(v))
            out[i, 2] = math.sin(v)
            out[i, 3] = math.tanh(v)
            out[i, 4] = math.erf(v)
            out[i, 5] = math.sqrt(abs(v)) / (v * v + 1)
            out[i, 6] = abs(v) ** v
            out[i, 7] = math.floor(v)

    x = np.linspace(-20, 20, 250).astype(name)
    (out,) = run(functions, [], [x, np.zeros((250, 8), name)], 1, grid=2)
    d = x.astype(np.float64)
    want = [np.exp(d), np.log(abs(d)), np.sin(d), np.tanh(d), [math.erf(v) for v in d]]
    want += [np.sqrt(abs(d)) / (d * d + 1), abs(d) ** d, np.floor(d)]
    np.testing.assert_allclose(out, np.stack(want, 1), rtol=2e-6 if name == "float32" else 1e-14, atol=1e-7)


def test_shared_memory_and_barriers():
    from numba import cuda
    from numba.cuda import types

    def block_sums(x, out):
        near = cuda.shared.array(128, types.float32)
        t = cuda.threadIdx.x
        near[t] = x[cuda.grid(1)]
        cuda.syncthreads()
        step = 64
        while step > 0:
            if t < step:
                near[t] += near[t + step]
            cuda.syncthreads()
            step //= 2
        if t == 0:
            out[cuda.blockIdx.x] = near[0]

    x = np.random.default_rng(0).standard_normal(1024).astype("f4")
    (out,) = run(block_sums, [], [x, np.zeros(8, "f4")], 1, grid=8)
    np.testing.assert_allclose(out, x.reshape(8, 128).sum(1), rtol=1e-5)


def test_shuffles_and_votes():
    from numba import cuda

    def warps(x, out):
        t = cuda.threadIdx.x
        v = x[t]
        out[t, 0] = cuda.shfl_xor_sync(0xFFFFFFFF, v, 5)
        out[t, 1] = cuda.shfl_up_sync(0xFFFFFFFF, v, 3)
        out[t, 2] = cuda.shfl_down_sync(0xFFFFFFFF, v, 7)
        out[t, 3] = cuda.shfl_sync(0xFFFFFFFF, v, t // 2)
        out[t, 4] = cuda.ballot_sync(0xFFFFFFFF, v > 10)
        out[t, 5] = cuda.popc(cuda.activemask())
        out[t, 6] = cuda.syncthreads_count(np.int32(v > 30))

    x = np.random.default_rng(0).permutation(64).astype(np.int32)
    (out,) = run(warps, [], [x, np.zeros((64, 7), np.int32)], 1, threads=64)
    lane, base = np.arange(64) % 32, np.arange(64) // 32 * 32
    want = [
        x[base + (lane ^ 5)],
        np.where(lane >= 3, x[np.maximum(np.arange(64) - 3, 0)], x),
        np.where(lane + 7 < 32, x[np.minimum(np.arange(64) + 7, 63)], x),
        x[base + np.arange(64) // 2 % 32],
        np.repeat([sum(1 << i for i in range(32) if row[i] > 10) for row in x.reshape(2, 32)], 32),
        np.full(64, 32),
        np.full(64, (x > 30).sum()),
    ]
    np.testing.assert_array_equal(out, np.stack(want, 1).astype(np.uint32).view(np.int32))


def test_atomics_and_local_memory():
    from numba import cuda
    from numba.cuda import types

    def histogram(x, counts, sums, last):
        i = cuda.grid(1)
        mine = cuda.local.array(4, types.int32)
        for k in range(4):
            mine[k] = x[i] * k
        if i < x.size:
            cuda.atomic.add(counts, x[i] % 10, 1)
            cuda.atomic.max(sums, 0, float(x[i]))
            cuda.atomic.add(sums, 1, 0.5)
            last[i] = mine[x[i] % 4]

    x = np.random.default_rng(0).integers(0, 100, 256).astype(np.int32)
    counts, sums, last = run(
        histogram, [], [x, np.zeros(10, np.int32), np.zeros(2), np.zeros(256, np.int32)], 3, grid=2
    )
    np.testing.assert_array_equal(counts, np.bincount(x % 10, minlength=10))
    np.testing.assert_array_equal(sums, [x.max(), 128])
    np.testing.assert_array_equal(last, x * (x % 4))


def test_called_functions():
    from numba import cuda

    @cuda.jit(device=True, inline="never")
    def polynomial(x, y):
        total = 0.0
        for k in range(5):
            total = total * x + y * k
        return total

    def calls(x, out):
        i = cuda.grid(1)
        if i < x.size:
            out[i] = polynomial(x[i], 2.0) + polynomial(1.0, x[i])

    x = np.linspace(-1, 1, 100)
    (out,) = run(calls, [], [x, np.zeros(100)], 1)

    def want(x, y):
        total = 0.0
        for k in range(5):
            total = total * x + y * k
        return total

    np.testing.assert_allclose(out, want(x, 2.0) + want(1.0, x), rtol=1e-14)
