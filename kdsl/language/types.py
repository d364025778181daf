"""What the array API asks about dtypes: result_type, can_cast, isdtype, finfo, iinfo.

In:  dtypes, tensors, arrays, Python numbers.  Out: dtypes and plain numbers; nothing here appends an equation.
Read before: dtypes.py, operands.py. Read next: numpy_names.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from kdsl.dtypes import DType, as_dtype, promote
from kdsl.errors import ArgumentError, DtypeError
from kdsl.ir.tensor import TensorType, Value
from kdsl.language.operands import common_dtype, wanted_dtype
from kdsl.language.tracer import Tracer


def _dtype_or_number(x: Any) -> Any:
    if isinstance(x, np.generic):
        return x.item()
    if isinstance(x, (bool, int, float)):
        return x
    if isinstance(x, Tracer):
        return x.value
    dtype = as_dtype(x) or as_dtype(getattr(x, "dtype", None))
    if dtype is None:
        raise DtypeError(f"{x!r} is no dtype and has none")
    return Value(TensorType(dtype, ()))


def result_type(*arrays_and_dtypes: Any) -> DType:
    """The dtype of an operation on all of these; Python numbers are weak. Example: `kd.result_type(kd.i32, 1.0)`."""
    if not arrays_and_dtypes:
        raise ArgumentError("result_type needs one argument or more")
    return common_dtype(*map(_dtype_or_number, arrays_and_dtypes))


def can_cast(from_: Any, to: Any, /) -> bool:
    """Whether promotion turns the first dtype into the second. Example: `kd.can_cast(kd.i32, kd.i64)`."""
    source, target = _dtype_or_number(from_).dtype, wanted_dtype(to)
    return promote(source, target) is target


_KINDS = {
    "bool": {"bool"},
    "signed integer": {"signed"},
    "unsigned integer": {"unsigned"},
    "integral": {"signed", "unsigned"},
    "real floating": {"floating"},
    "complex floating": set(),
    "numeric": {"signed", "unsigned", "floating"},
}


def isdtype(dtype: Any, kind: Any) -> bool:
    """Whether a dtype is another one, or of a kind ("integral", "real floating" …) or of one of several.

    Example: `kd.isdtype(kd.f32, "real floating")`.
    """
    if isinstance(kind, tuple):
        return any(isdtype(dtype, k) for k in kind)
    if isinstance(kind, str) and kind in _KINDS:
        return wanted_dtype(dtype).kind in _KINDS[kind]
    return wanted_dtype(dtype) is wanted_dtype(kind)


@dataclass(frozen=True)
class FloatInfo:
    """The limits of a floating dtype."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: DType


@dataclass(frozen=True)
class IntegerInfo:
    """The limits of an integer dtype."""

    bits: int
    max: int
    min: int
    dtype: DType


def finfo(type: Any, /) -> FloatInfo:
    """The limits of a floating dtype. Example: `kd.finfo(kd.f32).eps`."""
    dtype = _dtype_or_number(type).dtype
    if not dtype.is_floating:
        raise DtypeError(f"finfo is of floating dtypes, not {dtype}")
    info = ml_dtypes.finfo(dtype.numpy)
    eps, high, low, normal = (float(n) for n in (info.eps, info.max, info.min, info.smallest_normal))
    return FloatInfo(dtype.bits, eps, high, low, normal, dtype)


def iinfo(type: Any, /) -> IntegerInfo:
    """The limits of an integer dtype. Example: `kd.iinfo(kd.i32).max`."""
    dtype = _dtype_or_number(type).dtype
    if not dtype.is_integer:
        raise DtypeError(f"iinfo is of integer dtypes, not {dtype}")
    info = np.iinfo(dtype.numpy)
    return IntegerInfo(dtype.bits, int(info.max), int(info.min), dtype)


e, inf, nan, newaxis, pi = np.e, np.inf, np.nan, None, np.pi
