"""Scans: a step that runs along an axis and hands its carry on, and the cumulative functions.

In:  a Python function of (carry, slice), tensors.  Out: the last carry and what the steps gave, stacked.
The step is traced once, into a function of its own; tensors of the enclosing kernel that it uses become its closures.
Read before: operands.py, reductions.py, ir/scans.py. Read next: transforms/derivatives_scan.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

import kdsl.dtypes as dt
from kdsl.dtypes import DType
from kdsl.errors import ArgumentError, AxisError, DtypeError, KdslError, ShapeError
from kdsl.ir.location import kernel_boundary, return_location
from kdsl.ir.ops import Op
from kdsl.ir.rules import Builder, identity
from kdsl.ir.scans import scan_attributes, without
from kdsl.ir.sizes import Extent
from kdsl.ir.tensor import Function, TensorType, Value
from kdsl.language.dispatch import FUNCTIONS, current, public, require, tracing
from kdsl.language.operands import builder, cast, emit, fitted, known, one_axis, traced, value, wanted_dtype
from kdsl.language.pieces import concat
from kdsl.language.reductions import _accumulator
from kdsl.language.tracer import Tracer

Leaves = list[tuple[str, Any]]


@public
def scan(step: Callable[..., Any], init: Any, xs: Any, /, axis: int = 0, reverse: bool = False) -> Any:
    """carry, y = step(carry, x) along an axis: (the last carry, the ys stacked along that axis), as jax.lax.scan.

        carry[t + 1], ys[t] = step(carry[t], xs[t])     from the last position to the first where reverse is set

    carry, x and y are tensors or nested tuples, lists and dicts of them; y may be None. The carry keeps structure, shape and
    dtype. step may use any tensor of the enclosing kernel. It is traced once; it is differentiable if its body is.
    A length of 0 gives init and empty ys.
    Memory: only what is returned; a gradient keeps every 8th to 32nd carry and makes those between again.
    Raises: ShapeError, DtypeError or ArgumentError where the carry changes or the xs have different lengths.
    Example: `last, ys = kd.scan(lambda h, x: (0.9 * h + x, h), kd.zeros(4), x)`.
    """
    return _scan(step, init, xs, axis, reverse)


def _scan(step: Callable[..., Any], init: Any, xs: Any, axis: int, reverse: bool, both: list[Any] | None = None) -> Any:
    """A scan. `both`: where its step, when it is traced, says what it makes of the carry and the slice if these are combined."""
    carry, slices = _Nest(init, "carry"), _Nest(xs, "xs")
    carries = [value(x) for x in carry.leaves]
    operands = [value(x) for x in slices.leaves]
    if not operands:
        raise ArgumentError("scan needs a tensor to run along", hint="pass kd.arange(n) as xs to make n steps")
    axes = [one_axis(axis, len(v.shape), str(v.type)) for v in operands]
    length = _common_length(operands, axes)
    parameters = [Value(v.type, v.name) for v in carries]
    parameters += [Value(TensorType(v.dtype, without(v.shape, a)), v.name) for v, a in zip(operands, axes)]
    inner = Builder()
    with tracing(inner) as running:
        tracers = iter([Tracer(inner, p) for p in parameters])
        given = carry.rebuilt(tracers), slices.rebuilt(tracers)
        _check_takes(step, "a step", "(carry, x)")
        returned = _run_step(step, *given)
        at = _returning(step, *given)
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise ArgumentError(f"a step returns (carry, y), not {_short(returned)}", hint="y may be None", location=at())
        after, y = _Nest(returned[0], "carry"), _Nest(returned[1], "y")
        next_carries = _same_carry(carry, after, parameters[: len(carries)], at)
        ys = [value(x) for x in y.leaves]
        combined = [value(x) for x in both or ()]
    outer = current()
    assert outer is not None
    outer.checks.extend(running.checks)
    captured = [(value(tracer), parameter) for tracer, parameter in running.captured.values()]
    name = getattr(step, "__name__", "step")
    function = Function(
        name if name.isidentifier() else "step",
        (*parameters, *(p for _, p in captured)), tuple(inner.equations), (*next_carries, *ys), builder().location,
    )  # fmt: skip
    out_axes = [one_axis(axis, len(v.shape) + 1, "the stacked ys") for v in ys]
    a = scan_attributes(function, len(carries), axes, out_axes, length, bool(reverse))
    if combined:
        a["combine"] = replace(function, name="combine", results=tuple(combined))
    inputs = (*carries, *operands, *(v for v, _ in captured))
    results = [traced(emit(Op.SCAN, *inputs, **a, index=i)) for i in range(len(function.results))]
    stacked = iter(results[len(carries) :])
    return carry.rebuilt(iter(results[: len(carries)])), y.rebuilt(stacked)


@kernel_boundary
def _run_step(step: Callable[..., Any], carry: Any, x: Any) -> Any:
    return step(carry, x)


Place = Callable[[], Any]  # asked where there is a mistake


def _returning(step: Callable[..., Any], carry: Any, x: Any) -> Place:
    """Where a step says what it returns, with the scan that it belongs to."""

    def place() -> Any:
        running = current()
        assert running is not None
        assert running.outer is not None
        found, scanned = return_location(lambda: _run_step(step, carry, x), step), running.outer.builder.location
        if found is None or scanned is None:
            return found
        return replace(found, callers=(replace(scanned, callers=()), *scanned.callers))

    return place


def _check_takes(f: Callable[..., Any], what: str, arguments: str) -> None:
    """`f` can be called with two arguments, as far as Python can tell."""
    try:
        signature = inspect.signature(f)
    except (TypeError, ValueError):  # a callable of C's says nothing
        return
    try:
        signature.bind(None, None)
    except TypeError as mistake:
        name = getattr(f, "__name__", type(f).__name__)
        raise ArgumentError(f"{what} takes {arguments}: {name}{signature} does not, {mistake}") from None


def _common_length(operands: list[Value], axes: list[int]) -> Extent:
    first, axis = operands[0], axes[0]
    for v, a in zip(operands[1:], axes[1:]):
        mistake = ShapeError(
            f"cannot scan {first.type} and {v.type} together: axes {axis} and {a} are {first.shape[axis]} and {v.shape[a]}",
            label=f"{first.type}, {v.type}",
        )
        require(v.shape[a], "==", first.shape[axis], mistake)
    return first.shape[axis]


def _same_carry(before: _Nest, after: _Nest, wanted: list[Value], at: Place) -> list[Value]:
    """The new carry's values; each must have the type of the old one. Python numbers take it."""
    if before.structure != after.structure:
        raise ArgumentError(
            f"the carry changes its structure: {before.structure} becomes {after.structure}",
            hint="a step returns a carry like the one that it got",
            location=at(),
        )
    out = []
    for path, begin, x, old in zip(before.paths, before.leaves, after.in_order_of(before), wanted):
        new = known(x)
        if not isinstance(new, Value):
            new = emit(Op.FULL, value=fitted(new, old.dtype), shape=(), dtype=old.dtype)
        if new.dtype is not old.dtype or new.shape != old.shape:
            kind: type[KdslError] = ShapeError if new.shape != old.shape else DtypeError
            cast_it = f"cast the new carry, .astype(kd.{old.dtype})"
            if isinstance(begin, (bool, int, float, np.generic)):
                cast_it = f"begin with kd.full({old.shape}, {begin!r}, dtype=kd.{new.dtype}): {begin!r} begins as {old.type}"
            raise kind(
                f"{path} changes its type: {old.type} becomes {new.type}",
                label=str(new.type),
                facts=("the carry keeps shape and dtype from step to step",),
                hint=cast_it if new.shape == old.shape else f"begin with the shape that it has later: kd.zeros({new.shape}, …)",
                location=at(),
            )
        out.append(new)
    return out


