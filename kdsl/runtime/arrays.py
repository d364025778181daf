"""kd.Array: a tensor of our own, for moving data between libraries. It has no arithmetic.

In:  anything that kernels take.  Out: an Array, which hands its memory on through DLPack and `numpy()`.
DLPack carries every dtype of ours, bf16 included (NumPy's own export refuses bf16), so capsules are made and read here.
Read next: interop/arguments.py.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np

from kdsl.dtypes import BY_NUMPY, DType, as_dtype
from kdsl.errors import DeviceError, DtypeError, ShapeError
from kdsl.runtime.cuda_arrays import DEFAULT_STREAM, DeviceTensor, interface_of, of_interface, put
from kdsl.runtime.cuda_driver import present
from kdsl.runtime.cuda_memory import Block, order

CPU = (1, 0)  # DLPack's (device type, device number)
CUDA = 2
_CODES = {"signed": 0, "unsigned": 1, "floating": 2, "bool": 6}
_BFLOAT = 4


class Array:
    """Memory with a shape and a dtype, on the CPU or on a GPU."""

    __slots__ = ("data",)

    def __init__(self, data: np.ndarray[Any, Any] | DeviceTensor) -> None:
        if data.dtype.newbyteorder("=") not in BY_NUMPY:
            raise DtypeError(f"kdsl has no dtype for NumPy's {data.dtype}")
        self.data = data

    @staticmethod
    def of(data: DeviceTensor) -> Array:
        """An Array of a kernel's result, whose dtype is known to be ours."""
        out = Array.__new__(Array)
        out.data = data
        return out

    shape = property(lambda self: self.data.shape)
    ndim = property(lambda self: self.data.ndim)
    size = property(lambda self: self.data.size)

    @property
    def dtype(self) -> DType:
        return BY_NUMPY[self.data.dtype.newbyteorder("=")]

    @property
    def device(self) -> str:
        return f"cuda:{self.data.device}" if isinstance(self.data, DeviceTensor) else "cpu"

    def view(self, shape: tuple[int, ...], start: int = 0) -> Array:
        """The elements from number `start` on, in C order, in another shape: the same memory."""
        count = math.prod(shape)
        if not self.data.flags.c_contiguous or start < 0 or start + count > self.size:
            raise ShapeError(f"{count} elements from number {start} on are no part of {self.size} elements in C order")
        if isinstance(self.data, DeviceTensor):
            return Array(self.data.part(start, shape))
        return Array(self.data.reshape(-1)[start : start + count].reshape(shape))

    def numpy(self) -> np.ndarray[Any, Any]:
        """The same memory as a NumPy array; from a GPU a copy, when what computes it is done."""
        return self.data.numpy() if isinstance(self.data, DeviceTensor) else self.data

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(self.numpy(), dtype, copy=copy)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if not isinstance(self.data, DeviceTensor):
            raise AttributeError("this array lies in the host's memory")
        return interface_of(self.data)

    def __dlpack__(self, **options: Any) -> Any:
        if isinstance(self.data, DeviceTensor):
            return export_device(self.data, options.get("stream"))
        return export(self.data.copy() if options.get("copy") else self.data, options.get("max_version"))

    def __dlpack_device__(self) -> tuple[int, int]:
        return (CUDA, self.data.device) if isinstance(self.data, DeviceTensor) else CPU

    def __repr__(self) -> str:
        return f"Array({self.numpy()!r}, device={self.device!r})"


def asarray(x: Any, device: str = "cpu", dtype: Any = None) -> Array:
    """An Array on `device`: the same memory where that is possible. Example: `kd.asarray(np.zeros(3)).numpy()`"""
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or not (number or "0").isdigit() or (kind == "cpu" and number):
        raise DeviceError(f"there is no device {device!r}; there are 'cpu' and 'cuda', 'cuda:1' …")
    if kind == "cuda":
        present()
    data = _memory(x)
    wanted = None if dtype is None else as_dtype(dtype)
    if dtype is not None and wanted is None:
        raise DtypeError(f"there is no dtype {dtype!r}")
    if kind == "cuda" and isinstance(data, DeviceTensor) and data.device == int(number or 0):
        if wanted is None or wanted.numpy == data.dtype:
            return Array(data)
    host = data.numpy() if isinstance(data, DeviceTensor) else data
    host = host if wanted is None else host.astype(wanted.numpy, copy=False)
    return Array(put(host, int(number or 0)) if kind == "cuda" else host)


def _memory(x: Any) -> np.ndarray[Any, Any] | DeviceTensor:
    """What an array of any library holds, no copy."""
    if isinstance(x, Array):
        return x.data
    if hasattr(x, "__cuda_array_interface__"):
        return of_interface(x)
    return view(x) if hasattr(x, "__dlpack__") and not isinstance(x, np.ndarray) else np.asarray(x)


# --- DLPack -------------------------------------------------------------------------------------------------------------------
class _Tensor(ctypes.Structure):
    """DLTensor."""

    _fields_ = [
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device", ctypes.c_int32), ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16), ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)), ("offset", ctypes.c_uint64),
    ]  # fmt: skip


