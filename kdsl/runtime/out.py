"""`out=`: the caller's arrays for results, and what they must be.

Read next: runtime/fast_out_text.py, runtime/call.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kdsl.errors import DtypeError, ResultError, ShapeError


def check_out(target: Any, shape: tuple[int, ...], dtype: np.dtype[Any], position: int) -> None:
    """An error unless `target` can hold a result of that shape and dtype."""
    if type(target) is np.ndarray and target.shape == shape and target.dtype == dtype and target.flags.carray:
        return
    where = f"out[{position}]"
    if not isinstance(target, np.ndarray):
        raise ResultError(f"{where} is a {type(target).__name__}, not an array", location=False)
    if target.shape != shape:
        raise ShapeError(f"{where} has shape {target.shape}, the result has {shape}", location=False)
    if target.dtype.newbyteorder("=") != dtype:
        raise DtypeError(f"{where} has dtype {target.dtype}, the result has {dtype}", location=False)
    if not target.flags.writeable:
        raise ResultError(f"{where} is read-only", location=False)
    if any(s == 0 and n > 1 for s, n in zip(target.strides, target.shape)):
        raise ResultError(f"{where} uses one element of memory several times", location=False)
