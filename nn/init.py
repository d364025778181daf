"""Values for new parameters, drawn by kdsl's own random kernels from nn's generator (functional.random.generator).

In:  a shape.  Out: an f32 array.  Read next: layers.py.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import kdsl as kd
from nn.functional.random import generator


@kd.kernel
def _normal(key, step, values: kd.f32["N"], std: kd.f32):
    return kd.random.normal(kd.random.fold_in(key, step), values.shape) * std


@kd.kernel
def _uniform(key, step, values: kd.f32["N"], bound: kd.f32):
    return (kd.random.uniform(kd.random.fold_in(key, step), values.shape) * 2.0 - 1.0) * bound


def normal(shape: tuple[int, ...], std: float) -> np.ndarray:
    """N(0, std^2)."""
    return _draw(_normal, shape, std)


def uniform(shape: tuple[int, ...], bound: float) -> np.ndarray:
    """U(-bound, bound)."""
    return _draw(_uniform, shape, bound)


def _draw(kernel: Any, shape: tuple[int, ...], scale: float) -> np.ndarray:
    """Random numbers are counted in C order, so a flat array of them serves any shape, and one kernel all sizes."""
    key, step = generator.draw()
    return kernel(key, step, np.empty(math.prod(shape), np.float32), np.float32(scale)).reshape(shape)


def steps(shape: tuple[int, ...], least: float, most: float, floor: float) -> np.ndarray:
    """What softplus turns into step sizes between `least` and `most` that are uniform in their logarithm, at least `floor`.

    log(exp(dt) - 1) = dt + log(1 - exp(-dt))      Source    the official Mamba
    """
    u = uniform(shape, 1.0)
    return _steps(u, np.float32(math.log(least)), np.float32(math.log(most)), np.float32(floor))


@kd.kernel
def _steps(u: kd.f32["N"], low: kd.f32, high: kd.f32, floor: kd.f32):
    dt = kd.maximum(kd.exp((u * 0.5 + 0.5) * (high - low) + low), floor)
    return dt + kd.log(-kd.expm1(-dt))


def log_of_counts(rows: int, columns: int) -> np.ndarray:
    """log 1, log 2 … log columns in each row: Mamba's A_log."""
    return _log_of_counts(np.zeros((rows, columns), np.float32))


@kd.kernel
def _log_of_counts(like: kd.f32["D", "N"]):
    return like + kd.log(kd.astype(kd.arange(like.shape[1]) + 1, kd.f32))


def zeros(shape: tuple[int, ...]) -> np.ndarray:
    return np.zeros(shape, np.float32)


def ones(shape: tuple[int, ...]) -> np.ndarray:
    return np.ones(shape, np.float32)
