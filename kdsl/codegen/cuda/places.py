"""Where the elements of a tile lie in a view: addresses, and which of them are inside.

In:  a view (macros_views.py), the layout of a tile.  Out: `places_of(…)`: Places, and the registers of each access.
All of a view that is the same for a whole block is computed once in 64 bits; what differs from register to register is a
comparison and a constant offset. Near memory that products read is swizzled: pieces of 16 bytes change places within a row.
Read before: macros_views.py, layout.py. Read next: words.py, macros_memory.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Union

from kdsl.codegen.cuda.layout import Step
from kdsl.codegen.cuda.macros import spread
from kdsl.codegen.cuda.records import BYTES, Near, Tile
from kdsl.codegen.cuda.seam import EdgeType, NearType, TileType, ViewType, WalkType
from kdsl.codegen.cuda.writer import UNSIGNED, V, Writer, i1, i32, i64
from kdsl.ir.sizes import row_major

Number = Union[int, V]  # known when the kernel is compiled, or an i64


class Places:
    """The addresses of a tile's elements in a view, and which of them are inside.

    `at` says where this thread stands along the tile's axes; `element(offset)` is an element at fixed steps from there."""

    def __init__(self, w: Writer, kind: Any, value: V, ndim: int, indices: dict[int, list[V]]) -> None:
        self.w, self.memory = w, kind.memory
        spec = self.memory.spec
        parts = [w.extract_value(value, i) for i in range(1 + len(kind.index))]
        self.near = isinstance(self.memory, NearType)
        shape, strides = self._sizes(spec, parts[0])
        self.each = BYTES[spec.dtype]
        self.base = parts[0] if self.near else w.extract_value(parts[0], 0)
        self.starts: list[tuple[Number, tuple[int, ...]]] = []  # for each axis of memory: where it begins, and how it walks
        self.tiles: list[tuple[int, list[V]]] = []  # axes with an index of their own for each register
        self.checks: list[tuple[int, bool, Number]] = []  # axis, both ends, extent
        self.strides = strides
        for axis, (t, v) in enumerate(zip(kind.index, parts[1:])):
            if isinstance(t, EdgeType):
                self.checks.append((axis, t.both, shape[axis]))
                t = t.inner
            if isinstance(t, TileType):
                self.tiles.append((axis, indices[axis]))
                self.starts.append((0, ()))
            else:
                self.starts.append((v, t.factors if isinstance(t, WalkType) else ()))
        self.steps = [self._step(k) for k in range(ndim)]
        self.stand([i32(0)] * ndim)

    def _sizes(self, spec: Any, value: V) -> tuple[list[Number], list[Number]]:
        if self.near:
            return list(spec.shape), list(row_major(spec.shape))
        dynamic = iter(range(1, 1 + len(value.type.elements)))

        def known(n: Any) -> Number:
            return n if isinstance(n, int) else self.w.extract_value(value, next(dynamic))

        return list(map(known, spec.shape)), list(map(known, spec.strides))

    def _times(self, a: Number, b: Number) -> Number:
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        if 0 in [x for x in (a, b) if isinstance(x, int)]:
            return 0
        return self.w.mul(*(i64(x) if isinstance(x, int) else x for x in (a, b)))

    def _plus(self, a: Number, b: Number) -> Number:
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        if isinstance(a, int) and a == 0:
            return b
        if isinstance(b, int) and b == 0:
            return a
        return self.w.add(*(i64(x) if isinstance(x, int) else x for x in (a, b)))

    def _step(self, k: int) -> Number:
        """How many elements of memory a step along the tile's axis k is."""
        total: Number = 0
        for (_, walk), stride in zip(self.starts, self.strides):
            if k < len(walk):
                total = self._plus(total, self._times(walk[k], stride))
        return total

    def stand(self, at: Sequence[V]) -> None:
        """This thread stands there (i32 along each axis)."""
        w = self.w
        wide = [w.zext(p, i64) for p in at]
        self.index: list[Number] = []  # of every axis of memory, where this thread stands
        position: Number = 0
        for (start, walk), stride in zip(self.starts, self.strides):
            here = start
            for p, f in zip(wide, walk):
                here = self._plus(here, self._times(p, f)) if f else here
            self.index.append(here)
            position = self._plus(position, self._times(here, stride))
        self.position = position
        self.rooms = []
        for axis, both, extent in self.checks:
            if any(a == axis for a, _ in self.tiles):
                continue
            here = self.index[axis]
            minus = self._times(here, -1)
            self.rooms.append((axis, both, self._narrow(self._plus(extent, minus)), self._narrow(minus)))

    def _narrow(self, x: Number) -> V:
        """As 32 bits, saturating well within them."""
        w, top = self.w, 1 << 30
        if isinstance(x, int):
            return i32(max(-top, min(top, x)))
        x = w.select(w.icmp_signed(">", x, i64(top)), i64(top), x)
        return w.trunc(w.select(w.icmp_signed("<", x, i64(-top)), i64(-top), x), i32)

    def inside(self, offset: Sequence[int], register: int) -> V | None:
        """Whether an element is inside all axes that may be left; None where none may."""
        w = self.w
        tests: list[V] = []
        for axis, both, room, least in self.rooms:
            step = sum(f * o for f, o in zip(self.starts[axis][1], offset))
            tests.append(w.icmp_signed("<", i32(step), room))
            if both:
                tests.append(w.icmp_signed(">=", i32(step), least))
        for axis, _, extent in self.checks:
            for a, values in self.tiles:
                if a == axis:
                    limit = i64(extent) if isinstance(extent, int) else extent
                    tests.append(w.icmp_unsigned("<", values[register], limit))
        out: V | None = None
        for t in tests:
            out = t if out is None else w.and_(out, t)
        return out

    def tests(self, groups: Sequence[Sequence[Step]]) -> tuple[list[V], V]:
        """Which groups of neighbours (their offsets) are inside and begin at a multiple of their bytes; whether any other
        group is inside in part or lies elsewhere."""
        w = self.w
        whole: list[V] = []
        apart: V = i1(0)
        aligned: dict[int, V] = {}
        for number, group in enumerate(groups):
            bytes_ = len(group) * self.each
            steps = [(s, o) for s, o in zip(self.steps, group[0]) if o]
            numbers = all(isinstance(s, int) for s, _ in steps)
            key = sum(s * o for s, o in steps) * self.each % bytes_ if numbers else -1 - number
            if key not in aligned:
                low = w.and_(self.address(group[0]), i64(bytes_ - 1))
                aligned[key] = w.icmp_signed("==", low, i64(0))
            all_, any_ = aligned[key], i1(1)
            for axis, both, room, least in self.rooms:
                walk = self.starts[axis][1]
                places = [sum(f * o for f, o in zip(walk, offset)) for offset in group]
                all_ = w.and_(all_, w.icmp_signed("<", i32(max(places)), room))
                any_ = w.and_(any_, w.icmp_signed("<", i32(min(places)), room))
                if both:
                    all_ = w.and_(all_, w.icmp_signed(">=", i32(min(places)), least))
                    any_ = w.and_(any_, w.icmp_signed(">=", i32(max(places)), least))
            whole.append(all_)
            apart = w.or_(apart, w.and_(any_, w.not_(all_)))
        return whole, apart

    def address(self, offset: Sequence[int], register: int = 0) -> V:
        """The address of an element: i64 in global memory, i32 in near memory."""
        w = self.w
        if self.near and self.memory.spec.swizzled:
            return self._swizzled(offset)
        position = self.position
        for step, o in zip(self.steps, offset):
            position = self._plus(position, self._times(step, o))
        for axis, values in self.tiles:
            position = self._plus(position, self._times(values[register], self.strides[axis]))
        bytes_ = self._times(position, self.each)
        if self.near:
            return w.add(self.base, i32(bytes_) if isinstance(bytes_, int) else w.trunc(bytes_, i32))
        return w.add(self.base, i64(bytes_) if isinstance(bytes_, int) else bytes_)

    def _swizzled(self, offset: Sequence[int]) -> V:
        row, column = (
            self._plus(here, sum(f * o for f, o in zip(walk, offset)))
            for here, (_, walk) in zip(self.index, self.starts)
        )
        row, column = (i32(x) if isinstance(x, int) else self.w.trunc(x, i32) for x in (row, column))
        return near_address(self.w, self.memory.spec, self.base, row, column)


