"""Arrays of other libraries as arguments, and results in the same kind.

In:  an argument of a kernel.  Out: its memory as a NumPy array (no copy), or None where it is no array; and how a result is
turned into what the caller uses.
Read before: runtime/arrays.py. Read next: interop/torch.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kdsl.errors import ArgumentError, DeviceError
from kdsl.runtime.arrays import Array, view

Wrap = Callable[[np.ndarray[Any, Any]], Any]


def as_numpy_view(x: Any) -> np.ndarray[Any, Any] | None:
    """The memory of `x` as a NumPy array, or None where `x` is no array."""
    kind = type(x)
    if kind is np.ndarray:
        return x
    if isinstance(x, np.ma.MaskedArray):
        raise ArgumentError("a masked array is not an argument: its mask would be lost", hint="pass x.filled(value)")
    if isinstance(x, (np.ndarray, np.generic)):
        return np.asarray(x)
    if isinstance(x, Array):
        return x.numpy()
    if is_torch(x):
        from kdsl.interop import torch

        return torch.view(x)
    if hasattr(kind, "__dlpack__"):
        return view(x)
    if hasattr(x, "__cuda_array_interface__"):
        raise DeviceError(f"a {kind.__name__} lies on a GPU; CUDA is not a target yet")
    return None


def is_array(x: Any) -> bool:
    """Whether `x` is an array of some library (kernels trace it) and not a static value."""
    kind = type(x)
    return (
        isinstance(x, (np.ndarray, np.generic, Array)) or hasattr(kind, "__dlpack__") or hasattr(kind, "__cuda_array_interface__")
    )


def wrapper_of(x: Any) -> Wrap | None:
    """How results become arrays of the kind of `x`, the first array argument; None: they stay NumPy's."""
    if isinstance(x, (np.ndarray, np.generic)):
        return None
    if isinstance(x, Array):
        return Array
    if is_torch(x):
        from kdsl.interop import torch

        return torch.wrap
    namespace = getattr(x, "__array_namespace__", None)
    return namespace().asarray if namespace is not None else None


def is_torch(x: Any) -> bool:
    """Whether `x` is a torch tensor; torch is not imported for the answer."""
    return any(base.__module__.partition(".")[0] == "torch" and base.__name__ == "Tensor" for base in type(x).__mro__)
