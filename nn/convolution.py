"""Convolution and pooling layers by torch's names: a Module each, one function of functional/windows.py.

Letters: B batch, C input channels, O output channels, T time, H and W height and width.
Read before: layers.py, functional/windows.py. Read next: mamba.py.
"""

from __future__ import annotations

import math
from typing import Any

from nn import functional as F
from nn import init
from nn.module import Module, Parameter
from nn.tensor import Tensor

Count = Any  # an int, or a tuple with one for each axis


class _Convolution(Module):
    axes: int  # of an image

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Count,
        stride: Count = 1,
        padding: Any = 0,
        dilation: Count = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"{groups} groups do not divide {in_channels} input and {out_channels} output channels")
        window = kernel_size if isinstance(kernel_size, tuple) else (kernel_size,) * self.axes
        bound = 1 / math.sqrt(in_channels // groups * math.prod(window))
        self.weight = Parameter(init.uniform((out_channels, in_channels // groups, *window), bound))
        self.bias = Parameter(init.uniform((out_channels,), bound)) if bias else None
        self.how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}

    def _arguments(self, x: Any) -> tuple[Any, ...]:
        return (x, self.weight) if self.bias is None else (x, self.weight, self.bias)

    def describe(self) -> str:
        O, C, *window = self.weight.shape
        return f"{C * self.how['groups']}, {O}, kernel_size={tuple(window)}, " + ", ".join(
            f"{name}={value}" for name, value in self.how.items()
        )


class Conv1d(_Convolution):
    """Convolution of a line: x (B, C, T) -> (B, O, T'); weight (O, C/groups, K) starts uniform in 1/sqrt(C/groups K).

    `padding` is a number, "valid", "same", or "causal": all before, so that no output sees what comes later.

    Example: `nn.Conv1d(3, 4, 2, padding="causal")(np.ones((2, 3, 8), "f4")).shape`.
    """

    axes = 1

    def forward(self, x: Any) -> Tensor:
        return F.conv1d(*self._arguments(x), **self.how)


class Conv2d(_Convolution):
    """Convolution of an image: x (B, C, H, W) -> (B, O, H', W'); weight (O, C/groups, K, L).

    Example: `nn.Conv2d(3, 4, 2)(np.ones((2, 3, 8, 8), "f4")).shape`.
    """

    axes = 2

    def forward(self, x: Any) -> Tensor:
        return F.conv2d(*self._arguments(x), **self.how)


class _Pool(Module):
    def __init__(self, kernel_size: Count, stride: Count = None, padding: Count = 0) -> None:
        super().__init__()
        self.how = {"kernel_size": kernel_size, "stride": stride, "padding": padding}

    def describe(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.how.items())


class MaxPool1d(_Pool):
    """The largest of each window of a line; `stride` is the window where none is given."""

    def forward(self, x: Any) -> Tensor:
        return F.max_pool1d(x, **self.how)


class MaxPool2d(_Pool):
    """The largest of each window of an image; `stride` is the window where none is given."""

    def forward(self, x: Any) -> Tensor:
        return F.max_pool2d(x, **self.how)


class AvgPool1d(_Pool):
    """The mean of each window of a line, zeros outside counted."""

    def forward(self, x: Any) -> Tensor:
        return F.avg_pool1d(x, **self.how)


class AvgPool2d(_Pool):
    """The mean of each window of an image, zeros outside counted."""

    def forward(self, x: Any) -> Tensor:
        return F.avg_pool2d(x, **self.how)
