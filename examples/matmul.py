"""A product of matrices takes what follows it along: bias, activation and residual are added while the sums are still in
registers.

    y = gelu(x @ w + b) + r,   gelu(u) = u/2 (1 + tanh(sqrt(2/pi) (u + 0.044715 u^3)))

    python examples/matmul.py
"""

from __future__ import annotations

import math

import numpy as np

import kdsl as kd


def reference(x: np.ndarray, w: np.ndarray, b: np.ndarray, r: np.ndarray) -> np.ndarray:
    u = x.astype(np.float64) @ w + b
    return u / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3))) + r


def gelu(u):  # an ordinary helper: it becomes part of the kernel that calls it
    return 0.5 * u * (1 + kd.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u * u * u)))


@kd.kernel
def linear_gelu(x, w, b, r):
    return gelu(x @ w + b) + r


def main() -> None:
    rng = np.random.default_rng(0)
    x, r = rng.standard_normal((100, 64), np.float32), rng.standard_normal((100, 200), np.float32)
    w, b = rng.standard_normal((64, 200), np.float32), rng.standard_normal(200, np.float32)
    np.testing.assert_allclose(linear_gelu(x, w, b, r), reference(x, w, b, r), rtol=1e-4, atol=1e-4)
    kernels = linear_gelu.explain(x, w, b, r).kernels
    assert [k.kind for k in kernels].count("kernel") == 1 and not [
        s for k in kernels if k.kind == "kernel" for s in k.stored_intermediates
    ]


if __name__ == "__main__":
    main()
