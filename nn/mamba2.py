"""Mamba-2: one decay a head, so that the scan becomes products within chunks and a short scan from chunk to chunk.

    B batch   L length   C width (d_model)   D inner channels (expand * C)   H heads   P channels of a head (head_dim)
    G groups of heads that share B and C   N states (d_state)   K taps of the convolution   V vocabulary

    block(x) = x + out_proj(norm(y * silu(z)))       z, u, dt = in_proj(norm(x))      u, B, C = silu(conv(u))
    y = scan(softplus(dt + dt_bias), u, -exp(A_log), B, C) + D * u

In:  ids (B, L).  Out: logits (B, L, V), and with targets the mean cross-entropy over targets that are not -1.
Source: Dao and Gu 2024, "Transformers are SSMs"; the official mamba_ssm. Read before: mamba.py, functional/ssm.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import kdsl as kd
from nn import functional as F
from nn import init
from nn.functional.ssm import causal_convolution, chunked_recurrence
from nn.kernels import Layer, layer
from nn.layers import Embedding, Linear, Taps
from nn.mamba import official_settings
from nn.module import ModuleList, Parameter
from nn.normalisation import RMSNorm
from nn.pretrained import refuse_settings
from nn.recurrent import Recurrent, RecurrentBlock

PRESETS = {  # n_layer, d_model
    "mamba2-nano": (2, 64), "mamba2-micro": (4, 128), "mamba2-mini": (6, 192), "mamba2-130m": (24, 768),
    "mamba2-370m": (48, 1024), "mamba2-780m": (48, 1536), "mamba2-1.3b": (48, 2048), "mamba2-2.7b": (64, 2560),
}  # fmt: skip


@dataclass
class Mamba2Config:
    """The shape of a Mamba-2. Names are mamba_ssm's."""

    vocab_size: int
    d_model: int = 768
    n_layer: int = 24
    d_state: int = 128
    expand: int = 2
    d_conv: int = 4
    head_dim: int = 64
    n_groups: int = 1
    conv_bias: bool = True
    bias: bool = False
    norm_epsilon: float = 1e-5
    tie_embeddings: bool = True
    chunk_size: int = 64
    dt_min: float = 0.001
    dt_max: float = 0.1
    dt_floor: float = 1e-4
    dt_limit: tuple[float, float] = (0.0, math.inf)

    def __post_init__(self) -> None:
        if self.d_inner % self.head_dim or self.heads % self.n_groups:
            raise ValueError(
                f"{self.d_inner} inner channels are no whole number of heads of {self.head_dim}, "
                f"or {self.n_groups} groups do not divide the heads"
            )
        self.dt_limit = (float(self.dt_limit[0]), float(self.dt_limit[1]))

    @property
    def d_inner(self) -> int:
        return self.expand * self.d_model

    @property
    def heads(self) -> int:
        return self.d_inner // self.head_dim


