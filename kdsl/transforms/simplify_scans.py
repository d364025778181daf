"""Simplification of scans: their steps are simplified too, and hand on nothing that is not read.

In:  a scan to be.  Out: the same with a simpler step, or None.
Read before: rewrite.py, ir/scans.py. Read next: transforms/derivatives_scan.py.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from kdsl.ir.ops import Op
from kdsl.ir.rules import identity
from kdsl.ir.scans import scan_result
from kdsl.ir.tensor import Function, Operand
from kdsl.transforms.prune import prune
from kdsl.transforms.rewrite import Simplifier, rewrite, rule

simplified: WeakSet[Function] = WeakSet()  # steps that are as simple as they get
_simpler: WeakKeyDictionary[Function, Function] = WeakKeyDictionary()


def simpler_step(step: Function) -> Function:
    """The step simplified: one function for one step, so that the equations of a scan stay together."""
    if step in simplified:
        return step
    if step not in _simpler:
        _simpler[step] = out = prune(rewrite(step, Simplifier()))
        simplified.add(out)
    return _simpler[step]


@rule(Op.SCAN, exact=True)
def nothing_of_a_scan(b: Simplifier, op: Op, operands: tuple[Any, ...], a: dict[str, Any]) -> Operand | None:
    """a result of a scan that has no elements -> such an array"""
    t = scan_result(a)
    return b.full(identity(Op.SUM, t.dtype), t.shape, t.dtype) if 0 in t.shape else None


@rule(Op.SCAN, exact=True)
def simplify_step(b: Simplifier, op: Op, operands: tuple[Any, ...], a: dict[str, Any]) -> Operand | None:
    """scan(step) -> scan(simplified step)"""
    steps = {k: None if a[k] is None else simpler_step(a[k]) for k in ("step", "replay")}
    return None if all(steps[k] is a[k] for k in steps) else b.emit(op, *operands, **{**a, **steps})