def near_address(w: Writer, near: Near, base: V, row: V, column: V) -> V:
    """The address of an element of swizzled near memory: pieces are exchanged by the row's low bits."""
    each = 16 // BYTES[near.dtype]
    pieces = near.row_bytes // 16
    shift, mask = {1: (0, 0), 2: (2, 1), 4: (1, 3)}.get(pieces, (0, 7))
    piece = w.lshr(column, i32(each.bit_length() - 1))
    if mask:
        piece = w.xor(piece, w.and_(w.lshr(row, i32(shift)), i32(mask)))
    inside = w.mul(w.and_(column, i32(each - 1)), i32(BYTES[near.dtype]))
    return w.add(base, w.add(w.mul(row, i32(near.row_bytes)), w.or_(w.shl(piece, i32(4)), inside)))


def whole(kind: Any) -> Any:
    """The view that near memory by itself is: all of it, from its first element."""
    if not isinstance(kind, NearType):
        return kind
    ndim = len(kind.spec.shape)
    axes = [tuple(int(i == k) for i in range(k + 1)) for k in range(ndim)]
    run = math.gcd(16 // BYTES[kind.spec.dtype], kind.spec.shape[-1]) if ndim and not kind.transposed else 1
    return ViewType(kind, tuple(WalkType(a) for a in (axes[::-1] if kind.transposed else axes)), run)


def places_of(w: Writer, kind: Any, value: V, layout_of: Tile) -> tuple[Places, list[list[int]]]:
    """The places of a tile in a view (or near memory), and the registers of each access."""
    view = whole(kind)
    if view is not kind:
        value = w.struct([value, *[i64(0)] * len(view.index)])
    ndim = len(layout_of.shape)
    tiles = {}
    for axis, t in enumerate(view.index):
        inner = t.inner if isinstance(t, EdgeType) else t
        if isinstance(inner, TileType):
            registers = spread(w, inner, w.extract_value(value, 1 + axis), layout_of.of(inner.spec.dtype))
            signed = inner.spec.dtype not in UNSIGNED
            tiles[axis] = [v if v.type == i64 else (w.sext if signed else w.zext)(v, i64) for v in registers]
    places = Places(w, view, value, ndim, tiles)
    places.stand(w.position(layout_of.layout))
    along = [k for k, step in enumerate(places.steps) if isinstance(step, int) and step == 1]
    run, axis = (1, 0) if not along or tiles else (view.run, along[-1])
    return places, layout_of.layout.groups(run, axis)
