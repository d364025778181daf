"""Sorting: sort and argsort.

In:  a tensor.  Out: its elements in order along one axis, or their positions (i64).
Read before: operands.py. Read next: searching.py, transforms/plan_sort.py.
"""

from __future__ import annotations

from typing import Any

import kdsl.dtypes as dt
from kdsl.ir.ops import Op
from kdsl.ir.tensor import Value
from kdsl.language.dispatch import public
from kdsl.language.operands import cast, emit, one_axis, traced, value
from kdsl.language.tracer import Tracer


def _sorted(op: Op, x: Any, axis: Any, descending: bool, stable: bool) -> Value:
    v = value(x)
    along = one_axis(axis, len(v.shape), str(v.type))
    keys = cast(v, dt.u8) if v.dtype.kind == "bool" else v
    return emit(op, keys, axis=along, descending=bool(descending), stable=bool(stable))


@public
def sort(x: Any, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tracer:
    """The elements along an axis in ascending (or descending) order; NaN counts as the greatest. Equal ones keep their order.

    Example: `kd.sort(x, axis=0)`
    """
    v = value(x)
    return traced(cast(_sorted(Op.SORT, x, axis, descending, stable), v.dtype))


@public
def argsort(x: Any, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tracer:
    """The positions (i64) that put the elements along an axis in order; those of equal elements ascend.

    Example: `kd.take_along_axis(x, kd.argsort(x), axis=-1)`
    """
    return traced(_sorted(Op.ARGSORT, x, axis, descending, stable))
