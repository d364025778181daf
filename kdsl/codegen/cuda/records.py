"""What generated source names as globals: tiles, near memory and arrays, each a compile-time constant.

In:  layouts.  Out: Tile, Near, Array; a macro reads everything it must know off them.
Read before: layout.py. Read next: seam.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from kdsl.codegen.cuda.layout import Layout

BYTES = {"f32": 4, "i32": 4, "bf16": 2}


@dataclass(frozen=True)
class Tile:
    """A register tile; bf16 lies in pairs in 32-bit registers."""

    dtype: str  # "f32" | "i32" | "bool" | "bf16"
    shape: tuple[int, int]
    layout: Layout

    @property
    def count(self) -> int:
        return max(len(self.layout.offsets) // (2 if self.dtype == "bf16" else 1), 1)

    def of(self, dtype: str) -> Tile:
        return Tile(dtype, self.shape, self.layout)

    def drop(self, axis: int) -> Tile:
        shape = (1, self.shape[1]) if axis == 0 else (self.shape[0], 1)
        return Tile(self.dtype, shape, self.layout.drop(axis))


@dataclass(frozen=True)
class Near:
    """Shared memory for `depth` tiles from byte `start`.

    16-byte chunks are exchanged within a row by the row's low bits, so that ldmatrix meets no bank twice.
    """

    dtype: str
    shape: tuple[int, int]
    depth: int
    start: int
    threads: int

    @property
    def row_bytes(self) -> int:
        return self.shape[1] * BYTES[self.dtype]

    @property
    def bytes(self) -> int:
        return self.shape[0] * self.row_bytes

    @property
    def end(self) -> int:
        return self.start + self.depth * self.bytes


@dataclass(frozen=True)
class Array:
    """A row-major array in global memory; rows and starts are multiples of `vector` elements."""

    dtype: str
    vector: int = 1
