"""A program as text: the same program always gives the same text.

In:  a Function.  Out: text, one line per equation; values keep the user's names, the others are numbered 0, 1, 2 …

    softmax(x:f32[4, 8])
      %0:f32[4] = max x {axes=(1,)}
      …
      return %4

Sub-functions of calls follow below, each once. Read before: ir/tensor.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kdsl.dtypes import DType
from kdsl.ir.tensor import Equation, Function, Operand, Value


def show(function: Function) -> str:
    """The text of a program and of the functions that it calls."""
    called: dict[Function, None] = {}
    _collect(function, called)
    names: dict[Function, str] = {}
    for f in called:
        taken = sum(name.split("#")[0] == f.name for name in names.values())
        names[f] = f"{f.name}#{taken}" if taken else f.name
    return "\n\n".join(_show_one(f, names) for f in called)


def _collect(function: Function, into: dict[Function, None]) -> None:
    if function not in into:
        into[function] = None
        for e in function.equations:
            for called in e.attributes.values():
                if isinstance(called, Function):
                    _collect(called, into)


def _show_one(function: Function, names: dict[Function, str]) -> str:
    labels = labels_of(function)
    head = ", ".join(f"{labels[p]}:{p.type}" for p in function.parameters)
    lines = [f"{names[function]}({head})"]
    lines += ["  " + show_equation(e, labels, names) for e in function.equations]
    return "\n".join([*lines, "  return " + ", ".join(labels[r] for r in function.results)])


def labels_of(function: Function) -> dict[Value, str]:
    """A text for each value: the user's name while it is free, then name.1, name.2 …; %0, %1 … for those without."""
    labels: dict[Value, str] = {}
    used: dict[str, int] = {}
    unnamed = 0
    for v in (*function.parameters, *(e.result for e in function.equations)):
        if v in labels:
            continue
        if v.name:
            count = used.get(v.name, 0)
            used[v.name] = count + 1
            labels[v] = f"{v.name}.{count}" if count else v.name
        else:
            labels[v], unnamed = f"%{unnamed}", unnamed + 1
    return labels


def show_equation(e: Equation, labels: dict[Value, str], names: dict[Function, str]) -> str:
    """One line: result = op operands {attributes}."""
    operands = "".join(" " + show_operand(o, labels) for o in e.operands)
    attributes = ", ".join(
        f"{k}={_attribute(v, names)}" for k, v in sorted(e.attributes.items()) if v is not None
    )
    return f"{labels[e.result]}:{e.result.type} = {e.op.value}{operands}" + (
        f" {{{attributes}}}" if attributes else ""
    )


def show_operand(operand: Operand, labels: dict[Value, str]) -> str:
    """A value by its label, a literal as Python writes it; what no program shown makes, by its name and type."""
    if not isinstance(operand, Value):
        return repr(operand)
    return labels.get(operand) or f"{operand.name or '%'}:{operand.type}"


def _attribute(value: Any, names: dict[Function, str]) -> str:
    if isinstance(value, Function):
        return names[value]
    if isinstance(value, DType):
        return value.name
    if isinstance(value, np.ndarray):
        return f"<{value.dtype}{list(value.shape)}>" if value.size > 4 else f"{value.dtype}{value.tolist()}"
    if isinstance(value, tuple) and value and all(isinstance(v, str) for v in value):
        return "".join(value) if all(len(v) == 1 for v in value) else ",".join(value)
    if isinstance(value, tuple):
        return (
            "("
            + "".join(f"{_attribute(v, names)}, " for v in value)
            .rstrip(" ")
            .rstrip("," if len(value) > 1 else "")
            + ")"
        )
    if callable(value):
        return getattr(value, "__name__", "rule")
    return (
        str(value)
        if not isinstance(value, (bool, int, float, str))
        else repr(value)
        if not isinstance(value, str)
        else value
    )
