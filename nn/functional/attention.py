"""Softmax attention: scores are never stored, forward or backward.

Letters: B batch, T time (queries), S source (keys), C width, H heads, D width of one head.
Source: Vaswani and others 2017, "Attention is all you need"; Dao and others 2022, "FlashAttention".
Read before: activations.py, random.py. Read next: ../layers.py.
"""

from __future__ import annotations

import math

import kdsl as kd
from nn.functional.activations import softmax
from nn.functional.function import function
from nn.functional.random import dropout


@function("batch time C", None, None)
def causal_attention(qkv, key=None, step=None, *, heads, p=0.0):
    """Attention of each position to itself and those before it, all heads at once.

        out = softmax(where(j <= i, q k^T / sqrt(D), -inf)) v

    Shapes    qkv (B, T, 3*C), queries, keys and values side by side -> (B, T, C); C = heads * D
    Memory    the scores (B, heads, T, T) are never stored
    """
    B, T, C = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    q, k, v = (
        kd.permute_dims(part.reshape((B, T, heads, C // heads)), (0, 2, 1, 3)) for part in kd.split(qkv, 3, axis=-1)
    )  # (B, H, T, D)
    a = _weights(q, k, None, key, step, True, p, 1.0 / math.sqrt(C // heads))
    return kd.permute_dims(a @ v, (0, 2, 1, 3)).reshape((B, T, C))


@function("batch H time D", "batch H source D", "batch H source E", "time source | batch M time source", None, None)
def scaled_dot_product_attention(q, k, v, mask=None, key=None, step=None, *, is_causal=False, p=0.0, scale=None):
    """softmax(q k^T * scale + mask) v; scale is 1/sqrt(D) where none is given.

    Shapes    q (B, H, T, D), k (B, H, S, D), v (B, H, S, E) -> (B, H, T, E); mask (T, S), (B, 1, T, S) or (B, H, T, S),
              bool (True: seen) or floating (added to the scores); key and step as in `dropout`, needed where p > 0
    Memory    the scores (B, H, T, S) are never stored
    """
    scale = 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale
    return _weights(q, k, mask, key, step, is_causal, p, scale) @ v


def _weights(q, k, mask, key, step, is_causal, p, scale):
    """The attention of each query to each key (B, H, T, S)."""
    s = (q @ k.mT) * scale  # (B, H, T, S)
    if is_causal:
        s = kd.where(kd.arange(k.shape[-2])[None, :] <= kd.arange(q.shape[-2])[:, None], s, -math.inf)
    if mask is not None:
        s = kd.where(mask, s, -math.inf) if mask.dtype == kd.bool else s + mask
    a = softmax.function(s)
    return dropout.function(a, key, step, p=p) if p else a
