"""Values as tiles, on demand: what an equation is at a position, as a tile expression with Lets in the outermost loop that fits.

In:  a Plan, the memory of its inputs, loops as they are opened (`push`, `pop`) and where each letter stands (`pos`).
Out: tiles; statements in the bodies of the open loops.
A position has one entry for each axis of the value:
    an index expression ("r", "j + #1"); None: this axis is walked as one with the next
    Loose(expression): it may lie outside of the axis (a padded, concatenated or gathered operand): loads are checked
    Spread(tile): it varies from element to element by data: loads are gathers
    Apart(parts): an axis that several loops walk, one of which may run over its end: an axis for each (`own`)
Broadcasts, permutations, reshapes, slices, pads, windows and concatenations only rewrite positions: none of them copies.
Read before: ir/frame.py, ir/loops.py. Read next: rows.py, scatter.py.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Union

import kdsl.dtypes as dt
from kdsl.dtypes import DType
from kdsl.ir import loops as ir
from kdsl.ir.frame import Axes, Letter, Plan, joined_axes
from kdsl.ir.ops import ELEMENTWISE, REDUCTIONS, Op
from kdsl.ir.sizes import Extent, Size, names_in, size, split
from kdsl.ir.tensor import Equation, Literal, Location, Shape, Value

Memory = Union[ir.Buffer, ir.Reshaped, ir.Near]


@dataclass(frozen=True, eq=False)
class Spread:
    """An index that varies from element to element: an i64 tile, and the depth of the loop it is known in."""

    tile: ir.Tile
    depth: int


@dataclass(frozen=True)
class Loose:
    """An index that may lie outside of its axis."""

    index: Extent


@dataclass(frozen=True)
class Apart:
    """An axis as several: the index and extent of each, outermost first."""

    parts: tuple[tuple[Extent, Extent], ...]


Entry = Union[int, Size, None, Loose, Spread, Apart]
Position = tuple[Entry, ...]
Known = tuple[ir.Tile, int]  # a tile and the depth of the loop it is known in


@dataclass
class Level:
    """An open loop: its statements so far, and what is known in it."""

    body: list[ir.Statement] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    memo: list[tuple] = field(default_factory=list)


class Tiles:
    """Evaluates the equations of one plan. `memory(value)` is where an input or output lies."""

    def __init__(self, plan: Plan, memory: Callable[[Value], Memory]) -> None:
        self.plan, self.memory = plan, memory
        self.made: dict[Value, Equation] = {e.result: e for e in plan.equations}
        self.pos: dict[Letter, Extent] = {}
        self.shape: ir.TileShape = (1, 1)  # of the tile that #0 and #1 count through
        self.edge: set[str] = set()  # tile axes that may run over the end of their loop
        self.levels: list[Level] = [Level()]
        self.depth_of: dict[str, int] = {}
        self.memo: dict[tuple, Known] = {}
        self.ready: dict[Value, Callable[[], Known]] = {}  # folds and kept values, at their own position
        self.counter: dict[str, itertools.count] = {}
        self.uses = Counter(v for e in plan.equations for v in e.values)
        self.uses.update(plan.outputs)

    # --- loops and names ---------------------------------------------------------------------------------------------
    def name(self, hint: str) -> str:
        hint = hint if hint.isidentifier() else "v"
        number = next(self.counter.setdefault(hint, itertools.count()))
        return f"{hint}_{number}"

    def push(self, *names: str) -> None:
        self.levels.append(Level(names=set(names)))
        for n in names:
            self.depth_of[n] = len(self.levels) - 1

    def pop(self) -> tuple[ir.Statement, ...]:
        level = self.levels.pop()
        for key in level.memo:
            self.memo.pop(key, None)
        for n in level.names:
            self.depth_of.pop(n, None)
        return tuple(level.body)

    @property
    def body(self) -> list[ir.Statement]:
        return self.levels[-1].body

    @property
    def depth(self) -> int:
        return len(self.levels) - 1

    def emit(self, statement: ir.Statement) -> None:
        self.body.append(statement)

    def let(self, tile: ir.Tile, hint: str = "t", depth: int | None = None, location: Location | None = None) -> ir.Tile:
        """Give a tile a name in the loop at `depth` (the innermost one)."""
        depth = self.depth if depth is None else depth
        name = self.name(hint)
        self.levels[depth].body.append(ir.Let(name, tile, location))
        self.levels[depth].names.add(name)
        self.depth_of[name] = depth
        return ir.Name(name, tuple(tile.shape), tile.dtype)

    def depth_at(self, *extents: Extent) -> int:
        """The innermost loop on which an index expression depends."""
        out = 0
        for x in extents:
            if isinstance(x, Size):
                for n in names_in(x):
                    out = max(out, self.depth if n.startswith("#") else self.depth_of.get(n, 0))
        return out

    # --- positions -----------------------------------------------------------------------------------------------------
    def place(self, axes: Axes, shape: Shape) -> Position:
        """Where a value stands whose axes have these letters."""
        out: list[Entry] = []
        for numbers, letters in joined_axes(axes, shape, self.plan.letters.size):
            index: Extent = 0
            for x in letters:
                index = index * self.plan.letters.size[x] + self.pos.get(x, 0)
            out += [0 if shape[i] == 1 else None for i in numbers[:-1]] + [index]
        return tuple(out)

    def plain(self, v: Value) -> Position:
        return self.place(self.plan.letters.values[v], v.shape)

    def own(self, v: Value) -> Position:
        """Where a value is written."""
        return self.apart(self.plan.letters.values[v], v.shape)

    def apart(self, axes: Axes, shape: Shape) -> Position:
        """`place` in memory: what hangs over the end of a loop is not the next element of a loop around it."""
        out = list(self.place(axes, shape))
        end = 0
        for numbers, letters in joined_axes(axes, shape, self.plan.letters.size):
            end += len(numbers)
            parts: list[tuple[Extent, Extent]] = []
            for x in letters:
                index, n = self.pos.get(x, 0), self.plan.letters.size[x]
                if parts and not (isinstance(index, Size) and names_in(index) & self.edge):
                    index, n = parts[-1][0] * n + index, parts.pop()[1] * n
                parts.append((index, n))
            if len(parts) > 1:
                out[end - 1] = Apart(tuple(parts))
        return tuple(out)

    def plain_operand(self, e: Equation, i: int) -> Position:
        o = e.operands[i]
        assert isinstance(o, Value)
        return self.place(self.plan.letters.of(e, i), o.shape)

    # --- values ----------------------------------------------------------------------------------------------------------
    def tile(self, v: Value, at: Position) -> Known:
        """The tile of a value at a position, and the depth in which it is known."""
        key = (v, at)
        found = self.memo.get(key)
        if found is not None:
            return found
        e = self.made.get(v)
        ready = self.ready.get(v)
        if ready is not None and at == self.plain(v):
            tile, depth = ready()
        elif e is None or e.op is Op.CONSTANT:
            tile, depth = self.load(v, at)
        else:
            tile, depth = self.compute(e, at)
        if self.uses[v] > 1 and not isinstance(tile, (ir.Name, ir.Constant, ir.Scalar)):
            tile = self.let(tile, v.name or "t", depth, e.location if e else None)
        self.memo[key] = tile, depth
        self.levels[depth].memo.append(key)
        return tile, depth

    def join(self, parts: list[Known]) -> tuple[list[ir.Tile], int]:
        """Operands of one tile: those of an outer loop get a name there."""
        depth = max((d for _, d in parts), default=0)
        out = []
        for t, d in parts:
            if d < depth and not isinstance(t, (ir.Name, ir.Constant, ir.Scalar, ir.Index)):
                t = self.let(t, "t", d)
            out.append(t)
        return out, depth

    def map(self, op: str, parts: list[Known], dtype: DType) -> Known:
        tiles, depth = self.join(parts)
        return ir.Map(op, tuple(tiles), dtype), depth

    def operand(self, e: Equation, i: int, at: Position) -> Known:
        o = e.operands[i]
        if isinstance(o, Value):
            return self.tile(o, at)
        dtype = dt.bool_ if e.op is Op.WHERE and i == 0 else e.operand_dtype.compute
        return constant(o, dtype), 0

    def compute(self, e: Equation, at: Position) -> Known:
        op, a = e.op, e.attributes
        if op in (Op.BARRIER, Op.STOP_GRADIENT):
            return self.operand(e, 0, at)
        if op in (Op.CAST, Op.BITCAST):
            return self.cast(self.operand(e, 0, at), a["dtype"], "bitcast" if op is Op.BITCAST else "cast")
        if op in ELEMENTWISE:
            return self.map(op.value, [self.operand(e, i, at) for i in range(len(e.operands))], e.result.dtype.compute)
        if op is Op.FULL:
            return constant(a["value"], e.result.dtype.compute), 0
        if op is Op.SIZE:
            return number(a["value"], dt.i64), 0
        if op is Op.IOTA:
            return self.cast(self.count(at[a["axis"]]), e.result.dtype)
        if op is Op.RANDOM_BITS:
            return self.random_bits(e, at)
        if op in REDUCTIONS:  # over axes of extent 1: the elements themselves
            return (constant(0, dt.i64), 0) if op in (Op.ARGMAX, Op.ARGMIN) else self.operand(e, 0, self.plain_operand(e, 0))
        move = _MOVES.get(op)
        assert move is not None, f"{op} is no map"
        return move(self, e, at)

    def cast(self, x: Known, dtype: DType, op: str = "cast") -> Known:
        if x[0].dtype is not dtype.compute:
            x = self.map(op, [x], dtype.compute)
        return x if dtype is dtype.compute else self.map(f"round_{dtype.name}", [x], dt.f32)

    def random_bits(self, e: Equation, at: Position) -> Known:
        key = [self.operand(e, 0, (word,)) for word in (0, 1)]
        flat: Extent = 0
        inner: Extent = 1
        numbers: list[Known] = []
        for entry, n in zip(reversed(at), reversed(e.result.shape), strict=True):
            if isinstance(entry, Spread):
                numbers.append(self.map("mul", [(entry.tile, entry.depth), (number(inner, dt.i64), 0)], dt.i64))
            elif entry is not None:
                flat = flat + (entry.index if isinstance(entry, Loose) else entry) * inner
            inner = inner * n
        total = self.count(flat)
        for x in numbers:
            total = self.map("add", [total, x], dt.i64)
        return self.map("philox", [*key, total], dt.u32)

    def count(self, at: Entry) -> Known:
        """An index as an i64 tile."""
        if isinstance(at, Spread):
            return at.tile, at.depth
        index = at.index if isinstance(at, Loose) else at
        assert index is not None
        factors, rest = split(index, {"#0", "#1"})
        out: Known | None = None if rest == 0 and factors else (number(rest, dt.i64), self.depth_at(rest))
        for axis, factor in sorted(factors.items()):
            d = int(axis[1:])
            along: Known = ir.Index(d, tuple(n if i == d else 1 for i, n in enumerate(self.shape)), dt.i64), 0
            if factor != 1:
                along = self.map("mul", [along, (number(factor, dt.i64), self.depth_at(factor))], dt.i64)
            out = along if out is None else self.map("add", [along, out], dt.i64)
        assert out is not None
        return out

    # --- memory -------------------------------------------------------------------------------------------------------------
    def view(self, memory: Memory, at: Position, prefix: tuple[Extent, ...] = ()) -> ir.View | None:
        """A view of memory at a position; None where data tell the position (a gather)."""
        memory, entries = joined_memory(memory, (*prefix, *at))
        if any(isinstance(x, Spread) for x in entries):
            return None
        index = tuple(x.index if isinstance(x, Loose) else x for x in entries)
        check = tuple(isinstance(x, Loose) or bool(isinstance(x, Size) and names_in(x) & self.edge) for x in entries)
        return ir.View(memory, index, check if any(check) else ())  # type: ignore[arg-type]

    def shape_of(self, view: ir.View) -> ir.TileShape:
        axes = {n for x in view.index for n in names_in(x) if n.startswith("#")}
        return tuple(n if f"#{d}" in axes else 1 for d, n in enumerate(self.shape)) if axes else ()

    def load(self, v: Value, at: Position) -> Known:
        view = self.view(self.memory(v), at)
        if view is None:
            return self.gather(v, at)
        return ir.Load(view, self.shape_of(view)), self.depth_at(*view.index)

    def gather(self, v: Value, at: Position) -> Known:
        memory, entries = joined_memory(self.memory(v), at)
        indices = [self.count(x) for x in entries]
        mask: Known | None = None
        for x, i, n in zip(entries, indices, memory.shape, strict=True):
            if isinstance(x, (Loose, Spread)) or (isinstance(x, Size) and names_in(x) & self.edge):
                inside = self.between(i, n)
                mask = inside if mask is None else self.map("and", [mask, inside], dt.bool_)
        tiles, depth = self.join([*indices, *([mask] if mask else [])])
        shape = ir.Map("add", tuple(tiles), dt.i64).shape
        last = tiles.pop() if mask else None
        return ir.Gather(memory, tuple(tiles), shape, last), depth

    def between(self, i: Known, n: Extent) -> Known:
        """0 <= i < n"""
        low = self.map("ge", [i, (number(0, dt.i64), 0)], dt.bool_)
        return self.map("and", [low, self.map("lt", [i, (number(n, dt.i64), 0)], dt.bool_)], dt.bool_)

    def index_entry(self, index: Known, n: Extent) -> Entry:
        """A data-dependent index as an entry; negative ones count from the end. Along an axis of one element it is 0."""
        if n == 1:
            return 0
        if index[0].dtype is not dt.i64:
            index = self.map("cast", [index], dt.i64)
        depth = index[1]
        if not isinstance(index[0], ir.Name):
            index = self.let(index[0], "at", depth), depth
        low = self.map("lt", [index, (number(0, dt.i64), 0)], dt.bool_)
        wrapped = self.map("where", [low, self.map("add", [index, (number(n, dt.i64), 0)], dt.i64), index], dt.i64)
        name = self.let(wrapped[0], "at", depth)
        return Loose(size(name.name)) if isinstance(name, ir.Name) and name.shape == () else Spread(name, depth)


def joined_memory(memory: Memory, at: Position) -> tuple[Memory, list[Entry]]:
    """Memory whose neighbouring axes are walked as one, under the shape that has them as one."""
    if not any(x is None or isinstance(x, Apart) for x in at):
        return memory, list(at)
    assert not isinstance(memory, ir.Near)
    shape: list[Extent] = []
    strides: list[Extent] = []
    entries: list[Entry] = []
    n: Extent = 1
    waiting = False
    for extent, stride, entry in zip(memory.shape, memory.strides, at, strict=True):
        if extent == 1 and waiting:  # an axis of extent 1 between two that are walked as one
            if entry is not None and entry != 0:
                shape.append(1)
                strides.append(stride)
                entries.append(entry)
            continue
        n, waiting = n * extent, entry is None
        if isinstance(entry, Apart):
            inner: Extent = 1
            steps: list[Extent] = []
            for _, each in reversed(entry.parts):
                steps.insert(0, stride * inner)
                inner = inner * each
            shape += [each for _, each in entry.parts]
            strides += steps
            entries += [index for index, _ in entry.parts]
            n = 1
        elif entry is not None:
            shape.append(n)
            strides.append(stride)
            entries.append(entry)
            n = 1
    buffer = memory.buffer if isinstance(memory, ir.Reshaped) else memory
    return ir.Reshaped(buffer, tuple(shape), tuple(strides)), entries


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


# --- movements: the position of the operand ---------------------------------------------------------------------------------
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
    for entry, n, low, high, gap in zip(at, e.values[0].shape, a["low"], a["high"], a["interior"], strict=True):
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
        moved = 0 if e.values[i].shape[axis] == 1 else shifted(entry, 0 - (ends[i - 1] if i else 0), 1, t, True)
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


_MOVES: Mapping[Op, Callable[[Tiles, Equation, Position], Known]] = {
    Op.BROADCAST: _broadcast, Op.PERMUTE: _permute, Op.RESHAPE: _reshape, Op.SLICE: _slice, Op.PAD: _pad,
    Op.CONCAT: _concat, Op.WINDOW: _window, Op.TAKE: _take, Op.TAKE_ALONG: _take_along,
}  # fmt: skip


def number(value: Extent, dtype: DType) -> ir.Tile:
    """An index expression without tile axes as a 0-d tile."""
    return ir.Constant(value, dtype) if isinstance(value, int) else ir.Scalar(value, dtype)


def constant(value: Literal, dtype: DType, shape: ir.TileShape = ()) -> ir.Constant:
    """A literal as a tile of a computing dtype."""
    kind = {"bool": bool, "floating": float}.get(dtype.kind, int)
    return ir.Constant(kind(value), dtype, shape)


def spread_to(tile: ir.Tile, shape: ir.TileShape) -> ir.Tile:
    """A tile in a larger shape."""
    if tuple(tile.shape) == tuple(shape):
        return tile
    if isinstance(tile, ir.Constant):
        return ir.Constant(tile.value, tile.dtype, shape)
    return ir.Broadcast(tile, shape)
