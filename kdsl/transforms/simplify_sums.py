"""Rules for reductions: constant factors leave sums, sums that can start earlier are taken apart, products meet as dots.

In:  a reduction and its operand.  Out: a value that equals it, or None.
A sum is linear: what does not vary along the summed axes (a row constant: a broadcast) leaves it. A sum of several terms is
taken apart only if it can then start before all terms are known (fewer passes over the row); x - mean(x) is never opened,
that would lose digits. Read before: transforms/rewrite.py. Read next: transforms/simplify_dots.py.
"""

from __future__ import annotations

from kdsl.ir.ops import Op
from kdsl.ir.rules import identity, result_type
from kdsl.ir.sizes import Extent
from kdsl.ir.tensor import Literal, Operand, Value
from kdsl.transforms.rewrite import Attributes, Operands, Simplifier, rule
from kdsl.transforms.simplify_elementwise import mild

Term = tuple[
    Literal, tuple[Value, ...], tuple[Value, ...]
]  # a literal, row constants (as broadcasts), other factors

IDEMPOTENT = (Op.MAX, Op.MIN, Op.ANY, Op.ALL)
NESTING = (Op.SUM, Op.PROD, *IDEMPOTENT)


@rule(*NESTING, exact=True)
def reduce_nothing(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """sum over an axis of size 0 -> 0"""
    t = result_type(op, x, a)
    return b.full(identity(op, t.dtype), t.shape, t.dtype) if any(x[0].shape[i] == 0 for i in a["axes"]) else None


@rule(*NESTING, exact=True)
def reduce_axes_of_one(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """sum over an axis of size 1 -> reshape"""
    v, axes = x[0], a["axes"]
    ones = {i for i in axes if v.shape[i] == 1}
    if not ones:
        return None
    v = b.value(Op.RESHAPE, v, shape=tuple(n for i, n in enumerate(v.shape) if i not in ones))
    rest = tuple(i - sum(j < i for j in ones) for i in axes if i not in ones)
    return b.reduce(op, v, rest)


@rule(*NESTING, exact=False)
def reduce_once(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """sum(sum(x, i), j) -> sum(x, (i, j)): another order"""
    e = b.define(x[0], op)
    if e is None:
        return None
    inner, v = e.attributes["axes"], e.values[0]
    kept = [i for i in range(len(v.shape)) if i not in inner]
    return b.reduce(op, v, (*inner, *(kept[i] for i in a["axes"])))


@rule(*IDEMPOTENT, exact=True)
def extreme_of_equals(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """max(broadcast(x)) along the new axes -> broadcast(x)"""
    e = b.define(x[0], Op.BROADCAST)
    if e is None:
        return None
    shape, places = x[0].shape, e.attributes["axes"]
    idle = {i for i in a["axes"] if i not in places and isinstance(shape[i], int) and shape[i] > 0}
    if not idle:
        return None
    kept = [i for i in range(len(shape)) if i not in idle]
    v = b.value(
        Op.BROADCAST, e.values[0], shape=tuple(shape[i] for i in kept), axes=tuple(map(kept.index, places))
    )
    return b.reduce(op, v, [kept.index(i) for i in a["axes"] if i not in idle])


def row_constant(b: Simplifier, v: Operand, axes: tuple[int, ...]) -> bool:
    """Whether v is a broadcast that does not vary along any of these axes."""
    e = b.define(v, Op.BROADCAST)
    return e is not None and not set(e.attributes["axes"]) & set(axes)


def terms(b: Simplifier, v: Value, axes: tuple[int, ...], top: bool = True) -> list[Term]:
    """v as a sum of products."""
    if row_constant(b, v, axes):
        return [(1, (v,), ())]
    e = b.define(v, Op.MUL, Op.ADD, Op.SUB)
    if e is not None and e.op is Op.MUL:
        x, y = e.operands
        if not isinstance(y, Value):
            if v.dtype.is_floating and not mild(y):
                return [(1, (), (v,))]
            return [(c * y, k, r) for c, k, r in terms(b, b.as_value(x), axes, top)]
        left, right = (terms(b, b.as_value(o), axes, False) for o in (x, y))
        if len(left) == len(right) == 1 or (top and len(left) * len(right) == 2):
            return [(c * d, k + m, r + s) for c, k, r in left for d, m, s in right]
    elif (
        top
        and e is not None
        and all(isinstance(o, Value) and not row_constant(b, o, axes) for o in e.operands)
    ):
        left, right = (terms(b, o, axes) for o in e.values)
        return left + ([(-c, k, r) for c, k, r in right] if e.op is Op.SUB else right)
    return [(1, (), (v,))]


def deviations(b: Simplifier, v: Value, axes: tuple[int, ...]) -> bool:
    """Whether v is x - mean(x) along exactly these axes, whose sum is 0 but for rounding."""
    e = b.define(v, Op.SUB)
    if e is None or not isinstance(e.operands[1], Value) or not row_constant(b, e.operands[1], axes):
        return False
    mean = e.operands[1]
    while (d := b.define(mean, Op.BROADCAST)) is not None:
        mean = d.values[0]
    count: Extent = 1
    for i in axes:
        count = count * v.shape[i]
    d = b.define(_divided(b, mean, count), Op.SUM)
    return d is not None and d.operands[0] is e.operands[0] and d.attributes["axes"] == axes


def _divided(b: Simplifier, mean: Operand, count: Extent) -> Operand:
    """The total that `mean` is divided by `count`, or `mean` itself."""
    e = b.define(mean, Op.MUL)
    if e is None:
        return mean
    for total, share in (e.operands, e.operands[::-1]):
        if not isinstance(share, Value):
            if isinstance(count, int) and abs(share * count - 1) < 1e-12:
                return total
            continue
        while (d := b.define(share, Op.BROADCAST, Op.DIV, Op.CAST)) is not None:
            if d.op is Op.DIV and d.operands[0] != 1.0:
                break
            share = d.operands[-1]
        d = b.define(share, Op.SIZE)
        if d is not None and d.attributes["value"] == count:
            return total
    return mean


@rule(Op.SUM, exact=False)
def deviations_cancel(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """sum(x - mean(x)) -> 0, in gradients only, where it is the influence of a shift that changes nothing"""
    if not b.gradients or not deviations(b, x[0], a["axes"]):
        return None
    return b.full(0.0, tuple(n for i, n in enumerate(x[0].shape) if i not in a["axes"]), x[0].dtype)


@rule(Op.SUM, exact=False)
def linear_sum(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """sum(k * c * y) -> k * sum(y) * c for k constant along the axes and a literal c; sums of early and late terms part"""
    v, axes = x[0], a["axes"]
    if not (v.dtype.is_floating or v.dtype.is_integer):
        return None
    parts = terms(b, v, axes)
    literal, constants, rest = parts[0]
    if len(parts) == 1 and (literal, constants) == (1, ()) and rest:
        return None
    sooner = max(b.depth(f) for _, _, r in parts for f in r or (0,)) < b.depth(v)
    if len(parts) > 1 and not sooner:
        return None
    total: Operand | None = None
    for literal, constants, rest in parts:
        if b.gradients and len(rest) == 1 and deviations(b, rest[0], axes):
            continue
        part = _term_sum(b, v, axes, literal, constants, rest)
        total = part if total is None else b.emit(Op.ADD, total, part)
    return (
        b.full(0.0, tuple(n for i, n in enumerate(v.shape) if i not in axes), v.dtype)
        if total is None
        else total
    )


def _term_sum(
    b: Simplifier,
    v: Value,
    axes: tuple[int, ...],
    literal: Literal,
    constants: tuple[Value, ...],
    rest: tuple[Value, ...],
) -> Operand:
    """The sum along `axes` of literal * constants * rest."""
    kept = tuple(n for i, n in enumerate(v.shape) if i not in axes)
    out: Operand
    if rest:
        product: Operand = rest[0]
        for f in rest[1:]:
            product = b.emit(Op.MUL, product, f)
        out = b.emit(Op.SUM, product, axes=axes)
    else:
        first, *constants_left = (_without_axes(b, k, axes) for k in constants)
        out = b.emit(Op.MUL, first, b.count((v.shape[i] for i in axes), v.dtype, kept))
        return _scaled(b, out, constants_left, literal)
    return _scaled(b, out, [_without_axes(b, k, axes) for k in constants], literal)


def _scaled(b: Simplifier, x: Operand, constants: list[Operand], literal: Literal) -> Operand:
    scale: Operand | None = None
    for k in constants:
        scale = k if scale is None else b.emit(Op.MUL, scale, k)
    if scale is not None:
        x = b.emit(Op.MUL, x, scale)
    return x if literal == 1 else b.emit(Op.MUL, x, literal)


def _without_axes(b: Simplifier, v: Value, axes: tuple[int, ...]) -> Operand:
    """broadcast(k) without the axes along which it does not vary."""
    e = b.home[v]
    kept = [i for i in range(len(v.shape)) if i not in axes]
    shape: tuple[Extent, ...] = tuple(v.shape[i] for i in kept)
    return b.emit(Op.BROADCAST, e.values[0], shape=shape, axes=tuple(map(kept.index, e.attributes["axes"])))


@rule(Op.SUM, exact=True)
def products_are_dots(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """sum(broadcast(p) * broadcast(q)) where each lacks a kept axis of the other -> dot(p, q)"""
    e = b.define(x[0], Op.MUL)
    if e is None or len(e.values) < 2:
        return None
    sides = [b.define(o, Op.BROADCAST) for o in e.values]
    names = [f"a{i}" for i in range(len(x[0].shape))]
    letters, sources = [], []
    for side, operand in zip(sides, e.values, strict=True):
        axes = side.attributes["axes"] if side else tuple(range(len(operand.shape)))
        source = side.values[0] if side else operand
        if any(n != operand.shape[axis] for n, axis in zip(source.shape, axes, strict=True)):
            return None  # an axis of 1 that is repeated is no letter
        letters.append(tuple(names[axis] for axis in axes))
        sources.append(source)
    kept = tuple(n for i, n in enumerate(names) if i not in a["axes"])
    left, right = map(set, letters)
    if left | right != set(names) or not (set(kept) & (left - right) and set(kept) & (right - left)):
        return None
    if not all(names[i] in left & right for i in a["axes"]):
        return None
    return b.emit(Op.DOT, *sources, left=letters[0], right=letters[1], out=kept)


@rule(Op.SUM, exact=False)
def product_with_a_dot(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """sum_j p_ij * (u_i . v_j) -> u_i . (p v)_i where p v exists: how softmax's gradient meets attention's output"""
    e = b.define(x[0], Op.MUL)
    if e is None:
        return None
    for p, q in (e.operands, e.operands[::-1]):
        d = b.define(q, Op.DOT)
        if d is None or not isinstance(p, Value):
            continue
        out, summed = d.attributes["out"], {d.attributes["out"][i] for i in a["axes"]}
        for side in (0, 1):
            v, v_letters = d.values[side], d.attributes[("left", "right")[side]]
            u, u_letters = d.operands[1 - side], d.attributes[("right", "left")[side]]
            if (
                not summed <= set(v_letters)
                or summed & set(u_letters)
                or len(set(v_letters)) != len(v_letters)
            ):
                continue
            found = _find_dot(b, p, out, v, v_letters, summed)
            if found is None:
                continue
            pv, pv_letters = found
            kept = tuple(letter for letter in out if letter not in summed)
            if set(pv_letters) | set(u_letters) >= set(kept) and b.turn(p, u, v):
                return b.emit(Op.DOT, u, pv, left=u_letters, right=pv_letters, out=kept)
    return None


def _find_dot(
    b: Simplifier,
    p: Value,
    p_letters: tuple[str, ...],
    v: Value,
    v_letters: tuple[str, ...],
    summed: set[str],
) -> tuple[Value, tuple[str, ...]] | None:
    """A dot of p and v that exists and sums exactly `summed`, and the letters of its result."""
    for e in b.dots_of(p):
        for mine, theirs in (("left", "right"), ("right", "left")):
            one, other = (e.operands[0], e.operands[1]) if mine == "left" else (e.operands[1], e.operands[0])
            if one is not p or other is not v:
                continue
            rename = dict(zip(e.attributes[mine], p_letters, strict=True))
            if any(
                rename.setdefault(k, n) != n for k, n in zip(e.attributes[theirs], v_letters, strict=True)
            ):
                continue
            out = tuple(rename[k] for k in e.attributes["out"])
            if len(set(rename.values())) == len(rename) and set(rename.values()) - set(out) == summed:
                return e.result, out
    return None