class _Managed(ctypes.Structure):
    """DLManagedTensor: what capsules hold that do not say a version."""


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Managed._fields_ = [("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter)]
_exported: dict[int, Any] = {}  # what must live until the consumer calls the deleter

_new = ctypes.pythonapi.PyCapsule_New
_new.restype, _new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_name = ctypes.pythonapi.PyCapsule_GetName
_name.restype, _name.argtypes = ctypes.c_char_p, [ctypes.py_object]
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
_rename = ctypes.pythonapi.PyCapsule_SetName
_rename.restype, _rename.argtypes = ctypes.c_int, [ctypes.py_object, ctypes.c_char_p]


@_Deleter
def _forget(managed: Any) -> None:
    _exported.pop(ctypes.addressof(managed.contents), None)


_RawDestructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
_raw_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", ctypes.pythonapi))
_raw_is = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))


@_RawDestructor
def _unclaimed(capsule: int) -> None:
    """A capsule that nobody took dies: let its memory go."""
    if _raw_is(capsule, b"dltensor"):
        _exported.pop(_raw_pointer(capsule, b"dltensor"), None)


def export(data: np.ndarray[Any, Any], max_version: tuple[int, int] | None = None) -> Any:
    """A DLPack capsule of an array; the consumer may ask for any version and gets the plain one, which all read."""
    dtype = BY_NUMPY.get(data.dtype)
    if dtype is None or any(s % data.itemsize for s in data.strides):
        raise BufferError(f"DLPack cannot carry {data.dtype} with strides {data.strides}")
    if not data.flags.writeable:
        raise BufferError("a read-only array cannot be handed on through DLPack")
    return _capsule(data, data.ctypes.data, CPU, dtype)


def export_device(data: DeviceTensor, stream: int | None = None) -> Any:
    """A DLPack capsule of memory on a GPU. The consumer's `stream` (-1: it waits itself) comes after what computes it."""
    consumer = DEFAULT_STREAM if stream in (None, 1) else stream
    if consumer not in (-1, data.stream):
        order(data.stream, consumer)
        if isinstance(data.owner, Block):
            data.owner.used_on(consumer)
    return _capsule(data, data.address, (CUDA, data.device), BY_NUMPY[data.dtype])


def _capsule(data: Any, address: int, device: tuple[int, int], dtype: DType) -> Any:
    shape = (ctypes.c_int64 * max(1, data.ndim))(*data.shape)
    strides = (ctypes.c_int64 * max(1, data.ndim))(*(s // data.itemsize for s in data.strides))
    code = _BFLOAT if dtype.name == "bf16" else _CODES[dtype.kind]
    tensor = _Tensor(address, *device, data.ndim, code, 8 * dtype.bytes, 1, shape, strides, 0)
    managed = _Managed(tensor, None, _forget)
    address = ctypes.addressof(managed)
    _exported[address] = managed, shape, strides, data
    return _new(address, b"dltensor", ctypes.cast(_unclaimed, ctypes.c_void_p))


class _Owner:
    """Holds a consumed capsule's memory until the last view of it is gone."""

    def __init__(self, managed: Any) -> None:
        self.managed = managed
        self.__array_interface__: dict[str, Any] = {}

    def __del__(self) -> None:
        if self.managed.contents.deleter:
            self.managed.contents.deleter(self.managed)


def view(x: Any) -> np.ndarray[Any, Any] | DeviceTensor:
    """The memory of anything with `__dlpack__` as a NumPy array, or as a DeviceTensor."""
    device_type, device = x.__dlpack_device__()
    if int(device_type) not in (1, CUDA, 3):  # 3: page-locked memory of the host
        raise DeviceError(f"a {type(x).__name__} lies on a device of DLPack's type {int(device_type)}; there are CPU and CUDA")
    if int(device_type) == CUDA:
        present()
    capsule = x.__dlpack__(stream=1) if int(device_type) == CUDA else x.__dlpack__()  # 1: the default stream
    if _name(capsule) != b"dltensor":
        raise BufferError(f"{type(x).__name__}.__dlpack__ gave a capsule of another kind: {_name(capsule)!r}")
    managed = ctypes.cast(_pointer(capsule, b"dltensor"), ctypes.POINTER(_Managed))
    _rename(capsule, b"used_dltensor")
    owner = _Owner(managed)
    tensor = managed.contents.tensor
    dtype = _dtype_of(tensor.code, tensor.bits, tensor.lanes, x)
    shape = tuple(tensor.shape[: tensor.ndim])
    if int(device_type) == CUDA:
        steps = tuple(s * dtype.bytes for s in tensor.strides[: tensor.ndim]) if tensor.strides else None
        return DeviceTensor((tensor.data or 0) + tensor.offset, shape, dtype.numpy, int(device), owner, steps)
    if not tensor.data or 0 in shape:
        return np.empty(shape, dtype.numpy)
    strides = tuple(s * dtype.bytes for s in tensor.strides[: tensor.ndim]) if tensor.strides else None
    interface = {"shape": shape, "typestr": f"|V{dtype.bytes}" if dtype.name == "bf16" else dtype.numpy.str, "version": 3,
                 "data": (tensor.data + tensor.offset, False), "strides": strides}  # fmt: skip
    owner.__array_interface__ = interface
    return np.asarray(owner).view(dtype.numpy)


def _dtype_of(code: int, bits: int, lanes: int, x: Any) -> DType:
    for dtype in BY_NUMPY.values():
        own = _BFLOAT if dtype.name == "bf16" else _CODES[dtype.kind]
        if (own, 8 * dtype.bytes, 1) == (code, bits, lanes):
            return dtype
    raise DtypeError(f"kdsl has no dtype for the elements of this {type(x).__name__} (DLPack code {code}, {bits} bits)")
