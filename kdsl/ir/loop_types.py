"""The types of the loop IR's tiles: what shape and dtype each operand must have, and the dtype that a Map gives.

In:  one tile expression.  Out: None, or what is wrong with it in words; `map_dtype` is what the parser infers types with.
Read before: ir/loops.py. Read next: ir/loop_verify.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import kdsl.dtypes as dt
from kdsl.dtypes import DType
from kdsl.ir import loops as ir
from kdsl.ir.interpreter_maps import ELEMENTWISE_NAMES, KERNEL_OPS
from kdsl.ir.ops import BINARY, TO_BOOL, Op
from kdsl.ir.sizes import names_in

MONOIDS = ("sum", "prod", "max", "min", "any", "all")
TYPED_BY_ATTRIBUTE = ("cast", "bitcast")


def arity(op: str) -> int | None:
    """How many operands a Map has; None for a name that no Map has."""
    if op in KERNEL_OPS:
        return {"fma": 3, "philox": 3}.get(op, 1)
    known = ELEMENTWISE_NAMES.get(op)
    return None if known is None else 3 if known is Op.WHERE else 2 if known in BINARY else 1


def map_dtype(op: str, operands: Sequence[DType]) -> DType | None:
    """The dtype of a Map's result; None for casts, which name it, and for operands that do not fit."""
    if op == "philox":
        return dt.u32 if tuple(operands) == (dt.u32, dt.u32, dt.i64) else None
    if op == "where":
        return operands[1] if operands[0] is dt.bool_ and operands[1] is operands[2] else None
    if op in TYPED_BY_ATTRIBUTE or any(o is not operands[0] for o in operands):
        return None
    if op in ("round_f16", "round_bf16"):
        return dt.f32 if operands[0] is dt.f32 else None
    return dt.bool_ if op not in KERNEL_OPS and ELEMENTWISE_NAMES[op] in TO_BOOL else operands[0]


def check_types(tile: ir.Tile) -> str | None:
    """What is wrong with a tile, its operands being right."""
    if tile.dtype.compute is not tile.dtype:
        return f"a tile is {tile.dtype.name}, which exists in memory only"
    check = _CHECKS.get(type(tile))
    return check(tile) if check else None


def _map(tile: ir.Map) -> str | None:
    n = arity(tile.op)
    if n is None or n != len(tile.operands):
        return f"no map {tile.op} has {len(tile.operands)} operands"
    dtypes = [o.dtype for o in tile.operands]
    if tile.op not in TYPED_BY_ATTRIBUTE and map_dtype(tile.op, dtypes) is not tile.dtype:
        return f"{tile.op} of {', '.join(d.name for d in dtypes)} does not give {tile.dtype.name}"
    return _broadcasts([o.shape for o in tile.operands], tile.shape, tile.op)


def _broadcasts(shapes: Sequence[ir.TileShape], to: ir.TileShape, what: str) -> str | None:
    for shape in shapes:
        fits = len(shape) <= len(to) and all(
            a in (1, b) for a, b in zip(reversed(shape), reversed(to), strict=False)
        )
        if not fits:
            return f"{what}: a tile of {shape} does not broadcast to {to}"
    return None


def _fold(tile: ir.Fold | ir.Prefix) -> str | None:
    if tile.monoid not in MONOIDS:
        return f"nothing folds by {tile.monoid}"
    if (tile.monoid in ("any", "all")) != (tile.dtype is dt.bool_):
        return f"a fold by {tile.monoid} of {tile.dtype.name}"
    if not 0 <= tile.axis < len(tile.tile.shape):
        return f"a fold along axis {tile.axis} of {tile.tile.shape}"
    if isinstance(tile, ir.Fold) and (tile.parts < 1 or tile.tile.shape[tile.axis] % tile.parts):
        return f"a fold of {tile.parts} parts of an axis of {tile.tile.shape[tile.axis]}"
    return None


def _dot(tile: ir.Dot) -> str | None:
    shapes = [x.shape for x in (tile.accumulator, tile.a, tile.b)]
    if any(len(s) != 2 for s in shapes):
        return f"a dot of shapes {shapes}"
    (m, n), (m2, k), (k2, n2) = shapes
    if (m, k, n) != (m2, k2, n2):
        return f"a dot of {shapes[1]} and {shapes[2]} into {shapes[0]}"
    same = tile.a.dtype is tile.b.dtype is tile.accumulator.dtype
    return None if same else f"a dot of {tile.a.dtype.name} and {tile.b.dtype.name} into {tile.dtype.name}"


def _slice(tile: ir.Slice) -> str | None:
    good = len(tile.start) == len(tile.shape) == len(tile.tile.shape) and all(
        0 <= s and s + n <= size for s, n, size in zip(tile.start, tile.shape, tile.tile.shape, strict=True)
    )
    return None if good else f"a slice of {tile.shape} at {tile.start} of a tile of {tile.tile.shape}"


def _gather(tile: ir.Gather) -> str | None:
    if len(tile.indices) != len(tile.memory.shape):
        return f"a gather from {tile.memory.name} has {len(tile.indices)} indices for {len(tile.memory.shape)} axes"
    if not all(i.dtype.is_integer for i in tile.indices) or (
        tile.mask is not None and tile.mask.dtype is not dt.bool_
    ):
        return f"a gather from {tile.memory.name} has an index that is no integer or a mask that is no bool"
    return _broadcasts(
        [i.shape for i in tile.indices] + ([tile.mask.shape] if tile.mask is not None else []),
        tile.shape,
        "gather",
    )


def _index(tile: ir.Index) -> str | None:
    good = tile.dtype.is_integer and all(n == 1 for i, n in enumerate(tile.shape) if i != tile.axis)
    return (
        None if good and tile.axis < len(tile.shape) else f"an index along axis {tile.axis} of {tile.shape}"
    )


def _scalar(tile: ir.Scalar) -> str | None:
    good = tile.dtype.is_integer and not any(n.startswith("#") for n in names_in(tile.value))
    return None if good else f"the scalar {tile.value} is no integer"


def _constant(tile: ir.Constant) -> str | None:
    kinds = {"bool": bool, "floating": float}
    good = isinstance(tile.value, kinds.get(tile.dtype.kind, int))
    return None if good else f"the constant {tile.value!r} is no {tile.dtype.name}"


_CHECKS: dict[type, Callable[..., str | None]] = {
    ir.Map: _map,
    ir.Fold: _fold,
    ir.Prefix: _fold,
    ir.Dot: _dot,
    ir.Slice: _slice,
    ir.Gather: _gather,
    ir.Index: _index,
    ir.Scalar: _scalar,
    ir.Constant: _constant,
    ir.Permute: lambda t: (
        None
        if sorted(t.axes) == list(range(len(t.tile.shape)))
        else f"a permute by {t.axes} of {t.tile.shape}"
    ),
    ir.Broadcast: lambda t: _broadcasts([t.tile.shape], t.shape, "broadcast"),
}
