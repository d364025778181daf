"""Layer norm: mean and variance in one walk, and a gradient that adds along rows and along columns.

    y = (x - mean(x)) / sqrt(var(x) + eps) * w + b

dx needs sums along each row, dw and db sums along each column; the derived backward reads x and dy together for all of them.

    python examples/layer_norm.py
"""

from __future__ import annotations

import numpy as np

import kdsl as kd


def reference(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * w + b


def reference_gradients(x: np.ndarray, w: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By hand, from a textbook."""
    s = 1 / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    n = (x - x.mean(-1, keepdims=True)) * s
    g = dy * w
    dx = s * (g - g.mean(-1, keepdims=True) - n * (g * n).mean(-1, keepdims=True))
    return dx, (dy * n).sum(0), dy.sum(0)


@kd.kernel
def layer_norm(x: kd.f32["R", "D"], w: kd.f32["D"], b: kd.f32["D"]):
    centred = x - kd.mean(x, axis=-1, keepdims=True)
    return centred * kd.rsqrt(kd.var(x, axis=-1, keepdims=True) + 1e-5) * w + b


def main() -> None:
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 64, 768), np.float32)
    w, b = rng.standard_normal((2, 768), np.float32)
    np.testing.assert_allclose(layer_norm(x, w, b), reference(x, w, b), rtol=1e-4, atol=1e-5)
    for got, want in zip(layer_norm.vjp(x, w, b, dy), reference_gradients(x, w, dy)):
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)
    layer_norm.explain(x, w, b)
    layer_norm.vjp.explain(x, w, b, dy)


if __name__ == "__main__":
    main()
