"""Loop IR as text that a person reads and writes: Python's grammar, one line a statement, and loop_parser.py reads it back.

    program("softmax", N)

    x = argument(f32[N, 100])
    y = result(f32[N, 100])

    @kernel("kernel", N)
    def softmax(x, y):
        for i in parallel(0, N, 1):
            for c in stream(0, 100, 32, top=full(-inf, (1, 32), f32)):
                next(top=maximum(top, load(x[i, edge(#1 + c)], (1, 32), fill=-inf)))
            m = fold_max(top, 1)

`#1` is the position along axis 1 of the tile; `edge(e)` marks a checked index; `next` gives carried tiles their next values;
a bare number beside a tile has that tile's dtype. Places in the user's source are not printed.
In:  a Program.  Out: its text.  Read before: ir/loops.py. Read next: ir/loop_parser.py.
"""

from __future__ import annotations

import math
from typing import Any

import kdsl.dtypes as dt
from kdsl.dtypes import DType
from kdsl.ir import loops as ir
from kdsl.ir.interpreter_memory import LoopError
from kdsl.ir.loop_types import TYPED_BY_ATTRIBUTE
from kdsl.ir.sizes import row_major
from kdsl.ir.tensor import Literal, Shape

INFIX = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "floor_div": "//",
    "mod": "%",
    "pow": "**",
    "and": "&",
    "or": "|",
    "xor": "^",
    "shl": "<<",
    "shr": ">>",
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
}
PREFIX = {"neg": "-", "not": "~"}
SMALL_CONSTANT = 64  # elements of a program constant that are written out


def show_loops(program: ir.Program) -> str:
    """The text of a program; the same program always gives the same text."""
    lines = [f"program({', '.join([repr(program.name), *program.sizes])})", ""]
    lines += [f"{b.name} = {_buffer(b, program)}" for b in program.buffers]
    for kernel in program.kernels:
        lines += ["", *_kernel(kernel)]
    return "\n".join(lines) + "\n"


def _buffer(buffer: ir.Buffer, program: ir.Program) -> str:
    text = f"{buffer.role}({_type(buffer.dtype, buffer.shape)}"
    if buffer.role == "constant":
        array = program.constants[buffer.number]
        text += f", {array.tolist()}" if array.size <= SMALL_CONSTANT else ", ..."
    if buffer.strides != row_major(buffer.shape):
        text += f", strides={_tuple(buffer.strides)}"
    same = [b for b in program.buffers if b.role == buffer.role]
    if buffer.number != same.index(buffer):
        text += f", number={buffer.number}"
    return text + ")"


def _kernel(kernel: ir.Kernel) -> list[str]:
    options = [repr(kernel.kind), *kernel.sizes]
    options += [f"{key}={value}" for key in ("bytes", "operations") if (value := getattr(kernel, key)) != 0]
    options += [f"notes={kernel.notes!r}"] if kernel.notes else []
    options += [f"schedule={kernel.schedule!r}"] if kernel.schedule else []
    names = ", ".join(b.name for b in kernel.buffers)
    return [f"@kernel({', '.join(options)})", f"def {kernel.name}({names}):", *_body(kernel.body)]


def _body(statements: tuple[ir.Statement, ...], carries: tuple[ir.Carry, ...] = ()) -> list[str]:
    lines = [line for statement in statements for line in _statement(statement)]
    if carries:
        lines.append(f"next({', '.join(f'{c.name}={show_tile(c.next)}' for c in carries)})")
    return ["    " + line for line in lines or ["pass"]]


def _statement(s: ir.Statement) -> list[str]:
    if isinstance(s, ir.Parallel):
        return [f"for {s.index} in parallel({s.lo}, {s.hi}, {s.tile}):", *_body(s.body)]
    if isinstance(s, ir.Stream):
        options = [] if s.order == "any" else [f"order={s.order!r}"]
        options += [f"{c.name}={show_tile(c.init)}" for c in s.carries]
        return [
            f"for {s.index} in stream({', '.join([str(s.lo), str(s.hi), str(s.tile), *options])}):",
            *_body(s.body, s.carries),
        ]
    if isinstance(s, ir.If):
        return [f"if {show_tile(s.condition)}:", *_body(s.body)]
    if isinstance(s, ir.Let):
        return [f"{s.name} = {show_tile(s.tile)}"]
    if isinstance(s, ir.Near):
        return [f"{s.name} = near({_type(s.dtype, s.shape)})"]
    if isinstance(s, ir.Put):
        return [f"put({_view(s.view)}, {show_tile(s.tile)})"]
    if isinstance(s, ir.Store):
        return [f"store({_view(s.view)}, {show_tile(s.tile)})"]
    if isinstance(s, ir.Copy):
        depth = f", depth={s.depth}" if s.depth != 1 else ""
        return [
            f"copy({_view(ir.View(s.near, s.index))}, {_view(s.view)}, {_tuple(s.shape)}{depth}{_fill(s.view.fill)})"
        ]
    if isinstance(s, ir.Prefetch):
        return [f"prefetch({_view(s.view)}, {_tuple(s.shape)})"]
    raise LoopError(f"no text for {type(s).__name__}")


