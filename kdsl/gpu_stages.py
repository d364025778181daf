"""The GPU's end of the compiler: schedule, source, code, and what runs it. Imported when a GPU or the emulator is asked for.

In:  a record whose program is grouped.  Out: executables for this machine's GPUs or for the emulator; PTX and SASS as text.
Read before: pipeline.py, which calls it. Read next: schedule/gpu/program.py, codegen/cuda/kernels.py, gpu_code.py.
"""

from __future__ import annotations

from typing import Any

from kdsl import gpu_program, kept
from kdsl.codegen.cuda.kernels import Source, emit_cuda
from kdsl.emulated import Emulated, GpuCode
from kdsl.errors import TargetError
from kdsl.gpu_code import assembled, ptx_of, sass_of, versions
from kdsl.ir.fingerprint import fingerprint
from kdsl.ir.loops import Program
from kdsl.ir.tensor import Function
from kdsl.runtime.call import Executable
from kdsl.schedule.gpu.program import schedule_gpu
from kdsl.target import Target

__all__ = ["assembled", "emulated", "on_gpu", "ptx_of", "sass_of", "schedule_gpu", "source"]
MOST_THREADS = 1024  # of a block, on every architecture
_programs: dict[str, gpu_program.KeptProgram] = {}


def source(program: Program, target: Target) -> Source:
    """The kernels of a scheduled program as text; each within what a block of the target has."""
    out = emit_cuda(program)
    for k in out.kernels:
        if target.near_bytes < k.near_bytes or k.threads > MOST_THREADS:
            raise TargetError(
                f"{k.name} needs {k.near_bytes} bytes of near memory and {k.threads} threads in a block, "
                f"{target.level} has {target.near_bytes} and {MOST_THREADS}",
                location=False,
            )
    return out


def on_gpu(record: Any, source: Function, given: Any) -> Any:
    """The program on this machine's GPUs: from this process, from the disk, or compiled now."""
    key = repr((given, fingerprint(source), record.target, versions()))
    found = _programs.get(key) or gpu_program.read(key)
    if found is None:
        kernels = record["source"].kernels
        codes = [assembled(k, record.target.level).cubin for k in kernels]
        found = gpu_program.describe(record["grouped"], record["scheduled"], kernels, codes, source)
        kept.write(key, found)
    _programs[key] = found
    return gpu_program.executable(found, source)


def emulated(record: Any, source: Function) -> Executable:
    """The program in the emulator."""
    kernels = record["source"].kernels
    code = GpuCode(record["scheduled"], kernels, tuple(ptx_of(k, record.target.level) for k in kernels))
    described = kept.describe(record["grouped"], record["scheduled"], code, source)
    return kept.executable(described, code, source, Emulated)
