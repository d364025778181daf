"""Scatter-adds: pieces of the scattered axis are owned by blocks, and equal indices add in order."""

from __future__ import annotations

import numpy as np
import pytest

import kdsl as kd
from kdsl.ir import loops as ir
from kdsl.ir.interpreter import interpret
from tests.gpu_target.checked import check, scheduled, traced

rng = np.random.default_rng(0)


def embedding(x, i, u):
    return kd.scatter_add(x, i, u * 2)


def arrays(positions, width, updates):
    u = rng.standard_normal((updates, width)).astype("f4")
    return np.zeros((positions, width), "f4"), rng.integers(-positions, positions, updates), u


@pytest.mark.parametrize("positions, width, updates", [(2000, 40, 60), (3, 1, 9), (1, 130, 5), (5, 8, 0), (700, 3, 1)])
def test_pieces(positions, width, updates):
    given = arrays(positions, width, updates)
    check(embedding, *given, on=(interpret,))
    types = {"x": kd.f32["V", "D"], "i": kd.i64["T"], "u": kd.f32["T", "D"]}
    check(embedding, *given, types=types, on=(interpret,))


def test_many_blocks_share_a_long_axis():
    given = arrays(2000, 40, 60)
    program = scheduled(traced(embedding, *given), *given)
    piece = next(p for k in program.kernels for p in ir.grid(k) if p.index.startswith("piece"))
    assert piece.tile < 10


def test_equal_indices_add_in_order():
    """The sum of 1e8, 1 and -1e8 in f32 tells the order."""
    x, i = np.zeros((4, 1), "f4"), np.array([2, 2, 2, 1])
    u = np.array([[1e8], [1], [-1e8], [5]], "f4") / 2
    program = scheduled(traced(embedding, x, i, u), x, i, u)
    got = interpret(program, x, i, u)[0]
    assert got.ravel().tolist() == [0, 5, np.float32(1e8) + np.float32(1) - np.float32(1e8), 0]
