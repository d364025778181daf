"""Loops that choose by position fall into regions: each part of a concatenation or a padding is a loop over its own range.

In:  the statements of a block.  Out: the same, with streams in parts where a choice between loads is the same throughout.

    for j in stream(0, n, 32):                            for j in stream(0, floor(a)): y[j] = p[j]
        y[j] = where(j < a, p[edge j], q[edge j - a])     for j in the tile with both:  as before
                                                          for j in stream(ceil(a), n):  y[j] = q[j - a]

A choice is a comparison that is linear in the loop's index: it is true before one step of the loop and false from another one on
(or the other way round), and what lies between is a region in which it stays. Choices by the index of a block become an If.
Carries go from region to region, so that every sum has the order it had. What is left of a view's checks is proved anew; where
that fails, as it may for named sizes, the kernel stays as it is (rows.py).
Read before: ir/loops.py, ir/ranges.py. Read next: conditions.py, rows.py.
"""

from __future__ import annotations

from typing import Union

import kdsl.dtypes as dt
from kdsl.ir import loops as ir
from kdsl.ir.ranges import Ranges
from kdsl.ir.sizes import Extent, ceildiv, floordiv, maximum, minimum, modulo, names_in, split
from kdsl.schedule.conditions import Condition, Conditions, renamed, used_names

Piece = tuple[Extent, Extent, Union[bool, None]]  # a range, and what the choice is there

MOST = 16  # choices of one kernel: each doubles a loop's code. A kernel that has more stays as it is


def in_regions(body: tuple[ir.Statement, ...]) -> tuple[ir.Statement, ...]:
    """The statements of a kernel with its streams in regions."""
    loads = [load for s in ir.walk(body) for t in ir.tiles_of(s) for load in ir.loads_in(t)]
    loops = {s.index for s in ir.walk(body) if isinstance(s, (ir.Parallel, ir.Stream))}
    names = used_names(body).union(*(names_in(n) for load in loads for n in load.view.memory.shape))
    regions = _Regions(body, frozenset(n for n in names - loops - set(defined_names(body)) if not n.startswith("#")))
    out = regions.statements(body)
    return pruned(out) if regions.decisions and regions.count <= MOST else body


