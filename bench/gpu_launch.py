"""What a launch costs the host, over a driver that does nothing: python bench/gpu_launch.py

Builds tests/runtime/stub's libcuda with gcc and runs itself over it, so that only our own time is seen; a real driver adds two
to three microseconds. Printed: a bare launch, a call of a kernel on device arrays, reading torch's pointer is not in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent


def best(f: Callable[[], object], repeats: int = 7, number: int = 3000) -> float:
    """Microseconds of one call."""
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(number):
            f()
        found.append((time.perf_counter() - start) / number * 1e6)
    return min(found)


def measure() -> None:
    """The numbers, in the process whose libcuda does nothing."""
    import numpy as np

    import kdsl as kd

    f = kd.kernel(lambda x, y: x * 2 + y)
    x, y = (kd.asarray(np.ones(1000, "f4"), device="cuda") for _ in range(2))
    out = f(x, y)
    executable = f.specialise(f.read((x, y), {})).program.executable
    (launch,) = executable.launches
    words = [x.data.address, y.data.address, out.data.address]
    print(f"launch        {best(lambda: launch.function.launch(0, 0, 8, words)):6.2f} us")
    print(f"executable    {best(lambda: executable([x.data, y.data])):6.2f} us")
    print(f"call          {best(lambda: f(x, y)):6.2f} us")


def main() -> None:
    """Build the driver and run `measure` over it."""
    if len(sys.argv) > 1:
        measure()
        return
    with tempfile.TemporaryDirectory() as folder:
        source = ROOT / "tests" / "runtime" / "stub" / "driver.c"
        subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-w", "-o", f"{folder}/libcuda.so.1", str(source), "-ldl"], check=True)
        environment = {**os.environ, "LD_LIBRARY_PATH": folder, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, __file__, "here"], env=environment, check=True)


if __name__ == "__main__":
    main()
