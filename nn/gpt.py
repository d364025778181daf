"""GPT: the decoder-only transformer, after minGPT.

    B batch   T time (at most block_size)   C width (n_embd)   H heads   V vocabulary   L layers

In:  ids (B, T).  Out: logits (B, T, V), and with targets the mean cross-entropy over targets that are not -1.
Source: Radford and others 2019, "Language models are unsupervised multitask learners"; Karpathy, minGPT.
Read before: layers.py. Read next: optim.py, trainer.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import kdsl as kd
from nn import devices, init
from nn import functional as F
from nn.attention import CausalSelfAttention
from nn.kernels import layer
from nn.layers import Dropout, Embedding, Linear, ResidualLinear
from nn.module import Module, ModuleList
from nn.normalisation import LayerNorm
from nn.pretrained import Pretrained, refuse_settings
from nn.sampling import continued, last, next_tokens
from nn.tape import no_grad
from nn.tensor import Tensor, apply

PRESETS = {  # n_layer, n_head, n_embd
    "openai-gpt": (12, 12, 768), "gpt2": (12, 12, 768), "gpt2-medium": (24, 16, 1024), "gpt2-large": (36, 20, 1280),
    "gpt2-xl": (48, 25, 1600), "gopher-44m": (8, 16, 512), "gpt-mini": (6, 6, 192), "gpt-micro": (4, 4, 128),
    "gpt-nano": (3, 3, 48),
}  # fmt: skip


_PROBABILITIES = ("embd_pdrop", "resid_pdrop", "attn_pdrop")


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
    n_inner: int | None = None  # the width between a block's two linear maps; 4 n_embd where None
    activation: str = "gelu_new"  # a name of functional.activations.NAMED
    layer_norm_epsilon: float = 1e-5
    tie_word_embeddings: bool = False  # lm_head.weight is wte.weight

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
        C, self.activation = config.n_embd, config.activation
        inner = config.n_inner or 4 * C
        self.ln_1 = LayerNorm(C, config.layer_norm_epsilon)
        self.attn = CausalSelfAttention(C, config.n_head, config.attn_pdrop, config.resid_pdrop)
        self.ln_2 = LayerNorm(C, config.layer_norm_epsilon)
        self.c_fc, self.c_proj = Linear(C, inner), ResidualLinear(inner, C, config.resid_pdrop)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attn(self.ln_1(x), x)  # (B, T, C)
        h = F.linear_activation(self.ln_2(x), self.c_fc.weight, self.c_fc.bias, activation=self.activation)  # (B, T, 4C)
        return self.c_proj(h, x)  # (B, T, C)


class GPT(Pretrained):
    """A GPT of the shape that a GPTConfig says, initialised as GPT-2; reads and writes Hugging Face's GPT2LMHeadModel."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        V, C = config.vocab_size, config.n_embd
        self.wte, self.wpe = Embedding(V, C), Embedding(config.block_size, C)
        self.drop = Dropout(config.embd_pdrop)
        self.h = ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = LayerNorm(C, config.layer_norm_epsilon)
        self.lm_head = Linear(C, V, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.wte.weight
        for name, p in self.named_parameters():
            if name.endswith("c_proj.weight"):
                p.data[...] = init.normal(p.shape, 0.02 / math.sqrt(2 * config.n_layer))
            elif p.ndim == 2:
                p.data[...] = init.normal(p.shape, 0.02)
            elif name.endswith("bias"):
                p.data[...] = 0.0

    # --- Hugging Face's files ------------------------------------------------------------------------------------------------
    @classmethod
    def settings_from(cls, theirs: Mapping[str, Any]) -> GPTConfig:
        refuse_settings(theirs, {"model_type": "gpt2", "scale_attn_weights": True, "add_cross_attention": False})
        refuse_settings(theirs, {"scale_attn_by_inverse_layer_idx": False})
        names = ("n_layer", "n_head", "n_embd", "n_inner", *_PROBABILITIES, "layer_norm_epsilon")
        settings = {name: theirs[name] for name in names if name in theirs}
        return GPTConfig(
            theirs["vocab_size"], theirs["n_positions"], **settings,
            activation=theirs.get("activation_function", "gelu_new"),
            tie_word_embeddings=theirs.get("tie_word_embeddings", True),
        )  # fmt: skip

    def settings_for(self) -> dict[str, Any]:
        own = vars(self.config)
        names = ("vocab_size", "n_layer", "n_head", "n_embd", "n_inner", *_PROBABILITIES, "layer_norm_epsilon")
        same = {name: own[name] for name in (*names, "tie_word_embeddings")}
        return {
            "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_positions": self.config.block_size,
            "activation_function": self.config.activation, **same,
        }  # fmt: skip

    def their_name(self, name: str) -> tuple[str, bool]:
        path = re.sub(r"^(h\.\d+)\.(c_fc|c_proj)\.", r"\1.mlp.\2.", name)
        transposed = path.endswith("weight") and ".c_" in path  # their Conv1D keeps (input, output)
        return (path if path.startswith("lm_head") else f"transformer.{path}"), transposed

    def other_names(self, name: str) -> Iterable[str]:
        return [name.removeprefix("transformer.")]

    def is_no_weight(self, name: str) -> bool:
        return re.fullmatch(r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)", name) is not None  # the causal mask

    # --- what it computes ----------------------------------------------------------------------------------------------------
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
        softmax(logits / temperature) over the top_k likeliest (all if None). On a GPU all but the
        prompt and the result stays there."""
        ids = devices.moved(F.detached(ids), self.device)
        was_training = self.training
        self.eval()
        with no_grad():
            for _ in range(max_new_tokens):
                logits = self(last(ids, self.config.block_size)).data  # (B, T, V)
                ids = continued(ids, next_tokens(logits, temperature, do_sample, top_k))
        self.train(was_training)
        return devices.numpy(ids)


@layer("batch time", "V C", "P C")
def _embed(ids, wte, wpe):
    """wte[ids] + wpe[:T]"""
    return kd.take(wte, ids, axis=0) + wpe[: ids.shape[1]]
