"""The NumPy meaning of every op, and of a whole program: the oracle, the reference and the constant folder in one.

In:  a Function and NumPy arrays.  Out: NumPy arrays.
    evaluate(function, x, w)                 f16 and bf16 are computed in f32 and rounded where they are cast or returned
    evaluate(function, x, w, exact=True)     every floating value in f64, rounded at casts to a narrower type and at the end
Read before: ir/ops.py, ir/numbers.py. Read next: transforms/simplify.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import kdsl.dtypes as dt
from kdsl.dtypes import DType
from kdsl.errors import OutOfRangeError
from kdsl.ir import numbers
from kdsl.ir.ops import Op
from kdsl.ir.rules import identity
from kdsl.ir.scans import Scan
from kdsl.ir.sizes import Extent, Size, size
from kdsl.ir.sizes import evaluate as value_of
from kdsl.ir.tensor import Equation, Function, Literal, Value

Array = np.ndarray


@dataclass(frozen=True)
class Context:
    """What a meaning may ask besides its operands: the values of the named sizes, and whether all is done in f64."""

    sizes: Mapping[str, int]
    exact: bool
    scans: dict[Any, Any] = field(default_factory=dict)  # all results of a scan, for the equations that name one each

    def working(self, dtype: DType) -> np.dtype:
        """The NumPy type in which values of `dtype` are held."""
        return np.dtype(np.float64) if self.exact and dtype.is_floating else dtype.compute.numpy

    def ints(self, extents: Iterable[Extent]) -> tuple[int, ...]:
        return tuple(value_of(n, self.sizes) for n in extents)


Meaning = Callable[..., Array]  # (context, equation, *operands) -> array


# --- elementwise -------------------------------------------------------------------------------------------------------
def _plain(f: Callable[..., Array]) -> Meaning:
    return lambda c, e, *x: f(*x)


def _whole(f: Callable[[Array], Array]) -> Meaning:
    return lambda c, e, x: f(x) if x.dtype.kind == "f" else x


def _logical(on_bool: Callable[..., Array], on_integers: Callable[..., Array]) -> Meaning:
    return lambda c, e, *x: on_bool(*x) if x[0].dtype.kind == "b" else on_integers(*x)


def _erf(x: Array) -> Array:
    return np.array([math.erf(v) for v in x.ravel().tolist()], x.dtype).reshape(x.shape)


def _sigmoid(x: Array) -> Array:
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))


def _bitcast(c: Context, e: Equation, x: Array) -> Array:
    source, target = e.values[0].dtype, e.result.dtype
    return x.astype(source.numpy).view(target.numpy).astype(c.working(target))


def _nextafter(c: Context, e: Equation, x: Array, y: Array) -> Array:
    own = e.result.dtype.numpy
    return np.nextafter(x.astype(own), y.astype(own)).astype(x.dtype)


# --- sources and movement ------------------------------------------------------------------------------------------------
def _full(c: Context, e: Equation) -> Array:
    a = e.attributes
    return np.full(c.ints(a["shape"]), constant(a["value"], a["dtype"], c))


def _iota(c: Context, e: Equation) -> Array:
    shape, axis = c.ints(e.attributes["shape"]), e.attributes["axis"]
    line = np.arange(shape[axis]).astype(c.working(e.result.dtype))
    return np.broadcast_to(line.reshape([-1 if i == axis else 1 for i in range(len(shape))]), shape)


def _random_bits(c: Context, e: Equation, key: Array) -> Array:
    shape = c.ints(e.attributes["shape"])
    return numbers.random_bits(key, math.prod(shape)).reshape(shape)


def _broadcast(c: Context, e: Equation, x: Array) -> Array:
    shape = [1] * len(e.attributes["shape"])
    for axis, n in zip(e.attributes["axes"], x.shape, strict=True):
        shape[axis] = n
    return np.broadcast_to(x.reshape(shape), c.ints(e.attributes["shape"]))


def _slice(c: Context, e: Equation, x: Array) -> Array:
    a = e.attributes
    for axis, (start, n, step) in enumerate(
        zip(c.ints(a["starts"]), c.ints(a["sizes"]), a["steps"], strict=True)
    ):
        if n and not (0 <= start < x.shape[axis] and 0 <= start + (n - 1) * step < x.shape[axis]):
            raise OutOfRangeError(
                f"a slice from {start} in steps of {step} over {n} elements leaves axis {axis} of {x.shape}"
            )
        x = np.take(x, start + step * np.arange(n), axis)
    return x


def _pad(c: Context, e: Equation, x: Array) -> Array:
    a = e.attributes
    out = np.full(c.ints(e.result.shape), constant(a["value"], e.result.dtype, c))
    where = tuple(
        slice(low, low + (n - 1) * (inside + 1) + 1, inside + 1) if n else slice(0, 0)
        for low, inside, n in zip(c.ints(a["low"]), a["interior"], x.shape, strict=True)
    )
    out[where] = x
    return out


def _window(c: Context, e: Equation, x: Array) -> Array:
    a = e.attributes
    axis, n = a["axis"], value_of(a["size"], c.sizes)
    count = max(0, value_of(e.result.shape[axis], c.sizes))
    positions = np.arange(count)[:, None] * a["stride"] + np.arange(n) * a["dilation"]
    return np.moveaxis(np.take(x, positions, axis), axis + 1, -1)


# --- reductions and contractions -------------------------------------------------------------------------------------------
def _reduce(f: Callable[..., Array], op: Op) -> Meaning:
    def meaning(c: Context, e: Equation, x: Array) -> Array:
        if op in (Op.SUM, Op.PROD):
            return f(x, axis=e.attributes["axes"], dtype=x.dtype)
        return f(
            x, axis=e.attributes["axes"], initial=constant(identity(op, e.result.dtype), e.result.dtype, c)
        )

    return meaning


def _dot(c: Context, e: Equation, a: Array, b: Array) -> Array:
    letters = {
        letter: i for i, letter in enumerate(dict.fromkeys((*e.attributes["left"], *e.attributes["right"])))
    }
    spec = [[letters[x] for x in e.attributes[side]] for side in ("left", "right", "out")]
    return np.einsum(a, spec[0], b, spec[1], spec[2], optimize=True)


# --- indexing ------------------------------------------------------------------------------------------------------------
def _checked(index: Array, n: int, axis: int) -> Array:
    """Indices with negative ones counted from the end."""
    outside = (index < -n) | (index >= n)
    if np.any(outside):
        place = np.unravel_index(int(np.argmax(outside)), index.shape)
        raise OutOfRangeError(f"index {int(index[place])} is out of range for axis {axis} of size {n}")
    return np.where(index < 0, index + n, index)


def _take(c: Context, e: Equation, x: Array, index: Array) -> Array:
    axis = e.attributes["axis"]
    if x.shape[axis] == 0 and index.size == 0:
        return np.empty(c.ints(e.result.shape), x.dtype)
    return np.take(x, _checked(index, x.shape[axis], axis), axis)


def _grid(index: Array, n: int, axis: int) -> tuple[Array, ...]:
    grid: list[Array] = list(np.indices(index.shape, sparse=True))
    grid[axis] = _checked(index, n, axis)
    return tuple(grid)


def _scatter_add(c: Context, e: Equation, x: Array, index: Array, updates: Array) -> Array:
    axis = e.attributes["axis"]
    out = np.moveaxis(x, axis, 0).copy()
    np.add.at(
        out,
        _checked(index, x.shape[axis], axis),
        np.moveaxis(updates, range(axis, axis + index.ndim), range(index.ndim)),
    )
    return np.moveaxis(out, 0, axis)


def _scatter_along(c: Context, e: Equation, x: Array, index: Array, updates: Array) -> Array:
    out = x.copy()
    np.add.at(out, _grid(index, x.shape[e.attributes["axis"]], e.attributes["axis"]), updates)
    return out


def _argsort(c: Context, e: Equation, x: Array) -> Array:
    axis = e.attributes["axis"]
    x = x.astype(np.float32) if x.dtype.kind == "V" else x  # NumPy does not know that a bfloat16 NaN is the greatest
    if not e.attributes["descending"]:
        return np.argsort(x, axis, kind="stable")
    backwards = np.argsort(
        np.flip(x, axis), axis, kind="stable"
    )  # the last of equals first, turned round below
    return np.flip(x.shape[axis] - 1 - backwards, axis)


def _call(c: Context, e: Equation, *x: Array) -> Array:
    function: Function = e.attributes["function"]
    return _run(c, function, dict(zip(function.parameters, x, strict=True)))[e.attributes["index"]]


def _scan(c: Context, e: Equation, *x: Array) -> Array:
    step, replay = e.attributes["step"], e.attributes["replay"]
    key = step, replay, tuple(map(id, x))
    if key not in c.scans:
        c.scans[key] = _scanned(c, Scan(e), x), x  # x stays alive: its ids are part of the key
    return c.scans[key][0][e.attributes["index"]]


def _scanned(c: Context, s: Scan, x: Sequence[Array]) -> list[Array]:
    """All results of a scan, one step after the other."""

    def call(f: Function, *given: Array) -> tuple[Array, ...]:
        return _run(c, f, dict(zip(f.parameters, given, strict=True)))

    carry, kept, xs, closures = (tuple(x[part]) for part in s.parts)
    length = value_of(s.length, c.sizes)
    order = range(length)[::-1] if s.reverse else range(length)
    at = [tuple(np.take(v, t, axis) for v, axis in zip(xs, s.axes, strict=True)) for t in range(length)]
    before: dict[int, tuple[Array, ...]] = dict.fromkeys(order, ())
    if s.replay is not None:
        state: tuple[Array, ...] = ()
        for number, t in enumerate(reversed(order)):
            state = tuple(v[number // s.every] for v in kept) if number % s.every == 0 else state
            before[t] = state
            state = call(s.replay, *state, *at[t], *closures)
    ys: list[Any] = [()] * length
    checkpoints = []
    for number, t in enumerate(order):
        if number % s.every == 0:
            checkpoints.append(carry)
        out = call(s.step, *carry, *before[t], *at[t], *closures)
        carry, ys[t] = out[: s.carries], out[s.carries :]

    def stacked(rows: Sequence[Any], i: int, v: Value, axis: int) -> Array:
        empty = np.zeros((*c.ints(v.shape[:axis]), 0, *c.ints(v.shape[axis:])), c.working(v.dtype))
        return np.stack([row[i] for row in rows], axis) if rows else empty

    stacks = [stacked(ys, i, v, s.out_axes[i]) for i, v in enumerate(s.step.results[s.carries :])]
    return [*carry, *stacks, *(stacked(checkpoints, i, v, 0) for i, v in enumerate(s.step.results[: s.carries]))]


MEANING: dict[Op, Meaning] = {
    Op.NEG: _plain(np.negative),
    Op.ABS: _plain(np.abs),
    Op.SIGN: _plain(np.sign),
    Op.EXP: _plain(np.exp),
    Op.EXP2: _plain(np.exp2),
    Op.EXPM1: _plain(np.expm1),
    Op.LOG: _plain(np.log),
    Op.LOG2: _plain(np.log2),
    Op.LOG10: _plain(np.log10),
    Op.LOG1P: _plain(np.log1p),
    Op.SQRT: _plain(np.sqrt),
    Op.RSQRT: _plain(lambda x: 1 / np.sqrt(x)),
    Op.SIN: _plain(np.sin),
    Op.COS: _plain(np.cos),
    Op.TAN: _plain(np.tan),
    Op.ASIN: _plain(np.arcsin),
    Op.ACOS: _plain(np.arccos),
    Op.ATAN: _plain(np.arctan),
    Op.SINH: _plain(np.sinh),
    Op.COSH: _plain(np.cosh),
    Op.TANH: _plain(np.tanh),
    Op.ASINH: _plain(np.arcsinh),
    Op.ACOSH: _plain(np.arccosh),
    Op.ATANH: _plain(np.arctanh),
    Op.SIGMOID: _plain(_sigmoid),
    Op.ERF: _plain(_erf),
    Op.FLOOR: _whole(np.floor),
    Op.CEIL: _whole(np.ceil),
    Op.ROUND: _whole(np.rint),
    Op.TRUNC: _whole(np.trunc),
    Op.IS_NAN: _plain(np.isnan),
    Op.IS_INF: _plain(np.isinf),
    Op.SIGN_BIT: _plain(lambda x: np.signbit(x) if x.dtype.kind == "f" else x < 0),
    Op.NOT: _logical(np.logical_not, np.invert),
    Op.CAST: lambda c, e, x: numbers.cast(x, e.result.dtype, c.working(e.result.dtype)),
    Op.BITCAST: _bitcast,
    Op.STOP_GRADIENT: _plain(np.asarray),
    Op.ADD: _plain(np.add),
    Op.SUB: _plain(np.subtract),
    Op.MUL: _plain(np.multiply),
    Op.DIV: _plain(np.divide),
    Op.FLOOR_DIV: _plain(numbers.floor_divide),
    Op.MOD: _plain(numbers.modulo),
    Op.POW: _plain(numbers.power),
    Op.ATAN2: _plain(np.arctan2),
    Op.COPYSIGN: _plain(np.copysign),
    Op.NEXTAFTER: _nextafter,
    Op.MAXIMUM: _plain(np.maximum),
    Op.MINIMUM: _plain(np.minimum),
    Op.MULHI: _plain(numbers.multiply_high),
    Op.AND: _logical(np.logical_and, np.bitwise_and),
    Op.OR: _logical(np.logical_or, np.bitwise_or),
    Op.XOR: _logical(np.logical_xor, np.bitwise_xor),
    Op.SHL: _plain(numbers.shift_left),
    Op.SHR: _plain(numbers.shift_right),
    Op.EQ: _plain(np.equal),
    Op.NE: _plain(np.not_equal),
    Op.LT: _plain(np.less),
    Op.LE: _plain(np.less_equal),
    Op.GT: _plain(np.greater),
    Op.GE: _plain(np.greater_equal),
    Op.WHERE: _plain(np.where),
    Op.FULL: _full,
    Op.IOTA: _iota,
    Op.CONSTANT: lambda c, e: e.attributes["array"].astype(c.working(e.result.dtype)),
    Op.SIZE: lambda c, e: np.asarray(value_of(e.attributes["value"], c.sizes), np.int64),
    Op.RANDOM_BITS: _random_bits,
    Op.BROADCAST: _broadcast,
    Op.PERMUTE: lambda c, e, x: x.transpose(e.attributes["axes"]),
    Op.RESHAPE: lambda c, e, x: x.reshape(c.ints(e.attributes["shape"])),
    Op.SLICE: _slice,
    Op.PAD: _pad,
    Op.CONCAT: lambda c, e, *x: np.concatenate(x, e.attributes["axis"]),
    Op.WINDOW: _window,
    Op.SUM: _reduce(np.sum, Op.SUM),
    Op.PROD: _reduce(np.prod, Op.PROD),
    Op.MAX: _reduce(np.max, Op.MAX),
    Op.MIN: _reduce(np.min, Op.MIN),
    Op.ANY: lambda c, e, x: np.any(x, axis=e.attributes["axes"]),
    Op.ALL: lambda c, e, x: np.all(x, axis=e.attributes["axes"]),
    Op.ARGMAX: lambda c, e, x: np.argmax(x, axis=e.attributes["axes"][0]),
    Op.ARGMIN: lambda c, e, x: np.argmin(x, axis=e.attributes["axes"][0]),
    Op.DOT: _dot,
    Op.TAKE: _take,
    Op.TAKE_ALONG: lambda c, e, x, i: x[_grid(i, x.shape[e.attributes["axis"]], e.attributes["axis"])],
    Op.SCATTER_ADD: _scatter_add,
    Op.SCATTER_ALONG: _scatter_along,
    Op.SORT: lambda c, e, x: np.take_along_axis(x, _argsort(c, e, x), e.attributes["axis"]),
    Op.ARGSORT: _argsort,
    Op.SEARCHSORTED: lambda c, e, x, y: np.asarray(np.searchsorted(x, y, e.attributes["side"])),
    Op.CALL: _call,
    Op.SCAN: _scan,
    Op.BARRIER: _plain(np.asarray),
}


def constant(value: Literal, dtype: DType, context: Context) -> Array:
    """A literal of that dtype as a 0-d array."""
    return np.asarray(numbers.canonical(value, dtype), context.working(dtype))


def apply(context: Context, e: Equation, operands: list[Array]) -> Array:
    """The value of one equation, held in the working type of its dtype."""
    with np.errstate(all="ignore"):
        return np.asarray(MEANING[e.op](context, e, *operands)).astype(
            context.working(e.result.dtype), copy=False
        )


def _run(context: Context, function: Function, environment: dict[Value, Array]) -> tuple[Array, ...]:
    for e in function.equations:
        first = dt.bool_ if e.op is Op.WHERE else e.operand_dtype
        x = [
            environment[o] if isinstance(o, Value) else constant(o, e.operand_dtype if i else first, context)
            for i, o in enumerate(e.operands)
        ]
        out = apply(context, e, x)
        expected = context.ints(e.result.shape)
        assert out.shape == expected, f"{e.op.value} gives {out.shape} where its type says {expected}"
        environment[e.result] = out
    return tuple(environment[r] for r in function.results)


def bind_sizes(function: Function, arrays: Iterable[Array]) -> dict[str, int]:
    """The values of the named sizes that the shapes of the arguments tell."""
    pairs = list(zip(function.parameters, arrays, strict=True))
    out: dict[str, int] = {}
    for p, x in pairs:
        if len(p.shape) == x.ndim:
            out.update(
                {name: n for extent, n in zip(p.shape, x.shape, strict=True) if (name := _lone_name(extent))}
            )
    for p, x in pairs:
        if tuple(value_of(n, out) for n in p.shape) != x.shape:
            raise ValueError(f"parameter {p!r} got an array of shape {x.shape}")
    return out


def _lone_name(extent: Extent) -> str | None:
    atom = next(iter(extent.terms))[0] if isinstance(extent, Size) else ("", "")
    return atom[1] if atom[0] == "name" and extent == size(atom[1]) else None


def evaluate(
    function: Function,
    *arrays: Any,
    sizes: Mapping[str, int] | None = None,
    exact: bool = False,
    rounded: bool = True,
) -> tuple[Array, ...]:
    """The results of `function` for these arguments, new arrays of the results' dtypes.

    Named sizes are read off the arguments' shapes; `sizes` gives those that no shape tells. With `rounded=False` the results
    stay as wide as they were computed.
    Raises OutOfRangeError for an index outside its axis, ValueError for a shape that does not fit.
    """
    given = [np.asarray(x) for x in arrays]
    context = Context({**(sizes or {}), **bind_sizes(function, given)}, exact)
    environment = {
        p: x.astype(context.working(p.dtype)) for p, x in zip(function.parameters, given, strict=True)
    }
    results = _run(context, function, environment)
    if not rounded:
        return results
    with np.errstate(all="ignore"):
        return tuple(
            np.array(x.astype(r.dtype.numpy), order="C")
            for r, x in zip(function.results, results, strict=True)
        )


assert set(MEANING) == set(Op)
