"""Layers by torch's names: a Module each, its parameters, one function of functional.py.

Read before: module.py, functional.py. Read next: gpt.py, mlp.py.
"""

from __future__ import annotations

import math
from typing import Any

from nn import functional as F
from nn import init
from nn.module import Module, Parameter
from nn.tensor import Tensor


class Linear(Module):
    """y = x @ weight.T + bias; weight (out_features, in_features) and bias start uniform in 1/sqrt(in_features)."""

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
    """A learned row for each id: weight (num_embeddings, embedding_dim) starts N(0, 1)."""

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        super().__init__()
        self.weight = Parameter(init.normal((num_embeddings, embedding_dim), 1.0))

    def forward(self, ids: Any) -> Tensor:
        return F.embedding(ids, self.weight)

    def describe(self) -> str:
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}"


class LayerNorm(Module):
    """Layer normalisation of the last axis, with a learned scale and shift."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight, self.bias = Parameter(init.ones((width,))), Parameter(init.zeros((width,)))

    def forward(self, x: Any) -> Tensor:
        return F.layer_norm(x, self.weight, self.bias, eps=self.eps)

    def describe(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}"


class RMSNorm(Module):
    """Root-mean-square normalisation of the last axis, with a learned scale."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps, self.weight = eps, Parameter(init.ones((width,)))

    def forward(self, x: Any) -> Tensor:
        return F.rms_norm(x, self.weight, eps=self.eps)


class Dropout(Module):
    """Zeroes each element with probability p while training; the rest is scaled by 1/(1-p)."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Any) -> Any:
        if not self.training or self.p == 0.0:
            return x
        return F.dropout(x, *F.generator.draw(), p=self.p)

    def describe(self) -> str:
        return f"p={self.p}"


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Any) -> Tensor:
        return F.relu(x)


class GELU(Module):
    """The tanh form of the Gaussian error linear unit."""

    def forward(self, x: Any) -> Tensor:
        return F.gelu(x)


class ResidualLinear(Linear):
    """A Linear that ends a branch: r + dropout(x @ weight.T + bias), in one kernel."""

    def __init__(self, in_features: int, out_features: int, p: float = 0.0) -> None:
        super().__init__(in_features, out_features)
        self.p = p

    def forward(self, x: Any, r: Any) -> Tensor:  # type: ignore[override]
        if not self.training or self.p == 0.0:
            return F.linear_residual(x, self.weight, self.bias, r)
        return F.linear_residual(x, self.weight, self.bias, r, *F.generator.draw(), p=self.p)

    def describe(self) -> str:
        return f"{super().describe()}, p={self.p}"


class CausalSelfAttention(Module):
    """r + attention(x): attention of each position to itself and those before it, `heads` heads at once.

    x goes to queries, keys and values (c_attn); the heads' outputs side by side go back to the residual stream r (c_proj).
    """

    def __init__(self, width: int, heads: int, attn_pdrop: float = 0.0, resid_pdrop: float = 0.0) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        self.heads, self.attn_pdrop = heads, attn_pdrop
        self.c_attn, self.c_proj = Linear(width, 3 * width), ResidualLinear(width, width, resid_pdrop)

    def forward(self, x: Any, r: Any) -> Tensor:
        qkv = self.c_attn(x)  # (B, T, 3C)
        if self.training and self.attn_pdrop:
            y = F.causal_attention(qkv, *F.generator.draw(), heads=self.heads, p=self.attn_pdrop)  # (B, T, C)
        else:
            y = F.causal_attention(qkv, heads=self.heads)  # (B, T, C)
        return self.c_proj(y, r)  # (B, T, C)

    def describe(self) -> str:
        return f"heads={self.heads}, attn_pdrop={self.attn_pdrop}"
