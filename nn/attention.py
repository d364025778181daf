"""Attention layers: the fused causal one of a GPT, and torch's general one.

Letters: B batch, T time (queries), S source (keys), C width. Read before: layers.py, functional/attention.py. Read next: gpt.py.
"""

from __future__ import annotations

import math
from typing import Any

from nn import functional as F
from nn import init
from nn.devices import device_of
from nn.layers import Linear, ResidualLinear
from nn.module import Module, Parameter
from nn.tensor import Tensor


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
            y = F.causal_attention(qkv, *F.generator.draw(device_of(x)), heads=self.heads, p=self.attn_pdrop)  # (B, T, C)
        else:
            y = F.causal_attention(qkv, heads=self.heads)  # (B, T, C)
        return self.c_proj(y, r)  # (B, T, C)

    def describe(self) -> str:
        return f"heads={self.heads}, attn_pdrop={self.attn_pdrop}"


class MultiHeadAttention(Module):
    """Attention of queries to keys, several heads at once; parameters by the names of torch.nn.MultiheadAttention.

    Shapes    query (B, T, C), key and value (B, S, C) (the query itself where none is given) -> (B, T, C);
              mask (T, S), (B, 1, T, S) or (B, H, T, S): bool (True: seen) or floating (added to the scores)

    Example: `nn.MultiHeadAttention(8, 2)(np.ones((1, 4, 8), "f4"))`.
    """

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True) -> None:
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"{num_heads} heads do not divide a width of {embed_dim}")
        self.num_heads, self.dropout = num_heads, dropout
        self.in_proj_weight = Parameter(init.uniform((3 * embed_dim, embed_dim), math.sqrt(6 / (4 * embed_dim))))
        self.in_proj_bias = Parameter(init.zeros((3 * embed_dim,))) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias)

    def forward(self, query: Any, key: Any = None, value: Any = None, mask: Any = None, is_causal: bool = False) -> Tensor:
        key = query if key is None else key
        inputs = (query, key, key if value is None else value)
        q, k, v = (self._heads(x, part) for part, x in enumerate(inputs))  # (B, H, T or S, C / H)
        drops = (*F.generator.draw(device_of(query)),) if self.training and self.dropout else (None, None)
        p = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, mask, *drops, is_causal=is_causal, p=p)  # (B, H, T, C / H)
        B, H, T, D = y.shape
        return self.out_proj(y.transpose(1, 2).reshape(B, T, H * D))  # (B, T, C)

    def _heads(self, x: Any, part: int) -> Tensor:
        """The queries (part 0), keys (1) or values (2) of x, head by head."""
        C = self.in_proj_weight.shape[1]
        rows = slice(part * C, part * C + C)
        bias = () if self.in_proj_bias is None else (self.in_proj_bias[rows],)
        y = F.linear(x, self.in_proj_weight[rows], *bias)  # (B, T, C)
        return y.reshape(*y.shape[:2], self.num_heads, C // self.num_heads).transpose(1, 2)

    def describe(self) -> str:
        return f"{self.in_proj_weight.shape[1]}, num_heads={self.num_heads}, dropout={self.dropout}"
