"""Is this a program? Every stage that makes a Function is followed by this check.

In:  a Function.  Out: nothing, or a MalformedProgram that quotes the line which breaks a rule:
defined once and above use; the result has the type that ir/rules.py gives; operands of elementwise ops have one shape and one
dtype (bool for a condition); literals only stand among operands of elementwise ops; attributes are complete and in range.
The mistake is the compiler's own: the pipeline turns it into an InternalError. Read before: ir/rules.py.
"""

from __future__ import annotations

from typing import Any

import kdsl.dtypes as dt
from kdsl.ir.ops import BINARY, ELEMENTWISE, REDUCTIONS, UNARY, Op
from kdsl.ir.printer import show_equation
from kdsl.ir.rules import result_type
from kdsl.ir.scans import scan_mistake
from kdsl.ir.tensor import Equation, Function, TensorType, Value


class MalformedProgram(AssertionError):
    """A pass made something that is no program."""


FLOATING_ONLY = frozenset({
    Op.EXP, Op.EXP2, Op.EXPM1, Op.LOG, Op.LOG2, Op.LOG10, Op.LOG1P, Op.SQRT, Op.RSQRT, Op.SIN, Op.COS, Op.TAN, Op.ASIN, Op.ACOS,
    Op.ATAN, Op.SINH, Op.COSH, Op.TANH, Op.ASINH, Op.ACOSH, Op.ATANH, Op.SIGMOID, Op.ERF, Op.IS_NAN, Op.IS_INF, Op.DIV,
    Op.ATAN2, Op.COPYSIGN, Op.NEXTAFTER,
})  # fmt: skip
NO_FLOATING = frozenset({Op.NOT, Op.AND, Op.OR, Op.XOR, Op.SHL, Op.SHR, Op.MULHI, Op.ANY, Op.ALL})


def verify(function: Function) -> None:
    """Raise MalformedProgram unless `function` is well formed."""
    known: set[Value] = set()
    for p in function.parameters:
        _require(p not in known, f"parameter {p!r} stands twice", function)
        known.add(p)
    for e in function.equations:
        for v in e.values:
            _require(v in known, f"{v!r} is read before it is made", function, e)
        _require(e.result not in known, f"{e.result!r} is made twice", function, e)
        _check(function, e)
        known.add(e.result)
    for r in function.results:
        _require(r in known, f"result {r!r} is made nowhere", function)


def _require(holds: bool, problem: str, function: Function, e: Equation | None = None) -> None:
    if not holds:
        line = ""
        if e is not None:
            labels = {v: repr(v) for v in (*e.values, e.result)}
            called = {f: f.name for f in e.attributes.values() if isinstance(f, Function)}
            line = "\n  " + show_equation(e, labels, called)
        raise MalformedProgram(f"{function.name}: {problem}{line}")


def _check(function: Function, e: Equation) -> None:
    def require(holds: bool, problem: str) -> None:
        _require(holds, problem, function, e)

    if e.op in ELEMENTWISE:
        count = 1 if e.op in UNARY else 2 if e.op in BINARY else 3
        require(len(e.operands) == count, f"takes {count} operands")
        require(bool(e.values), "has no operand that is a value")
        require(len({v.shape for v in e.values}) == 1, "operands of different shapes")
        same = e.values if e.op is not Op.WHERE else tuple(o for o in e.operands[1:] if isinstance(o, Value))
        require(len({v.dtype for v in same}) <= 1, "operands of different dtypes")
        if e.op is Op.WHERE:
            require(
                not isinstance(e.operands[0], Value) or e.operands[0].dtype is dt.bool_,
                "a condition that is not bool",
            )
        require(e.op not in FLOATING_ONLY or e.operand_dtype.is_floating, "takes floating operands only")
        require(e.op not in NO_FLOATING or not e.operand_dtype.is_floating, "takes no floating operands")
    else:
        require(all(isinstance(o, Value) for o in e.operands), "a literal where an array must stand")
    if e.op in REDUCTIONS:
        axes, ndim = e.attributes["axes"], e.values[0].type.ndim
        require(
            list(axes) == sorted(set(axes)) and all(0 <= a < ndim for a in axes) and bool(axes),
            "axes out of range or order",
        )
        require(e.op not in (Op.ARGMAX, Op.ARGMIN) or len(axes) == 1, "takes one axis")
        require(e.op not in NO_FLOATING or e.operand_dtype is dt.bool_, "takes bool")
    if e.op is Op.SCAN:
        for called in (e.attributes["step"], e.attributes["replay"]):
            if called is not None:
                verify(called)
    if e.op in STRUCTURE:
        require(STRUCTURE[e.op](e, e.attributes), "attributes do not fit the operands")
    try:
        expected = result_type(e.op, e.operands, e.attributes)
    except (KeyError, IndexError, ValueError) as mistake:
        raise MalformedProgram(f"{function.name}: {e.op.value}: no result type: {mistake!r}") from mistake
    require(e.result.type == expected, f"the result's type should be {expected}")


