"""Equations that no result depends on are left out.

In:  a Function.  Out: a Function with the same results; parameters stay unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from kdsl.ir.tensor import Equation, Function, Value


def live_equations(equations: Iterable[Equation], results: Iterable[Value]) -> tuple[Equation, ...]:
    """The equations that `results` depend on, in order."""
    live, kept = set(results), []
    for e in reversed(tuple(equations)):
        if e.result in live:
            kept.append(e)
            live.update(e.values)
    return tuple(reversed(kept))


def prune(function: Function) -> Function:
    """The program without what no result depends on."""
    return replace(function, equations=live_equations(function.equations, function.results))


def used_parameters(function: Function) -> tuple[int, ...]:
    """Which parameters are read or returned, by position."""
    used = {v for e in function.equations for v in e.values} | set(function.results)
    return tuple(i for i, p in enumerate(function.parameters) if p in used)
