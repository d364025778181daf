"""What generated source names as globals: tiles, arrays and near memory, each a compile-time constant.

In:  layouts.  Out: Tile, Array, Near, Gates, Axis; a macro reads everything it must know off them.
Read before: layout.py. Read next: seam.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Union

from kdsl.codegen.cuda.layout import Layout

BYTES = {"bool": 1, "i8": 1, "u8": 1, "i16": 2, "u16": 2, "f16": 2, "bf16": 2, "i32": 4, "u32": 4, "f32": 4,
         "i64": 8, "u64": 8, "f64": 8}  # fmt: skip
HALVES = ("f16", "bf16")  # in memory; in registers they are f32, or pairs for a product of tensor cores
Extent = Union[int, str]  # a number, or an expression of the program that is passed when the kernel starts


@dataclass(frozen=True)
class Tile:
    """A register tile. f16 and bf16 are operands of products only: they lie in pairs in 32-bit registers."""

    dtype: str
    shape: tuple[int, ...]
    layout: Layout

    @property
    def count(self) -> int:
        return max(len(self.layout.offsets) // (2 if self.dtype in HALVES else 1), 1)

    def of(self, dtype: str) -> Tile:
        return Tile(dtype, self.shape, self.layout)

    def part(self, *shape: int) -> Tile:
        """A tile that broadcasts to this one, laid out as it is."""
        return Tile(self.dtype, shape, self.layout.part(shape))

    def drop(self, axis: int) -> Tile:
        return self.part(*[1 if i == axis else n for i, n in enumerate(self.shape)])

    def grouped(self, axis: int, parts: int) -> Tile:
        """A fold within each of so many equal parts of an axis."""
        shape = tuple(parts if i == axis else n for i, n in enumerate(self.shape))
        return Tile(self.dtype, shape, self.layout.grouped(axis, self.shape[axis], parts))


@dataclass(frozen=True)
class Array:
    """An array in global memory. Extents and strides (in elements) that are no numbers are passed to `array`, in order."""

    dtype: str
    shape: tuple[Extent, ...]
    strides: tuple[Extent, ...]
    written: bool = False  # whether this kernel writes there


@dataclass(frozen=True)
class Near:
    """Shared memory for `depth` tiles from byte `start`, C order.

    Swizzled: 16-byte pieces are exchanged within a row by the row's low bits, so that ldmatrix meets no bank twice.
    Boxed: as the bulk copy engine brings it and warpgroups multiply it, in panels of rows of 128 bytes, swizzled each."""

    dtype: str
    shape: tuple[int, ...]
    depth: int
    start: int
    threads: int
    swizzled: bool = False
    boxed: bool = False

    @property
    def row_bytes(self) -> int:
        return self.shape[-1] * BYTES[self.dtype] if self.shape else BYTES[self.dtype]

    @property
    def bytes(self) -> int:
        """Of one tile, in whole pieces of 16 bytes."""
        return -(-math.prod(self.shape) * BYTES[self.dtype] // 16) * 16

    @property
    def end(self) -> int:
        return self.start + self.depth * self.bytes


@dataclass(frozen=True)
class Gates:
    """Two mbarriers for each of `depth` tiles, from byte `start` of near memory: one opens when the `bytes` of a tile have
    landed, the other when `warps` warps have read them. The warp that brings the tiles is the one behind these."""

    depth: int
    start: int
    bytes: int
    warps: int


@dataclass(frozen=True)
class Axis:
    """The position along an axis of the tile that a view fills."""

    number: int


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides in elements."""
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
