"""The CUDA driver: found when it is first needed, its errors as kdsl's.

In:  nothing.  Out: `driver()`, the functions of cuda.bindings; `call(function, …)`, which raises what went wrong;
`enter(device)`, after which this thread's calls go to that device; `level(device)`, the architecture to compile for.
Nothing of CUDA is imported before: a machine without a GPU pays nothing.
Read next: runtime/cuda_memory.py.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from kdsl.errors import DeviceError, KdslError, TargetError

HINT = "install the driver of NVIDIA and `pip install 'kdsl[cuda]'`, or use target='cpu' or target='emulator'"
VERSION = 12000  # of the interface whose functions native code calls
OUT_OF_MEMORY = "CUDA_ERROR_OUT_OF_MEMORY"


class DeviceMemoryError(DeviceError, MemoryError):
    """A GPU has no memory left for what a call needs. Nothing else is lost: the process goes on."""


@lru_cache
def driver() -> Any:
    """The driver's functions; a TargetError that says what is missing where there is no GPU to run on."""
    reason = missing()
    if reason is not None:
        raise TargetError(f"no GPU can be used here: {reason}", hint=HINT, location=False)
    return _functions()


def _functions() -> Any:
    if _given is not None:
        return _given
    from cuda.bindings import driver as functions

    return functions


_given: Any = None


def use(functions: Any) -> None:
    """Call these functions from now on, for tests of what lies above the driver; None: the machine's own driver."""
    global _given
    _given = functions
    for found in (driver, missing, attribute):
        found.cache_clear()
    _contexts.clear()


def present() -> None:
    """A DeviceError where this machine has no GPU that an array may lie on."""
    if missing() is not None:
        raise DeviceError(f"an array cannot lie on a GPU here: {missing()}", hint=HINT, location=False)


@lru_cache
def missing() -> str | None:
    """Why no GPU can be used on this machine; None where one can."""
    try:
        functions = _functions()
    except ImportError:
        return "the package cuda-bindings is not installed"
    try:
        status = functions.cuInit(0)[0]
    except RuntimeError as error:  # the library libcuda is not there
        return str(error).strip().splitlines()[0]
    if int(status):
        return f"the driver says {_name(functions, status)}"
    status, count = functions.cuDeviceGetCount()
    return None if not int(status) and count else "the driver knows no device"


def _name(functions: Any, status: Any) -> str:
    found = functions.cuGetErrorName(status)
    return found[1].decode() if not int(found[0]) and found[1] else str(status)


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of the driver gives beside its status; the status as an error."""
    status, *results = function(*arguments)
    if int(status):
        raise mistake(status, function.__name__)
    return results[0] if len(results) == 1 else tuple(results)


def mistake(status: Any, what: str) -> KdslError:
    """A status of the driver in words."""
    functions = driver()
    status = functions.CUresult(status)
    name = _name(functions, status)
    found = functions.cuGetErrorString(status)
    text = found[1].decode() if not int(found[0]) and found[1] else "no explanation"
    if name == OUT_OF_MEMORY:
        return DeviceMemoryError("the GPU has not enough free memory for this call", facts=f"{what}: {text}", location=False)
    return DeviceError(f"the GPU reports {name}: {text}", facts=f"in {what}", location=False)


# --- devices ------------------------------------------------------------------------------------------------------------------
_contexts: dict[int, Any] = {}
_lock = threading.Lock()


def enter(device: int) -> None:
    """Make the device's primary context, which other libraries use too, the one of this thread."""
    functions, wanted = driver(), context(device)
    status, current = functions.cuCtxGetCurrent()
    if int(status) or int(current) != int(wanted):
        call(functions.cuCtxSetCurrent, wanted)


def context(device: int) -> Any:
    """A device's primary context."""
    functions = driver()
    found = _contexts.get(device)
    if found is None:
        with _lock:
            handle = call(functions.cuDeviceGet, device)
            found = _contexts[device] = call(functions.cuDevicePrimaryCtxRetain, handle)
    return found


def address(name: str) -> int:
    """Where a function of the driver starts, for native code."""
    return int(call(driver().cuGetProcAddress, name.encode(), VERSION, 0)[0])


@lru_cache
def attribute(device: int, name: str) -> int:
    """A device's attribute by the driver's name without its prefix."""
    functions = driver()
    key = getattr(functions.CUdevice_attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
    return int(call(functions.cuDeviceGetAttribute, key, call(functions.cuDeviceGet, device)))


def level(device: int = 0) -> str:
    """The architecture of a device, as `sm_80`; with what only this one architecture has, where it has such: `sm_90a`."""
    major, minor = (attribute(device, f"COMPUTE_CAPABILITY_{part}") for part in ("MAJOR", "MINOR"))
    return f"sm_{major}{minor}{'a' if major >= 9 else ''}"
