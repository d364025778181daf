"""Memory, views of it, and tile expressions: the leaves of the loop IR (the grammar stands in ir/loops.py).

A tile has a static shape and a dtype in which it is computed; its expression is pure. ir/loops.py has all of these names too, and
is where others take them from.
Read before: ir/sizes.py. Read next: ir/loops.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Union, overload

from kdsl.dtypes import DType
from kdsl.ir.sizes import Extent, row_major, size
from kdsl.ir.tensor import Literal, Shape

TileShape = tuple[int, ...]


def axis(number: int) -> Extent:
    """The position along axis `number` of the tile that a view fills."""
    return size(f"#{number}")


# --- memory ---------------------------------------------------------------------------------------------------------------
@dataclass(eq=False, frozen=True)
class Buffer:
    """Memory of a program. `strides` in elements; `number` counts among the arguments, results or constants."""

    name: str
    dtype: DType
    shape: Shape
    strides: Shape
    role: str  # "argument" | "result" | "temporary" | "constant"
    number: int = 0


@dataclass(eq=False, frozen=True)
class Reshaped:
    """The same memory under another shape: how a kernel sees a buffer whose axes its schedule has split or merged."""

    buffer: Buffer
    shape: Shape
    strides: Shape

    name = property(lambda self: self.buffer.name)
    dtype = property(lambda self: self.buffer.dtype)


@dataclass(eq=False, frozen=True)
class Near:
    """Statement and memory at once: near memory of one Parallel iteration, C order, undefined until written."""

    name: str
    dtype: DType
    shape: Shape


Memory = Union[Buffer, Reshaped, Near]


@dataclass(eq=False, frozen=True)
class View:
    """memory[index, …]; `check[d]` where index d may leave the memory's axis d."""

    memory: Memory
    index: tuple[Extent, ...]
    check: tuple[bool, ...] = ()
    fill: Literal = 0

    @property
    def checks(self) -> tuple[bool, ...]:
        return self.check or (False,) * len(self.index)


# --- tiles: pure expressions ------------------------------------------------------------------------------------------------
@dataclass(eq=False, frozen=True)
class Load:
    view: View
    shape: TileShape

    @cached_property
    def dtype(self) -> DType:
        return self.view.memory.dtype.compute


@dataclass(eq=False, frozen=True)
class Constant:
    value: Literal
    dtype: DType
    shape: TileShape = ()


@dataclass(eq=False, frozen=True)
class Scalar:
    """An index expression (no tile axes) as a 0-d tile of dtype i64 (or i32)."""

    value: Extent
    dtype: DType
    shape: TileShape = ()


@dataclass(eq=False, frozen=True)
class Index:
    """0, 1, 2 … along `axis` of a tile of this shape (extent 1 on the other axes)."""

    axis: int
    shape: TileShape
    dtype: DType


@dataclass(eq=False, frozen=True)
class Name:
    """What a Let or a carry holds."""

    name: str
    shape: TileShape
    dtype: DType


@dataclass(eq=False, frozen=True)
class Map:
    """An elementwise op of the tensor IR by its name ("add", "exp", "where", "cast" …) or one of codegen's own:
    "fma" a*b+c, "round_f16", "round_bf16", "philox" (key0, key1, i64 element number -> u32)."""

    op: str
    operands: tuple[Tile, ...]
    dtype: DType

    @cached_property
    def shape(self) -> TileShape:
        ndim = max(len(o.shape) for o in self.operands)
        shapes = [(1,) * (ndim - len(o.shape)) + o.shape for o in self.operands]
        return tuple(max(s[i] for s in shapes) for i in range(ndim))


@dataclass(eq=False, frozen=True)
class Fold:
    """All elements along `axis` combined in a fixed order by sum | prod | max | min | any | all; with `parts`, those of each of
    so many equal parts of the axis (GPU)."""

    monoid: str
    tile: Tile
    axis: int
    parts: int = 1

    @cached_property
    def shape(self) -> TileShape:
        return tuple(self.parts if i == self.axis else n for i, n in enumerate(self.tile.shape))

    @property
    def dtype(self) -> DType:
        return self.tile.dtype


