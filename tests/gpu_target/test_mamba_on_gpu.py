"""Mamba's scans as GPU code: right on the emulator, no spilled register, nothing stored that has all four axes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import kdsl as kd
import nn.functional as F
from kdsl.testing import gpu_code
from kdsl.transforms.differentiate import vjp
from kdsl.transforms.prune import prune
from kdsl.transforms.simplify import simplify
from nn.functional.ssm import causal_convolution, chunked_recurrence
from tests.emulator.kernels import needs_numba
from tests.gpu_target.checked import agrees, check, check_gradients, cotangents, traced

pytestmark = [pytest.mark.oracle, needs_numba]
rng = np.random.default_rng(0)


def normal(*shape, dtype="f4"):
    return rng.standard_normal(shape).astype(ml_dtypes.bfloat16 if dtype == "bf16" else dtype)


def scan(u, delta, A, B, C, D, z, bias):
    return F.selective_scan.function(u, delta, A, B, C, D, z, bias, delta_softplus=True)


def arguments(batch, width, length, states, groups=None, dtype="f4"):
    wide, slim = (batch, width, length), (batch, *([groups] if groups else []), states, length)
    u, delta, B, C, z = (normal(*s, dtype=dtype) for s in (wide, wide, slim, slim, wide))
    return u, delta, -np.exp(normal(width, states)), B, C, normal(width), z, normal(width)


OPTIONS = {
    "one group": arguments(2, 5, 9, 4),
    "two groups": arguments(1, 6, 7, 3, 2),
    "bf16": arguments(1, 4, 11, 4, dtype="bf16"),
    "one step": arguments(2, 3, 1, 2),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_selective_scans(name):
    check(scan, *OPTIONS[name])


@pytest.mark.parametrize("name", ["two groups", "bf16"])
def test_gradients_of_selective_scans(name):
    check_gradients(scan, *OPTIONS[name])


def test_convolutions_and_their_gradients():
    arrays = normal(2, 7, 5), normal(5, 1, 4), normal(5)
    check(lambda x, w, b: causal_convolution(x, w, b, None)[0], *arrays)
    check_gradients(lambda x, w, b: causal_convolution(x, w, b, None)[0], *arrays)


def second(h, x, dt, A, B, C):
    return chunked_recurrence(h, x, dt, A, B, C, 4)


SECOND = (
    normal(1, 2, 3, 4),
    normal(1, 10, 2, 3),
    np.abs(normal(1, 10, 2)),
    -np.exp(normal(2)),
    normal(1, 10, 1, 4),
    normal(1, 10, 1, 4),
)


def test_scans_from_chunk_to_chunk():
    check(second, *SECOND)


def test_gradients_of_scans_from_chunk_to_chunk():
    check_gradients(second, *SECOND)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_selective_scans_spill_nothing(dtype, arch):
    h, f = getattr(kd, dtype), kd.f32
    B, D, L, N = 2, 256, 512, 16
    wide, slim = h[B, D, L], h[B, N, L]
    types = wide, wide, f[D, N], slim, slim, f[D], wide, f[D]
    kernel = kd.kernel(scan)
    assert gpu_code(kernel, *types, arch=arch).spill_bytes == 0
    assert gpu_code(kernel.vjp, *types, wide, arch=arch).spill_bytes == 0


def test_no_state_of_every_step_is_stored():
    arrays = arguments(2, 64, 256, 16)
    function = traced(scan, *arrays)
    derived = prune(simplify(vjp(simplify(function))))
    for program in (agrees(function, arrays, ()), agrees(derived, [*arrays, *cotangents(function, arrays)], ())):
        between = sum(int(np.prod(b.shape)) for b in program.buffers if b.role == "temporary")
        assert between <= 2 * 64 * 256 * 16 / 4
