"""Which results may be written over which arguments: those where each element is read before it is written.

In:  a scheduled Program.  Out: pairs (argument, result) of numbers; with such a pair the result's memory may be the argument's.
A pair is named only where its kernel is plainly elementwise in it: the argument is not read by a later kernel, and in the
kernel that writes the result each tile of the argument is loaded where the same tile of the result is stored from it.
Everything else is left out; the caller then computes into new memory and copies.
Read before: ir/loops.py. Read next: kept.py, runtime/call.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from kdsl.ir import loops as ir
from kdsl.ir.sizes import Extent, Size, at_least, names_in, substitute

ONE_GO = 256  # bytes of a tile that emitters compute in one go, remembering what they have loaded

Loop = ir.Parallel | ir.Stream


def in_place(program: ir.Program) -> tuple[tuple[int, int], ...]:
    """The pairs of a program."""
    found = []
    facts = [_Kernel(k) for k in program.kernels]
    arguments = [b for b in program.buffers if b.role == "argument"]
    for r in (b for b in program.buffers if b.role == "result"):
        for a in arguments:
            if a.dtype is r.dtype and a.shape == r.shape and a.strides == r.strides and _is_safe(facts, a, r):
                found.append((a.number, r.number))
    return tuple(found)


def _is_safe(kernels: list[_Kernel], a: ir.Buffer, r: ir.Buffer) -> bool:
    reads = [i for i, k in enumerate(kernels) if a in k.read]
    writes = [i for i, k in enumerate(kernels) if r in k.stores]
    if not reads or not writes or reads[-1] < writes[0]:
        return True
    return reads[-1] == writes[0] and kernels[writes[0]].is_elementwise(a, r)


@dataclass(eq=False)
class _Place:
    """A statement: the body it stands in, its number there, and the loops around it, outermost first."""

    statement: ir.Statement
    body: tuple[ir.Statement, ...]
    number: int
    loops: tuple[Loop, ...]


class _Kernel:
    """What one kernel reads and writes, and where."""

    def __init__(self, kernel: ir.Kernel) -> None:
        self.lets: dict[str, ir.Tile] = {}
        self.places: list[_Place] = []
        self.read: set[ir.Buffer | ir.Near] = set()
        self.stores: dict[ir.Buffer | ir.Near, list[_Place]] = {}
        self.walk(kernel.body, ())
        for p in self.places:
            if isinstance(p.statement, ir.Copy):
                self.read.add(ir.root(p.statement.view.memory))
            tiles = ir.nodes(*ir.tiles_of(p.statement))
            self.read |= {b for x in tiles if (b := _read(x)) is not None}
            if isinstance(p.statement, ir.Store):
                self.stores.setdefault(ir.root(p.statement.view.memory), []).append(p)

    def walk(self, body: tuple[ir.Statement, ...], loops: tuple[Loop, ...]) -> None:
        for i, s in enumerate(body):
            self.places.append(_Place(s, body, i, loops))
            if isinstance(s, ir.Let):
                self.lets[s.name] = s.tile
            elif isinstance(s, (ir.Parallel, ir.Stream)):
                self.walk(s.body, (*loops, s))
            elif isinstance(s, ir.If):
                self.walk(s.body, loops)

    def is_elementwise(self, a: ir.Buffer, r: ir.Buffer) -> bool:
        """Whether each tile of `a` is loaded only for storing the tile of `r` at the same place."""
        stores = self.stores[r]
        if r in self.read or not all(map(_once, stores)) or not _disjoint(stores):
            return False
        wanted: dict[ir.Tile, _Place] = {}  # each load of `a`, with the store that it must feed
        for p in self.places:
            if isinstance(p.statement, ir.Copy) and ir.root(p.statement.view.memory) is a:
                return False
            here = [x for x in ir.nodes(*ir.tiles_of(p.statement)) if _read(x) is a]
            store = [s for s in stores if s.body is p.body]
            if here and (len(store) != 1 or isinstance(p.statement, (ir.Stream, ir.If)) or p.number > store[0].number):
                return False
            wanted.update((x, store[0]) for x in here)
        for x, s in wanted.items():
            assert isinstance(s.statement, ir.Store)
            if not isinstance(x, ir.Load) or not _same_place(x, s.statement) or x not in self.elementwise(s.statement.tile):
                return False
        return all(self.is_used_in_time({x for x, s in wanted.items() if s is store}, store) for store in stores)

    def elementwise(self, tile: ir.Tile) -> set[ir.Tile]:
        """The loads that this tile has element by element."""
        seen: set[ir.Tile] = set()
        todo = [tile]
        while todo:
            t = todo.pop()
            if t in seen:  # tiles share what they are computed from
                continue
            seen.add(t)
            if isinstance(t, ir.Name) and t.name in self.lets:
                todo.append(self.lets[t.name])
            elif isinstance(t, ir.Map):
                todo += t.operands
        return {t for t in seen if isinstance(t, ir.Load)}

    def is_used_in_time(self, loads: set[ir.Tile], store: _Place) -> bool:
        """Whether nothing computes these loads again after the store."""
        assert isinstance(store.statement, ir.Store)
        bytes = max(4, store.statement.view.memory.dtype.bytes)
        for n in store.statement.tile.shape:
            bytes *= n
        if bytes <= ONE_GO:
            return True
        later = [p for p in self.places if p.body is store.body and p.number > store.number]
        return not any(loads & self.reached(t) for p in later for s in ir.walk((p.statement,)) for t in ir.tiles_of(s))

    def reached(self, tile: ir.Tile) -> set[ir.Tile]:
        """All loads that a tile is computed from, through Lets."""
        return {t for t in ir.nodes(tile, lets=self.lets.get) if isinstance(t, ir.Load)}


def _read(tile: ir.Tile) -> ir.Buffer | ir.Near | None:
    memory = ir.memory_read(tile)
    return None if memory is None else ir.root(memory)


def _same_place(load: ir.Load, store: ir.Store) -> bool:
    """Whether a load and a store of equal buffers mean the same elements."""
    a, r = load.view, store.view
    same_memory = a.memory.shape == r.memory.shape and ir.strides(a.memory) == ir.strides(r.memory)
    return same_memory and a.index == r.index and tuple(load.shape) == tuple(store.tile.shape)


def _once(place: _Place) -> bool:
    """Whether the iterations around a store write different elements: each loop moves it by what it has written."""
    store = place.statement
    assert isinstance(store, ir.Store)
    return all(
        any(loop.index in names_in(e) or _follows(e, loop, place.loops) for e in store.view.index) or _is_single(loop)
        for loop in place.loops
    )


def _follows(index: Extent, loop: Loop, loops: tuple[Loop, ...]) -> bool:
    """Whether an index moves with `loop` because an inner loop's bounds do."""
    return any(x.index in names_in(index) and loop.index in names_in(x.lo) | names_in(x.hi) for x in loops)


