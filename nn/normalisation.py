"""Normalising layers by torch's names: a Module each, one function of functional/norms.py.

Letters: B batch, C width or channels. Read before: layers.py. Read next: attention.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nn import functional as F
from nn import init
from nn.module import Buffer, Module, Parameter
from nn.tape import no_grad
from nn.tensor import Tensor


class LayerNorm(Module):
    """Layer normalisation of the last axis, with a learned scale and shift.

    y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias. Source: Ba, Kiros, Hinton 2016

    Example: `nn.LayerNorm(3)(np.ones((4, 3), "f4")).shape`.
    """

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight, self.bias = Parameter(init.ones((width,))), Parameter(init.zeros((width,)))

    def forward(self, x: Any) -> Tensor:
        return F.layer_norm(x, self.weight, self.bias, eps=self.eps)

    def describe(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}"


class RMSNorm(Module):
    """Root-mean-square normalisation of the last axis, with a learned scale.

    y = x / sqrt(mean(x * x) + eps) * weight. Source: Zhang, Sennrich 2019

    Example: `nn.RMSNorm(3)(np.ones((4, 3), "f4")).shape`.
    """

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps, self.weight = eps, Parameter(init.ones((width,)))

    def forward(self, x: Any) -> Tensor:
        return F.rms_norm(x, self.weight, eps=self.eps)

    def describe(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}"


class GroupNorm(Module):
    """Each group of channels of each example is normalised: x (B, C, ...) -> the same shape.

    Source: Wu, He 2018

    Example: `nn.GroupNorm(2, 4)(np.ones((3, 4, 5), "f4")).shape`.
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        if num_channels % num_groups:
            raise ValueError(f"{num_groups} groups do not divide {num_channels} channels")
        self.num_groups, self.num_channels, self.eps = num_groups, num_channels, eps
        self.weight = Parameter(init.ones((num_channels,))) if affine else None
        self.bias = Parameter(init.zeros((num_channels,))) if affine else None

    def forward(self, x: Any) -> Tensor:
        learned = () if self.weight is None else (self.weight, self.bias)
        return F.group_norm(x, *learned, num_groups=self.num_groups, eps=self.eps)

    def describe(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}"


class _BatchNorm(Module):
    ranks: tuple[int, ...]

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = Parameter(init.ones((num_features,))) if affine else None
        self.bias = Parameter(init.zeros((num_features,))) if affine else None
        self.running_mean, self.running_var = Buffer(init.zeros((num_features,))), Buffer(init.ones((num_features,)))
        self.num_batches_tracked = Buffer(np.zeros((), np.int64))

    def forward(self, x: Any) -> Tensor:
        if len(x.shape) not in self.ranks:
            raise ValueError(f"{type(self).__name__} takes tensors of {self.ranks} axes, and this one has {len(x.shape)}")
        learned = () if self.weight is None else (self.weight, self.bias)
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, *learned, eps=self.eps)
        y, mean, var = F.batch_norm_train(
            x, self.running_mean, self.running_var, *learned, momentum=self.momentum, eps=self.eps
        )
        self.running_mean.data, self.running_var.data = mean.data, var.data
        with no_grad():
            self.num_batches_tracked.data = (self.num_batches_tracked + 1).data
        return y

    def describe(self) -> str:
        return f"{self.running_mean.shape[0]}, eps={self.eps}, momentum={self.momentum}"


class BatchNorm1d(_BatchNorm):
    """Each channel is normalised over the batch: x (B, C) or (B, C, T); with running statistics once eval() was called."""

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Each channel is normalised over the batch and the image: x (B, C, H, W)."""

    ranks = (4,)
