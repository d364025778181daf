"""Macros that combine the elements of a tile along an axis: folds, and running folds.

A fold goes through the registers of a thread in a fixed tree, then through lanes by shuffles, then through warps by near memory
of its own (where all folds of a kernel have taken MOST_SCRATCH, by that of another, between two barriers more); nothing depends
on timing, so the result is the same every time. A running fold doubles: bit by bit of the
position along the axis, lowest first, each element whose bit is set takes in the last element before that half.
In:  seam.py, writer.py, macros.py.  Out: `FOLDS`, names that generated source may use.
Read before: layout.py, macros.py. Read next: macros_views.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from kdsl.codegen.cuda.macros import element, spread
from kdsl.codegen.cuda.records import Tile
from kdsl.codegen.cuda.seam import TileType, literal, macro
from kdsl.codegen.cuda.writer import V, Writer, i8, i32

MONOIDS = {"sum": "add", "prod": "mul", "max": "maximum", "min": "minimum", "any": "or", "all": "and"}
Combine = Callable[[V, V], V]
MOST_SCRATCH = 40 * 1024  # bytes for all folds of a kernel: an architecture allows 48 KB of arrays that have a place of their own


def _stored(w: Writer, v: V) -> V:
    """An element as near memory holds it: bits are bytes there."""
    return w.zext(v, i8) if v.type == ir.IntType(1) else v


def _loaded(w: Writer, v: V, kind: ir.Type) -> V:
    return w.trunc(v, kind) if kind == ir.IntType(1) else v


def _bytes(kind: ir.Type) -> int:
    return {ir.FloatType(): 4, ir.DoubleType(): 8}.get(kind) or max(kind.width // 8, 1)


def _near(w: Writer, address: V, kind: ir.Type) -> V:
    stored = i8 if kind == ir.IntType(1) else kind
    return _loaded(w, w.load(w.inttoptr(address, ir.PointerType(stored, 3)), align=_bytes(kind)), kind)


def _put(w: Writer, address: V, v: V) -> None:
    stored = _stored(w, v)
    w.store(stored, w.inttoptr(address, ir.PointerType(stored.type, 3)), align=_bytes(v.type))


def _scratch(w: Writer, values: int, each: int) -> tuple[V, int, bool]:
    """Near memory for values of `each` bytes of all threads: its address, how many it holds at once, whether others use it."""
    taken = {name: g.type.pointee.count for name, g in w.module.globals.items() if name.startswith("_fold")}
    if sum(taken.values()) + values * each > MOST_SCRATCH:
        largest = max(taken, key=lambda name: taken[name], default="")
        if taken.get(largest, 0) >= each:
            return w.near_base(largest, taken[largest]), taken[largest] // each, True
        values = 1
    return w.near_base(f"_fold{len(w.module.globals)}", values * each), values, False


def _in_rounds(w: Writer, values: list[V], each: int, put: Callable[[V, V], None], get: Callable[[V], V]) -> list[V]:
    """Values that threads leave for each other in near memory, as many at once as it holds: `put` and `get` say where."""
    base, at_once, shared = _scratch(w, len(values), each)
    out: list[V] = []
    for start in range(0, len(values), at_once):
        some = values[start : start + at_once]
        if shared or start:
            w.plain("bar.sync 0;")
        for number, v in enumerate(some):
            put(w.add(base, i32(number * each)), v)
        w.plain("bar.sync 0;")
        out += [get(w.add(base, i32(number * each))) for number in range(len(some))]
    if shared:
        w.plain("bar.sync 0;")
    return out


def _tree(values: Sequence[V], combine: Combine) -> V:
    values = list(values)
    while len(values) > 1:
        pairs = (values[i : i + 2] for i in range(0, len(values), 2))
        values = [combine(*p) if len(p) == 2 else p[0] for p in pairs]
    return values[0]


def _across_warps(w: Writer, values: list[V], have: Tile, out: Tile, k: int, combine: Combine) -> list[V]:
    """Partials through near memory: for each register [warp along the axis][every other thread]."""
    split = [bit for bit, step in enumerate(have.layout.warp) if 0 < step[k] < have.shape[k] // out.shape[k]]
    parts, others = 1 << len(split), 32 << (len(have.layout.warp) - len(split))
    kept = [bit for bit in range(len(have.layout.threads)) if bit - 5 not in split]
    place = w.dot_bits(w.thread(), [1 << kept.index(i) if i in kept else 0 for i in range(len(have.layout.threads))])
    part = w.dot_bits(w.thread(), [0] * 5 + [1 << split.index(i) if i in split else 0 for i in range(len(have.layout.warp))])
    kind, each = values[0].type, _bytes(values[0].type)

    def cell(base: V, p: V) -> V:
        return w.add(base, w.mul(w.add(w.mul(p, i32(others)), place), i32(each)))

    def total(base: V) -> V:
        return _tree([_near(w, cell(base, i32(p)), kind) for p in range(parts)], combine)

    return _in_rounds(w, values, each * parts * others, lambda base, v: _put(w, cell(base, part), v), total)


def _fold(monoid: str) -> Any:
    def write(w: Writer, sig: Any, x: V, axis: V, *parts: V) -> V:
        have, out, k = sig.args[0].spec, sig.return_type.spec, literal(sig.args[1])
        each = have.shape[k] // out.shape[k]

        def combine(a: V, b: V) -> V:
            return element(w, MONOIDS[monoid], [a, b], have.dtype, have.dtype)

        groups: dict[tuple[int, ...], list[V]] = {}
        for v, o in zip(spread(w, sig.args[0], x, have), have.layout.offsets):
            groups.setdefault(tuple(n // each if i == k else n for i, n in enumerate(o)), []).append(v)
        values = [_tree(groups[o], combine) for o in out.layout.offsets]
        for bit, step in enumerate(have.layout.lane):
            if 0 < step[k] < each:
                values = [combine(v, w.shuffle(v, "bfly", i32(1 << bit))) for v in values]
        return w.pack(_across_warps(w, values, have, out, k, combine) if have.layout.crosses_warps(k, each) else values)

    def folded(x: Any, axis: Any, *parts: Any) -> TileType:
        k = literal(axis)
        return TileType(x.spec.grouped(k, literal(parts[0])) if parts else x.spec.drop(k))

    return macro(folded, literals=True, name=f"fold_{monoid}")(write)


def _prefix(monoid: str) -> Any:
    def write(w: Writer, sig: Any, x: V, axis: V) -> V:
        have, k = sig.return_type.spec, literal(sig.args[1])
        layout, offsets = have.layout, have.layout.offsets
        values = dict(zip(offsets, w.registers(x)))
        bits = [(step[k], "register", i) for i, step in enumerate(layout.register) if step[k]]
        bits += [(step[k], "thread", i) for i, step in enumerate(layout.threads) if step[k]]

        def combine(a: V, b: V) -> V:
            return element(w, MONOIDS[monoid], [a, b], have.dtype, have.dtype)

        below = 0  # the registers of all lower positions
        lower = 0  # the thread bits of all lower positions
        for step, kind, bit in sorted(bits):
            def last(o: tuple[int, ...], clear: int, below: int = below) -> tuple[int, ...]:
                return tuple((n & ~clear) | below if i == k else n for i, n in enumerate(o))

            here = step if kind == "register" else 0
            takers = [o for o in offsets if o[k] & here or kind == "thread"]
            sources = {last(o, here): values[last(o, here)] for o in takers}
            moved = lower | (1 << bit if kind == "thread" else 0)
            if moved:
                own = i32(~(1 << bit)) if kind == "thread" else i32(-1)
                other = w.or_(w.and_(w.thread(), own), i32(lower))
                if moved < 32:
                    sources = {o: w.shuffle(v, "idx", w.and_(other, i32(31))) for o, v in sources.items()}
                else:
                    sources = _through_near(w, sources, other, 32 << len(layout.warp))
            sums = {o: combine(sources[last(o, here)], values[o]) for o in takers}
            if kind == "thread":
                mine = w.icmp_unsigned("!=", w.and_(w.thread(), i32(1 << bit)), i32(0))
                values = {o: w.select(mine, v, values[o]) for o, v in sums.items()}
                lower |= 1 << bit
            else:
                values.update(sums)
                below |= step
        return w.pack([values[o] for o in offsets])

    return macro(lambda x, axis: x, literals=True, name=f"running_{monoid}")(write)


def _through_near(w: Writer, values: dict[Any, V], other: V, threads: int) -> dict[Any, V]:
    """What thread number `other` holds."""
    kind = next(iter(values.values())).type
    each = _bytes(kind)

    def cell(base: V, thread: V) -> V:
        return w.add(base, w.mul(thread, i32(each)))

    got = _in_rounds(
        w, list(values.values()), threads * each,
        lambda base, v: _put(w, cell(base, w.thread()), v), lambda base: _near(w, cell(base, other), kind),
    )  # fmt: skip
    return dict(zip(values, got))


FOLDS = {
    **{f"fold_{monoid}": _fold(monoid) for monoid in MONOIDS},
    **{f"running_{monoid}": _prefix(monoid) for monoid in MONOIDS},
}
