"""One row: its passes over the line, what waits between them, and what it stores.

In:  a place in the nest over rows.  Out: statements.
Read before: line_walks.py. Read next: row_folds.py.
"""

from __future__ import annotations

from kdsl.ir import loops as ir
from kdsl.ir.sizes import Extent, ceildiv, names_in, size
from kdsl.ir.tensor import Equation, Value
from kdsl.schedule.fetch_ahead import rows_to_come
from kdsl.schedule.folds import COMBINE, PLACES, LineFold
from kdsl.schedule.line_walks import LineWalks
from kdsl.schedule.positions import Known, spread_to


class OneRow(LineWalks):
    """The passes of one row."""

    def row(self) -> None:
        p = self.p
        for v in [v for v, home in p.kept.items() if home is None] if p.line else []:
            self.near(v)
        self.t.ready.clear()  # what the tiles of other rows left behind: folds, and what was computed from them
        for key in [key for key in self.t.memo if p.when.get(key[0], 0) > 0]:
            del self.t.memo[key]
        for k in range(p.passes):
            self.one_pass(k)
        for v in p.outputs:
            e = self.t.made[v]
            if e not in p.partial and not self.on_line(v):
                self.store(v)

    def near(self, v: Value) -> None:
        """Near memory for a line value that waits for a later pass: one for the block, used by row after row."""
        if v in self.nears:
            return
        shape: list[Extent] = [self.size[x] for x in self.p.line]
        if len(shape) > 1:  # the inner loop's last tile is a whole one
            step = self.width if self.along == 1 else self.rows_of_tile
            shape[-1] = ceildiv(shape[-1], step) * step
        if self.along == 0:
            shape.append(self.width)
        self.nears[v] = ir.Near(self.t.name(v.name or "kept"), v.dtype.compute, tuple(shape))
        self.t.levels[0].body.insert(0, self.nears[v])

    def one_pass(self, k: int) -> None:
        p, t = self.p, self.t
        known = lambda v: p.when.get(v, 0)  # noqa: E731
        folds = [LineFold(e) for e in self.line_folds if known(e.values[0]) == k]
        kept = [v for v in p.kept if known(v) == k]
        writes = [v for v in p.outputs if self.on_line(v) and known(v) == k and t.made[v] not in p.partial]
        columns = [e for e in self.columns if k == p.passes - 1 and not self.carried(e)]
        if not (folds or kept or writes or columns):
            return
        results = self.walk(folds, lambda: self.tile(k, folds, kept, writes, columns))
        for fold, carried in zip(folds, results, strict=True):
            name = t.let(
                fold.result(carried),
                fold.equation.result.name or fold.op.value,
                location=fold.equation.location,
            )
            depth = t.depth
            t.ready[fold.equation.result] = lambda name=name, depth=depth: (name, depth)  # type: ignore[misc]
        for v in kept:
            t.ready[v] = lambda v=v: self.kept_again(v)  # type: ignore[misc]

    def tile(
        self, k: int, folds: list[LineFold], kept: list[Value], writes: list[Value], columns: list[Equation]
    ) -> list[tuple]:
        """The work of one tile of pass k; for each fold its (value, place)."""
        t = self.t
        first = len(t.levels[-1].body)
        stores: list[ir.Statement] = []
        for v in kept:
            stores.append(self.keep(v, self.value(v)))
        out = []
        for fold in folds:
            e = fold.equation
            value = self.masked(t.operand(e, 0, t.plain_operand(e, 0)), fold)
            place = t.count(self.line_index())[0] if fold.op in PLACES else None
            out.append((value, place))
        for v in writes:
            view = t.view(self.memory(v), t.own(v))
            assert view is not None
            stores.append(ir.Store(view, spread_to(self.value(v), t.shape), t.made[v].location))
        for e in columns:
            view = self.column_view(e)
            old = t.let(ir.Load(view, t.shape), "column")
            tile, _ = t.operand(e, 0, t.plain_operand(e, 0))
            new = ir.Map(COMBINE[e.op], (old, spread_to(tile, t.shape)), self.dtype(e))
            stores.append(ir.Store(view, new, e.location))
        for s in stores:
            t.emit(s)
        if k == min(1, self.p.passes - 1):
            self.fetch_ahead(first, out)
        return out

    def tile_of_map(self) -> None:
        outputs = [v for v in self.p.outputs]
        self.tile(0, [], [], outputs, [])

    def fetch_ahead(self, first: int, values: list[tuple]) -> None:
        """Ask for what this tile's statements, from number `first`, and values will want of rows to come."""
        p, t = self.p, self.t
        streamed = [x for x in p.rows if self.size[x] != 1]
        if self.along == 0 or not streamed or len(p.line) != 1 or t.edge:
            return
        (line,), names = p.line, names_in(t.pos[streamed[-1]])
        if len(names) == 1:
            body, tiles = t.levels[-1].body, [tile for pair in values for tile in pair if tile is not None]
            body[first:first] = rows_to_come(body[first:], tiles, *names, self.size[line], t.shape)

    def keep(self, v: Value, tile: ir.Tile) -> ir.Statement:
        t, home = self.t, self.p.kept[v]
        if home is None:
            return ir.Put(self.nears[v], self.near_index(), spread_to(tile, t.shape))
        view = t.view(self.memory(home), t.own(home))
        assert view is not None
        return ir.Store(view, spread_to(tile, t.shape), t.made[v].location)

    def near_index(self) -> tuple[Extent, ...]:
        index = tuple(self.t.pos[x] for x in self.p.line)
        return index if self.along == 1 else (*index, size("#1"))

    def kept_again(self, v: Value) -> Known:
        t, home = self.t, self.p.kept[v]
        if home is None:
            return ir.Load(ir.View(self.nears[v], self.near_index()), t.shape), t.depth
        view = t.view(self.memory(home), t.own(home))
        assert view is not None
        return t.let(ir.Load(view, t.shape), v.name or "kept"), t.depth

    def store(self, v: Value) -> None:
        """A row value that is an output."""
        t = self.t
        view = t.view(self.memory(v), t.own(v))
        assert view is not None
        tile = self.value(v)
        shape = t.shape_of(view)
        if shape == () and tile.shape != ():
            shape = tuple(tile.shape)
        t.emit(ir.Store(view, spread_to(tile, shape), t.made[v].location))
