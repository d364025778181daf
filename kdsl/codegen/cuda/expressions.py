"""Tile expressions as text of a kernel's source: operators where Python has them, macro calls elsewhere.

In:  a tile of the loop IR.  Out: its text, and which near memory it reads (for the barriers).
exp and log are written with the machine's exp2 and log2, divisions with its reciprocal (docs/numerics.md has the bounds).
Read before: macros.py, choose_layouts.py. Read next: emit.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kdsl.codegen.cuda.addresses import Place, place, show
from kdsl.codegen.cuda.choose_layouts import Layouts, Unsupported
from kdsl.codegen.cuda.layout import accumulator, blocked
from kdsl.ir import loops as ir

INFIX = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "eq": "==",
    "ne": "!=",
    "and": "&",
    "or": "|",
}
CALLS = ("maximum", "where", "exp2", "log2", "rsqrt")
Read = tuple[ir.Near, str, Any]  # the ring, its name, the tile number


class Expressions:
    def __init__(
        self, layouts: Layouts, steps: dict[str, int], written: set[str], tiles: Sequence[ir.Tile]
    ) -> None:
        self.layouts, self.steps, self.written = layouts, steps, written
        self.arrays: dict[str, str] = {}
        self.numbers: dict[
            ir.Near, tuple[str, Any]
        ] = {}  # the tile of a ring that is read: its text, and as a function of the step
        self.left = {t.a.name for t in tiles if isinstance(t, ir.Dot) and isinstance(t.a, ir.Name)}
        self.reads: list[Read] = []

    def text(self, tile: ir.Tile, name: str = "") -> tuple[str, list[Read]]:
        """The text of a tile, which a Let calls `name`, and the near memory that it reads."""
        self.reads = []
        if name in self.left and isinstance(tile, ir.Load) and isinstance(tile.view.memory, ir.Near):
            return (
                f"take({self.layouts.operand(tile.shape)}, {self.near(tile)})",
                self.reads,
            )  # a dot's left operand, read once
        return self.show(tile), self.reads

    def use(self, at: Place) -> None:
        dtype = at.array.partition("_BY_")[0].lower()
        self.arrays[at.array] = f'Array("{dtype}", {at.vector})'

    def stays_in_warp(self, fold: ir.Fold) -> bool:
        rows, columns = fold.tile.shape
        down, across = self.layouts.warps
        if self.layouts.has_dot:
            layout = accumulator(rows, columns, (down, across))
        else:
            layout = blocked(rows, columns, down * across, min(4, columns))
        return not layout.crosses_warps(fold.axis)

    def show(self, t: ir.Tile, inside: bool = False) -> str:
        if isinstance(t, ir.Name):
            return t.name
        if isinstance(t, ir.Constant):
            return f"full({self.layouts.tile(t.shape)}, {t.value!r})" if t.shape else repr(t.value)
        if isinstance(t, ir.Scalar):
            text = show(t.value)
            return f"({text})" if inside and " " in text else text
        if isinstance(t, ir.Index):
            return f"index({self.layouts.tile(t.shape)}, {t.axis})"
        if isinstance(t, ir.Load):
            return self.load(t)
        if isinstance(t, ir.Fold) and t.monoid in ("sum", "max"):
            return f"fold_{t.monoid}({self.show(t.tile)}, {t.axis})"
        if isinstance(t, ir.Dot):
            return f"dot({self.show(t.accumulator)}, {self.operand(t.a, True)}, {self.operand(t.b, False)})"
        if isinstance(t, ir.Broadcast):
            return f"expand({self.layouts.tile(t.shape)}, {self.show(t.tile)})"
        if isinstance(t, ir.Map):
            return self.map(t, inside)
        raise Unsupported(f"a {type(t).__name__} in a CUDA kernel")

    def load(self, t: ir.Load) -> str:
        if isinstance(t.view.memory, ir.Near):
            return f"take({self.layouts.tile(t.shape)}, {self.near(t)})"
        if t.view.memory.name in self.written:
            raise Unsupported(f"{t.view.memory.name} is read by the kernel that writes it")
        at = place(t.view, t.shape, self.steps)
        self.use(at)
        return f"load({self.layouts.tile(t.shape)}, {at.view}, {at.row}, {at.column}, {float(t.view.fill)!r})"

    def near(self, t: ir.Load) -> str:
        """Near memory as a load names it: as it lies, or transposed."""
        memory = t.view.memory
        assert isinstance(memory, ir.Near)
        walk = tuple(map(str, t.view.index))
        shapes = {("#0", "#1"): tuple(memory.shape), ("#1", "#0"): tuple(memory.shape)[::-1]}
        whole = next((n for w, n in shapes.items() if w == walk), None)
        if whole != tuple(t.shape):
            raise Unsupported(
                f"a load of {t.shape} from near memory {memory.name}[{', '.join(walk)}] of {memory.shape}"
            )
        number, step = self.numbers.get(memory, ("0", 0))
        if number == "":
            raise Unsupported(f"near memory {memory.name} is read after the stream that fills it")
        self.reads.append((memory, memory.name, step))
        text = f"near({memory.name.upper()}, {number})"
        return text if walk == ("#0", "#1") else f"transposed({text})"

    def operand(self, t: ir.Tile, left: bool) -> str:
        """An operand of a dot: near memory, or (on the left) a bf16 tile in registers."""
        if (
            isinstance(t, ir.Load)
            and isinstance(t.view.memory, ir.Near)
            and t.view.memory.dtype.name == "bf16"
        ):
            return self.near(t)
        if left and (isinstance(t, ir.Name) or (isinstance(t, ir.Map) and t.op == "round_bf16")):
            return self.show(t)
        raise Unsupported("a dot's operand is bf16 near memory, or on the left a tile rounded to bf16")

    def map(self, t: ir.Map, inside: bool) -> str:
        operator = t.op in INFIX or t.op in ("fma", "neg", "div", "exp")
        x = [self.show(o, inside=operator) for o in t.operands]
        partial = [i for i, o in enumerate(t.operands) if o.shape and o.shape != t.shape]
        if partial and t.shape not in [o.shape for o in t.operands]:
            x[partial[0]] = f"expand({self.layouts.tile(t.shape)}, {x[partial[0]]})"  # a row beside a column
        if t.op == "div" and x[0] == "1.0":
            return f"reciprocal({self.show(t.operands[1])})"
        if t.op in INFIX:
            text = f"{x[0]} {INFIX[t.op]} {x[1]}"
        elif t.op == "fma":
            text = f"{x[0]} * {x[1]} + {x[2]}"
        elif t.op == "neg":
            text = f"{x[0]} * -1.0"
        elif t.op == "log":
            text = f"log2({x[0]}) * LN2"
        elif t.op == "div":
            text = f"{x[0]} * reciprocal({self.show(t.operands[1])})"
        else:
            return self.call(t, x)
        return f"({text})" if inside else text

    def call(self, t: ir.Map, x: list[str]) -> str:
        if t.op == "exp":
            return f"exp2({x[0]} * LOG2E)"
        if t.op == "round_bf16":
            return f"convert({self.layouts.operand(t.shape)}, {x[0]})"
        if t.op in CALLS:
            return f"{t.op}({', '.join(x)})"
        raise Unsupported(f"{t.op} in a CUDA kernel")
