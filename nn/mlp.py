"""MLP: linear layers with a nonlinearity between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nn import functional as F
from nn.layers import Linear
from nn.module import Module, ModuleList
from nn.tensor import Tensor


class MLP(Module):
    """Linear layers of the given widths, `relu` or `gelu` after each but the last.

    >>> MLP(2, [16, 16, 1])(x)                 # x (N, 2) -> (N, 1)
    """

    def __init__(self, inputs: int, widths: Sequence[int], activation: str = "relu") -> None:
        super().__init__()
        self.activation = {"relu": F.relu, "gelu": F.gelu}[activation]
        self.layers = ModuleList(Linear(i, o) for i, o in zip([inputs, *widths], widths))

    def forward(self, x: Any) -> Tensor:
        *hidden, last = self.layers
        for layer in hidden:
            x = self.activation(layer(x))
        return last(x)
