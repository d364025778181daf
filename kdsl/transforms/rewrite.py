"""A Builder that rewrites and shares what is emitted: every pass that makes equations makes them through it.

In:  equations, one `emit` at a time.  Out: values; an equal value that exists already, or a simpler program for the same value.
A rule looks at one equation to be and at the definitions of its operands, so that replaying a program through this builder
simplifies it, and a pass that emits through it (differentiate, expand, views) needs no clean-up afterwards.
Each rule is a function with before and after in its docstring and says whether it is exact; what is inexact is one of the
freedoms of the contract (section 5). x*0 and x+0.0 are never folded, a named size is never taken to be 1.
The rules stand in simplify_elementwise.py, simplify_movement.py, simplify_sums.py, simplify_dots.py. Read before: ir/rules.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import kdsl.dtypes as dt
from kdsl.dtypes import DType
from kdsl.ir.meaning import apply
from kdsl.ir.meaning_elementwise import Context, constant
from kdsl.ir.numbers import canonical
from kdsl.ir.ops import COMMUTATIVE, ELEMENTWISE, REDUCTIONS, Op
from kdsl.ir.rules import Builder, result_type
from kdsl.ir.sizes import Extent
from kdsl.ir.tensor import (
    Equation,
    Function,
    Literal,
    Operand,
    Shape,
    TensorType,
    Value,
    attribute_key,
)

Operands = tuple[Any, ...]  # of Operand: a rule knows from the op which are values
Attributes = dict[str, Any]


@dataclass(frozen=True)
class Rule:
    """One rewriting: its name, what it does in words, whether it keeps every bit, and the function that does it."""

    name: str
    text: str
    exact: bool
    apply: Callable[[Simplifier, Op, Operands, Attributes], Operand | None]


RULES: dict[Op, list[Rule]] = {op: [] for op in Op}


def rule(*ops: Op, exact: bool) -> Callable:
    """Register a rewriting for these ops; rules of one op are tried in the order of registration."""

    def register(f: Callable) -> Callable:
        for op in ops:
            RULES[op].append(Rule(f.__name__, f.__doc__ or "", exact, f))
        return f

    return register


class Simplifier(Builder):
    """The Builder that applies RULES, knowing the equations `known`; `gradients` allows what only gradients may do."""

    def __init__(self, known: Iterable[Equation] = (), gradients: bool = False) -> None:
        super().__init__()
        self.gradients = gradients
        self.home: dict[Value, Equation] = {}
        self._seen: dict[Any, Value] = {}
        self._depth: dict[Value, int] = {}
        self._dots: dict[Value, list[Equation]] = {}
        self._turned: dict[tuple[frozenset[Operand], Value], Operand] = {}
        for e in known:
            self._record(e, self._key(e.op, e.operands, e.attributes, e.result.type))

    def emit(self, op: Op, *operands: Operand, name: str = "", **attributes: Any) -> Operand:
        if op in ELEMENTWISE:
            shape = next(o.shape for o in operands if isinstance(o, Value))
            dtype = _operand_dtype(op, operands, attributes)
            operands = tuple(self._literal(o, dtype) for o in operands)
            if not any(isinstance(o, Value) for o in operands):
                return self._fold(op, operands, attributes, shape, dtype)
        for r in RULES[op]:
            better = r.apply(self, op, operands, attributes)
            if better is not None:
                return better
        type_ = result_type(op, operands, attributes)
        key = self._key(op, operands, attributes, type_)
        found = self._seen.get(key)
        if found is None:
            found = Value(type_, name)
            self._record(Equation(found, op, operands, attributes, self.location), key)
        return found

    def value(self, op: Op, *operands: Operand, **attributes: Any) -> Value:
        """`emit`, where the result is known to be a value (it always is through this builder)."""
        out = self.emit(op, *operands, **attributes)
        assert isinstance(out, Value)
        return out

    def replay(self, function: Function, environment: dict[Value, Operand]) -> list[Operand]:
        """Emit a program once more, with its parameters (and what else stands there) replaced by `environment`."""
        for e in function.equations:
            if e.result not in environment:
                self.location = e.location
                operands = [environment[o] if isinstance(o, Value) else o for o in e.operands]
                environment[e.result] = self.emit(e.op, *operands, name=e.result.name, **e.attributes)
        return [environment[r] for r in function.results]

    # --- what is known about values -----------------------------------------------------------------------------------
    def define(self, x: Operand, *ops: Op) -> Equation | None:
        """The equation that makes x, if it is one of `ops` (any, when none are named)."""
        e = self.home.get(x) if isinstance(x, Value) else None
        return e if e is not None and (not ops or e.op in ops) else None

    def depth(self, x: Operand) -> int:
        """How many reductions and contractions must be done, one after another, before x is known."""
        return self._depth.get(x, 0) if isinstance(x, Value) else 0

    def dots_of(self, x: Value) -> list[Equation]:
        """The contractions that read x."""
        return self._dots.get(x, [])

    def turn(self, p: Value, u: Operand, v: Value) -> bool:
        """Whether sum(p * (u . v)) may become sum(u * (p . v)): never to and fro, and not where that reads p from memory."""
        if p not in self.home and u in self.home:
            return False
        return self._turned.setdefault((frozenset((p, u)), v), p) is p

    def count(self, extents: Iterable[Extent], dtype: DType, shape: Shape) -> Operand:
        """The number of elements of these extents as an operand: a literal, or a named size spread over `shape`."""
        n: Extent = 1
        for extent in extents:
            n = n * extent
        if isinstance(n, int):
            return float(n) if dtype.is_floating else n
        return self.broadcast_to(self.as_value(self.cast(self.value(Op.SIZE, value=n), dtype)), shape)

    @staticmethod
    def as_value(x: Operand) -> Value:
        """x, which is known to be a value."""
        assert isinstance(x, Value)
        return x

    # --- inside --------------------------------------------------------------------------------------------------------
    def _record(self, e: Equation, key: Any) -> None:
        self.equations.append(e)
        self._seen.setdefault(key, e.result)
        self.home[e.result] = e
        if e.op is Op.DOT:
            for v in e.values:
                self._dots.setdefault(v, []).append(e)
        below = max((self._depth.get(v, 0) for v in e.values), default=0)
        self._depth[e.result] = below + (e.op in REDUCTIONS or e.op is Op.DOT)

    @staticmethod
    def _key(op: Op, operands: Operands, attributes: Attributes, type_: TensorType) -> Any:
        keys = [o.number if isinstance(o, Value) else attribute_key(o) for o in operands]
        if op in COMMUTATIVE and isinstance(keys[1], int):
            keys.sort()
        return op, tuple(keys), tuple((k, attribute_key(attributes[k])) for k in sorted(attributes)), type_

    def _literal(self, x: Operand, dtype: DType) -> Operand:
        """An array that is one number throughout counts as that literal; literals are what they are in the dtype."""
        e = self.define(x, Op.FULL)
        if e is not None:
            x = e.attributes["value"]
        return x if isinstance(x, Value) else canonical(x, dtype)

    def _fold(
        self, op: Op, operands: Operands, attributes: Attributes, shape: Shape, dtype: DType
    ) -> Operand:
        """The op on literals, computed by its NumPy meaning in the dtype in which a kernel would."""
        context = Context({}, exact=False)
        first = dt.bool_ if op is Op.WHERE else dtype
        stand_ins = [Value(TensorType(first if i == 0 else dtype, ())) for i in range(len(operands))]
        type_ = result_type(op, stand_ins, attributes)
        e = Equation(Value(type_), op, tuple(stand_ins), attributes)
        arrays = [constant(o, v.dtype, context) for o, v in zip(operands, stand_ins, strict=True)]
        number: Literal = apply(context, e, arrays).item()
        return self.full(number, shape, type_.dtype)


def _operand_dtype(op: Op, operands: Operands, attributes: Attributes) -> DType:
    typed = operands[1:] if op is Op.WHERE else operands
    return next((o.dtype for o in typed if isinstance(o, Value)), attributes.get("dtype", dt.bool_))


def rewrite(function: Function, builder: Simplifier) -> Function:
    """The program replayed through `builder`."""
    results = builder.replay(function, {p: p for p in function.parameters})
    kept = tuple(r for r in results if isinstance(r, Value))
    return Function(function.name, function.parameters, tuple(builder.equations), kept, function.location)
