"""Values of a contraction's kernel as tiles: at the positions of a loop nest, every equation becomes a tile expression.

In:  a Plan, the memory of its inputs, and a Place: where each letter stands ("r + #0": row r onwards along tile axis 0).
Out: Load, Map and friends, by the evaluator of tiles.py. Products want whole expressions (the operand of a Dot, what a carry
becomes), where nothing can be given a name on the way.
Read before: tiles.py. Read next: schedule/packing.py, schedule/dots.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import kdsl.dtypes as dt
from kdsl.dtypes import DType
from kdsl.ir import loops as ir
from kdsl.ir.frame import Axes, Letter, Plan
from kdsl.ir.ops import Op
from kdsl.ir.sizes import Extent, names_in, split
from kdsl.ir.tensor import Equation, Location, Value
from kdsl.schedule.positions import Memory, constant
from kdsl.schedule.tiles import Tiles


@dataclass(frozen=True, eq=False)
class Place:
    """Where each letter stands (its position may mention the tile axes #0 and #1) and how large the tile is."""

    at: dict[Letter, Extent]
    shape: tuple[int, int]
    checked: frozenset[Letter] = frozenset()  # letters whose position may leave their extent


class Expression(Tiles):
    """The evaluator at one place. Where statements may stand, values that are used again get a name there."""

    def __init__(self, plan: Plan, memory: Callable[[Value], Memory], place: Place) -> None:
        super().__init__(plan, memory)
        self.pos, self.shape = place.at, place.shape
        self.edge = {n for x in place.checked if x in place.at for n in names_in(place.at[x]) if n.startswith("#")}
        self.statements: list[ir.Statement] | None = None
        self.new_name: Callable[[str], str] = self.name

    def let(self, tile: ir.Tile, hint: str = "t", depth: int | None = None, location: Location | None = None) -> ir.Tile:
        if self.statements is None:
            return tile
        name = self.new_name("v")
        self.statements.append(ir.Let(name, tile, location))
        return ir.Name(name, tuple(tile.shape), tile.dtype)

    def map(self, op: str, parts: list[tuple[ir.Tile, int]], dtype: DType) -> tuple[ir.Tile, int]:
        if op == "where" and isinstance(parts[0][0], ir.Constant):  # a mask that is known at this place
            return parts[1] if parts[0][0].value else parts[2]
        return super().map(op, parts, dtype)


class Known(dict):
    """Values that stand ready at a place: tiles by value; the evaluators made with them remember what they computed."""

    def __init__(self, tiles: Mapping[Value, ir.Tile]) -> None:
        super().__init__(tiles)
        self.evaluators: dict[int, tuple[Place, Expression]] = {}


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

    def expression(self, place: Place, known: Known) -> Expression:
        """The evaluator at a place with what stands ready there."""
        found = known.evaluators.get(id(place))
        if found is None:
            evaluator = Expression(self.plan, self.memory, place)
            evaluator.ready = {v: (lambda tile=tile: (tile, 0)) for v, tile in known.items()}  # type: ignore[misc]
            found = known.evaluators[id(place)] = place, evaluator
        return found[1]

    def name_in(self, body: list[ir.Statement], place: Place, known: Known) -> None:
        """From now on values at this place that are used again get their names in `body`."""
        evaluator = self.expression(place, known)
        evaluator.statements, evaluator.new_name = body, self.name

    def operand(self, e: Equation, i: int, place: Place, known: Known) -> ir.Tile:
        """Operand number i of an equation."""
        o = e.operands[i]
        if not isinstance(o, Value):
            return constant(o, dt.bool_ if isinstance(o, bool) and e.op is Op.WHERE and i == 0 else e.operand_dtype.compute)
        evaluator = self.expression(place, known)
        return evaluator.tile(o, evaluator.plain_operand(e, i))[0]

    def value(self, v: Value, place: Place, known: Known) -> ir.Tile:
        """A computed value."""
        evaluator = self.expression(place, known)
        return evaluator.tile(v, evaluator.plain(v))[0]

    def view(self, memory: Memory, axes: Axes, shape: tuple[Extent, ...], place: Place) -> ir.View:
        """Where a value with these axes lies."""
        evaluator = self.expression(place, Known({}))
        view = evaluator.view(memory, evaluator.apart(axes, shape))
        assert view is not None
        return view

    def load(self, view: ir.View, place: Place) -> ir.Load:
        used = set().union(*map(names_in, view.index)) if view.index else set()
        return ir.Load(view, tuple(n if f"#{d}" in used else 1 for d, n in enumerate(place.shape)))

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
