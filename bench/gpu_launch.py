"""What a launch costs the host, over a driver that does nothing: python bench/gpu_launch.py

Builds tests/runtime/stub's libcuda with gcc and runs itself over it, so that only our own time is seen; a real driver adds two
to three microseconds. Printed: a launch by native code, the general way, a call of a kernel on kd.Arrays (new results, `out=`),
a program of many products, a pullback.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent
MANY = 20  # products of the program of many kernels


def best(f: Callable[[], object], repeats: int = 7, number: int = 3000) -> float:
    """Microseconds of this thread for one call, whoever else uses the machine."""
    found = []
    for _ in range(repeats):
        start = time.thread_time()
        for _ in range(number):
            f()
        found.append((time.thread_time() - start) / number * 1e6)
    return min(found)


def measure() -> None:
    """The numbers, in the process whose libcuda does nothing."""
    import numpy as np

    import kdsl as kd

    f = kd.kernel(lambda x, y: x * 2 + y)
    x, y = (kd.asarray(np.ones(1000, "f4"), device="cuda") for _ in range(2))
    out = f(x, y)
    executable = f.specialise(f.read((x, y), {})).program.executable
    plan = executable.plan(0, {}, ())
    table = plan.table()
    for name, array in zip(executable.places, (x, y, out)):
        table.words[plan.at[name]] = array.data.address
    print(f"launch              {best(lambda: plan.try_run(table, 0, False)):6.2f} us")
    print(f"executable          {best(lambda: executable([x.data, y.data])):6.2f} us")
    print(f"call                {best(lambda: f(x, y)):6.2f} us")
    print(f"call with out=      {best(lambda: f(x, y, out=out)):6.2f} us")
    w = [kd.asarray(np.ones((64, 64), "f4"), device="cuda") for _ in range(MANY + 1)]
    chain = kd.kernel(lambda *w: functools.reduce(lambda a, b: kd.exp(a @ b), w))
    chain(*w)
    count = len(chain.specialise(chain.read(w, {})).program.executable.launches)
    print(f"{count:2} products          {best(lambda: chain(*w), number=500) / count:6.2f} us a launch")
    _, pull = f.pullback(x, y)
    pull(out)
    print(f"pullback            {best(lambda: f.pullback(x, y)):6.2f} us, backward {best(lambda: pull(out)):6.2f} us")


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
