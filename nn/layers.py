"""Layers by torch's names: a Module each, its parameters, one function of functional/.

Read before: module.py, functional/. Read next: normalisation.py, convolution.py, attention.py, mlp.py.
"""

from __future__ import annotations

import math
from typing import Any

from nn import functional as F
from nn import init
from nn.devices import device_of
from nn.module import Module, Parameter
from nn.tensor import Tensor


class Linear(Module):
    """y = x @ weight.T + bias; weight (out_features, in_features) and bias start uniform in 1/sqrt(in_features).

    Shapes    x (..., in_features) -> (..., out_features)

    Example: `nn.Linear(3, 2)(np.ones((4, 3), "f4")).shape`.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features)
        self.weight = Parameter(init.uniform((out_features, in_features), bound))
        self.bias = Parameter(init.uniform((out_features,), bound)) if bias else None

    def forward(self, x: Any) -> Tensor:
        return F.linear(x, self.weight) if self.bias is None else F.linear(x, self.weight, self.bias)

    def describe(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, bias={self.bias is not None}"


class Embedding(Module):
    """A learned row for each id: weight (num_embeddings, embedding_dim) starts N(0, 1).

    Shapes    ids (...) -> (..., embedding_dim)

    Example: `nn.Embedding(10, 4)(np.array([1, 9])).shape`.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        super().__init__()
        self.weight = Parameter(init.normal((num_embeddings, embedding_dim), 1.0))

    def forward(self, ids: Any) -> Tensor:
        return F.embedding(ids, self.weight)

    def describe(self) -> str:
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}"


class Dropout(Module):
    """Zeroes each element with probability p while training; the rest is scaled by 1/(1-p).

    Example: `nn.Dropout(0.1)(np.ones(4, "f4")).shape`.
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Any) -> Any:
        if not self.training or self.p == 0.0:
            return x
        return F.dropout(x, *F.generator.draw(device_of(x)), p=self.p)

    def describe(self) -> str:
        return f"p={self.p}"


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Any) -> Tensor:
        return F.relu(x)


class GELU(Module):
    """The Gaussian error linear unit: its tanh form, or with approximate="none" its own."""

    def __init__(self, approximate: str = "tanh") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, x: Any) -> Tensor:
        return F.gelu(x, approximate=self.approximate)

    def describe(self) -> str:
        return f"approximate={self.approximate}"


class SiLU(Module):
    """x sigmoid(x)."""

    def forward(self, x: Any) -> Tensor:
        return F.silu(x)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, x: Any) -> Tensor:
        return F.tanh(x)


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, x: Any) -> Tensor:
        return F.sigmoid(x)


class Flatten(Module):
    """All axes after the first as one.

    Example: `nn.Flatten()(nn.Tensor(np.ones((2, 3, 4), "f4"))).shape`.
    """

    def forward(self, x: Any) -> Tensor:
        return x.reshape(x.shape[0], -1)


class ResidualLinear(Linear):
    """A Linear that ends a branch: r + dropout(x @ weight.T + bias), in one kernel."""

    def __init__(self, in_features: int, out_features: int, p: float = 0.0) -> None:
        super().__init__(in_features, out_features)
        self.p = p

    def forward(self, x: Any, r: Any) -> Tensor:  # type: ignore[override]
        if not self.training or self.p == 0.0:
            return F.linear_residual(x, self.weight, self.bias, r)
        return F.linear_residual(x, self.weight, self.bias, r, *F.generator.draw(device_of(x)), p=self.p)

    def describe(self) -> str:
        return f"{super().describe()}, p={self.p}"


class Taps(Module):
    """The weights of a depthwise causal convolution, (D, 1, K) as a Conv1d keeps them; a Mamba block's kernel applies them."""

    def __init__(self, channels: int, taps: int, bias: bool) -> None:
        super().__init__()
        bound = 1 / math.sqrt(taps)
        self.weight = Parameter(init.uniform((channels, 1, taps), bound))
        self.bias = Parameter(init.zeros((channels,))) if bias else None
