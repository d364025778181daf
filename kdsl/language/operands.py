"""From what a user hands over to operands of equations: coercion, common dtype, common shape, axes.

In:  tracers, Python and NumPy scalars, named sizes, small NumPy arrays.  Out: Values and Literals that fit each other.
Python numbers and NumPy scalars are weak: they take the tensor's dtype as far as its kind (bool < integer < floating)
reaches. Read before: tracer.py. Read next: logic.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

import numpy as np

import kdsl.dtypes as dt
from kdsl.dtypes import DType, as_dtype, promote
from kdsl.errors import ArgumentError, AxisError, ConstantError, DtypeError, ShapeError
from kdsl.ir.ops import Op
from kdsl.ir.rules import Builder
from kdsl.ir.sizes import Extent, Size
from kdsl.ir.tensor import Literal, Operand, Shape, Value
from kdsl.language.dispatch import current
from kdsl.language.sizes import NamedSize
from kdsl.language.tracer import Tracer

CONSTANT_BYTES = 64 * 1024
Known = Union[Value, Literal]


def builder() -> Builder:
    """The builder of the program that is being traced."""
    trace = current()
    assert trace is not None, "public() has sent calls outside a kernel elsewhere"
    return trace.builder


def emit(op: Op, *operands: Operand, **attributes: Any) -> Value:
    """Append an equation and return its result."""
    result = builder().emit(op, *operands, **attributes)
    assert isinstance(result, Value), "the front end's builder makes a value for every equation"
    return result


def traced(value: Value) -> Tracer:
    """What the user gets for a value."""
    return Tracer(builder(), value)


# --- one operand --------------------------------------------------------------------------------------------------
def known(x: Any) -> Known:
    """`x` as a Value, or as a Literal where it is a weak number."""
    if isinstance(x, Tracer):
        if x.builder is builder():
            return x.value
        adopted = current().adopt(x)  # type: ignore[union-attr]
        if adopted is None:
            raise ArgumentError(
                f"this {x.value.type} belongs to another kernel",
                label="used here",
                hint="a kernel's tensors live while it is traced: pass them as arguments and return them as results",
            )
        return adopted
    if isinstance(x, Value) or (isinstance(x, (bool, int, float)) and not isinstance(x, np.generic)):
        return x
    if isinstance(x, (NamedSize, Size)):
        return emit(Op.SIZE, value=x.extent if isinstance(x, NamedSize) else x)
    if isinstance(x, np.generic):
        return _weak(x)
    return _constant(x)


def value(x: Any, dtype: DType | None = None) -> Value:
    """`x` as a Value: a literal is written out as a 0-d tensor of `dtype`, or of its own default."""
    x = known(x)
    if isinstance(x, Value):
        return x if dtype is None else cast(x, dtype)
    dtype = dtype or default_dtype(x)
    return emit(Op.FULL, value=fitted(x, dtype), shape=(), dtype=dtype)


def numbers(x: Any, name: str) -> Value:
    """`x` as a tensor of numbers: a bool has no sign and no size."""
    v = value(x)
    if v.dtype.kind == "bool":
        raise DtypeError(f"{name} needs numbers, not {v.type}", label=str(v.type), hint="cast first, x.astype(kd.i64)")
    return v


def floating(x: Any) -> Value:
    """`x` as a tensor of floating numbers: integers and bools become f32."""
    v = value(x)
    return v if v.dtype.is_floating else cast(v, dt.f32)


def cast(x: Value, dtype: DType) -> Value:
    return x if x.dtype is dtype else emit(Op.CAST, x, dtype=dtype)


def default_dtype(x: Literal) -> DType:
    """bool, i64 or f32: what a bare Python number becomes."""
    return dt.bool_ if isinstance(x, bool) else dt.i64 if isinstance(x, int) else dt.f32


def _weak(x: np.generic) -> Literal:
    number = x.item() if x.dtype.kind in "biuf" else float(x) if as_dtype(x.dtype) else None
    if number is None:
        raise DtypeError(f"there are no tensors of {x.dtype.name}", label=repr(x))
    return number


def _constant(x: Any) -> Value:
    if isinstance(x, (list, tuple, str, bytes, dict, set, complex)) or x is None:
        raise ArgumentError(f"{_short(x)} is not a tensor", label=type(x).__name__, hint="np.array(...) makes one of numbers")
    if not isinstance(x, np.ndarray):
        if not hasattr(x, "__array__") and not hasattr(x, "__dlpack__"):
            raise ArgumentError(f"{_short(x)} is not a tensor", label=type(x).__name__)
        x = np.asarray(x) if hasattr(x, "__array__") else np.from_dlpack(x)
    if as_dtype(x.dtype) is None:
        raise DtypeError(f"there are no tensors of {x.dtype.name}", label=f"an array of shape {x.shape}")
    if x.nbytes > CONSTANT_BYTES:
        raise ConstantError(
            f"an array of {x.nbytes} bytes is too large to be a constant of the kernel",
            label=f"{as_dtype(x.dtype)}[{', '.join(map(str, x.shape))}] caught from outside",
            facts=(f"constants are compiled in, up to {CONSTANT_BYTES} bytes",),
            hint="pass it to the kernel as an argument",
        )
    copy = np.array(x, dtype=x.dtype.newbyteorder("="), order="C", copy=True)
    copy.flags.writeable = False
    return emit(Op.CONSTANT, array=copy)


def _short(x: object) -> str:
    text = repr(x)
    return text if len(text) <= 40 else f"{text[:37]}..."


# --- dtypes -------------------------------------------------------------------------------------------------------
_RANK = {"bool": 0, "signed": 1, "unsigned": 1, "floating": 2}


def common_dtype(*operands: Known, what: str = "combine") -> DType:
    """The dtype that operands share: tensors promote, literals only lift its kind."""
    dtypes = [o.dtype for o in operands if isinstance(o, Value)]
    literals = [o for o in operands if not isinstance(o, Value)]
    weak = max((0 if isinstance(o, bool) else 1 if isinstance(o, int) else 2 for o in literals), default=0)
    if not dtypes:
        return (dt.bool_, dt.i64, dt.f32)[weak]
    common = dtypes[0]
    for other in dtypes[1:]:
        both = promote(common, other)
        if both is None:
            raise DtypeError(
                f"cannot {what} {common} and {other}: no integer type holds both",
                label=" and ".join(map(str, dtypes)),
                hint="cast one of them first, x.astype(kd.i64)",
            )
        common = both
    return common if _RANK[common.kind] >= weak else dt.i64 if weak == 1 else dt.f32


def fitted(x: Literal, dtype: DType) -> Literal:
    """A literal as Python's number of that dtype's kind; an integer must fit."""
    if dtype.is_floating:
        try:
            return float(x)
        except OverflowError:
            raise DtypeError(f"{_short(x)} is too large for {dtype}") from None
    if dtype.kind == "bool":
        return bool(x)
    if not isinstance(x, int):
        raise DtypeError(f"{x!r} is not an integer, and the tensor is {dtype}", hint="cast the tensor, x.astype(kd.f32)")
    low, high = (-(1 << (dtype.bits - 1)), (1 << (dtype.bits - 1)) - 1) if dtype.kind == "signed" else (0, (1 << dtype.bits) - 1)
    if not low <= x <= high:
        raise DtypeError(f"{x} does not fit {dtype}, which holds {low} to {high}", hint="cast the tensor first, x.astype(kd.i64)")
    return int(x)


def wanted_dtype(spec: Any) -> DType:
    """The dtype that a `dtype=` argument names."""
    dtype = as_dtype(spec)
    if dtype is None:
        raise DtypeError(
            f"{_short(spec)} is not a dtype", hint=f"there are {', '.join(d.name for d in dt.ALL)}: names count bits"
        )
    return dtype


# --- shapes -------------------------------------------------------------------------------------------------------
def common_shape(shapes: Sequence[Shape], types: Sequence[Any], verb: str, sign: str = ",") -> Shape:
    """The shape that all broadcast to: axes line up from the right, and 1 repeats."""
    out: list[Extent] = [1] * max((len(s) for s in shapes), default=0)
    for shape in shapes:
        for i, n in enumerate(reversed(shape), 1):
            if n == 1 or n == out[-i]:
                continue
            if out[-i] != 1:
                raise _no_common_shape(shapes, types, i, verb, sign)
            out[-i] = n
    return tuple(out)


def _no_common_shape(shapes: Sequence[Shape], types: Sequence[Any], i: int, verb: str, sign: str) -> ShapeError:
    clash = list(dict.fromkeys(s[-i] for s in shapes if len(s) >= i and s[-i] != 1))
    names = [t.name for t in types]
    place = "last axes are" if i == 1 else f"axes {-i} are"
    hint = "axes line up from the right"
    if len(shapes) == 2:
        for (long, short), name in ((shapes, names[1]), (shapes[::-1], names[0])):
            if len(short) == 1 and len(long) == 2 and long[0] == short[0]:
                hint += f". To {verb} along the rows write {name or 'x'}[:, None]"
    if any(isinstance(n, Size) for n in clash):
        hint += ". A named size is never taken to be 1 or another's equal: give equal sizes one name"
    texts = [str(t.type) for t in types]
    return ShapeError(
        f"cannot {verb} {' and '.join(texts)}: {place} {' and '.join(map(str, clash[:2]))}",
        label=f" {sign} ".join(texts).replace(" , ", ", "),
        hint=hint,
    )


def broadcast(x: Value, shape: Shape) -> Value:
    """x repeated to a shape that it is known to broadcast to."""
    result = builder().broadcast_to(x, shape)
    assert isinstance(result, Value)
    return result


def aligned(verb: str, *operands: Any, sign: str = ",", dtype: DType | None = None) -> tuple[list[Known], DType]:
    """Operands of an elementwise equation in their common dtype and shape (literals stay), at least one being a Value."""
    items = [known(o) for o in operands]
    dtype = dtype or common_dtype(*items, what=verb)
    if not any(isinstance(o, Value) for o in items):
        items[0] = value(items[0], dtype)
    values = [o for o in items if isinstance(o, Value)]
    shape = common_shape([v.shape for v in values], values, verb, sign)
    return [broadcast(cast(o, dtype), shape) if isinstance(o, Value) else fitted(o, dtype) for o in items], dtype


# --- axes ---------------------------------------------------------------------------------------------------------
def one_axis(axis: Any, ndim: int, what: str = "the tensor") -> int:
    """A single axis counted from the start."""
    if isinstance(axis, (bool, Tracer)) or not isinstance(axis, (int, np.integer)):
        raise ArgumentError(f"an axis is an integer, not {_short(axis)}")
    if not -ndim <= axis < ndim:
        raise AxisError(f"axis {axis} is out of range: {what} has {ndim} ax{'is' if ndim == 1 else 'es'}")
    return int(axis) % ndim


def many_axes(axis: Any, ndim: int, what: str = "the tensor") -> tuple[int, ...]:
    """None (all), one axis or several as a sorted tuple counted from the start."""
    if axis is None:
        return tuple(range(ndim))
    axes = [one_axis(a, ndim, what) for a in (axis if isinstance(axis, (tuple, list)) else (axis,))]
    if len(set(axes)) < len(axes):
        raise AxisError(f"an axis stands twice in {axis}")
    return tuple(sorted(axes))


def type_of(x: Known) -> str:
    """What messages call an operand."""
    return str(x.type) if isinstance(x, Value) else repr(x)