class _Nest:
    """Nested tuples, lists and dicts of tensors, taken apart. None holds no tensor and stays None."""

    def __init__(self, nested: Any, path: str) -> None:
        self.nested = nested
        found: Leaves = []
        self.structure = self._flatten(nested, path, found)
        self.paths = [p for p, _ in found]
        self.leaves = [x for _, x in found]

    def _flatten(self, x: Any, path: str, found: Leaves) -> str:
        if isinstance(x, dict):
            inside = {repr(k): self._flatten(v, f"{path}[{k!r}]", found) for k, v in x.items()}
            return "{" + ", ".join(f"{k}: {inside[k]}" for k in sorted(inside)) + "}"  # whatever order the keys are in
        if isinstance(x, (tuple, list)):
            return f"{type(x).__name__}({', '.join(self._flatten(v, f'{path}[{i}]', found) for i, v in enumerate(x))})"
        if x is None:
            return "None"
        found.append((path, x))
        return "tensor"

    def in_order_of(self, other: _Nest) -> list[Any]:
        """The leaves of this nest, in the order of one with the same structure and path."""
        leaves = dict(zip(self.paths, self.leaves))
        return [leaves[path] for path in other.paths]

    def rebuilt(self, leaves: Iterator[Any]) -> Any:
        """The same with other tensors."""

        def build(x: Any) -> Any:
            if isinstance(x, dict):
                return {k: build(v) for k, v in x.items()}
            if isinstance(x, (tuple, list)):
                parts = [build(v) for v in x]
                return type(x)(*parts) if hasattr(x, "_fields") else type(x)(parts)
            return None if x is None else next(leaves)

        return build(self.nested)


