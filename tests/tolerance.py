"""How far numbers may be apart: one table, by dtype and by how many operations stand behind an element.

assert_close(got, expected)                                    elementwise results
assert_close(got, expected, operations=1024)                   sums of 1024 terms
"""

import numpy as np

EPSILON = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}
ULPS = 16  # of headroom for one elementwise chain


def bound(expected, dtype, operations=1, scale=0.0):
    """The largest error allowed for each element: relative to it, to the largest, and to `scale`: what was summed."""
    size = np.abs(expected.astype(np.float64))
    finite = size[np.isfinite(size)]
    scale = max(float(finite.max()) if finite.size else 0.0, scale)
    epsilon = EPSILON[np.dtype(dtype).name]
    own = np.where(np.isfinite(size), size, 0.0)
    return epsilon * ULPS * (own + scale * 2.0**-4 + 1e-30) * (1 + np.sqrt(operations) / 4)


def assert_close(got, expected, dtype=None, operations=1, scale=0.0):
    """Fail, naming the worst index, unless got is within the bound of expected, NaN and infinities at the same places."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape, f"shapes {got.shape} and {expected.shape}"
    dtype = np.dtype(dtype or got.dtype)
    if dtype.name not in EPSILON:
        np.testing.assert_array_equal(got, expected)
        return
    x, y = got.astype(np.float64), expected.astype(np.float64)
    with np.errstate(all="ignore"):
        same = (x == y) | (np.isnan(x) & np.isnan(y))
        error = np.where(same, 0.0, np.abs(x - y))
        limit = bound(y, dtype, operations, scale)
        fine = np.where(np.isfinite(y), error <= limit, same)
    if not np.all(fine):
        excess = np.where(fine, -1.0, np.where(np.isnan(error), np.inf, error / limit))
        worst = np.unravel_index(int(np.argmax(excess)), error.shape)
        raise AssertionError(
            f"{int(np.sum(~fine))} of {fine.size} differ; worst at {tuple(map(int, worst))}: "
            f"{x[worst]!r} instead of {y[worst]!r}, error {error[worst]:.3g} over {limit[worst]:.3g}"
        )
