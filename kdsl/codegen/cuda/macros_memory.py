"""Macros of memory: arrays, views of them with bounds, loads and stores, near memory.

A read outside an axis that may be left gives the fill value, a write there is dropped. All of a view that is the same for a
whole block is computed once in 64 bits; what differs from register to register is a comparison and a constant offset.
In:  seam.py, writer.py, macros.py.  Out: `MEMORY_MACROS`, names that generated source may use.
Read before: macros.py. Read next: macros_dot.py, emit.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Union

from llvmlite import ir

from kdsl.codegen.cuda.layout import Step
from kdsl.codegen.cuda.macros import as_size, spread
from kdsl.codegen.cuda.records import BYTES, HALVES, Near, Tile, row_major
from kdsl.codegen.cuda.seam import (
    ArrayType,
    EdgeType,
    NearType,
    SizeType,
    Spec,
    TileType,
    ViewType,
    WalkType,
    factors,
    literal,
    macro,
    void,
)
from kdsl.codegen.cuda.writer import UNSIGNED, V, Writer, i1, i8, i16, i32, i64

Number = Union[int, V]  # known when the kernel is compiled, or an i64


# --- views --------------------------------------------------------------------------------------------------------------------
@macro(lambda array, address, *sizes: ArrayType(array.spec))
def array(w: Writer, sig: Any, array: V, address: V, *sizes: V) -> V:
    """An array at an address; the extents and strides that are no numbers follow, in order."""
    return w.struct([address, *(as_size(w, t, v) for t, v in zip(sig.args[2:], sizes))])


@macro(lambda near, number: NearType(near.spec), name="near")
def near(w: Writer, sig: Any, near: V, number: V) -> V:
    """Tile `number` of near memory."""
    s = sig.return_type.spec
    slot = w.trunc(as_size(w, sig.args[1], number), i32)
    slot = w.urem(slot, i32(s.depth)) if s.depth > 1 else i32(0)
    return w.add(w.near_base(), w.add(i32(s.start), w.mul(slot, i32(s.bytes))))


@macro(lambda x: NearType(x.spec, not x.transposed))
def transposed(w: Writer, sig: Any, x: V) -> V:
    return x


def _index_type(t: Any) -> Any:
    if isinstance(t, EdgeType):
        return EdgeType(_index_type(t.inner), t.both)
    if factors(t) is not None:
        return WalkType(factors(t))
    return t if isinstance(t, TileType) else SizeType()


@macro(lambda memory, *index: ViewType(memory, tuple(map(_index_type, index)), 1))
def at(w: Writer, sig: Any, memory: V, *index: V) -> V:
    """A place in memory: for each of its axes a size, a walk along the tile's axes, or a tile of indices."""
    return w.struct([memory, *(_index_value(w, t, v) for t, v in zip(sig.args[1:], index))])


def _index_value(w: Writer, t: Any, v: V) -> V:
    if isinstance(t, Spec):
        return i64(0)
    return v if isinstance(t, (TileType, WalkType, EdgeType)) else as_size(w, t, v)


def _edge(both: bool, name: str) -> Any:
    def write(w: Writer, sig: Any, x: V) -> V:
        return _index_value(w, sig.args[0], x)

    return macro(lambda x: EdgeType(_index_type(x), both), name=name)(write)


def _by(count: int, loose: bool) -> Any:
    def write(w: Writer, sig: Any, x: V) -> V:
        return x

    name = f"upto{count}" if loose else f"by{count}"
    return macro(lambda view: ViewType(view.memory, view.index, count, loose), name=name)(write)


# --- where the elements of a tile lie -------------------------------------------------------------------------------------------
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


