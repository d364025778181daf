"""The emulator as its users see it: load PTX, put arrays into its memory, launch kernels, read the results.

    from kdsl.emulator import Emulator
    gpu = Emulator(ptx)
    x, y = gpu.put(array, "x"), gpu.room(array.nbytes, "y")
    gpu.launch("double", grid=8, threads=128, arguments=[x, y, array.size])
    result = gpu.read(y, array.dtype, array.shape)

In:  PTX text, NumPy arrays.  Out: arrays, or an EmulatorError that says which thread did what at which line.
Read before: kernel.py, wave.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kdsl.emulator import (  # noqa: F401  (they register)
    access,
    atomics,
    barriers,
    bits,
    comparisons,
    conversions,
    copies,
    floating,
    matrix,
    mbarriers,
    warps,
    wgmma,
)  # fmt: skip
from kdsl.emulator.bulk import TensorMap
from kdsl.emulator.counters import Counters
from kdsl.emulator.kernel import Kernel
from kdsl.emulator.memory import Buffer, GlobalMemory
from kdsl.emulator.parse import Module, parse
from kdsl.emulator.races import GridWatch
from kdsl.emulator.wave import Launch, Wave
from kdsl.errors import EmulatorError

LANES = 16384  # threads that run at a time: their registers stay in a core's cache
NEAR_BYTES = 1 << 22  # of shared memory that exist at a time
PATIENCE = 20_000_000  # instructions after which a kernel counts as endless


class Emulator:
    """A GPU on the CPU: memory, loaded modules, launches one after the other.

    `check=False` leaves out the search for races, half of the time; bounds, alignment and unwritten bytes are always checked.
    `count=True` fills `counters` (counters.py).
    """

    def __init__(self, *modules: str, check: bool = True, count: bool = False) -> None:
        self.counters = Counters() if count else None
        self.memory = GlobalMemory()
        self.check = check
        self.modules: list[Module] = []
        self.kernels: dict[str, Kernel] = {}
        self.addresses: dict[tuple[int, str], int] = {}  # of modules' variables: the same after every forget
        for text in modules:
            self.load(text)

    def load(self, ptx: str) -> list[str]:
        """Load a PTX module; the names of its kernels."""
        module = parse(ptx)
        names = [f.name for f in module.functions.values() if f.is_kernel]
        known = {name for m in self.modules for name in m.functions}
        if known & set(names):
            raise EmulatorError(f"{min(known & set(names))} is loaded already", location=False)
        self._place(module)
        self.modules.append(module)
        return names

    def _place(self, module: Module) -> None:
        """Give a module's variables their memory."""
        for v in module.variables:
            if v.space in ("global", "const"):
                buffer = self.memory.room(v.size, v.name)
                self.memory.put(buffer, np.frombuffer(v.initial or bytes(v.size), np.uint8))
                self.addresses[id(module), v.name] = buffer.address

    def forget(self) -> None:
        """Give up all buffers; modules stay loaded, their variables as they were at first."""
        self.memory.forget()
        for module in self.modules:
            self._place(module)

    def kernel(self, name: str) -> Kernel:
        """A loaded kernel, compiled on first use."""
        if name not in self.kernels:
            for module in self.modules:
                if name in module.functions:
                    addresses = {v: a for (m, v), a in self.addresses.items() if m == id(module)}
                    self.kernels[name] = Kernel(module, name, addresses)
                    break
            else:
                raise EmulatorError(f"no loaded module has a kernel {name}", location=False)
        return self.kernels[name]

    def room(self, size: int, name: str = "") -> Buffer:
        """A buffer that nobody has written."""
        return self.memory.room(size, name)

    def put(self, array: Any, name: str = "") -> Buffer:
        """A buffer with a copy of an array, in C order."""
        array = np.asarray(array)
        buffer = self.memory.room(array.nbytes, name)
        self.memory.put(buffer, array)
        return buffer

    def read(self, buffer: Buffer, dtype: Any, shape: Sequence[int]) -> Any:
        """A buffer as a new array; UnwrittenError if a part of it was never written."""
        return self.memory.get(buffer).view(dtype).reshape(shape)

    def tensor_map(
        self,
        tensor: Buffer,
        dtype: Any,
        sizes: Sequence[int],
        box: Sequence[int],
        strides: Sequence[int] | None = None,
        swizzle: int = 0,
    ) -> Buffer:
        """What cuTensorMapEncodeTiled makes, in memory: axis 0 is the innermost, `strides` are the bytes of the others."""
        item = np.dtype(dtype).itemsize
        if strides is None:
            strides = [item * int(np.prod(sizes[: i + 1])) for i in range(len(sizes) - 1)]
        words = self.tensor_map_by_value(TensorMap(tensor.address, item, tuple(sizes), tuple(strides), tuple(box), swizzle))
        return self.put(np.frombuffer(words, np.uint64), "tensor map")

    def tensor_map_by_value(self, tensor_map: TensorMap) -> bytes:
        """The same as the bytes of a parameter."""
        number = len(self.memory.tensor_maps) + 1
        self.memory.tensor_maps[number] = tensor_map
        return np.array([number, *[0] * 15], np.uint64).tobytes()

    def launch(
        self,
        name: str,
        grid: int | Sequence[int],
        threads: int | Sequence[int],
        shared_bytes: int = 0,
        arguments: Sequence[Any] = (),
    ) -> None:
        """Run a kernel to its end. Arguments are buffers, numbers, or bytes for what is passed by value."""
        kernel = self.kernel(name)
        parameters = _pack(kernel, arguments)
        grid_, block = _three(grid), _three(threads)
        count = block[0] * block[1] * block[2]
        if not 0 < count <= (kernel.flat.most_threads or 1024):
            limit = kernel.flat.most_threads or 1024
            raise EmulatorError(f"{name} cannot run with {count} threads a block", facts=f"it takes 1 to {limit}", location=False)
        launch = Launch(grid_, block, shared_bytes, parameters, self.check, self.counters, PATIENCE)
        self.memory.new_launch()
        watch = GridWatch(self.memory.top, kernel.global_granule) if self.check else None
        blocks = grid_[0] * grid_[1] * grid_[2]
        at_once = max(1, min(LANES // count, NEAR_BYTES // max(1, kernel.dynamic_start + shared_bytes)))
        with np.errstate(all="ignore"):
            for first in range(0, blocks, at_once):
                Wave(kernel, launch, first, min(at_once, blocks - first), self.memory, watch).run()
        if self.counters is not None:
            self.counters.add_kernel(kernel)


def _three(size: int | Sequence[int]) -> tuple[int, int, int]:
    sizes = (size,) if isinstance(size, (int, np.integer)) else tuple(size)
    x, y, z = (int(s) for s in (*sizes, *(1,) * (3 - len(sizes))))
    return x, y, z


def _pack(kernel: Kernel, arguments: Sequence[Any]) -> bytes:
    """The parameter memory of a launch."""
    if len(arguments) != len(kernel.parameters):
        raise EmulatorError(
            f"{kernel.flat.name} takes {len(kernel.parameters)} parameters, got {len(arguments)}", location=False
        )
    out = bytearray(kernel.parameter_bytes)
    for (start, size), value in zip(kernel.parameters, arguments):
        if isinstance(value, Buffer):
            value = value.address
        if isinstance(value, bytes):
            raw = value
        elif isinstance(value, np.generic):
            raw = value.tobytes()
        elif isinstance(value, float):
            raw = np.array(value, {4: np.float32, 8: np.float64}[size]).tobytes()
        else:
            raw = (int(value) & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        if len(raw) != size:
            raise EmulatorError(f"a parameter of {kernel.flat.name} has {size} bytes, the argument {len(raw)}", location=False)
        out[start : start + size] = raw
    return bytes(out)
