"""Tile layouts: which element of a tile each register of each lane of each warp holds.

A layout is linear: bit i of the register number, of the lane number and of the warp number each adds a fixed step along the
tile's axes. A step of zeros in a lane or warp bit means that those lanes or warps hold the same value. Folding an axis,
broadcasting along it and deciding what a conversion costs are then a few lines each. Extents are powers of two.
In:  nothing.  Out: Layout and its instances.  Read next: records.py, choose_layouts.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

Step = tuple[int, ...]  # along each axis of the tile


@dataclass(frozen=True)
class Layout:
    """Steps of the register bits, the five lane bits and the warp bits, lowest bit first."""

    register: tuple[Step, ...]
    lane: tuple[Step, ...]
    warp: tuple[Step, ...]

    @cached_property
    def offsets(self) -> list[Step]:
        """The position of every register, relative to the thread's own."""
        at = [tuple(0 for _ in self.lane[0])]
        for step in self.register:
            at += [tuple(map(sum, zip(o, step))) for o in at]
        return at

    @property
    def threads(self) -> tuple[Step, ...]:
        return self.lane + self.warp

    def part(self, shape: Sequence[int]) -> Layout:
        """What the threads hold of a tile of this shape that broadcasts to the layout's own: the last axes, and of those
        with extent 1 nothing. Registers that then hold the same merge."""

        def keep(step: Step) -> Step:
            return tuple(s if n > 1 else 0 for s, n in zip(step[len(step) - len(shape) :], shape))

        register = tuple(k for s in self.register if any(k := keep(s)))
        return Layout(register, tuple(map(keep, self.lane)), tuple(map(keep, self.warp)))

    def drop(self, axis: int) -> Layout:
        """The layout of a fold over `axis`."""
        return self.part([1 if i == axis else 2 for i in range(len(self.lane[0]))])

    def grouped(self, axis: int, extent: int, parts: int) -> Layout:
        """The layout of a fold within each of so many equal parts of an axis."""
        each = extent // parts

        def keep(step: Step) -> Step:
            return tuple(s // each if i == axis else s for i, s in enumerate(step))

        register = tuple(k for s in self.register if any(k := keep(s)))
        return Layout(register, tuple(map(keep, self.lane)), tuple(map(keep, self.warp)))

    def permute(self, axes: Sequence[int]) -> Layout:
        """The layout of the permuted tile, whose axis i is this one's axes[i]: nothing moves."""

        def turn(steps: tuple[Step, ...]) -> tuple[Step, ...]:
            return tuple(tuple(s[a] for a in axes) for s in steps)

        return Layout(turn(self.register), turn(self.lane), turn(self.warp))

    def run(self, limit: int, axis: int = -1) -> int:
        """How many neighbours along `axis` one thread holds (the widest vector access), up to `limit`."""
        return 1 << len(self._bits_along(limit, axis))

    def groups(self, run: int, axis: int = -1) -> list[list[int]]:
        """The registers, `run` neighbours along `axis` at a time."""
        bits = self._bits_along(run, axis)
        inside = [sum(1 << b for i, b in enumerate(bits) if k >> i & 1) for k in range(1 << len(bits))]
        return [[r + i for i in inside] for r in range(len(self.offsets)) if not r & inside[-1]]

    def _bits_along(self, limit: int, axis: int) -> list[int]:
        """The bits of the register number that count 1, 2, 4 … along the axis."""
        axis %= max(len(self.lane[0]), 1)
        out: list[int] = []
        while 2 << len(out) <= limit:
            step = tuple(1 << len(out) if i == axis else 0 for i in range(len(self.lane[0])))
            if step not in self.register:
                break
            out.append(self.register.index(step))
        return out

    def crosses_warps(self, axis: int, each: int = 1 << 30) -> bool:
        """Whether a fold along `axis`, of parts of `each` elements, joins what different warps hold."""
        return any(0 < step[axis] < each for step in self.warp)

    def part_at(self, start: Step, other: Layout) -> list[int] | None:
        """Which registers hold the part that begins at `start`, under the other layout; None where other threads hold it."""
        at = {o: i for i, o in enumerate(self.offsets)}
        wanted = [tuple(map(sum, zip(o, start))) for o in other.offsets]
        same = (self.lane, self.warp) == (other.lane, other.warp)
        return [at[o] for o in wanted] if same and all(o in at for o in wanted) else None

    def converts_freely(self, other: Layout) -> bool:
        """Whether each thread already holds what it holds under the other layout."""
        return (self.lane, self.warp) == (other.lane, other.warp) and set(self.offsets) >= set(other.offsets)


def _bits(step: Step, count: int) -> tuple[Step, ...]:
    """step, 2 step, 4 step … for a dimension of `count` positions."""
    return tuple(tuple(s << i for s in step) for i in range(count.bit_length() - 1))


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


def patches(m: int, n: int, warps: Step, vector: int) -> Layout:
    """What a product without tensor cores adds up: a lane holds `vector` neighbouring columns here and there, in rows 4 apart.

    Of a warp's 32 lanes 8 stand side by side and 4 below one another, so that both operands are read in few pieces."""
    down, across = warps
    rows, columns = m // down, n // across
    vector = min(vector, columns)
    wide = min(8, columns // vector)
    high = min(32 // wide, rows)
    lane = _bits((0, vector), wide) + _bits((1, 0), high)
    register = (*_bits((0, 1), vector), *_bits((0, vector * wide), columns // (vector * wide)), *_bits((high, 0), rows // high))
    return Layout(register, (*lane, *((0, 0),) * (5 - len(lane))), _bits((0, columns), across) + _bits((rows, 0), down))


def blocked(shape: Sequence[int], threads: Sequence[int], vector: int, down: int = 1) -> Layout:
    """threads[i] threads side by side along axis i, each with `vector` neighbours along the last axis and `down` along the one
    before it; what is left goes to registers.

    All are counted from the last axis. Threads beyond an extent, or along axes that the shape lacks, hold copies."""
    ndim = len(shape)
    thread: list[Step] = []
    left: list[Step] = []
    vector = min([vector, *shape[-1:]])
    down = min([down, *shape[-2:-1]])
    for axis in range(-1, -max(len(threads), ndim) - 1, -1):
        extent = shape[axis] if -axis <= ndim else 1
        here = threads[axis] if -axis <= len(threads) else 1
        own = {-1: vector, -2: down}.get(axis, 1)

        def unit(n: int, axis: int = axis) -> Step:
            return tuple(n if i == axis + ndim else 0 for i in range(ndim))

        thread += [unit(own << b if own << b < extent else 0) for b in range(here.bit_length() - 1)]
        left += _bits(unit(own * here), max(extent // (own * here), 1))
    first = _bits(tuple(int(i == ndim - 1) for i in range(ndim)), vector) if ndim else ()
    second = _bits(tuple(int(i == ndim - 2) for i in range(ndim)), down) if ndim > 1 else ()
    return Layout((*first, *second, *left), tuple(thread[:5]), tuple(thread[5:]))


def strips(shape: Sequence[int], lanes: Step, warps: int, down: int) -> Layout:
    """A warp's lanes (down, across) over the last two axes, each with `down` neighbours along the first of them; warps side by
    side along the last axis. What is left goes to registers, what is too many holds copies."""
    ndim = len(shape)
    rows, columns = (1, 1, *shape)[-2:]
    down = min(down, rows)

    def unit(axis: int, n: int, extent: int) -> Step:
        return tuple(n if i == axis + ndim and n < extent else 0 for i in range(ndim))

    lane = [unit(-1, 1 << b, columns) for b in range(lanes[1].bit_length() - 1)]
    lane += [unit(-2, down << b, rows) for b in range(lanes[0].bit_length() - 1)]
    warp = [unit(-1, lanes[1] << b, columns) for b in range(warps.bit_length() - 1)]
    register = [*_bits(unit(-2, 1, rows), down)] if ndim > 1 else []
    register += _bits(unit(-1, lanes[1] * warps, columns), max(1, columns // (lanes[1] * warps)))
    register += _bits(unit(-2, down * lanes[0], rows), max(1, rows // (down * lanes[0])))
    for axis, n in enumerate(shape[:-2]):
        register += _bits(tuple(int(i == axis) for i in range(ndim)), n)
    return Layout(tuple(register), tuple(lane), tuple(warp))
