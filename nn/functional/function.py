"""Function: a kernel family that takes and gives Tensors. All of nn.functional is made of these.

In:  a plain function of tracers and the axes of its arguments.  Out: a callable on Tensors whose gradient is derived.
Read before: ../kernels.py, ../tensor.py. Read next: activations.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import kdsl as kd
from nn.kernels import Layer, layer
from nn.tensor import Tensor, apply


class Function:
    """A kernel family that takes and gives Tensors; `function` is the plain function, for use in other kernels."""

    def __init__(self, family: Layer) -> None:
        self.family, self.function = family, family.function
        self.__doc__, self.__name__ = family.function.__doc__, family.function.__name__

    def __call__(self, *args: Any, **static: Any) -> Any:
        return apply(self.family, *args, **static)


def function(*axes: str | None) -> Any:
    """Make a plain function of tracers a Function; for `axes` see kernels.layer."""
    return lambda f: Function(layer(*axes)(f))


def detached(x: Any) -> Any:
    """The array behind a Tensor or array, where it lies."""
    return x.data if isinstance(x, Tensor) else Tensor(x).data if isinstance(x, kd.Array) else np.asarray(x)
