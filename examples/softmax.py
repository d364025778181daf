"""Softmax: two sums over a row, one kernel, and its gradient, one kernel too.

    y_i = exp(x_i - m) / sum_j exp(x_j - m),   m = max_j x_j

The maximum is taken away so that no exponential overflows. A row that holds an infinity gives what NumPy gives.

    python examples/softmax.py
"""

from __future__ import annotations

import numpy as np

import kdsl as kd


def reference(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@kd.kernel
def softmax(x):
    e = kd.exp(x - kd.max(x, axis=-1, keepdims=True))
    return e / kd.sum(e, axis=-1, keepdims=True)


def main() -> None:
    x, dy = np.random.default_rng(0).standard_normal((2, 100, 1000), np.float32)
    y = softmax(x)
    np.testing.assert_allclose(y, reference(x), rtol=1e-5, atol=1e-7)
    (dx,) = softmax.vjp(x, dy)
    np.testing.assert_allclose(
        dx, y * (dy - np.sum(dy * y, axis=-1, keepdims=True)), rtol=1e-4, atol=1e-6
    )  # what a textbook says
    assert len(softmax.explain(x).kernels) == len(softmax.vjp.explain(x, dy).kernels) == 1
    print(softmax.verify(x))


if __name__ == "__main__":
    main()
