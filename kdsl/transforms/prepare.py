"""A program as kernels can compute it: every result is memory of its own, every index tensor is checked.

In:  an expanded Function.  Out: a Function whose results are distinct computed values, hidden results for index checks last.
A result that is an argument, or the same value twice, becomes a copy. For every index tensor of a TAKE or a scatter its
largest and least value become results: the caller compares them with the axis and raises OutOfRangeError.
Read next: group.py; docs/decisions/index-errors.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from kdsl.ir.frame import Illegal, IndexCheck
from kdsl.ir.ops import Op
from kdsl.ir.rules import Builder, result_type
from kdsl.ir.sizes import Extent
from kdsl.ir.tensor import Equation, Function, Shape, Value
from kdsl.transforms.free import is_alias
from kdsl.transforms.letters import letters_of
from kdsl.transforms.scan_checks import Found, indices_of_scans

INDEXED = {Op.TAKE: "axis", Op.TAKE_ALONG: "axis", Op.SCATTER_ADD: "axis", Op.SCATTER_ALONG: "axis"}


@dataclass(frozen=True)
class Prepared:
    function: Function
    results: tuple[Value, ...]
    written: tuple[Value, ...]  # what kernels write for each result: a scan's may have another shape
    checks: tuple[IndexCheck, ...]


def prepare(function: Function, strides: Mapping[Value, Shape]) -> Prepared:
    """Copies for results that need them, and the checks of indices."""
    made = {e.result: e for e in function.equations}
    equations, in_steps = indices_of_scans(function.equations)

    def emit(op: Op, *operands: Value, **attributes: object) -> Value:
        result = Value(result_type(op, operands, attributes), operands[0].name)
        equations.append(Equation(result, op, tuple(operands), dict(attributes)))
        return result

    def root(v: Value) -> Value:
        while v in made and is_alias(made[v]):
            v = made[v].values[0]
        return v

    results: list[Value] = []
    written: list[Value] = []
    taken: set[Value] = set()
    for v in function.results:
        base = root(v)
        if v in taken or base in taken or base not in made or made[base].op is Op.CONSTANT:
            v = base = emit(Op.BARRIER, v)
        taken |= {v, base}
        results.append(v)
        written.append(base if base in made and made[base].op is Op.SCAN else v)
    checks = _checks(equations, in_steps, made, emit)
    equations = [q for e in equations for q in _scatter_as_kernels_can(e)]
    equations = [q for e in equations for q in _reshape_as_kernels_can(e, strides)]
    live = _live(equations, [*results, *(v for c in checks for v in (c.largest, c.least))])
    hidden = tuple(dict.fromkeys(v for c in checks for v in (c.largest, c.least)))
    ready = replace(function, equations=tuple(live), results=(*results, *hidden))
    return Prepared(ready, ready.results, (*written, *hidden), tuple(checks))


def _checks(equations: list[Equation], in_steps: list[Found], made: Mapping[Value, Equation], emit) -> list[IndexCheck]:  # type: ignore[no-untyped-def]
    checks: list[IndexCheck] = []
    seen: dict[tuple[Value, Extent], None] = {}
    ends: dict[Value, tuple[Value, Value]] = {}
    read = [e for e in equations if e.op in INDEXED]
    taken = [(e.values[1], e.values[0].shape[e.attributes["axis"]], e.location) for e in read]
    for index, extent, location in (*taken, *in_steps):
        while index in made and made[index].op in (Op.BROADCAST, Op.RESHAPE, Op.PERMUTE):
            index = made[index].values[0]
        if (index, extent) in seen:
            continue
        seen[index, extent] = None
        if index not in ends:
            axes = tuple(range(len(index.shape)))
            if axes:
                ends[index] = emit(Op.MAX, index, axes=axes), emit(Op.MIN, index, axes=axes)
            else:
                same = emit(Op.BARRIER, index)
                ends[index] = same, same
        checks.append(IndexCheck(extent, *ends[index], location))
    return checks


def _reshape_as_kernels_can(e: Equation, strides: Mapping[Value, Shape]) -> list[Equation]:
    """A reshape to nothing is made anew; one that tears axes of an argument with gaps reads a copy of it."""
    if e.op is not Op.RESHAPE:
        return [e]
    (x,) = e.values
    if e.result.type.count == 0 and x.shape != e.result.shape:
        attributes = {"value": 0, "shape": e.result.shape, "dtype": e.result.dtype}
        return [Equation(e.result, Op.FULL, (), attributes, e.location)]
    if x not in strides:
        return [e]
    try:
        letters_of([e])
    except Illegal:
        copy = Equation(Value(x.type, x.name), Op.BARRIER, (x,), {}, e.location)
        return [copy, replace(e, operands=(copy.result,))]
    return [e]


def _scatter_as_kernels_can(e: Equation) -> list[Equation]:
    """A scatter of one update for each line is a map; a scatter of f16 or bf16 adds in f32."""
    if e.op not in (Op.SCATTER_ADD, Op.SCATTER_ALONG):
        return [e]
    b = Builder(e.location)
    x, index, updates = e.values
    axis, n = e.attributes["axis"], x.shape[e.attributes["axis"]]
    if e.op is Op.SCATTER_ALONG and index.shape == (*x.shape[:axis], 1, *x.shape[axis + 1 :]):
        zero = b.emit(Op.LT, index, 0)
        length = b.cast(b.emit(Op.SIZE, value=n), index.dtype)  # type: ignore[arg-type]
        place = b.emit(Op.WHERE, zero, b.emit(Op.ADD, index, b.broadcast_to(length, index.shape)), index)  # type: ignore[arg-type]
        hit = b.emit(Op.EQ, b.broadcast_to(place, x.shape), b.emit(Op.IOTA, shape=x.shape, axis=axis, dtype=index.dtype))  # type: ignore[arg-type]
        more = b.emit(Op.ADD, x, b.broadcast_to(updates, x.shape))
        return [*b.equations, Equation(e.result, Op.WHERE, (hit, more, x), {}, e.location)]
    if x.dtype.compute is not x.dtype:
        wide = [b.cast(v, x.dtype.compute) for v in (x, updates)]
        total = b.emit(e.op, wide[0], index, wide[1], axis=axis)
        return [*b.equations, Equation(e.result, Op.CAST, (total,), {"dtype": x.dtype}, e.location)]
    return [e]


def _live(equations: list[Equation], results: list[Value]) -> list[Equation]:
    wanted = set(results)
    out: list[Equation] = []
    for e in reversed(equations):
        if e.result in wanted:
            out.append(e)
            wanted.update(e.values)
    return out[::-1]
