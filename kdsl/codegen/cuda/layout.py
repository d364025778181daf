"""Tile layouts: which element of a (rows, columns) tile each register of each lane of each warp holds.

A layout is linear: bit i of the register number, of the lane number and of the warp number each adds a fixed (row, column)
step. A step of (0, 0) in a lane or warp bit means that those lanes or warps hold the same value. Folding an axis,
broadcasting along it and deciding what a conversion costs are then a few lines each. Extents are powers of two.
In:  nothing.  Out: Layout and its instances.  Read next: records.py, choose_layouts.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

Step = tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """Steps of the register bits, the five lane bits and the warp bits, lowest bit first."""

    register: tuple[Step, ...]
    lane: tuple[Step, ...]
    warp: tuple[Step, ...]

    @cached_property
    def offsets(self) -> list[Step]:
        """(row, column) of every register, relative to the thread's own position."""
        at = [(0, 0)]
        for r, c in self.register:
            at += [(a + r, b + c) for a, b in at]
        return at

    def drop(self, axis: int) -> Layout:
        """The layout of a fold over `axis`: its steps vanish, registers that differed only there merge."""

        def keep(step: Step) -> Step:
            return (0, step[1]) if axis == 0 else (step[0], 0)

        register = tuple(keep(s) for s in self.register if keep(s) != (0, 0))
        return Layout(register, tuple(map(keep, self.lane)), tuple(map(keep, self.warp)))

    def run(self, limit: int) -> int:
        """How many consecutive columns lie in consecutive registers (the widest vector access), up to `limit`."""
        n = 1
        for step in self.register:
            if step != (0, n) or n >= limit:
                break
            n *= 2
        return n

    def crosses_warps(self, axis: int) -> bool:
        """Whether a fold along `axis` joins what different warps hold."""
        return any(step[axis] for step in self.warp)

    def converts_freely(self, other: Layout) -> bool:
        """Whether each thread already holds what it holds under the other layout."""
        return (self.lane, self.warp) == (other.lane, other.warp) and set(self.offsets) >= set(other.offsets)


def _bits(step: Step, count: int) -> tuple[Step, ...]:
    """step, 2 step, 4 step … for a dimension of `count` positions."""
    return tuple((step[0] << i, step[1] << i) for i in range(count.bit_length() - 1))


def accumulator(m: int, n: int, warps: Step) -> Layout:
    """What mma.sync m16n8 leaves: a lane holds two neighbouring columns in rows g and g + 8; warps split rows, then columns."""
    down, across = warps
    register = ((0, 1), (8, 0), *_bits((0, 8), n // across // 8), *_bits((16, 0), m // down // 16))
    return Layout(
        register,
        ((0, 2), (0, 4), (1, 0), (2, 0), (4, 0)),
        _bits((0, n // across), across) + _bits((m // down, 0), down),
    )


def operand_a(m: int, k: int, warps: Step) -> Layout:
    """The left operand of mma.sync m16n8k16, pairs along k: the accumulator's layout, all of k in each warp."""
    down, across = warps
    own = accumulator(m, k, (down, 1))
    return Layout(own.register, own.lane, ((0, 0),) * (across.bit_length() - 1) + own.warp)


def operand_b(k: int, n: int, warps: Step) -> Layout:
    """The right operand: pairs along k, columns across groups of four lanes; warps that split rows share it."""
    down, across = warps
    register = ((1, 0), (8, 0), *_bits((16, 0), k // 16), *_bits((0, 8), n // across // 8))
    shared = ((0, 0),) * (down.bit_length() - 1)
    return Layout(
        register, ((2, 0), (4, 0), (0, 1), (0, 2), (0, 4)), _bits((0, n // across), across) + shared
    )


def blocked(rows: int, columns: int, warps: int, vector: int) -> Layout:
    """Threads side by side hold `vector` neighbouring columns each, then rows; what is left goes to registers."""
    threads = 32 * warps
    across = min(threads, columns // vector)
    down = threads // across
    thread = _bits((0, vector), across) + _bits((1, 0), down)
    thread = tuple(s if s[0] < rows else (0, 0) for s in thread)  # more threads than rows: the rest replicate
    left = _bits((0, vector * across), columns // (vector * across)) + _bits((down, 0), max(rows // down, 1))
    return Layout(_bits((0, 1), vector) + left, thread[:5], thread[5:])
