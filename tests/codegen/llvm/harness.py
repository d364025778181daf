"""Runs loop IR on this machine: emits a module, compiles it, calls its kernels one after the other from here.

In:  a Program and argument arrays (named sizes given).  Out: the result arrays. Text of any level is compiled for this CPU,
so that 16-lane text is tested where there is no AVX-512.
"""

import ctypes

import numpy as np

import kdsl.dtypes as dt
from kdsl.codegen.llvm.module import emit_kernels
from kdsl.ir import loops as ir
from kdsl.ir.sizes import ceildiv, evaluate, size
from kdsl.runtime.cpu import load
from kdsl.target import LEVELS, host_level

HOST = LEVELS[host_level()]
ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


def run(program, *arrays, sizes=None, level="x86-64-v3"):
    """The results, each kernel run in one go and in two halves of its grid."""
    known = dict(sizes or {})
    text, names = emit_kernels(program, LEVELS[level])
    library = load(text, HOST)
    memory = {}
    for b in program.buffers:
        shape = tuple(evaluate(n, known) for n in b.shape)
        if b.role == "argument":
            memory[b] = arrays[b.number]
        elif b.role == "constant":
            memory[b] = np.ascontiguousarray(program.constants[b.number])
        else:
            room = int(np.prod(shape)) * b.dtype.bytes
            memory[b] = np.full(room + 1, 0x7F, "u1")[:room].view(b.dtype.numpy).reshape(shape)
    for kernel in program.kernels:
        words = [memory[b].ctypes.data for b in kernel.buffers] + [known[n] for n in kernel.sizes]
        table = (ctypes.c_int64 * max(1, len(words)))(*words)
        count = 1
        for p in ir.grid(kernel):
            count *= max(0, evaluate(ceildiv(p.hi - p.lo, p.tile), known))
        entry = ENTRY(library.address(names[kernel]))
        for lo, hi in ((0, count // 2), (count // 2, count)):
            entry(ctypes.addressof(table), lo, hi)
    return tuple(memory[b] for b in sorted((b for b in program.buffers if b.role == "result"), key=lambda b: b.number))


def elementwise(op, operands, result, n, tile=16, extra=()):
    """A program of one Map over 1-d arguments of the given dtypes, `n` long."""
    buffers = [ir.Buffer(f"x{i}", d, (n,), (1,), "argument", i) for i, d in enumerate(operands)]
    y = ir.Buffer("y", result, (n,), (1,), "result", 0)
    i = size("i")
    loads = [ir.Load(ir.View(b, (i + ir.axis(0),), (True,)), (tile,)) for b in buffers]
    store = ir.Store(
        ir.View(y, (i + ir.axis(0),), (True,)),
        ir.Map(op, (*loads, *extra), result if result in (dt.f16, dt.bf16) and op == "cast" else result.compute),
    )
    kernel = ir.Kernel("map", (*buffers, y), (), (ir.Parallel("i", 0, n, tile, (store,)),))
    return ir.Program("map", (*buffers, y), (kernel,))
