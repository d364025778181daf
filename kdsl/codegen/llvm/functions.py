"""Floating functions of one or two operands: the table that operations.py takes them from.

Read before: exponentials.py, logarithms.py, hyperbolic.py, trigonometry.py. Read next: operations.py.
"""

from __future__ import annotations

from collections.abc import Callable

from kdsl.codegen.llvm import exponentials, hyperbolic, logarithms, trigonometry
from kdsl.codegen.llvm.writer import Value, Writer

FUNCTIONS: dict[str, Callable[[Writer, list[Value]], Value]] = {
    **{f.__name__: (lambda w, x, f=f: f(w, x[0])) for f in (
        exponentials.exp, exponentials.exp2, exponentials.expm1, exponentials.tanh, exponentials.erf,
        logarithms.log, logarithms.log2, logarithms.log10, logarithms.log1p,
        trigonometry.sin, trigonometry.cos, trigonometry.tan, trigonometry.atan, trigonometry.asin, trigonometry.acos,
        hyperbolic.sinh, hyperbolic.cosh, hyperbolic.asinh, hyperbolic.acosh, hyperbolic.atanh, hyperbolic.sigmoid,
    )},
    "pow": lambda w, x: logarithms.power(w, *x),
    "atan2": lambda w, x: trigonometry.atan2(w, *x),
}  # fmt: skip
