"""Arrays of other libraries as arguments, and results in the same kind.

In:  an argument of a kernel.  Out: its memory as a NumPy array, or as a DeviceTensor where it lies on a GPU (no copy), or None
where it is no array; and how a result is turned into what the caller uses.
Read before: runtime/arrays.py. Read next: interop/torch.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kdsl.errors import ArgumentError
from kdsl.runtime.arrays import Array, view
from kdsl.runtime.cuda_arrays import DeviceTensor, of_interface
from kdsl.runtime.cuda_memory import Block

Wrap = Callable[[np.ndarray[Any, Any]], Any]


def as_view(x: Any) -> np.ndarray[Any, Any] | DeviceTensor | None:
    """The memory of `x` as a NumPy array, or as a DeviceTensor, or None where `x` is no array."""
    kind = type(x)
    if kind is np.ndarray:
        return x
    if isinstance(x, np.ma.MaskedArray):
        raise ArgumentError("a masked array is not an argument: its mask would be lost", hint="pass x.filled(value)")
    if isinstance(x, (np.ndarray, np.generic)):
        return np.asarray(x)
    if isinstance(x, Array):
        return x.data
    if is_torch(x):
        from kdsl.interop import torch

        return torch.view(x)
    if hasattr(x, "__cuda_array_interface__"):
        return of_interface(x)
    return view(x) if hasattr(kind, "__dlpack__") else None


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


def on_device(x: DeviceTensor) -> Any:
    """A result on a GPU as its callers' kind of array: the library's own that allocated it, else an Array."""
    return Array.of(x) if type(x.owner) is Block else x.owner


def is_torch(x: Any) -> bool:
    """Whether `x` is a torch tensor; torch is not imported for the answer."""
    return any(base.__module__.partition(".")[0] == "torch" and base.__name__ == "Tensor" for base in type(x).__mro__)
