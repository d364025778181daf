"""Tile expressions as text of a kernel's source: operators where Python has them, macro calls elsewhere.

In:  a tile of the loop IR and the layout in which it is wanted (None: any).  Out: its text and layout, what must stand before
it, and which memory it reads (for the barriers).
Loads, constants and positions are made in whatever layout is wanted. A tile that a map needs in other threads than those that
hold it goes through near memory first (`exchange`). A number stands for a tile of itself beside any other tile.
Read before: views.py, operators.py. Read next: statements.py.
"""

from __future__ import annotations

from collections.abc import Callable

from kdsl.codegen.cuda.barriers import Access
from kdsl.codegen.cuda.choose_layouts import Layouts, Unsupported
from kdsl.codegen.cuda.layout import Layout
from kdsl.codegen.cuda.lines import Line
from kdsl.codegen.cuda.names import Names
from kdsl.codegen.cuda.operators import CALL, UNARY, Text, number, written
from kdsl.codegen.cuda.views import Views
from kdsl.ir import loops as ir


class Expressions:
    """The tile expressions of one kernel. `indexing`: the names that stand in indices."""

    def __init__(self, views: Views, layouts: Layouts, names: Names, indexing: set[str]) -> None:
        self.views, self.layouts, self.names, self.indexing = views, layouts, names, indexing
        self.uniform: set[str] = set()  # Lets that are sizes in the source
        self.held: dict[str, Layout] = {}  # the layout of each Let and carry
        self.exchanges: dict[tuple[str, ir.TileShape], str] = {}  # near memory for tiles of this dtype and shape
        self.reads: list[Access] = []
        self.before: list[Line] = []

    # --- from outside --------------------------------------------------------------------------------------------------------
    def line(self, tile: ir.Tile, text: Callable[[str], str], want: Layout | None = None) -> list[Line]:
        """The lines of a statement that is made of one tile, which it wants in a layout of its own or any."""
        self.reads, self.before = [], []
        body = text(self.show(tile, want or self.layout(tile)))
        return [*self.before, Line([body], self.reads)]

    def layout(self, t: ir.Tile) -> Layout:
        return self.has(t) or self.layouts.of(tuple(t.shape))

    # --- which layout a tile has ------------------------------------------------------------------------------------------------
    def has(self, t: ir.Tile) -> Layout | None:
        """The layout in which a tile comes; None where it can be made in any."""
        if isinstance(t, ir.Name):
            return None if t.name in self.uniform else self.held[t.name]
        if isinstance(t, ir.Fold):
            inner = self.layout(t.tile)
            if t.parts > 1:
                return self.layouts.grouped(inner, t.axis, t.tile.shape[t.axis], t.parts)
            return self.layouts.part(inner, tuple(t.shape))
        if isinstance(t, ir.Prefix):
            return self.layout(t.tile)
        if isinstance(t, ir.Dot):
            return self.layouts.of(tuple(t.shape))
        if isinstance(t, ir.Slice):
            return self.layouts.of(tuple(t.shape))
        if isinstance(t, ir.Convert):
            return self.has(t.tile)
        if isinstance(t, ir.Permute):
            inner = self.has(t.tile)
            return None if inner is None else self.layouts.permuted(inner, t.axes)
        if isinstance(t, ir.Broadcast):
            return None if self.has(t.tile) is None else self.layouts.of(tuple(t.shape))
        if isinstance(t, (ir.Map, ir.Gather)):
            found = [(o, h) for o in ir.children(t) if (h := self.has(o)) is not None]
            whole = [h for o, h in found if tuple(o.shape) == tuple(t.shape)]
            return whole[0] if whole else self.layouts.of(tuple(t.shape)) if found else None
        return None

    # --- text ------------------------------------------------------------------------------------------------------------
    def show(self, t: ir.Tile, want: Layout) -> str:
        return self.bound(t, want)[0]

    def bound(self, t: ir.Tile, want: Layout) -> Text:
        """A tile's text in the wanted layout, and how tightly it binds."""
        have = self.has(t)
        if have is None or have.converts_freely(want):
            return self.raw(t, have or want)
        return self.exchange(t, self.raw(t, have)[0], have, want), CALL

    def raw(self, t: ir.Tile, layout: Layout) -> Text:
        """A tile's text in the layout in which it comes."""
        if isinstance(t, ir.Name):
            if t.name in self.uniform:
                return f"full({self.tile(t, layout)}, {self.views.called[t.name]})", CALL
            return self.views.called[t.name], CALL
        if isinstance(t, ir.Constant):
            return f"full({self.tile(t, layout)}, {number(t)})", CALL
        if isinstance(t, ir.Scalar):
            return f"full({self.tile(t, layout)}, {self.views.extent(t.value)})", CALL
        if isinstance(t, ir.Index):
            return f"index({self.tile(t, layout)}, {t.axis})", CALL
        if isinstance(t, ir.Load):
            return self.load(t, layout), CALL
        if isinstance(t, ir.Gather):
            return self.gather(t, layout), CALL
        if isinstance(t, ir.Fold):
            parts = f", {t.parts}" if t.parts > 1 else ""
            return f"fold_{t.monoid}({self.show(t.tile, self.layout(t.tile))}, {t.axis}{parts})", CALL
        if isinstance(t, ir.Prefix):
            return f"running_{t.monoid}({self.show(t.tile, layout)}, {t.axis})", CALL
        if isinstance(t, ir.Dot):
            cores = t in self.layouts.cores
            a, b = self.operand(t.a, cores), self.operand(t.b, False)
            return f"dot({self.show(t.accumulator, layout)}, {a}, {b})", CALL
        if isinstance(t, ir.Broadcast):
            if isinstance(t.tile, (ir.Constant, ir.Scalar)):
                return self.raw(_of_shape(t.tile, t.shape), layout)
            inner = self.show(t.tile, self.layouts.part(layout, tuple(t.tile.shape)))
            return f"expand({self.tile(t, layout)}, {inner})", CALL
        if isinstance(t, ir.Permute):
            back = tuple(t.axes.index(i) for i in range(len(t.axes)))
            inner = self.show(t.tile, self.layouts.permuted(layout, back))
            return f"turn({self.tile(t, layout)}, {inner})", CALL
        if isinstance(t, ir.Slice):
            inner = self.layout(t.tile)
            if inner.part_at(t.start, layout) is not None:
                return f"piece({self.tile(t, layout)}, {self.show(t.tile, inner)}, {', '.join(map(str, t.start))})", CALL
            return self.exchange(t, self.show(t.tile, inner), inner, layout), CALL
        if isinstance(t, ir.Convert):
            return self.raw(t.tile, layout)
        return self.map(t, layout)

    def tile(self, t: ir.Tile, layout: Layout) -> str:
        return self.layouts.tile(t.dtype.name, tuple(t.shape), layout)

    # --- memory -----------------------------------------------------------------------------------------------------------------
    def load(self, t: ir.Load, layout: Layout) -> str:
        place = self.views.place(t.view, tuple(t.shape), layout)
        fill = t.view.fill
        tail = f", {number(ir.Constant(fill, t.dtype))}" if any(t.view.checks) and fill != 0 else ""
        word = "take" if isinstance(t.view.memory, ir.Near) else "load"
        self.reads += self.views.read(t.view.memory)
        return f"{word}({self.tile(t, layout)}, {place}{tail})"

    def gather(self, t: ir.Gather, layout: Layout) -> str:
        """Where the mask is false an index is -1, which is outside."""
        index = []
        for i, x in enumerate(t.indices):
            own: ir.Tile = x
            if i == 0 and t.mask is not None:
                own = ir.Map("where", (t.mask, x, ir.Constant(-1, x.dtype)), x.dtype)
            text = self.operand_text(own, layout)[0]
            index.append(f"edges({text})" if i == 0 and t.mask is not None else text)
        self.reads += self.views.read(t.memory)
        fill = f", {number(ir.Constant(t.fill, t.dtype))}" if t.mask is not None and t.fill != 0 else ""
        word = "take" if isinstance(t.memory, ir.Near) else "load"
        return f"{word}({self.tile(t, layout)}, at({', '.join([self.views.memory(t.memory), *index])}){fill})"

    def exchange(self, t: ir.Tile, text: str, have: Layout, want: Layout) -> str:
        """A tile in other threads: through near memory, into a name of its own. A Slice takes its part there."""
        source = t.tile if isinstance(t, ir.Slice) else t
        key = t.dtype.name, tuple(source.shape)
        label = "_".join(["EXCHANGE", key[0].upper(), *map(str, key[1])])
        near = self.exchanges.setdefault(key, self.names.of("exchange", label))
        name = self.names.of("moved", f"moved_{sum(len(x.text) for x in self.before)}_{len(self.names.taken)}")
        self.before.append(Line([f"put(near({near}, 0), {text})"], [*self.reads, ("write", "exchange", 0, 1)]))
        place = f"near({near}, 0)"
        if isinstance(t, ir.Slice):
            place = f"at({place}, {', '.join(f'axis{i} + {s}' if s else f'axis{i}' for i, s in enumerate(t.start))})"
        self.before.append(Line([f"{name} = take({self.tile(t, want)}, {place})"], [("read", "exchange", 0, 1)]))
        return name

    # --- products ---------------------------------------------------------------------------------------------------------------
    def operand(self, t: ir.Tile, registers: bool) -> str:
        """An operand of a product: near memory, or on the left of tensor cores a tile of pairs in registers."""
        if isinstance(t, ir.Load) and isinstance(t.view.memory, ir.Near):
            place = self.views.place(t.view, tuple(t.shape))
            if place.startswith(("near(", "transposed(")):
                self.reads += self.views.read(t.view.memory)
                return place
        if registers and isinstance(t, ir.Name):
            return self.views.called[t.name]
        if registers and isinstance(t, ir.Map) and t.op in ("round_bf16", "round_f16"):
            layout = self.layouts.operand(tuple(t.shape))
            half = t.op.removeprefix("round_")
            return f"convert({self.layouts.tile(half, tuple(t.shape), layout)}, {self.show(t.operands[0], layout)})"
        raise Unsupported("a dot's operand is near memory, or on the left of tensor cores a tile rounded to f16 or bf16")

    # --- maps -------------------------------------------------------------------------------------------------------------------
    def is_number(self, t: ir.Tile) -> bool:
        """Whether a tile is written as a plain number."""
        return isinstance(t, (ir.Constant, ir.Scalar)) or (isinstance(t, ir.Name) and t.name in self.uniform)

    def operand_text(self, o: ir.Tile, layout: Layout) -> Text:
        if isinstance(o, ir.Constant):
            text = number(o)
            return text, UNARY if text.startswith("-") else CALL
        if isinstance(o, ir.Scalar):
            text = self.views.extent(o.value)
            return text, 5 if " " in text else 6 if "*" in text else CALL
        if isinstance(o, ir.Name) and o.name in self.uniform:
            return self.views.called[o.name], CALL
        return self.bound(o, self.layouts.part(layout, tuple(o.shape)))

    def map(self, t: ir.Map, layout: Layout) -> Text:
        x = [self.operand_text(o, layout) for o in t.operands]
        tiles = [i for i, o in enumerate(t.operands) if not self.is_number(o)]
        needed = [i for i in tiles if t.op != "where" or i > 0]  # what gives the map its dtype
        if not needed:
            last = len(t.operands) - 1
            x[last], needed = self.raw_number(t.operands[last], layout), [last]
            tiles.append(last)
        if t.op == "where" and self.is_number(t.operands[0]):
            x[0] = self.raw_number(t.operands[0], layout)
        shape = tuple(t.shape)
        if all(tuple(t.operands[i].shape) != shape for i in tiles):
            first = needed[0]
            o = t.operands[first]
            x[first] = f"expand({self.layouts.tile(o.dtype.name, shape, layout)}, {x[first][0]})", CALL
        divisor = t.operands[-1]
        return written(t, x, shared=not self.is_number(divisor) and tuple(divisor.shape) != shape)

    def raw_number(self, o: ir.Tile, layout: Layout) -> Text:
        return self.raw(o, self.layouts.part(layout, tuple(o.shape)))


def _of_shape(t: ir.Tile, shape: ir.TileShape) -> ir.Tile:
    """A number as a tile of this shape."""
    if isinstance(t, ir.Constant):
        return ir.Constant(t.value, t.dtype, shape)
    assert isinstance(t, ir.Scalar)
    return ir.Scalar(t.value, t.dtype, shape)
