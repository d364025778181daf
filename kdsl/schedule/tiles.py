"""Values as tiles, on demand: what an equation is at a position, as a tile expression with Lets in the outermost loop that fits.

In:  a Plan, the memory of its inputs, loops as they are opened (`push`, `pop`) and where each letter stands (`pos`).
Out: tiles; statements in the bodies of the open loops.
Broadcasts, permutations, reshapes, slices, pads, windows and concatenations only rewrite positions: none of them copies.
Read before: ir/frame.py, ir/loops.py, positions.py. Read next: movements.py, rows.py, scatter.py.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import kdsl.dtypes as dt
from kdsl.dtypes import DType
from kdsl.ir import loops as ir
from kdsl.ir.frame import Axes, Letter, Plan, joined_axes
from kdsl.ir.ops import ELEMENTWISE, REDUCTIONS, Op
from kdsl.ir.sizes import Extent, Size, names_in, size, split
from kdsl.ir.tensor import Equation, Location, Shape, Value
from kdsl.schedule.movements import MOVES
from kdsl.schedule.positions import (
    Apart,
    Entry,
    Known,
    Loose,
    Memory,
    Position,
    Spread,
    constant,
    joined_memory,
    number,
)


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
        move = MOVES.get(op)
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
            return self.gather(self.memory(v), at)
        return ir.Load(view, self.shape_of(view)), self.depth_at(*view.index)

    def gather(self, memory: Memory, at: Position) -> Known:
        memory, entries = joined_memory(memory, at)
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
