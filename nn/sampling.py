"""The next token from the logits of the last position: the likeliest, or a draw.

Letters: B batch, V vocabulary. Read before: kernels.py, functional/random.py. Read next: gpt.py, recurrent.py.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import kdsl as kd
from nn.devices import device_of
from nn.functional.random import generator
from nn.kernels import layer


def next_tokens(logits: Any, temperature: float, do_sample: bool, top_k: int | None) -> Any:
    """For logits (B, T, V) the likeliest token (B,) after the last position of each row, or with do_sample one drawn from
    softmax(logits / temperature) over the top_k likeliest (all if None); they lie where the logits are."""
    key, step = generator.draw(device_of(logits))
    if not do_sample:
        return _greedy(logits)
    return _sample(logits, key, step, np.asarray(1.0 / temperature, np.float32), top_k=top_k)


def continued(ids: Any, new: Any) -> Any:
    """ids (B, T) and after them new (B,): (B, T + 1)."""
    return _continued(ids, new)


def last(ids: Any, most: int) -> Any:
    """The last `most` of ids (B, T), or all where there are fewer."""
    return ids if ids.shape[1] <= most else _last(ids, most=most)


@layer("batch time")
def _last(ids, *, most):
    return ids[:, -most:]


@layer("batch time", "batch")
def _continued(ids, new):
    return kd.concat([ids, kd.astype(new, ids.dtype)[:, None]], axis=1)


@layer("batch time V")
def _greedy(logits):
    return kd.argmax(logits[:, -1], axis=-1)


@layer("batch time V", None, None, None)
def _sample(logits, key, step, inverse_temperature, *, top_k):
    """A draw from softmax(logits / temperature) by the Gumbel trick: argmax of logits plus -log(-log u)."""
    logits = logits[:, -1]  # (B, V)
    if top_k is not None and top_k < logits.shape[-1]:
        larger = kd.sum(
            kd.astype(logits[:, None, :] > logits[:, :, None], kd.i32), axis=-1
        )  # (B, V): how many beat each
        logits = kd.where(larger < top_k, logits, -math.inf)
    u = kd.random.uniform(kd.random.fold_in(key, step), logits.shape)
    return kd.argmax(logits * inverse_temperature - kd.log(-kd.log(u + 1e-20)), axis=-1)
