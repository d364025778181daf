"""New NumPy arrays whose memory comes from, and goes back to, kdsl's allocator.

In:  shape and dtype.  Out: an ordinary array that owns its data; when it dies the block is kept for the next result.
NumPy lets the owner of memory be chosen (NEP 49): a handler of four functions, which are native code here.
Read before: runtime/arena.py, runtime/native.py. Read next: runtime/call.py.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy._core import _multiarray_umath  # type: ignore[attr-defined]

from kdsl.runtime.native import native


class _Handler(ctypes.Structure):
    """PyDataMem_Handler, version 1."""

    _fields_ = [
        ("name", ctypes.c_char * 127), ("version", ctypes.c_uint8), ("context", ctypes.c_void_p), ("malloc", ctypes.c_void_p),
        ("calloc", ctypes.c_void_p), ("realloc", ctypes.c_void_p), ("free", ctypes.c_void_p),
    ]  # fmt: skip


@lru_cache
def numpy_function(slot: int) -> int:
    """The address of a function of NumPy's C API (its slots never change within a major version of the interface)."""
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = get(_multiarray_umath._ARRAY_API, None)
    address = ctypes.cast(table, ctypes.POINTER(ctypes.c_void_p))[slot]
    assert address is not None
    return address


@lru_cache
def handler() -> Any:
    """The capsule that NumPy knows our allocator by. It lives as long as the process."""
    functions = (native().address(f"numpy_{name}") for name in ("malloc", "calloc", "realloc", "free"))
    record = _Handler(b"kdsl", 1, None, *functions)
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    capsule = new(ctypes.addressof(record), b"mem_handler", None)
    for kept in (record, capsule):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
    return capsule


@lru_cache
def _set_handler() -> Any:
    return ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(numpy_function(304))  # PyDataMem_SetHandler


def empty(shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """An array of that shape, its elements not set."""
    change = _set_handler()
    before = change(handler())
    try:
        return np.empty(tuple(shape), dtype)
    finally:
        change(before)
