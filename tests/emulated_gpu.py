"""A driver whose GPU is kdsl's emulator: everything above the driver runs here, with true numbers, on a machine without a GPU.

In:  what kdsl asks of a driver.  Out: memory, copies, launches of PTX, counts of what was asked for (`counts`).
Addresses are the emulator's: each block ends in a gap, what was freed is outside, what nobody wrote cannot be read.
Everything happens at once, in the order of the calls. A kernel that the emulator refuses ends as a GPU's would: the launch, and
all calls after it until `forget_mistake()`, give an error, whose text is the emulator's.
Read before: runtime/cuda_driver.py, emulator/emulator.py. `emulated_gpu` (conftest.py) is a fixture that installs it.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np

from kdsl import gpu_stages
from kdsl.emulator import Emulator, TensorMap
from kdsl.emulator.memory import ROOM, WRITTEN, Buffer, GlobalMemory
from kdsl.gpu_code import ptx_of
from kdsl.runtime import cuda_driver

CONTEXT, POOL, EVENT = 11, 12, 13


class Attribute(IntEnum):
    """Devices' attributes that kdsl asks for."""

    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76
    CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT = 16
    CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = 97


class Memory(GlobalMemory):
    """The emulator's memory, blocks of which can be given back."""

    def __init__(self) -> None:
        super().__init__(1 << 20)
        self.live: dict[int, Buffer] = {}
        self.free: dict[int, list[Buffer]] = {}  # by their size, rounded up

    def allocate(self, size: int) -> int:
        rounded = -(-size // self.GAP) * self.GAP
        again = self.free.get(rounded)
        if again:
            old = again.pop()
            self.buffers.remove(old)
            buffer = Buffer(old.address, size, old.name)
            self.buffers.append(buffer)
            start = buffer.address - self.BASE
            self.state[start : start + size] = ROOM
        else:
            buffer = self.room(size)
        self.live[buffer.address] = buffer
        return buffer.address

    def release(self, address: int) -> None:
        buffer = self.live.pop(address)
        start = address - self.BASE
        self.state[start : start + buffer.size] = 0
        self.free.setdefault(-(-buffer.size // self.GAP) * self.GAP, []).append(buffer)

    def part(self, address: int, size: int) -> slice:
        """The bytes at an address, all inside one live block."""
        for b in self.live.values():
            if b.address <= address and address + size <= b.address + b.size:
                return slice(address - self.BASE, address - self.BASE + size)
        raise LookupError(f"{size} bytes at {address:#x} lie in no block")


class Driver:
    """The functions of cuda.bindings.driver that kdsl calls; each gives (status, results …)."""

    CUdevice_attribute = Attribute
    CUmemPool_attribute = SimpleNamespace(CU_MEMPOOL_ATTR_RELEASE_THRESHOLD=4)
    CUfunction_attribute = SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8)
    CUmemorytype = SimpleNamespace(CU_MEMORYTYPE_DEVICE=2)
    CUDA_MEMCPY2D = SimpleNamespace
    CUevent_flags = SimpleNamespace(CU_EVENT_DISABLE_TIMING=2)
    CUtensorMapDataType = SimpleNamespace(CU_TENSOR_MAP_DATA_TYPE_FLOAT16=2, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16=2)  # their bytes
    CUtensorMapInterleave = SimpleNamespace(CU_TENSOR_MAP_INTERLEAVE_NONE=0)
    CUtensorMapSwizzle = SimpleNamespace(CU_TENSOR_MAP_SWIZZLE_128B=128)
    CUtensorMapL2promotion = SimpleNamespace(CU_TENSOR_MAP_L2_PROMOTION_L2_256B=3)
    CUtensorMapFloatOOBfill = SimpleNamespace(CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE=0)
    cuuint64_t = cuuint32_t = CUresult = int

    def __init__(self, check: bool = True) -> None:
        self.memory, self.check = Memory(), check
        self.counts: Counter[str] = Counter()
        self.modules: list[Any] = []  # numbers given out for modules and for kernels in them
        self.mistake = ""
        self.current = 0
        self._kept: list[Any] = []
        self._addresses: dict[str, int] = {}

    def forget_mistake(self) -> None:
        self.mistake = ""

    def cuGetProcAddress(self, name, version, flags):
        """A function of C that calls ours."""
        if name not in self._addresses:
            words = {b"cuLaunchKernel": (ctypes.c_void_p, *[ctypes.c_uint] * 7, *[ctypes.c_void_p] * 3)}.get(name)
            kinds = words or {
                b"cuMemAllocFromPoolAsync": (ctypes.POINTER(ctypes.c_uint64), ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p),
                b"cuMemFreeAsync": (ctypes.c_uint64, ctypes.c_void_p),
                b"cuMemsetD32Async": (ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p),
                b"cuCtxGetCurrent": (ctypes.POINTER(ctypes.c_uint64),),
                b"cuCtxSetCurrent": (ctypes.c_uint64,),
            }[name]
            own = getattr(self, name.decode())
            results = 1 if name in (b"cuMemAllocFromPoolAsync", b"cuCtxGetCurrent") else 0

            def called(*arguments):
                status, *found = own(*arguments[results:])
                if results:
                    arguments[0][0] = found[0]
                return status

            function = ctypes.CFUNCTYPE(ctypes.c_int, *kinds)(called)
            self._kept.append(function)
            self._addresses[name] = ctypes.cast(function, ctypes.c_void_p).value
        return 0, self._addresses[name], 0

    # --- devices ----------------------------------------------------------------------------------------------------------------
    def cuInit(self, flags):
        return (0,)

    def cuDeviceGetCount(self):
        return 0, 1

    def cuDeviceGet(self, number):
        return (0, number) if number == 0 else (101, 0)

    def cuDeviceGetAttribute(self, attribute, device):
        return 0, {75: 8, 76: 0, 16: 108, 97: 163 * 1024}[int(attribute)]

    def cuDevicePrimaryCtxRetain(self, device):
        return 0, CONTEXT

    def cuCtxGetCurrent(self):
        return 0, self.current

    def cuCtxSetCurrent(self, context):
        self.current = context
        return (0,)

    def cuGetErrorName(self, status):
        return 0, {2: b"CUDA_ERROR_OUT_OF_MEMORY", 700: b"CUDA_ERROR_ILLEGAL_ADDRESS"}.get(int(status), b"CUDA_ERROR")

    def cuGetErrorString(self, status):
        return 0, (self.mistake or "as the test asked").encode()

    # --- memory -----------------------------------------------------------------------------------------------------------------
    def cuDeviceGetDefaultMemPool(self, device):
        return 0, POOL

    def cuMemPoolSetAttribute(self, pool, attribute, value):
        return (0,)

    def cuMemPoolTrimTo(self, pool, size):
        return (0,)

    def cuMemAllocFromPoolAsync(self, size, pool, stream):
        self.counts["allocations"] += 1
        return 0, self.memory.allocate(int(size))

    def cuMemFreeAsync(self, address, stream):
        self.memory.release(int(address))
        return (0,)

    def cuMemcpyHtoDAsync(self, target, source, size, stream):
        self.counts["to the GPU"] += 1
        part = self.memory.part(int(target), size)
        self.memory.data[part] = np.frombuffer(ctypes.string_at(source, size), np.uint8)
        self.memory.state[part] |= WRITTEN
        return (self._status(),)

    def cuMemcpyDtoHAsync(self, target, source, size, stream):
        self.counts["from the GPU"] += 1
        part = self.memory.part(int(source), size)
        ctypes.memmove(target, self.memory.data[part].tobytes(), size)
        return (self._status(),)

    def cuMemcpyDtoDAsync(self, target, source, size, stream):
        self.counts["on the GPU"] += 1
        self._copy(self.memory.part(int(target), size), self.memory.part(int(source), size))
        return (self._status(),)

    def _copy(self, to: slice, of: slice) -> None:
        self.memory.data[to] = self.memory.data[of].copy()
        self.memory.state[to] = self.memory.state[of].copy()

    def cuMemcpy2DAsync(self, what, stream):
        self.counts["on the GPU"] += 1
        for i in range(what.Height):
            to, of = what.dstDevice + i * what.dstPitch, what.srcDevice + i * what.srcPitch
            self._copy(self.memory.part(to, what.WidthInBytes), self.memory.part(of, what.WidthInBytes))
        return (self._status(),)

    def cuMemsetD32Async(self, target, value, count, stream):
        part = self.memory.part(int(target), 4 * count)
        self.memory.data[part] = np.full(count, value, np.uint32).view(np.uint8)
        self.memory.state[part] |= WRITTEN
        return (self._status(),)

    # --- streams ----------------------------------------------------------------------------------------------------------------
    def cuStreamSynchronize(self, stream):
        self.counts["synchronisations"] += 1
        return (self._status(),)

    def cuEventCreate(self, flags):
        return 0, EVENT

    def cuEventRecord(self, event, stream):
        return (0,)

    def cuStreamWaitEvent(self, stream, event, flags):
        self.counts["waits between streams"] += 1
        return (0,)

    def cuEventDestroy(self, event):
        return (0,)

    # --- code -------------------------------------------------------------------------------------------------------------------
    def cuLibraryLoadData(self, code, *options):
        gpu = Emulator(check=self.check)
        gpu.memory = self.memory
        gpu.load(code.decode())
        return self._number(gpu)

    def cuLibraryGetKernel(self, library, name):
        return self._number((self.modules[library], name.decode()))

    def cuKernelGetFunction(self, kernel):
        return 0, kernel

    def cuKernelSetAttribute(self, attribute, value, kernel, device):
        return (0,)

    def _number(self, thing: Any) -> tuple[int, int]:
        self.modules = self.modules or [None]  # no handle is 0
        self.modules.append(thing)
        return 0, len(self.modules) - 1

    def cuLaunchKernel(self, function, gx, gy, gz, bx, by, bz, near, stream, words, extra):
        self.counts["launches"] += 1
        gpu, name = self.modules[int(function)]
        places = ctypes.cast(words, ctypes.POINTER(ctypes.c_void_p))
        sizes = [size for _, size in gpu.kernel(name).parameters]
        try:
            arguments = [ctypes.string_at(places[i], size) for i, size in enumerate(sizes)]
            if not self.mistake:
                gpu.launch(name, (gx, gy, gz), (bx, by, bz), near, arguments)
        except Exception as error:
            self.mistake = f"{type(error).__name__}: {error}"
        return (0,)  # as on a GPU: the next call that waits says it

    def cuTensorMapEncodeTiled(self, item, axes, address, sizes, strides, box, steps, interleave, swizzle, promotion, fill):
        self.counts["tensor maps"] += 1
        assert len(sizes) == len(box) == axes and steps == [1] * axes and interleave == fill == 0
        gpu = Emulator()
        gpu.memory = self.memory
        made = TensorMap(address, item, tuple(sizes), tuple(strides), tuple(box), swizzle)
        words = ctypes.create_string_buffer(gpu.tensor_map_by_value(made))
        return 0, SimpleNamespace(getPtr=lambda: ctypes.addressof(words))

    def _status(self) -> int:
        return 700 if self.mistake else 0


_driver = Driver()  # one for all tests: kernels keep their handles


@contextmanager
def installed() -> Iterator[Driver]:
    """kdsl finds this driver, and its programs for a GPU are kept as PTX."""
    kept = gpu_stages.assembled, gpu_stages.versions

    def as_ptx(kernel: Any, arch: str) -> Any:
        return SimpleNamespace(cubin=ptx_of(kernel, arch).encode())

    gpu_stages.assembled, gpu_stages.versions = as_ptx, lambda: f"PTX {kept[1]()}"
    cuda_driver.use(_driver)
    try:
        yield _driver
    finally:
        _driver.forget_mistake()
        cuda_driver.use(None)
        gpu_stages.assembled, gpu_stages.versions = kept
