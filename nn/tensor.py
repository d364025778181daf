"""Tensor: data, grad, operators and methods by torch's names.

In:  arrays.  Out: arrays and their gradients.  Every operation is one call of a kdsl kernel; when a gradient may be wanted, the
call's *pullback* (the derived backward kernel with what the forward kept) is put on the tape. `backward()` walks the tape from
the last call to the first. Read before: tape.py, tensor_kernels.py. Read next: functional/, module.py.

    x = nn.Tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    x.grad                                     # Tensor([2.0, 4.0])
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Union

import numpy as np

import kdsl as kd
from nn import devices
from nn import tensor_kernels as kernels
from nn.kernels import ARRAYS, Layer
from nn.tape import Node, grad_enabled, gradients

Number = Union[bool, int, float]


class Tensor:
    """An array that remembers how it was computed.

    `data` is a NumPy array, or a kd.Array where `device` is a GPU; `grad` is a Tensor of the same shape after `backward()` (None
    before), `requires_grad` says whether gradients flow to it. Python floats in lists become f32.

    Example: `x = nn.Tensor([1.0, 2.0], requires_grad=True); (x * x).sum().backward(); x.grad.numpy()`.
    """

    __slots__ = ("__weakref__", "data", "grad", "node", "requires_grad")
    __array_priority__ = 1000

    def __init__(self, data: Any, requires_grad: bool = False, dtype: Any = None, device: str | None = None) -> None:
        if isinstance(data, Tensor):
            data = data.data
        if isinstance(data, kd.Array) and data.device == devices.HOST:
            data = data.numpy()
        if isinstance(data, kd.Array):
            array = data if dtype is None else kernels.astype(data, dtype=_numpy_dtype(dtype).name)
        else:
            array = data if isinstance(data, (np.ndarray, np.generic)) else np.asarray(data)
            if dtype is None and not isinstance(data, (np.ndarray, np.generic)) and array.dtype == np.float64:
                dtype = np.float32
            array = np.asarray(array, dtype=None if dtype is None else _numpy_dtype(dtype))
        self.data: Any = array if device is None else devices.moved(array, device)
        self.grad: Tensor | None = None
        self.requires_grad = requires_grad
        self.node: Node | None = None

    # --- what it is ------------------------------------------------------------------------------------------------------
    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def dtype(self) -> np.dtype:
        return devices.dtype_of(self.data)

    @property
    def device(self) -> str:
        """Where the data lie: "cpu", "cuda:0" …"""
        return devices.device_of(self.data)

    @property
    def T(self) -> Tensor:
        return self.transpose(-2, -1)

    def size(self, axis: int | None = None) -> Any:
        return self.shape if axis is None else self.shape[axis]

    def numel(self) -> int:
        return self.data.size

    def dim(self) -> int:
        return self.data.ndim

    def numpy(self) -> np.ndarray:
        """The data as a NumPy array: the Tensor's own, or from a GPU a copy, when what computes them is done."""
        return devices.numpy(self.data)

    def item(self) -> Number:
        """The only element as a Python number."""
        return self.numpy().item()

    def tolist(self) -> Any:
        return self.numpy().tolist()

    def detach(self) -> Tensor:
        return Tensor(self.data)

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("a Tensor without axes has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        text = np.array2string(self.numpy(), separator=", ", prefix="Tensor(")
        where = "" if self.device == devices.HOST else f", device={self.device!r}"
        return f"Tensor({text}{where}{', requires_grad=True' if self.requires_grad else ''})"

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.numpy() if dtype is None else self.numpy().astype(dtype)

    # --- the tape --------------------------------------------------------------------------------------------------------
    def backward(self, gradient: Any = None) -> None:
        """Add d self / d leaf to the `grad` of every leaf that requires it. Without `gradient`, self must have one element."""
        if gradient is None:
            if self.data.size != 1:
                raise RuntimeError(
                    f"backward() of a tensor of shape {self.shape} needs a gradient of that shape: y.backward(g)"
                )
            gradient = devices.like(self.data, 1)
        gradient = gradient.data if isinstance(gradient, Tensor) else gradient
        if not isinstance(gradient, kd.Array):
            gradient = devices.moved(np.asarray(gradient, self.dtype), self.device)
        for leaf, g in gradients(self, gradient):
            leaf.grad = Tensor(g if leaf.grad is None else kernels.add(leaf.grad.data, g))

    def zero_grad(self) -> None:
        self.grad = None

    # --- operators ---------------------------------------------------------------------------------------------------------
    def __add__(self, other: Any) -> Tensor:
        return apply(kernels.add, self, other)

    def __sub__(self, other: Any) -> Tensor:
        return apply(kernels.sub, self, other)

    def __mul__(self, other: Any) -> Tensor:
        return apply(kernels.mul, self, other)

    def __truediv__(self, other: Any) -> Tensor:
        return apply(kernels.div, self, other)

    def __pow__(self, other: Any) -> Tensor:
        return apply(kernels.pow, self, other)

    def __radd__(self, other: Any) -> Tensor:
        return apply(kernels.add, self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return apply(kernels.rsub, self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return apply(kernels.mul, self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return apply(kernels.rdiv, self, other)

    def __neg__(self) -> Tensor:
        return apply(kernels.neg, self)

    def __matmul__(self, other: Any) -> Tensor:
        return apply(kernels.matmul, self, other)

    def __lt__(self, other: Any) -> Tensor:
        return apply(kernels.lt, self, other)

    def __le__(self, other: Any) -> Tensor:
        return apply(kernels.le, self, other)

    def __gt__(self, other: Any) -> Tensor:
        return apply(kernels.gt, self, other)

    def __ge__(self, other: Any) -> Tensor:
        return apply(kernels.ge, self, other)

    def eq(self, other: Any) -> Tensor:
        return apply(kernels.eq, self, other)

    def __getitem__(self, index: Any) -> Tensor:
        if isinstance(index, Tensor):
            return apply(kernels.take, self, index, axis=0)
        return apply(kernels.getitem, self, index=kernels.freeze(index))

    # --- methods by torch's names ------------------------------------------------------------------------------------------
    def exp(self) -> Tensor:
        return apply(kernels.exp, self)

    def log(self) -> Tensor:
        return apply(kernels.log, self)

    def sqrt(self) -> Tensor:
        return apply(kernels.sqrt, self)

    def tanh(self) -> Tensor:
        return apply(kernels.tanh, self)

    def sigmoid(self) -> Tensor:
        return apply(kernels.sigmoid, self)

    def relu(self) -> Tensor:
        return apply(kernels.relu, self)

    def abs(self) -> Tensor:
        return apply(kernels.abs, self)

    def sum(self, dim: Any = None, keepdim: bool = False) -> Tensor:
        return apply(kernels.sum, self, axis=dim, keepdims=keepdim)

    def mean(self, dim: Any = None, keepdim: bool = False) -> Tensor:
        return apply(kernels.mean, self, axis=dim, keepdims=keepdim)

    def amax(self, dim: Any = None, keepdim: bool = False) -> Tensor:
        return apply(kernels.max, self, axis=dim, keepdims=keepdim)

    def argmax(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        return apply(kernels.argmax, self, axis=dim, keepdims=keepdim)

    def reshape(self, *shape: Any) -> Tensor:
        return apply(kernels.reshape, self, shape=_flat(shape))

    view = reshape

    def permute(self, *axes: Any) -> Tensor:
        return apply(kernels.permute, self, axes=_flat(axes))

    def transpose(self, a: int, b: int) -> Tensor:
        axes = list(range(self.ndim))
        axes[a], axes[b] = axes[b], axes[a]
        return self.permute(*axes)

    def astype(self, dtype: Any) -> Tensor:
        return apply(kernels.astype, self, dtype=_numpy_dtype(dtype).name)

    def to(self, *where: Any, device: str | None = None, dtype: Any = None) -> Tensor:
        """The same values on another device or of another dtype, or both: `x.to("cuda")`, `x.to(kd.f16)`. Gradients come back."""
        for x in where:
            if isinstance(x, str) and x.partition(":")[0] in (devices.HOST, "cuda"):
                device = x
            else:
                dtype = x
        out = self if dtype is None or _numpy_dtype(dtype) == self.dtype else self.astype(dtype)
        data = out.data if device is None else devices.moved(out.data, device)
        if data is out.data:
            return out
        there = Tensor(data)
        if grad_enabled() and out.requires_grad:
            there.requires_grad, there.node = True, Node(_back_to(out.device), (out,), [there])
        return there

    def cpu(self) -> Tensor:
        return self.to(devices.HOST)

    def cuda(self) -> Tensor:
        return self.to("cuda")


def apply(kernel: Any, *args: Any, **static: Any) -> Any:
    """Call a kernel on Tensors, arrays and numbers; put the call on the tape if one of them requires a gradient.

    `kernel` is a kdsl kernel or a Layer. Returns a Tensor, or a tuple of Tensors where the kernel returns several.
    """
    raw = [a.data if isinstance(a, Tensor) else a for a in args]
    if isinstance(kernel, Layer):
        kernel, static = kernel.kernel(raw, static), {}
    if grad_enabled() and any(isinstance(a, Tensor) and a.requires_grad for a in args):
        results, pullback = kernel.pullback(*raw, **static)
        parents = tuple(p for a, r in zip(args, raw) for p in _floating_parents(a, r))
        outputs = [Tensor(r) for r in (results if isinstance(results, tuple) else (results,))]
        node = Node(pullback, parents, [t for t in outputs if _is_floating(t.data)])
        for t in node.outputs:
            t.requires_grad, t.node = True, node
        return tuple(outputs) if isinstance(results, tuple) else outputs[0]
    results = kernel(*raw, **static)
    return tuple(map(Tensor, results)) if isinstance(results, tuple) else Tensor(results)


def _floating_parents(argument: Any, raw: Any) -> list[Tensor]:
    """The tensor that a gradient of this argument belongs to: one for each floating array argument."""
    if not isinstance(raw, (*ARRAYS, np.generic)) or not _is_floating(raw):
        return []
    return [argument if isinstance(argument, Tensor) else Tensor(raw)]


def _is_floating(array: Any) -> bool:
    dtype = devices.dtype_of(array)
    return dtype.kind == "f" or dtype.name == "bfloat16"


def _back_to(device: str) -> Callable[[Any], tuple[Any]]:
    """The gradient of a move: a move back."""
    return lambda gradient: (devices.moved(gradient, device),)


def _flat(values: Sequence[Any]) -> tuple[int, ...]:
    return tuple(values[0]) if len(values) == 1 and isinstance(values[0], (tuple, list)) else tuple(values)


def _numpy_dtype(dtype: Any) -> np.dtype:
    found = kd.as_dtype(dtype)
    if found is None:
        raise TypeError(f"{dtype!r} is no dtype")
    return found.numpy
