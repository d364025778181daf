"""kd.doctor(): what kdsl finds on this machine, one line each, with the way out where something is missing.

In:  nothing.  Out: lines of text. Read next: target.py, runtime/cpu.py.
"""

from __future__ import annotations

import importlib.util
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
    for name, use in (
        ("numpy", "arrays"),
        ("llvmlite", "machine code for the CPU"),
        ("ml_dtypes", "bf16"),
        ("numba_cuda", "GPU code"),
    ):
        found = importlib.util.find_spec("numba" if name == "numba_cuda" else name) is not None
        lines.append(f"{name}: {'found' if found else 'missing'} ({use})")
    return lines
