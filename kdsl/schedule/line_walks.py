"""Walks along the line, tile by tile, with folds carried; what remains behind the last whole tile.

In:  folds, and what is done in each tile.  Out: statements; the collapsed tiles of each fold.
Read before: row_frame.py, folds.py. Read next: one_row.py.
"""

from __future__ import annotations

from collections.abc import Callable

import kdsl.dtypes as dt
from kdsl.ir import loops as ir
from kdsl.ir.frame import Letter
from kdsl.ir.sizes import Extent, floordiv, size
from kdsl.schedule.folds import LineFold
from kdsl.schedule.positions import Known, constant, spread_to
from kdsl.schedule.row_frame import RowFrame


class LineWalks(RowFrame):
    """Streams of tiles along the line."""

    def walk(self, folds: list[LineFold], inside: Callable[[], list[tuple]]) -> list[list[ir.Tile]]:
        """Go over the line tile by tile; the collapsed tiles of each fold."""
        t, p = self.t, self.p
        outer_shape, outer_edge = t.shape, set(t.edge)
        if not p.line:
            values = inside()
            t.shape, t.edge = outer_shape, outer_edge
            return [
                [spread_to(v, (1, 1)), *([spread_to(i, (1, 1))] if i is not None else [])] for v, i in values
            ]
        width, step = outer_shape[1], (self.width if self.along == 1 else self.rows_of_tile)
        whole = (lambda n: (1, n)) if self.along == 1 else (lambda n: (n, width))
        *loops, last = p.line
        n = self.size[last]
        parts: list[list[list[ir.Tile]]] = []  # for each region, for each fold, collapsed
        single = not loops and isinstance(n, int)
        if single:
            full = n // step * step
            if full or n == 0:  # an empty line: a stream of no tiles
                carried = self.region(folds, last, 0, full, step, whole(step), False, None, inside)
                parts.append([f.collapse(c, self.along) for f, c in zip(folds, carried, strict=True)])
            if n - full:
                t.push()
                t.shape = whole(n - full)
                t.pos[last] = full + size(f"#{self.along}")
                values = inside()
                body = t.pop()
                t.levels[-1].body.extend(body)
                for s in body:
                    if isinstance(s, ir.Let):
                        self.register(s.name)
                parts.append(
                    [
                        f.collapse(f.alone(v, i, t.shape), self.along)
                        for f, (v, i) in zip(folds, values, strict=True)
                    ]
                )
        else:
            carried = self.nested(folds, list(p.line), step, whole(step), None, inside)
            parts.append([f.collapse(c, self.along) for f, c in zip(folds, carried, strict=True)])
        t.shape, t.edge = outer_shape, outer_edge
        out = []
        for number, fold in enumerate(folds):
            if not parts:
                out.append(fold.init((1, 1) if self.along == 1 else (1, width)))
                continue
            total = parts[0][number]
            for later in parts[1:]:
                total = fold.join(total, later[number])
            out.append(total)
        return out

    def nested(
        self,
        folds: list[LineFold],
        letters: list[Letter],
        step: int,
        shape: ir.TileShape,
        start: list | None,
        inside: Callable,
    ) -> list:
        """Streams over the letters of a line, carrying the folds; the last edge is checked and masked."""
        t = self.t
        x, *rest = letters
        n = self.size[x]
        if rest:
            index = t.name("l")
            names = [[t.name("fold") for _ in f.init(shape)] for f in folds]
            start = start or [f.init(shape) for f in folds]
            t.push(index, *(n for group in names for n in group))
            t.pos[x] = size(index)
            old = [
                [ir.Name(m, shape, s.dtype) for m, s in zip(group, first, strict=True)]
                for group, first in zip(names, start, strict=True)
            ]
            new = self.nested(folds, rest, step, shape, old, inside)
            carry = tuple(
                ir.Carry(m, s, v)
                for group, first, later in zip(names, start, new, strict=True)
                for m, s, v in zip(group, first, later, strict=True)
            )
            body = t.pop()
            t.emit(ir.Stream(index, 0, n, 1, body, carry))
            for group in names:
                for m in group:
                    self.register(m)
            return old
        full = floordiv(n, step) * step
        carried = start
        if full != 0:
            carried = self.region(folds, x, 0, full, step, shape, False, carried, inside)
        if full != n:
            carried = self.region(folds, x, full, n, step, shape, True, carried, inside)
        return carried or [f.init(shape) for f in folds]

    def region(
        self, folds: list[LineFold], letter: Letter, lo: Extent, hi: Extent, step: int, shape: ir.TileShape, edge: bool,
        start: list | None, inside: Callable,
    ) -> list:  # fmt: skip
        """A stream of tiles; the carried tiles of each fold after it."""
        t = self.t
        index = t.name("j")
        start = start or [f.init(shape) for f in folds]
        names = [[t.name("fold") for _ in first] for first in start]
        t.push(index, *(n for group in names for n in group))
        outer = t.shape, set(t.edge)
        t.shape = shape
        if edge:
            t.edge = t.edge | {f"#{self.along}"}
        t.pos[letter] = size(index) + size(f"#{self.along}")
        values = inside()
        carry = []
        old_names = []
        for fold, group, first, (value, place) in zip(folds, names, start, values, strict=True):
            old = [ir.Name(m, shape, s.dtype) for m, s in zip(group, first, strict=True)]
            old_names.append(old)
            new = fold.step(old, value, place, shape)
            carry += [ir.Carry(m, s, x) for m, s, x in zip(group, first, new, strict=True)]
        body = t.pop()
        t.shape, t.edge = outer
        t.emit(ir.Stream(index, lo, hi, step, body, tuple(carry)))
        for group in names:
            for m in group:
                self.register(m)
        return old_names

    def over_line(self, inside: Callable[[], None]) -> None:
        def work() -> list[tuple]:
            inside()
            return []

        self.walk([], work)

    def masked(self, known: Known, fold: LineFold) -> ir.Tile:
        """A fold's operand; beyond the end of the line it counts as nothing."""
        t = self.t
        tile = self.here(known)
        if f"#{self.along}" not in t.edge or not self.p.line:
            return tile
        letter = self.p.line[-1]
        inside = t.map("lt", [t.count(t.pos[letter]), t.count(self.size[letter])], dt.bool_)
        return ir.Map(
            "where",
            (self.here(inside), spread_to(tile, t.shape), constant(fold.start, fold.dtype)),
            fold.dtype,
        )
