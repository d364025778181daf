"""Constants leave the steps of scans: an array is the program's, and a step sees it as a tensor that it closes over.

    scan(step(c, x) = c + [1, 2], x)        ->  scan(step(c, x, k) = c + k, x, k = [1, 2])

In:  the step of a scan and its replay, in core ops.  Out: the same without constants, and the arrays they take instead, as their
last closures. Steps of scans within a step come first, so that an array comes out of all of them.
Read before: ir/scans.py. Read next: expand.py, schedule/buffers.py, where a program's arrays are given memory.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

from kdsl.ir.ops import Op
from kdsl.ir.tensor import Function, Value, attribute_key
from kdsl.transforms.simplify_scans import simplified

Arrays = tuple[Any, ...]  # of NumPy arrays


def without_constants(step: Function, again: Function | None) -> tuple[Function, Function | None, Arrays]:
    """(step, replay, arrays): the same functions for all equations of a scan."""
    known = _moved.setdefault(step, {})
    if again not in known:
        arrays: dict[Any, tuple[Any, Value]] = {}
        for f in (step, again):
            for e in f.equations if f else ():
                if e.op is Op.CONSTANT:
                    arrays.setdefault(attribute_key(e.attributes["array"]), (e.attributes["array"], e.result))
        if arrays:
            moved = [_with_closures(f, arrays) for f in (step, again)]
            simplified.update(f for f in moved if f)
            known[again] = moved[0], moved[1], tuple(array for array, _ in arrays.values())
    return known.get(again, (step, again, ()))


def _with_closures(f: Function | None, arrays: dict[Any, tuple[Any, Value]]) -> Any:
    if f is None:
        return None
    closures = {key: Value(v.type, v.name) for key, (_, v) in arrays.items()}
    instead: dict[Any, Any] = {}
    equations = []
    for e in f.equations:
        if e.op is Op.CONSTANT:
            instead[e.result] = closures[attribute_key(e.attributes["array"])]
        else:
            equations.append(replace(e, operands=tuple(instead.get(o, o) for o in e.operands)))
    results = tuple(instead.get(v, v) for v in f.results)
    return replace(f, parameters=(*f.parameters, *closures.values()), equations=tuple(equations), results=results)


_moved: WeakKeyDictionary[Function, dict[Function | None, tuple[Function, Function | None, Arrays]]] = WeakKeyDictionary()
