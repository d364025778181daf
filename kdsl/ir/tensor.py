"""Tensor IR: a program as a list of single-assignment equations over whole tensors.

    function  ::= name ( value:type , … )  equation …  return value , …
    equation  ::= value:type = op operand …  { attribute = constant , … }      # place in the user's source
    operand   ::= value | literal                    (a literal takes the dtype of the operation)
    type      ::= dtype [ extent , … ]               extent: an integer, or an expression in named sizes (ir/sizes.py)

In:  nothing.  Out: the records that the front end makes, the transforms rewrite and the schedules read.
A program is a list and not a graph of nested records: sharing is a visible pass, printing is a line per equation, and
nothing recurses. Read before: ir/ops.py. Read next: ir/rules.py, ir/meaning.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Union

from kdsl.dtypes import DType
from kdsl.ir.ops import Op
from kdsl.ir.sizes import Extent

Shape = tuple[Extent, ...]
Literal = Union[bool, int, float]


@dataclass(frozen=True)
class TensorType:
    """An element type and the extent of each axis, in elements; () is a 0-d tensor."""

    dtype: DType
    shape: Shape

    def __str__(self) -> str:
        return f"{self.dtype.name}[{', '.join(map(str, self.shape))}]"

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @cached_property
    def count(self) -> Extent:
        """How many elements there are."""
        out: Extent = 1
        for n in self.shape:
            out = out * n
        return out


@dataclass(frozen=True)
class Location:
    """Where the user wrote it: the innermost frame outside kdsl first, then its callers'. Lines from 1, columns from 0."""

    file: str
    line: int
    start: int | None = None
    stop: int | None = None
    end_line: int | None = None
    function: str = ""
    callers: tuple[Location, ...] = ()


_numbers = itertools.count()


@dataclass(eq=False, frozen=True)
class Value:
    """A value is itself and nothing else: only the sharing pass may say that two are one. `name` is a hint for printing."""

    type: TensorType
    name: str = ""
    number: int = field(default_factory=lambda: next(_numbers))

    @property
    def shape(self) -> Shape:
        return self.type.shape

    @property
    def dtype(self) -> DType:
        return self.type.dtype

    def __repr__(self) -> str:
        return f"%{self.name or ''}{'.' if self.name else ''}{self.number}:{self.type}"


Operand = Union[Value, Literal]


@dataclass(eq=False, frozen=True)
class Equation:
    """One line of a program: result = op operands {attributes}."""

    result: Value
    op: Op
    operands: tuple[Operand, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    location: Location | None = None

    @cached_property
    def values(self) -> tuple[Value, ...]:
        """The operands that are values."""
        return tuple(o for o in self.operands if isinstance(o, Value))

    @property
    def operand_dtype(self) -> DType:
        """The dtype in which literals among the operands are meant: that of the other operands, else the result's."""
        operands = self.operands[1:] if self.op is Op.WHERE else self.operands
        return next((o.dtype for o in operands if isinstance(o, Value)), self.result.dtype)


@dataclass(eq=False, frozen=True)
class Function:
    """A program. Parameters and results in order; an operand is a parameter or the result of an equation above.

    `facts`: expressions in named sizes that are at least 0 at every call, because the call checks them.
    """

    name: str
    parameters: tuple[Value, ...]
    equations: tuple[Equation, ...]
    results: tuple[Value, ...]
    location: Location | None = None
    facts: tuple[Extent, ...] = ()


def users(function: Function) -> dict[Value, list[Equation]]:
    """Which equations read each value."""
    out: dict[Value, list[Equation]] = {}
    for equation in function.equations:
        for value in dict.fromkeys(equation.values):
            out.setdefault(value, []).append(equation)
    return out


def definitions(equations: Iterable[Equation]) -> dict[Value, Equation]:
    """The equation that makes each value."""
    return {e.result: e for e in equations}


def attribute_key(value: Any) -> Any:
    """A hashable stand-in for an attribute that keeps 1, True and 1.0 apart, and 0.0 and -0.0."""
    if isinstance(value, (bool, int, float)):
        return type(value).__name__, repr(value)
    if isinstance(value, (tuple, list)):
        return tuple(map(attribute_key, value))
    if hasattr(value, "tobytes"):
        return value.dtype.str, value.shape, value.tobytes()
    return value
