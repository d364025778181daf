"""What a chunk of steps does to one carry, and what leads from one chunk to the next.

    for each chunk    e = the carry after it, from 0;   p = the product of its slopes
                      w, u = the carry after it, from infinity, from minus infinity
    from chunk to chunk:  start[c+1] = p[c] * start[c] + e[c]
In:  what a step does to the carry (linear_steps.py).  Out: a Chain: its parts, and how they meet (chunk_starts.py).

Nothing is divided: a product that underflows says that a start is forgotten. Unless |slope| <= 1 is known, the products of f32
are f64, which leave its range only where the carry leaves f32's; those of f64 have an exponent of their own
(transforms/wide_products.py). A start of 0 counts for nothing even where a product is infinite. An infinite or NaN start is
not multiplied: w and u say what becomes of it (a `where` may have put another value in its place; a product of 0 would not
tell that from one that is merely small). So the starts are those of the steps one by one, to rounding, unless slopes are
infinite or the carry overflows on the way: what follows may then be infinite for the one and NaN or a number for the other.
Read before: linear_steps.py, wide_products.py. Read next: chunk_blocks.py, chunk_starts.py.
"""

from __future__ import annotations

import math

import kdsl.dtypes as dt
from kdsl.dtypes import DType
from kdsl.ir.frame import Illegal
from kdsl.ir.ops import Op
from kdsl.ir.rules import Builder, identity
from kdsl.ir.tensor import Literal, Operand, Value
from kdsl.transforms.linear_steps import StepKinds
from kdsl.transforms.wide_products import apart, times, together

OF = {Op.MAXIMUM: Op.MAX, Op.MINIMUM: Op.MIN, Op.OR: Op.ANY, Op.XOR: Op.ANY}
Parts = dict[str, Value]  # what is known of a chunk, by name


def as_value(x: Operand) -> Value:
    """A value that a Builder made."""
    assert isinstance(x, Value)
    return x


class Chain:
    """One carry from chunk to chunk: e, and p and w where they are needed, as values of one dtype each."""

    def __init__(self, kinds: StepKinds, i: int) -> None:
        self.kind, self.i, self.carries = kinds.kinds[i], i, (i,)
        carry = kinds.carry[i]
        self.shape, self.dtype = carry.shape, carry.dtype.compute
        self.fresh = i not in kinds.of(kinds.after[i])
        self.scaled = self.kind == "linear" and not self.fresh and not kinds.is_shift(i)
        self.product: DType = self.dtype
        self.long = False  # products are kept as p and x
        if self.scaled and self.dtype.kind == "bool":
            raise Illegal("its step selects a bool carry")
        if self.scaled and self.dtype.is_floating and not kinds.is_bounded(i):
            self.long = self.dtype is dt.f64
            self.product = dt.f64
        self.watched = self.scaled and self.dtype.is_floating

    @property
    def parts(self) -> list[tuple[str, DType]]:
        """What is known of a chunk."""
        products = [("p", self.product)] * self.scaled + [("x", self.product)] * self.long
        return [("e", self.dtype), *products, *[("w", self.dtype), ("u", self.dtype)] * self.watched]

    def first(self, part: str) -> Literal:
        """What a part is before the first step."""
        if self.kind is Op.AND:
            return True if self.dtype.kind == "bool" else -1 if self.dtype.kind == "signed" else identity(Op.MIN, self.dtype)
        if isinstance(self.kind, Op):
            return identity(OF[self.kind], self.dtype)
        if part in "wu":
            return math.inf if part == "w" else -math.inf
        return (1.0 if self.dtype.is_floating else 1) if part == "p" else (0.0 if self.dtype.is_floating else 0)

    @property
    def products(self) -> list[str]:
        """The parts that come of the slopes alone."""
        return [k for k, _ in self.parts if k in "px"]

    def joined(self, b: Builder, before: Parts, here: Parts) -> Parts:
        """What is known after a chunk, of what is known before it."""
        products = self.multiplied(b, before, here) if "p" in before else {}
        return {k: products[k] if k in products else self.through(b, v, here) for k, v in before.items()}

    def multiplied(self, b: Builder, one: Parts, other: Parts) -> Parts:
        """The product of two products."""
        if not self.long:
            return {"p": as_value(b.emit(Op.MUL, one["p"], other["p"]))}
        p, x = times(b, (one["p"], one["x"]), (other["p"], other["x"]))
        return {"p": p, "x": x}

    def through(self, b: Builder, start: Value, known: Parts) -> Value:
        """The carry after a chunk, from the one before it."""
        e = known["e"]
        if isinstance(self.kind, Op):
            return as_value(b.emit(self.kind, start, e))
        if self.fresh:
            return e
        if not self.scaled:
            return as_value(b.emit(Op.ADD, start, e))
        p = known["p"]
        if not self.watched:
            return as_value(b.emit(Op.ADD, b.emit(Op.MUL, p, start), e))
        wide = as_value(b.cast(start, self.product))
        if self.long:
            grown = together(b, times(b, (p, known["x"]), apart(b, wide)))
            p = together(b, (p, known["x"]))
        else:
            grown = as_value(b.emit(Op.MUL, p, wide))
        moved = b.emit(Op.ADD, grown, b.cast(e, self.product))
        nothing = b.emit(Op.EQ, e, 0.0)  # -0.0 stays what it is
        near = b.cast(as_value(b.emit(Op.WHERE, nothing, grown, moved)), self.dtype)
        near = b.emit(Op.WHERE, b.emit(Op.IS_INF, e), e, near)  # an infinity that arrives hides what would have grown too large
        unreached = b.emit(Op.AND, b.emit(Op.EQ, start, 0.0), b.emit(Op.IS_INF, p))
        near = b.emit(Op.WHERE, unreached, e, near)
        infinite = b.emit(Op.WHERE, b.emit(Op.GT, start, 0.0), known["w"], known["u"])
        ended = b.emit(Op.EQ, known["w"], known["u"])  # or both are what a later infinity made
        far = b.emit(Op.WHERE, b.emit(Op.OR, b.emit(Op.EQ, start, start), ended), infinite, start)
        return as_value(b.emit(Op.WHERE, is_finite(b, start), near, far))


def is_finite(b: Builder, x: Value) -> Operand:
    """Neither infinite nor NaN."""
    return b.emit(Op.NOT, b.emit(Op.OR, b.emit(Op.IS_NAN, x), b.emit(Op.IS_INF, x)))
