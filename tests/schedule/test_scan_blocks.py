"""Scans along a contiguous axis, eight steps at a time: any layout gives what the steps one by one give, gradients too."""

from __future__ import annotations

import numpy as np
import pytest

import kdsl as kd

RNG = np.random.default_rng(3)


def loops(f, *args):
    return kd.kernel(f, target="cpu:x86-64-v3").stages(*args)["scheduled"]


def views(x):
    return x, x[::-1], x[..., ::-1], np.asfortranarray(x), np.repeat(x, 2, axis=-1)[..., ::2]


@pytest.mark.parametrize("shape", [(9, 16), (8, 24), (33, 8), (5, 64), (2, 17, 32), (16, 1, 8), (1, 64), (8, 0)])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "u1"])
def test_running_sums_along_the_last_axis(shape, dtype):
    x = (RNG.standard_normal(shape) * 9).astype(dtype)

    @kd.kernel
    def f(x):
        return kd.cumulative_sum(x, axis=-1)

    for view in views(x):
        np.testing.assert_allclose(f(view), f.reference(view), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", [(8, 16), (24, 64), (7, 32), (16, 31)])
def test_steps_that_are_not_linear_and_their_gradients(shape, reverse):
    def step(h, v):
        return kd.tanh(h * 0.7 + v), (h * v, h)

    def along(x):
        return kd.scan(step, kd.zeros(x.shape[0], dtype=x.dtype), x, axis=1, reverse=reverse)

    def across(x):
        last, (y, z) = kd.scan(step, kd.zeros(x.shape[0], dtype=x.dtype), kd.permute_dims(x, (1, 0)), reverse=reverse)
        return last, (y.T, z.T)

    x = RNG.standard_normal(shape)
    k = kd.kernel(along)
    cotangents = [RNG.standard_normal(s) for s in (shape[:1], shape, shape)]
    want = evaluated(kd.kernel(across), x, cotangents)
    for view in (x, np.ascontiguousarray(x[:, ::-1])[:, ::-1], np.asfortranarray(x)):
        for a, b in zip(evaluated(k, view, cotangents), want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def evaluated(k, x, cotangents):
    last, (y, z) = k(x)
    (slope,) = k.vjp(x, *cotangents)
    _, pullback = k.pullback(x)
    return last, y, z, slope, pullback(*cotangents)[0]


def test_a_block_is_read_once_and_its_steps_are_its_rows():
    text = loops(lambda x: kd.cumulative_sum(x, axis=1), kd.f32[64, 128])
    assert text.count("load(x[") == 1 and "(8, 8)" in text and "stream(0, 128, 8" in text


def test_lanes_that_lie_beside_each_other_are_walked_step_by_step():
    assert "stream(0, 128, 1" in loops(lambda x: kd.cumulative_sum(x, axis=0), kd.f32[128, 64])
