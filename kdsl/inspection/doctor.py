"""kd.doctor(): what kdsl finds on this machine, one line each, with the way out where something is missing.

In:  nothing.  Out: lines of text. Read next: target.py, runtime/cpu.py.
"""

from __future__ import annotations

import os
import platform

from kdsl.target import LEVELS, default_target, host_level


def doctor() -> list[str]:
    """What kdsl finds on this machine, a line each. Example: `kd.doctor()`."""
    level = LEVELS[host_level()]
    lines = [
        f"CPU: {platform.processor() or platform.machine()}, {os.cpu_count()} cores, level {level.level}",
        f"target: {default_target()} (KDSL_TARGET changes it)",
        f"threads: {os.environ.get('KDSL_THREADS') or os.cpu_count()} (KDSL_THREADS changes it)",
        f"cache: {os.environ.get('KDSL_CACHE_DIR') or 'the default folder'} (KDSL_CACHE_DIR changes it)",
    ]
    for name, use in (("numpy", "arrays"), ("llvmlite", "machine code for the CPU"), ("ml_dtypes", "bf16")):
        lines.append(f"{name}: {'found' if _version(name) else 'missing'} ({use})")
    return lines + [_gpu_line(*piece) for piece in GPU_PIECES]


CUDA_EXTRA = "pip install 'kdsl[cuda]'"
GPU_PIECES = (  # distribution, what it is for, how to get it
    ("numba-cuda", "PTX from generated kernels; no GPU needed", CUDA_EXTRA),
    ("nvidia-nvvm", "PTX from generated kernels; no GPU needed", CUDA_EXTRA),
    ("nvidia-nvjitlink", "code for a GPU from PTX: registers, spills; no GPU needed", CUDA_EXTRA),
    ("cuda-bindings", "launches; f.sass and cubins", CUDA_EXTRA),
    ("cuda-core", "memory of a GPU", CUDA_EXTRA),
    ("nvidia-cuda-nvdisasm", "f.sass", CUDA_EXTRA),
)


def _gpu_line(name: str, use: str, way: str) -> str:
    version = _version(name)
    return f"{name}: {version} ({use})" if version else f"{name}: missing ({use}); {way} brings it"


def _version(name: str) -> str | None:
    import importlib.metadata  # `import kdsl` does not pay for it

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