def show_tile(t: ir.Tile, inside: bool = False) -> str:
    """A tile expression; `inside` another one, infix operators get parentheses."""
    if isinstance(t, ir.Name):
        return t.name
    if isinstance(t, ir.Load):
        return f"load({_view(t.view)}, {_tuple(t.shape)}{_fill(t.view.fill)})"
    if isinstance(t, ir.Constant):
        return (
            f"full({_literal(t.value)}, {_tuple(t.shape)}, {t.dtype.name})"
            if t.shape
            else f"{t.dtype.name}({_literal(t.value)})"
        )
    if isinstance(t, ir.Scalar):
        return f"scalar({t.value}{_integer(t.dtype)})"
    if isinstance(t, ir.Index):
        return f"index({t.axis}, {_tuple(t.shape)}{_integer(t.dtype)})"
    if isinstance(t, ir.Map):
        return _map(t, inside)
    if isinstance(t, (ir.Fold, ir.Prefix)):
        parts = f", {t.parts}" if isinstance(t, ir.Fold) and t.parts > 1 else ""
        return f"{type(t).__name__.lower()}_{t.monoid}({show_tile(t.tile)}, {t.axis}{parts})"
    if isinstance(t, ir.Dot):
        return f"dot({show_tile(t.accumulator)}, {show_tile(t.a)}, {show_tile(t.b)})"
    if isinstance(t, ir.Permute):
        return f"permute({show_tile(t.tile)}, {_tuple(t.axes)})"
    if isinstance(t, ir.Slice):
        return f"slice({show_tile(t.tile)}, {_tuple(t.start)}, {_tuple(t.shape)})"
    if isinstance(t, ir.Broadcast):
        return f"broadcast({show_tile(t.tile)}, {_tuple(t.shape)})"
    if isinstance(t, ir.Gather):
        mask = "" if t.mask is None else f", mask={show_tile(t.mask)}"
        return f"gather({_memory(t.memory)}, ({', '.join(map(show_tile, t.indices))},), {_tuple(t.shape)}{mask}{_fill(t.fill)})"
    if isinstance(t, ir.Convert):
        return f"convert({str(t.layout)!r}, {show_tile(t.tile)})"
    raise LoopError(f"no text for {type(t).__name__}")


def _map(t: ir.Map, inside: bool) -> str:
    constant = [isinstance(o, ir.Constant) and not o.shape for o in t.operands]
    bare = bare_operands(t.op, constant)
    nested = t.op in INFIX or t.op in PREFIX
    x = [
        _literal(o.value) if alone and isinstance(o, ir.Constant) else show_tile(o, nested)
        for o, alone in zip(t.operands, bare, strict=True)
    ]
    if t.op in INFIX:
        text = f"{x[0]} {INFIX[t.op]} {x[1]}"
        return f"({text})" if inside else text
    if t.op in PREFIX:
        return f"({PREFIX[t.op]}{x[0]})" if inside else f"{PREFIX[t.op]}{x[0]}"
    return f"{t.op}({', '.join(x + [t.dtype.name] * (t.op in TYPED_BY_ATTRIBUTE))})"


def bare_operands(op: str, constant: list[bool]) -> list[bool]:
    """Which 0-d constants stand as bare numbers: those beside another operand that has their dtype by rule."""
    first = 1 if op == "where" else 0
    if op == "philox" or len(constant) - first < 2 or all(constant[first:]):
        return [False] * len(constant)
    return [c and i >= first for i, c in enumerate(constant)]


def _view(view: ir.View) -> str:
    index = [f"edge({e})" if check else str(e) for e, check in zip(view.index, view.checks, strict=True)]
    return f"{_memory(view.memory)}[{', '.join(index) or '()'}]"


def _memory(memory: ir.Memory) -> str:
    if not isinstance(memory, ir.Reshaped):
        return memory.name
    strides = "" if memory.strides == row_major(memory.shape) else f", strides={_tuple(memory.strides)}"
    return f"{memory.name}.view({_tuple(memory.shape)}{strides})"


def _type(dtype: DType, shape: Shape) -> str:
    return f"{dtype.name}[{', '.join(map(str, shape))}]" if shape else dtype.name


def _tuple(items: Any) -> str:
    return f"({', '.join(map(str, items))}{',' if len(items) == 1 else ''})"


def _literal(value: Literal) -> str:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else repr(value)


def _fill(fill: Literal) -> str:
    return "" if fill == 0 and str(fill) in ("0", "0.0", "False") else f", fill={_literal(fill)}"


def _integer(dtype: DType) -> str:
    return "" if dtype is dt.i64 else f", {dtype.name}"
