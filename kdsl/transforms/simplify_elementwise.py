"""Rules for elementwise equations: literals, identities, and computing before broadcasting.

In:  an elementwise op and its operands.  Out: a simpler value that equals it, or None. Read before: transforms/rewrite.py.
"""

from __future__ import annotations

import math

from kdsl.dtypes import DType
from kdsl.ir.numbers import canonical
from kdsl.ir.ops import COMMUTATIVE, COMPARISONS, ELEMENTWISE, Op
from kdsl.ir.sizes import Extent
from kdsl.ir.tensor import Literal, Operand, Value
from kdsl.transforms.rewrite import Attributes, Operands, Simplifier, rule

MIRRORED = {Op.LT: Op.GT, Op.GT: Op.LT, Op.LE: Op.GE, Op.GE: Op.LE}
OPPOSITE = {Op.EQ: Op.NE, Op.NE: Op.EQ, Op.LT: Op.GE, Op.GE: Op.LT, Op.GT: Op.LE, Op.LE: Op.GT}


def literal(x: Operand) -> Literal | None:
    """x if it is a literal."""
    return None if isinstance(x, Value) else x


def same_number(x: Operand, number: Literal) -> bool:
    """Whether x is this literal, 0.0 and -0.0 apart."""
    if isinstance(x, Value) or x != number:
        return False
    return math.copysign(1, x) == math.copysign(1, number)


def factor(b: Simplifier, x: Operand) -> tuple[Operand, Literal | None]:
    """x as (y, c) with x = y * c for a literal c; c is None where there is none."""
    e = b.define(x, Op.MUL)
    return (e.operands[0], e.operands[1]) if e and not isinstance(e.operands[1], Value) else (x, None)


def mild(*numbers: Literal) -> bool:
    """Factors so far from overflow and underflow that their order does not matter."""
    return all(2.0**-40 <= abs(c) <= 2.0**40 for c in numbers)


