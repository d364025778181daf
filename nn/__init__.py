"""nn: an autograd and model library built only on kdsl's public names. Every computation is a kernel that kdsl compiled."""

from nn import data, functional, init, optim
from nn.functional import manual_seed
from nn.gpt import GPT, GPTConfig
from nn.layers import GELU, CausalSelfAttention, Dropout, Embedding, LayerNorm, Linear, ReLU, ResidualLinear, RMSNorm
from nn.mlp import MLP
from nn.module import Module, ModuleList, Parameter, Sequential
from nn.serialization import load, save
from nn.tensor import Tensor, grad_enabled, no_grad
from nn.trainer import Trainer, TrainerConfig

__all__ = [
    "GELU", "GPT", "MLP", "CausalSelfAttention", "Dropout", "Embedding", "GPTConfig", "LayerNorm", "Linear",
    "Module", "ModuleList", "Parameter", "RMSNorm", "ReLU", "ResidualLinear", "Sequential", "Tensor",
    "Trainer", "TrainerConfig", "data", "functional", "grad_enabled", "init", "load", "manual_seed",
    "no_grad", "optim", "save",
]  # fmt: skip
