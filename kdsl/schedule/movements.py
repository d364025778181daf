"""Movements: the position of the operand for a position of the result. None of them copies.

In:  an equation, a position of its result.  Out: the tile of its result there.
Read before: positions.py, tiles.py. Read next: rows.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import kdsl.dtypes as dt
from kdsl.ir.ops import Op
from kdsl.ir.sizes import Extent
from kdsl.ir.tensor import Equation
from kdsl.schedule.positions import (
    Entry,
    Known,
    Loose,
    Position,
    Spread,
    constant,
    number,
)

if TYPE_CHECKING:
    from kdsl.schedule.tiles import Tiles


def shifted(entry: Entry, by: Extent, scale: Extent, tiles: Tiles, loose: bool) -> Entry:
    """entry * scale + by"""
    if isinstance(entry, Spread):
        out: Known = entry.tile, entry.depth
        if scale != 1:
            out = tiles.map("mul", [out, (number(scale, dt.i64), 0)], dt.i64)
        if by != 0:
            out = tiles.map("add", [out, (number(by, dt.i64), tiles.depth_at(by))], dt.i64)
        return Spread(*out)
    assert entry is not None
    loose = loose or isinstance(entry, Loose)
    index = (entry.index if isinstance(entry, Loose) else entry) * scale + by
    return Loose(index) if loose else index


def _broadcast(t: Tiles, e: Equation, at: Position) -> Known:
    x = e.values[0]
    entries = [at[r] if x.shape[d] == e.result.shape[r] else 0 for d, r in enumerate(e.attributes["axes"])]
    return t.operand(e, 0, tuple(entries))


def _permute(t: Tiles, e: Equation, at: Position) -> Known:
    entries: list[Entry] = [0] * len(at)
    for r, d in enumerate(e.attributes["axes"]):
        entries[d] = at[r]
    return t.operand(e, 0, tuple(entries))


def _reshape(t: Tiles, e: Equation, at: Position) -> Known:
    assert at == t.plain(e.result), "a reshape is read at other places than it is made at"
    return t.operand(e, 0, t.plain_operand(e, 0))


def _slice(t: Tiles, e: Equation, at: Position) -> Known:
    a = e.attributes
    entries = tuple(
        x if start == 0 and step == 1 else shifted(x, start, step, t, False)
        for x, start, step in zip(at, a["starts"], a["steps"], strict=True)
    )
    return t.operand(e, 0, entries)


def _pad(t: Tiles, e: Equation, at: Position) -> Known:
    a = e.attributes
    inside: Known | None = None
    entries: list[Entry] = []
    for entry, n, low, high, gap in zip(
        at, e.values[0].shape, a["low"], a["high"], a["interior"], strict=True
    ):
        if low == 0 and high == 0 and gap == 0:
            entries.append(entry)
            continue
        entry = shifted(entry, -low, 1, t, True)
        count = t.count(entry)
        if gap:
            step: Known = number(gap + 1, dt.i64), 0
            rest = t.map("mod", [count, step], dt.i64)
            hit = t.map("eq", [rest, (number(0, dt.i64), 0)], dt.bool_)
            inside = hit if inside is None else t.map("and", [inside, hit], dt.bool_)
            count = t.map("floor_div", [count, step], dt.i64)
            entry = Spread(t.let(count[0], "at", count[1]), count[1])
        good = t.between(count, n)
        inside = good if inside is None else t.map("and", [inside, good], dt.bool_)
        entries.append(0 if n == 1 else entry)
    x = t.operand(e, 0, tuple(entries))
    if inside is None:
        return x
    dtype = e.result.dtype.compute
    return t.map("where", [inside, x, (constant(a["value"], dtype), 0)], dtype)


def _concat(t: Tiles, e: Equation, at: Position) -> Known:
    axis, dtype = e.attributes["axis"], e.result.dtype.compute
    entry = at[axis]
    count = t.count(entry)
    ends: list[Extent] = []
    end: Extent = 0
    for x in e.values:
        end = end + x.shape[axis]
        ends.append(end)
    out: Known | None = None
    for i in reversed(range(len(e.values))):
        moved = (
            0 if e.values[i].shape[axis] == 1 else shifted(entry, 0 - (ends[i - 1] if i else 0), 1, t, True)
        )
        part = t.operand(e, i, (*at[:axis], moved, *at[axis + 1 :]))
        if out is None:
            out = part
            continue
        here = t.map("lt", [count, (number(ends[i], dt.i64), 0)], dt.bool_)
        out = t.map("where", [here, part, out], dtype)
    assert out is not None
    return out


def _window(t: Tiles, e: Equation, at: Position) -> Known:
    a = e.attributes
    axis = a["axis"]
    inner = shifted(at[-1], 0, a["dilation"], t, False)
    if isinstance(inner, Spread) or isinstance(at[axis], Spread):
        total = t.map("add", [t.count(inner), t.count(shifted(at[axis], 0, a["stride"], t, False))], dt.i64)
        entry: Entry = Spread(*total)
    else:
        loose = isinstance(inner, Loose)
        entry = shifted(at[axis], inner.index if isinstance(inner, Loose) else inner, a["stride"], t, loose)  # type: ignore[arg-type]
    entries = list(at[:-1])
    entries[axis] = entry
    return t.operand(e, 0, tuple(entries))


def _take(t: Tiles, e: Equation, at: Position) -> Known:
    axis, (x, index) = e.attributes["axis"], e.values[:2]
    n = len(index.shape)
    entry = t.index_entry(t.operand(e, 1, at[axis : axis + n]), x.shape[axis])
    return t.operand(e, 0, (*at[:axis], entry, *at[axis + n :]))


def _take_along(t: Tiles, e: Equation, at: Position) -> Known:
    axis, x = e.attributes["axis"], e.values[0]
    entry = t.index_entry(t.operand(e, 1, at), x.shape[axis])
    places = [at[d] if x.shape[d] == e.result.shape[d] else 0 for d in range(len(at))]
    return t.operand(e, 0, (*places[:axis], entry, *places[axis + 1 :]))


MOVES: Mapping[Op, Callable[[Tiles, Equation, Position], Known]] = {
    Op.BROADCAST: _broadcast, Op.PERMUTE: _permute, Op.RESHAPE: _reshape, Op.SLICE: _slice, Op.PAD: _pad,
    Op.CONCAT: _concat, Op.WINDOW: _window, Op.TAKE: _take, Op.TAKE_ALONG: _take_along,
}  # fmt: skip  # fmt: skip
