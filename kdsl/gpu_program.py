"""Programs for a GPU as a later process finds them: code, blocks and parameters of each kernel, and the memory they use.

In:  a key, or a scheduled program with the code of its kernels.  Out: an executable that runs on this machine's GPUs.
A program that is found on disk needs neither numba nor anything of the compiler.
Read before: kept.py, runtime/cuda_call.py. Read next: pipeline.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from kdsl import kept
from kdsl.dtypes import BY_NAME
from kdsl.ir.frame import Grouping
from kdsl.ir.loops import Program
from kdsl.ir.sizes import Extent, Size, evaluate
from kdsl.ir.tensor import Function
from kdsl.runtime.cuda_call import GpuExecutable
from kdsl.runtime.cuda_launch import GpuFunction
from kdsl.runtime.cuda_maps import Boxes
from kdsl.runtime.cuda_plan import Launch, Parameter, Place

Shape = tuple[Extent, ...]
Map = tuple[str, str, Shape, Shape, tuple[int, ...]]  # name of memory, dtype, shape, strides, box


@dataclass(frozen=True)
class KeptKernel:
    """One launch: plain data."""

    name: str
    code: bytes  # a cubin
    threads: int
    near_bytes: int
    blocks: Extent
    parameters: tuple[tuple[str, str, int], ...]  # name, "address" | "size", alignment
    maps: tuple[Map, ...]  # passed behind these


@dataclass(frozen=True)
class KeptProgram:
    """A program: how it is called (kept.py), its kernels in order, its memory."""

    call: kept.Kept
    kernels: tuple[KeptKernel, ...]
    memory: tuple[tuple[str, str, int, str, tuple[Extent, ...]], ...]  # name, role, number, dtype, shape


def describe(
    grouping: Grouping, loops: Program, kernels: Sequence[Any], codes: Sequence[bytes], source: Function
) -> KeptProgram:
    """What to keep of a program; `kernels` are codegen/cuda/kernels.py's records, `codes` what was made of each."""
    return KeptProgram(
        kept.describe(grouping, loops, SimpleNamespace(key=""), source),
        tuple(
            KeptKernel(
                k.name, code, k.threads, k.near_bytes, k.blocks,
                tuple((p.name, p.kind, p.alignment) for p in k.parameters if p.boxes is None),
                tuple(_map(p.boxes) for p in k.parameters if p.boxes is not None),
            )
            for k, code in zip(kernels, codes, strict=True)
        ),
        tuple((b.name, b.role, b.number, b.dtype.name, tuple(b.shape)) for b in loops.buffers),
    )


def executable(program: KeptProgram, source: Function) -> GpuExecutable:
    """The program ready to run; its code is loaded with the first call."""
    alike: dict[bytes, GpuFunction] = {}
    launches = []
    for k in program.kernels:
        function = alike.setdefault(k.code, GpuFunction(k.name, k.code, k.threads, k.near_bytes))
        maps = tuple((name, Boxes(dtype, _shape(shape), _shape(strides), box)) for name, dtype, shape, strides, box in k.maps)
        launches.append(Launch(function, _number(k.blocks), tuple(Parameter(*p) for p in k.parameters), maps))
    places = [Place(name, role, number, BY_NAME[dtype], _shape(shape)) for name, role, number, dtype, shape in program.memory]

    def made(_: Any, arguments: Any, results: Any, sizes: Any, constants: Any, checks: Any, *others: Any) -> Any:
        return GpuExecutable(launches, places, arguments, results, sizes, constants, checks)

    out: GpuExecutable = kept.executable(program.call, None, source, made)
    return out


def read(key: str) -> KeptProgram | None:
    """The program under this key, or None."""
    found = kept.read_record(key)
    return found if isinstance(found, KeptProgram) else None


def _map(boxes: Any) -> Map:
    return boxes.memory.name, boxes.dtype.name, boxes.shape, boxes.strides, boxes.box


def _number(extent: Extent) -> Callable[[Mapping[str, int]], int]:
    if isinstance(extent, Size):
        return lambda sizes: evaluate(extent, sizes)
    return lambda sizes: extent


def _shape(extents: tuple[Extent, ...]) -> Callable[[Mapping[str, int]], tuple[int, ...]]:
    if any(isinstance(n, Size) for n in extents):
        return lambda sizes: tuple(evaluate(n, sizes) for n in extents)
    return lambda sizes: extents  # type: ignore[return-value]
