"""An operand of a product on its way to near memory, one tile a step: how it lies there and how it gets there.

In:  an operand of a DOT, where its letters stand, the tile that the Dot wants.  Out: near memory, the statement that fills it,
the Load that the Dot reads.

    copy(near[#0, #1], x[i + #0, k + #1], (128, 32), depth=4)      rows of 16-byte pieces: asynchronous, steps ahead
    near[#0, #1] = exp(x[i + #0, k + #1])                          anything else: through registers

Near memory has the axis along which memory runs as its columns; where that is the other one, the Dot reads it transposed.
f16 and bf16 stay so in near memory: tensor cores multiply them.
Read before: schedule/dot_values.py. Read next: dots.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import kdsl.dtypes as dt
from kdsl.dtypes import DType
from kdsl.ir import loops as ir
from kdsl.ir.frame import Letter
from kdsl.ir.sizes import Extent, Size, names_in, size, split, substitute
from kdsl.ir.tensor import Equation, Value
from kdsl.schedule.dot_values import Known, Place, Values
from kdsl.schedule.positions import constant
from kdsl.schedule.register_tile import whole

PIECE = 16  # bytes of an asynchronous copy
SWAP = {"#0": ir.axis(1), "#1": ir.axis(0)}


@dataclass(frozen=True, eq=False)
class Staged:
    """`fill` brings the tile of one step; `read` is what the Dot multiplies."""

    near: ir.Near
    fill: ir.Copy | ir.Put
    read: ir.Load

    @property
    def content(self) -> Any:
        """What a copy brings, to be compared; a tile that is computed is equal to no other."""
        if not isinstance(self.fill, ir.Copy):
            return self.near
        view, memory = self.fill.view, self.fill.view.memory
        assert not isinstance(memory, ir.Near)
        return ir.root(memory), memory.shape, memory.strides, view.index, view.checks, self.fill.shape, self.fill.depth

    def into(self, near: ir.Near) -> Staged:
        """The same in other near memory of this shape."""
        read = ir.Load(ir.View(near, self.read.view.index), self.read.shape)
        return Staged(near, replace(self.fill, near=near), read)


def stage(
    values: Values,
    equation: Equation,
    number: int,
    place: Place,
    summed: Mapping[Letter, int],
    steps: Mapping[str, int],
    depth: int,
) -> Staged:
    """Operand `number` at a place as a tile in near memory.

    `summed`: the letters that the product sums, with the tile axis along which they stand; beyond their end the tile is 0.
    `steps`: for each loop index the number of which it is a multiple."""
    rows, columns = place.shape
    plain = operand_tile(values, equation, number, place, summed)
    swapped = _runs_down(values, plain)
    if swapped:
        turned = Place({x: substitute(e, SWAP) for x, e in place.at.items()}, (columns, rows), place.checked)
        plain = operand_tile(values, equation, number, turned, {x: 1 - d for x, d in summed.items()})
        rows, columns = columns, rows
    dtype = operand_dtype(equation, number, plain)
    near = ir.Near(near_name(values, equation, number), dtype, (rows, columns))
    here = (ir.axis(0), ir.axis(1))
    back = (ir.axis(1), ir.axis(0)) if swapped else here
    read = ir.Load(ir.View(near, back), place.shape)
    if isinstance(plain, ir.Load) and _in_pieces(values, plain, dtype, steps):
        return Staged(near, ir.Copy(near, here, plain.view, (rows, columns), depth), read)
    return Staged(near, ir.Put(near, here, whole(plain, (rows, columns))), read)


def operand_tile(
    values: Values, equation: Equation, number: int, place: Place, summed: Mapping[Letter, int]
) -> ir.Tile:
    """An operand as a tile expression that is 0 beyond the end of summed letters."""
    tile = values.operand(equation, number, place, Known({}))
    for x, d in summed.items():
        if x in place.checked and not _ends(tile, place.at[x], d):
            n = values.plan.letters.size[x]
            first, _ = _base(place.at[x], d)
            along = tuple(m if i == d else 1 for i, m in enumerate(place.shape))
            left = n - first
            end = ir.Constant(left, dt.i64) if isinstance(left, int) else ir.Scalar(left, dt.i64)
            inside = ir.Map("lt", (ir.Index(d, along, dt.i64), end), dt.bool_)
            tile = ir.Map("where", (inside, tile, constant(0, tile.dtype)), tile.dtype)
    return tile


def near_name(values: Values, equation: Equation, number: int) -> str:
    """A name for an operand's near memory that tells the operand's."""
    operand = equation.operands[number]
    name = operand.name if isinstance(operand, Value) and operand.name.isidentifier() else "tile"
    return values.name(f"near_{name}")


def operand_dtype(equation: Equation, number: int, tile: ir.Tile) -> DType:
    """What an operand is in near memory: as it lies in memory, else as the program types it."""
    if isinstance(tile, ir.Load) and tile.view.memory.dtype.compute is tile.dtype:
        return tile.view.memory.dtype
    operand = equation.operands[number]
    assert isinstance(operand, Value)
    return operand.dtype if operand.dtype.compute is tile.dtype else tile.dtype


def on_tensor_cores(a: ir.Memory, b: ir.Memory) -> bool:
    """Whether two operands in near memory are multiplied by tensor cores: both f16, or both bf16."""
    return a.dtype is b.dtype and a.dtype in (dt.f16, dt.bf16)


def _ends(tile: ir.Tile, at: Extent, d: int) -> bool:
    """Whether a tile is 0 where the position `at`, along tile axis d, is beyond the end of its letter: a plain Load, whose
    index for that letter is checked and counts nothing else."""
    return isinstance(tile, ir.Load) and any(
        check and i == at and f"#{d}" in names_in(i)
        for i, check in zip(tile.view.index, tile.view.checks, strict=True)
    )


def _base(at: Extent, d: int) -> tuple[Extent, Extent]:
    """A position along tile axis d as (the first, the step)."""
    factors, rest = split(at, {f"#{d}"})
    return rest, factors.get(f"#{d}", 0)


def _runs_down(values: Values, tile: ir.Tile) -> bool:
    """Whether what a tile reads lies in memory along its rows (axis 0), and nothing of it along its columns."""
    loads = [x for x in ir.loads_in(tile) if not isinstance(x.view.memory, ir.Near) and len(x.shape) == 2]
    runs = [[values.stride(x.view, d) == 1 and x.shape[d] > 1 for d in (0, 1)] for x in loads]
    return any(r[0] for r in runs) and not any(r[1] for r in runs)


def _in_pieces(values: Values, load: ir.Load, dtype: DType, steps: Mapping[str, int]) -> bool:
    """Whether 16-byte pieces of the tile are 16-byte pieces of memory, each inside or outside as a whole."""
    view, memory = load.view, load.view.memory
    each = PIECE // dtype.bytes
    if isinstance(memory, ir.Near) or memory.dtype is not dtype or load.shape[1] % each or view.fill != 0:
        return False
    if values.stride(view, 1) != 1 or values.stride(view, 0) is None:
        return False
    walked: list[str] = []
    for d, (index, stride) in enumerate(zip(view.index, memory.strides, strict=True)):
        factors, rest = split(index, {"#0", "#1"})
        walked += factors
        if len(factors) > 1 or any(f != 1 for f in factors.values()) or not _multiple(rest * stride, each, steps):
            return False
        if "#1" in factors:
            if stride != 1 or (view.checks[d] and not _multiple(memory.shape[d], each, steps)):
                return False
        elif not _multiple(stride, each, steps) and (factors or rest != 0):
            return False
        elif view.checks[d] and not factors:
            return False
    return sorted(walked) == ["#0", "#1"]


def _multiple(e: Extent, n: int, steps: Mapping[str, int]) -> bool:
    """Whether an expression is a multiple of n whatever its names are."""
    scaled = substitute(e, {x: size(x) * steps[x] for x in names_in(e) if x in steps})
    return math.gcd(*scaled.terms.values()) % n == 0 if isinstance(scaled, Size) else scaled % n == 0
