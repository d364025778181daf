"""Runs a scheduled program as a GPU would: its source compiled to PTX, its PTX in the emulator, bounds and races checked."""

from math import prod

from kdsl.codegen.cuda.kernels import emit_cuda, ptx
from kdsl.emulated import argument
from kdsl.emulator import Emulator
from kdsl.ir.sizes import evaluate


def emulated(p, arrays, sizes=None, arch="sm_80", check=True):
    """The results of a program on contiguous arguments."""
    sizes = sizes or {}
    gpu = Emulator(check=check)
    place = {}
    for buffer in p.buffers:
        shape = tuple(evaluate(n, sizes) for n in buffer.shape)
        if buffer.role == "argument":
            place[buffer] = gpu.put(arrays[buffer.number], buffer.name)
        else:
            place[buffer] = gpu.room(prod(shape) * buffer.dtype.bytes, buffer.name)
    kernels = emit_cuda(p).kernels
    for kernel in kernels:
        gpu.load(ptx(kernel, arch))
        blocks = evaluate(kernel.blocks, sizes)
        if blocks:
            at = {b.name: there.address for b, there in place.items()}
            given = [argument(gpu, q, at, sizes) for q in kernel.parameters]
            gpu.launch(kernel.name, blocks, kernel.threads, kernel.near_bytes, given)
    results = sorted((b for b in p.buffers if b.role == "result"), key=lambda b: b.number)
    return [gpu.read(place[b], b.dtype.numpy, tuple(evaluate(n, sizes) for n in b.shape)) for b in results]