class _Regions(Conditions):
    """One walk over a kernel; what is decided at each place is in `known`."""

    def __init__(self, body: tuple[ir.Statement, ...], sizes: frozenset[str]) -> None:
        super().__init__(Ranges(sizes))
        self.taken = set(defined_names(body))
        self.count = 0

    def statements(self, body: tuple[ir.Statement, ...]) -> tuple[ir.Statement, ...]:
        out: list[ir.Statement] = []
        for s in body:
            if isinstance(s, ir.Parallel):
                out.append(self.block(s))
            elif isinstance(s, ir.Stream):
                out += self.stream(s)
            elif isinstance(s, ir.If):
                inner = self.statements(s.body)
                out.append(ir.If(self.simple(s.condition), inner))
            else:
                out.append(self.simple_statement(s))
        return tuple(out)

    # --- blocks -------------------------------------------------------------------------------------------------------
    def block(self, s: ir.Parallel) -> ir.Parallel:
        self.ranges.add_loop(s.index, s.lo, s.hi, s.tile)
        innermost = not any(isinstance(x, ir.Parallel) for x in s.body)
        body = self.uniform(s.body) if innermost else self.statements(s.body)
        del self.ranges.bounds[s.index]
        return ir.Parallel(s.index, s.lo, s.hi, s.tile, body)

    def uniform(self, body: tuple[ir.Statement, ...]) -> tuple[ir.Statement, ...]:
        """A block's statements, twice where a choice is the same for the whole block."""
        choice = self.choice(body, None)
        if choice is None or self.count > MOST:
            return self.statements(body)
        self.count += 1
        first = 0
        while isinstance(body[first], ir.Near):  # near memory belongs to the block
            first += 1
        out = body[:first]
        for truth in (True, False):
            rest = body[first:] if not truth else self.copied(body[first:])
            test = ir.Map("lt" if truth else "ge", (ir.Scalar(choice.difference, dt.i64), ir.Constant(0, dt.i64)), dt.bool_)
            out += (ir.If(test, self.assuming(choice, truth, lambda rest=rest: self.uniform(rest))),)  # type: ignore[misc]
        return out

    # --- streams ------------------------------------------------------------------------------------------------------
    def stream(self, s: ir.Stream) -> tuple[ir.Statement, ...]:
        whole = modulo(s.lo, s.tile)
        if self.ranges.is_multiple(s.lo, s.tile):
            whole = 0
        choice = None
        if s.order != "backward" and isinstance(whole, int) and self.count <= MOST:
            self.ranges.add_loop(s.index, s.lo, s.hi, s.tile)
            choice = self.choice(s.body, s.index, tuple(c.next for c in s.carries))
            del self.ranges.bounds[s.index]
        if choice is None:
            return (self.walked(s),)
        self.count += 1
        before, after, truth = bounds(choice, s.index)
        ends = [ceildiv(x - whole, s.tile) * s.tile + whole for x in (before, after)]
        if ends[0] == ends[1]:
            pieces: list[Piece] = [(s.lo, minimum(s.hi, ends[0]), truth), (maximum(s.lo, ends[0]), s.hi, not truth)]
        else:
            pieces = [
                (s.lo, minimum(s.hi, ends[0]), truth),
                (maximum(s.lo, ends[0]), minimum(s.hi, ends[1]), None),
                (maximum(s.lo, ends[1]), s.hi, not truth),
            ]
        pieces = [p for p in pieces if not self.is_empty(p[0], p[1])] or pieces[-1:]
        out: list[ir.Statement] = []
        start = [c.init for c in s.carries]
        for number, (lo, hi, known) in enumerate(pieces):
            part = ir.Stream(
                s.index, lo, hi, s.tile, s.body,
                tuple(ir.Carry(c.name, init, c.next) for c, init in zip(s.carries, start, strict=True)), s.order,
            )  # fmt: skip
            if number < len(pieces) - 1:
                (part,) = self.copied((part,))  # type: ignore[assignment]
            start = [ir.Name(c.name, tuple(c.init.shape), c.init.dtype) for c in part.carries]
            out += self.assuming(choice, known, lambda part=part: self.stream(part))  # type: ignore[misc]
        return tuple(out)

    def is_empty(self, lo: Extent, hi: Extent) -> bool:
        span = self.ranges.span(hi - lo)
        return span[1] <= 0 if span is not None else self.ranges.natural(lo - hi)

    def walked(self, s: ir.Stream) -> ir.Stream:
        """A stream that stays whole."""
        carries = [(c.name, self.simple(c.init)) for c in s.carries]
        self.ranges.add_loop(s.index, s.lo, s.hi, s.tile)
        body = self.statements(s.body)
        following = tuple(
            ir.Carry(name, init, self.simple(c.next)) for (name, init), c in zip(carries, s.carries, strict=True)
        )
        del self.ranges.bounds[s.index]
        return ir.Stream(s.index, s.lo, s.hi, s.tile, body, following, s.order)

    def copied(self, body: tuple[ir.Statement, ...]) -> tuple[ir.Statement, ...]:
        """The statements once more, with names of their own."""
        new: dict[str, str] = {}
        for name in defined_names(body):
            base, number = name.rsplit("_", 1)[0], 0
            while f"{base}_{number}" in self.taken:
                number += 1
            new[name] = f"{base}_{number}"
            self.taken.add(new[name])
        return renamed(body, new)


def bounds(c: Condition, index: str) -> tuple[Extent, Extent, bool]:
    """(b, a, truth): for index < b the condition is `truth` in all of the tile, from a on it is not, in all of the tile."""
    factors, rest = split(c.difference, {index})
    factor = factors[index]
    assert isinstance(factor, int)
    least, greatest = c.extremes(rest)
    if factor > 0:  # true while factor * i + rest < 0
        return floordiv(-1 - greatest, factor) + 1, ceildiv(-least, factor), True
    return floordiv(least, -factor) + 1, ceildiv(greatest + 1, -factor), False


def defined_names(body: tuple[ir.Statement, ...]) -> list[str]:
    """Lets and carries of these statements; loops that stand side by side may share an index."""
    out: list[str] = []
    for s in ir.walk(body):
        if isinstance(s, ir.Let):
            out.append(s.name)
        elif isinstance(s, ir.Stream):
            out += [c.name for c in s.carries]
    return out


def pruned(body: tuple[ir.Statement, ...]) -> tuple[ir.Statement, ...]:
    """Without Lets that nobody mentions any more."""
    while True:
        used = used_names(body)
        left = _kept(body, used)
        if len(defined_names(left)) == len(defined_names(body)):
            return left
        body = left


def _kept(body: tuple[ir.Statement, ...], used: set[str]) -> tuple[ir.Statement, ...]:
    out: list[ir.Statement] = []
    for s in body:
        if isinstance(s, ir.Let) and s.name not in used:
            continue
        if isinstance(s, ir.Parallel):
            s = ir.Parallel(s.index, s.lo, s.hi, s.tile, _kept(s.body, used))
        elif isinstance(s, ir.Stream):
            s = ir.Stream(s.index, s.lo, s.hi, s.tile, _kept(s.body, used), s.carries, s.order)
        elif isinstance(s, ir.If):
            s = ir.If(s.condition, _kept(s.body, used))
        out.append(s)
    return tuple(out)