class Mamba2Block(RecurrentBlock):
    """x + mixer(norm(x)); the state is (the last K-1 inputs of the convolution, the scan's state (B, H, P, N))."""

    def __init__(self, config: Mamba2Config) -> None:
        super().__init__()
        C, D, H, K = config.d_model, config.d_inner, config.heads, config.d_conv
        self.config = config
        self.channels = D + 2 * config.n_groups * config.d_state  # of the convolution: u, B and C side by side
        self.norm = RMSNorm(C, config.norm_epsilon)
        self.in_proj = Linear(C, D + self.channels + H, config.bias)
        self.conv1d = Taps(self.channels, K, config.conv_bias)
        self.dt_bias = Parameter(init.steps((H,), config.dt_min, config.dt_max, config.dt_floor))
        self.A_log, self.D = Parameter(init.log_of_counts(1, H).reshape(H)), Parameter(init.ones((H,)))
        self.gated_norm = RMSNorm(D, config.norm_epsilon)
        self.out_proj = Linear(D, C, config.bias)
        self.out_proj.weight.data[...] = init.uniform((C, D), 1 / math.sqrt(D * config.n_layer))

    @property
    def family(self) -> Layer:
        return _block

    def weights(self) -> tuple[Any, ...]:
        return (
            self.norm.weight, self.in_proj.weight, self.in_proj.bias, self.conv1d.weight, self.conv1d.bias, self.dt_bias,
            self.A_log, self.D, self.gated_norm.weight, self.out_proj.weight, self.out_proj.bias,
        )  # fmt: skip

    def settings(self, length: int) -> dict[str, Any]:
        c = self.config
        chunk = c.chunk_size if length > 1 else 1  # one position by itself needs no products within a chunk
        return {"groups": c.n_groups, "states": c.d_state, "chunk": chunk, "limit": c.dt_limit, "eps": self.norm.eps}

    def first_state(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        c = self.config
        return init.zeros((batch, c.d_conv - 1, self.channels)), init.zeros((batch, c.heads, c.head_dim, c.d_state))


@layer(
    "batch time C", "C", "E C", "E", "D O K", "D", "H", "H", "H", "D", "C D", "C", "batch J D", "batch H P N"
)  # fmt: skip
def _block(
    x, norm, in_proj, in_bias, taps, taps_bias, dt_bias, A_log, skip, gated_norm, out_proj, out_bias, before, h,
    *, groups, states, chunk, limit, eps,
):  # fmt: skip
    """The whole block; with the state (before, h) it returns (x, and what these are after the last position)."""
    batch, length = x.shape[:2]
    D, H, G, N = gated_norm.shape[0], A_log.shape[0], groups, states
    P = D // H
    zudt = F.linear.function(F.rms_norm.function(x, norm, eps=eps), in_proj, in_bias)  # (B, L, D + (D + 2GN) + H)
    z, dt = zudt[..., :D], zudt[..., -H:]
    ubc, before = causal_convolution(zudt[..., D:-H], taps, taps_bias, before)  # (B, L, D + 2GN)
    u = ubc[..., :D].reshape((batch, length, H, P))
    B, C = (part.reshape((batch, length, G, N)) for part in (ubc[..., D : D + G * N], ubc[..., D + G * N :]))
    dt = F.softplus.function(dt + dt_bias)  # (B, L, H)
    if limit != (0.0, math.inf):
        dt = kd.clip(dt, limit[0], limit[1])
    first = kd.zeros((batch, H, P, N)) if h is None else h
    last, y = chunked_recurrence(first, u, dt, -kd.exp(A_log), B, C, chunk)  # (B, H, P, N), (B, L, H, P)
    y = (y + u * skip[:, None]).reshape((batch, length, D)) * F.silu.function(z)
    y = y.reshape((batch, length, G, D // G))  # each group of channels is normalised by itself
    y = y * kd.rsqrt(kd.mean(y * y, axis=-1, keepdims=True) + eps)
    y = y.reshape((batch, length, D)) * gated_norm
    x = x + F.linear.function(y, out_proj, out_bias)  # (B, L, C)
    return x if h is None else (x, before, last)


class Mamba2(Recurrent):
    """A Mamba-2 of the shape that a Mamba2Config says; reads what Hugging Face's Mamba2ForCausalLM and mamba_ssm save, writes
    the former.

    Shapes    ids (B, L) -> logits (B, L, V), and with targets (B, L) also the mean cross-entropy
    Source    Dao and Gu 2024, "Transformers are SSMs"

    >>> model = nn.Mamba2(nn.Mamba2Config(vocab_size=256, d_model=128, n_layer=4, head_dim=32))
    >>> logits, loss = model(ids, targets)
    """

    def __init__(self, config: Mamba2Config) -> None:
        super().__init__()
        self.config = config
        self.embedding = Embedding(config.vocab_size, config.d_model)
        self.embedding.weight.data[...] = init.normal(self.embedding.weight.shape, 0.02)
        self.layers = ModuleList(Mamba2Block(config) for _ in range(config.n_layer))
        self.norm_f = RMSNorm(config.d_model, config.norm_epsilon)
        self.lm_head = Linear(config.d_model, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.lm_head.weight = self.embedding.weight

    # --- Hugging Face's files ------------------------------------------------------------------------------------------------
    @classmethod
    def settings_from(cls, theirs: Mapping[str, Any]) -> Mamba2Config:
        if "d_model" in theirs:  # mamba_ssm's own config.json
            ssm = theirs.get("ssm_cfg") or {}
            refuse_settings(ssm, dict(_ALWAYS))
            own = {name: value for name, value in ssm.items() if name not in _ALWAYS}
            return Mamba2Config(**official_settings({**theirs, "ssm_cfg": own}, "Mamba2", _OFFICIAL))
        refuse_settings(theirs, {"model_type": "mamba2", "hidden_act": "silu"})
        known = {ours: theirs[name] for ours, name in _SETTINGS.items() if name in theirs}
        limit = known.pop("dt_limit", None)
        if limit is not None:  # JSON has no infinity of its own: they write {"__float__": "Infinity"}
            known["dt_limit"] = tuple(float(v["__float__"] if isinstance(v, dict) else v) for v in limit)
        return Mamba2Config(**known)

    def settings_for(self) -> dict[str, Any]:
        own = vars(self.config)
        return {
            "model_type": "mamba2", "architectures": ["Mamba2ForCausalLM"], "hidden_act": "silu",
            "num_heads": self.config.heads, **{name: own[ours] for ours, name in _SETTINGS.items()},
        }  # fmt: skip

    def their_name(self, name: str) -> tuple[str, bool]:
        if name.startswith("lm_head"):
            return name, False
        path = re.sub(r"^(layers\.\d+)\.(?!norm)", r"\1.mixer.", name).replace("gated_norm", "norm")
        return "backbone." + path.replace("embedding.", "embeddings."), False

    def other_names(self, name: str) -> Iterable[str]:
        return [name.replace("embeddings.", "embedding.")]


# mamba_ssm's ssm_cfg: its names and ours, and what is so in every model here
_OFFICIAL = {
    **{n: n for n in ("d_state", "expand", "d_conv", "conv_bias", "bias", "dt_min", "dt_max", "dt_limit", "chunk_size")},
    "headdim": "head_dim", "ngroups": "n_groups", "dt_init_floor": "dt_floor",
}  # fmt: skip
_ALWAYS = {"d_ssm": None, "D_has_hdim": False, "rmsnorm": True, "norm_before_gate": False}

_SETTINGS = {  # ours: Hugging Face's
    "vocab_size": "vocab_size", "d_model": "hidden_size", "n_layer": "num_hidden_layers", "d_state": "state_size",
    "expand": "expand", "d_conv": "conv_kernel", "head_dim": "head_dim", "n_groups": "n_groups",
    "conv_bias": "use_conv_bias", "bias": "use_bias", "norm_epsilon": "layer_norm_epsilon",
    "tie_embeddings": "tie_word_embeddings", "chunk_size": "chunk_size", "dt_min": "time_step_min",
    "dt_max": "time_step_max", "dt_floor": "time_step_floor", "dt_limit": "time_step_limit",
}  # fmt: skip
