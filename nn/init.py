"""Values for new parameters, drawn by kdsl's own random kernels from nn's generator (functional.generator).

In:  a shape.  Out: an f32 array.  Read next: layers.py.
"""

from __future__ import annotations

import numpy as np

import kdsl as kd
from nn.functional import generator


@kd.kernel
def _normal(key, step, *, shape, std):
    return kd.random.normal(kd.random.fold_in(key, step), shape) * std


@kd.kernel
def _uniform(key, step, *, shape, bound):
    return (kd.random.uniform(kd.random.fold_in(key, step), shape) * 2.0 - 1.0) * bound


def normal(shape: tuple[int, ...], std: float) -> np.ndarray:
    """N(0, std^2)."""
    key, step = generator.draw()
    return _normal(key, step, shape=tuple(shape), std=float(std))


def uniform(shape: tuple[int, ...], bound: float) -> np.ndarray:
    """U(-bound, bound)."""
    key, step = generator.draw()
    return _uniform(key, step, shape=tuple(shape), bound=float(bound))


def zeros(shape: tuple[int, ...]) -> np.ndarray:
    return np.zeros(shape, np.float32)


def ones(shape: tuple[int, ...]) -> np.ndarray:
    return np.ones(shape, np.float32)
