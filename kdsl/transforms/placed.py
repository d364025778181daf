"""Placed concatenations: those whose parts are made by kernels of their own, which can write them where they belong.

In:  a prepared Function.  Out: the equations `concat` that are memory and no kernel's work (schedule/placed.py carries it out).

    dxz = concat(dx, dz)      dx a map's result, dz a scan's        dxz @ w, and dxz.T @ x

A product that reads a concatenation must have it side by side anyway, and would copy it for every use.
What a concatenation of other values costs is decided like that of any movement: its reader selects among the parts.
Read before: transforms/free.py. Read next: transforms/judge.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kdsl.ir.ops import Op
from kdsl.ir.tensor import Equation, Function, Value, users


def placed_concatenations(
    function: Function, results: Iterable[Value], is_stored: Callable[[Value], bool]
) -> frozenset[Equation]:
    """The concatenations of a program that a product reads and whose parts are all stored, each only here."""
    kept, taken = set(results), set[Value]()
    readers = users(function)
    found = []
    for e in function.equations:
        if e.op is not Op.CONCAT or e.result in kept or len(set(e.values)) < len(e.operands):
            continue
        read = any(r.op is Op.DOT for r in readers.get(e.result, ()))
        if read and not any(v in kept or v in taken or not is_stored(v) for v in e.values):
            taken.update(e.values)
            found.append(e)
    return frozenset(found)