def _short(x: object) -> str:
    text = repr(x)
    return text if len(text) <= 40 else f"{text[:37]}..."


@public
def associative_scan(combine: Callable[..., Any], xs: Any, /, axis: int = 0, reverse: bool = False) -> Any:
    """x[0], combine(x[0], x[1]), combine(combine(x[0], x[1]), x[2]) … along an axis; reverse begins at the end.

        y[0] = x[0]     y[t] = combine(y[t - 1], x[t])

    combine(earlier, later) takes and gives tensors, or nested tuples, lists and dicts of them, of the shapes and dtypes of xs
    without the axis; it is to be associative. Result: as xs.
    Raises: ShapeError, DtypeError or ArgumentError where combine gives something else or the xs have different lengths.
    Example: `kd.associative_scan(lambda a, b: a * b, x, axis=-1)`.
    """
    nest = _Nest(xs, "xs")
    operands = [value(x) for x in nest.leaves]
    if not operands:
        raise ArgumentError("associative_scan needs a tensor to run along")
    axes = [one_axis(axis, len(v.shape), str(v.type)) for v in operands]
    length = _common_length(operands, axes)
    number = emit(Op.IOTA, shape=(length,), axis=0, dtype=dt.i64)
    first = 0 if not reverse else length - 1
    begins = FUNCTIONS["equal"](traced(number), first)
    moved = [_axis_first(v, a) for v, a in zip(operands, axes)]
    zeros = [
        traced(emit(Op.FULL, value=fitted(0, v.dtype), shape=without(v.shape, a), dtype=v.dtype)) for v, a in zip(operands, axes)
    ]
    both: list[Any] = []

    def step(carry: tuple[Any, ...], x: tuple[Any, Any]) -> tuple[Any, Any]:
        is_first, now = x
        _check_takes(combine, "combine", "(earlier, later)")
        pair = nest.rebuilt(iter(carry)), nest.rebuilt(iter(now))
        together, at = _Nest(combine(*pair), "xs"), _returning(combine, *pair)
        if together.structure != nest.structure:
            raise ArgumentError(f"combine takes {nest.structure} and gives {together.structure}", location=at())
        given = zip(nest.paths, together.in_order_of(nest), now)
        both[:] = [_combined(path, x, new.value, at) for path, x, new in given]
        out = tuple(FUNCTIONS["where"](is_first, new, x) for x, new in zip(both, now))
        return out, out

    _, ys = _scan(step, tuple(zeros), (begins, tuple(traced(v) for v in moved)), 0, reverse, both)
    return nest.rebuilt(iter([traced(_axis_back(value(y), a)) for y, a in zip(ys, axes)]))


