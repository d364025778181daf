"""Positions: where a value is wanted, one entry for each of its axes.

    an index expression ("r", "j + #1"); None: this axis is walked as one with the next
    Loose(expression): it may lie outside of the axis (a padded, concatenated or gathered operand): loads are checked
    Spread(tile): it varies from element to element by data: loads are gathers
    Apart(parts): an axis that several loops walk, one of which may run over its end: an axis for each (`Tiles.own`)
In:  index expressions.  Out: the records, and memory seen with an axis for each entry.
Read before: ir/loops.py. Read next: tiles.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

from kdsl.dtypes import DType
from kdsl.ir import loops as ir
from kdsl.ir.sizes import Extent, Size
from kdsl.ir.tensor import Literal

Memory = Union[ir.Buffer, ir.Reshaped, ir.Near]
Known = tuple[ir.Tile, int]  # a tile and the depth of the loop it is known in


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
    return ir.Reshaped(ir.root(memory), tuple(shape), tuple(strides)), entries


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
