"""Runs a program for a GPU on the emulator: its kernels' PTX, one launch after the other, in the memory that it describes.

In:  a scheduled Program (ir/loops.py), its arguments with any strides, values of named sizes.  Out: its results.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from kdsl.codegen.cuda.kernels import GpuKernel, emit_cuda, ptx
from kdsl.emulator import Buffer, Emulator
from kdsl.ir import loops as ir
from kdsl.ir.sizes import Size, evaluate

ARCH = "sm_80"


@functools.cache
def compiled(kernel: GpuKernel) -> str:
    return ptx(kernel, ARCH)


def run(program: ir.Program, *arrays: Any, sizes: Mapping[str, int] | None = None, check: bool = True) -> tuple[np.ndarray, ...]:
    """The results of a program in the order of their numbers."""
    gpu = Emulator(check=check)
    known = dict(sizes or {})
    arguments = sorted((b for b in program.buffers if b.role == "argument"), key=lambda b: b.number)
    arrays = tuple(map(np.asarray, arrays))
    for buffer, array in zip(arguments, arrays, strict=True):
        strides = [s // array.itemsize for s in array.strides]
        for extent, n in (*zip(buffer.shape, array.shape, strict=True), *zip(buffer.strides, strides, strict=True)):
            if isinstance(extent, Size) and str(extent).replace(".", "").isidentifier():
                known.setdefault(str(extent), n)
    places: dict[str, tuple[Buffer, int]] = {}  # memory, and the address of the first element
    for b in program.buffers:
        given = {"argument": arrays, "constant": program.constants}.get(b.role)
        shape = tuple(evaluate(n, known) for n in b.shape)
        if given is None:
            memory = gpu.room(max(1, int(np.prod(shape)) * b.dtype.bytes), b.name)
            places[b.name] = memory, memory.address
        else:
            places[b.name] = _put(gpu, np.asarray(given[b.number]), b)
    for kernel in emit_cuda(program).kernels:
        blocks = evaluate(kernel.blocks, known)
        if not blocks:
            continue
        gpu.load(compiled(kernel))
        words = [places[p.name][1] if p.kind == "address" else known[p.name] for p in kernel.parameters]
        for p, word in zip(kernel.parameters, words, strict=True):
            assert p.kind == "size" or word % p.alignment == 0, f"{p.name} lies at {word}, not a multiple of {p.alignment}"
        gpu.launch(kernel.name, blocks, kernel.threads, kernel.near_bytes, words)
    results = sorted((b for b in program.buffers if b.role == "result"), key=lambda b: b.number)
    return tuple(_read(gpu, places[b.name][0], b, known) for b in results)


def _put(gpu: Emulator, array: np.ndarray, b: ir.Buffer) -> tuple[Buffer, int]:
    """An array under its own strides: all memory between its first and last byte."""
    if array.size == 0 or array.flags.c_contiguous:
        memory = gpu.put(array, b.name) if array.nbytes else gpu.room(1, b.name)
        return memory, memory.address
    reach = [(n - 1) * s for n, s in zip(array.shape, array.strides, strict=True)]
    low, high = sum(r for r in reach if r < 0), sum(r for r in reach if r > 0) + array.itemsize
    bytes_ = np.zeros(high - low, np.uint8)
    flat = bytes_[-low:].view()
    start = flat[: array.itemsize].view(array.dtype)
    np.lib.stride_tricks.as_strided(start, array.shape, array.strides)[...] = array
    memory = gpu.put(bytes_, b.name)
    return memory, memory.address - low


def _read(gpu: Emulator, memory: Buffer, b: ir.Buffer, known: Mapping[str, int]) -> np.ndarray:
    shape = tuple(evaluate(n, known) for n in b.shape)
    if 0 in shape:
        return np.zeros(shape, b.dtype.numpy)
    return gpu.read(memory, b.dtype.numpy, shape)
