"""What a block takes is within what its architecture has."""

from __future__ import annotations

from dataclasses import replace

import pytest

import kdsl as kd
from kdsl.gpu_stages import source
from kdsl.ir.interpreter import interpret
from kdsl.schedule.gpu.limits import fits, near_bytes
from kdsl.target import parse_target
from tests.gpu_target import checked


@kd.kernel
def attention(q, k, v):
    s = q @ k.mT * 0.125
    e = kd.exp(s - kd.max(s, axis=-1, keepdims=True))
    return (e / kd.sum(e, axis=-1, keepdims=True)) @ v


ROOM = {"sm_80": 163, "sm_86": 99, "sm_89": 99, "sm_90": 227, "sm_90a": 227, "sm_100": 227, "sm_120": 99}


@pytest.mark.parametrize("arch", ROOM)
def test_near_memory_of_each_architecture(arch):
    assert parse_target(f"cuda:{arch}").near_bytes == ROOM[arch] * 1024


@pytest.mark.parametrize("dtype", [kd.f32, kd.f64, kd.bf16])
@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize("arch", ["sm_80", "sm_86", "sm_90"])
def test_chains_take_tiles_that_fit(dtype, width, arch):
    x = dtype[2, 256, width]
    for f, types in ((attention, (x, x, x)), (attention.vjp, (x, x, x, x))):
        (program,) = f.looked_at(types, {}, f"cuda:{arch}")
        for emitted, kernel in zip(program.kernels, program.record["scheduled"].kernels, strict=True):
            assert fits(kernel, parse_target(f"cuda:{arch}"))
            assert near_bytes(kernel) <= emitted.near_bytes <= ROOM[arch] * 1024


def test_small_tiles_compute_the_same(monkeypatch):
    import numpy as np

    x = [np.random.default_rng(i).standard_normal((2, 70, 64)).astype("f4") for i in range(3)]
    monkeypatch.setattr(checked, "TARGET", replace(checked.TARGET, near_bytes=40 * 1024))
    checked.check_gradients(attention.function, *x, on=(interpret,))


def test_what_does_not_fit_is_refused():
    (program,) = attention.looked_at((kd.f32[2, 256, 64],) * 3, {}, "cuda:sm_80")
    with pytest.raises(kd.KdslError, match="bytes of near memory and 128 threads in a block, sm_80 has 1024 and 1024"):
        source(program.record["scheduled"], replace(parse_target("cuda:sm_80"), near_bytes=1024))
