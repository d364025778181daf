"""Tile expressions as text of a kernel's source: operators where Python has them, macro calls elsewhere.

In:  a tile of the loop IR and the layout in which it is wanted (None: any).  Out: its text and layout, what must stand before
it, and which memory it reads (for the barriers).
Loads, constants and positions are made in whatever layout is wanted. A tile that a map needs in other threads than those that
hold it goes through near memory first (`exchange`). A number stands for a tile of itself beside any other tile.
Read before: choose_layouts.py, addresses.py. Read next: emit.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kdsl.codegen.cuda.addresses import AXES, run_length, show, stays_above_zero, walk
from kdsl.codegen.cuda.barriers import Access
from kdsl.codegen.cuda.choose_layouts import Layouts, Unsupported
from kdsl.codegen.cuda.layout import Layout
from kdsl.codegen.cuda.names import Names
from kdsl.codegen.cuda.records import BYTES
from kdsl.ir import loops as ir
from kdsl.ir.sizes import Extent

INFIX = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!=", "or": "|", "xor": "^", "and": "&",
         "shl": "<<", "shr": ">>", "add": "+", "sub": "-", "mul": "*", "div": "/", "floor_div": "//", "mod": "%"}  # fmt: skip
LEVELS = {"|": 1, "^": 2, "&": 3, "<<": 4, ">>": 4, "+": 5, "-": 5, "*": 6, "/": 6, "//": 6, "%": 6}
UNARY, CALL = 7, 9  # how tightly a text binds; comparisons 0


@dataclass
class Line:
    """Lines of source that stand together, and what they do to memory that the block's threads share."""

    text: list[str]
    accesses: list[Access] = field(default_factory=list)


@dataclass
class Block:
    """What stands under a `while` or an `if`."""

    head: str
    body: list[Line | Block]
    depth: int = 1
    once: bool = False
    sure: bool = False


@dataclass
class Ring:
    """Near memory of a kernel: how many tiles it holds, and which of them a load means just now."""

    memory: ir.Near
    depth: int = 1
    number: str = "0"  # "" once nobody can tell
    step: Any = 0  # the same as a function of the stream's step
    swizzled: bool = False
    boxed: bool = False  # brought by the copy engine: mbarriers part who fills it from who reads it


