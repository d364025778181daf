"""Named sizes that a program is compiled for as numbers.

    scan(h: f32[B, D, N] -> sum(h * c, axis=N))      with N = 16:      scan(h: f32[B, D, 16] -> sum(h * c, axis=2))
A step that folds over an axis keeps its carry in registers where it knows how long that axis is; of unknown length the carry
lies in memory, several times slower. So a call whose N is small has a program for that N; all other names stay names.
In:  a Function as it was traced.  Out: the names for which that pays, and the program with numbers for names.
Read before: ir/scans.py. Read next: plan_scan.py, specialisation/numbers.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kdsl.ir.ops import REDUCTIONS, Op
from kdsl.ir.scans import Scan
from kdsl.ir.sizes import Extent, Size, names_in, substitute
from kdsl.ir.tensor import Equation, Function, TensorType, Value


def folded_names(function: Function) -> frozenset[str]:
    """The names of axes of a carry that its step folds, or that what follows the scan folds by themselves.

    A fold over several axes after a scan (a loss) does not move into the step, whatever is known of its sizes."""
    scans = [e for e in function.equations if e.op is Op.SCAN]
    if not scans or _has_rules(function):  # a user's rule is Python, and was told the names
        return frozenset()
    carried = {n for e in scans for p in Scan(e).parameters()[0] for x in p.shape for n in names_in(x)}
    out: set[str] = set()
    waiting = {e.result for e in scans}
    for e in function.equations:
        if any(v in waiting for v in e.values):
            waiting.add(e.result)
            axes = _folded(e)
            out |= names_in(axes[0]) if len(axes) == 1 else set()
    for f in {f for e in scans for f in (e.attributes["step"], e.attributes["replay"]) if f is not None}:
        for e in f.equations:
            out |= {n for x in _folded(e) for n in names_in(x)}
            out |= folded_names(f) if e.op is Op.SCAN else set()
    return frozenset(out & carried)


def _has_rules(function: Function) -> bool:
    inner = (f for e in function.equations for f in e.attributes.values() if isinstance(f, Function))
    return any(e.op is Op.CALL for e in function.equations) or any(map(_has_rules, inner))


def _folded(e: Equation) -> list[Extent]:
    """The extents of the axes that an equation folds."""
    if e.op in REDUCTIONS:
        return [e.values[0].shape[axis] for axis in e.attributes["axes"]]
    if e.op is not Op.DOT:
        return []
    a = e.attributes
    extents = dict(zip((*a["left"], *a["right"]), (*e.values[0].shape, *e.values[1].shape), strict=True))
    return [n for c, n in extents.items() if c not in a["out"]]


def with_numbers(function: Function, numbers: Mapping[str, int]) -> Function:
    """The program with numbers in place of names."""
    return _Numbered(numbers).function(function) if numbers else function


class _Numbered:
    """Writes programs again; a step that several equations share stays one."""

    def __init__(self, numbers: Mapping[str, int]) -> None:
        self.numbers = numbers
        self.made: dict[Function, Function] = {}

    def function(self, f: Function) -> Function:
        if f not in self.made:
            new: dict[Value, Value] = {}
            parameters = tuple(self.value(p, new) for p in f.parameters)
            equations = []
            for e in f.equations:
                operands = tuple(new[o] if isinstance(o, Value) else o for o in e.operands)
                attributes = {k: self.attribute(v) for k, v in e.attributes.items()}
                equations.append(replace(e, result=self.value(e.result, new), operands=operands, attributes=attributes))
            facts = (substitute(n, self.numbers) for n in f.facts)
            self.made[f] = replace(
                f, parameters=parameters, equations=tuple(equations), results=tuple(new[r] for r in f.results),
                facts=tuple(n for n in facts if isinstance(n, Size)),
            )  # fmt: skip
        return self.made[f]

    def value(self, v: Value, new: dict[Value, Value]) -> Value:
        shape = tuple(substitute(n, self.numbers) for n in v.shape)
        new[v] = v if shape == v.shape else Value(TensorType(v.dtype, shape), v.name)
        return new[v]

    def attribute(self, x: Any) -> Any:
        if isinstance(x, Size):
            return substitute(x, self.numbers)
        if isinstance(x, tuple):
            return tuple(map(self.attribute, x))
        return self.function(x) if isinstance(x, Function) else x
