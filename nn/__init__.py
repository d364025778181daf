"""nn: an autograd and model library built only on kdsl's public names. Every computation is a kernel that kdsl compiled."""

from nn import data, functional, init, optim
from nn.attention import CausalSelfAttention, MultiHeadAttention
from nn.convolution import AvgPool1d, AvgPool2d, Conv1d, Conv2d, MaxPool1d, MaxPool2d
from nn.functional import manual_seed
from nn.gpt import GPT, GPTConfig
from nn.layers import GELU, Dropout, Embedding, Flatten, Linear, ReLU, ResidualLinear, Sigmoid, SiLU, Tanh
from nn.mamba import Mamba, MambaConfig
from nn.mamba2 import Mamba2, Mamba2Config
from nn.mlp import MLP
from nn.module import Buffer, Module, ModuleList, Parameter, Sequential
from nn.normalisation import BatchNorm1d, BatchNorm2d, GroupNorm, LayerNorm, RMSNorm
from nn.serialization import load, save
from nn.tape import grad_enabled, no_grad
from nn.tensor import Tensor
from nn.trainer import Trainer, TrainerConfig

__all__ = [
    "GELU", "GPT", "MLP", "AvgPool1d", "AvgPool2d", "BatchNorm1d", "BatchNorm2d", "Buffer", "CausalSelfAttention",
    "Conv1d", "Conv2d", "Dropout", "Embedding", "Flatten", "GPTConfig", "GroupNorm", "LayerNorm", "Linear", "Mamba",
    "Mamba2", "Mamba2Config", "MambaConfig", "MaxPool1d", "MaxPool2d", "Module", "ModuleList", "MultiHeadAttention",
    "Parameter", "RMSNorm", "ReLU", "ResidualLinear", "Sequential", "SiLU", "Sigmoid", "Tanh", "Tensor", "Trainer",
    "TrainerConfig", "data", "functional", "grad_enabled", "init", "load", "manual_seed", "no_grad", "optim", "save",
]  # fmt: skip
