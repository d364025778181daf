"""GPU kernels compiled and kept: the PTX and the cubin of a kernel, from this process, from the disk, or compiled now.

In:  a kernel as source (codegen/cuda/kernels.py), an architecture.  Out: PTX text; Assembled, with what the linker said.
What decides the code is the source, the threads, the architecture, this kdsl and the versions of what compiles; a kernel that
is found needs none of them. Read before: codegen/cuda/kernels.py, kept.py. Read next: pipeline.py.
"""

from __future__ import annotations

import importlib.metadata
from functools import lru_cache

from kdsl import kept
from kdsl.codegen.cuda.assemble import ARCHITECTURES, Assembled, assemble, disassemble
from kdsl.codegen.cuda.kernels import GpuKernel, ptx
from kdsl.errors import TargetError

COMPILERS = ("numba-cuda", "nvidia-nvvm", "nvidia-nvjitlink", "llvmlite")
_known: dict[tuple[str, ...], object] = {}


def ptx_of(kernel: GpuKernel, arch: str) -> str:
    """The PTX module of one kernel."""
    require(arch)
    key = ("ptx", *_key(kernel, arch))
    found = _read(key)
    if not isinstance(found, str):
        found = _compiled(kernel, arch)
        _write(key, found)
    return found


def assembled(kernel: GpuKernel, arch: str) -> Assembled:
    """The cubin of one kernel, with registers, spills and shared memory."""
    require(arch)
    key = ("cubin", *_key(kernel, arch))
    found = _read(key)
    if not isinstance(found, Assembled):
        found = assemble(ptx_of(kernel, arch), kernel.name, arch)
        _write(key, found)
    return found


def sass_of(kernel: GpuKernel, arch: str) -> str:
    """The GPU's own instructions."""
    return disassemble(assembled(kernel, arch))


def require(arch: str) -> None:
    """Refuse what is no architecture that kernels are compiled for."""
    if arch not in ARCHITECTURES:
        raise TargetError(
            f"kernels are not compiled for {arch!r}", facts=(f"there are {', '.join(ARCHITECTURES)}",)
        )


def _compiled(kernel: GpuKernel, arch: str) -> str:
    missing = [name for name in COMPILERS if _version(name) is None]
    if missing:
        raise TargetError(
            f"PTX for {arch} needs {' and '.join(missing)}, which this Python has not",
            hint="pip install 'kdsl[cuda]' brings all that compiles GPU code, and needs no GPU",
        )
    return ptx(kernel, arch)


def _key(kernel: GpuKernel, arch: str) -> tuple[str, ...]:
    kinds = "".join(p.kind[0] for p in kernel.parameters)
    return kernel.source, kernel.name, kinds, str(kernel.threads), arch


def _read(key: tuple[str, ...]) -> object:
    if key not in _known:
        found = kept.read_record(repr((key, *map(_version, COMPILERS))))
        if found is None:
            return None
        _known[key] = found
    return _known[key]


def _write(key: tuple[str, ...], value: object) -> None:
    _known[key] = value
    kept.write(repr((key, *map(_version, COMPILERS))), value)


def versions() -> str:
    """What decides the code beside the source."""
    return repr([*map(_version, COMPILERS)])


@lru_cache
def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
