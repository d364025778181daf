"""Kernels of a GPU: code loaded once for each device, launches with packed arguments.

In:  machine code (a cubin), its name, threads, near memory.  Out: GpuFunction, whose `launch` fills a room of words that is
kept and calls the driver (bench/gpu_launch.py measures it).
A parameter is one word of 8 bytes, or the 16 of a tensor map (codegen/cuda/kernels.py): the driver is given their addresses.
Read before: runtime/cuda_driver.py. Read next: runtime/cuda_call.py.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from typing import Any

from kdsl.errors import DeviceError
from kdsl.runtime.cuda_driver import attribute, call, driver, enter, mistake

WITHOUT_ASKING = 48 * 1024  # bytes of shared memory that a launch may have without saying so before


class Words:
    """Room for the arguments of one launch."""

    __slots__ = ("address", "room", "table")

    def __init__(self, widths: Sequence[int]) -> None:
        self.room = (ctypes.c_uint64 * max(1, sum(widths)))()
        first = ctypes.addressof(self.room)
        starts = [first + 8 * sum(widths[:i]) for i in range(len(widths))]
        self.table = (ctypes.c_void_p * (len(widths) + 1))(*starts)  # ends with a null
        self.address = ctypes.addressof(self.table)


class GpuFunction:
    """One kernel. `code` is what the driver loads; `widths` how many words each of its parameters has."""

    def __init__(self, name: str, code: bytes, threads: int, near_bytes: int, widths: Sequence[int]) -> None:
        self.name, self.code, self.threads, self.near_bytes = name, code, threads, near_bytes
        self.widths = tuple(widths)
        self._loaded: dict[int, Any] = {}
        self._free: list[Words] = []  # rooms that no launch is filling
        self._lock = threading.Lock()

    def _load(self, device: int) -> Any:
        functions = driver()
        enter(device)
        with self._lock:
            if self.near_bytes > WITHOUT_ASKING:
                most = attribute(device, "MAX_SHARED_MEMORY_PER_BLOCK_OPTIN")
                if self.near_bytes > most:
                    raise DeviceError(
                        f"{self.name} needs {self.near_bytes} bytes of shared memory, cuda:{device} has {most}", location=False
                    )
            library = call(functions.cuLibraryLoadData, self.code, None, None, 0, None, None, 0)
            kernel = call(functions.cuLibraryGetKernel, library, self.name.encode())
            if self.near_bytes > WITHOUT_ASKING:
                wanted = functions.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
                handle = call(functions.cuDeviceGet, device)
                call(functions.cuKernelSetAttribute, wanted, self.near_bytes, kernel, handle)
            self._loaded[device] = function = call(functions.cuKernelGetFunction, kernel)
            return function

    def launch(self, device: int, stream: int, blocks: int, arguments: Sequence[int]) -> None:
        """Put the kernel on a stream; `device` is the one of this thread, `arguments` all words."""
        function = self._loaded.get(device)
        if function is None:
            function = self._load(device)
        words = self._free.pop() if self._free else Words(self.widths)
        words.room[:] = arguments  # type: ignore[call-overload]
        status = _launch(function, blocks, 1, 1, self.threads, 1, 1, self.near_bytes, stream, words.address, 0)[0]
        self._free.append(words)  # the driver has read them
        if status:
            raise mistake(status, f"the launch of {self.name}")


def _launch(*arguments: Any) -> Any:
    """cuLaunchKernel; the first call finds it."""
    global _launch
    _launch = driver().cuLaunchKernel
    return _launch(*arguments)
