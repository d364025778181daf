"""Kernels of a GPU: code loaded once for each device.

In:  machine code (a cubin), its name, threads, near memory.  Out: GpuFunction, whose `on(device)` is what the driver launches.
Read before: runtime/cuda_driver.py. Read next: runtime/cuda_plan.py.
"""

from __future__ import annotations

import threading
from typing import Any

from kdsl.errors import DeviceError
from kdsl.runtime.cuda_driver import attribute, call, driver, enter

WITHOUT_ASKING = 48 * 1024  # bytes of shared memory that a launch may have without saying so before


class GpuFunction:
    """One kernel. `code` is what the driver loads."""

    def __init__(self, name: str, code: bytes, threads: int, near_bytes: int) -> None:
        self.name, self.code, self.threads, self.near_bytes = name, code, threads, near_bytes
        self._loaded: dict[int, Any] = {}
        self._lock = threading.Lock()

    def on(self, device: int) -> Any:
        """The driver's function on a device."""
        functions = driver()
        enter(device)
        with self._lock:
            if device in self._loaded:
                return self._loaded[device]
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
