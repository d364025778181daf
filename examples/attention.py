"""Causal attention, written as its formula: forward and backward without a stored matrix of scores.

    y_i = sum_{j <= i} softmax_j(q_i . k_j / sqrt(D)) v_j

The scores of T positions are T x T numbers; a kernel that walks along them in strips never needs them all. Nothing in kdsl
knows the word attention: what makes it one kernel are the rules for chains of contractions, so a variant (a bias, a soft
cap, a window) is one kernel as well.

    python examples/attention.py
"""

from __future__ import annotations

import math

import numpy as np

import kdsl as kd


def reference(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    scores = q.astype(np.float64) @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
    scores = np.where(np.tri(q.shape[-2], dtype=bool), scores, -np.inf)
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True) @ v


@kd.kernel
def attention(q, k, v):
    i = kd.arange(q.shape[-2])
    scores = kd.where(i[:, None] >= i[None, :], q @ k.mT / math.sqrt(q.shape[-1]), -np.inf)
    e = kd.exp(scores - kd.max(scores, axis=-1, keepdims=True))
    return e / kd.sum(e, axis=-1, keepdims=True) @ v


@kd.kernel
def with_soft_cap(q, k, v):
    scores = 20 * kd.tanh(q @ k.mT / (20 * math.sqrt(q.shape[-1])))
    e = kd.exp(scores - kd.max(scores, axis=-1, keepdims=True))
    return e / kd.sum(e, axis=-1, keepdims=True) @ v


def main() -> None:
    q, k, v, dy = np.random.default_rng(0).standard_normal((4, 4, 100, 32), np.float32)
    np.testing.assert_allclose(attention(q, k, v), reference(q, k, v), rtol=1e-3, atol=1e-4)
    print(attention.verify(q[:1, :9], k[:1, :9], v[:1, :9]))
    for kernel in (attention, with_soft_cap):
        forward, backward = kernel.explain(q, k, v), kernel.vjp.explain(q, k, v, dy)
        for k_ in (*forward.kernels, *backward.kernels):
            assert not [s for s in k_.stored_intermediates if "100, 100" in s], "a matrix of scores is stored"


if __name__ == "__main__":
    main()
