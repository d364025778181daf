"""Normalisations: of the last axis, of groups of channels, of a batch.

Letters: B batch, C channels, G groups. Read before: function.py. Read next: linear.py.
"""

from __future__ import annotations

import kdsl as kd
from nn.functional.function import function


@function("... C", "C", "C")
def layer_norm(x, w, b, *, eps=1e-5):
    """(x - mean x) / sqrt(var x + eps) * w + b along the last axis.

    Source    Ba, Kiros and Hinton 2016, "Layer normalization"
    """
    d = x - kd.mean(x, axis=-1, keepdims=True)
    return d * kd.rsqrt(kd.mean(d * d, axis=-1, keepdims=True) + eps) * w + b


@function("... C", "C")
def rms_norm(x, w, *, eps=1e-5):
    """x / sqrt(mean x^2 + eps) * w along the last axis."""
    return x * kd.rsqrt(kd.mean(x * x, axis=-1, keepdims=True) + eps) * w


@function("batch C ...", "C", "C")
def group_norm(x, w=None, b=None, *, num_groups, eps=1e-5):
    """Each group of C / num_groups channels of each example is normalised, then scaled and shifted channel by channel.

    Shapes    x (B, C, ...), w (C,), b (C,) -> (B, C, ...)
    Source    Wu and He 2018, "Group normalization"
    """
    batch, channels, *rest = x.shape
    grouped = x.reshape((batch, num_groups, channels // num_groups, *rest))
    axes = tuple(range(2, grouped.ndim))
    d = grouped - kd.mean(grouped, axis=axes, keepdims=True)
    y = (d * kd.rsqrt(kd.mean(d * d, axis=axes, keepdims=True) + eps)).reshape(x.shape)
    y = y if w is None else y * _by_channel(w, x)
    return y if b is None else y + _by_channel(b, x)


@function("batch C ...", "C", "C", "C", "C")
def batch_norm(x, mean, var, w=None, b=None, *, eps=1e-5):
    """(x - mean) / sqrt(var + eps) * w + b with one mean and one variance a channel, as a model uses them that has learned.

    Shapes    x (B, C, ...), the others (C,) -> (B, C, ...)
    Source    Ioffe and Szegedy 2015, "Batch normalization"
    """
    y = (x - _by_channel(mean, x)) * _by_channel(kd.rsqrt(var + eps), x)
    y = y if w is None else y * _by_channel(w, x)
    return y if b is None else y + _by_channel(b, x)


@function("batch C ...", "C", "C", "C", "C")
def batch_norm_train(x, mean, var, w=None, b=None, *, momentum=0.1, eps=1e-5):
    """batch_norm with the mean and variance of this batch; also returns the running ones, moved towards them by `momentum`.

    Shapes    x (B, C, ...), the others (C,) -> (B, C, ...), (C,), (C,)
    """
    axes = (0, *range(2, x.ndim))
    m, v = kd.mean(x, axis=axes), kd.var(x, axis=axes)
    y = batch_norm.function(x, m, v, w, b, eps=eps)
    n = x.size // x.shape[1]
    unbiased = v * (n / (n - 1))
    m, unbiased = kd.stop_gradient(m), kd.stop_gradient(unbiased)
    return y, mean + momentum * (m - mean), var + momentum * (unbiased - var)


def _by_channel(v, x):
    """v (C,) so that it lies along axis 1 of x."""
    return v.reshape((v.shape[0],) + (1,) * (x.ndim - 2))
