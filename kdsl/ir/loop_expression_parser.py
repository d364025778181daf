"""Reads the expressions of a loop IR text: types, indices, views of memory, tiles.

In:  a node of Python's syntax tree; what is called what, so far.  Out: records of ir/loops.py, shapes and dtypes inferred.
Read before: ir/loop_printer.py. Read next: ir/loop_parser.py.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import kdsl.dtypes as dt
from kdsl.dtypes import DType
from kdsl.ir import loops as ir
from kdsl.ir.loop_printer import INFIX
from kdsl.ir.loop_types import MONOIDS, TYPED_BY_ATTRIBUTE, arity, map_dtype
from kdsl.ir.sizes import Extent, maximum, minimum, row_major, size
from kdsl.ir.tensor import Literal

AXIS = "__axis"  # stands for the # of a tile axis, which Python takes for a comment
_OPERATORS = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.BitXor: "^",
    ast.LShift: "<<",
    ast.RShift: ">>",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
_OP_OF_SIGN = {sign: op for op, sign in INFIX.items()}
_ARITHMETIC: dict[str, Callable[[Any, Any], Extent]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv, "%": operator.mod,
}  # fmt: skip


class LoopSyntaxError(ValueError):
    """A text that is no loop IR program."""


class ExpressionParser:
    """Reads expressions. `memory` and `tiles` are what stands above; `given` the named sizes that become numbers."""

    def __init__(self, text: str, given: Mapping[str, int]) -> None:
        self.lines, self.given = text.splitlines(), given
        self.memory: dict[str, ir.Memory] = {}
        self.tiles: dict[str, tuple[ir.TileShape, DType]] = {}

    def refuse(self, node: ast.AST, message: str) -> LoopSyntaxError:
        line = getattr(node, "lineno", 0)
        return LoopSyntaxError(f"line {line}: {message}\n    {self.lines[line - 1].strip() if line else ''}")

    # --- types, indices, views -------------------------------------------------------------------------
    def type(self, node: ast.expr) -> tuple[DType, tuple[Extent, ...]]:
        if isinstance(node, ast.Subscript):
            return dt.BY_NAME[name_of(node.value)], self.extents(node.slice)
        return dt.BY_NAME[name_of(node)], ()

    def extents(self, node: ast.expr) -> tuple[Extent, ...]:
        return tuple(map(self.extent, node.elts if isinstance(node, ast.Tuple) else [node]))

    def extent(self, node: ast.expr) -> Extent:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return node.value
        if isinstance(node, (ast.Name, ast.Attribute)):
            name = re.sub(f"^{AXIS}", "#", name_of(node))
            return self.given[name] if name in self.given else size(name)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return 0 - self.extent(node.operand)
        if isinstance(node, ast.BinOp):
            a, b = self.extent(node.left), self.extent(node.right)
            sign = _OPERATORS[type(node.op)]
            if sign in _ARITHMETIC:
                return _ARITHMETIC[sign](a, b)
        if isinstance(node, ast.Call) and name_of(node.func) in ("min", "max"):
            return (minimum if name_of(node.func) == "min" else maximum)(*map(self.extent, node.args))
        raise self.refuse(node, "no index expression")

    def memory_of(self, node: ast.expr) -> ir.Memory:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "view":
            buffer, shape = self.memory_of(node.func.value), self.extents(node.args[0])
            assert isinstance(buffer, ir.Buffer)
            strides = self.extents(node.keywords[0].value) if node.keywords else row_major(shape)
            return ir.Reshaped(buffer, shape, strides)
        name = name_of(node)
        if name not in self.memory:
            raise self.refuse(node, f"no memory is called {name}")
        return self.memory[name]

    def view(self, node: ast.expr, fill: Literal) -> ir.View:
        if not isinstance(node, ast.Subscript):
            raise self.refuse(node, "a view is memory[index, …]")
        memory, index, check = self.memory_of(node.value), [], []
        for e in node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]:
            edge = isinstance(e, ast.Call) and name_of(e.func) == "edge"
            index.append(self.extent(e.args[0] if edge and isinstance(e, ast.Call) else e))
            check.append(edge)
        if memory.dtype.is_floating:
            fill = float(fill)
        elif memory.dtype.kind == "bool":
            fill = bool(fill)
        return ir.View(memory, tuple(index), tuple(check), fill)

    # --- tiles -----------------------------------------------------------------------------------------
    def tile(self, node: ast.expr) -> ir.Tile:
        if isinstance(node, ast.Name):
            if node.id not in self.tiles:
                raise self.refuse(node, f"no tile is called {node.id}")
            return ir.Name(node.id, *self.tiles[node.id])
        if isinstance(node, ast.BinOp):
            return self.map(node, _OP_OF_SIGN[_OPERATORS[type(node.op)]], [node.left, node.right])
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            return self.map(node, _OP_OF_SIGN[_OPERATORS[type(node.ops[0])]], [node.left, *node.comparators])
        if isinstance(node, ast.UnaryOp):
            return self.map(node, "neg" if isinstance(node.op, ast.USub) else "not", [node.operand])
        if isinstance(node, ast.Call):
            return self.call(node, name_of(node.func), node.args, {str(k.arg): k.value for k in node.keywords})
        raise self.refuse(node, "no tile")

    def call(self, node: ast.Call, f: str, x: list[ast.expr], options: dict[str, ast.expr]) -> ir.Tile:
        if f in dt.BY_NAME:
            return _constant(literal_of(x[0]), dt.BY_NAME[f], ())
        if f == "full":
            return _constant(literal_of(x[0]), dt.BY_NAME[name_of(x[2])], ast.literal_eval(x[1]))
        if f == "load":
            return ir.Load(
                self.view(x[0], literal_of(options["fill"]) if "fill" in options else 0), ast.literal_eval(x[1])
            )
        if f == "scalar":
            return ir.Scalar(self.extent(x[0]), dt.BY_NAME[name_of(x[1])] if len(x) > 1 else dt.i64)
        if f == "index":
            return ir.Index(
                ast.literal_eval(x[0]),
                ast.literal_eval(x[1]),
                dt.BY_NAME[name_of(x[2])] if len(x) > 2 else dt.i64,
            )
        word, _, monoid = f.partition("_")
        if word in ("fold", "prefix") and monoid in MONOIDS:
            numbers = map(ast.literal_eval, x[1:])
            return (ir.Fold if word == "fold" else ir.Prefix)(monoid, self.tile(x[0]), *numbers)
        if f == "dot":
            return ir.Dot(*map(self.tile, x))
        if f == "permute":
            return ir.Permute(self.tile(x[0]), ast.literal_eval(x[1]))
        if f == "slice":
            return ir.Slice(self.tile(x[0]), ast.literal_eval(x[1]), ast.literal_eval(x[2]))
        if f == "broadcast":
            return ir.Broadcast(self.tile(x[0]), ast.literal_eval(x[1]))
        if f == "convert":
            return ir.Convert(ast.literal_eval(x[0]), self.tile(x[1]))
        if f == "gather":
            mask = self.tile(options["mask"]) if "mask" in options else None
            memory, indices = self.memory_of(x[0]), tuple(map(self.tile, getattr(x[1], "elts", [])))
            return ir.Gather(
                memory,
                indices,
                ast.literal_eval(x[2]),
                mask,
                literal_of(options["fill"]) if "fill" in options else 0,
            )
        return self.map(node, f, x)

    def map(self, node: ast.expr, op: str, x: list[ast.expr]) -> ir.Map:
        typed = op in TYPED_BY_ATTRIBUTE
        if arity(op) != len(x) - typed:
            raise self.refuse(node, f"no map {op} has {len(x) - typed} operands")
        if typed:
            return ir.Map(op, (self.tile(x[0]),), dt.BY_NAME[name_of(x[1])])
        literals = [literal_of(o) for o in x]
        tiles = [None if v is not None else self.tile(o) for o, v in zip(x, literals, strict=True)]
        beside = [t for t in tiles[1 if op == "where" else 0 :] if t is not None]
        if not beside:
            raise self.refuse(node, f"the numbers of {op} have no dtype")
        operands = tuple(
            _constant(v, beside[0].dtype, ()) if t is None else t
            for t, v in zip(tiles, literals, strict=True)
        )
        dtype = map_dtype(op, [t.dtype for t in operands])
        if dtype is None:
            raise self.refuse(node, f"{op} of {', '.join(t.dtype.name for t in operands)}")
        return ir.Map(op, operands, dtype)


def _constant(value: Any, dtype: DType, shape: ir.TileShape) -> ir.Constant:
    return ir.Constant(
        float(value) if dtype.is_floating else bool(value) if dtype.kind == "bool" else int(value),
        dtype,
        tuple(shape),
    )


def name_of(node: ast.AST) -> str:
    """The name that a node is, with its dots; '' for anything else."""
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def literal_of(node: ast.expr) -> Any:
    """The Python number that a node is, or None."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = literal_of(node.operand)
        return None if inner is None else -inner
    if isinstance(node, ast.Name) and node.id in ("inf", "nan"):
        return float(node.id)
    return (
        node.value if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)) else None
    )
