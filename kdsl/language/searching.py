"""Choosing and finding: where, argmax, argmin, searchsorted, count_nonzero.

In:  tensors and weak numbers.  Out: tensors; positions are i64.
Read before: operands.py, reductions.py. Read next: indexing.py.
"""

from __future__ import annotations

from typing import Any

import kdsl.dtypes as dt
from kdsl.dtypes import DType
from kdsl.errors import ArgumentError, ShapeError
from kdsl.ir.ops import Op
from kdsl.ir.tensor import Value
from kdsl.language.dispatch import public
from kdsl.language.elementwise import truth
from kdsl.language.operands import (
    broadcast, builder, cast, common_dtype, common_shape, emit, fitted, known, one_axis, traced, value,
)  # fmt: skip
from kdsl.language.reductions import not_empty
from kdsl.language.tracer import Tracer


def where_operands(condition: Any, x1: Any, x2: Any) -> tuple[list[Any], DType]:
    """The three operands of a WHERE in one shape, the last two in one dtype (literals stay)."""
    mask, items = truth(condition), [known(x1), known(x2)]
    dtype = common_dtype(*items, what="choose between")
    values = [mask, *(o for o in items if isinstance(o, Value))]
    shape = common_shape([v.shape for v in values], values, "choose between")
    chosen = [broadcast(cast(o, dtype), shape) if isinstance(o, Value) else fitted(o, dtype) for o in items]
    return [broadcast(mask, shape), *chosen], dtype


@public
def where(condition: Any, x1: Any, x2: Any, /) -> Tracer:
    """x1 where condition is true, else x2; the derivative passes the chosen side only.

    Shapes: all three broadcast. Example: `kd.where(x > 0, x, 0.01 * x)`.
    """
    operands, dtype = where_operands(condition, x1, x2)
    return traced(emit(Op.WHERE, *operands, dtype=dtype))


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
