"""`out=`: the caller's arrays for results. What they must be, and filling them from results that lie elsewhere.

Small results are computed in new memory and copied: that is quicker than finding out whether they overlap an argument.
Read next: runtime/fast.py, runtime/call.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kdsl.errors import DtypeError, ResultError, ShapeError

Array = np.ndarray[Any, Any]
COPIED_BYTES = 1 << 18


def are_small(out: Sequence[Any]) -> bool:
    """Whether a copy costs less than asking where the arrays lie."""
    return sum(getattr(x, "nbytes", 0) for x in out) <= COPIED_BYTES


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


def copy_into(out: Sequence[Any], results: Sequence[Array]) -> list[Any]:
    """Fill all of `out`, or none of it where one does not fit."""
    for position, (target, result) in enumerate(zip(out, results)):
        check_out(target, result.shape, result.dtype, position)
    for target, result in zip(out, results):
        np.copyto(target, result)
    return list(out)
