"""Tile expressions as values: element by element, on demand.

In:  a tile, the position of an element along each axis, the axis on which the lanes lie, and how many lanes.
Out: a Value (a scalar where all lanes agree). Lanes beyond the tile's extent hold anything.
Nothing is computed before it is asked for, so a long chain of Maps keeps few registers alive; what was computed is remembered
by the Let (or statement) it belongs to. Permute, Slice and Broadcast only change the position that is asked for.
Dot, Prefix and carries exist as vectors along the last axis, `Stored`; other walks over them pick lanes.
Read before: memory.py, transposes.py. Read next: folds.py, kernel.py, operations.py.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from kdsl.codegen.llvm.exponentials import exp_of_several
from kdsl.codegen.llvm.memory import Access, Position
from kdsl.codegen.llvm.operations import apply
from kdsl.codegen.llvm.random_bits import philox_run
from kdsl.codegen.llvm.transposes import across
from kdsl.codegen.llvm.writer import TYPES, Value
from kdsl.dtypes import f32
from kdsl.ir import loops as ir
from kdsl.ir.loops import Memory, Tile, TileShape

ABREAST = 4  # vectors whose exponentials are computed side by side
MOST_VECTORS = 64  # of a tile whose elements are written out
Key = tuple  # what an element is remembered by


class Stored:
    """A tile in registers: vectors of `width` lanes along the last axis, by position (the last one a multiple of width)."""

    def __init__(self, shape: TileShape, width: int, type: str) -> None:
        self.shape, self.width, self.type = shape, width, type
        self.values: dict[tuple[int, ...], Value] = {}


class Owner:
    """A Let, or a statement's own tiles: what has been computed of them, and the loop depth where their loads belong."""

    def __init__(self, tile: Tile | None, place: int) -> None:
        self.tile, self.place = tile, place
        self.values: dict[Key, Value] = {}
        self.stored: dict[int, Stored] = {}
        self.keep: list[Tile] = []  # ids in the keys stay valid as long as these live


def last(shape: TileShape) -> int:
    return shape[-1] if shape else 1


def memories(tile: Tile, named: dict[str, Owner | Stored]) -> set[Memory]:
    """The memory that a tile reads, through Lets too."""

    def let(name: str) -> Tile | None:
        owner = named.get(name)
        return owner.tile if isinstance(owner, Owner) else None

    return {ir.root(m) for t in ir.nodes(tile, lets=let) if (m := ir.memory_read(t)) is not None}


