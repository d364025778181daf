"""Mamba: a language model whose memory is the state of a selective scan, not attention.

    B batch   L length   C width (d_model)   D inner channels (expand * C)   N states of a channel (d_state)
    R rank of the step sizes (dt_rank)   K taps of the convolution (d_conv)   V vocabulary

    block(x) = x + out_proj(y * silu(z))       x, z = in_proj(norm(x))       u = silu(conv(x))
    dt, B, C = x_proj(u)                       y = scan(softplus(dt_proj(dt)), u, A, B, C) + D * u

In:  ids (B, L).  Out: logits (B, L, V), and with targets the mean cross-entropy over targets that are not -1.
A block is one kernel call: convolution, discretisation and gate live in the scan's kernel where the compiler finds that faster.
`step` continues from a state, in constant time and memory a token. Source: Gu and Dao 2023, "Mamba: linear-time sequence
modeling with selective state spaces"; the official mamba_ssm; mamba-minimal.
Read before: gpt.py, functional/ssm.py. Read next: mamba2.py.
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
from nn.functional.ssm import causal_convolution, recurrence
from nn.kernels import Layer, layer
from nn.layers import Embedding, Linear, Taps
from nn.module import ModuleList, Parameter
from nn.normalisation import RMSNorm
from nn.pretrained import refuse_settings
from nn.recurrent import Recurrent, RecurrentBlock

PRESETS = {  # n_layer, d_model
    "mamba-nano": (2, 64), "mamba-micro": (4, 128), "mamba-mini": (6, 192), "mamba-130m": (24, 768), "mamba-370m": (48, 1024),
    "mamba-790m": (48, 1536), "mamba-1.4b": (48, 2048), "mamba-2.8b": (64, 2560),
}  # fmt: skip


@dataclass
class MambaConfig:
    """The shape of a Mamba. Names are mamba_ssm's; `dt_rank` is d_model / 16, rounded up, where None."""

    vocab_size: int
    d_model: int = 768
    n_layer: int = 24
    d_state: int = 16
    expand: int = 2
    d_conv: int = 4
    dt_rank: int | None = None
    conv_bias: bool = True
    bias: bool = False
    norm_epsilon: float = 1e-5
    tie_embeddings: bool = True
    dt_min: float = 0.001
    dt_max: float = 0.1
    dt_floor: float = 1e-4
    dt_scale: float = 1.0

    @property
    def d_inner(self) -> int:
        return self.expand * self.d_model

    @property
    def rank(self) -> int:
        return self.dt_rank or math.ceil(self.d_model / 16)


class MambaBlock(RecurrentBlock):
    """x + mixer(norm(x)); the state is (the last K-1 inputs of the convolution (B, K-1, D), the scan's state (B, D, N))."""

    def __init__(self, config: MambaConfig) -> None:
        super().__init__()
        C, D, N, R, K = config.d_model, config.d_inner, config.d_state, config.rank, config.d_conv
        self.norm = RMSNorm(C, config.norm_epsilon)
        self.in_proj, self.out_proj = Linear(C, 2 * D, config.bias), Linear(D, C, config.bias)
        self.conv1d = Taps(D, K, config.conv_bias)
        self.x_proj, self.dt_proj = Linear(D, R + 2 * N, bias=False), Linear(R, D)
        self.A_log, self.D = Parameter(init.log_of_counts(D, N)), Parameter(init.ones((D,)))
        spread = config.dt_scale / math.sqrt(R)
        self.dt_proj.weight.data[...] = init.uniform((D, R), spread)
        self.dt_proj.bias.data[...] = init.steps((D,), config.dt_min, config.dt_max, config.dt_floor)
        if self.conv1d.bias is not None:
            self.conv1d.bias.data[...] = 0.0
        self.out_proj.weight.data[...] = init.uniform((C, D), 1 / math.sqrt(D * config.n_layer))

    @property
    def family(self) -> Layer:
        return _block

    def weights(self) -> tuple[Any, ...]:
        return (
            self.norm.weight, self.in_proj.weight, self.in_proj.bias, self.conv1d.weight, self.conv1d.bias, self.x_proj.weight,
            self.dt_proj.weight, self.dt_proj.bias, self.A_log, self.D, self.out_proj.weight, self.out_proj.bias,
        )  # fmt: skip

    def settings(self, length: int) -> dict[str, Any]:
        return {"eps": self.norm.eps}

    def first_state(self, batch: int) -> tuple[np.ndarray, np.ndarray]:
        D, N = self.A_log.shape
        return init.zeros((batch, self.conv1d.weight.shape[2] - 1, D)), init.zeros((batch, D, N))


@layer(
    "batch time C", "C", "E C", "E", "D O K", "D", "P D", "D R", "D", "D N", "D", "C D", "C", "batch J D", "batch D N"
)  # fmt: skip
def _block(
    x, norm, in_proj, in_bias, taps, taps_bias, x_proj, dt_proj, dt_bias, A_log, skip, out_proj, out_bias, before, h, *, eps
):  # fmt: skip
    """The whole block; with the state (before, h) it returns (x, and what these are after the last position)."""
    (D, N), R = A_log.shape, dt_proj.shape[1]
    xz = F.linear.function(F.rms_norm.function(x, norm, eps=eps), in_proj, in_bias)  # (B, L, 2D)
    z = xz[..., D:]  # (B, L, D)
    u, before = causal_convolution(xz[..., :D], taps, taps_bias, before)  # (B, L, D)
    dbc = u @ x_proj.T  # (B, L, R + 2N)
    B, C = dbc[..., R : R + N], dbc[..., R + N :]  # (B, L, N)
    dt = F.softplus.function(dbc[..., :R] @ dt_proj.T + dt_bias)  # (B, L, D)
    first = kd.zeros((x.shape[0], D, N)) if h is None else h
    last, y = recurrence(first, u, dt, -kd.exp(A_log), B, C, axis=1)  # (B, D, N), (B, L, D)
    y = (y + u * skip) * F.silu.function(z)
    x = x + F.linear.function(y, out_proj, out_bias)  # (B, L, C)
    return x if h is None else (x, before, last)


