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
        code = family.function.__code__
        self.tensors, last = code.co_argcount, code.co_argcount + code.co_kwonlyargcount
        self.options = code.co_varnames[self.tensors : last]

    def __call__(self, *args: Any, **static: Any) -> Any:
        if len(args) > self.tensors:  # PyTorch takes options by position too
            more = args[self.tensors :]
            if len(more) > len(self.options) or any(name in static for name in self.options[: len(more)]):
                raise TypeError(f"{self.__name__} takes {self.tensors} tensors, then {', '.join(self.options) or 'nothing'}")
            args, static = args[: self.tensors], {**static, **dict(zip(self.options, more))}
        return apply(self.family, *args, **static)


def function(*axes: str | None) -> Any:
    """Make a plain function of tracers a Function; for `axes` see kernels.layer."""
    return lambda f: Function(layer(*axes)(f))


def detached(x: Any) -> Any:
    """The array behind a Tensor or array, where it lies."""
    return x.data if isinstance(x, Tensor) else Tensor(x).data if isinstance(x, kd.Array) else np.asarray(x)
