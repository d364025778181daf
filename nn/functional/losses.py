"""Losses: one number from predictions and targets.

Read before: function.py. Read next: ../trainer.py.
"""

from __future__ import annotations

import kdsl as kd
from nn.functional.function import function


@function("... V", "...")
def cross_entropy(logits, targets):
    """Mean of -log softmax(logits)[target] over the targets that are not -1.

    Shapes    logits (..., V), targets (...) integers -> ()
    """
    hit = kd.arange(logits.shape[-1]) == targets[..., None]
    nll = kd.logsumexp(logits, axis=-1) - kd.sum(kd.where(hit, logits, 0.0), axis=-1)
    counted = targets != -1
    return kd.sum(kd.where(counted, nll, 0.0)) / kd.sum(kd.astype(counted, logits.dtype))


@function("... C", "... C")
def mse_loss(x, y):
    """Mean of (x - y)^2."""
    return kd.mean((x - y) * (x - y))


@function("... C", "... C")
def l1_loss(x, y):
    """Mean of |x - y|."""
    return kd.mean(kd.abs(x - y))


@function("... C", "... C")
def binary_cross_entropy_with_logits(x, y):
    """Mean of -(y log sigmoid(x) + (1 - y) log(1 - sigmoid(x))), without overflow.

    Shapes    x logits and y probabilities of one shape -> ()
    """
    return kd.mean(kd.maximum(x, 0) - x * y + kd.log1p(kd.exp(-kd.abs(x))))
