"""Runs the GPU code of tensor programs in the emulator, kernel after kernel."""

import numpy as np

from kdsl import pipeline
from kdsl.codegen.cuda.kernels import ptx
from kdsl.emulator import Emulator
from kdsl.ir.sizes import evaluate
from kdsl.target import parse_target


def compiled(function, strides=None, arch="sm_80"):
    given = [None] * len(function.parameters) if strides is None else strides
    return pipeline.compile_forward(function, given, parse_target(f"cuda:{arch}"))


def launch(program, kernels, arrays, sizes=None, arch="sm_80", check=True):
    """The results of a scheduled program for C-contiguous arrays."""
    sizes = dict(sizes or {})
    gpu = Emulator(*dict.fromkeys(ptx(k, arch) for k in kernels), check=check)
    memory = {}
    for b in program.buffers:
        shape = tuple(evaluate(n, sizes) for n in b.shape)
        if b.role == "argument":
            memory[b.name] = gpu.put(arrays[b.number], b.name)
        elif b.role == "constant":
            memory[b.name] = gpu.put(np.ascontiguousarray(program.constants[b.number]), b.name)
        else:
            memory[b.name] = gpu.room(int(np.prod(shape)) * b.dtype.bytes, b.name)
    for k in kernels:
        blocks = evaluate(k.blocks, sizes)
        names = [b.name for b in k.buffers]
        arguments = [*(memory[n] for n in names), *(sizes[p.name] for p in k.parameters if p.kind == "size")]
        if blocks:
            gpu.launch(k.name, blocks, k.threads, k.near_bytes, arguments)
    results = sorted((b for b in program.buffers if b.role == "result"), key=lambda b: b.number)
    return [gpu.read(memory[b.name], b.dtype.numpy, [evaluate(n, sizes) for n in b.shape]) for b in results]


def run(function, arrays, sizes=None, **options):
    """The results of a tensor program."""
    c = compiled(function)
    return launch(c.record["scheduled"], c.kernels, arrays, sizes, **options)
