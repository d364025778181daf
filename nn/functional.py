"""The functions of nn: each is written once, forward, in NumPy's words; its gradient is derived.

Letters: B batch, T time, C width (channels), H heads, D width of one head, V vocabulary, O and I output and input width.
Each function is a family of kernels (kernels.layer): widths are fixed, batch and time are named. Call them on Tensors; inside a
kernel of your own use the plain function, `softmax.function(x)`. Read before: kernels.py, tensor.py. Read next: layers.py.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import kdsl as kd
from nn.kernels import Layer, layer
from nn.tensor import Tensor, apply


class Function:
    """A kernel family that takes and gives Tensors; `function` is the plain function, for use in other kernels."""

    def __init__(self, family: Layer) -> None:
        self.family, self.function = family, family.function
        self.__doc__, self.__name__ = family.function.__doc__, family.function.__name__

    def __call__(self, *args: Any, **static: Any) -> Any:
        return apply(self.family, *args, **static)


def function(*axes: str | None) -> Any:
    """Make a plain function of tracers a Function; for `axes` see kernels.layer."""
    return lambda f: Function(layer(*axes)(f))


# --- activations ------------------------------------------------------------------------------------------------------------
@function("... C")
def relu(x):
    """max(x, 0)."""
    return kd.where(x > 0, x, 0)


@function("... C")
def gelu(x):
    """x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), the form of GPT-2.

    Source    Hendrycks and Gimpel 2016, "Gaussian error linear units"
    """
    return 0.5 * x * (1.0 + kd.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)))


@function("... C")
def silu(x):
    """x sigmoid(x)."""
    return x * kd.sigmoid(x)


@function("... C")
def softmax(x):
    """exp(x - max x) / sum exp(x - max x) along the last axis."""
    e = kd.exp(x - kd.max(x, axis=-1, keepdims=True))
    return e / kd.sum(e, axis=-1, keepdims=True)


@function("... C")
def log_softmax(x):
    """x - log sum exp x along the last axis."""
    return x - kd.logsumexp(x, axis=-1, keepdims=True)


# --- norms --------------------------------------------------------------------------------------------------------------------
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


# --- linear maps --------------------------------------------------------------------------------------------------------------
@function("... I", "O I", "O")
def linear(x, w, b=None):
    """x @ w.T + b, with w of shape (O, I) as torch stores it."""
    y = x @ w.T
    return y if b is None else y + b


@function("... I", "O I", "O")
def linear_gelu(x, w, b):
    """gelu(x @ w.T + b) in one kernel."""
    return gelu.function(x @ w.T + b)


@function("...", "V C")
def embedding(ids, table):
    """table[ids]: a row of the table for each id."""
    return kd.take(table, ids, axis=0)


# --- regularisation -------------------------------------------------------------------------------------------------------------
@function("... C", None, None)
def dropout(x, key, step, *, p):
    """x / (1 - p) where a coin that falls with probability 1 - p says so, else 0.

    `key` is a u32[2] random key and `step` an integer that is folded into it: the same pair gives the same mask.
    """
    keep = kd.random.bernoulli(kd.random.fold_in(key, step), 1.0 - p, x.shape)
    return kd.where(keep, x * (1.0 / (1.0 - p)), 0.0)


@function("... I", "O I", "O", "... O", None, None)
def linear_residual(x, w, b, r, key=None, step=None, *, p=0.0):
    """r + dropout(x @ w.T + b) in one kernel: what ends a branch of a residual network.

    Shapes    x (..., I), w (O, I), b (O,), r (..., O) -> (..., O); key and step as in `dropout`, needed where p > 0
    """
    y = x @ w.T + b
    return r + (dropout.function(y, key, step, p=p) if p else y)


# --- attention ------------------------------------------------------------------------------------------------------------------
@function("batch time C", None, None)
def causal_attention(qkv, key=None, step=None, *, heads, p=0.0):
    """Softmax attention of each position to itself and those before it, all heads at once.

        out = softmax(where(j <= i, q k^T / sqrt(D), -inf)) v

    Shapes    qkv (B, T, 3*C), queries, keys and values side by side -> (B, T, C); C = heads * D
    Memory    the scores (B, heads, T, T) are never stored, forward or backward
    Source    Vaswani and others 2017, "Attention is all you need"; Dao and others 2022, "FlashAttention"
    """
    B, T, C = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    q, k, v = (
        kd.permute_dims(part.reshape((B, T, heads, C // heads)), (0, 2, 1, 3)) for part in kd.split(qkv, 3, axis=-1)
    )  # (B, H, T, D)
    s = (q @ k.mT) * (1.0 / math.sqrt(C // heads))  # (B, H, T, T)
    i, j = kd.arange(T)[:, None], kd.arange(T)[None, :]
    a = softmax.function(kd.where(j <= i, s, -math.inf))
    if p:
        a = dropout.function(a, key, step, p=p)
    return kd.permute_dims(a @ v, (0, 2, 1, 3)).reshape((B, T, C))


# --- losses ---------------------------------------------------------------------------------------------------------------------
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


class Generator:
    """Where random kernels get their keys: a seed and a count of what was drawn, so that a run can be saved and resumed."""

    def __init__(self, seed: int = 0) -> None:
        self.seed(seed)

    def seed(self, seed: int) -> None:
        self.key = np.array([seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF], np.uint32)
        self.count = 0

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        """A key and a step that were not given out before."""
        self.count += 1
        return self.key, np.asarray(self.count, np.int64)


generator = Generator()


def manual_seed(seed: int) -> None:
    """Start all of nn's random numbers anew."""
    generator.seed(seed)


def detached(x: Any) -> np.ndarray:
    """The array behind a Tensor or array."""
    return x.data if isinstance(x, Tensor) else np.asarray(x)
