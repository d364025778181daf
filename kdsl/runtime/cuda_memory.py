"""Memory of a GPU, allocated and freed in the order of a stream, and copies to and from it.

In:  bytes, a device, a stream.  Out: Block, which frees its memory when nobody holds it any more.
The driver's pool keeps what is freed for the next block: an allocation costs about a microsecond, and a block may be let go
while kernels that use it are still running, as it is freed behind them.
Read before: runtime/cuda_driver.py, runtime/cuda_native.py. Read next: runtime/cuda_arrays.py.
"""

from __future__ import annotations

import ctypes
import sys
from functools import lru_cache
from typing import Any

import numpy as np

from kdsl.runtime import cuda_native
from kdsl.runtime.cuda_driver import DeviceMemoryError, address, call, context, driver, enter

_finalizing = sys.is_finalizing
KEPT = 2**64 - 1  # bytes that the pool may keep: all


class Pool:
    """A device's pool, and where native code finds the driver's functions for it: `entries` (cuda_native.py says which)."""

    def __init__(self, functions: Any, device: int) -> None:
        self.handle = call(functions.cuDeviceGetDefaultMemPool, call(functions.cuDeviceGet, device))
        threshold = functions.CUmemPool_attribute.CU_MEMPOOL_ATTR_RELEASE_THRESHOLD
        call(functions.cuMemPoolSetAttribute, self.handle, threshold, functions.cuuint64_t(KEPT))
        names = ("LaunchKernel", "MemAllocFromPoolAsync", "MemFreeAsync", "MemsetD32Async", "CtxGetCurrent", "CtxSetCurrent")
        own = (int(context(device)), int(self.handle))
        self._words = (ctypes.c_uint64 * 8)(*(address(f"cu{name}") for name in names), *own)
        self.entries = ctypes.addressof(self._words)
        self.run, self._free = cuda_native.functions()

    def free(self, address: int, stream: int) -> None:
        self._free(self.entries, address, stream)  # an error here has nobody to tell


@lru_cache
def _pool_of(functions: Any, device: int) -> Pool:
    return Pool(functions, device)


def pool(device: int) -> Pool:
    """The pool of a device."""
    return _pool_of(driver(), device)


class Block:
    """Bytes on a device. `stream` is the last stream that uses them: freeing waits for it."""

    __slots__ = ("address", "bytes", "device", "pool", "stream")

    def __init__(self, bytes: int, device: int, stream: int) -> None:
        self.address = 0
        functions = driver()
        enter(device)
        self.bytes, self.device, self.stream, self.pool = bytes, device, stream, pool(device)
        if not bytes:
            return
        handle = self.pool.handle
        try:
            self.address = int(call(functions.cuMemAllocFromPoolAsync, bytes, handle, stream))
        except DeviceMemoryError:
            collect(device, stream)
            self.address = int(call(functions.cuMemAllocFromPoolAsync, bytes, handle, stream))

    @staticmethod
    def of(address: int, bytes: int, device: int, stream: int, pool: Pool) -> Block:
        """Memory that native code has allocated."""
        block = Block.__new__(Block)
        block.address, block.bytes, block.device, block.stream, block.pool = address, bytes, device, stream, pool
        return block

    def used_on(self, stream: int) -> None:
        """Let `stream` wait for what was done with the block before, and freeing wait for `stream`."""
        if stream != self.stream:
            order(self.stream, stream)
            self.stream = stream

    def __del__(self) -> None:
        if self.address and not _finalizing():
            self.pool.free(self.address, self.stream)


def collect(device: int, stream: int) -> None:
    """Give what was freed back to the device: it may only wait for its stream, or lie in other sizes than those wanted."""
    call(driver().cuStreamSynchronize, stream)
    call(driver().cuMemPoolTrimTo, pool(device).handle, 0)


def order(before: int, after: int) -> None:
    """What is put on the stream `after` from now on waits for what is on `before` now."""
    functions = driver()
    event = call(functions.cuEventCreate, functions.CUevent_flags.CU_EVENT_DISABLE_TIMING)
    try:
        call(functions.cuEventRecord, event, before)
        call(functions.cuStreamWaitEvent, after, event, 0)
    finally:
        functions.cuEventDestroy(event)


def upload(array: np.ndarray[Any, Any], device: int, stream: int) -> Block:
    """A C-contiguous array's bytes on a device. The array may change when this returns."""
    block = Block(array.nbytes, device, stream)
    if array.nbytes:
        call(driver().cuMemcpyHtoDAsync, block.address, array.ctypes.data, array.nbytes, stream)
        call(driver().cuStreamSynchronize, stream)
    return block


def download(address: int, into: np.ndarray[Any, Any], stream: int) -> None:
    """Bytes of a device into a C-contiguous array, when everything before on the stream is done."""
    if into.nbytes:
        call(driver().cuMemcpyDtoHAsync, into.ctypes.data, address, into.nbytes, stream)
    call(driver().cuStreamSynchronize, stream)


def copied(low: int, high: int, device: int, stream: int, shift: int = 0) -> Block:
    """The bytes from address `low` to `high` again, `shift` bytes behind the beginning of a new block."""
    block = Block(high - low + shift, device, stream)
    if high > low:
        call(driver().cuMemcpyDtoDAsync, block.address + shift, low, high - low, stream)
    return block
