"""Convolution and pooling: a sliding window, then a contraction or a reduction. No window is ever stored.

Letters: B batch, C input channels, O output channels, G groups, T time, H and W height and width, K window.
`stride`, `padding` and `dilation` are a number, or one number for each axis of an image.
Read before: function.py. Read next: ../convolution.py.
"""

from __future__ import annotations

import math
from typing import Any

import kdsl as kd
from nn.functional.function import function

Count = Any  # an int, or a pair of them


@function("batch C time", "O I K", "O")
def conv1d(x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1):
    """y[o, t] = b[o] + sum over c, k of w[o, c, k] x[c, t stride + k dilation - padding].

    Shapes    x (B, C, T), w (O, C/groups, K), b (O,) -> (B, O, (T + 2 padding - dilation (K - 1) - 1) // stride + 1)
    """
    windows = _windows(x, w.shape[2:], stride, padding, dilation)  # (B, C, T', K)
    batch, C, time, K = windows.shape
    O = w.shape[0]
    if groups == C and w.shape[1] == 1:  # depthwise: no channel is summed
        y = kd.repeat(windows, O // C, axis=1) if O != C else windows
        y = kd.sum(y * w, axis=-1)  # (B, O, T')
    else:
        grouped = windows.reshape((batch, groups, C // groups, time, K))
        y = kd.einsum("bgctk,gock->bgot", grouped, w.reshape((groups, O // groups, C // groups, K)))
        y = y.reshape((batch, O, time))
    return y if b is None else y + b[:, None]


@function("batch C H W", "O I K L", "O")
def conv2d(x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1):
    """y[o, h, w] = b[o] + sum over c, i, j of w[o, c, i, j] x[c, h stride + i dilation - padding, ...], as torch's.

    Shapes    x (B, C, H, W), w (O, C/groups, K, L), b (O,) -> (B, O, H', W')
    """
    windows = _windows(x, w.shape[2:], stride, padding, dilation)  # (B, C, H', W', K, L)
    batch, C, height, width, K, L = windows.shape
    O = w.shape[0]
    grouped = windows.reshape((batch, groups, C // groups, height, width, K, L))
    kernels = w.reshape((groups, O // groups, C // groups, K, L))
    y = kd.einsum("bgchwkl,gockl->bgohw", grouped, kernels).reshape((batch, O, height, width))
    return y if b is None else y + b[:, None, None]


@function("batch C time")
def max_pool1d(x, *, kernel_size, stride=None, padding=0):
    """The largest of each window of `kernel_size` neighbours; ties share the gradient.

    Shapes    x (B, C, T) -> (B, C, (T + 2 padding - kernel_size) // stride + 1)
    """
    return kd.max(_pooled(x, kernel_size, stride, padding, -math.inf), axis=-1)


@function("batch C H W")
def max_pool2d(x, *, kernel_size, stride=None, padding=0):
    """The largest of each window; ties share the gradient.

    Shapes    x (B, C, H, W) -> (B, C, H', W')
    """
    return kd.max(_pooled(x, kernel_size, stride, padding, -math.inf), axis=(-2, -1))


@function("batch C time")
def avg_pool1d(x, *, kernel_size, stride=None, padding=0):
    """The mean of each window of `kernel_size` neighbours, zeros outside counted.

    Shapes    x (B, C, T) -> (B, C, (T + 2 padding - kernel_size) // stride + 1)
    """
    return kd.mean(_pooled(x, kernel_size, stride, padding, 0), axis=-1)


@function("batch C H W")
def avg_pool2d(x, *, kernel_size, stride=None, padding=0):
    """The mean of each window, zeros outside counted.

    Shapes    x (B, C, H, W) -> (B, C, H', W')
    """
    return kd.mean(_pooled(x, kernel_size, stride, padding, 0), axis=(-2, -1))


def _pooled(x, kernel_size: Count, stride: Count, padding: Count, fill: float):
    sizes = _each(kernel_size, x.ndim - 2)
    return _windows(x, sizes, sizes if stride is None else stride, padding, 1, fill)


def _windows(x, sizes, stride: Count, padding: Count, dilation: Count, fill: float = 0):
    """Windows of the axes after the second: (B, C, positions…, window…)."""
    count = x.ndim - 2
    pads = _padding(padding, sizes, _each(dilation, count))
    if any(map(any, pads)):
        x = kd.pad(x, ((0, 0), (0, 0), *pads), value=fill)
    strides, dilations = _each(stride, count), _each(dilation, count)
    for i, (k, s, d) in enumerate(zip(sizes, strides, dilations)):
        x = kd.sliding_window(x, k, axis=2 + i, stride=s, dilation=d)
    return x


def _padding(padding: Count, sizes, dilations) -> list[tuple[int, int]]:
    """What is added before and after each axis; "same" keeps lengths at a stride of 1, "causal" adds all before."""
    whole = [d * (k - 1) for k, d in zip(sizes, dilations)]
    if padding == "same":
        return [(n // 2, n - n // 2) for n in whole]
    if padding == "causal":
        return [(n, 0) for n in whole]
    return [(p, p) for p in _each(0 if padding == "valid" else padding, len(whole))]


def _each(value: Count, count: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple) else (value,) * count
