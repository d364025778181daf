"""How far a result may be from the f64 reference: by dtype and by how many terms were added up.

In:  the program, the reference.  Out: the bound of each element, and the worst element against it.
Sums in another order differ by about the square root of the number of terms; the size of the terms is taken from the result's
own magnitude. `not (error <= bound)` everywhere, so that NaN fails.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kdsl.dtypes import BY_NUMPY
from kdsl.ir.ops import REDUCTIONS, Op
from kdsl.ir.tensor import Function

EPS = {"f16": 2.0**-10, "bf16": 2.0**-7, "f32": 2.0**-23, "f64": 2.0**-52}


def bound_of(function: Function, reference: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The error that each element of a result may have."""
    dtype = BY_NUMPY[reference.dtype]
    if not dtype.is_floating:
        return np.zeros(reference.shape)
    terms = 1
    for e in function.equations:
        if e.op in REDUCTIONS or e.op is Op.DOT:
            count, kept = e.values[0].type.count, e.result.type.count
            if isinstance(count, int) and isinstance(kept, int):
                lengths = [n for n in e.values[0].shape if isinstance(n, int)]
                terms = max(terms, max(lengths, default=1) if e.op is Op.DOT else count // max(1, kept))
            else:
                terms = max(terms, 4096)
    values = np.abs(reference.astype(np.float64))
    finite = values[np.isfinite(values)]
    scale = float(np.sqrt(np.mean(finite**2))) if finite.size else 0.0
    eps = EPS[dtype.name]
    return eps * (16 + 4 * np.sqrt(terms)) * (np.where(np.isfinite(values), values, 0.0) + scale) + 1e-300


def worst(
    have: Any, want: np.ndarray[Any, Any], bound: np.ndarray[Any, Any]
) -> tuple[float, tuple[int, ...]]:
    """The largest error as a multiple of its bound (infinite where NaN or infinity differ), and the first index over it."""
    if want.size == 0:
        return 0.0, ()
    a, b = np.asarray(have), want
    if not BY_NUMPY[b.dtype].is_floating:
        ratio = np.where(a == b, 0.0, np.inf)
    else:
        a, b = a.astype(np.float64), b.astype(np.float64)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        with np.errstate(all="ignore"):
            ratio = np.where(same, 0.0, np.abs(a - b) / bound)
        ratio = np.where(np.isnan(ratio), np.inf, ratio)
    over = np.argwhere(~(ratio <= 1.0))
    index = tuple(int(i) for i in (over[0] if len(over) else np.unravel_index(np.argmax(ratio), ratio.shape)))
    return float(np.max(ratio)), index
