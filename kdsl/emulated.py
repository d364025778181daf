"""A program for a GPU, run on the CPU: its kernels one after the other in the emulator, with memory that is new for each call.

In:  a scheduled Program, its kernels (codegen/cuda/kernels.py) and the PTX of each.  Out: Emulated, which is called like every
Executable: arguments are copied in, results are copied out, and a mistake in the GPU code is an EmulatorError.
Read before: runtime/call.py, emulator/emulator.py, kept.py. Read next: pipeline.py.
"""

from __future__ import annotations

import hashlib
import linecache
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from kdsl.emulator import Buffer, Emulator, TensorMap
from kdsl.ir.loops import Program
from kdsl.ir.sizes import Extent, evaluate
from kdsl.runtime.call import Executable


@dataclass(frozen=True)
class GpuCode:
    """What stands where a CPU's program has its library."""

    program: Program
    kernels: tuple[Any, ...]  # codegen/cuda/kernels.py: name, threads, near_bytes, blocks, parameters
    modules: tuple[str, ...]  # the PTX of each

    @cached_property
    def key(self) -> str:
        return hashlib.sha256("".join(self.modules).encode()).hexdigest()

    @cached_property
    def lock(self) -> Any:
        return threading.Lock()

    @cached_property
    def gpu(self) -> Emulator:
        """The emulator with all kernels loaded."""
        return Emulator(*dict.fromkeys(self.modules))


class Emulated(Executable):
    """A program whose machine is the emulator; `library` is its GpuCode."""

    is_native = False

    def result_shapes(self, words: Any) -> list[tuple[int, ...]]:
        values = dict(zip(self.sizes, words))
        results = sorted((b for b in self.library.program.buffers if b.role == "result"), key=lambda b: b.number)
        return [_shape(b.shape, values) for b in results]

    def _run(self, inputs: Sequence[Any], results: Sequence[Any], words: Any) -> None:
        code: GpuCode = self.library
        values = dict(zip(self.sizes, words))
        with code.lock:
            gpu = code.gpu
            for k in code.kernels:  # for the lines in messages
                file = f"<kdsl cuda {k.name}>"
                linecache.cache[file] = (len(k.source), None, k.source.splitlines(keepends=True), file)
            gpu.forget()
            places = {b.name: self._place(gpu, b, inputs, values) for b in code.program.buffers}
            for kernel in code.kernels:
                blocks = evaluate(kernel.blocks, values)
                if blocks:
                    addresses = {name: address for name, (_, address) in places.items()}
                    arguments = [argument(gpu, p, addresses, values) for p in kernel.parameters]
                    gpu.launch(kernel.name, blocks, kernel.threads, kernel.near_bytes, arguments)
            for b in code.program.buffers:
                if b.role == "result":
                    target = results[b.number]
                    target[...] = gpu.read(places[b.name][0], target.dtype, target.shape)

    def _place(self, gpu: Emulator, b: Any, inputs: Sequence[Any], values: Mapping[str, int]) -> tuple[Buffer, int]:
        """A buffer of the program in the emulator's memory, and the address of its first element."""
        if b.role == "argument":
            return gpu.memory.put_array(inputs[b.number], b.name)
        if b.role == "constant":
            return gpu.memory.put_array(self.constants[b.number], b.name)
        size = int(np.prod(_shape(b.shape, values), dtype=np.int64)) * b.dtype.bytes
        place = gpu.room(size, b.name)
        return place, place.address


def argument(gpu: Emulator, parameter: Any, addresses: Mapping[str, int], sizes: Mapping[str, int]) -> int | bytes:
    """What a launch passes for a parameter (codegen/cuda/kernels.py), given where buffers lie and the named sizes."""
    if parameter.kind == "size":
        return sizes[parameter.name]
    address = addresses[parameter.name]
    if parameter.kind == "address":
        return address
    b = parameter.boxes
    item = b.dtype.bytes
    shape, strides = _shape(b.shape, sizes), _shape(b.strides, sizes)
    steps = tuple(item * s for s in reversed(strides[:-1]))
    return gpu.tensor_map_by_value(TensorMap(address, item, shape[::-1], steps, b.box[::-1], b.box[-1] * item))


def _shape(extents: Sequence[Extent], values: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(evaluate(n, values) for n in extents)
