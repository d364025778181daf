"""Random numbers in layers: one generator for all of nn, and dropout.

Read before: function.py. Read next: linear.py, attention.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import kdsl as kd
from nn.devices import HOST, moved
from nn.functional.function import function


class Generator:
    """Where random kernels get their keys: a seed and a count of what was drawn, so that a run can be saved and resumed."""

    def __init__(self, seed: int = 0) -> None:
        self.seed(seed)

    def seed(self, seed: int) -> None:
        self.restore(np.array([seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF], np.uint32), 0)

    def restore(self, key: np.ndarray, count: int) -> None:
        """Go on from a key and a count of what was drawn with it."""
        self.key, self.count = key, count
        self._keys: dict[str, Any] = {HOST: key}

    def draw(self, device: str = HOST) -> tuple[Any, np.ndarray]:
        """A key and a step that were not given out before. The key lies on the device; the step is a number, for kernels of any.

        The same pair gives the same numbers on every device."""
        self.count += 1
        key = self._keys.get(device)
        if key is None:
            key = self._keys[device] = moved(self.key, device)
        return key, np.asarray(self.count, np.int64)


generator = Generator()


def manual_seed(seed: int) -> None:
    """Start all of nn's random numbers anew."""
    generator.seed(seed)


@function("... C", None, None)
def dropout(x, key, step, *, p):
    """x / (1 - p) where a coin that falls with probability 1 - p says so, else 0.

    `key` is a u32[2] random key and `step` an integer that is folded into it: the same pair gives the same mask.
    """
    keep = kd.random.bernoulli(kd.random.fold_in(key, step), 1.0 - p, x.shape)
    return kd.where(keep, x * (1.0 / (1.0 - p)), 0.0)