@dataclass(eq=False, frozen=True)
class Prefix:
    """Running combination along `axis`."""

    monoid: str
    tile: Tile
    axis: int

    shape = property(lambda self: self.tile.shape)
    dtype = property(lambda self: self.tile.dtype)


@dataclass(eq=False, frozen=True)
class Dot:
    """accumulator (m, n) + a (m, k) @ b (k, n), summed in order of k, in the accumulator's dtype."""

    accumulator: Tile
    a: Tile
    b: Tile

    shape = property(lambda self: self.accumulator.shape)
    dtype = property(lambda self: self.accumulator.dtype)


@dataclass(eq=False, frozen=True)
class Permute:
    tile: Tile
    axes: tuple[int, ...]

    shape = property(lambda self: tuple(self.tile.shape[i] for i in self.axes))
    dtype = property(lambda self: self.tile.dtype)


@dataclass(eq=False, frozen=True)
class Slice:
    """Elements start … start+shape of a tile."""

    tile: Tile
    start: tuple[int, ...]
    shape: TileShape

    dtype = property(lambda self: self.tile.dtype)


@dataclass(eq=False, frozen=True)
class Broadcast:
    tile: Tile
    shape: TileShape

    dtype = property(lambda self: self.tile.dtype)


@dataclass(eq=False, frozen=True)
class Gather:
    """memory at a position that varies from element to element: one integer tile for each axis, broadcast together.
    `mask` (a bool tile or None) tells which elements are read; the others are `fill`."""

    memory: Memory
    indices: tuple[Tile, ...]
    shape: TileShape
    mask: Tile | None = None
    fill: Literal = 0

    @cached_property
    def dtype(self) -> DType:
        return self.memory.dtype.compute


@dataclass(eq=False, frozen=True)
class Convert:
    """The same tile under another layout (GPU; on a CPU nothing)."""

    layout: Any
    tile: Tile

    shape = property(lambda self: self.tile.shape)
    dtype = property(lambda self: self.tile.dtype)


Tile = Union[Load, Constant, Scalar, Index, Name, Map, Fold, Prefix, Dot, Permute, Slice, Broadcast, Gather, Convert]


# --- what memory and expressions are made of ----------------------------------------------------------------------------------
@overload
def root(memory: Buffer | Reshaped) -> Buffer: ...
@overload
def root(memory: Memory) -> Buffer | Near: ...
def root(memory: Memory) -> Buffer | Near:
    """The memory itself, where another shape of it is given."""
    return memory.buffer if isinstance(memory, Reshaped) else memory


def strides(memory: Memory) -> tuple[Extent, ...]:
    """How many elements apart neighbours along each axis lie."""
    return row_major(memory.shape) if isinstance(memory, Near) else memory.strides


def children(tile: Tile) -> tuple[Tile, ...]:
    """The tiles that a tile is computed from."""
    if isinstance(tile, Map):
        return tile.operands
    if isinstance(tile, (Fold, Prefix, Permute, Slice, Broadcast, Convert)):
        return (tile.tile,)
    if isinstance(tile, Dot):
        return tile.accumulator, tile.a, tile.b
    if isinstance(tile, Gather):
        return tile.indices if tile.mask is None else (*tile.indices, tile.mask)
    return ()


def nodes(*tiles: Tile, lets: Callable[[str], Tile | None] = lambda name: None) -> Iterator[Tile]:
    """Every tile of these expressions, from the outside and from the left, each once however often it stands there.

    `lets` says what a name stands for, where that is to be walked too."""
    stack, seen = [*reversed(tiles)], set()
    while stack:
        here = stack.pop()
        if id(here) not in seen:
            seen.add(id(here))
            yield here
            stack += reversed(children(here))
            if isinstance(here, Name) and (meant := lets(here.name)) is not None:
                stack.append(meant)


def loads_in(tile: Tile) -> Iterator[Load]:
    """Every Load of an expression, once."""
    return (x for x in nodes(tile) if isinstance(x, Load))


def memory_read(tile: Tile) -> Memory | None:
    """What a tile reads by itself: the memory of a Load or a Gather."""
    return tile.view.memory if isinstance(tile, Load) else tile.memory if isinstance(tile, Gather) else None
