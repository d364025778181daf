"""A chain of elementwise operations is one kernel.

    z = max(alpha * x + y, 0) * y

NumPy makes four passes over memory and three arrays that nobody wants; the kernel reads x and y once and writes z once.

    python examples/saxpy.py
"""

from __future__ import annotations

import numpy as np

import kdsl as kd


def reference(alpha: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(alpha * x + y, 0) * y


@kd.kernel
def saxpy(alpha: kd.f32, x: kd.f32["N"], y: kd.f32["N"]):
    return kd.maximum(alpha * x + y, 0) * y


def main() -> None:
    rng = np.random.default_rng(0)
    for n in (
        0,
        1,
        7,
        1_000_003,
    ):  # "N" is a name: compiled once for all sizes, and alpha is a number that may change
        x, y = rng.standard_normal((2, n), np.float32)
        np.testing.assert_allclose(saxpy(2.5, x, y), reference(np.float32(2.5), x, y), rtol=1e-5, atol=1e-6)
    assert len(saxpy.explain().kernels) == 1
    print(saxpy.stages()["scheduled"])


if __name__ == "__main__":
    main()
