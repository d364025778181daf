"""The next token from the logits of the last position: the likeliest, or a draw.

Letters: B batch, V vocabulary. Read before: kernels.py, functional/random.py. Read next: gpt.py, recurrent.py.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import kdsl as kd
from nn.functional.random import generator
from nn.kernels import layer


def next_tokens(logits: Any, temperature: float, do_sample: bool, top_k: int | None) -> np.ndarray:
    """For logits (B, V) the likeliest token of each row (B,), or with do_sample one drawn from softmax(logits / temperature)
    over the top_k likeliest (all if None)."""
    key, step = generator.draw()
    logits = np.ascontiguousarray(logits)
    if not do_sample:
        return _greedy(logits)
    return _sample(logits, key, step, np.asarray(1.0 / temperature, np.float32), top_k=top_k)


@layer("batch V")
def _greedy(logits):
    return kd.argmax(logits, axis=-1)


@layer("batch V", None, None, None)
def _sample(logits, key, step, inverse_temperature, *, top_k):
    """A draw from softmax(logits / temperature) by the Gumbel trick: argmax of logits plus -log(-log u)."""
    if top_k is not None and top_k < logits.shape[-1]:
        larger = kd.sum(
            kd.astype(logits[:, None, :] > logits[:, :, None], kd.i32), axis=-1
        )  # (B, V): how many beat each
        logits = kd.where(larger < top_k, logits, -math.inf)
    u = kd.random.uniform(kd.random.fold_in(key, step), logits.shape)
    return kd.argmax(logits * inverse_temperature - kd.log(-kd.log(u + 1e-20)), axis=-1)
