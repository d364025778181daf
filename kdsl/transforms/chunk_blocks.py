"""What a chunk of steps does to carries that wait for each other, element by element: a small matrix, and what it adds.

    next = A carry + b  in each step;   for each chunk   e = the carries after it, from 0;   p = the product of its A
                                                         w[i, j] = what carry i becomes if carry j is infinite before it
    from chunk to chunk:  start[c+1] = p[c] start[c] + e[c]
In:  the slopes of a block (linear_steps.py).  Out: a Chain's parts and what leads from one chunk to the next (chunk_starts.py).

As for one carry nothing is divided; products of f32 are f64; those of f64 have one exponent for all of an element's matrix.
A start of 0 counts for nothing even where a product is infinite. An infinite or NaN start is not multiplied by p, which may have
underflown: w says which carries it reaches. Read before: chunk_chain.py. Read next: chunk_starts.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import kdsl.dtypes as dt
from kdsl.dtypes import DType
from kdsl.ir.frame import Illegal
from kdsl.ir.ops import Op
from kdsl.ir.rules import Builder
from kdsl.ir.tensor import Literal, Value
from kdsl.transforms.chunk_chain import Parts, as_value, is_finite
from kdsl.transforms.linear_steps import StepKinds
from kdsl.transforms.wide_products import apart_alike, together


class Block:
    """The carries `group` from chunk to chunk. Parts: e0, e1 …, the matrices p00, p01 … and w00 …, their exponent x."""

    def __init__(self, kinds: StepKinds, group: Sequence[int]) -> None:
        self.carries = tuple(group)
        carry = kinds.carry[group[0]]
        self.shape, self.dtype = carry.shape, carry.dtype.compute
        if self.dtype.kind == "bool":
            raise Illegal("its step selects a bool carry")
        self.long = self.dtype is dt.f64
        self.product: DType = dt.f64 if self.dtype.is_floating else self.dtype
        self.places = range(len(group))
        self.pairs = [(i, j) for i in self.places for j in self.places]
        self.adding = [f"e{i}" for i in self.places]
        self.matrix = [f"p{i}{j}" for i, j in self.pairs]
        self.reaching = [f"w{i}{j}" for i, j in self.pairs] if self.dtype.is_floating else []

    @property
    def parts(self) -> list[tuple[str, DType]]:
        """What is known of a chunk; what the carries are comes first."""
        products = [(k, self.product) for k in self.matrix] + [("x", self.product)] * self.long
        return [*[(k, self.dtype) for k in self.adding], *products, *[(k, self.dtype) for k in self.reaching]]

    @property
    def products(self) -> list[str]:
        """The parts that come of the slopes alone."""
        return [k for k, _ in self.parts if k[0] != "e"]

    def first(self, part: str) -> Literal:
        """What a part is before the first step."""
        own = {"p": 1.0, "w": math.inf}.get(part[0], 0.0) if part[1:2] == part[2:3] and part[0] in "pw" else 0.0
        return own if self.dtype.is_floating else int(own)

    # --- from chunk to chunk --------------------------------------------------------------------------------------------------
    def joined(self, b: Builder, before: Parts, here: Parts) -> Parts:
        """What is known after a chunk, of what is known before it."""
        out = dict(zip(self.adding, self.through(b, [before[k] for k in self.adding], here), strict=True))
        return out | self.multiplied(b, here, before) if self.matrix[0] in before else out

    def through(self, b: Builder, starts: Sequence[Value], here: Parts) -> list[Value]:
        """The carries after a chunk, from those before it."""
        if not self.dtype.is_floating:
            rows = [[as_value(b.emit(Op.MUL, here[f"p{i}{j}"], starts[j])) for j in self.places] for i in self.places]
            return [self.added(b, [*row, here[f"e{i}"]]) for i, row in enumerate(rows)]
        finite = [is_finite(b, v) for v in starts]
        known = [as_value(b.emit(Op.WHERE, f, b.cast(v, self.product), 0.0)) for f, v in zip(finite, starts, strict=True)]
        beyond = [as_value(b.emit(Op.WHERE, f, 0.0, v)) for f, v in zip(finite, starts, strict=True)]
        count: Value | None = None
        if self.long:
            known, count = apart_alike(b, known)
            count = as_value(b.emit(Op.ADD, here["x"], count))
        out = []
        for i in self.places:
            e = here[f"e{i}"]
            terms = [self.term(b, here[f"p{i}{j}"], known[j]) for j in self.places]
            grown = self.added(b, terms)
            grown = grown if count is None else together(b, (grown, count))
            near = b.cast(as_value(b.emit(Op.ADD, grown, b.cast(e, self.product))), self.dtype)
            near = b.emit(Op.WHERE, b.emit(Op.IS_INF, e), e, near)  # it hides what would have grown too large
            reached = [self.reached(b, here[f"w{i}{j}"], beyond[j]) for j in self.places]
            out.append(self.added(b, [as_value(near), *reached]))
        return out

    def term(self, b: Builder, p: Value, start: Value) -> Value:
        return as_value(b.emit(Op.WHERE, b.emit(Op.EQ, start, 0.0), 0.0, b.emit(Op.MUL, p, start)))

    def reached(self, b: Builder, w: Value, start: Value) -> Value:
        """What an infinite or NaN start makes of a carry: nothing where it is 0, or reaches nothing."""
        nothing = b.emit(Op.OR, b.emit(Op.EQ, w, 0.0), b.emit(Op.EQ, start, 0.0))
        return as_value(b.emit(Op.WHERE, nothing, 0.0, b.emit(Op.MUL, w, start)))

    def added(self, b: Builder, terms: Sequence[Value]) -> Value:
        out = terms[0]
        for v in terms[1:]:
            out = as_value(b.emit(Op.ADD, out, v))
        return out

    # --- matrices -------------------------------------------------------------------------------------------------------------
    def multiplied(self, b: Builder, one: Mapping[str, Value], other: Mapping[str, Value]) -> Parts:
        """What two chunks do, `one` after the other, but for what they add."""
        made = []
        for i, j in self.pairs:
            made.append(self.added(b, [as_value(b.emit(Op.MUL, one[f"p{i}{k}"], other[f"p{k}{j}"])) for k in self.places]))
        out = self.scaled(b, made, [one["x"], other["x"]] if self.long else [])
        for i, j in self.pairs if self.reaching else ():
            reached = [self.reached(b, one[f"w{i}{k}"], other[f"w{k}{j}"]) for k in self.places]
            out[f"w{i}{j}"] = self.added(b, reached)
        return out

    def scaled(self, b: Builder, made: list[Value], counts: list[Value]) -> Parts:
        """A matrix near 1, and the exponent that was taken out."""
        if not self.long:
            return dict(zip(self.matrix, made, strict=True))
        made, more = apart_alike(b, made)
        return {**dict(zip(self.matrix, made, strict=True)), "x": self.added(b, [*counts, more])}
