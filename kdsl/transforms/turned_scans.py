"""Scans whose results are only read turned round run the other way: a reversed cumulative sum is one scan and no copy.

    flip(scan(step, flip(x)))        ->  scan(step, x, reverse)            flip is a slice with step -1
In:  a simplified Function.  Out: one with fewer slices behind scans; what a scan reads is turned instead, which only changes
where its loads look.
Read before: ir/scans.py. Read next: fuse_scans.py.
"""

from __future__ import annotations

from dataclasses import replace

from kdsl.ir.ops import Op
from kdsl.ir.rules import result_type
from kdsl.ir.scans import Scan
from kdsl.ir.tensor import Equation, Function, Value, users
from kdsl.transforms.prune import prune
from kdsl.transforms.rewrite import Simplifier, rewrite


def turn_scans(function: Function) -> Function:
    """The program with its scans in the direction in which they are read."""
    families: dict[tuple, list[Equation]] = {}
    for e in function.equations:
        if e.op is Op.SCAN and e.attributes["replay"] is None:
            families.setdefault(Scan(e).key, []).append(e)
    if not families:
        return function
    readers = users(function)
    turned = {key for key, family in families.items() if _is_read_turned(family, readers, set(function.results))}
    if not turned:
        return function
    out: list[Equation] = []
    instead: dict[Value, Value] = {}
    operands: dict[tuple, tuple[Value, ...]] = {}
    for e in function.equations:
        key = Scan(e).key if e.op is Op.SCAN else None
        e = replace(e, operands=tuple(instead.get(o, o) if isinstance(o, Value) else o for o in e.operands))
        if key in turned:
            assert key is not None
            s = Scan(e)
            if key not in operands:
                xs = []
                for x, axis in zip(s.xs, s.axes, strict=True):
                    out.append(_flip(x, axis, e))
                    xs.append(out[-1].result)
                operands[key] = (*s.init, *xs, *s.closures)
            e = replace(e, operands=operands[key], attributes={**e.attributes, "reverse": not s.reverse})
        elif e.op is Op.SLICE and (made := _scan_of(e, families, turned)) is not None:
            instead[e.result] = made
            continue
        out.append(e)
    results = tuple(instead.get(v, v) for v in function.results)
    return prune(rewrite(replace(function, equations=tuple(out), results=results), Simplifier()))


def _is_read_turned(family: list[Equation], readers: dict[Value, list[Equation]], results: set[Value]) -> bool:
    """Are there ys, and is all that is read of them turned along the axis of the scan?"""
    s = Scan(family[0])
    stacked = [e for e in family if s.carries <= Scan(e).index < len(s.step.results)]
    return bool(stacked) and all(
        e.result not in results
        and bool(readers.get(e.result))
        and all(q.op is Op.SLICE and _flips(q, s.out_axes[Scan(e).index - s.carries]) for q in readers[e.result])
        for e in stacked
    )


def _scan_of(e: Equation, families: dict[tuple, list[Equation]], turned: set[tuple]) -> Value | None:
    """The scan's result that a slice turns."""
    ys = (q for key in turned for q in families[key] if Scan(q).index >= Scan(q).carries)
    return next((q.result for q in ys if q.result is e.values[0]), None)


def _flips(e: Equation, axis: int) -> bool:
    """Does a slice turn this axis round, and nothing else?"""
    a, shape = e.attributes, e.values[0].shape
    return all(
        (start, n, step) == ((shape[d] - 1, shape[d], -1) if d == axis else (0, shape[d], 1))
        for d, (start, n, step) in enumerate(zip(a["starts"], a["sizes"], a["steps"], strict=True))
    )


def _flip(x: Value, axis: int, like: Equation) -> Equation:
    """x turned round along an axis."""
    every = range(len(x.shape))
    a = {
        "starts": tuple(x.shape[d] - 1 if d == axis else 0 for d in every),
        "sizes": x.shape,
        "steps": tuple(-1 if d == axis else 1 for d in every),
    }
    return Equation(Value(result_type(Op.SLICE, (x,), a), x.name), Op.SLICE, (x,), a, like.location)
