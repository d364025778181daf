"""Elementwise nonlinearities, softmax and its logarithm.

Read before: function.py. Read next: norms.py.
"""

from __future__ import annotations

import math

import kdsl as kd
from nn.functional.function import function


@function("... C")
def relu(x):
    """max(x, 0)."""
    return kd.where(x > 0, x, 0)


@function("... C")
def gelu(x, *, approximate="tanh"):
    """x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), the form of GPT-2; with approximate="none" x/2 (1 + erf(x/sqrt(2))).

    Source    Hendrycks and Gimpel 2016, "Gaussian error linear units"
    """
    if approximate == "none":
        return 0.5 * x * (1.0 + kd.erf(x * math.sqrt(0.5)))
    return 0.5 * x * (1.0 + kd.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)))


@function("... C")
def silu(x):
    """x sigmoid(x)."""
    return x * kd.sigmoid(x)


@function("... C")
def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return kd.sigmoid(x)


@function("... C")
def tanh(x):
    """The hyperbolic tangent."""
    return kd.tanh(x)


@function("... C")
def softplus(x):
    """log(1 + exp(x)), without overflow: max(x, 0) + log1p(exp(-|x|))."""
    return kd.maximum(x, 0) + kd.log1p(kd.exp(-kd.abs(x)))


@function("... C")
def leaky_relu(x, *, negative_slope=0.01):
    """x where it is positive, else negative_slope * x."""
    return kd.where(x > 0, x, x * negative_slope)


@function("... C")
def elu(x, *, alpha=1.0):
    """x where it is positive, else alpha (exp(x) - 1)."""
    return kd.where(x > 0, x, alpha * kd.expm1(kd.minimum(x, 0)))


@function("... C")
def softmax(x):
    """exp(x - max x) / sum exp(x - max x) along the last axis."""
    e = kd.exp(x - kd.max(x, axis=-1, keepdims=True))
    return e / kd.sum(e, axis=-1, keepdims=True)


@function("... C")
def log_softmax(x):
    """x - log sum exp x along the last axis."""
    return x - kd.logsumexp(x, axis=-1, keepdims=True)


NAMED = {  # as Hugging Face's configs call them
    "gelu": lambda x: gelu.function(x, approximate="none"),
    "gelu_new": gelu.function,
    "gelu_pytorch_tanh": gelu.function,
    "relu": relu.function,
    "sigmoid": sigmoid.function,
    "silu": silu.function,
    "swish": silu.function,
    "tanh": tanh.function,
}
