"""Values of a plan as tiles: at the positions of a loop nest, every equation becomes a tile expression.

In:  a Plan, the memory of its inputs, and a Place: where each letter stands ("r + #0": row r onwards along tile axis 0).
Out: Load, Map and friends. Broadcasts, permutations and reshapes vanish; a slice or window moves the place of its operand.
Read before: ir/frame.py. Read next: schedule/packing.py, schedule/dots.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import kdsl.dtypes as dt
from kdsl.dtypes import DType
from kdsl.ir import loops as ir
from kdsl.ir.frame import Axes, Letter, Plan, joined_axes
from kdsl.ir.ops import ELEMENTWISE, Op
from kdsl.ir.sizes import Extent, floordiv, modulo, names_in, split
from kdsl.ir.tensor import Equation, Literal, Operand, Value

Memory = ir.Buffer | ir.Reshaped
RENAMES = frozenset({Op.BROADCAST, Op.PERMUTE, Op.RESHAPE, Op.BARRIER, Op.STOP_GRADIENT})


@dataclass(frozen=True, eq=False)
class Place:
    """Where each letter stands (its position may mention the tile axes #0 and #1) and how large the tile is."""

    at: dict[Letter, Extent]
    shape: tuple[int, int]
    checked: frozenset[Letter] = frozenset()  # letters whose position may leave their extent


@dataclass(eq=False)
class Values:
    """The tile expressions of one kernel. `memory` gives the buffer of an input or output."""

    plan: Plan
    memory: Callable[[Value], Memory]
    made: dict[Value, Equation] = field(default_factory=dict)
    counter: Iterator[int] = field(default_factory=lambda: iter(range(1 << 30)))

    def __post_init__(self) -> None:
        self.made = {e.result: e for e in self.plan.equations}

    def name(self, hint: str) -> str:
        return f"{hint}{next(self.counter)}"

    # --- positions in memory ---------------------------------------------------------------------------------------
    def position(self, letters: tuple[Letter, ...], place: Place) -> Extent:
        """The index along an axis that carries these letters."""
        out: Extent = 0
        for x in letters:
            out = out * self.plan.letters.size[x] + place.at[x]
        return out

    def view(
        self, memory: Memory, axes: Axes, shape: tuple[Extent, ...], place: Place, fill: Literal = 0
    ) -> ir.View:
        """A view of `memory`, whose axes carry the letters `axes`, at a place. Axes that are walked as one are seen as one."""
        groups = joined_axes(axes, shape, self.plan.letters.size)
        index = [self.position(letters, place) for _, letters in groups]
        check = [bool(place.checked & set(letters)) for _, letters in groups]
        if len(groups) < len(axes):
            joined = _joined(memory, [numbers for numbers, _ in groups])
            if joined is None:
                index, check = self._apart(memory, groups, index), [False] * len(axes)
            else:
                memory = joined
        return ir.View(memory, tuple(index), tuple(check) if any(check) else (), fill)

    def _apart(
        self, memory: Memory, groups: list[tuple[list[int], tuple[Letter, ...]]], index: list[Extent]
    ) -> list[Extent]:
        """Memory that is not contiguous across axes walked as one: the position is taken apart again."""
        out: list[Extent] = []
        for (numbers, _), position in zip(groups, index, strict=True):
            apart: list[Extent] = []
            for d in reversed(numbers[1:]):
                apart.append(modulo(position, memory.shape[d]))
                position = floordiv(position, memory.shape[d])
            out += [position, *reversed(apart)]
        return out

    def stride(self, view: ir.View, axis: int) -> Extent | None:
        """How far apart in memory neighbours along a tile axis lie; None where that varies."""
        name, memory = f"#{axis}", view.memory
        assert not isinstance(memory, ir.Near)
        total: Extent = 0
        for i, s in zip(view.index, memory.strides, strict=True):
            try:
                factors, _ = split(i, {name})
            except ValueError:
                return None
            total = total + factors.get(name, 0) * s
        return total

    # --- tiles -----------------------------------------------------------------------------------------------------
    def load(self, view: ir.View, place: Place) -> ir.Load:
        used = set().union(*map(names_in, view.index)) if view.index else set()
        return ir.Load(view, tuple(n if f"#{d}" in used else 1 for d, n in enumerate(place.shape)))

    def operand(self, e: Equation, i: int, place: Place, known: Mapping[Value, ir.Tile]) -> ir.Tile:
        """Operand number i of an equation."""
        o: Operand = e.operands[i]
        if not isinstance(o, Value):
            dtype = e.operand_dtype.compute
            return ir.Constant(o, dt.bool_ if isinstance(o, bool) and e.op is Op.WHERE and i == 0 else dtype)
        if o in known:
            return known[o]
        if o in self.made:
            return self.value(o, place, known)
        return self.load(self.view(self.memory(o), self.plan.letters.uses[e, i], o.shape, place), place)

    def value(self, v: Value, place: Place, known: Mapping[Value, ir.Tile]) -> ir.Tile:
        """The tile of a computed value; `known` are those that stand ready (products, strips)."""
        if v in known:
            return known[v]
        key = v, id(place)
        if isinstance(known, Known) and key in known.memo:
            return known.memo[key]
        tile = self._compute(self.made[v], place, known)
        if isinstance(known, Known):
            known.memo[key] = tile
        return tile

    def _compute(self, e: Equation, place: Place, known: Mapping[Value, ir.Tile]) -> ir.Tile:
        if e.op is Op.CONSTANT:
            v = e.result
            return self.load(self.view(self.memory(v), self.plan.letters.values[v], v.shape, place), place)
        if e.op in RENAMES:
            return self.operand(e, 0, place, known)
        if e.op is Op.CAST:
            return cast(self.operand(e, 0, place, known), e.result.dtype)
        if e.op in ELEMENTWISE:
            operands = tuple(self.operand(e, i, place, known) for i in range(len(e.operands)))
            return ir.Map(e.op.value, operands, e.result.dtype.compute)
        if e.op is Op.FULL:
            return ir.Constant(e.attributes["value"], e.result.dtype.compute)
        if e.op is Op.SIZE:
            return ir.Scalar(e.attributes["value"], dt.i64)
        if e.op is Op.IOTA:
            return counted(
                self.position(self.plan.letters.values[e.result][e.attributes["axis"]], place),
                place.shape,
                e.result.dtype,
            )
        assert e.op in (Op.SLICE, Op.WINDOW), e.op
        return self.operand(
            e, 0, self._moved(e, place), known if not isinstance(known, Known) else Known(known.tiles)
        )

    def _moved(self, e: Equation, place: Place) -> Place:
        """The place of a slice's or window's operand: the letters of the axes that it moves."""
        axes, source, a = self.plan.letters.values[e.result], self.plan.letters.of(e, 0), e.attributes
        at: dict[Letter, Extent] = {}
        checked = set(place.checked)
        for d, letters in enumerate(source):
            fresh = [x for x in letters if x not in place.at]
            if not fresh:
                continue
            assert len(letters) == 1, "a moved axis with several letters"
            if e.op is Op.SLICE:
                at[letters[0]] = self.position(axes[d], place) * a["steps"][d] + a["starts"][d]
            else:
                at[letters[0]] = (
                    self.position(axes[d], place) * a["stride"]
                    + self.position(axes[-1], place) * a["dilation"]
                )
            if place.checked & {*axes[d], *(axes[-1] if e.op is Op.WINDOW else ())}:
                checked.add(letters[0])
        return replace(place, at={**place.at, **at}, checked=frozenset(checked))


def _joined(memory: Memory, groups: list[list[int]]) -> Memory | None:
    """The same memory with each group of axes as one; None where their strides do not allow it."""
    shape, strides = [], []
    for numbers in groups:
        last = [d for d in numbers if memory.shape[d] != 1] or numbers[-1:]
        n, step = memory.shape[last[-1]], memory.strides[last[-1]]
        for d in reversed(last[:-1]):
            if memory.strides[d] != step * n:
                return None
            n = n * memory.shape[d]
        shape.append(n)
        strides.append(step)
    return ir.Reshaped(
        memory.buffer if isinstance(memory, ir.Reshaped) else memory, tuple(shape), tuple(strides)
    )


class Known(dict):
    """Values that stand ready, with a memo of what was computed from them."""

    def __init__(self, tiles: Mapping[Value, ir.Tile]) -> None:
        super().__init__(tiles)
        self.memo: dict[tuple[Value, int], ir.Tile] = {}

    @property
    def tiles(self) -> dict[Value, ir.Tile]:
        return dict(self)


def cast(x: ir.Tile, dtype: DType) -> ir.Tile:
    """A cast as kernels do it: f16 and bf16 are f32 that has been rounded."""
    if x.dtype is not dtype.compute:
        x = ir.Map("cast", (x,), dtype.compute)
    return x if dtype is dtype.compute else ir.Map(f"round_{dtype.name}", (x,), dt.f32)


def counted(position: Extent, shape: tuple[int, int], dtype: DType) -> ir.Tile:
    """A position as a tile of numbers: its uniform part and what it counts along the tile's axes."""
    factors, rest = split(position, {"#0", "#1"})
    integer = dt.i32 if dtype.bytes <= 4 else dt.i64
    tile: ir.Tile = ir.Constant(rest, integer) if isinstance(rest, int) else ir.Scalar(rest, integer)
    for d in range(2):
        if factor := factors.get(f"#{d}", 0):
            along: ir.Tile = ir.Index(d, tuple(n if i == d else 1 for i, n in enumerate(shape)), integer)
            if factor != 1:
                by = ir.Constant(factor, integer) if isinstance(factor, int) else ir.Scalar(factor, integer)
                along = ir.Map("mul", (along, by), integer)
            tile = (
                along
                if isinstance(rest, int) and rest == 0 and isinstance(tile, ir.Constant) and not tile.value
                else ir.Map("add", (along, tile), integer)
            )
    return tile if integer is dtype else cast(tile, dtype)
