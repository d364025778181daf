"""docs/numerics.md says the tolerances and errors that the tests use."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np

import kdsl as kd
from tests.codegen.llvm.test_functions import BOUNDS
from tests.tolerance import EPSILON, ULPS

PAGE = Path(__file__).parent.parent / "docs" / "numerics.md"


def tolerance_table() -> str:
    """The epsilon of each dtype, and what it makes of one elementwise value and of a sum of 1024 terms."""
    rows = ["| dtype | epsilon | elementwise | sum of 1024 terms |", "|---|---|---|---|"]
    for name, epsilon in EPSILON.items():
        one, many = (epsilon * ULPS * (1 + n**0.5 / 4) for n in (1, 1024))
        rows.append(f"| {name} | 2^{round(-_exponent(epsilon)):d} | {one:.2g} | {many:.2g} |".replace("2^", "2^-"))
    return "\n".join(rows)


def _exponent(epsilon: float) -> int:
    return next(-n for n in range(100) if epsilon == 2.0**-n)


def ulp_table() -> str:
    """The bound of each function for f32 and f64."""
    rows = ["| function | f32 | f64 |", "|---|---|---|"]
    return "\n".join([*rows, *(f"| {op} | {narrow} | {wide} |" for op, (*_, narrow, wide) in BOUNDS.items())])


def test_the_page_holds_the_tables_that_the_tests_use():
    text = PAGE.read_text(encoding="utf-8")
    assert tolerance_table() in text
    assert ulp_table() in text
    assert f"epsilon * {ULPS} * (|x| + scale / 16) * (1 + sqrt(n) / 4)" in text


def test_row_statistics_of_bf16_wait_between_kernels_as_f32():
    """exp(s - m) / sum wants the very m that the sum was made with; rounding it between kernels lost a factor of three."""
    rng = np.random.default_rng(0)

    @kd.kernel
    def attention(q, k, v):
        s = (q @ k.mT) * 3.0
        e = kd.exp(s - kd.max(s, axis=-1, keepdims=True))
        return (e / kd.sum(e, axis=-1, keepdims=True)) @ v

    given = [rng.standard_normal((2, 64, 64)).astype(ml_dtypes.bfloat16) for _ in range(4)]
    exact = attention.vjp(*(x.astype(np.float32) for x in given))
    for short, long in zip(attention.vjp(*given), exact):
        assert np.abs(short.astype(np.float32) - long).max() < 0.01 * np.abs(long).max()
