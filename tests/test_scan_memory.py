"""A selective scan forward and backward takes at most 1.3 times the memory of its inputs, outputs and gradients.

Bytes are counted from the programs: arguments, results (checkpoints are results of the forward), and what lies between kernels.
"""

from __future__ import annotations

import numpy as np
import pytest

import kdsl as kd
from nn import functional as F
from nn.functional.ssm import recurrence

BATCH, LENGTH, CHANNELS, STATES = 4, 512, 384, 16


def counted(kernel, types, result, **static):
    """(bytes at the forward's peak, at the backward's, of all inputs, outputs and their gradients)."""
    forward, backward = kernel.pullback.explain(*types, **static).memory
    given = sum(map(size, types))
    held = given + forward.results  # the result and what the backward waits for
    return held + forward.temporaries, held + size(result) + backward.results + backward.temporaries, 2 * (given + size(result))


def size(t):
    return int(np.prod(t.shape)) * t.dtype.bytes


def test_selective_scan():
    def f(x, dt, a, b, c):
        return recurrence(kd.zeros((x.shape[0], *a.shape)), x, dt, a, b, c, axis=1)[1]

    wide, slim = kd.f32[BATCH, LENGTH, CHANNELS], kd.f32[BATCH, LENGTH, STATES]
    forward, backward, total = counted(kd.kernel(f), (wide, wide, kd.f32[CHANNELS, STATES], slim, slim), wide)
    assert forward <= total
    assert backward <= 1.3 * total, backward / total


@pytest.mark.parametrize(("dtype", "groups"), [("f32", 1), ("f32", 4), ("bf16", 1)])
def test_selective_scan_with_all_options(dtype, groups):
    d = getattr(kd, dtype)
    wide, slim = d[BATCH, CHANNELS, LENGTH], d[BATCH, groups, STATES, LENGTH]
    types = (wide, wide, kd.f32[CHANNELS, STATES], slim, slim, kd.f32[CHANNELS], wide, kd.f32[CHANNELS])
    kernel = kd.kernel(F.selective_scan.function)
    forward, backward, total = counted(kernel, types, wide, delta_softplus=True)
    assert forward <= total
    assert backward <= 1.3 * total, backward / total


@pytest.mark.parametrize("length", [128, 4096])
def test_other_lengths(length):
    def f(x, dt, a, b, c):
        return recurrence(kd.zeros((x.shape[0], *a.shape)), x, dt, a, b, c, axis=1)[1]

    wide, slim = kd.f32[BATCH, length, CHANNELS], kd.f32[BATCH, length, STATES]
    _, backward, total = counted(kd.kernel(f), (wide, wide, kd.f32[CHANNELS, STATES], slim, slim), wide)
    assert backward <= 1.3 * total, backward / total


@pytest.mark.parametrize(("dtype", "batch", "channels", "states"), [
    ("f32", 1, 384, 16), ("f32", 1, 64, 16), ("f32", 2, 376, 16), ("f32", 1, 512, 32), ("bf16", 1, 384, 16), ("bf16", 1, 128, 8),
])  # fmt: skip
def test_few_sequences(dtype, batch, channels, states):
    """A block takes more channels where the parts of the gradients of b and c would be large."""
    d = getattr(kd, dtype)
    wide, slim = d[batch, channels, LENGTH], d[batch, 1, states, LENGTH]
    types = (wide, wide, kd.f32[channels, states], slim, slim, kd.f32[channels], wide, kd.f32[channels])
    _, backward, total = counted(kd.kernel(F.selective_scan.function), types, wide, delta_softplus=True)
    assert backward <= 1.3 * total, backward / total
