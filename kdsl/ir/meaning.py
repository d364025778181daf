"""The NumPy meaning of every op, and of a whole program: the oracle, the reference and the constant folder in one.

In:  a Function and NumPy arrays.  Out: NumPy arrays.
    evaluate(function, x, w)                 f16 and bf16 are computed in f32 and rounded where they are cast or returned
    evaluate(function, x, w, exact=True)     every floating value in f64, rounded at casts to a narrower type and at the end
Read before: ir/ops.py, ir/meaning_elementwise.py, ir/meaning_arrays.py. Read next: transforms/simplify.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

import kdsl.dtypes as dt
from kdsl.ir.meaning_arrays import ARRAYS
from kdsl.ir.meaning_elementwise import ELEMENTWISE, Array, Context, Meaning, constant
from kdsl.ir.ops import Op
from kdsl.ir.scans import Scan
from kdsl.ir.sizes import Extent, Size, size
from kdsl.ir.sizes import evaluate as value_of
from kdsl.ir.tensor import Equation, Function, Value


# --- equations that hold programs --------------------------------------------------------------------------------------------
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


MEANING: dict[Op, Meaning] = {**ELEMENTWISE, **ARRAYS, Op.CALL: _call, Op.SCAN: _scan}
assert set(MEANING) == set(Op)


# --- programs ----------------------------------------------------------------------------------------------------------------
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
