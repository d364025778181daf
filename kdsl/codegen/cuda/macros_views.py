"""Macros that name places in memory: arrays, near memory, and views of them by indices.

In:  seam.py, writer.py, macros.py.  Out: `VIEW_MACROS`, names that generated source may use.
A view is the address of its memory with a value for each index; how it walks along the tile's axes, which ends it may leave
and how many elements go at once are its type.
Read before: macros.py. Read next: places.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kdsl.codegen.cuda.macros import as_size
from kdsl.codegen.cuda.seam import ArrayType, EdgeType, NearType, SizeType, Spec, TileType, ViewType, WalkType, factors, macro
from kdsl.codegen.cuda.writer import V, Writer, i32, i64


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


VIEW_MACROS: dict[str, Callable[..., Any]] = {
    "array": array, "near": near, "transposed": transposed, "at": at,
    "edge": _edge(False, "edge"), "edges": _edge(True, "edges"),
    **{f"by{n}": _by(n, False) for n in (2, 4, 8, 16)},
    **{f"upto{n}": _by(n, True) for n in (2, 4, 8)},
}  # fmt: skip
