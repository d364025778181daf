"""Comparisons of positions within statements: which there are, what is known of them, and tiles without those that are decided.

In:  tiles, and what is known where they stand.  Out: Conditions; simpler tiles; statements under other names.
    where(j + #1 < 1000, p, q)      the condition  j + #1 - 1000 < 0,  with #1 in 0 … 31
Read before: ir/loops.py, ir/ranges.py. Read next: regions.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import kdsl.dtypes as dt
from kdsl.ir import loops as ir
from kdsl.ir.ranges import Ranges
from kdsl.ir.rebuilt import rebuilt
from kdsl.ir.sizes import Extent, Size, names_in, size, split, substitute

COMPARISONS = ("lt", "le", "gt", "ge")


@dataclass(frozen=True)
class Condition:
    """`difference` < 0, where it counts through a tile axis "#k" of `extents[k]` places."""

    difference: Size
    extents: tuple[tuple[str, int], ...]

    def extremes(self, x: Extent) -> tuple[Extent, Extent]:
        """The least and greatest value of an expression over the tile."""
        factors, low = split(x, {n for n, _ in self.extents})
        high = low
        for name, n in self.extents:
            factor = factors.get(name, 0)
            assert isinstance(factor, int)
            low, high = low + min(factor * (n - 1), 0), high + max(factor * (n - 1), 0)
        return low, high


class Conditions:
    """What is known at a place of a kernel."""

    def __init__(self, ranges: Ranges) -> None:
        self.ranges = ranges
        self.lets: dict[str, ir.Tile] = {}
        self.decisions = 0
        self.known: dict[Extent, bool | None] = {}  # a condition's difference: its truth, None where it stays open

    def assuming(self, c: Condition, truth: bool | None, inside: Callable[[], tuple]) -> tuple:
        """Do something where a condition is decided, or known to stay open."""
        before = self.known
        self.known = {**before, c.difference: truth}
        out = inside()
        self.known = before
        return out

    # --- which there are ----------------------------------------------------------------------------------------------
    def choice(
        self, body: tuple[ir.Statement, ...], index: str | None, ends: tuple[ir.Tile, ...] = ()
    ) -> Condition | None:
        """An open condition that chooses between loads, or whether to read what may lie outside.

        It is linear in a loop's index and known before the loop otherwise; with None it is the same for the whole block.
        `ends`: tiles that stand behind the body."""
        lets, inner = dict(self.lets), set()
        for s in ir.walk(body):
            if isinstance(s, ir.Let):
                lets[s.name] = s.tile
            elif isinstance(s, ir.Stream):
                inner.add(s.index)
        outside, self.lets = self.lets, lets
        try:
            for tile in (*(t for s in ir.walk(body) for t in ir.tiles_of(s)), *ends):
                for c in self.conditions(tile):
                    if self.is_for(c, index, inner) and self.truth(c) is None and c.difference not in self.known:
                        return c
        finally:
            self.lets = outside
        return None

    def is_for(self, c: Condition, index: str | None, inner: set[str]) -> bool:
        """Is a condition decided by this index and what is known outside of its loop?"""
        names = names_in(c.difference)
        if names & inner:
            return False
        try:
            factors, rest = split(c.difference, {n for n, _ in c.extents} | ({index} if index else set()))
        except ValueError:
            return False
        if not all(isinstance(f, int) for f in factors.values()):
            return False
        if not all(n in self.ranges.bounds or n in self.ranges.sizes for n in names_in(rest)):
            return False
        return index in factors if index else not factors

    def conditions(self, tile: ir.Tile) -> Iterator[Condition]:
        """The comparisons that choose, in a tile."""
        stack, seen = [tile], set()
        while stack:
            t = self.meant(stack.pop())
            if id(t) in seen:
                continue
            seen.add(id(t))
            below = ir.children(t)
            if isinstance(t, ir.Map) and t.op == "where":
                chosen = self.decided(t.operands[0])
                if chosen is not None:
                    below = (t.operands[1 if chosen else 2],)
                elif self.chooses_loads(*t.operands[1:]):
                    yield from self.compared(t.operands[0])
            stack += reversed(below)

    def compared(self, tile: ir.Tile) -> Iterator[Condition]:
        """The comparisons in a bool tile."""
        tile = self.meant(tile)
        if isinstance(tile, ir.Map) and tile.op in ("and", "or", "not"):
            for t in tile.operands:
                yield from self.compared(t)
        found = self.condition(tile)
        if found is not None:
            yield found

    def chooses_loads(self, *sides: ir.Tile) -> bool:
        """Does one side load what may lie outside, or does each side load something?"""
        loads = [list(self.loads(t)) for t in sides]
        return all(loads) or any(any(load.view.check) for side in loads for load in side)

    def loads(self, tile: ir.Tile) -> Iterator[ir.Load]:
        """Every load of a tile, through names too."""
        stack, seen = [tile], set()
        while stack:
            t = self.meant(stack.pop())
            if id(t) not in seen:
                seen.add(id(t))
                if isinstance(t, ir.Load):
                    yield t
                stack += ir.children(t)

    def meant(self, tile: ir.Tile) -> ir.Tile:
        """What a name stands for."""
        while isinstance(tile, ir.Name) and tile.name in self.lets:
            tile = self.lets[tile.name]
        return tile

    def condition(self, tile: ir.Tile) -> Condition | None:
        """A comparison of positions as `difference` < 0; None for any other tile, and for numbers alone."""
        if not isinstance(tile, ir.Map) or tile.op not in COMPARISONS or not tile.operands[0].dtype.is_integer:
            return None
        extents: dict[str, int] = {}
        a, b = (self.index_of(t, extents) for t in tile.operands)
        if a is None or b is None:
            return None
        difference = {"lt": a - b, "le": a - b - 1, "gt": b - a, "ge": b - a - 1}[tile.op]
        return Condition(difference, tuple(sorted(extents.items()))) if isinstance(difference, Size) else None

    def index_of(self, tile: ir.Tile, extents: dict[str, int]) -> Extent | None:
        """An integer tile as an index expression."""
        tile = self.meant(tile)
        if isinstance(tile, ir.Constant):
            return int(tile.value)
        if isinstance(tile, ir.Scalar):
            return tile.value
        if isinstance(tile, ir.Index):
            extents[f"#{tile.axis}"] = tile.shape[tile.axis]
            return ir.axis(tile.axis)
        if isinstance(tile, ir.Map) and tile.op in ("add", "sub", "mul") and tile.dtype is dt.i64:
            a, b = (self.index_of(t, extents) for t in tile.operands)
            if a is None or b is None or (tile.op == "mul" and not (isinstance(a, int) or isinstance(b, int))):
                return None
            return a + b if tile.op == "add" else a - b if tile.op == "sub" else a * b
        return None

    def truth(self, c: Condition) -> bool | None:
        """What a condition is throughout the tile, where that is known."""
        if c.difference in self.known:
            return self.known[c.difference]
        try:
            least, greatest = c.extremes(c.difference)
        except (ValueError, AssertionError):
            return None
        if self.ranges.natural(least):
            return False
        return True if self.ranges.natural(-1 - greatest) else None

    def decided(self, tile: ir.Tile) -> bool | None:
        """What a bool tile is throughout, where that is known."""
        tile = self.meant(tile)
        if isinstance(tile, ir.Constant):
            return bool(tile.value)
        if isinstance(tile, ir.Map) and tile.op in ("and", "or"):
            each = [self.decided(t) for t in tile.operands]
            strong = tile.op == "or"  # one true decides an or, one false an and
            return strong if strong in each else None if None in each else not strong
        if isinstance(tile, ir.Map) and tile.op == "not":
            inner = self.decided(tile.operands[0])
            return None if inner is None else not inner
        c = self.condition(tile)
        return None if c is None else self.truth(c)

    # --- simpler tiles ------------------------------------------------------------------------------------------------
    def simple_statement(self, s: ir.Statement) -> ir.Statement:
        if isinstance(s, ir.Let):
            s = replace(s, tile=self.simple(s.tile))
            self.lets[s.name] = s.tile
        elif isinstance(s, (ir.Put, ir.Store)):
            s = replace(s, tile=self.simple(s.tile))
        return s

    def simple(self, tile: ir.Tile) -> ir.Tile:
        """A tile without choices that are decided, and without checks that are proved."""
        return rebuilt(tile, self._simpler, {})

    def _simpler(self, t: ir.Tile) -> ir.Tile:
        if isinstance(t, ir.Load) and any(t.view.check):
            return self._proved(t)
        if isinstance(t, ir.Name) and t.dtype is dt.bool_:
            meant = self.meant(t)
            return meant if isinstance(meant, ir.Constant) else t
        if not isinstance(t, ir.Map):
            return t
        if t.op in COMPARISONS:
            c = self.condition(t)
            truth = None if c is None else self.truth(c)
            return t if truth is None else ir.Constant(truth, dt.bool_, t.shape)
        if t.op in ("and", "or") and t.dtype is dt.bool_:
            a, b = t.operands
            for x, y in ((a, b), (b, a)):
                if isinstance(x, ir.Constant):
                    return spread(y if x.value == (t.op == "and") else x, t.shape)
        if t.op == "not" and isinstance(t.operands[0], ir.Constant):
            return replace(t.operands[0], value=not t.operands[0].value)
        if t.op == "where" and isinstance(t.operands[0], ir.Constant):
            self.decisions += 1
            return spread(t.operands[1 if t.operands[0].value else 2], t.shape)
        return t

    def _proved(self, load: ir.Load) -> ir.Load:
        """A load without the checks that always hold here."""
        v = load.view
        for k, n in enumerate(load.shape):
            self.ranges.add(f"#{k}", 0, n - 1)
        check = tuple(
            c and not self.ranges.inside(i, n) for i, n, c in zip(v.index, v.memory.shape, v.check, strict=True)
        )
        for k in range(len(load.shape)):
            del self.ranges.bounds[f"#{k}"]
        return replace(load, view=replace(v, check=check if any(check) else ()))


def spread(tile: ir.Tile, shape: ir.TileShape) -> ir.Tile:
    """A tile in the shape of the choice that it came out of."""
    if tuple(tile.shape) == tuple(shape):
        return tile
    return replace(tile, shape=shape) if isinstance(tile, ir.Constant) else ir.Broadcast(tile, shape)


# --- tiles and statements made anew ---------------------------------------------------------------------------------------
def renamed(body: tuple[ir.Statement, ...], new: Mapping[str, str]) -> tuple[ir.Statement, ...]:
    """Statements whose Lets and carries have other names."""
    places = {old: size(name) for old, name in new.items()}
    done: dict[int, ir.Tile] = {}

    def at(x: Extent) -> Extent:
        return substitute(x, places)

    def view(v: ir.View) -> ir.View:
        return replace(v, index=tuple(map(at, v.index)))

    def change(t: ir.Tile) -> ir.Tile:
        if isinstance(t, ir.Name):
            return replace(t, name=new.get(t.name, t.name))
        if isinstance(t, ir.Load):
            return replace(t, view=view(t.view))
        return replace(t, value=at(t.value)) if isinstance(t, ir.Scalar) else t

    def tile(t: ir.Tile) -> ir.Tile:
        return rebuilt(t, change, done)

    def one(s: ir.Statement) -> ir.Statement:
        if isinstance(s, ir.Let):
            return replace(s, name=new.get(s.name, s.name), tile=tile(s.tile))
        if isinstance(s, ir.Put):
            return replace(s, index=tuple(map(at, s.index)), tile=tile(s.tile))
        if isinstance(s, ir.Store):
            return replace(s, view=view(s.view), tile=tile(s.tile))
        if isinstance(s, ir.Copy):
            return replace(s, index=tuple(map(at, s.index)), view=view(s.view))
        if isinstance(s, ir.Prefetch):
            return replace(s, view=view(s.view))
        if isinstance(s, ir.If):
            return ir.If(tile(s.condition), tuple(map(one, s.body)))
        if isinstance(s, ir.Stream):
            carries = tuple(ir.Carry(new.get(c.name, c.name), tile(c.init), tile(c.next)) for c in s.carries)
            return ir.Stream(s.index, at(s.lo), at(s.hi), s.tile, tuple(map(one, s.body)), carries, s.order)
        return s

    return tuple(map(one, body))


def used_names(body: tuple[ir.Statement, ...]) -> set[str]:
    """Every name that tiles and index expressions of these statements mention."""
    out: set[str] = set()
    stack: list[ir.Tile] = []
    for s in ir.walk(body):
        stack += ir.tiles_of(s)
        if isinstance(s, (ir.Parallel, ir.Stream)):
            out |= names_in(s.lo) | names_in(s.hi)
        elif isinstance(s, (ir.Store, ir.Prefetch, ir.Copy, ir.Put)):
            for x in s.view.index:
                out |= names_in(x)
            if isinstance(s, ir.Copy):
                out = out.union(*map(names_in, s.index))
    seen: set[int] = set()
    while stack:
        t = stack.pop()
        if id(t) in seen:
            continue
        seen.add(id(t))
        if isinstance(t, ir.Name):
            out.add(t.name)
        elif isinstance(t, ir.Load):
            for x in t.view.index:
                out |= names_in(x)
        elif isinstance(t, ir.Scalar):
            out |= names_in(t.value)
        stack += ir.children(t)
    return out