class Expressions:
    def __init__(
        self, layouts: Layouts, names: Names, written: set[str], indexing: set[str], aligned: tuple[str, ...] = ()
    ) -> None:
        self.layouts, self.names, self.written, self.indexing = layouts, names, written, indexing
        self.aligned = aligned  # names that make an index begin a piece of 16 bytes
        self.steps: dict[str, int] = {}  # of the loops around: what a loop index is a multiple of
        self.natural: set[str] = set()  # names that are at least 0
        self.sizes: set[str] = set()  # Lets that are sizes in the source
        self.held: dict[str, Layout] = {}  # the layout of each Let and carry
        self.called: dict[str, str] = {}
        self.rings: dict[ir.Near, Ring] = {}
        self.arrays: dict[ir.Memory, str] = {}
        self.definitions: dict[str, tuple[str, str]] = {}  # arrays: what they are, and how they are made
        self.alignments: dict[str, int] = {}
        self.exchanges: dict[tuple[str, ir.TileShape], str] = {}
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

    def extent(self, e: Extent) -> str:
        """A size or an index as text."""
        return show(e, self._name)

    def _name(self, name: str) -> str:
        return self.called.get(name) or self.names.of("size", name)

    # --- which layout a tile has ------------------------------------------------------------------------------------------------
    def has(self, t: ir.Tile) -> Layout | None:
        """The layout in which a tile comes; None where it can be made in any."""
        if isinstance(t, ir.Name):
            return None if t.name in self.sizes else self.held[t.name]
        if isinstance(t, ir.Fold):
            return self.layouts.part(self.layout(t.tile), tuple(t.shape))
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

    def bound(self, t: ir.Tile, want: Layout) -> tuple[str, int]:
        """A tile's text in the wanted layout, and how tightly it binds."""
        have = self.has(t)
        if have is None or have.converts_freely(want):
            return self.raw(t, have or want)
        return self.exchange(t, self.raw(t, have)[0], have, want), CALL

    def raw(self, t: ir.Tile, layout: Layout) -> tuple[str, int]:
        """A tile's text in the layout in which it comes."""
        if isinstance(t, ir.Name):
            if t.name in self.sizes:
                return f"full({self.tile(t, layout)}, {self.called[t.name]})", CALL
            return self.called[t.name], CALL
        if isinstance(t, ir.Constant):
            return f"full({self.tile(t, layout)}, {number(t)})", CALL
        if isinstance(t, ir.Scalar):
            return f"full({self.tile(t, layout)}, {self.extent(t.value)})", CALL
        if isinstance(t, ir.Index):
            return f"index({self.tile(t, layout)}, {t.axis})", CALL
        if isinstance(t, ir.Load):
            return self.load(t, layout), CALL
        if isinstance(t, ir.Gather):
            return self.gather(t, layout), CALL
        if isinstance(t, ir.Fold):
            return f"fold_{t.monoid}({self.show(t.tile, self.layout(t.tile))}, {t.axis})", CALL
        if isinstance(t, ir.Prefix):
            return f"running_{t.monoid}({self.show(t.tile, layout)}, {t.axis})", CALL
        if isinstance(t, ir.Dot):
            cores = t in self.layouts.cores
            a, b = self.operand(t.a, cores), self.operand(t.b, False)
            return f"dot({self.show(t.accumulator, layout)}, {a}, {b})", CALL
        if isinstance(t, ir.Broadcast):
            if isinstance(t.tile, (ir.Constant, ir.Scalar)):
                return self.raw(_reshaped(t.tile, t.shape), layout)
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
        place = self.place(t.view, tuple(t.shape), layout)
        fill = t.view.fill
        tail = f", {number(ir.Constant(fill, t.dtype))}" if any(t.view.checks) and fill != 0 else ""
        word = "take" if isinstance(t.view.memory, ir.Near) else "load"
        self.read(t.view.memory)
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
        self.read(t.memory)
        fill = f", {number(ir.Constant(t.fill, t.dtype))}" if t.mask is not None and t.fill != 0 else ""
        word = "take" if isinstance(t.memory, ir.Near) else "load"
        return f"{word}({self.tile(t, layout)}, at({', '.join([self.memory(t.memory), *index])}){fill})"

    def place(self, view: ir.View, shape: ir.TileShape, layout: Layout | None = None) -> str:
        """A view as text, noting how its memory must be aligned. The tile's layout says how many elements may go at once."""
        memory = view.memory
        axes = [f"#{k}" for k in range(len(shape))]
        if isinstance(memory, ir.Near) and not any(view.checks):
            if tuple(memory.shape) == shape and list(map(str, view.index)) == axes:
                return self.memory(memory)
            if tuple(memory.shape) == shape[::-1] and len(shape) == 2 and list(map(str, view.index)) == axes[::-1]:
                return f"transposed({self.memory(memory)})"
        strides = _row_major(memory.shape) if isinstance(memory, ir.Near) else memory.strides
        found = run_length(memory, tuple(strides), view, shape, self.steps, self.aligned)
        run, hoped = (found.sure, False) if layout is None else found.held(layout)
        if isinstance(memory, ir.Near):
            run, hoped = found.sure if layout is None else layout.run(found.sure, found.axis), False
            run = min(run, 16 // BYTES[memory.dtype.name]) if self.rings[memory].swizzled else run
        index = []
        for e, check in zip(view.index, view.checks):
            text = self.index(e, shape)
            word = "edge" if stays_above_zero(e, lambda n: n in self.natural) else "edges"
            index.append(f"{word}({text})" if check else text)
        if not isinstance(memory, ir.Near):
            root = memory.buffer.name if isinstance(memory, ir.Reshaped) else memory.name
            bytes_ = (1 if hoped else run) * BYTES[memory.dtype.name]
            self.alignments[root] = max(self.alignments.get(root, 1), bytes_)
        text = f"at({', '.join([self.memory(memory), *index])})"
        word = "upto" if hoped else "by"
        return f"{word}{run}({text})" if run > 1 else text

    def index(self, e: Extent, shape: ir.TileShape) -> str:
        """One index: as it is where it walks along the tile's axes, else a tile of numbers."""
        if walk(e) is not None:
            return self.extent(e)
        layout = self.layouts.of(shape)

        def word(name: str) -> str:
            if not name.startswith("#"):
                return self._name(name)
            k = int(name[1:])
            part = self.layouts.part(layout, tuple(n if i == k else 1 for i, n in enumerate(shape)))
            own = self.layouts.tile("i64", tuple(n if i == k else 1 for i, n in enumerate(shape)), part)
            return f"index({own}, {k})"

        return _tiled(e, word)

    def memory(self, memory: ir.Memory) -> str:
        """The name of near memory, at the tile that is meant, or of an array."""
        if isinstance(memory, ir.Near):
            ring = self.rings[memory]
            if ring.number == "":
                raise Unsupported(f"near memory {memory.name} is read after the stream that fills it")
            return f"near({self.names.of('near', memory.name.upper())}, {ring.number})"
        if memory not in self.arrays:
            root = memory.buffer if isinstance(memory, ir.Reshaped) else memory
            own = self.names.of("parameter", root.name)  # the array takes the name of its address, other shapes of it follow
            if root.name in {m.buffer.name if isinstance(m, ir.Reshaped) else m.name for m in self.arrays}:
                own = self.names.of("array", f"{own}_{len(self.arrays)}")
            record = self.names.of("record", own.upper())
            passed = [self.extent(n) for n in (*memory.shape, *memory.strides) if not isinstance(n, int)]
            extents, strides = (
                "(" + "".join(f"{n}, " if isinstance(n, int) else f'"{self.extent(n)}", ' for n in ns) + ")"
                for ns in (memory.shape, memory.strides)
            )
            written = ", written=True" if root.name in self.written else ""
            text = f'Array("{memory.dtype.name}", {extents}, {strides}{written})'
            text = text.replace(", )", ")" if len(memory.shape) > 1 else ",)")
            self.arrays[memory] = own
            address = self.names.of("parameter", root.name)
            self.definitions[record] = text, f"{own} = array({', '.join([record, address, *passed])})"
        return self.arrays[memory]

    def read(self, memory: ir.Memory) -> None:
        if isinstance(memory, ir.Near):
            ring = self.rings[memory]
            if not ring.boxed:
                self.reads.append(("read", memory.name, ring.step, ring.depth))
        else:
            root = memory.buffer.name if isinstance(memory, ir.Reshaped) else memory.name
            if root in self.written:
                self.reads.append(("read", f"global {root}", 0, 1))

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
            place = self.place(t.view, tuple(t.shape))
            if place.startswith(("near(", "transposed(")):
                self.read(t.view.memory)
                return place
        if registers and isinstance(t, ir.Name):
            return self.called[t.name]
        if registers and isinstance(t, ir.Map) and t.op in ("round_bf16", "round_f16"):
            layout = self.layouts.operand(tuple(t.shape))
            half = t.op.removeprefix("round_")
            return f"convert({self.layouts.tile(half, tuple(t.shape), layout)}, {self.show(t.operands[0], layout)})"
        raise Unsupported("a dot's operand is near memory, or on the left of tensor cores a tile rounded to f16 or bf16")

    # --- maps -------------------------------------------------------------------------------------------------------------------
    def is_number(self, t: ir.Tile) -> bool:
        """Whether a tile is written as a plain number."""
        return isinstance(t, (ir.Constant, ir.Scalar)) or (isinstance(t, ir.Name) and t.name in self.sizes)

    def operand_text(self, o: ir.Tile, layout: Layout) -> tuple[str, int]:
        if isinstance(o, ir.Constant):
            text = number(o)
            return text, UNARY if text.startswith("-") else CALL
        if isinstance(o, ir.Scalar):
            text = self.extent(o.value)
            return text, 5 if " " in text else 6 if "*" in text else CALL
        if isinstance(o, ir.Name) and o.name in self.sizes:
            return self.called[o.name], CALL
        return self.bound(o, self.layouts.part(layout, tuple(o.shape)))

    def map(self, t: ir.Map, layout: Layout) -> tuple[str, int]:
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
        texts = [text for text, _ in x]
        if t.op in INFIX:
            return self.infix(t, x)
        if t.op in ("neg", "not"):
            sign = "-" if t.op == "neg" else "~"
            return f"{sign}{_inside(x[0], UNARY)}", UNARY
        if t.op == "fma":
            return f"{_inside(x[0], 6)} * {_inside(x[1], 7)} + {_inside(x[2], 6)}", 5
        if t.op == "cast":
            word = "boolean" if t.dtype.name == "bool" else t.dtype.name
            return f"{word}({texts[0]})", CALL
        if t.op == "bitcast":
            return f"bits_{t.dtype.name}({texts[0]})", CALL
        return f"{t.op}({', '.join(texts)})", CALL

    def raw_number(self, o: ir.Tile, layout: Layout) -> tuple[str, int]:
        return self.raw(o, self.layouts.part(layout, tuple(o.shape)))

    def infix(self, t: ir.Map, x: list[tuple[str, int]]) -> tuple[str, int]:
        sign = INFIX[t.op]
        level = LEVELS.get(sign, 0)
        right = t.operands[1]
        if t.op == "div" and t.dtype.is_floating and tuple(right.shape) != tuple(t.shape) and not self.is_number(right):
            return f"{_inside(x[0], 6)} * (1.0 / {_inside(x[1], 7)})", 6  # one division for all that share a divisor
        return f"{_inside(x[0], level)} {sign} {_inside(x[1], level + 1)}", level


def _inside(x: tuple[str, int], level: int) -> str:
    return x[0] if x[1] >= max(level, 1) else f"({x[0]})"


def number(t: ir.Constant) -> str:
    """A constant as Python writes it."""
    value = t.value
    if t.dtype.kind == "bool":
        return str(bool(value))
    if not t.dtype.is_floating:
        value = int(value)
        return f"({value + 1} - 1)" if value == -(2**63) else str(value)
    value = float(value)
    return repr(value) if math.isfinite(value) else {True: "nan"}.get(value != value, "inf" if value > 0 else "-inf")


def _reshaped(t: ir.Tile, shape: ir.TileShape) -> ir.Tile:
    """A number as a tile of this shape."""
    if isinstance(t, ir.Constant):
        return ir.Constant(t.value, t.dtype, shape)
    assert isinstance(t, ir.Scalar)
    return ir.Scalar(t.value, t.dtype, shape)


def _row_major(shape: tuple[Extent, ...]) -> tuple[int, ...]:
    return tuple(math.prod(map(int, shape[i + 1 :])) for i in range(len(shape)))  # type: ignore[arg-type]


def _tiled(e: Extent, word: Callable[[str], str]) -> str:
    """An index that is no walk, over tiles of numbers."""
    if isinstance(e, int):
        return str(e)
    out = []
    for monomial, factor in e.terms.items():
        atoms = []
        for a in monomial:
            if a[0] == "name":
                atoms.append(word(a[1]))
                continue
            x, y = (_tiled(part, word) for part in a[1:])
            tile = any(n in str(part) for part in a[1:] for n in AXES)
            choice = {"min": "minimum" if tile else "smaller", "max": "maximum" if tile else "larger"}.get(a[0])
            atoms.append(f"{choice}({x}, {y})" if choice else f"(({x}) {a[0]} ({y}))")
        out.append(" * ".join([str(factor), *atoms] if factor != 1 or not atoms else atoms))
    return " + ".join(out)


