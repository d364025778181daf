"""What numbers do where NumPy leaves it open: wrapping integers, total division and shifts, casts, Philox.

In:  NumPy arrays of one dtype.  Out: NumPy arrays. ir/meaning.py builds the meaning of every op on these.
The same rules hold on every target (a division by zero gives 0, a cast saturates), so constant folding is always exact.
Read next: ir/meaning.py.
"""

from __future__ import annotations

import math

import numpy as np

from kdsl.dtypes import DType
from kdsl.ir.tensor import Literal


def canonical(value: Literal, dtype: DType) -> Literal:
    """The Python number that `value` is when it is meant in `dtype`: integers wrap, floats stay as they are."""
    if dtype.kind == "bool":
        return bool(value)
    if dtype.is_floating:
        return float(value)
    return integer_literal(value, dtype)


def integer_literal(value: Literal, dtype: DType) -> int:
    """`value` wrapped to an integer type; a float is truncated and saturates, NaN gives 0."""
    low, high = limits(dtype)
    if isinstance(value, float):
        if math.isnan(value):
            return 0
        return (
            int(min(max(value, float(low)), float(high)))
            if math.isinf(value)
            else min(max(int(value), low), high)
        )
    wrapped = int(value) & ((1 << dtype.bits) - 1)
    return wrapped - (1 << dtype.bits) if wrapped > high else wrapped


def limits(dtype: DType) -> tuple[int, int]:
    """The least and the greatest integer of an integer type."""
    if dtype.kind == "unsigned":
        return 0, (1 << dtype.bits) - 1
    return -(1 << (dtype.bits - 1)), (1 << (dtype.bits - 1)) - 1


def round_to(x: np.ndarray, dtype: DType) -> np.ndarray:
    """Floating x rounded to `dtype`, in whatever NumPy type it had."""
    return x if x.dtype == dtype.numpy else x.astype(dtype.numpy).astype(x.dtype)


def cast(x: np.ndarray, dtype: DType, working: np.dtype) -> np.ndarray:
    """x as `dtype`, held in the NumPy type `working`: integers wrap, floats truncate and saturate, NaN becomes 0."""
    if dtype.kind == "bool":
        return x != 0
    if dtype.is_floating:
        return round_to(np.asarray(x).astype(working), dtype)
    if x.dtype.kind != "f":
        return x.astype(dtype.numpy)
    low, high = limits(dtype)
    whole = np.trunc(np.where(np.isnan(x), 0, x)).astype(np.float64)
    inside = (whole >= low) & (whole < float(high) + 1 if dtype.bits == 64 else whole <= high)
    out = np.where(inside, whole, 0).astype(dtype.numpy)
    return np.where(inside, out, np.where(whole < 0, dtype.numpy.type(low), dtype.numpy.type(high)))


def floor_divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a // b towards minus infinity; integers: by zero 0, the least integer // -1 wraps."""
    if a.dtype.kind == "f":
        return np.floor_divide(a, b)
    if a.dtype.kind == "u":
        return np.where(b == 0, 0, a // np.where(b == 0, 1, b)).astype(a.dtype)
    special = (b == 0) | (b == -1)
    usual = a // np.where(special, 1, b)
    return np.where(b == 0, 0, np.where(b == -1, -a, usual)).astype(a.dtype)


def modulo(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a - a // b * b with the sign of b; integers: by zero 0."""
    if a.dtype.kind == "f":
        return np.remainder(a, b)
    special = (b == 0) | (b == -1) if a.dtype.kind == "i" else b == 0
    return np.where(special, 0, a % np.where(special, 1, b)).astype(a.dtype)


def power(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a ** b; integers wrap, and a negative exponent gives 1 / a**-b truncated (0 for a = 0)."""
    a, b = np.broadcast_arrays(a, b)
    if a.dtype.kind == "f":  # NumPy takes the square root for a lone 0.5: other answers at -0.0 and -inf
        one = np.ones(1, a.dtype)
        return np.power(np.concatenate([a.ravel(), one]), np.concatenate([b.ravel(), one]))[:-1].reshape(a.shape)
    out, square, left = np.ones_like(a), a.copy(), np.where(b < 0, 0, b)
    while np.any(left > 0):
        out = np.where(left & 1 == 1, out * square, out)
        square, left = square * square, left >> 1
    if a.dtype.kind == "u":
        return out
    inverse = np.where(a == 1, 1, np.where(a == -1, np.where(b & 1 == 1, -1, 1), 0)).astype(a.dtype)
    return np.where(b < 0, inverse, out)


def shift_left(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a << b; by the width or more (or a negative number) 0."""
    usual = (b >= 0) & (b < 8 * a.dtype.itemsize)
    return np.where(usual, a << np.where(usual, b, 0), 0).astype(a.dtype)


def shift_right(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a >> b, arithmetic on signed integers; by the width or more (or a negative number) 0 or the sign."""
    usual = (b >= 0) & (b < 8 * a.dtype.itemsize)
    return (
        (a >> np.where(usual, b, 8 * a.dtype.itemsize - 1)).astype(a.dtype)
        if a.dtype.kind == "i"
        else np.where(usual, a >> np.where(usual, b, 0), 0).astype(a.dtype)
    )


def multiply_high(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The upper half of the 64-bit product of two u32."""
    return (a.astype(np.uint64) * b.astype(np.uint64) >> np.uint64(32)).astype(np.uint32)


def philox(key: np.ndarray, counters: np.ndarray) -> np.ndarray:
    """Philox4x32-10 of Random123: key u32[2], counters u32[n, 4] -> u32[n, 4].

    Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
    """
    c = [counters[:, i].astype(np.uint64) for i in range(4)]
    k0, k1 = int(key[0]), int(key[1])
    low = np.uint64(0xFFFFFFFF)
    for _ in range(10):
        first, second = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [
            (second >> np.uint64(32)) ^ c[1] ^ np.uint64(k0),
            second & low,
            (first >> np.uint64(32)) ^ c[3] ^ np.uint64(k1),
            first & low,
        ]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(c, axis=1).astype(np.uint32)


def random_bits(key: np.ndarray, count: int) -> np.ndarray:
    """`count` random words: word i is word i % 4 of the block with counter i // 4."""
    blocks = -(-count // 4)
    counter = np.arange(blocks, dtype=np.uint64)
    counters = np.zeros((blocks, 4), np.uint32)
    counters[:, 0] = counter & np.uint64(0xFFFFFFFF)
    counters[:, 1] = counter >> np.uint64(32)
    return philox(key, counters).reshape(-1)[:count]
