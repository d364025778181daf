"""A sum along rows, and why its order shows in f32.

    s_i = sum_j x_ij

Adding a million numbers one after another loses digits: the sum is large and each number small. The kernel keeps many
partial sums side by side (it does so for speed) and adds them at the end, which is also more exact. The order is fixed: the
same result every time, for any number of threads.

    python examples/row_sum.py
"""

from __future__ import annotations

import numpy as np

import kdsl as kd


def reference(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64).sum(axis=1)


def one_after_another(x: np.ndarray) -> np.ndarray:
    return np.add.accumulate(x, axis=1)[:, -1]


@kd.kernel
def row_sum(x: kd.f32["R", "N"]):
    return kd.sum(x, axis=1)


def main() -> None:
    x = np.random.default_rng(0).random((4, 1_000_003), np.float32)
    want = reference(x)
    errors = {f.__name__: np.max(np.abs(f(x) / want - 1)) for f in (one_after_another, row_sum)}
    for name, error in errors.items():
        print(f"{name}: relative error {error:.1e}")
    assert errors["row_sum"] < 2e-6 < errors["one_after_another"]
    assert np.array_equal(row_sum(x), row_sum(x))


if __name__ == "__main__":
    main()
