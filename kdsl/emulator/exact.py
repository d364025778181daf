"""Sums and products rounded once: fma in every precision, directed rounding, bf16. Plain NumPy on arrays.

A sum that does not fit f64 is first "rounded to odd": cut off, its last bit set. Rounding that to a narrower type is then right,
because the odd bit remembers that something was cut (Boldo and Melquiond, Emulation of FMA and correctly rounded sums, 2008).
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

F64 = np.float64


def two_sum(x: Any, y: Any) -> tuple[Any, Any]:
    """x + y as the nearest number and the error of it."""
    s = x + y
    back = s - x
    return s, (x - (s - back)) + (y - back)


def two_product(x: Any, y: Any) -> tuple[Any, Any]:
    """x * y as the nearest number and the error of it (no overflow, no underflow)."""
    p = x * y
    split = F64(134217729)  # 2**27 + 1
    a, b = split * x, split * y
    x1, y1 = a - (a - x), b - (b - y)
    x2, y2 = x - x1, y - y1
    return p, x2 * y2 - (((p - x1 * y1) - x2 * y1) - x1 * y2)


def to_odd(s: Any, error: Any) -> Any:
    """s + error cut off with the last bit set, from the nearest s."""
    bits = np.ascontiguousarray(s).view(np.int64)
    move = (error != 0) & (bits & 1 == 0) & np.isfinite(s)
    towards = np.where((error > 0) == (s > 0), 1, -1)
    return np.where(move, bits + towards, bits).view(F64)


def odd_sum(x: Any, y: Any, kind: str) -> Any:
    """x + y in f64 such that rounding it to `kind` gives the nearest of the true sum."""
    x, y = np.broadcast_arrays(np.asarray(x, F64), np.asarray(y, F64))
    s = x + y
    if kind == "f32":  # only sums half-way between two f32 numbers, or tiny ones, can be rounded wrongly
        bits = s.view(np.int64)
        doubtful = ((bits & 0x1FFFFFFF) == 0x10000000) | (np.abs(s) < 1.2e-38)
        if not doubtful.any():
            return s
    s, error = two_sum(x, y)
    return to_odd(s, np.where(np.isnan(error), 0.0, error))


def directed(x: Any, y: Any, mode: str) -> Any:
    """x + y (f64) as f32, towards zero (rz), down (rm) or up (rp)."""
    x, y = np.broadcast_arrays(np.asarray(x, F64), np.asarray(y, F64))
    s, error = two_sum(x, y)
    error = np.where(np.isnan(error), 0.0, error)
    near = s.astype(np.float32)
    gap = (s - near.astype(F64)) + error  # what is missing
    gap = np.where(np.isnan(gap), 0.0, gap)
    down = np.nextafter(near, np.float32(-np.inf))
    up = np.nextafter(near, np.float32(np.inf))
    lower = np.where(gap < 0, down, near)
    upper = np.where(gap > 0, up, near)
    if mode == "rm":
        out = lower
    elif mode == "rp":
        out = upper
    else:
        out = np.where(s >= 0, lower, upper)
    return np.where(np.isnan(s) | np.isinf(s), near, out)


def fma_f64(x: Any, y: Any, z: Any) -> Any:
    """x * y + z in f64, rounded once."""
    x, y, z = np.broadcast_arrays(*(np.asarray(v, F64) for v in (x, y, z)))
    plain = x * y + z
    high, low = two_product(x, y)
    t, t_error = two_sum(z, low)
    v, v_error = two_sum(high, t)
    out = v + to_odd(*two_sum(t_error, v_error))
    with np.errstate(all="ignore"):
        sizes = [np.frexp(a)[1] for a in (x, y, z)]
    inside = np.isfinite(plain) & np.isfinite(x) & np.isfinite(y) & np.isfinite(z)
    product = sizes[0] + sizes[1]
    safe = (product > -900) & (product < 1000) & (np.abs(sizes[0]) < 990) & (np.abs(sizes[1]) < 990)
    safe &= ((sizes[2] > -900) | (z == 0)) & (sizes[2] < 1000)
    zero = (x == 0) | (y == 0)
    out = np.where(inside & safe & ~zero, out, plain)
    out = np.where((out == 0) & ~zero, plain, out)
    rest = inside & ~safe & ~zero
    if rest.any():
        out = out.copy()
        for i in np.argwhere(rest):
            k = tuple(i)
            total = Fraction(float(x[k])) * Fraction(float(y[k])) + Fraction(float(z[k]))
            out[k] = nearest(total) if total else plain[k]
    return out


def nearest(value: Fraction) -> float:
    """The nearest f64 number, infinity beyond the largest."""
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def to_bf16(x: Any, mode: str = "rn") -> Any:
    """f32 (or f64) numbers as the 16 bits of bf16."""
    x = np.asarray(x)
    if x.dtype == np.float64:
        near = x.astype(np.float32)  # to odd, so that rounding again is right
        bits = near.view(np.uint32)
        over = np.abs(near.astype(F64)) > np.abs(x)
        bits = np.where(over, bits - np.uint32(1), bits)
        inexact = (near.astype(F64) != x) & ~np.isnan(x) & ~np.isinf(near)
        x = np.where(inexact, bits | np.uint32(1), bits).view(np.float32)
    bits = np.ascontiguousarray(x).view(np.uint32)
    if mode == "rn":
        rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    else:
        rounded = bits >> np.uint32(16)
    return np.where(np.isnan(x), np.uint32(0x7FFF), rounded).astype(np.uint16)
