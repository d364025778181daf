"""Floating functions of one or two operands: the table that operations.py takes them from.

Read before: writer.py. Read next: exponentials.py.
"""

from __future__ import annotations

from collections.abc import Callable

from kdsl.codegen.llvm import exponentials
from kdsl.codegen.llvm.writer import Value, Writer

FUNCTIONS: dict[str, Callable[[Writer, list[Value]], Value]] = {
    "exp": lambda w, x: exponentials.exp(w, x[0]),
}
