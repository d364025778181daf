"""Packing: an operand of a product copied into panels, so that the product reads it from one end to the other.

In:  an operand of a DOT and one of its letters, the one that a tile holds side by side.
Out: a kernel that writes panels, and where in them a tile lies.

    packed[outer …, panel, k …, width]      element (k, panel*width + j) of the operand; the last panel may be partial

An operand that is computed is computed while it is packed, once.
Read before: schedule/dot_values.py. Read next: schedule/dots.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from kdsl.ir import loops as ir
from kdsl.ir.frame import Letter, flat
from kdsl.ir.sizes import Extent, maximum, minimum, row_major, size
from kdsl.ir.tensor import Equation, Value
from kdsl.schedule.dot_values import Known, Place, Values
from kdsl.schedule.kernels import kernel

PACK_ROWS = 8  # rows of k copied by one statement
BLOCK_BYTES = 64 * 1024  # what one iteration of the grid copies, at least


@dataclass(frozen=True, eq=False)
class Packed:
    """Where a packed operand lies. `tile(panel, k, first, shape, transposed)` loads part of a panel."""

    buffer: ir.Buffer
    outer: tuple[Letter, ...]
    k: tuple[Letter, ...]
    width: int

    def view(self, place: Place, panel: Extent, column: Extent) -> ir.View:
        """At the outer and k positions of `place`, element `column` (it may mention a tile axis) of a panel."""
        return ir.View(
            self.buffer, (*(place.at[x] for x in self.outer), panel, *(place.at[x] for x in self.k), column)
        )


def temporary(name: str, value: Value, shape: tuple[Extent, ...]) -> ir.Buffer:
    """New memory of a program for the panels of `value`; f16 and bf16 are packed as the f32 that kernels compute with."""
    return ir.Buffer(name, value.dtype.compute, shape, row_major(shape), "temporary")


def tile_count(n: Extent, tile: int) -> Extent:
    """How many tiles cover n; one more than the full ones, maybe empty, where n is not known."""
    return -(-n // tile) if isinstance(n, int) else n // tile + 1


TileBody = Callable[[Extent, int, bool], tuple[ir.Statement, ...]]


def tiles_along(
    n: Extent, tile: int, lo: Extent, hi: Extent, index: str, body: TileBody, padded: bool = False
) -> tuple[ir.Statement, ...]:
    """Loops over tile numbers lo … hi-1 of an axis of extent n; body(number, extent of the tile, must it be checked).

    Full tiles first; then what is left: one exact tile if n is known, else (or where `padded`) a checked one."""
    full = n // tile
    out: list[ir.Statement] = []
    if not (isinstance(full, int) and full == 0):
        out.append(ir.Stream(index, lo, minimum(hi, full), 1, body(size(index), tile, False)))
    rest = n - full * tile
    if rest != 0:
        last = index + "r"
        inside = body(size(last), rest, False) if isinstance(rest, int) and not padded else body(size(last), tile, True)
        out.append(ir.Stream(last, maximum(lo, full), hi, 1, inside))
    return tuple(out)


def along(
    n: Extent, tile: int, index: str, body: Callable[[Extent, int], tuple[ir.Statement, ...]]
) -> tuple[ir.Statement, ...]:
    """Loops over the positions 0 … n-1 in tiles; what is left is one exact tile, or single steps where n is not known."""
    full = n // tile * tile
    out: list[ir.Statement] = []
    if not (isinstance(full, int) and full == 0):
        out.append(ir.Stream(index, 0, full, tile, body(size(index), tile)))
    rest = n - full
    if isinstance(rest, int):
        return (*out, *(body(full, rest) if rest else ()))
    return (*out, ir.Stream(index + "r", full, n, 1, body(size(index + "r"), 1)))


def pack(
    values: Values, e: Equation, operand: int, letter: Letter, k: tuple[Letter, ...], width: int, wanted: Extent = 1,
    padded: bool = False,
) -> tuple[ir.Kernel, Packed]:
    """The kernel that packs an operand of `e` in panels of `width` along `letter`; it does nothing where `wanted` is 0.

    `padded`: the last panel is whole; nothing is known of what lies beyond the operand but that it may be read."""
    letters = values.plan.letters
    outer = tuple(x for x in flat(letters.of(e, operand)) if x != letter and x not in k)
    k = tuple(x for x in k if x in flat(letters.of(e, operand)))
    source = e.operands[operand]
    assert isinstance(source, Value)
    panels = tile_count(letters.size[letter], width)
    shape = (*(letters.size[x] for x in outer), panels, *(letters.size[x] for x in k), width)
    buffer = temporary(f"{values.plan.name}_{values.name('panels')}", source, shape)
    packed = Packed(buffer, outer, k, width)
    at: dict[Letter, Extent] = {x: size(f"o{i}") for i, x in enumerate(outer)}

    def panel(number: Extent, columns: int, checked: bool) -> tuple[ir.Statement, ...]:
        def rows(first: Extent, n: int) -> tuple[ir.Statement, ...]:
            here = {**at, letter: number * width + ir.axis(1)}
            if k:
                here[k[-1]] = first + ir.axis(0)
            place = Place(here, (n, columns), frozenset({letter}) if checked else frozenset())
            tile = values.operand(e, operand, place, Known({}))
            if tile.shape != (n, columns):
                tile = ir.Broadcast(tile, (n, columns))
            return (ir.Store(packed.view(place, number, ir.axis(1)), tile),)

        body = along(letters.size[k[-1]], PACK_ROWS, values.name("k"), rows) if k else rows(0, 1)
        for i, x in reversed(list(enumerate(k[:-1]))):
            at[x] = size(f"s{i}")
            body = (ir.Stream(f"s{i}", 0, letters.size[x], 1, body),)
        return body

    for i, x in enumerate(k[:-1]):
        at[x] = size(f"s{i}")
    each = math.prod(n for n in shape[len(outer) + 1 :] if isinstance(n, int)) * buffer.dtype.bytes
    group = max(1, BLOCK_BYTES // max(1, each))
    body: tuple[ir.Statement, ...] = tiles_along(
        letters.size[letter], width, size("p"), minimum(size("p") + group, panels), values.name("c"), panel, padded
    )
    body = (ir.Parallel("p", 0, panels * wanted, group, body),)
    for i, x in reversed(list(enumerate(outer))):
        body = (ir.Parallel(f"o{i}", 0, letters.size[x], 1, body),)
    out = kernel(values.plan, body, {"width": width, "k": PACK_ROWS})
    return replace(
        out, name=buffer.name, kind="packing", bytes=2 * source.type.count * source.dtype.bytes, operations=0
    ), packed
