"""Reverse differentiation: a program -> the program that turns cotangents of its results into gradients of its parameters.

In:  a simplified Function.  Out: a Function:
    parameters: those of the program, then one cotangent for each floating result
    results:    one gradient for each floating parameter, of its type
It holds the program's own equations as far as the gradients need them; residuals.py decides what the forward hands over.
It is a program like any other: simplified (it is emitted through the Simplifier) and differentiable again.

A cotangent may carry a *mask*: behind where(c, x, y) the cotangent of x is g inside c and 0 outside, and all that is computed
from it stays 0 outside c, whatever infinite slope stands there: where passes only the chosen side.
Read before: transforms/derivatives.py, transforms/shift.py. Read next: transforms/residuals.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import kdsl.transforms.simplify  # noqa: F401  (registers the rules)
from kdsl.ir.ops import ELEMENTWISE, Op
from kdsl.ir.scans import Scan
from kdsl.ir.tensor import Equation, Function, Operand, Value
from kdsl.transforms.derivatives import ELEMENTWISE_DERIVATIVES, Derivative
from kdsl.transforms.derivatives_scan import pull_scan
from kdsl.transforms.derivatives_structure import STRUCTURE_DERIVATIVES
from kdsl.transforms.prune import prune
from kdsl.transforms.rewrite import Simplifier
from kdsl.transforms.shift import without_influence

DERIVATIVES: dict[Op, Derivative] = {**ELEMENTWISE_DERIVATIVES, **STRUCTURE_DERIVATIVES}
APART = frozenset({Op.WHERE, Op.CALL, Op.SCAN})  # what this file does itself
assert set(DERIVATIVES) | APART == set(Op)


@dataclass(frozen=True)
class Cotangent:
    """`value` inside `mask` (a bool value, or None for everywhere), 0 outside."""

    value: Value
    mask: Value | None = None


def vjp(function: Function) -> Function:
    """(parameters, one cotangent per floating result) -> one gradient per floating parameter."""
    idle = {
        e.result
        for e in function.equations
        if e.op in (Op.MAX, Op.MIN) and without_influence(function, e.result)
    }
    active = _active(function, idle)
    b = Simplifier(function.equations, gradients=True)
    cotangents = tuple(
        Value(r.type, f"d_{r.name}" if r.name else "") for r in function.results if r.dtype.is_floating
    )
    known: dict[Value, Cotangent] = {}
    given = iter(cotangents)
    for r in function.results:
        if r.dtype.is_floating:
            _add(b, known, r, Cotangent(next(given)))
    first_calls = _first_calls(function)
    first_scans = _first_scans(function)
    for e in reversed(function.equations):
        b.location = e.location
        if e.result in active and e.result in known and e.op not in (Op.CALL, Op.SCAN):
            for operand, cotangent in zip(e.operands, _pull(b, e, known[e.result]), strict=True):
                if cotangent is not None and operand in active:
                    _add(b, known, operand, cotangent)
        if e in first_calls:
            _pull_call(b, e, first_calls[e], known, active)
        if e in first_scans:
            results = {q.attributes["index"]: _whole(b, known[q.result]) for q in first_scans[e] if q.result in known}
            if any(v in active for v in e.values) and results:
                for v, g in zip(e.values, pull_scan(b, e, results, [v in active for v in e.values], vjp), strict=True):
                    if g is not None and v in active:
                        _add(b, known, v, Cotangent(g))
    b.location = function.location
    gradients = tuple(_gradient(b, known, p) for p in function.parameters if p.dtype.is_floating)
    name = f"{function.name}_vjp"
    return prune(
        Function(name, function.parameters + cotangents, tuple(b.equations), gradients, function.location)
    )


def _active(function: Function, idle: set[Value]) -> set[Operand]:
    """The values through which a floating parameter has an influence that has a derivative."""
    active: set[Operand] = {p for p in function.parameters if p.dtype.is_floating}
    for e in function.equations:
        through = e.op in APART or DERIVATIVES[e.op].__name__ != "none"
        if (
            through
            and e.result.dtype.is_floating
            and e.result not in idle
            and any(v in active for v in e.values)
        ):
            active.add(e.result)
    return active


def _pull(b: Simplifier, e: Equation, cotangent: Cotangent) -> tuple[Cotangent | None, ...]:
    """The cotangents of the operands."""
    if e.op is Op.WHERE:
        condition = b.as_value(e.operands[0])
        opposite = b.value(Op.NOT, condition)
        return None, _masked(b, cotangent, condition), _masked(b, cotangent, opposite)
    if e.op in ELEMENTWISE:
        pulled = DERIVATIVES[e.op](b, e, cotangent.value)
        return tuple(_wrap(b, e, g, cotangent.mask) for g in pulled)
    return tuple(_wrap(b, e, g, None) for g in DERIVATIVES[e.op](b, e, _whole(b, cotangent)))


def _wrap(b: Simplifier, e: Equation, g: Operand | None, mask: Value | None) -> Cotangent | None:
    return None if g is None else Cotangent(b.as_value(g), mask)


def _masked(b: Simplifier, g: Cotangent, condition: Value) -> Cotangent:
    return Cotangent(g.value, condition if g.mask is None else b.value(Op.AND, g.mask, condition))


def _whole(b: Simplifier, g: Cotangent) -> Value:
    """The cotangent with its zeros written in."""
    return g.value if g.mask is None else b.value(Op.WHERE, g.mask, g.value, 0.0)


def _add(b: Simplifier, known: dict[Value, Cotangent], v: Operand, g: Cotangent) -> None:
    assert isinstance(v, Value)
    full = b.define(g.value, Op.FULL)
    if full is not None and full.attributes["value"] == 0:
        return  # no influence
    before = known.get(v)
    if before is None:
        known[v] = g
    elif before.mask is g.mask:
        known[v] = Cotangent(b.value(Op.ADD, before.value, g.value), g.mask)
    else:
        total = b.value(Op.ADD, _whole(b, before), _whole(b, g))
        both = None if before.mask is None or g.mask is None else b.value(Op.OR, before.mask, g.mask)
        known[v] = Cotangent(total, both)


def _gradient(b: Simplifier, known: dict[Value, Cotangent], p: Value) -> Value:
    return _whole(b, known[p]) if p in known else b.as_value(b.full(0.0, p.shape, p.dtype))


# --- calls with a rule of the user's -----------------------------------------------------------------------------------
def _first_calls(function: Function) -> dict[Equation, list[Equation]]:
    """For the first equation of each call, those of all its results."""
    groups: dict[tuple, list[Equation]] = {}
    for e in function.equations:
        if e.op is Op.CALL:
            groups.setdefault((e.attributes["function"], e.operands), []).append(e)
    return {group[0]: group for group in groups.values()}


def _first_scans(function: Function) -> dict[Equation, list[Equation]]:
    """For the first equation of each scan, those of all its results."""
    groups: dict[tuple, list[Equation]] = {}
    for e in function.equations:
        if e.op is Op.SCAN:
            groups.setdefault(Scan(e).key, []).append(e)
    return {group[0]: group for group in groups.values()}


def _pull_call(
    b: Simplifier, e: Equation, group: list[Equation], known: dict[Value, Cotangent], active: set[Operand]
) -> None:
    """The gradients of the operands: rule() gives a program (operands, results, one cotangent per floating result) -> one
    gradient per floating operand; where `rule` is None the called program is differentiated."""
    callee: Function = e.attributes["function"]
    if not any(one.result in known for one in group) or not any(v in active for v in e.values):
        return
    arguments = e.values
    results = tuple(
        b.value(Op.CALL, *arguments, **{**e.attributes, "index": i}) for i in range(len(callee.results))
    )
    by_index = {one.attributes["index"]: one.result for one in group}
    cotangents = []
    for i, r in enumerate(callee.results):
        if r.dtype.is_floating:
            mine = known.get(by_index[i]) if i in by_index else None
            cotangents.append(b.as_value(b.full(0.0, r.shape, r.dtype)) if mine is None else _whole(b, mine))
    rule = e.attributes["rule"]
    if rule is None:
        program, inputs = vjp(callee), (*arguments, *cotangents)
    else:
        program, inputs = rule(), (*arguments, *results, *cotangents)
    gradients = b.replay(program, dict(zip(program.parameters, inputs, strict=True)))
    floating = [v for v in arguments if v.dtype.is_floating]
    for v, g in zip(floating, gradients, strict=True):
        if v in active:
            _add(b, known, v, Cotangent(b.as_value(g)))
