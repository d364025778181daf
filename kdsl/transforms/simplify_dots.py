"""Rules for contractions: permutes and broadcasts become letters, constants leave, what is no product of matrices is a sum.

In:  a dot, its operands and letters.  Out: a value that equals it, or None. Read before: transforms/simplify_sums.py.
"""

from __future__ import annotations

import kdsl.dtypes as dt
from kdsl.ir.numbers import canonical
from kdsl.ir.ops import Op
from kdsl.ir.tensor import Operand, Value
from kdsl.transforms.rewrite import Attributes, Operands, Simplifier, rule
from kdsl.transforms.simplify_elementwise import mild

SIDES = ("left", "right")


@rule(Op.DOT, exact=True)
def diagonals_first(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """dot(x[m, m], y) -> dot(d, y) with the diagonal d = sum_j where(i == j, x, 0)"""
    for side in (0, 1):
        mine, v = a[SIDES[side]], x[side]
        j = next((j for j, letter in enumerate(mine) if letter in mine[:j]), None)
        if j is None:
            continue
        i = mine.index(mine[j])
        rows, columns = (b.value(Op.IOTA, shape=v.shape, axis=axis, dtype=dt.i64) for axis in (i, j))
        zero = canonical(0, v.dtype)
        diagonal = b.value(Op.WHERE, b.value(Op.EQ, rows, columns), v, zero)
        operand = b.reduce(Op.SUM, diagonal, (j,))
        operands = (operand, x[1]) if side == 0 else (x[0], operand)
        return b.emit(Op.DOT, *operands, **{**a, SIDES[side]: mine[:j] + mine[j + 1 :]})
    return None


@rule(Op.DOT, exact=True)
def permutes_are_letters(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """dot(permute(x), y) -> dot(x, y) with the letters permuted"""
    for side in (0, 1):
        e = b.define(x[side], Op.PERMUTE)
        if e is not None:
            letters: list[str] = [""] * len(a[SIDES[side]])
            for i, axis in enumerate(e.attributes["axes"]):
                letters[axis] = a[SIDES[side]][i]
            operands = (e.values[0], x[1]) if side == 0 else (x[0], e.values[0])
            return b.emit(Op.DOT, *operands, **{**a, SIDES[side]: tuple(letters)})
    return None


@rule(Op.DOT, exact=True)
def broadcasts_are_missing_letters(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """dot(broadcast(x), y) -> dot(x, y) without the letter, where y has it"""
    for side in (0, 1):
        e = b.define(x[side], Op.BROADCAST)
        if e is None:
            continue
        mine, theirs = a[SIDES[side]], a[SIDES[1 - side]]
        source, places = e.values[0], e.attributes["axes"]
        if any(n != x[side].shape[axis] for n, axis in zip(source.shape, places, strict=True)):
            continue
        gone = [letter for i, letter in enumerate(mine) if i not in places]
        if gone and set(gone) <= set(theirs):
            operands = (source, x[1]) if side == 0 else (x[0], source)
            return b.emit(Op.DOT, *operands, **{**a, SIDES[side]: tuple(mine[i] for i in places)})
    return None


@rule(Op.DOT, exact=False)
def sum_alone_first(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """A letter of one operand that neither the other nor the result has is summed before"""
    for side in (0, 1):
        mine, theirs = a[SIDES[side]], a[SIDES[1 - side]]
        alone = [i for i, letter in enumerate(mine) if letter not in theirs and letter not in a["out"]]
        if alone:
            small = b.reduce(Op.SUM, x[side], alone)
            operands = (small, x[1]) if side == 0 else (x[0], small)
            letters = tuple(letter for i, letter in enumerate(mine) if i not in alone)
            return b.emit(Op.DOT, *operands, **{**a, SIDES[side]: letters})
    return None


@rule(Op.DOT, exact=False)
def constants_leave(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """dot(p * broadcast(k), v) -> dot(p, v) * broadcast(k) for k that does not vary along a summed letter; literals too"""
    for side in (0, 1):
        e = b.define(x[side], Op.MUL)
        if e is None:
            continue
        for k, rest in (e.operands, e.operands[::-1]):
            if not isinstance(rest, Value):
                continue
            if not isinstance(k, Value):
                if not k or (x[0].dtype.is_floating and not mild(k)):
                    continue
                return b.emit(Op.MUL, _with(b, x, a, side, rest), k)
            d = b.define(k, Op.BROADCAST)
            if d is None:
                continue
            letters = [a[SIDES[side]][axis] for axis in d.attributes["axes"]]
            if all(letter in a["out"] for letter in letters):
                return _times_row(
                    b, _with(b, x, a, side, rest), d.values[0], [a["out"].index(c) for c in letters]
                )
            moved = _to_the_other_side(b, x, a, side, rest, d.values[0], letters)
            if moved is not None:
                return moved
    return None


def _with(b: Simplifier, x: Operands, a: Attributes, side: int, operand: Value) -> Value:
    """The dot with another operand on this side."""
    return b.value(Op.DOT, *((operand, x[1]) if side == 0 else (x[0], operand)), **a)


def _times_row(b: Simplifier, y: Value, k: Value, places: list[int]) -> Operand:
    """y * k, the axes of k lying on these axes of y in any order."""
    order = tuple(sorted(range(len(places)), key=places.__getitem__))
    row = b.value(Op.PERMUTE, k, axes=order)
    return b.emit(Op.MUL, y, b.emit(Op.BROADCAST, row, shape=y.shape, axes=tuple(sorted(places))))


def _to_the_other_side(
    b: Simplifier, x: Operands, a: Attributes, side: int, rest: Value, k: Value, letters: list[str]
) -> Operand | None:
    """A factor along the summed letter goes to the operand that is computed anyway, so that this one is read from memory;
    not where another product reads that operand as it is: with the factor it would be a second array."""
    other, theirs = x[1 - side], a[SIDES[1 - side]]
    if rest in b.home or other not in b.home or b.dots_of(other) or not all(letter in theirs for letter in letters):
        return None
    scaled = _times_row(b, other, k, [theirs.index(letter) for letter in letters])
    return b.emit(Op.DOT, *((rest, scaled) if side == 0 else (scaled, rest)), **a)


@rule(Op.DOT, exact=False)
def ones_are_no_letters(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """dot(x[1, k], w[n, k]) -> dot(x[k], w[n, k]) with the axis put back: a product of one row is no product of matrices"""
    extents = {**dict(zip(a["left"], x[0].shape, strict=True)), **dict(zip(a["right"], x[1].shape, strict=True))}
    ones = {letter for letter, n in extents.items() if n == 1}
    if not ones:
        return None
    letters = {side: tuple(c for c in a[side] if c not in ones) for side in (*SIDES, "out")}
    shapes = {side: tuple(extents[c] for c in letters[side]) for side in letters}
    operands = [
        v if letters[side] == a[side] else b.value(Op.RESHAPE, v, shape=shapes[side])
        for v, side in zip(x, SIDES, strict=True)
    ]
    y = b.value(Op.DOT, *operands, **{**a, **letters})
    return b.emit(Op.RESHAPE, y, shape=tuple(extents[c] for c in a["out"])) if letters["out"] != a["out"] else y


@rule(Op.DOT, exact=False)
def no_product_of_matrices(b: Simplifier, op: Op, x: Operands, a: Attributes) -> Operand | None:
    """dot(x, y) -> sum(x * y) unless both operands have a letter of the result that the other lacks"""
    left, right, out = a["left"], a["right"], a["out"]
    own = [set(out) & (set(p) - set(q)) for p, q in ((left, right), (right, left))]
    summed = [letter for letter in left if letter in right and letter not in out]
    if all(own) and summed:
        return None
    grid = (*out, *summed)
    extents = {**dict(zip(left, x[0].shape, strict=True)), **dict(zip(right, x[1].shape, strict=True))}
    shape = tuple(extents[letter] for letter in grid)
    spread = []
    for v, letters in zip(x, (left, right), strict=True):
        places = [grid.index(letter) for letter in letters]
        order = tuple(sorted(range(len(places)), key=places.__getitem__))
        spread.append(
            b.emit(Op.BROADCAST, b.emit(Op.PERMUTE, v, axes=order), shape=shape, axes=tuple(sorted(places)))
        )
    return b.reduce(Op.SUM, b.value(Op.MUL, *spread), range(len(out), len(grid)))
