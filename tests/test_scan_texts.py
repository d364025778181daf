"""The stages of three scans as texts, tests/golden/scans/: traced, grouped, lowered, scheduled; forward and backward.

An exponential moving average (carry in registers), a GRU (products: values in memory, nests), the selective scan (a fold over
the state, a few rows at a time; parts of gradients). `pytest --update-golden` writes them anew.
"""

from __future__ import annotations

import pytest

import kdsl as kd
from examples import recurrences
from tests.language.test_scans import selective_scan

T, B, D, H, N = 20, 2, 8, 4, 8
SCANS = {
    "moving_average": (recurrences.moving_average, (kd.f32[T, D], kd.f32[()])),
    "gru": (recurrences.gru, (kd.f32[T, B, D], kd.f32[B, H], kd.f32[D, 3 * H], kd.f32[H, 3 * H], kd.f32[3 * H])),
    "selective_scan": (
        lambda x, dt, a, b, c, d: selective_scan(x, dt, a, b, c, d)[1],
        (kd.f32[B, T, D], kd.f32[B, T, D], kd.f32[D, N], kd.f32[B, T, N], kd.f32[B, T, N], kd.f32[D]),
    ),
}  # fmt: skip
RESULTS = {"moving_average": kd.f32[T, D], "gru": kd.f32[T, B, H], "selective_scan": kd.f32[B, T, D]}
STAGES = ("traced", "grouped", "lowered", "scheduled")


@pytest.mark.parametrize("name", SCANS)
def test_forward(name, golden):
    f, types = SCANS[name]
    golden(f"scans/{name}", text(kernel(f).stages(*types)))


@pytest.mark.parametrize("name", SCANS)
def test_backward(name, golden):
    f, types = SCANS[name]
    golden(f"scans/{name}_vjp", text(kernel(f).vjp.stages(*types, RESULTS[name])))


def kernel(f):
    plain = f.__wrapped__ if isinstance(f, kd.Kernel) else f
    return kd.kernel(plain, target="cpu:x86-64-v3")


def text(stages):
    return "\n".join(f"=== {name}\n{stages[name]}\n" for name in STAGES)
