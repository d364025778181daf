"""After differentiation: calls are inlined, composite functions are written out in core ops, views move to the loads.

In:  a Function.  Out: a Function with ops of ir/ops.CORE only.
It runs after differentiation because the derivative of sigmoid wants the sigmoid whole, and before grouping so that the parts
of a composite fold into their neighbours: sigmoid(u * 2) is 1 / (1 + exp(u * -2)).

    sigmoid(x)      1 / (1 + exp(-x))                       x * sigmoid(y) with one use: x / (1 + exp(-y))
    sinh(x)         (t + t / (t + 1)) / 2, t = expm1(|x|)   large: exp(|x|/2)**2 / 2
    cosh(x)         (h + 1/h) / 2, h = exp(|x|)             large: as sinh
    asinh(x)        log1p(a + a*a / (1 + sqrt(a*a + 1)))    large: log(a) + log(2)
    acosh(x)        log1p(t + sqrt(2*t + t*t)), t = x - 1   large: log(x) + log(2);  below 1 NaN
    atanh(x)        log1p(2*a / (1 - a)) / 2
    x ** c          c = 4, -2: products;  c = 0.5, -0.5: sqrt, with pow's answers at -0.0 and -inf
    nextafter       of f16, bf16: a step of the bits of the f32 that holds it; where values are dense, of the least value
    searchsorted    how many elements are less than (right: at most) the value; NaN counts as the greatest
Each is within 4 ulp of f32 and f64 and right at 0 (with its sign), infinity and NaN. Read before: ir/ops.py.
Read next: transforms/views.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from weakref import WeakKeyDictionary

import kdsl.transforms.simplify  # noqa: F401  (registers the rules)
from kdsl.dtypes import DType, f32, i32, i64
from kdsl.ir.ops import CORE, Op
from kdsl.ir.tensor import Equation, Function, Operand, Value, users
from kdsl.transforms.prune import prune
from kdsl.transforms.rewrite import Simplifier
from kdsl.transforms.scan_constants import without_constants
from kdsl.transforms.simplify_scans import simplified
from kdsl.transforms.views import push_views

STEPS = {  # a step of the f32's bits; the least value; below which magnitude it is the step; the largest value
    "f16": (1 << 13, 2.0**-24, 2.0**-14, 65504.0),
    "bf16": (1 << 16, 2.0**-133, 0.0, (2 - 2.0**-7) * 2.0**127),
}
LARGE_EXPONENT = 22.0  # beyond it exp(-|x|) is nothing beside exp(|x|), in f64 too
LARGE = {"f32": 1e4, "f64": 1e8}  # beyond it 1/x**2 is nothing beside log(x)


def expand(function: Function) -> Function:
    """The program in core ops, views pushed to the loads."""
    out = push_views(written_out(function))
    assert all(e.op in CORE for e in out.equations)
    return out


def written_out(function: Function) -> Function:
    """The program in core ops."""
    b = Simplifier()
    environment: dict[Value, Operand] = {p: p for p in function.parameters}
    results = _replay(b, function, environment)
    made = tuple(b.as_value(r) for r in results)
    return prune(Function(function.name, function.parameters, tuple(b.equations), made, function.location))


def expanded_step(step: Function | None) -> Function | None:
    """The step of a scan in core ops; the same for all equations of the scan."""
    if step is None:
        return None
    if step not in _expanded:
        _expanded[step] = written_out(step)
        simplified.add(_expanded[step])
    return _expanded[step]


_expanded: WeakKeyDictionary[Function, Function] = WeakKeyDictionary()


def _replay(b: Simplifier, function: Function, environment: dict[Value, Operand]) -> list[Operand]:
    readers = users(function)
    uses = {v: len(equations) + (v in function.results) for v, equations in readers.items()}
    calls: dict[tuple, list[Operand]] = {}
    gates: dict[Value, Operand] = {}  # 1 + exp(-y) of the sigmoids that are used once
    for e in function.equations:
        b.location = e.location
        x = [environment[o] if isinstance(o, Value) else o for o in e.operands]
        if e.op is Op.CALL:
            callee: Function = e.attributes["function"]
            key = (callee, e.operands)
            if key not in calls:
                calls[key] = _replay(b, callee, dict(zip(callee.parameters, x, strict=True)))
            environment[e.result] = calls[key][e.attributes["index"]]
        elif e.op is Op.SCAN:
            step, again, arrays = without_constants(*(expanded_step(e.attributes[k]) for k in ("step", "replay")))
            x += [b.emit(Op.CONSTANT, array=array) for array in arrays]
            a = {**e.attributes, "step": step, "replay": again}
            environment[e.result] = b.emit(e.op, *x, name=e.result.name, **a)
        elif e.op in (Op.STOP_GRADIENT, Op.BARRIER):
            environment[e.result] = x[0]
        elif e.op is Op.SIGMOID and uses.get(e.result) == 1:
            gates[e.result] = one_plus_exp(b, x[0])
            reader = readers[e.result][0] if e.result in readers else None
            if reader is None or reader.op is not Op.MUL or reader.operands.count(e.result) != 1:
                environment[e.result] = b.emit(Op.DIV, 1.0, gates.pop(e.result))
            else:
                environment[e.result] = e.result  # written by its reader
        elif e.op is Op.MUL and any(o in gates for o in e.values):
            gate, other = (x[0], x[1]) if e.operands[0] in gates else (x[1], x[0])
            environment[e.result] = b.emit(Op.DIV, other, gates[b.as_value(gate)])
        elif e.op in WRITTEN:
            environment[e.result] = WRITTEN[e.op](b, b.as_value(x[0]))
        elif e.op is Op.SEARCHSORTED:
            environment[e.result] = _place(b, b.as_value(x[0]), b.as_value(x[1]), e.attributes["side"])
        elif e.op is Op.NEXTAFTER and e.result.dtype.name in STEPS:
            environment[e.result] = _next_after(b, *x, e.result)
        elif e.op is Op.POW and (special := _power(b, e, x)) is not None:
            environment[e.result] = special
        else:
            environment[e.result] = b.emit(e.op, *x, name=e.result.name, **e.attributes)
    return [environment[r] for r in function.results]


def one_plus_exp(b: Simplifier, x: Operand) -> Operand:
    return b.emit(Op.ADD, b.emit(Op.EXP, b.emit(Op.MUL, x, -1.0)), 1.0)


def _sigmoid(b: Simplifier, x: Value) -> Operand:
    return b.emit(Op.DIV, 1.0, one_plus_exp(b, x))


def _next_after(b: Simplifier, x: Operand, y: Operand, like: Value) -> Operand:
    """The neighbour of x towards y among the values of f16 or bf16, which are f32 in a kernel."""
    x, y = (b.cast(b.array(o, like.shape, like.dtype), f32) for o in (x, y))
    step, least, normal, largest = STEPS[like.dtype.name]
    up = b.emit(Op.GT, y, x)
    out = b.emit(Op.EQ, up, b.emit(Op.GT, x, 0.0))  # away from zero
    bits = b.emit(Op.ADD, b.emit(Op.BITCAST, x, dtype=i32), _either(b, out, step, -step, i32))
    size = b.emit(Op.ABS, x)
    near = b.emit(Op.ADD, x, _either(b, up, least, -least, f32))
    far = b.emit(Op.WHERE, b.emit(Op.IS_INF, x), largest, b.emit(Op.BITCAST, bits, dtype=f32))
    moved = b.emit(Op.WHERE, b.emit(Op.LE, size, normal), near, far)
    signed = b.emit(Op.WHERE, b.emit(Op.EQ, x, 0.0), moved, b.emit(Op.COPYSIGN, moved, x))
    different = b.emit(Op.OR, up, b.emit(Op.LT, y, x))
    same = b.emit(Op.WHERE, b.emit(Op.EQ, x, y), y, b.emit(Op.ADD, x, y))  # the sum is NaN here
    return b.cast(b.as_value(b.emit(Op.WHERE, different, signed, same)), like.dtype)


def _either(b: Simplifier, condition: Operand, one: float, other: float, dtype: DType) -> Operand:
    return b.emit(Op.WHERE, condition, one, other, dtype=dtype)


def _half_exp(b: Simplifier, a: Operand) -> Operand:
    """exp(a) / 2, finite wherever that is."""
    h = b.emit(Op.EXP, b.emit(Op.MUL, a, 0.5))
    return b.emit(Op.MUL, b.emit(Op.MUL, h, 0.5), h)


def _sinh(b: Simplifier, x: Value) -> Operand:
    a = b.emit(Op.ABS, x)
    t = b.emit(Op.EXPM1, a)
    near = b.emit(Op.MUL, b.emit(Op.ADD, t, b.emit(Op.DIV, t, b.emit(Op.ADD, t, 1.0))), 0.5)
    out = b.emit(Op.WHERE, b.emit(Op.LT, a, LARGE_EXPONENT), near, _half_exp(b, a))
    return b.emit(Op.COPYSIGN, out, x)


def _cosh(b: Simplifier, x: Value) -> Operand:
    a = b.emit(Op.ABS, x)
    h = b.emit(Op.EXP, a)
    near = b.emit(Op.MUL, b.emit(Op.ADD, h, b.emit(Op.DIV, 1.0, h)), 0.5)
    return b.emit(Op.WHERE, b.emit(Op.LT, a, LARGE_EXPONENT), near, _half_exp(b, a))


def _far_log(b: Simplifier, a: Operand) -> Operand:
    return b.emit(Op.ADD, b.emit(Op.LOG, a), math.log(2))


def _asinh(b: Simplifier, x: Value) -> Operand:
    a = b.emit(Op.ABS, x)
    square = b.emit(Op.MUL, a, a)
    root = b.emit(Op.SQRT, b.emit(Op.ADD, square, 1.0))
    near = b.emit(Op.LOG1P, b.emit(Op.ADD, a, b.emit(Op.DIV, square, b.emit(Op.ADD, root, 1.0))))
    is_near = b.emit(Op.LT, a, LARGE[x.dtype.compute.name])
    return b.emit(Op.COPYSIGN, b.emit(Op.WHERE, is_near, near, _far_log(b, a)), x)


def _acosh(b: Simplifier, x: Value) -> Operand:
    t = b.emit(Op.SUB, x, 1.0)
    root = b.emit(Op.SQRT, b.emit(Op.ADD, b.emit(Op.MUL, t, 2.0), b.emit(Op.MUL, t, t)))
    near = b.emit(Op.LOG1P, b.emit(Op.ADD, t, root))
    out = b.emit(Op.WHERE, b.emit(Op.LT, x, LARGE[x.dtype.compute.name]), near, _far_log(b, x))
    return b.emit(Op.WHERE, b.emit(Op.GE, x, 1.0), out, math.nan)


def _atanh(b: Simplifier, x: Value) -> Operand:
    a = b.emit(Op.ABS, x)
    t = b.emit(Op.DIV, b.emit(Op.MUL, a, 2.0), b.emit(Op.SUB, 1.0, a))
    return b.emit(Op.COPYSIGN, b.emit(Op.MUL, b.emit(Op.LOG1P, t), 0.5), x)


WRITTEN: dict[Op, Callable[[Simplifier, Value], Operand]] = {
    Op.SIGMOID: _sigmoid,
    Op.SINH: _sinh,
    Op.COSH: _cosh,
    Op.ASINH: _asinh,
    Op.ACOSH: _acosh,
    Op.ATANH: _atanh,
}


def _power(b: Simplifier, e: Equation, operands: list[Operand]) -> Operand | None:
    """x ** c for the exponents that are cheaper another way."""
    x, c = operands
    if (
        isinstance(c, Value)
        or not isinstance(x, Value)
        or not x.dtype.is_floating
        or c not in (4, -2, 0.5, -0.5)
    ):
        return None
    if abs(c) == 0.5:
        root = b.emit(Op.SQRT, b.emit(Op.ADD, x, 0.0))
        root = b.emit(Op.WHERE, b.emit(Op.EQ, x, -math.inf), math.inf, root)
        return root if c > 0 else b.emit(Op.DIV, 1.0, root)
    square = b.emit(Op.MUL, x, x)
    return b.emit(Op.MUL, square, square) if c == 4 else b.emit(Op.DIV, 1.0, square)


def _place(b: Simplifier, x: Value, v: Value, side: str) -> Operand:
    """Where v belongs in the sorted x: the count of elements before it."""
    shape = (*v.shape, x.shape[0])
    elements = b.as_value(b.emit(Op.BROADCAST, x, shape=shape, axes=(len(v.shape),)))
    wanted = b.as_value(b.emit(Op.BROADCAST, v, shape=shape, axes=tuple(range(len(v.shape)))))
    before = b.emit(Op.LT if side == "left" else Op.LE, elements, wanted)
    if x.dtype.is_floating:
        last = b.emit(Op.IS_NAN, wanted)
        if side == "left":
            last = b.emit(Op.AND, last, b.emit(Op.NOT, b.emit(Op.IS_NAN, elements)))
        before = b.emit(Op.OR, before, last)
    return b.emit(Op.SUM, b.emit(Op.CAST, before, dtype=i64), axes=(len(v.shape),))