class Tiles(Access):
    """Adds the evaluation of tiles."""

    named: dict[str, Owner | Stored]
    owner: Owner

    # --- shapes ---------------------------------------------------------------------------------------------------------
    def width_of(self, shape: TileShape) -> int:
        """Lanes of a tile's vectors: the machine's, or the next power of two if the last axis is shorter."""
        n = last(shape)
        return min(self.lanes, 1 << (n - 1).bit_length()) if n > 1 else 1

    def groups(self, shape: TileShape) -> Iterator[tuple[int, ...]]:
        """The positions of a tile's vectors, in order."""
        if not shape:
            yield ()
            return
        width = self.width_of(shape)
        yield from itertools.product(*map(range, shape[:-1]), range(0, shape[-1], width))

    @staticmethod
    def valid(shape: TileShape, at: Sequence[Position], lane: int, width: int) -> int:
        """How many of the lanes lie within the tile."""
        if width == 1:
            return 1
        p = at[lane]
        return min(width, shape[lane] - p) if isinstance(p, int) else width

    # --- elements -------------------------------------------------------------------------------------------------------
    def natural_element(self, tile: Tile, at: tuple[Position, ...]) -> Value:
        """A vector of the tile as it would be stored."""
        return self.element(tile, at, len(tile.shape) - 1, self.width_of(tile.shape))

    def element(self, tile: Tile, at: tuple[Position, ...], lane: int, width: int) -> Value:
        """`width` lanes along axis `lane` from the position on."""
        if width == 1:
            lane = -1
        elif tile.shape[lane] == 1:
            lane, width = -1, 1
        key = (id(tile), at, lane, width)
        owner = self.owner
        found = owner.values.get(key)
        if found is None:
            found = owner.values[key] = getattr(self, type(tile).__name__)(tile, at, lane, width)
            owner.keep.append(tile)
        return found

    def operand(self, tile: Tile, ndim: int, at: tuple[Position, ...], lane: int, width: int) -> Value:
        """The element of an operand that broadcasts against a tile of `ndim` axes."""
        shape = tile.shape
        skip = ndim - len(shape)
        own = tuple(0 if n == 1 else p for n, p in zip(shape, at[skip:], strict=True))
        if lane < skip or shape[lane - skip] == 1:
            return self.element(tile, own, -1, 1)
        return self.element(tile, own, lane - skip, width)

    def Load(self, tile: ir.Load, at: tuple[Position, ...], lane: int, width: int) -> Value:
        turned = across(self, tile, at, lane, width)
        if turned is not None:
            return turned
        return self.load(tile.view, at, lane, width, self.valid(tile.shape, at, lane, width))

    def Constant(self, tile: ir.Constant, at: tuple[Position, ...], lane: int, width: int) -> Value:
        return self.constant(tile.value, tile.dtype.compute)

    def Scalar(self, tile: ir.Scalar, at: tuple[Position, ...], lane: int, width: int) -> Value:
        v = self.integer(tile.value)
        if TYPES[tile.dtype.name] == "i64":
            return v
        return self.literal(v.const, "i32") if v.const is not None else self.convert("trunc", v, "i32")

    def Index(self, tile: ir.Index, at: tuple[Position, ...], lane: int, width: int) -> Value:
        """Positions count in the tile's own dtype."""
        p = self.position(at[tile.axis])
        type = TYPES[tile.dtype.name]
        if type in ("float", "double"):
            counted = self.integers(range(width), "i64") if lane == tile.axis and width > 1 else None
            v = p if counted is None else self.binary("add", p, counted)
            return self.literal(v.const, type) if v.const is not None else self.convert("sitofp", v, type)
        v = self.literal(p.const, type) if p.const is not None else self.convert("trunc", p, type)
        if lane == tile.axis and width > 1:
            v = self.binary("add", v, self.integers(range(width), type))
        return v

    def Name(self, tile: ir.Name, at: tuple[Position, ...], lane: int, width: int) -> Value:
        bound = self.named[tile.name]
        if isinstance(bound, Stored):
            return self.pick(bound, at, lane, width)
        with_owner, self.owner = self.owner, bound
        place, self.place = self.place, bound.place
        assert bound.tile is not None
        inner = bound.tile
        if width == 1 and last(inner.shape) > 1 and isinstance(at[-1], int) and self.is_dear(inner):
            step = self.width_of(inner.shape)
            start = at[-1] // step * step
            v = self.extract(self.natural_element(inner, (*at[:-1], start)), at[-1] - start)
        else:
            v = self.element(inner, at, lane, width)
        self.owner, self.place = with_owner, place
        return v

    def is_dear(self, tile: Tile) -> bool:
        """Whether a lane is better picked from a computed vector than computed again alone."""
        return not isinstance(tile, (ir.Load, ir.Constant, ir.Index, ir.Scalar, ir.Name))

    def Map(self, tile: ir.Map, at: tuple[Position, ...], lane: int, width: int) -> Value:
        ndim = len(at)
        if tile.op == "philox" and width > 1 and self.growth(tile.operands[2], lane - ndim) == 1:
            return philox_run(self, *(self.operand(o, ndim, at, -1, 1) for o in tile.operands), width)
        if tile.op == "exp" and tile.dtype is f32 and width == self.lanes > 1 and self.exp_together(tile, at, lane):
            return self.owner.values.pop((id(tile), at, lane, width))
        operands = [self.operand(o, ndim, at, lane, width) for o in tile.operands]
        return apply(self, tile.op, operands, tile.dtype, [o.dtype for o in tile.operands])

    def exp_together(self, tile: ir.Map, at: tuple[Position, ...], lane: int) -> bool:
        """Whether exp of this position and its neighbours, `ABREAST` vectors in all, was written side by side."""
        if lane != len(at) - 1 or not all(isinstance(p, int) for p in at) or math.prod(tile.shape) > self.lanes * MOST_VECTORS:
            return False
        positions = list(self.groups(tile.shape))
        if at not in positions:
            return False
        first = positions.index(at) // ABREAST * ABREAST  # type: ignore[arg-type]
        group = positions[first : first + ABREAST]
        xs = [self.operand(tile.operands[0], len(at), p, lane, self.lanes) for p in group]
        if len(group) == 1 or any(x.width != self.lanes for x in xs) or max(x.depth for x in xs) != self.depth:
            return False
        for p, y in zip(group, exp_of_several(self, xs), strict=True):
            self.owner.values[id(tile), p, lane, self.lanes] = y
        self.owner.keep.append(tile)
        return True

    def growth(self, tile: Tile, axis: int) -> int | None:
        """By how much an integer tile grows from element to element along an axis, counted from the last (-1); None: unknown."""
        if len(tile.shape) < -axis or tile.shape[axis] == 1:
            return 0
        if isinstance(tile, ir.Index):
            return 1 if tile.axis - len(tile.shape) == axis else 0
        if isinstance(tile, ir.Name):
            bound = self.named[tile.name]
            return self.growth(bound.tile, axis) if isinstance(bound, Owner) and bound.tile is not None else None
        if isinstance(tile, ir.Map) and tile.op == "add":
            a, b = (self.growth(o, axis) for o in tile.operands)
            return None if a is None or b is None else a + b
        return None

    def Permute(self, tile: ir.Permute, at: tuple[Position, ...], lane: int, width: int) -> Value:
        inner: list[Position] = [0] * len(at)
        for i, axis in enumerate(tile.axes):
            inner[axis] = at[i]
        return self.element(tile.tile, tuple(inner), tile.axes[lane] if lane >= 0 else -1, width)

    def Slice(self, tile: ir.Slice, at: tuple[Position, ...], lane: int, width: int) -> Value:
        moved = tuple(
            p + s if isinstance(p, int) else self.add(p, self.number(s)) for p, s in zip(at, tile.start, strict=True)
        )
        return self.element(tile.tile, moved, lane, width)

    def Broadcast(self, tile: ir.Broadcast, at: tuple[Position, ...], lane: int, width: int) -> Value:
        return self.operand(tile.tile, len(at), at, lane, width)

    def Convert(self, tile: ir.Convert, at: tuple[Position, ...], lane: int, width: int) -> Value:
        return self.element(tile.tile, at, lane, width)

    def Gather(self, tile: ir.Gather, at: tuple[Position, ...], lane: int, width: int) -> Value:
        return self.gather(tile, at, lane, width)

    def Fold(self, tile: ir.Fold, at: tuple[Position, ...], lane: int, width: int) -> Value:
        return self.fold(tile, at, lane, width)

    def Dot(self, tile: ir.Dot, at: tuple[Position, ...], lane: int, width: int) -> Value:
        return self.pick(self.once(tile, self.dot), at, lane, width)

    def Prefix(self, tile: ir.Prefix, at: tuple[Position, ...], lane: int, width: int) -> Value:
        return self.pick(self.once(tile, self.prefix), at, lane, width)

    # --- tiles in registers -----------------------------------------------------------------------------------------------
    def once(self, tile, make) -> Stored:
        """A tile that is computed as a whole."""
        found = self.owner.stored.get(id(tile))
        if found is None:
            found = self.owner.stored[id(tile)] = make(tile)
            self.owner.keep.append(tile)
        return found

    def stored(self, tile: Tile) -> Stored:
        """All of a tile, as vectors."""
        out = Stored(tile.shape, self.width_of(tile.shape), TYPES[tile.dtype.compute.name])
        for at in self.groups(tile.shape):
            out.values[at] = self.splat(self.natural_element(tile, at), out.width)
        return out

    def pick(self, stored: Stored, at: tuple[Position, ...], lane: int, width: int) -> Value:
        """Lanes of a tile in registers, along any axis."""
        assert all(isinstance(p, int) for p in at), "a tile in registers is indexed by a loop"
        step = stored.width
        if not at:
            return stored.values[()]
        start = at[-1] % step
        if width == 1:
            return self.extract(stored.values[(*at[:-1], at[-1] - start)], start)
        if lane != len(at) - 1:
            valid = self.valid(stored.shape, at, lane, width)
            rows = [
                self.pick(stored, (*at[:lane], at[lane] + min(i, valid - 1), *at[lane + 1 :]), -1, 1)
                for i in range(width)
            ]
            return self.collect(rows)
        first = stored.values[(*at[:-1], at[-1] - start)]
        if start == 0 and width == step:
            return first
        second = stored.values.get((*at[:-1], at[-1] - start + step))
        if start + width <= 2 * step:
            return self.shuffle(
                first, second, [min(start + i, 2 * step - 1 if second is not None else step - 1) for i in range(width)]
            )
        valid = self.valid(stored.shape, at, lane, width)
        return self.collect([self.pick(stored, (*at[:-1], at[-1] + min(i, valid - 1)), -1, 1) for i in range(width)])
