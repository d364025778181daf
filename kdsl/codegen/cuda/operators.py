"""Elementwise ops as Python writes them: an operator where there is one, else a call; no parenthesis that is not needed.

In:  a Map and the text of each operand with how tightly it binds.  Out: the Map's text and how tightly that binds.
Read before: ir/ops.py. Read next: expressions.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from kdsl.ir import loops as ir

INFIX = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!=", "or": "|", "xor": "^", "and": "&",
         "shl": "<<", "shr": ">>", "add": "+", "sub": "-", "mul": "*", "div": "/", "floor_div": "//", "mod": "%"}  # fmt: skip
LEVELS = {"|": 1, "^": 2, "&": 3, "<<": 4, ">>": 4, "+": 5, "-": 5, "*": 6, "/": 6, "//": 6, "%": 6}
UNARY, CALL = 7, 9  # how tightly a text binds; comparisons 0
Text = tuple[str, int]  # a text, and how tightly it binds


def written(t: ir.Map, x: Sequence[Text], shared: bool = False) -> Text:
    """A Map of these operands; `shared`: neighbours have the same divisor."""
    texts = [text for text, _ in x]
    if t.op in INFIX:
        return infix(t, x, shared)
    if t.op in ("neg", "not"):
        sign = "-" if t.op == "neg" else "~"
        return f"{sign}{_inside(x[0], UNARY)}", UNARY
    if t.op == "fma":
        return f"{_inside(x[0], 6)} * {_inside(x[1], 7)} + {_inside(x[2], 6)}", 5
    if t.op == "cast":
        word = "boolean" if t.dtype.name == "bool" else t.dtype.name
        return f"{word}({texts[0]})", CALL
    if t.op == "bitcast":
        return f"bits_{t.dtype.name}({texts[0]})", CALL
    return f"{t.op}({', '.join(texts)})", CALL


def infix(t: ir.Map, x: Sequence[Text], shared: bool = False) -> Text:
    """A Map that has an operator."""
    sign = INFIX[t.op]
    level = LEVELS.get(sign, 0)
    if t.op == "div" and t.dtype.is_floating and shared:
        return f"{_inside(x[0], 6)} * (1.0 / {_inside(x[1], 7)})", 6  # one division for all that share a divisor
    return f"{_inside(x[0], level)} {sign} {_inside(x[1], level + 1)}", level


def _inside(x: Text, level: int) -> str:
    """A text as an operand of what binds this tightly."""
    return x[0] if x[1] >= max(level, 1) else f"({x[0]})"


def number(t: ir.Constant) -> str:
    """A constant as Python writes it."""
    value = t.value
    if t.dtype.kind == "bool":
        return str(bool(value))
    if not t.dtype.is_floating:
        value = int(value)
        return f"({value + 1} - 1)" if value == -(2**63) else str(value)
    value = float(value)
    return repr(value) if math.isfinite(value) else {True: "nan"}.get(value != value, "inf" if value > 0 else "-inf")
