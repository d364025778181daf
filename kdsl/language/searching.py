"""Finding: argmax, argmin, searchsorted.

In:  tensors and weak numbers.  Out: tensors; positions are i64.
Read before: operands.py, reductions.py. Read next: indexing.py.
"""

from __future__ import annotations

from typing import Any

import kdsl.dtypes as dt
from kdsl.errors import ArgumentError, ShapeError
from kdsl.ir.ops import Op
from kdsl.ir.tensor import Value
from kdsl.language.dispatch import public
from kdsl.language.operands import (
    builder,
    cast,
    common_dtype,
    emit,
    known,
    one_axis,
    traced,
    value,
)  # fmt: skip
from kdsl.language.reductions import not_empty
from kdsl.language.tracer import Tracer


def _position(op: Op, x: Any, axis: Any, keepdims: bool) -> Tracer:
    v = value(x)
    ndim = len(v.shape)
    if axis is None:
        v = emit(Op.RESHAPE, v, shape=(v.type.count,))
    along = 0 if axis is None else one_axis(axis, ndim, str(v.type))
    not_empty(v, (along,), op.value)
    out = emit(op, cast(v, dt.u8) if v.dtype.kind == "bool" else v, axes=(along,))
    if keepdims:
        out = builder().insert_axes(out, range(ndim) if axis is None else (along,), ndim)  # type: ignore[assignment]
    return traced(out)


@public
def argmax(x: Any, /, axis: Any = None, *, keepdims: bool = False) -> Tracer:
    """The position (i64) of the first largest element, of the first NaN if there is one; axis None: in C order.

    Raises: ShapeError for an empty axis. Example: `kd.argmax(x, axis=-1)`.
    """
    return _position(Op.ARGMAX, x, axis, keepdims)


@public
def argmin(x: Any, /, axis: Any = None, *, keepdims: bool = False) -> Tracer:
    """The position (i64) of the first smallest element, of the first NaN if there is one; axis None: in C order.

    Raises: ShapeError for an empty axis. Example: `kd.argmin(x, axis=-1)`.
    """
    return _position(Op.ARGMIN, x, axis, keepdims)


@public
def searchsorted(x1: Any, x2: Any, /, *, side: str = "left", sorter: Any = None) -> Tracer:
    """Where each element of x2 belongs in the ascending 1-d x1, before ("left") or after ("right") its equals, as i64.

    Raises: ShapeError where x1 is not 1-d. Example: `kd.searchsorted(edges, x)`.
    """
    a, b = known(x1), known(x2)
    dtype = common_dtype(a, b, what="compare")
    table, wanted = value(traced(a) if isinstance(a, Value) else a, dtype), value(traced(b) if isinstance(b, Value) else b, dtype)
    if len(table.shape) != 1:
        raise ShapeError(f"searchsorted needs a 1-d tensor to search in, not {table.type}", label=str(table.type))
    if side not in ("left", "right"):
        raise ArgumentError(f"side is 'left' or 'right', not {side!r}")
    if sorter is not None:
        from kdsl.language.indexing import take

        table = value(take(traced(table), sorter))
    return traced(emit(Op.SEARCHSORTED, table, wanted, side=side))
