"""What every benchmark shares: the race.

A benchmark checks its result first, then runs ours and the competitors alternately in one process; what counts is the ratio
of the medians. `KDSL_THREADS` sets the threads of both sides (1 unless said; torch and the BLAS libraries get the same
number), KDSL_BENCH_RECORD=1 writes bench/results/<name>-<threads>.json, KDSL_BENCH_QUICK=1 takes few rounds (to see that the
benchmarks work). docs/performance.md is made from the results by `python bench/report.py`.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

THREADS = int(os.environ.setdefault("KDSL_THREADS", "1"))
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, str(THREADS))

import numpy as np  # noqa: E402
import pytest  # noqa: E402

QUICK = os.environ.get("KDSL_BENCH_QUICK") == "1"
RESULTS = Path(__file__).parent / "results"


def processor() -> str:
    """The processor's name and what it offers of vectors."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    text = info.read_text()
    name = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), "unknown")
    return f"{name} ({'AVX-512' if 'avx512f' in text else 'AVX2' if 'avx2' in text else 'SSE'}, {os.cpu_count()} cores)"


def commit() -> str:
    """The commit that was measured."""
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=Path(__file__).parent)
    return done.stdout.strip() or "unknown"


class Race:
    """Runs functions alternately and compares medians."""

    def __init__(self, benchmark, name: str) -> None:
        self.benchmark, self.name = benchmark, name

    def __call__(
        self,
        question: str,
        ours: Callable[[], object],
        others: dict[str, Callable[[], object]],
        target: float | None = None,
        rounds: int = 15,
        work: str = "",
    ) -> dict[str, float]:
        """Medians in ms by name ("kdsl" is ours); `target` is the ratio other/ours that the project wants against
        the first other.
        """
        functions = {"kdsl": ours, **others}
        times: dict[str, list[float]] = {name: [] for name in functions}
        for f in functions.values():
            f()
        repeat = {name: 1 if QUICK else max(1, min(2000, int(2e-3 / max(once(f), 1e-7)))) for name, f in functions.items()}
        for _ in range(2 if QUICK else rounds):
            for name, f in functions.items():
                f()
                start = time.perf_counter()
                for _ in range(repeat[name]):
                    f()
                times[name].append((time.perf_counter() - start) / repeat[name] * 1e3)
        medians = {name: statistics.median(t) for name, t in times.items()}
        ratios = {name: medians[name] / medians["kdsl"] for name in others}
        row = {
            "question": question, "work": work, "threads": THREADS, "target": target,
            "median_ms": medians, "lowest_ms": {n: min(t) for n, t in times.items()}, "ratios": ratios,
        }  # fmt: skip
        self.benchmark.extra_info.update(row)
        self.benchmark.pedantic(ours, rounds=2, iterations=1)
        print(
            f"\n{question}: "
            + ", ".join(f"{n} {m:.3f} ms" for n, m in medians.items())
            + "; ratios "
            + ", ".join(f"{n} {r:.2f}" for n, r in ratios.items())
        )
        record(self.name, row)
        return ratios


def once(f: Callable[[], object]) -> float:
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def record(name: str, row: dict) -> None:
    """Keep one measurement in bench/results (only when asked to)."""
    if os.environ.get("KDSL_BENCH_RECORD") != "1" or QUICK:
        return
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{THREADS}.json"
    kept = json.loads(path.read_text()) if path.exists() else {"rows": []}
    kept["machine"], kept["commit"], kept["numpy"] = processor(), commit(), np.__version__
    kept["rows"] = [r for r in kept["rows"] if r["question"] != row["question"]] + [row]
    path.write_text(json.dumps(kept, indent=1) + "\n")


@pytest.fixture
def race(benchmark, request):
    return Race(benchmark, request.path.stem.removeprefix("bench_"))


@pytest.fixture(scope="session")
def torch():
    torch = pytest.importorskip("torch")
    torch.set_num_threads(THREADS)
    return torch


@pytest.fixture
def array():
    rng = np.random.default_rng(0)
    return lambda *shape: rng.standard_normal(shape, np.float32)