def _broadcast(e: Equation, a: dict[str, Any]) -> bool:
    axes, x = a["axes"], e.values[0]
    fits = all(n == a["shape"][axis] or n == 1 for n, axis in zip(x.shape, axes, strict=False))
    return len(axes) == len(x.shape) and list(axes) == sorted(set(axes)) and fits


def _dot(e: Equation, a: dict[str, Any]) -> bool:
    x, y = e.values
    extents: dict[str, Any] = {}
    for letters, v in ((a["left"], x), (a["right"], y)):
        if len(letters) != len(v.shape) or any(
            extents.setdefault(c, n) != n for c, n in zip(letters, v.shape, strict=True)
        ):
            return False
    return x.dtype is y.dtype and len(set(a["out"])) == len(a["out"]) and set(a["out"]) <= set(extents)


def _reshape(e: Equation, a: dict[str, Any]) -> bool:
    before, after = e.values[0].type.count, e.result.type.count
    return before == after or not isinstance(before, int) or not isinstance(after, int)


def _lengths(e: Equation, *names: str) -> bool:
    return all(len(e.attributes[name]) == len(e.values[0].shape) for name in names)


def _concat(e: Equation, a: dict[str, Any]) -> bool:
    def others(v: Value) -> tuple:
        return v.dtype, v.shape[: a["axis"]], v.shape[a["axis"] + 1 :]

    return len({others(v) for v in e.values}) == 1


def _take_along(e: Equation, a: dict[str, Any]) -> bool:
    x, index = e.values[:2]
    expected = (*x.shape[: a["axis"]], *index.shape[a["axis"] : a["axis"] + 1], *x.shape[a["axis"] + 1 :])
    updates = all(v.type == TensorType(x.dtype, index.shape) for v in e.values[2:])
    return index.shape == expected and index.dtype in (dt.i32, dt.i64) and updates


def _take(e: Equation, a: dict[str, Any]) -> bool:
    x, index = e.values[:2]
    updates = (*x.shape[: a["axis"]], *index.shape, *x.shape[a["axis"] + 1 :])
    fits = all(v.type == TensorType(x.dtype, updates) for v in e.values[2:])
    return 0 <= a["axis"] < len(x.shape) and index.dtype in (dt.i32, dt.i64) and fits


STRUCTURE = {
    Op.BROADCAST: _broadcast,
    Op.PERMUTE: lambda e, a: sorted(a["axes"]) == list(range(len(e.values[0].shape))),
    Op.RESHAPE: _reshape,
    Op.SLICE: lambda e, a: _lengths(e, "starts", "sizes", "steps") and 0 not in a["steps"],
    Op.PAD: lambda e, a: _lengths(e, "low", "high", "interior"),
    Op.CONCAT: _concat,
    Op.WINDOW: lambda e, a: 0 <= a["axis"] < len(e.values[0].shape),
    Op.DOT: _dot,
    Op.TAKE: _take,
    Op.TAKE_ALONG: _take_along,
    Op.SCATTER_ADD: _take,
    Op.SCATTER_ALONG: _take_along,
    Op.RANDOM_BITS: lambda e, a: e.values[0].dtype is dt.u32 and e.values[0].shape == (2,),
    Op.CALL: lambda e, a: tuple(v.type for v in e.values) == tuple(p.type for p in a["function"].parameters),
    Op.SCAN: lambda e, a: scan_mistake(e) is None,
    Op.SEARCHSORTED: lambda e, a: a["side"] in ("left", "right") and len(e.values[0].shape) == 1,
}
