"""Loop IR: kernels as loops over tiles, with pure tile expressions as leaves. One IR for every target.

    program ::= buffer* kernel*                  buffer: dtype, shape, strides, argument | result | temporary | constant
    kernel  ::= name ( buffer … ; size … )  stmt*
    stmt ::= Parallel(i, lo, hi, tile) body      any order: a chunk of the CPU pool, a CUDA block; only outermost,
                                                 nested for several axes
           | Stream(i, lo, hi, tile, order, carries) body    one tile after the other; order any | forward | backward
           | Let(name, tile)                     single assignment; a 0-d integer Let may be used in indices by its name
           | Near(name, dtype, shape)            block-private near memory: panel, strip or row on a CPU, shared memory on a GPU
           | Copy(near, index, view, depth)      fill near memory; depth > 1: that many tiles in flight
           | Put(near, index, tile) | Store(view, tile) | If(condition) body | Prefetch(view)
    tile ::= Load(view) | Constant | Scalar(index expression) | Index(axis) | Name | Map(op, tile, …) | Fold(monoid, tile, axis)
           | Prefix(monoid, tile, axis) | Dot(accumulator, a, b) | Permute | Slice | Gather(memory, index tiles)
           | Broadcast | Convert(layout, tile)
    view ::= memory[index, …] and, for each axis, whether it must be checked: an element outside reads as `fill`,
             a write outside is dropped

An index expression is an Extent (ir/sizes.py) in size names, loop indices (the first element of the tile: i = lo, lo + tile …),
names of 0-d integer Lets, and tile axes: `axis(0)` is the name "#0" and counts 0 … extent-1 along axis 0 of the tile.

    Load(x[r + #0, c + #1], shape (1, 64))       a tile of 64 neighbours of row r
    Load(x[c + #1, r + #0], shape (1, 64))       the same of x transposed: no copy, only another walk

Meaning (ir/interpreter.py runs it in NumPy): plain sequential code over whole tiles. A tile has a static shape; `Map` broadcasts
axes of extent 1 and 0-d tiles as NumPy does; `Fold` keeps its axis with extent 1. f16 and bf16 exist in memory only: Load gives
f32, Store and Put round; Map("round_f16") and Map("round_bf16") round within f32.
What does *not* appear: threads, lanes, barriers, vector widths, unrolled copies. Edges are bounds of views (check), never
hand-made remainder code: a schedule splits the full tiles off into a loop of their own whose views need no check.

A fold that needs more than one tile (argmax, a running maximum with its sum) is several carries: every lane keeps its own, and
at the end each lane's part is brought to the folded one and folded (docs/decisions/loop-ir.md).

Invariants (ir/loop_verify.py): names are defined once and above their use; tile shapes fit; an unchecked view is provably inside;
every element read was written earlier or is an argument; two iterations of a Parallel never write one element; carries keep their
type; near memory has a fixed size; the Parallel loops are one nest, outermost, with Lets of sizes above them at most.
Read before: ir/sizes.py. Read next: ir/loop_printer.py (programs as text), schedule/, codegen/.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Union

from kdsl.dtypes import DType
from kdsl.ir.sizes import Extent, size
from kdsl.ir.tensor import Literal, Location, Shape

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
    """All elements along `axis` combined in a fixed order by sum | prod | max | min | any | all."""

    monoid: str
    tile: Tile
    axis: int

    @cached_property
    def shape(self) -> TileShape:
        return tuple(1 if i == self.axis else n for i, n in enumerate(self.tile.shape))

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


# --- statements ---------------------------------------------------------------------------------------------------------------
@dataclass(eq=False, frozen=True)
class Parallel:
    index: str
    lo: Extent
    hi: Extent
    tile: int
    body: tuple[Statement, ...]


@dataclass(eq=False, frozen=True)
class Carry:
    """A tile handed from step to step: `init` before the first, `next` after each; after the Stream, Name(name) is the last."""

    name: str
    init: Tile
    next: Tile


@dataclass(eq=False, frozen=True)
class Stream:
    index: str
    lo: Extent
    hi: Extent
    tile: int
    body: tuple[Statement, ...]
    carries: tuple[Carry, ...] = ()
    order: str = "any"  # "any" | "forward" | "backward" (forward and any run upwards; backward from the last tile down)


@dataclass(eq=False, frozen=True)
class Let:
    name: str
    tile: Tile
    location: Location | None = None


@dataclass(eq=False, frozen=True)
class Copy:
    near: Near
    index: tuple[Extent, ...]
    view: View
    shape: TileShape
    depth: int = 1


@dataclass(eq=False, frozen=True)
class Put:
    near: Near
    index: tuple[Extent, ...]
    tile: Tile
    check: tuple[bool, ...] = ()

    @property
    def view(self) -> View:
        return View(self.near, self.index, self.check)


@dataclass(eq=False, frozen=True)
class Store:
    view: View
    tile: Tile
    location: Location | None = None


@dataclass(eq=False, frozen=True)
class If:
    """`condition` is a 0-d bool tile, the same for the whole block."""

    condition: Tile
    body: tuple[Statement, ...]


@dataclass(eq=False, frozen=True)
class Prefetch:
    """A hint: this view will be read soon. No meaning."""

    view: View
    shape: TileShape


Statement = Union[Parallel, Stream, Let, Near, Copy, Put, Store, If, Prefetch]


# --- kernels and programs -------------------------------------------------------------------------------------------------------
@dataclass(eq=False, frozen=True)
class Kernel:
    """One launch. `body` opens with Lets of sizes at most, then one nest of Parallel. What `kind`, `bytes` … say is
    for explain().
    """

    name: str
    buffers: tuple[Buffer, ...]
    sizes: tuple[str, ...]
    body: tuple[Statement, ...]
    kind: str = "kernel"  # "kernel" | "packing" | "finisher"
    bytes: Extent = 0  # moved, each buffer element read or written once
    operations: Extent = 0  # floating-point, per run
    notes: tuple[str, ...] = ()
    schedule: dict[str, Any] = field(default_factory=dict)  # what the tuner may vary, and what was chosen
    location: Location | None = None


@dataclass(eq=False, frozen=True)
class Program:
    """Kernels in launch order. Buffers hold arguments, results, temporaries and constants; `sizes` are the named sizes.

    `facts`: expressions in the sizes that are at least 0 at every call (the call has checked them)."""

    name: str
    buffers: tuple[Buffer, ...]
    kernels: tuple[Kernel, ...]
    sizes: tuple[str, ...] = ()
    constants: tuple[Any, ...] = ()  # NumPy arrays, by Buffer.number
    facts: tuple[Extent, ...] = ()


def root(memory: Memory) -> Buffer | Near:
    """The memory itself, where another shape of it is given."""
    return memory.buffer if isinstance(memory, Reshaped) else memory


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


def loads_in(tile: Tile) -> Iterator[Load]:
    """Every Load of an expression, once: what stands in it several times is walked once."""
    stack, seen = [tile], set()
    while stack:
        here = stack.pop()
        if id(here) not in seen:
            seen.add(id(here))
            if isinstance(here, Load):
                yield here
            stack += reversed(children(here))


def tiles_of(statement: Statement) -> tuple[Tile, ...]:
    """The tile expressions that stand in a statement itself (not in its body)."""
    if isinstance(statement, (Let, Put, Store)):
        return (statement.tile,)
    if isinstance(statement, Stream):
        return tuple(t for c in statement.carries for t in (c.init, c.next))
    return (statement.condition,) if isinstance(statement, If) else ()


def walk(body: tuple[Statement, ...]) -> Iterator[Statement]:
    """Every statement, outer before inner, in order."""
    for statement in body:
        yield statement
        if isinstance(statement, (Parallel, Stream, If)):
            yield from walk(statement.body)


def grid(kernel: Kernel) -> tuple[Parallel, ...]:
    """The nest of Parallel loops, outermost first."""
    out: list[Parallel] = []
    body = kernel.body
    while True:
        loop = next((s for s in body if isinstance(s, Parallel)), None)
        if loop is None:
            return tuple(out)
        out.append(loop)
        body = loop.body
