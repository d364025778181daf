"""The statements of a loop's body, position by position: few vectors live at once.

    u = …; put(near, u); v = fold_sum(u * w, 0); next(h = u * d)     vector 0 of u, put, into the fold, next; vector 1 of u …
Written statement by statement, all vectors of `u` would wait in registers (that is, on the stack) for the statements that
read them. In:  statements that are Lets, Puts and Stores, and the loop's carries, on tiles of one shape. Folds over rows are
combined as their parts arrive, in the order that they always have. Out: instructions; what is left to be done afterwards:
statements on smaller tiles, and those that wait for such a fold.
Read before: inner_loops.py. Read next: kernel.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Union

from kdsl.codegen.llvm.inner_loops import InnerLoops
from kdsl.codegen.llvm.memory import Position
from kdsl.codegen.llvm.tiles import MOST_VECTORS, Owner, Stored, memories
from kdsl.codegen.llvm.writer import TYPES, Value
from kdsl.ir import loops as ir
from kdsl.ir.loops import Memory, Tile
from kdsl.ir.sizes import Size, names_in

Sink = Union[ir.Put, ir.Store]
Reader = Union[ir.Let, ir.Put, ir.Store, ir.Carry]


class Together(InnerLoops):
    """Adds the walk over positions."""

    owners: dict[Reader, Owner]  # of statements and carries whose folds are known
    early: dict[ir.Carry, Stored]  # what carries are next, where that is known before the body's end
    force: Callable[[set[Memory]], None]
    do_Let: Callable[[ir.Let], None]

    def together(self, body: Sequence[ir.Statement], carries: Sequence[ir.Carry]) -> list[ir.Statement] | None:
        """Write what can be written position by position; the statements that are left, or None: nothing was done."""
        if not all(isinstance(s, (ir.Let, ir.Put, ir.Store)) for s in body):
            return None
        readers: list[Reader] = [*body, *carries]  # type: ignore[list-item]
        lets = {s.name: s.tile for s in body if isinstance(s, ir.Let)}
        folds = list(self.row_folds(readers, lets))
        shapes = [tile_of(r).shape for r in readers if not isinstance(r, ir.Let)] + [f.tile.shape for _, f in folds]
        main = max(shapes, key=lambda s: sum(1 for _ in self.groups(s)), default=())
        if len(main) != 2 or not 1 < sum(1 for _ in self.groups(main)) <= MOST_VECTORS or not self.apart(readers):
            return None
        folds = [(r, f) for r, f in folds if f.tile.shape == main]
        sinks = [r for r in readers if not isinstance(r, ir.Let) and tile_of(r).shape == main and not waits(tile_of(r), lets)]
        if len(folds) + len(sinks) < 2:
            return None
        self.force({ir.root(view_of(s).memory) for s in body if not isinstance(s, ir.Let)})  # type: ignore[arg-type]
        for s in body:
            if isinstance(s, ir.Let):
                self.do_Let(s)
        steps: list[tuple[Owner, Callable[[tuple[Position, ...]], None]]] = []
        ends = []
        seen: set[int] = set()
        for r in readers:
            for f in [f for reader, f in folds if reader is r and id(f) not in seen]:
                seen.add(id(f))
                owner = self.owner_of(r)
                if owner is not None:
                    waiting: dict[Position, list[tuple[int, Value]]] = {}
                    steps.append((owner, self.folding(f, waiting)))
                    ends.append((owner, f, waiting))
            if r in sinks:
                owner = self.owner_of(r)
                assert owner is not None
                steps.append((owner, self.sinking(r)))
        for at in self.groups(main):
            for owner, step in steps:
                self.owner, self.place = owner, owner.place
                step(at)
        width = self.width_of(main)
        for owner, f, waiting in ends:
            for q, parts in waiting.items():
                key = (id(f), (0, q), 1 if width > 1 else -1, width)
                owner.values[key] = self.whole_tree(f.monoid, parts, f.dtype.compute)
                owner.keep.append(f)
        return [s for s in body if not isinstance(s, ir.Let) and s not in sinks]

    def owner_of(self, r: Reader) -> Owner | None:
        """What remembers the elements of a statement's tiles; None where a Let is computed as a whole."""
        if isinstance(r, ir.Let):
            bound = self.named[r.name]
            return bound if isinstance(bound, Owner) else None
        return self.owners.setdefault(r, Owner(None, self.depth))

    def folding(self, f: ir.Fold, waiting: dict[Position, list[tuple[int, Value]]]) -> Callable[[tuple[Position, ...]], None]:
        def step(at: tuple[Position, ...]) -> None:
            self.add_part(f.monoid, waiting.setdefault(at[1], []), self.natural_element(f.tile, at), f.dtype.compute)

        return step

    def sinking(self, r: Reader) -> Callable[[tuple[Position, ...]], None]:
        tile, lane = tile_of(r), len(tile_of(r).shape) - 1
        width = self.width_of(tile.shape)
        if isinstance(r, ir.Carry):
            stored = self.early[r] = Stored(tile.shape, width, TYPES[tile.dtype.compute.name])
        else:
            view = view_of(r)  # type: ignore[arg-type]

        def step(at: tuple[Position, ...]) -> None:
            value = self.natural_element(tile, at)
            if isinstance(r, ir.Carry):
                stored.values[at] = self.splat(value, width)
            else:
                self.store(view, at, lane, width, self.valid(tile.shape, at, lane, width), value)

        return step

    def row_folds(self, readers: Sequence[Reader], lets: dict[str, Tile]) -> Iterator[tuple[Reader, ir.Fold]]:
        """Folds over rows that wait for no other fold, and the statement that each stands in."""
        for r in readers:
            for t in ir.nodes(tile_of(r)):
                if isinstance(t, ir.Fold) and t.axis == 0 and len(t.tile.shape) == 2 and not waits(t.tile, lets):
                    yield r, t

    def apart(self, readers: Sequence[Reader]) -> bool:
        """Whether no statement reads what another one writes, nor its own at another place."""
        written: dict[Memory, Sink] = {}
        for r in readers:
            if isinstance(r, (ir.Put, ir.Store)):
                if ir.root(view_of(r).memory) in written:
                    return False
                written[ir.root(view_of(r).memory)] = r
        for r in readers:
            for t in ir.nodes(tile_of(r)):
                if isinstance(t, ir.Name):  # a Let of this body is a reader itself
                    if memories(t, self.named) & written.keys():
                        return False
                elif isinstance(t, (ir.Load, ir.Gather)):
                    memory = ir.root(t.view.memory if isinstance(t, ir.Load) else t.memory)
                    sink = written.get(memory)
                    if sink is None or (isinstance(t, ir.Load) and never_meet(t.view, view_of(sink))):
                        continue
                    if sink is not r or not self.same_place(tile_of(r), view_of(sink), tile_of(r).shape):
                        return False
        return True


def tile_of(r: Reader) -> Tile:
    return r.next if isinstance(r, ir.Carry) else r.tile


def view_of(s: Sink) -> ir.View:
    return ir.View(s.near, s.index) if isinstance(s, ir.Put) else s.view


def never_meet(a: ir.View, b: ir.View) -> bool:
    """Whether two views of one memory differ in an index that is the same for all elements of each."""
    if a.memory is not b.memory:
        return False
    for i, j in zip(a.index, b.index, strict=True):
        names = {n for x in (i, j) if isinstance(x, Size) for n in names_in(x)}
        if isinstance(i - j, int) and i - j != 0 and not any(n.startswith("#") for n in names):
            return True
    return False


def waits(tile: Tile, lets: dict[str, Tile]) -> bool:
    """Whether a tile needs all positions of another one: a fold, a product, a prefix."""
    for t in ir.nodes(tile):
        if isinstance(t, (ir.Fold, ir.Dot, ir.Prefix, ir.Permute, ir.Slice)):
            return True
        if isinstance(t, ir.Name) and t.name in lets and waits(lets[t.name], lets):
            return True
    return False
