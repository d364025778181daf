"""Index tensors within the steps of scans, for the check that none leaves its axis.

In:  equations.  Out: the same with what must be known of indices, and (index tensor, extent, place) for each TAKE in a step.
An index that is a slice or a closure is checked as the whole operand; one that a step computes becomes a result of the scan.
Read before: ir/scans.py. Read next: prepare.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Union

from kdsl.ir.ops import Op
from kdsl.ir.rules import result_type
from kdsl.ir.scans import Scan
from kdsl.ir.sizes import Extent
from kdsl.ir.tensor import Equation, Function, Location, Value

Found = tuple[Value, Extent, Union[Location, None]]  # an index tensor, how long the axis is that it counts along, where
SAME_ELEMENTS = (Op.BROADCAST, Op.RESHAPE, Op.PERMUTE)
INDEXED = (Op.TAKE, Op.TAKE_ALONG, Op.SCATTER_ADD, Op.SCATTER_ALONG)


def indices_of_scans(equations: Sequence[Equation]) -> tuple[list[Equation], list[Found]]:
    """The equations, and the index tensors of their steps."""
    found: list[Found] = []
    out: list[Equation] = []
    known: dict[tuple, Function] = {}
    for e in equations:
        if e.op is not Op.SCAN:
            out.append(e)
            continue
        s, inside = Scan(e), []
        first = s.key not in known
        if first:
            known[s.key], inside = _with_indices(s, found)
        step, count = known[s.key], len(s.step.results)
        if step is s.step:
            out.append(e)
            continue
        more = len(step.results) - count
        a = {**e.attributes, "step": step, "out_axes": s.out_axes + (0,) * more}
        if first:
            for i, index in enumerate(step.results[count:]):
                one = {**a, "index": count + i}
                whole = Value(result_type(Op.SCAN, e.operands, one), index.name)
                out.append(Equation(whole, Op.SCAN, e.operands, one, e.location))
                found += [(whole, extent, at) for v, extent, at in inside if v is index]
        out.append(replace(e, attributes={**a, "index": s.index + more if s.index >= count else s.index}))
    return out, found


def _with_indices(s: Scan, found: list[Found]) -> tuple[Function, list[Found]]:
    """The step with the indices that it computes as further results, and what these are; those of operands join `found`."""
    _, _, xs, closures = s.parameters()
    outside = {**dict(zip(xs, s.xs, strict=True)), **dict(zip(closures, s.closures, strict=True))}
    equations, inner = indices_of_scans(s.step.equations)  # of scans within the step
    made = {e.result: e for e in equations}
    taken = [(e.values[1], e.values[0].shape[e.attributes["axis"]], e.location) for e in s.step.equations if e.op in INDEXED]
    inside: list[Found] = []
    for index, extent, at in (*taken, *inner):
        while index in made and made[index].op in SAME_ELEMENTS:
            index = made[index].values[0]
        if index in outside:
            found.append((outside[index], extent, at))
        elif index not in made or not _is_place(made[index], extent):
            inside.append((index, extent, at))
    more = dict.fromkeys(v for v, _, _ in inside)
    step = replace(s.step, equations=tuple(equations), results=(*s.step.results, *more)) if more else s.step
    return step, inside


def _is_place(e: Equation, extent: Extent) -> bool:
    """Is this the place of an element along an axis of so many, which need not be checked?"""
    if e.op is Op.ARGSORT:
        return e.result.shape[e.attributes["axis"]] == extent
    return e.op in (Op.ARGMAX, Op.ARGMIN) and e.values[0].shape[e.attributes["axes"][0]] == extent