class Mamba(Recurrent):
    """A Mamba of the shape that a MambaConfig says, initialised as the official one; reads what Hugging Face's
    MambaForCausalLM and mamba_ssm save, writes the former.

    Shapes    ids (B, L) -> logits (B, L, V), and with targets (B, L) also the mean cross-entropy
    Memory    of `step` and `generate` one state, whatever came before; no length is too long
    Source    Gu and Dao 2023, "Mamba: linear-time sequence modeling with selective state spaces"

    >>> model = nn.Mamba(nn.MambaConfig(vocab_size=256, d_model=128, n_layer=4))
    >>> logits, loss = model(ids, targets)
    >>> loss.backward()
    """

    def __init__(self, config: MambaConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = Embedding(config.vocab_size, config.d_model)
        self.embedding.weight.data[...] = init.normal(self.embedding.weight.shape, 0.02)
        self.layers = ModuleList(MambaBlock(config) for _ in range(config.n_layer))
        self.norm_f = RMSNorm(config.d_model, config.norm_epsilon)
        self.lm_head = Linear(config.d_model, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.lm_head.weight = self.embedding.weight

    # --- Hugging Face's files ------------------------------------------------------------------------------------------------
    @classmethod
    def settings_from(cls, theirs: Mapping[str, Any]) -> MambaConfig:
        if "d_model" in theirs:  # mamba_ssm's own config.json
            return MambaConfig(**official_settings(theirs, "Mamba1", _OFFICIAL))
        refuse_settings(theirs, {"model_type": "mamba", "hidden_act": "silu", "use_falcon_mamba": False})
        return MambaConfig(
            **{ours: theirs[name] for ours, name in _SETTINGS.items() if name in theirs and theirs[name] != "auto"}
        )

    def settings_for(self) -> dict[str, Any]:
        own = {**vars(self.config), "dt_rank": self.config.rank}
        same = {name: own[ours] for ours, name in _SETTINGS.items()}
        return {
            "model_type": "mamba", "architectures": ["MambaForCausalLM"], "hidden_act": "silu",
            "intermediate_size": self.config.d_inner, **same,
        }  # fmt: skip

    def their_name(self, name: str) -> tuple[str, bool]:
        if name.startswith("lm_head"):
            return name, False
        path = re.sub(r"^(layers\.\d+)\.(?!norm)", r"\1.mixer.", name)
        return "backbone." + path.replace("embedding.", "embeddings."), False

    def other_names(self, name: str) -> Iterable[str]:
        return [name.replace("embeddings.", "embedding.")]


# mamba_ssm's ssm_cfg: its name and ours, where these are not one
_OFFICIAL = {
    **{name: name for name in ("d_state", "expand", "d_conv", "dt_rank", "conv_bias", "bias", "dt_min", "dt_max", "dt_scale")},
    "dt_init_floor": "dt_floor",
}  # fmt: skip
_WITHOUT_EFFECT = {"layer", "dt_init", "conv_init", "A_init_range", "use_fast_path", "use_mem_eff_path"}  # on trained weights


def official_settings(theirs: Mapping[str, Any], kind: str, known: Mapping[str, str]) -> dict[str, Any]:
    """The fields of our config from mamba_ssm's config.json, for its layers of this kind."""
    ssm = theirs.get("ssm_cfg") or {}
    refuse_settings({"rms_norm": True, **theirs}, {"rms_norm": True, "d_intermediate": 0, "attn_layer_idx": []})
    refuse_settings({"layer": "Mamba1", **ssm}, {"layer": kind})
    if strange := sorted(ssm.keys() - known.keys() - _WITHOUT_EFFECT):
        raise ValueError(f"config.json says {strange[0]} = {ssm[strange[0]]!r}, which this model does not know")
    multiple = theirs.get("pad_vocab_size_multiple", 8)
    return {
        "vocab_size": -(-theirs["vocab_size"] // multiple) * multiple,  # their embedding has rows that no id names
        "d_model": theirs["d_model"], "n_layer": theirs["n_layer"], "tie_embeddings": theirs.get("tie_embeddings", True),
        **{known[name]: value for name, value in ssm.items() if name in known and value != "auto"},
    }  # fmt: skip


_SETTINGS = {  # ours: Hugging Face's
    "vocab_size": "vocab_size", "d_model": "hidden_size", "n_layer": "num_hidden_layers", "d_state": "state_size",
    "expand": "expand", "d_conv": "conv_kernel", "dt_rank": "time_step_rank", "conv_bias": "use_conv_bias",
    "bias": "use_bias", "norm_epsilon": "layer_norm_epsilon", "tie_embeddings": "tie_word_embeddings",
    "dt_min": "time_step_min", "dt_max": "time_step_max", "dt_floor": "time_step_floor", "dt_scale": "time_step_scale",
}  # fmt: skip
