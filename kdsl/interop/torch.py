"""torch tensors as arguments and results, and kernels as differentiable torch functions.

In:  a torch tensor, or a kernel.  Out: its memory as a NumPy array; a result as a torch tensor; a function that torch's
autograd can go through. torch is imported on use only.
Read before: interop/arguments.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kdsl.dtypes import bf16
from kdsl.errors import ArgumentError, DeviceError, DtypeError
from kdsl.runtime.cuda_arrays import DeviceTensor, of_torch


def view(x: Any) -> np.ndarray[Any, Any] | DeviceTensor:
    """The memory of a torch tensor on the CPU or on a GPU."""
    import torch

    if x.requires_grad:
        raise ArgumentError(
            "a torch tensor that requires grad is not an argument: its gradient would be lost",
            hint="pass x.detach(), or let torch differentiate the kernel: kdsl.interop.torch.function(kernel)(x)",
        )
    if x.device.type not in ("cpu", "cuda"):
        raise DeviceError(f"a torch tensor lies on {x.device}; kernels run on the CPU and on CUDA")
    if x.layout is not torch.strided:
        raise ArgumentError(f"a torch tensor of layout {x.layout} is not an argument", hint="pass x.to_dense()")
    if x.is_neg():
        x = x.resolve_neg()
    if x.device.type == "cuda":
        return of_torch(x)
    if x.dtype is torch.bfloat16:
        return x.view(torch.int16).numpy().view(bf16.numpy)
    try:
        return x.numpy()
    except TypeError as error:
        raise DtypeError(f"kdsl has no dtype for torch's {x.dtype}") from error


def wrap(result: np.ndarray[Any, Any]) -> Any:
    """A result as a torch tensor, the same memory."""
    import torch

    if result.dtype == bf16.numpy:
        return torch.from_numpy(result.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(result)


def function(kernel: Any) -> Callable[..., Any]:
    """A kernel as a function on torch tensors that torch's autograd differentiates, by the derivative that kdsl derives.

    Example: `softmax = kdsl.interop.torch.function(kernel); softmax(x).sum().backward()`
    """
    import torch

    class Bridge(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            results, ctx.pullback = kernel.pullback(*(a.detach() if isinstance(a, torch.Tensor) else a for a in args))
            ctx.tensors = [isinstance(a, torch.Tensor) for a in args]
            return results

        @staticmethod
        def backward(ctx: Any, *cotangents: Any) -> Any:
            gradients = iter(ctx.pullback(*(c.contiguous() for c in cotangents if c.is_floating_point())))
            return tuple(next(gradients) if tensor else None for tensor in ctx.tensors)

    return Bridge.apply
