"""Arrays on a GPU as kernels see them: an address with a shape, strides and a dtype, whoever owns the memory.

In:  a torch tensor, a CuPy array, anything with `__cuda_array_interface__` or a DLPack of a GPU, kd.Array.  Out: DeviceTensor,
no copy. `numpy()` is the only thing that waits for the GPU.
What a kernel launches belongs on the caller's current stream: torch's or CuPy's own; else the device's default stream,
which both libraries start with too.
Read before: runtime/cuda_memory.py. Read next: runtime/cuda_call.py.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdsl.dtypes import BY_NUMPY
from kdsl.errors import DtypeError
from kdsl.runtime.cuda_checks import settle
from kdsl.runtime.cuda_driver import enter, present
from kdsl.runtime.cuda_memory import Block, copied, download, order, upload

DEFAULT_STREAM = 0
WIDEST = 16  # bytes of the widest access: what an address is no multiple of may matter to a kernel
Room = Callable[[tuple[int, ...], np.dtype[Any], int, int], "DeviceTensor"]  # shape, dtype, device, stream


@dataclass(frozen=True)
class Flags:
    """What the front end asks of an array."""

    c_contiguous: bool
    aligned: bool = True
    writeable: bool = True


_kinds: dict[tuple[Any, ...], int] = {}


class DeviceTensor:
    """Elements on a GPU. `strides` are in bytes, as NumPy's; `owner` keeps the memory alive, a Block where it is ours.

    `room` makes tensors of the same kind, for results."""

    __slots__ = ("address", "device", "dtype", "known_kind", "owner", "room", "shape", "stream", "strides")

    def __init__(
        self,
        address: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        device: int,
        owner: Any,
        strides: tuple[int, ...] | None = None,
        stream: int = DEFAULT_STREAM,
        room: Room | None = None,
    ) -> None:
        self.address, self.shape, self.dtype, self.device = address, tuple(shape), dtype, device
        self.owner, self.stream, self.room = owner, stream, room or new
        self.strides = row_major(self.shape, dtype.itemsize) if strides is None else tuple(strides)
        self.known_kind: int | None = None

    @staticmethod
    def of(block: Block, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype[Any], kind: int) -> DeviceTensor:
        """A C-contiguous tensor of a known kind, in a block of its own."""
        x = DeviceTensor.__new__(DeviceTensor)
        x.address, x.shape, x.strides, x.dtype, x.known_kind = block.address, shape, strides, dtype, kind
        x.owner, x.device, x.stream, x.room = block, block.device, block.stream, new
        return x

    ndim = property(lambda self: len(self.shape))
    size = property(lambda self: math.prod(self.shape))
    itemsize = property(lambda self: self.dtype.itemsize)
    nbytes = property(lambda self: self.size * self.dtype.itemsize)

    @property
    def kind(self) -> int:
        """A number that all tensors have which a kernel cannot tell apart but by their address and their elements."""
        if self.known_kind is None:
            where = self.device, self.stream, self.address % WIDEST, self.room
            self.known_kind = _kinds.setdefault((self.shape, self.strides, self.dtype, *where), len(_kinds) + 1)
        return self.known_kind

    @property
    def flags(self) -> Flags:
        wanted = row_major(self.shape, self.itemsize)
        same = self.strides == wanted
        dense = same or 0 in self.shape or all(n == 1 or s == w for n, s, w in zip(self.shape, self.strides, wanted))
        return Flags(dense, self.address % self.itemsize == 0)

    def span(self) -> tuple[int, int]:
        """The addresses from which and to which the elements lie."""
        if 0 in self.shape:
            return self.address, self.address
        steps = [(n - 1) * s for n, s in zip(self.shape, self.strides)]
        return self.address + sum(s for s in steps if s < 0), self.address + sum(s for s in steps if s > 0) + self.itemsize

    def numpy(self) -> np.ndarray[Any, Any]:
        """The elements in the host's memory, when what computes them is done."""
        enter(self.device)
        if isinstance(self.owner, Block):
            self.owner.used_on(self.stream)
        low, high = self.span()
        memory = np.empty(high - low, np.uint8)
        download(low, memory, self.stream)
        settle()
        if not memory.size:
            return np.empty(self.shape, self.dtype)
        return np.array(np.ndarray(self.shape, self.dtype, memory.data, self.address - low, self.strides), order="C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.asarray(self.numpy(), dtype)

    def part(self, start: int, shape: tuple[int, ...]) -> DeviceTensor:
        """Elements of a C-contiguous tensor in another shape: the same memory."""
        first = self.address + start * self.itemsize
        return DeviceTensor(first, shape, self.dtype, self.device, self.owner, None, self.stream, self.room)

    def again(self, alignment: int) -> DeviceTensor:
        """The same elements in memory of their own, the first at a multiple of `alignment`."""
        low, high = self.span()
        shift = -(self.address - low) % alignment
        block = copied(low, high, self.device, self.stream, shift)
        first = block.address + shift + self.address - low
        return DeviceTensor(first, self.shape, self.dtype, self.device, block, self.strides, self.stream, self.room)

    def __repr__(self) -> str:
        return f"<{self.dtype}{list(self.shape)} on cuda:{self.device}>"


def row_major(shape: tuple[int, ...], item: int) -> tuple[int, ...]:
    """The strides in bytes of a C-contiguous array."""
    out: list[int] = []
    for n in reversed(shape):
        out.insert(0, item)
        item *= max(n, 1)
    return tuple(out)


def new(shape: tuple[int, ...], dtype: np.dtype[Any], device: int, stream: int) -> DeviceTensor:
    """Room for elements, not set."""
    block = Block(math.prod(shape) * dtype.itemsize, device, stream)
    return DeviceTensor(block.address, shape, dtype, device, block, None, stream)


def put(array: Any, device: int = 0, stream: int = DEFAULT_STREAM) -> DeviceTensor:
    """A NumPy array's elements on a device."""
    data = np.ascontiguousarray(array).reshape(np.shape(array))
    dtype = data.dtype.newbyteorder("=")
    block = upload(data.astype(dtype, copy=False), device, stream)
    return DeviceTensor(block.address, data.shape, dtype, device, block, None, stream)


# --- other libraries' arrays --------------------------------------------------------------------------------------------------
def of_torch(x: Any) -> DeviceTensor:
    """A torch tensor on a GPU; kernels run on torch's current stream."""
    import torch

    device, dtype = x.device.index or 0, BY_NAME_OF_TORCH.get(str(x.dtype))
    if dtype is None:
        raise DtypeError(f"kdsl has no dtype for torch's {x.dtype}")
    strides = tuple(s * dtype.itemsize for s in x.stride())
    stream = torch.cuda.current_stream(device).cuda_stream
    return DeviceTensor(x.data_ptr(), tuple(x.shape), dtype, device, x, strides, stream, torch_room)


BY_NAME_OF_TORCH = {f"torch.{dtype.name}": dtype for dtype in BY_NUMPY}


def torch_room(shape: tuple[int, ...], dtype: np.dtype[Any], device: int, stream: int) -> DeviceTensor:
    """Room that torch allocates: its results are ordinary tensors."""
    import torch

    return of_torch(torch.empty(shape, dtype=getattr(torch, dtype.name), device=f"cuda:{device}"))


def of_interface(x: Any) -> DeviceTensor:
    """Anything with `__cuda_array_interface__`; what it waits for is waited for on the stream, not by the host."""
    present()
    interface = x.__cuda_array_interface__
    dtype = np.dtype(interface["typestr"])
    if dtype not in BY_NUMPY:
        raise DtypeError(f"kdsl has no dtype for {dtype} on a GPU")
    is_cupy = type(x).__module__.partition(".")[0] == "cupy"
    stream = sys.modules["cupy"].cuda.get_current_stream().ptr if is_cupy else DEFAULT_STREAM
    made_on = interface.get("stream")
    device = getattr(getattr(x, "device", None), "id", 0)
    if made_on not in (None, 1) and made_on != stream:  # 1 is the default stream
        enter(device)
        order(made_on, stream)
    address, shape = interface["data"][0] or 0, tuple(interface["shape"])
    return DeviceTensor(address, shape, dtype, device, x, interface.get("strides"), stream, cupy_room if is_cupy else new)


def cupy_room(shape: tuple[int, ...], dtype: np.dtype[Any], device: int, stream: int) -> DeviceTensor:
    """Room that CuPy allocates: its results are ordinary CuPy arrays."""
    return of_interface(sys.modules["cupy"].empty(shape, dtype))


def interface_of(tensor: DeviceTensor) -> dict[str, Any]:
    """Our memory in the words of `__cuda_array_interface__`, version 3."""
    return {
        "shape": tensor.shape, "typestr": tensor.dtype.str, "data": (tensor.address, False), "version": 3,
        "strides": None if tensor.flags.c_contiguous else tensor.strides, "stream": tensor.stream or 1,
    }  # fmt: skip
