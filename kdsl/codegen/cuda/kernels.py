"""A program for a GPU as what launches it needs: for each kernel its source, its threads, its blocks, its parameters.

In:  a scheduled Program (ir/loops.py) for a GPU.  Out: `emit_cuda(program)`, a text that holds its kernels in launch order;
`ptx(kernel, arch)` and `assemble(ptx, arch)` compile one, with no GPU and no driver.
Parameters are the address of each buffer, then each size as an i64, 8 bytes each, then tensor maps of 128. A grid has one
axis: block number b of `blocks` runs iteration b of all Parallel loops, the innermost running fastest, and where there are more
iterations than blocks those that follow by whole grids; no blocks, no launch.
Read before: emit.py. Read next: compile.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from kdsl.codegen.cuda.emit import Emitter
from kdsl.ir import loops as ir
from kdsl.ir.boxes import PIECE, Boxes
from kdsl.ir.sizes import Extent


@dataclass(frozen=True)
class Parameter:
    """`name` of a buffer of the Program ("address"), of a named size ("size"), or of a buffer of which a tensor map is passed,
    128 bytes ("map"): the boxes that the copy engine brings.

    The address of a buffer's first element must be a multiple of `alignment` bytes."""

    name: str
    kind: str  # "address" | "size" | "map"
    alignment: int = 8
    boxes: Boxes | None = None


@dataclass(frozen=True)
class GpuKernel:
    """One launch."""

    name: str
    source: str  # numba.cuda
    threads: int  # of a block
    near_bytes: int  # dynamic shared memory of a block
    blocks: Extent  # in the sizes of the program
    parameters: tuple[Parameter, ...]
    buffers: tuple[ir.Buffer, ...]  # those of the parameters of kind "address", in order


class Source(str):
    """The text of a program's kernels, and the kernels."""

    kernels: tuple[GpuKernel, ...]


def emit_cuda(program: ir.Program) -> Source:
    """The numba.cuda source of a program's kernels, each under the tiles, near memory and arrays that it names."""
    kernels = tuple(map(_kernel, program.kernels))
    out = Source("\n\n".join(k.source for k in kernels) + "\n")
    out.kernels = kernels
    return out


def _kernel(kernel: ir.Kernel) -> GpuKernel:
    emitter = Emitter(kernel)
    parameters = [Parameter(b.name, "address", emitter.alignment(b)) for b in kernel.buffers]
    parameters += [Parameter(s, "size") for s in kernel.sizes]
    parameters += [Parameter(b.memory.name, "map", PIECE, b) for _, b in emitter.maps]
    return GpuKernel(
        emitter.name, emitter.source, emitter.threads, emitter.near_bytes, emitter.blocks, tuple(parameters), kernel.buffers
    )


def ptx(kernel: GpuKernel, arch: str = "sm_80") -> str:
    """The PTX module of one kernel; its entry has the kernel's name. Imports numba-cuda."""
    from kdsl.codegen.cuda.compile import compile_kernel

    kinds = [p.kind for p in kernel.parameters]
    return compile_kernel(kernel.source, kernel.name, kinds, kernel.threads, arch)
