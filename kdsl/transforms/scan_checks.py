"""Index tensors within the steps of scans, for the check that none leaves its axis.

In:  equations.  Out: the same with what must be known of indices, and (index tensor, extent, place) for each TAKE in a step.
An index that is a slice or a closure is checked as the whole operand; one that a step computes becomes a result of the scan.
Read before: ir/scans.py. Read next: prepare.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kdsl.ir.ops import Op
from kdsl.ir.rules import result_type
from kdsl.ir.scans import Scan
from kdsl.ir.sizes import Extent
from kdsl.ir.tensor import Equation, Function, Location, Value

Found = tuple[Value, Extent, Location | None]
SAME_ELEMENTS = (Op.BROADCAST, Op.RESHAPE, Op.PERMUTE)


def indices_of_scans(equations: Sequence[Equation]) -> tuple[list[Equation], list[Found]]:
    """The equations, and the index tensors of their steps."""
    found: list[Found] = []
    out: list[Equation] = []
    known: dict[tuple, Function] = {}
    for e in equations:
        if e.op is not Op.SCAN:
            out.append(e)
            continue
        s = Scan(e)
        first = s.key not in known
        if first:
            known[s.key] = _with_indices(s, found)
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
                found += [(whole, extent, at) for inside, extent, at in _taken(s.step) if inside is index]
        out.append(replace(e, attributes={**a, "index": s.index + more if s.index >= count else s.index}))
    return out, found


def _taken(step: Function) -> list[Found]:
    """The index tensors of a function, as far back as their elements are the same."""
    made = {e.result: e for e in step.equations}
    out: list[Found] = []
    for e in step.equations:
        if e.op in (Op.TAKE, Op.TAKE_ALONG):
            x, index = e.values
            while index in made and made[index].op in SAME_ELEMENTS:
                index = made[index].values[0]
            out.append((index, x.shape[e.attributes["axis"]], e.location))
    return out


def _with_indices(s: Scan, found: list[Found]) -> Function:
    """The step with the indices that it computes as further results; those of its operands join `found`."""
    _, _, xs, closures = s.parameters()
    outside = {**dict(zip(xs, s.xs, strict=True)), **dict(zip(closures, s.closures, strict=True))}
    more: dict[Value, None] = {}
    for index, extent, at in _taken(s.step):
        if index in outside:
            found.append((outside[index], extent, at))
        else:
            more[index] = None
    return replace(s.step, results=(*s.step.results, *more)) if more else s.step