# --- loads and stores -----------------------------------------------------------------------------------------------------------
def _word(each: int, count: int) -> tuple[ir.IntType, int]:
    """The words in which `count` elements go at once."""
    total = each * count
    if each == 8:
        return i64, count
    return {1: (i8, 1), 2: (i16, 1)}.get(total) or (i32, total // 4)


LETTERS = {8: "h", 16: "h", 32: "r", 64: "l"}


def _guarded_load(w: Writer, space: str, address: V, word: ir.IntType, n: int, inside: V, effect: bool) -> list[V]:
    """Words that are read where `inside` holds, else 0."""
    register = i16 if word == i8 else word
    letter = LETTERS[word.width]
    names = [f"${i}" for i in range(n)]
    zero = " ".join(f"mov.b{register.width} {name}, 0;" for name in names)
    vector, braces = (f".v{n}", "{" + ", ".join(names) + "}") if n > 1 else ("", names[0])
    kind = f"{'u' if word == i8 else 'b'}{word.width}"
    test = f".reg .pred inside; setp.ne.b32 inside, ${n + 1}, 0;"
    text = "{ " + f"{test} {zero} @inside ld.{space}{vector}.{kind} {braces}, [${n}];" + " }"
    where = "r" if address.type == i32 else "l"
    out = w.asm(text, [register] * n, [address, w.zext(inside, i32)], ",".join([f"=&{letter}"] * n + [where, "r"]), effect)
    values = out if n > 1 else [out]
    return [w.trunc(v, i8) for v in values] if word == i8 else values


def _plain_load(w: Writer, space: int, address: V, word: ir.IntType, n: int, constant: bool) -> list[V]:
    kind = ir.VectorType(word, n) if n > 1 else word
    x = w.load(w.inttoptr(address, ir.PointerType(kind, space)), align=n * word.width // 8)
    if constant:
        x.set_metadata("invariant.load", w.module.add_metadata([]))
    return w.elements(x)


def _store_words(w: Writer, space: int, address: V, words: Sequence[V], inside: V | None) -> None:
    n, word = len(words), words[0].type
    if inside is None:
        value = w.vector(words)
        w.store(value, w.inttoptr(address, ir.PointerType(value.type, space)), align=n * word.width // 8)
        return
    register = i16 if word == i8 else word
    values = [w.zext(v, i16) for v in words] if word == i8 else list(words)
    names = [f"${i}" for i in range(n)]
    vector, braces = (f".v{n}", "{" + ", ".join(names) + "}") if n > 1 else ("", names[0])
    kind = f"{'u' if word == i8 else 'b'}{word.width}"
    where = "r" if address.type == i32 else "l"
    test = f".reg .pred inside; setp.ne.b32 inside, ${n + 1}, 0;"
    place = "global" if space == 1 else "shared"
    text = "{ " + f"{test} @inside st.{place}{vector}.{kind} [${n}], {braces};" + " }"
    letters = ",".join([LETTERS[register.width]] * n + [where, "r"])
    w.asm(text, [], [*values, address, w.zext(inside, i32)], letters, True)


def _read(w: Writer, sig: Any, x: V, fill: V | None) -> V:
    out, view = sig.return_type.spec, whole(sig.args[1])
    places, groups = places_of(w, sig.args[1], x, out)
    spec = places.memory.spec
    dtype = spec.dtype
    written = places.near or spec.written
    compute = "f32" if dtype in HALVES else dtype
    empty = None if fill is None else spread(w, sig.args[2], fill, out.of(compute))[0]
    zero = fill is None or literal(sig.args[2]) in (0, False)
    offsets = out.layout.offsets

    def read(group: Sequence[int], inside: V | None) -> list[V]:
        word, n = _word(places.each, len(group))
        address = places.address(offsets[group[0]], group[0])
        if inside is None:
            words = _plain_load(w, 3 if places.near else 1, address, word, n, not written)
        else:
            space = "shared" if places.near else "global" if written else "global.nc"
            words = _guarded_load(w, space, address, word, n, inside, written)
        got = w.from_words(words, dtype, len(group))
        return got if inside is None or zero else [w.select(inside, v, empty) for v in got]

    if view.loose and len(groups[0]) > 1:
        tests, apart = places.tests([[offsets[i] for i in group] for group in groups])
        test_of = {i: test for group, test in zip(groups, tests) for i in group}
        held = _ordered(groups, [read(group, test) for group, test in zip(groups, tests)])

        def one_by_one() -> list[V]:
            out = []
            for i, (v, test) in enumerate(zip(held, (test_of[i] for i in range(len(held))))):
                inside = places.inside(offsets[i], i)
                alone = w.not_(test) if inside is None else w.and_(inside, w.not_(test))
                out.append(w.select(test, v, read([i], alone)[0]))
            return out

        values = w.choose(apart, one_by_one, lambda: held)
    else:
        values = _ordered(groups, [read(group, places.inside(offsets[group[0]], group[0])) for group in groups])
    if out.dtype in HALVES:
        return w.pack(w.to_words(values, out.dtype))
    if out.dtype != compute:
        raise TypeError(f"a load of {dtype} into a tile of {out.dtype}")
    return w.pack(values)


@macro(lambda tile, view, *fill: TileType(tile.spec))
def load(w: Writer, sig: Any, tile: V, view: V, *fill: V) -> V:
    """Read a tile from global memory."""
    return _read(w, sig, view, fill[0] if fill else None)


@macro(lambda view, tile: void)
def store(w: Writer, sig: Any, view: V, tile: V) -> None:
    """Write a tile to global or near memory."""
    have = sig.args[1].spec
    places, groups = places_of(w, sig.args[0], view, have)
    dtype = places.memory.spec.dtype
    values = spread(w, sig.args[1], tile, have.of("f32" if have.dtype in HALVES else have.dtype))
    holder = w.first_holder(have.layout)
    offsets = have.layout.offsets

    def write(group: Sequence[int], inside: V | None) -> None:
        if holder is not None:
            inside = holder if inside is None else w.and_(inside, holder)
        words = w.to_words([values[i] for i in group], dtype)
        _store_words(w, 3 if places.near else 1, places.address(offsets[group[0]], group[0]), words, inside)

    if whole(sig.args[0]).loose and len(groups[0]) > 1:
        tests, apart = places.tests([[offsets[i] for i in group] for group in groups])

        def one_by_one() -> list[V]:
            for group, test in zip(groups, tests):
                for i in group:
                    inside = places.inside(offsets[i], i)
                    write([i], w.not_(test) if inside is None else w.and_(inside, w.not_(test)))
            return []

        for group, test in zip(groups, tests):
            write(group, test)
        w.choose(apart, one_by_one, list)
    else:
        for group in groups:
            write(group, places.inside(offsets[group[0]], group[0]))


def _ordered(groups: Sequence[Sequence[int]], values: Sequence[Sequence[V]]) -> list[V]:
    """The registers' values in the order of the registers."""
    found = {i: v for group, of_group in zip(groups, values) for i, v in zip(group, of_group)}
    return [found[i] for i in range(len(found))]


MEMORY_MACROS: dict[str, Callable[..., Any]] = {
    "array": array, "near": near, "transposed": transposed, "at": at,
    "edge": _edge(False, "edge"), "edges": _edge(True, "edges"),
    **{f"by{n}": _by(n, False) for n in (2, 4, 8, 16)},
    **{f"upto{n}": _by(n, True) for n in (2, 4, 8)},
    "load": load, "store": store,
}  # fmt: skip