def _is_single(loop: Loop) -> bool:
    return loop.hi - loop.lo == loop.tile


def _disjoint(stores: list[_Place]) -> bool:
    """Whether stores at different places of a kernel write different elements: along some axis one ends where another begins."""
    spans = [_spans(p) for p in stores]
    pairs = ((s, t) for i, s in enumerate(spans) for t in spans[:i])
    return all(any(_at_most(x[1], y[0]) or _at_most(y[1], x[0]) for x, y in zip(s, t)) for s, t in pairs)


def _at_most(x: Extent, y: Extent) -> bool:
    """Whether x <= y, also where x says so itself: min(…, y)."""
    if isinstance(x, Size) and len(x.terms) == 1:
        ((monomial, factor),) = x.terms.items()
        if factor == 1 and len(monomial) == 1 and monomial[0][0] == "min":
            return any(_at_most(z, y) for z in monomial[0][1:])
    return at_least(y, x)


def _spans(place: _Place) -> list[tuple[Extent, Extent]]:
    """For each axis of a store where its elements begin and end, over the loop of its own body."""
    store = place.statement
    assert isinstance(store, ir.Store)
    shape = store.tile.shape
    loop = place.loops[-1]
    spans = []
    for e in store.view.index:
        low = {n: 0 for n in names_in(e) if n.startswith("#")}
        high = {n: shape[int(n[1:])] - 1 for n in low}
        if loop.index in names_in(e):
            end = substitute(e, {**low, loop.index: loop.hi})
            spans.append((substitute(e, {**low, loop.index: loop.lo}), end))
        else:
            spans.append((substitute(e, low), substitute(e, high) + 1))
    return spans
