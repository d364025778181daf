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
axes of extent 1 and 0-d tiles as NumPy does; `Fold` keeps its axis with extent 1 (or `parts`). f16 and bf16 exist in memory
only: Load gives f32, Store and Put round; Map("round_f16") and Map("round_bf16") round within f32.
What does *not* appear: threads, lanes, barriers, vector widths, unrolled copies. Edges are bounds of views (check), never
hand-made remainder code: a schedule splits the full tiles off into a loop of their own whose views need no check.

A fold that needs more than one tile (argmax, a running maximum with its sum) is several carries: every lane keeps its own, and
at the end each lane's part is brought to the folded one and folded (docs/decisions/loop-ir.md).

Invariants (ir/loop_verify.py): names are defined once and above their use; tile shapes fit; an unchecked view is provably inside;
every element read was written earlier or is an argument; two iterations of a Parallel never write one element; carries keep their
type; near memory has a fixed size; the Parallel loops are one nest, outermost, with Lets of sizes above them at most.
Read before: ir/loop_tiles.py. Read next: ir/loop_printer.py (programs as text), schedule/, codegen/.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Union

from kdsl.ir.loop_tiles import (
    Broadcast,
    Buffer,
    Constant,
    Convert,
    Dot,
    Fold,
    Gather,
    Index,
    Load,
    Map,
    Memory,
    Name,
    Near,
    Permute,
    Prefix,
    Reshaped,
    Scalar,
    Slice,
    Tile,
    TileShape,
    View,
    axis,
    children,
    loads_in,
    memory_read,
    nodes,
    root,
    strides,
)
from kdsl.ir.sizes import Extent
from kdsl.ir.tensor import Location

__all__ = [
    "Broadcast", "Buffer", "Carry", "Constant", "Convert", "Copy", "Dot", "Fold", "Gather", "If", "Index",
    "Kernel", "Let", "Load", "Map", "Memory", "Name", "Near", "Parallel", "Permute", "Prefetch", "Prefix",
    "Program", "Put", "Reshaped", "Scalar", "Slice", "Statement", "Store", "Stream", "Tile", "TileShape",
    "View", "axis", "children", "grid", "loads_in", "memory_read", "nodes", "root", "strides", "tiles_of", "walk",
]  # fmt: skip


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


# --- walks -----------------------------------------------------------------------------------------------------------------
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
