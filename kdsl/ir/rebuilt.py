"""Tiles and statements made anew with some part changed.

In:  tiles or statements, and what becomes of a tile, or of a view.  Out: the same otherwise; what stands in several places of an
expression stays one. Read before: ir/loops.py. Read next: schedule/placed.py, schedule/conditions.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kdsl.ir import loops as ir


def rebuilt(tile: ir.Tile, change: Callable[[ir.Tile], ir.Tile], done: dict[int, ir.Tile]) -> ir.Tile:
    """A tile with `change` made to each part, inner ones first; parts that stand in it several times stay one."""
    found = done.get(id(tile))
    if found is not None:
        return found
    old = ir.children(tile)
    new = tuple(rebuilt(t, change, done) for t in old)
    out = tile
    if any(a is not b for a, b in zip(old, new, strict=True)):
        out = with_children(tile, new)
    out = done[id(tile)] = change(out)
    return out


def with_children(tile: ir.Tile, new: tuple[ir.Tile, ...]) -> ir.Tile:
    """A tile computed from other tiles."""
    if isinstance(tile, ir.Map):
        return replace(tile, operands=new)
    if isinstance(tile, ir.Dot):
        return ir.Dot(*new)
    if isinstance(tile, ir.Gather):
        n = len(tile.indices)
        return replace(tile, indices=new[:n], mask=new[n] if len(new) > n else None)
    return replace(tile, tile=new[0])  # type: ignore[call-arg, arg-type]


def with_views(body: tuple[ir.Statement, ...], view: Callable[[ir.View], ir.View]) -> tuple[ir.Statement, ...]:
    """The statements with `view` made of every view of a load, a store, a copy or a prefetch."""
    done: dict[int, ir.Tile] = {}

    def tile(t: ir.Tile) -> ir.Tile:
        return rebuilt(t, lambda x: replace(x, view=view(x.view)) if isinstance(x, ir.Load) else x, done)

    def one(s: ir.Statement) -> ir.Statement:
        if isinstance(s, (ir.Let, ir.Put)):
            return replace(s, tile=tile(s.tile))
        if isinstance(s, ir.Store):
            return replace(s, view=view(s.view), tile=tile(s.tile))
        if isinstance(s, (ir.Copy, ir.Prefetch)):
            return replace(s, view=view(s.view))
        if isinstance(s, ir.Parallel):
            return replace(s, body=tuple(map(one, s.body)))
        if isinstance(s, ir.If):
            return ir.If(tile(s.condition), tuple(map(one, s.body)))
        if isinstance(s, ir.Stream):
            carries = tuple(ir.Carry(c.name, tile(c.init), tile(c.next)) for c in s.carries)
            return replace(s, body=tuple(map(one, s.body)), carries=carries)
        return s

    return tuple(map(one, body))
