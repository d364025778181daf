"""All that a GPU is needed for, in one command of under ten minutes: python bench/gpu.py

First the tests marked `gpu`, then bench/gpu_speed.py; the results say device, driver and versions.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
TESTS = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/gpu", "tests/contract"]
SPEED = [sys.executable, "bench/gpu_speed.py"]


def main() -> int:
    """0 where the tests pass and everything was measured."""
    status = 0
    for command, seconds in ((TESTS, 270), (SPEED, 270)):
        try:
            status = max(status, subprocess.run(command, cwd=ROOT, timeout=seconds).returncode)
        except subprocess.TimeoutExpired:
            print(f"{' '.join(command[1:])}: not done in {seconds} s")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