@rule(*ELEMENTWISE, exact=True)
def compute_before_broadcasting(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """op(broadcast(p), broadcast(q)) -> broadcast(op(p, q)) where p and q together are smaller than the result."""
    values = [o for o in x if isinstance(o, Value)]
    definitions = [e for v in values if (e := b.define(v, Op.BROADCAST)) is not None]
    if len(definitions) < len(values):
        return None
    shape = values[0].shape
    extents: dict[int, Extent] = {}
    for e in definitions:
        for axis, n in zip(e.attributes["axes"], e.values[0].shape, strict=True):
            extents[axis] = n if extents.get(axis, 1) == 1 else extents[axis]
    axes = tuple(sorted(extents))
    small = tuple(extents[axis] for axis in axes)
    if small == shape:
        return None
    sources = dict(zip(values, definitions, strict=True))

    def shrink(o: Operand) -> Operand:
        if not isinstance(o, Value):
            return o
        places = tuple(axes.index(axis) for axis in sources[o].attributes["axes"])
        return b.emit(Op.BROADCAST, sources[o].values[0], shape=small, axes=places)

    return b.emit(Op.BROADCAST, b.emit(op, *map(shrink, x), **a), shape=shape, axes=axes)


@rule(*COMMUTATIVE, *MIRRORED, exact=True)
def literal_last(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """1 + x -> x + 1;  0 < x -> x > 0"""
    return b.emit(MIRRORED.get(op, op), x[1], x[0]) if not isinstance(x[0], Value) else None


@rule(Op.NEG, exact=True)
def negation_is_a_product(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """-x -> x * -1.0 for floating x, so that the sign joins other factors; -(-x) -> x for integers"""
    (v,) = x
    if v.dtype.is_floating:
        return b.emit(Op.MUL, v, -1.0)
    e = b.define(v, Op.NEG)
    return e.operands[0] if e else None


@rule(Op.MUL, exact=True)
def times_one(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """x * 1 -> x;  for integers x * 0 -> 0"""
    if isinstance(x[1], Value):
        return None
    if x[1] == 1:
        return x[0]
    integer = not x[0].dtype.is_floating
    return b.full(canonical(0, x[0].dtype), x[0].shape, x[0].dtype) if integer and x[1] == 0 else None


def _exact_together(c: Literal, d: Literal) -> bool:
    """Whether (x * c) * d is x * (c * d) for every x: a sign, or powers of two that both make x larger."""
    if abs(c) == 1 or abs(d) == 1:
        return True
    return all(abs(k) >= 1 and math.frexp(k)[0] in (0.5, -0.5) for k in (c, d))


@rule(Op.MUL, exact=False)
def literal_factors_meet(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """(x * c) * d -> x * (c*d);  (x * c) * y -> (x * y) * c, but a row constant takes c in

    In what users wrote only where no bit changes (the contract names no freedom for it): signs, growing powers of two, and the
    factor 2 that `one_plus_tanh` brought in. Mild factors of gradients meet freely."""
    floating = x[0].dtype.is_floating
    p, c = factor(b, x[0])
    if not isinstance(x[1], Value):
        free = not floating or (b.gradients and mild(x[1]))
        if c is None:
            return _into_row_constant(b, x[0], x[1]) if free else None
        if not (free and (not floating or mild(c))) and not _exact_together(c, x[1]):
            return None
        return _times(b, p, c * x[1])
    q, d = factor(b, x[1])
    given = [k for k in (c, d) if k is not None]
    if not given or (floating and not (_only_signs(given) or (b.gradients and mild(*given)) or _has_own_factor(b, p, c, q, d))):
        return None
    return _times(b, b.emit(Op.MUL, p, q), math.prod(given))


def _only_signs(numbers: list[Literal]) -> bool:
    return all(abs(k) == 1 for k in numbers)


def _has_own_factor(b: Simplifier, p: Operand, c: Literal | None, q: Operand, d: Literal | None) -> bool:
    """Whether this is (sigmoid * 2) * (y * c) with a c that lets nothing overflow: the 2 belongs to the identity of tanh."""
    return any(
        k == 2.0 and b.define(s, Op.SIGMOID) is not None and (other is None or 2.0**-40 <= abs(other) <= 1)
        for s, k, other in ((p, c, d), (q, d, c))
    )


def _times(b: Simplifier, v: Operand, number: Literal) -> Operand | None:
    """v * number, unless the number is infinite in the dtype."""
    assert isinstance(v, Value)
    number = canonical(number, v.dtype)
    return b.emit(Op.MUL, v, number) if math.isfinite(number) else None


def _into_row_constant(b: Simplifier, v: Operand, c: Literal) -> Operand | None:
    """(broadcast(k) * y) * c -> broadcast(k * c) * y"""
    e = b.define(v, Op.MUL)
    if e is None:
        return None
    for k, y in (e.operands, e.operands[::-1]):
        if b.define(k, Op.BROADCAST):
            return b.emit(Op.MUL, b.emit(Op.MUL, k, c), y)
    return None


@rule(Op.ADD, Op.SUB, Op.OR, Op.XOR, Op.SHL, Op.SHR, exact=True)
def plus_nothing(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """x + 0 -> x for integers;  x - 0.0 and x + -0.0 -> x;  x or False, x << 0 -> x. x + 0.0 stays: it turns -0.0 into 0.0"""
    if isinstance(x[1], Value) or x[1] != 0:
        return None
    if not x[0].dtype.is_floating or same_number(x[1], 0.0 if op is Op.SUB else -0.0):
        return x[0]
    return None


@rule(Op.AND, Op.OR, exact=True)
def known_truth(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """x and True -> x;  x and False -> False;  x or True -> True;  x and x -> x"""
    if x[0] is x[1]:
        return x[0]
    if isinstance(x[1], Value) or x[0].dtype.kind != "bool":
        return None
    return x[0] if bool(x[1]) == (op is Op.AND) else b.full(bool(x[1]), x[0].shape, x[0].dtype)


@rule(Op.SUB, exact=True)
def subtract_a_literal(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """x - c -> x + -c"""
    return None if isinstance(x[1], Value) else b.emit(Op.ADD, x[0], canonical(-x[1], x[0].dtype))


@rule(Op.ADD, exact=True)
def integers_add_up(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """(x + c) + d -> x + (c + d) for integers"""
    e = b.define(x[0], Op.ADD)
    if isinstance(x[1], Value) or e is None or isinstance(e.operands[1], Value) or not x[0].dtype.is_integer:
        return None
    return b.emit(Op.ADD, e.operands[0], canonical(e.operands[1] + x[1], x[0].dtype))


@rule(Op.ADD, Op.SUB, exact=True)
def add_a_negative(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """x + y * -1.0 -> x - y;  x * -1.0 + y -> y - x;  x - y * -1.0 -> x + y"""
    if not (isinstance(x[0], Value) and isinstance(x[1], Value) and x[0].dtype.is_floating):
        return None
    q, c = factor(b, x[1])
    if c == -1.0:
        return b.emit(Op.SUB if op is Op.ADD else Op.ADD, x[0], q)
    p, c = factor(b, x[0])
    return b.emit(Op.SUB, x[1], p) if c == -1.0 and op is Op.ADD else None


@rule(Op.DIV, exact=False)
def divide_once(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """x / c -> x * (1/c);  x / broadcast(s) -> x * broadcast(1/s): one division for each row instead of each element"""
    if not isinstance(x[1], Value):
        return b.emit(Op.MUL, x[0], 1.0 / x[1]) if mild(x[1]) else None
    e = b.define(x[1], Op.BROADCAST)
    if e is None or not isinstance(x[0], Value):
        return None
    inverse = b.emit(Op.DIV, 1.0, e.values[0])
    return b.emit(Op.MUL, x[0], b.emit(Op.BROADCAST, inverse, **e.attributes))


@rule(Op.ADD, exact=False)
def one_plus_tanh(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """tanh(u) + 1 -> sigmoid(u * 2) * 2;  tanh(u * c) + 1 -> sigmoid(u * (2*c)) * 2"""
    e = b.define(x[0], Op.TANH)
    if e is None or isinstance(x[1], Value) or x[1] != 1.0:
        return None
    p, c = factor(b, e.operands[0])
    doubled = b.emit(Op.MUL, p, 2.0 if c is None else canonical(2.0 * c, x[0].dtype))
    return b.emit(Op.MUL, b.emit(Op.SIGMOID, doubled), 2.0)


@rule(Op.WHERE, exact=False)
def literal_leaves_choice(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """where(m, x * c, 0.0) -> where(m, x, 0.0) * c for c > 0, so that it can leave the sum or contraction that follows"""
    condition, yes, no = x
    if not isinstance(yes, Value) or not same_number(no, 0.0) or not yes.dtype.is_floating:
        return None
    y, c = factor(b, yes)
    if c is None or c <= 0 or not mild(c):
        return None
    return b.emit(Op.MUL, b.emit(Op.WHERE, condition, y, no, **a), c)


@rule(Op.POW, exact=False)
def small_powers(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """x ** 1 -> x;  x ** 2 -> x * x;  x ** 3 -> x * x * x;  x ** -1.0 -> 1 / x"""
    if isinstance(x[1], Value) or not isinstance(x[0], Value) or x[1] not in (1, 2, 3, -1):
        return None
    if x[1] == -1:
        return b.emit(Op.DIV, 1.0, x[0]) if x[0].dtype.is_floating else None
    out: Operand = x[0]
    for _ in range(int(x[1]) - 1):
        out = b.emit(Op.MUL, out, x[0])
    return out


@rule(Op.NOT, exact=True)
def negated_truth(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """not not x -> x;  not (x == y) -> x != y;  for integers not (x < y) -> x >= y"""
    e = b.define(x[0], Op.NOT, *COMPARISONS)
    if e is None:
        return None
    if e.op is Op.NOT:
        return e.operands[0]
    ordered = e.op in (Op.EQ, Op.NE) or not e.operand_dtype.is_floating  # NaN answers no to < and to >=
    return b.emit(OPPOSITE[e.op], *e.operands) if ordered else None


@rule(Op.WHERE, exact=True)
def known_choice(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """where(True, x, y) -> x;  where(c, x, x) -> x;  where(not c, x, y) -> where(c, y, x)"""
    condition, yes, no = x
    if not isinstance(condition, Value):
        typed = next(v for v in (yes, no) if isinstance(v, Value))
        chosen = yes if condition else no
        return chosen if isinstance(chosen, Value) else b.full(chosen, typed.shape, typed.dtype)
    if isinstance(yes, Value) and yes is no:
        return yes
    e = b.define(condition, Op.NOT)
    return b.emit(Op.WHERE, e.operands[0], no, yes, **a) if e else None


def _holds(wide: DType, narrow: DType) -> bool:
    """Whether every value of the dtype `narrow` is a value of `wide`."""
    if wide.is_floating:
        digits = {"f16": 11, "bf16": 8, "f32": 24, "f64": 53}[wide.name]
        if narrow.is_floating:
            return wide is narrow or wide.bytes > narrow.bytes
        return narrow.bits - (narrow.kind == "signed") <= digits and wide.name not in ("f16", "bf16")
    if narrow.is_floating or wide.kind == "bool":
        return narrow.kind == wide.kind == "bool"
    if wide.kind == narrow.kind:
        return wide.bits >= narrow.bits
    return narrow.kind == "bool" or (wide.kind == "signed" and wide.bits > narrow.bits)


@rule(Op.CAST, exact=True)
def cast_once(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """cast(x, its own dtype) -> x;  cast(cast(x, wider), d) -> cast(x, d). A cast to f16 or bf16 rounds, and stays."""
    (v,) = x
    if v.dtype is a["dtype"] and v.dtype.compute is v.dtype:
        return v
    e = b.define(v, Op.CAST)
    if e is not None and _holds(v.dtype, e.values[0].dtype):
        return b.emit(Op.CAST, e.values[0], dtype=a["dtype"])
    return None
