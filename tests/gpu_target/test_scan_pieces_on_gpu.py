"""Scans whose carry stays in registers, on a GPU: steps in pieces, lanes that share rows, warps side by side.

Lengths and widths around pieces and tiles; what steps give with and without the rows, from carries, sums, inputs; what is
added up over all steps; several carries; checkpoints; named lengths; both directions.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import kdsl as kd
from kdsl.ir import loops as ir
from kdsl.ir.interpreter import interpret
from kdsl.schedule.gpu import scan
from kdsl.testing import gpu_code
from tests.emulator.kernels import needs_numba
from tests.gpu_target.checked import check, check_gradients
from tests.gpu_target.on_emulator import run
from tests.language.test_scans import selective_scan

pytestmark = [pytest.mark.oracle, needs_numba]
rng = np.random.default_rng(3)


def normal(*shape, dtype="f4"):
    return (rng.standard_normal(shape) / 2).astype(ml_dtypes.bfloat16 if dtype == "bf16" else dtype)


def selective(x, dt, a, b, c, d):
    return selective_scan(x, dt, a, b, c, d)[1]


def arguments(batch, length, width, states, dtype="f4"):
    wide, slim = (batch, length, width), (batch, length, states)
    shapes = wide, wide, (width, states), slim, slim, (width,)
    x, dt, a, b, c, d = (normal(*s, dtype=dtype) for s in shapes)
    return x, np.abs(dt), -np.abs(a), b, c, d


def everything(x, w):
    """Gives a carry, a sum over the rows, an input, what depends on the place, a sum over the lane, and all carries."""

    def step(c, v):
        h, total, count = c
        h = kd.tanh(h) * w + v[:, None]
        y = kd.sum(h, axis=1)
        return (h, total + y * v, count + 1), (h, y * kd.exp(v), v * 2, kd.max(h, axis=1), kd.sum(h, axis=0), count)

    start = kd.zeros(w.shape), kd.zeros(w.shape[0]), kd.zeros((), dtype=kd.i32)
    return kd.scan(step, start, x)


def backwards(x, w):
    return kd.scan(lambda h, v: (h * w + v, kd.exp(h)), x[0] * 0, x, reverse=True)


def turned(x):
    return kd.flip(kd.cumulative_sum(kd.flip(x, axis=0), axis=0), axis=0)


@pytest.mark.parametrize("length", [0, 1, 7, 16, 31, 33, 64, 70])
def test_lengths_around_pieces(length):
    on = (interpret, run) if length in (7, 33) else (interpret,)
    check(selective, *arguments(2, length, 5, 3), on=on)
    check(everything, normal(length, 3), normal(3, 5), on=on)
    check_gradients(selective, *arguments(1, length, 9, 4), on=on)


@pytest.mark.parametrize("width, states", [(1, 16), (33, 1), (3, 64), (70, 5), (8, 17), (40, 16)])
def test_widths_around_tiles(width, states):
    args = arguments(1, 20, width, states)
    check(selective, *args, on=(interpret,))
    check_gradients(selective, *args, on=(interpret,))


@pytest.mark.parametrize("shape", [(40, 37), (40, 1), (9, 300), (40,)])
def test_without_rows(shape):
    check(turned, normal(*shape))
    check(backwards, normal(*shape), normal(*shape[1:]))
    check_gradients(backwards, normal(*shape), normal(*shape[1:]), on=(interpret,))


def test_all_that_a_step_may_give_and_its_gradient():
    x, w = normal(37, 6), normal(6, 7)
    check(everything, x, w)
    check_gradients(lambda x, w: everything(x, w)[1][:2], x, w)


def test_warps_side_by_side_add_up_in_one_part():
    args = arguments(1, 40, 64, 16)
    program = check_gradients(selective, *args)
    kernel = max(program.kernels, key=lambda k: k.schedule["warps"][1])
    assert kernel.schedule["warps"] == (1, 4)
    folds = [t for s in ir.walk(kernel.body) for t in ir.tiles_of(s) if isinstance(t, ir.Fold) and t.axis == 1]
    assert folds and all(t.parts == 4 for t in folds)


@pytest.mark.parametrize("most", [1, 2])
def test_pieces_that_near_memory_makes_short(most, monkeypatch):
    """As for a step that has more values than near memory holds."""
    monkeypatch.setattr(scan, "MOST_STEPS", (most,))
    args = arguments(1, 9, 6, 3)
    check(selective, *args)
    check_gradients(selective, *args, on=(interpret,))


def test_half_precision_and_layouts():
    args = arguments(1, 33, 12, 4, dtype="bf16")
    check(selective, *args)
    x, dt, *rest = arguments(2, 24, 16, 4)
    turned_x = np.ascontiguousarray(x.transpose(0, 2, 1)).transpose(0, 2, 1)  # time is contiguous
    check(selective, turned_x, dt[:, ::-1], *rest)


@pytest.mark.parametrize("length", [1, 21])
def test_named_lengths_and_widths(length):
    types = {"x": kd.f32["B", "T", "D"], "dt": kd.f32["B", "T", "D"], "a": kd.f32["D", 4], "b": kd.f32["B", "T", 4]}
    types |= {"c": kd.f32["B", "T", 4], "d": kd.f32["D"]}
    args = arguments(2, length, 11, 4)
    check(selective, *args, types=types)
    check_gradients(selective, *args, types=types, on=(interpret,) if length == 1 else (run,))


def test_a_second_derivative():
    def gradient(x, dt, a, b, c, d):
        return kd.grad(lambda x, dt: kd.sum(selective(x, dt, a, b, c, d) ** 2), (0, 1))(x, dt)

    check_gradients(gradient, *arguments(1, 18, 5, 3), on=(interpret,))


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_no_barrier_and_no_spill_in_the_steps(arch):
    """Two barriers for a piece of steps, none in a step, where each step waited for two."""
    f, (B, L, D, N) = kd.f32, (4, 512, 384, 16)
    types = f[B, L, D], f[B, L, D], f[D, N], f[B, L, N], f[B, L, N], f[D]
    kernel = kd.kernel(selective)
    forward, backward = gpu_code(kernel, *types, arch=arch), gpu_code(kernel.vjp, *types, f[B, L, D], arch=arch)
    assert forward.spill_bytes == backward.spill_bytes == 0
    assert forward.registers <= 128 and backward.registers <= 200  # near memory leaves room for eight warps or fewer
    assert [k.count("bar.sync") for k in forward.kernels] == [2]


@pytest.mark.parametrize("name", ["selective_scan", "selective_scan_vjp"])
def test_the_source_of_a_selective_scan(name, golden):
    f, (B, L, D, N) = kd.f32, (2, 64, 64, 16)
    types = f[B, L, D], f[B, L, D], f[D, N], f[B, L, N], f[B, L, N], f[D]
    kernel = kd.kernel(selective)
    looked, more = (kernel.vjp, (f[B, L, D],)) if name.endswith("vjp") else (kernel, ())
    text = looked.source(*types, *more, target="cuda:sm_90")
    golden(f"scans/{name}_cuda", "\n".join(line for line in text.split("\n") if not line.lstrip().startswith("# /")))
