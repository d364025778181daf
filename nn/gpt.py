"""GPT: the decoder-only transformer, after minGPT.

    B batch   T time (at most block_size)   C width (n_embd)   H heads   V vocabulary   L layers

In:  ids (B, T).  Out: logits (B, T, V), and with targets the mean cross-entropy over targets that are not -1.
Source: Radford and others 2019, "Language models are unsupervised multitask learners"; Karpathy, minGPT.
Read before: layers.py. Read next: optim.py, trainer.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

import kdsl as kd
from nn import functional as F
from nn import init
from nn.attention import CausalSelfAttention
from nn.kernels import layer
from nn.layers import Dropout, Embedding, Linear, ResidualLinear
from nn.module import Module, ModuleList
from nn.normalisation import LayerNorm
from nn.tensor import Tensor, apply, no_grad

PRESETS = {  # n_layer, n_head, n_embd
    "openai-gpt": (12, 12, 768), "gpt2": (12, 12, 768), "gpt2-medium": (24, 16, 1024), "gpt2-large": (36, 20, 1280),
    "gpt2-xl": (48, 25, 1600), "gopher-44m": (8, 16, 512), "gpt-mini": (6, 6, 192), "gpt-micro": (4, 4, 128),
    "gpt-nano": (3, 3, 48),
}  # fmt: skip


@dataclass
class GPTConfig:
    """The shape of a GPT. `model_type` names a preset (PRESETS) that sets the three n_ fields."""

    vocab_size: int
    block_size: int
    model_type: str | None = None
    n_layer: int = 0
    n_head: int = 0
    n_embd: int = 0
    embd_pdrop: float = 0.1
    resid_pdrop: float = 0.1
    attn_pdrop: float = 0.1

    def __post_init__(self) -> None:
        given = (self.n_layer, self.n_head, self.n_embd)
        if self.model_type is not None and self.model_type not in PRESETS:
            raise ValueError(f"no GPT is called {self.model_type!r}; there are {', '.join(PRESETS)}")
        if self.model_type is not None and not any(given):
            self.n_layer, self.n_head, self.n_embd = PRESETS[self.model_type]
        elif self.model_type is not None and given != PRESETS[self.model_type]:
            raise ValueError("give a model_type or n_layer, n_head and n_embd, not both")
        elif not all((self.n_layer, self.n_head, self.n_embd)):
            raise ValueError("a GPT needs n_layer, n_head and n_embd, or a model_type")


class Block(Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        C = config.n_embd
        self.ln_1 = LayerNorm(C)
        self.attn = CausalSelfAttention(C, config.n_head, config.attn_pdrop, config.resid_pdrop)
        self.ln_2 = LayerNorm(C)
        self.c_fc, self.c_proj = Linear(C, 4 * C), ResidualLinear(4 * C, C, config.resid_pdrop)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attn(self.ln_1(x), x)  # (B, T, C)
        h = F.linear_gelu(self.ln_2(x), self.c_fc.weight, self.c_fc.bias)  # (B, T, 4C)
        return self.c_proj(h, x)  # (B, T, C)


class GPT(Module):
    """A GPT of the shape that a GPTConfig says, initialised as GPT-2."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        V, C = config.vocab_size, config.n_embd
        self.wte, self.wpe = Embedding(V, C), Embedding(config.block_size, C)
        self.drop = Dropout(config.embd_pdrop)
        self.h = ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = LayerNorm(C)
        self.lm_head = Linear(C, V, bias=False)
        for name, p in self.named_parameters():
            if name.endswith("c_proj.weight"):
                p.data[...] = init.normal(p.shape, 0.02 / math.sqrt(2 * config.n_layer))
            elif p.ndim == 2:
                p.data[...] = init.normal(p.shape, 0.02)
            elif name.endswith("bias"):
                p.data[...] = 0.0

    def forward(self, ids: Any, targets: Any = None) -> Any:
        ids = F.detached(ids)
        T = ids.shape[1]
        if self.config.block_size < T:
            raise ValueError(f"{T} positions are more than the block size {self.config.block_size}")
        x = self.drop(apply(_embed, ids, self.wte.weight, self.wpe.weight))  # (B, T, C)
        for block in self.h:
            x = block(x)
        logits = self.lm_head(self.ln_f(x))  # (B, T, V)
        if targets is None:
            return logits
        return logits, F.cross_entropy(logits, F.detached(targets))

    def generate(
        self, ids: Any, max_new_tokens: int, temperature: float = 1.0, do_sample: bool = False, top_k: int | None = None
    ) -> np.ndarray:
        """`ids` (B, T) continued by max_new_tokens tokens: the likeliest each time, or with do_sample drawn from
        softmax(logits / temperature) over the top_k likeliest (all if None)."""
        ids = F.detached(ids)
        was_training = self.training
        self.eval()
        with no_grad():
            for _ in range(max_new_tokens):
                logits = np.ascontiguousarray(self(ids[:, -self.config.block_size :]).data[:, -1])  # (B, V)
                key, step = F.generator.draw()
                drawn = np.asarray(1.0 / temperature, np.float32)
                new = _sample(logits, key, step, drawn, top_k=top_k) if do_sample else _greedy(logits)
                ids = np.concatenate([ids, new[:, None].astype(ids.dtype)], axis=1)
        self.train(was_training)
        return ids


@layer("batch time", "V C", "P C")
def _embed(ids, wte, wpe):
    """wte[ids] + wpe[:T]"""
    return kd.take(wte, ids, axis=0) + wpe[: ids.shape[1]]


@layer("batch V")
def _greedy(logits):
    return kd.argmax(logits, axis=-1)


@layer("batch V", None, None, None)
def _sample(logits, key, step, inverse_temperature, *, top_k):
    """A draw from softmax(logits / temperature) by the Gumbel trick: argmax of logits plus -log(-log u)."""
    if top_k is not None and top_k < logits.shape[-1]:
        larger = kd.sum(
            kd.astype(logits[:, None, :] > logits[:, :, None], kd.i32), axis=-1
        )  # (B, V): how many beat each
        logits = kd.where(larger < top_k, logits, -math.inf)
    u = kd.random.uniform(kd.random.fold_in(key, step), logits.shape)
    return kd.argmax(logits * inverse_temperature - kd.log(-kd.log(u + 1e-20)), axis=-1)
