"""Macros that read and write memory, global or near.

A read outside an axis that may be left gives the fill value, a write there is dropped. Where neighbours only may lie side by
side (`upto4`), a thread tests that when the kernel runs, and takes them one by one where they do not.
In:  places.py, words.py.  Out: `MEMORY_MACROS`, names that generated source may use.
Read before: places.py, words.py. Read next: macros_dot.py, emit.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kdsl.codegen.cuda.macros import spread
from kdsl.codegen.cuda.macros_views import VIEW_MACROS
from kdsl.codegen.cuda.places import places_of, whole
from kdsl.codegen.cuda.records import HALVES
from kdsl.codegen.cuda.seam import TileType, literal, macro, void
from kdsl.codegen.cuda.words import guarded_load, plain_load, store_words, word_of
from kdsl.codegen.cuda.writer import V, Writer


def read_tile(w: Writer, sig: Any, x: V, fill: V | None) -> V:
    """A tile from a view; `fill` where it is outside."""
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
        word, n = word_of(places.each, len(group))
        address = places.address(offsets[group[0]], group[0])
        if inside is None:
            words = plain_load(w, 3 if places.near else 1, address, word, n, not written)
        else:
            space = "shared" if places.near else "global" if written else "global.nc"
            words = guarded_load(w, space, address, word, n, inside, written)
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
    return read_tile(w, sig, view, fill[0] if fill else None)


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
        store_words(w, 3 if places.near else 1, places.address(offsets[group[0]], group[0]), words, inside)

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


MEMORY_MACROS: dict[str, Callable[..., Any]] = {**VIEW_MACROS, "load": load, "store": store}
