"""Memory of a GPU, allocated and freed in the order of a stream, and copies to and from it.

In:  bytes, a device, a stream.  Out: Block, which frees its memory when nobody holds it any more.
The driver's pool keeps what is freed for the next block: an allocation costs about a microsecond, and a block may be let go
while kernels that use it are still running, as it is freed behind them.
Read before: runtime/cuda_driver.py. Read next: runtime/cuda_arrays.py.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any

import numpy as np

from kdsl.runtime.cuda_driver import DeviceMemoryError, call, driver, enter

KEPT = 2**64 - 1  # bytes that the pool may keep: all


@lru_cache
def _pool(device: int) -> Any:
    functions = driver()
    pool = call(functions.cuDeviceGetDefaultMemPool, call(functions.cuDeviceGet, device))
    threshold = functions.CUmemPool_attribute.CU_MEMPOOL_ATTR_RELEASE_THRESHOLD
    call(functions.cuMemPoolSetAttribute, pool, threshold, functions.cuuint64_t(KEPT))
    return pool


class Block:
    """Bytes on a device. `stream` is the last stream that uses them: freeing waits for it."""

    __slots__ = ("address", "bytes", "device", "stream")

    def __init__(self, bytes: int, device: int, stream: int) -> None:
        self.address = 0
        functions = driver()
        enter(device)
        self.bytes, self.device, self.stream = bytes, device, stream
        if not bytes:
            return
        try:
            self.address = int(call(functions.cuMemAllocFromPoolAsync, bytes, _pool(device), stream))
        except DeviceMemoryError:  # what was freed may only wait for its stream
            call(functions.cuStreamSynchronize, stream)
            call(functions.cuMemPoolTrimTo, _pool(device), 0)
            self.address = int(call(functions.cuMemAllocFromPoolAsync, bytes, _pool(device), stream))

    def used_on(self, stream: int) -> None:
        """Let `stream` wait for what was done with the block before, and freeing wait for `stream`."""
        if stream != self.stream:
            order(self.stream, stream)
            self.stream = stream

    def __del__(self) -> None:
        if self.address and not sys.is_finalizing():
            functions = driver()
            enter(self.device)
            functions.cuMemFreeAsync(self.address, self.stream)  # an error here has nobody to tell


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
