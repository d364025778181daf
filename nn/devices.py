"""Where data lie: in the host's memory as NumPy arrays, or on a GPU as kd.Arrays; and what nn does with both alike.

In:  an array of either kind.  Out: its device, the same elements elsewhere, another view of them, new ones.
Data move only where somebody asks for it: `moved` and `numpy` are the only ways across, and a kernel whose arguments lie on two
devices is a kd.DeviceError. NumPy never computes: what changes numbers on either side is a kernel.
Read before: kernels.py. Read next: tensor.py.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import kdsl as kd

HOST = "cpu"


def device_of(data: Any) -> str:
    """ "cpu", "cuda:0" …; Tensors and Modules have a `device` of their own."""
    return data.device if isinstance(data, kd.Array) else getattr(data, "device", HOST)


def moved(data: Any, device: str) -> Any:
    """The elements on `device`: the array itself where it lies there, else a copy."""
    if isinstance(data, kd.Array):
        if device == HOST:
            return data.numpy()
        return data if data.device == ("cuda:0" if device == "cuda" else device) else kd.asarray(data, device=device)
    return np.asarray(data) if device == HOST else kd.asarray(data, device=device)


def numpy(data: Any) -> np.ndarray:
    """The elements as a NumPy array; from a GPU a copy, when what computes them is done."""
    return data.numpy() if isinstance(data, kd.Array) else np.asarray(data)


def dtype_of(data: Any) -> np.dtype:
    """NumPy's dtype of an array of either kind."""
    return data.dtype.numpy if isinstance(data, kd.Array) else data.dtype


def view(data: Any, shape: tuple[int, ...], start: int = 0) -> Any:
    """The elements from number `start` on, in C order, in another shape: the same memory."""
    if isinstance(data, kd.Array):
        return data.view(shape, start)
    return data.reshape(-1)[start : start + math.prod(shape)].reshape(shape)


def flat(data: Any) -> Any:
    """The elements in one axis: the same memory."""
    return data if data.ndim == 1 else view(data, (data.size,))


def like(data: Any, value: int) -> Any:
    """A new array of equal elements, of the shape and dtype of another and where that lies."""
    if isinstance(data, kd.Array):
        return view(_ones(flat(data)) if value else _zeros(flat(data)), data.shape)
    return np.full(data.shape, value, data.dtype)


def assign(target: Any, values: Any) -> None:
    """Write `values`, which lie anywhere, into the memory of `target`, in its dtype."""
    if not isinstance(target, kd.Array):
        values = numpy(values)
        if values.dtype != target.dtype:
            values = _cast(values.reshape(-1), dtype=kd.as_dtype(target.dtype).name).reshape(values.shape)
        target[...] = values
        return
    values = moved(values, target.device)
    if values.shape != target.shape:
        raise ValueError(f"values of shape {values.shape} cannot be written to an array of shape {target.shape}")
    if values.dtype is target.dtype:
        _copy(flat(values), out=flat(target))
    else:
        _cast(flat(values), dtype=target.dtype.name, out=flat(target))


_copy = kd.kernel(lambda a: a, types=(kd.any["N"],))
_cast = kd.kernel(lambda a, *, dtype: kd.astype(a, dtype), types=(kd.any["N"],))
_ones = kd.kernel(lambda a: kd.ones_like(a), types=(kd.any["N"],))
_zeros = kd.kernel(lambda a: kd.zeros_like(a), types=(kd.any["N"],))
