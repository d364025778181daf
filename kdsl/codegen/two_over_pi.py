"""The bits of 2/pi, with which both targets reduce huge angles (Payne and Hanek, 1983).

In:  nothing.  Out: `two_over_pi()`: the first 1280 bits after the point, as an integer.
Read next: llvm/trigonometry.py, cuda/huge_angles.py.
"""

from __future__ import annotations

BITS, SPARE = 1280, 120  # wanted; computed beyond those


def two_over_pi() -> int:
    """2/pi * 2**1280, cut off; pi by Machin's formula, 16 arctan(1/5) - 4 arctan(1/239)."""
    one = 1 << (BITS + SPARE)

    def arctan_inverse(n: int) -> int:
        total, term, k = 0, one // n, 1
        while term:
            total += term // k if k % 4 == 1 else -(term // k)
            term, k = term // (n * n), k + 2
        return total

    pi = 4 * (4 * arctan_inverse(5) - arctan_inverse(239))
    return ((2 * one * one) // pi) >> SPARE
