"""PTX to a GPU's own code, and what the linker says of it: registers, spills, shared memory.

In:  PTX text of one kernel, architecture.  Out: Assembled; `disassemble` gives its SASS.
nvJitLink does the work: no GPU, no driver.
Read before: compile.py. Read next: kdsl/gpu_code.py.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass

from kdsl.errors import TargetError

ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_90a", "sm_100", "sm_100a", "sm_120")
INSTALL = "pip install 'kdsl[cuda]' brings it"


@dataclass(frozen=True)
class Assembled:
    """One kernel for one architecture."""

    name: str
    arch: str
    cubin: bytes
    registers: int  # of a thread
    spill_bytes: int  # stored to and loaded from local memory, of a thread
    stack_bytes: int
    near_bytes: int  # of shared memory that is part of the code; what a launch adds comes on top


def assemble(ptx: str, name: str, arch: str) -> Assembled:
    """Link the PTX of one kernel."""
    try:
        from cuda.bindings import nvjitlink
    except ImportError as error:
        raise TargetError("cubins are made by nvJitLink, which is not installed", hint=INSTALL) from error
    options = [f"-arch={arch}", "-verbose"]
    try:
        handle = nvjitlink.create(len(options), options)
    except Exception as error:
        raise TargetError(f"nvJitLink cannot start for {arch}: {error}", hint=INSTALL) from error
    try:
        data = ptx.encode()
        try:
            nvjitlink.add_data(handle, nvjitlink.InputType.PTX, data, len(data), name)
            nvjitlink.complete(handle)
        except Exception as error:
            log = _log(nvjitlink.get_error_log_size, nvjitlink.get_error_log, handle)
            raise ValueError(f"nvJitLink refuses the PTX of {name} for {arch}: {log}") from error
        cubin = bytearray(nvjitlink.get_linked_cubin_size(handle))
        nvjitlink.get_linked_cubin(handle, cubin)
        log = _log(nvjitlink.get_info_log_size, nvjitlink.get_info_log, handle)
    finally:
        nvjitlink.destroy(handle)
    return Assembled(name, arch, bytes(cubin), *facts(log))


def _log(size: object, get: object, handle: int) -> str:
    text = bytearray(size(handle))  # type: ignore[operator]
    get(handle, text)  # type: ignore[operator]
    return text.decode(errors="replace").rstrip("\x00")


def facts(log: str) -> tuple[int, int, int, int]:
    """Registers, bytes spilled, bytes of stack, bytes of shared memory, as the linker's log has them."""

    def number(pattern: str) -> int:
        found = re.search(pattern, log)
        if found is None:
            raise ValueError(f"the linker's log does not say {pattern!r}: {log}")
        return int(found.group(1))

    spills = number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads")
    near = re.search(r"(\d+) bytes smem", log)
    return number(r"Used (\d+) registers"), spills, number(r"(\d+) bytes stack frame"), int(near.group(1)) if near else 0


def disassemble(assembled: Assembled) -> str:
    """The SASS of a kernel, by nvdisasm."""
    tool = find_nvdisasm()
    if tool is None:
        raise TargetError(
            "SASS is shown by nvdisasm, which is not installed", hint="pip install nvidia-cuda-nvdisasm brings it"
        )
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(assembled.cubin)
        file.flush()
        done = subprocess.run([tool, "-c", file.name], capture_output=True, text=True)
    if done.returncode:
        raise TargetError(f"nvdisasm cannot read the code of {assembled.name} for {assembled.arch}: {done.stderr.strip()}")
    return done.stdout


def find_nvdisasm() -> str | None:
    """Where nvdisasm is: among Python's packages, in a toolkit, or on the path."""
    import shutil

    try:
        from cuda.pathfinder import find_nvidia_binary_utility
    except ImportError:
        return shutil.which("nvdisasm")
    return find_nvidia_binary_utility("nvdisasm") or shutil.which("nvdisasm")