def _combined(path: str, x: Any, like: Value, at: Place) -> Tracer:
    """What combine gives for a tensor; a Python number takes its type."""
    new = known(x)
    if not isinstance(new, Value):
        return traced(emit(Op.FULL, value=fitted(new, like.dtype), shape=like.shape, dtype=like.dtype))
    if new.type != like.type:
        kind: type[KdslError] = ShapeError if new.shape != like.shape else DtypeError
        raise kind(
            f"combine takes {like.type} and gives {new.type} for {path}",
            label=str(new.type),
            facts=("what combine gives is what it takes next",),
            hint=f"cast it, .astype(kd.{like.dtype})" if new.shape == like.shape else "",
            location=at(),
        )
    return traced(new)


def _axis_first(v: Value, axis: int) -> Value:
    order = (axis, *(i for i in range(len(v.shape)) if i != axis))
    return v if axis == 0 else emit(Op.PERMUTE, v, axes=order)


def _axis_back(v: Value, axis: int) -> Value:
    order = [i + 1 for i in range(len(v.shape) - 1)]
    order.insert(axis, 0)
    return v if axis == 0 else emit(Op.PERMUTE, v, axes=tuple(order))


# --- cumulative functions ---------------------------------------------------------------------------------------------------
def _cumulative(name: str, op: str, start: Op, v: Value, axis: Any, include_initial: bool) -> Tracer:
    if axis is None:
        if len(v.shape) != 1:
            raise AxisError(f"{name} of {v.type} needs an axis", label=str(v.type), hint="pass axis=-1, or any other")
        axis = 0
    along = one_axis(axis, len(v.shape), str(v.type))
    before = identity(start, v.dtype)
    shape = without(v.shape, along)
    init = traced(emit(Op.FULL, value=before, shape=shape, dtype=v.dtype))

    def step(carry: Any, x: Any) -> tuple[Any, Any]:
        now = FUNCTIONS[op](carry, x)
        return now, now

    _, ys = scan(step, init, traced(v), along)
    if not include_initial:
        return ys
    edge = traced(emit(Op.FULL, value=before, shape=(*shape[:along], 1, *shape[along:]), dtype=v.dtype))
    return concat([edge, ys], axis=along)


def _summable(x: Any, dtype: Any) -> Value:
    v = value(x)
    wanted: DType = _accumulator(v.dtype) if dtype is None else wanted_dtype(dtype)
    return cast(v, wanted)


@public
def cumulative_sum(x: Any, /, *, axis: Any = None, dtype: Any = None, include_initial: bool = False) -> Tracer:
    """x[0], x[0] + x[1] … along an axis. Integers and bools give i64 (u64 for unsigned).

    `include_initial` puts a 0 in front. Raises: AxisError without an axis where x is not 1-d.
    Example: `kd.cumulative_sum(x, axis=-1)`.
    """
    return _cumulative("cumulative_sum", "add", Op.SUM, _summable(x, dtype), axis, include_initial)


@public
def cumulative_prod(x: Any, /, *, axis: Any = None, dtype: Any = None, include_initial: bool = False) -> Tracer:
    """x[0], x[0] * x[1] … along an axis. Integers and bools give i64 (u64 for unsigned).

    `include_initial` puts a 1 in front. Raises: AxisError without an axis where x is not 1-d.
    Example: `kd.cumulative_prod(x, axis=-1)`.
    """
    return _cumulative("cumulative_prod", "multiply", Op.PROD, _summable(x, dtype), axis, include_initial)


@public
def cumulative_max(x: Any, /, *, axis: Any = None, include_initial: bool = False) -> Tracer:
    """The largest element so far along an axis, NaN from the first NaN on. `include_initial` puts the least value in front.

    Raises: AxisError without an axis where x is not 1-d. Example: `kd.cumulative_max(x, axis=-1)`.
    """
    v = value(x)
    op = "logical_or" if v.dtype.kind == "bool" else "maximum"
    return _cumulative("cumulative_max", op, Op.MAX, v, axis, include_initial)
