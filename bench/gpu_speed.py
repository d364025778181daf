"""How fast are kernels on this GPU, against torch and torch.compile in the same run?  python bench/gpu_speed.py

CUDA events around many calls, medians, competitors in turns; inputs are rotated so that they do not lie in the L2 cache.
Results go to bench/results/gpu-NAME.json with device, driver and versions. Wanted ratios are those of the GPU's roofline page.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import kdsl as kd

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from tests.gpu.programs import attention, cross_entropy, gelu, layer_norm, linear, softmax  # noqa: E402

L2_BYTES = 200e6  # more than any cache
ROUNDS = 15


def questions(torch: Any) -> list[tuple[str, Callable[..., Any], Callable[..., Any], list[tuple[Any, ...]], float | None]]:
    """(question, our kernel, torch's, several sets of arguments, wanted ratio to torch)."""
    f = torch.nn.functional

    def sets(*shapes: tuple[int, ...], dtype: Any = torch.float32) -> list[tuple[Any, ...]]:
        bytes = sum(4 * int(np.prod(s)) for s in shapes)
        count = int(L2_BYTES / bytes) + 2
        return [tuple(torch.randn(s, device="cuda", dtype=dtype) for s in shapes) for _ in range(count)]

    def targets(x: Any) -> Any:
        return torch.randint(0, x.shape[1], (x.shape[0],), device="cuda")

    half = torch.bfloat16
    square = lambda n: ((n, n), (n, n))  # noqa: E731
    heads = ((8, 12, 1024, 64),) * 3
    causal = lambda q, k, v: f.scaled_dot_product_attention(q, k, v, is_causal=True)  # noqa: E731
    out = [
        ("gelu 64M", kd.kernel(gelu), f.gelu, sets((1 << 26,)), 1.0),
        ("softmax 8192x4096", kd.kernel(softmax), lambda x: torch.softmax(x, -1), sets((8192, 4096)), 1.0),
        ("layer norm 8192x4096", kd.kernel(layer_norm), lambda x, w, b: f.layer_norm(x, (4096,), w, b),
         sets((8192, 4096), (4096,), (4096,)), 1.0),
        ("cross-entropy 4096x50257", kd.kernel(cross_entropy), f.cross_entropy,
         [(x, targets(x)) for (x,) in sets((4096, 50257))], 1.0),
        ("gelu(x @ w + b) 4096x4096x4096 bf16", kd.kernel(linear), lambda x, w, b: f.gelu(x @ w + b),
         sets((4096, 4096), (4096, 4096), (4096,), dtype=half), 0.75),
        ("matmul 2048 f32", kd.kernel(lambda x, y: x @ y), torch.matmul, sets(*square(2048)), 0.7),
        ("causal attention 8x12x1024x64 bf16", kd.kernel(attention), causal, sets(*heads, dtype=half), 0.8),
    ]  # fmt: skip
    for n in (4096, 8192):
        out.append((f"matmul {n} bf16", kd.kernel(lambda x, y: x @ y), torch.matmul, sets(*square(n), dtype=half), 0.75))
    return out


def time_of(torch: Any, run: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> float:
    """Milliseconds of one call: events around a turn through all sets of arguments."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for a in arguments:
        run(*a)
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / len(arguments)


def main() -> None:
    """Measure, print, keep."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    rows = []
    for question, ours, theirs, arguments, wanted in questions(torch):
        competitors = {"kdsl": ours, "torch": theirs, "torch.compile": torch.compile(theirs)}
        times: dict[str, list[float]] = {name: [] for name in competitors}
        try:
            reference = theirs(*arguments[0]).float()
            error = (ours(*arguments[0]).float() - reference).abs().max() / reference.abs().max()
            assert float(error) < 2e-2, f"the results differ by {float(error)}"
            for turn in range(ROUNDS + 2):
                for name, run in competitors.items():
                    t = time_of(torch, run, arguments)
                    if turn >= 2:
                        times[name].append(t)
        except Exception as mistake:  # one question that fails leaves the others their time
            print(f"{question:40s} {type(mistake).__name__}: {mistake}"[:300])
            rows.append({"question": question, "error": f"{type(mistake).__name__}: {mistake}"})
            continue
        median = {name: statistics.median(ts) for name, ts in times.items()}
        ratios = {name: median[name] / median["kdsl"] for name in ("torch", "torch.compile")}
        print(f"{question:40s} {median['kdsl']:9.4f} ms  " + "  ".join(f"{r:5.2f} of {n}" for n, r in ratios.items()), flush=True)
        rows.append({"question": question, "threads": 1, "median_ms": median, "ratios": ratios, "target": wanted})
    device = torch.cuda.get_device_name()
    query = ["nvidia-smi", "--query-gpu=driver_version,clocks.sm,clocks.mem", "--format=csv,noheader"]
    driver = subprocess.run(query, capture_output=True, text=True).stdout.strip()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT).stdout.strip()
    machine = f"{device}, driver and clocks {driver}, torch {torch.__version__}, CUDA {torch.version.cuda}"
    kept = {"machine": machine, "commit": commit, "numpy": np.__version__, "rows": rows}
    path = ROOT / "bench" / "results" / f"gpu-{device.replace(' ', '-')}.json"
    path.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
