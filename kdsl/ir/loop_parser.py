"""Reads the text that loop_printer.py writes, so that programs can be written by hand.

In:  a text.  Out: a Program, not yet verified.  A mistake is a LoopSyntaxError with the line.
Python's own parser does the reading (`#1` is made a name first); shapes and dtypes of tiles are inferred.
Read before: ir/loop_printer.py. Read next: tests/ir/programs/.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

import kdsl.dtypes as dt
from kdsl.dtypes import DType
from kdsl.ir import loops as ir
from kdsl.ir.loop_printer import INFIX
from kdsl.ir.loop_types import MONOIDS, TYPED_BY_ATTRIBUTE, arity, map_dtype
from kdsl.ir.sizes import Extent, maximum, minimum, row_major, size
from kdsl.ir.tensor import Literal

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
_AXIS = "__axis"


class LoopSyntaxError(ValueError):
    """A text that is no loop IR program."""


def parse_loops(text: str, sizes: Mapping[str, int] | None = None) -> ir.Program:
    """The program of a text; named sizes that are given a value become numbers wherever they stand."""
    try:
        tree = ast.parse(re.sub(r"#(\d)", rf"{_AXIS}\1", text))
    except SyntaxError as error:
        raise LoopSyntaxError(f"line {error.lineno}: {error.msg}") from error
    return _Parser(text, sizes or {}).program(tree)


class _Parser:
    def __init__(self, text: str, given: Mapping[str, int]) -> None:
        self.lines, self.given = text.splitlines(), given
        self.memory: dict[str, ir.Memory] = {}
        self.tiles: dict[str, tuple[ir.TileShape, DType]] = {}

    def refuse(self, node: ast.AST, message: str) -> LoopSyntaxError:
        line = getattr(node, "lineno", 0)
        return LoopSyntaxError(f"line {line}: {message}\n    {self.lines[line - 1].strip() if line else ''}")

    # --- the program -----------------------------------------------------------------------------------
    def program(self, tree: ast.Module) -> ir.Program:
        name, buffers, constants, kernels = "", [], [], []
        sizes: tuple[str, ...] = ()
        counts: dict[str, int] = {}
        for node in tree.body:
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Call)
                and _name(node.value.func) == "program"
            ):
                first, *rest = node.value.args
                name, sizes = ast.literal_eval(first), self.names(rest)
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                buffer, value = self.buffer(_name(node.targets[0]), node.value, counts)
                buffers.append(buffer)
                constants += [value] if buffer.role == "constant" else []
                self.memory[buffer.name] = buffer
            elif isinstance(node, ast.FunctionDef):
                kernels.append(self.kernel(node))
            else:
                raise self.refuse(node, "neither program(…), a buffer nor a kernel")
        return ir.Program(name, tuple(buffers), tuple(kernels), sizes, tuple(constants))

    def buffer(self, name: str, call: ast.Call, counts: dict[str, int]) -> tuple[ir.Buffer, Any]:
        role, options = _name(call.func), {k.arg: k.value for k in call.keywords}
        if role not in ("argument", "result", "temporary", "constant"):
            raise self.refuse(call, f"{role} is no kind of buffer")
        dtype, shape = self.type(call.args[0])
        number = counts.get(role, 0)
        counts[role] = number + 1
        if "number" in options:
            number = ast.literal_eval(options["number"])
        strides = self.extents(options["strides"]) if "strides" in options else row_major(shape)
        value = None
        if role == "constant":
            if isinstance(call.args[1], ast.Constant):
                raise self.refuse(call, f"the elements of {name} are not in the text")
            value = np.array(_values(call.args[1]), dtype.numpy)
        return ir.Buffer(name, dtype, shape, strides, role, number), value

    def kernel(self, node: ast.FunctionDef) -> ir.Kernel:
        for argument in node.args.args:
            if argument.arg not in self.memory:
                raise self.refuse(argument, f"no buffer is called {argument.arg}")
        buffers = tuple(self.memory[a.arg] for a in node.args.args)
        outer, self.memory, self.tiles = self.memory, dict(self.memory), {}
        call = node.decorator_list[0]
        assert isinstance(call, ast.Call)
        options: dict[str, Any] = {}
        for k in call.keywords:
            assert k.arg
            options[k.arg] = (
                self.extent(k.value) if k.arg in ("bytes", "operations") else ast.literal_eval(k.value)
            )
        body, _ = self.body(node.body)
        self.memory = outer
        kind, *sizes = call.args
        return ir.Kernel(node.name, buffers, self.names(sizes), body, kind=ast.literal_eval(kind), **options)  # type: ignore[arg-type]

    # --- statements ------------------------------------------------------------------------------------
    def body(
        self, nodes: list[ast.stmt], carries: tuple[str, ...] = ()
    ) -> tuple[tuple[ir.Statement, ...], list[ir.Tile]]:
        """The statements of a body, and the next values of the carries, which its last line gives."""
        if carries:
            *nodes, last = nodes
            call = last.value if isinstance(last, ast.Expr) else None
            if (
                not isinstance(call, ast.Call)
                or _name(call.func) != "next"
                or [k.arg for k in call.keywords] != list(carries)
            ):
                raise self.refuse(
                    last,
                    f"a stream that carries {', '.join(carries)} ends with next({'=…, '.join(carries)}=…)",
                )
        statements = tuple(self.statement(n) for n in nodes if not isinstance(n, ast.Pass))
        return statements, [self.tile(k.value) for k in call.keywords] if carries else []  # type: ignore[union-attr]

    def statement(self, node: ast.stmt) -> ir.Statement:
        if isinstance(node, ast.For) and isinstance(node.iter, ast.Call):
            return self.loop(node, node.iter)
        if isinstance(node, ast.If) and not node.orelse:
            return ir.If(self.tile(node.test), self.body(node.body)[0])
        if isinstance(node, ast.Assign):
            return self.let(_name(node.targets[0]), node.value)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            return self.effect(node.value)
        raise self.refuse(node, "no statement")

    def loop(self, node: ast.For, call: ast.Call) -> ir.Parallel | ir.Stream:
        index, kind = _name(node.target), _name(call.func)
        lo, hi, step = map(self.extent, call.args)
        if not isinstance(step, int) or kind not in ("parallel", "stream"):
            raise self.refuse(
                call, "a loop is parallel(lo, hi, tile) or stream(lo, hi, tile, …) with a fixed tile"
            )
        if kind == "parallel":
            return ir.Parallel(index, lo, hi, step, self.body(node.body)[0])
        inits = {str(k.arg): self.tile(k.value) for k in call.keywords if k.arg != "order"}
        order = next((ast.literal_eval(k.value) for k in call.keywords if k.arg == "order"), "any")
        self.tiles.update((n, (t.shape, t.dtype)) for n, t in inits.items())
        body, nexts = self.body(node.body, tuple(inits))
        carries = tuple(ir.Carry(n, t, x) for (n, t), x in zip(inits.items(), nexts, strict=True))
        return ir.Stream(index, lo, hi, step, body, carries, order)

    def let(self, name: str, value: ast.expr) -> ir.Let | ir.Near:
        if isinstance(value, ast.Call) and _name(value.func) == "near":
            near = ir.Near(name, *self.type(value.args[0]))
            self.memory[name] = near
            return near
        tile = self.tile(value)
        self.tiles[name] = tuple(tile.shape), tile.dtype
        return ir.Let(name, tile)

    def effect(self, call: ast.Call) -> ir.Statement:
        kind, options = _name(call.func), {str(k.arg): _literal(k.value) for k in call.keywords}
        view = self.view(call.args[0], options.pop("fill", 0) if kind == "prefetch" else 0)
        if kind == "store":
            return ir.Store(view, self.tile(call.args[1]))
        if kind == "put" and isinstance(view.memory, ir.Near):
            return ir.Put(view.memory, view.index, self.tile(call.args[1]), view.check)
        if kind == "copy" and isinstance(view.memory, ir.Near):
            source = self.view(call.args[1], options.get("fill", 0))
            return ir.Copy(
                view.memory, view.index, source, ast.literal_eval(call.args[2]), int(options.get("depth", 1))
            )
        if kind == "prefetch":
            return ir.Prefetch(view, ast.literal_eval(call.args[1]))
        raise self.refuse(call, f"{kind} is no statement")

    def names(self, nodes: list[ast.expr]) -> tuple[str, ...]:
        """Named sizes that stay named."""
        return tuple(n for n in map(_name, nodes) if n not in self.given)

    # --- types, indices, views -------------------------------------------------------------------------
    def type(self, node: ast.expr) -> tuple[DType, tuple[Extent, ...]]:
        if isinstance(node, ast.Subscript):
            return dt.BY_NAME[_name(node.value)], self.extents(node.slice)
        return dt.BY_NAME[_name(node)], ()

    def extents(self, node: ast.expr) -> tuple[Extent, ...]:
        return tuple(map(self.extent, node.elts if isinstance(node, ast.Tuple) else [node]))

    def extent(self, node: ast.expr) -> Extent:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return node.value
        if isinstance(node, (ast.Name, ast.Attribute)):
            name = re.sub(f"^{_AXIS}", "#", _name(node))
            return self.given[name] if name in self.given else size(name)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return 0 - self.extent(node.operand)
        if isinstance(node, ast.BinOp):
            a, b = self.extent(node.left), self.extent(node.right)
            sign = _OPERATORS[type(node.op)]
            if sign in ("+", "-", "*", "//", "%"):
                return {
                    "+": lambda: a + b,
                    "-": lambda: a - b,
                    "*": lambda: a * b,
                    "//": lambda: a // b,
                    "%": lambda: a % b,
                }[sign]()
        if isinstance(node, ast.Call) and _name(node.func) in ("min", "max"):
            return (minimum if _name(node.func) == "min" else maximum)(*map(self.extent, node.args))
        raise self.refuse(node, "no index expression")

    def memory_of(self, node: ast.expr) -> ir.Memory:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "view":
            buffer, shape = self.memory_of(node.func.value), self.extents(node.args[0])
            assert isinstance(buffer, ir.Buffer)
            strides = self.extents(node.keywords[0].value) if node.keywords else row_major(shape)
            return ir.Reshaped(buffer, shape, strides)
        name = _name(node)
        if name not in self.memory:
            raise self.refuse(node, f"no memory is called {name}")
        return self.memory[name]

    def view(self, node: ast.expr, fill: Literal) -> ir.View:
        if not isinstance(node, ast.Subscript):
            raise self.refuse(node, "a view is memory[index, …]")
        memory, index, check = self.memory_of(node.value), [], []
        for e in node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]:
            edge = isinstance(e, ast.Call) and _name(e.func) == "edge"
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
            return self.call(node, _name(node.func), node.args, {str(k.arg): k.value for k in node.keywords})
        raise self.refuse(node, "no tile")

    def call(self, node: ast.Call, f: str, x: list[ast.expr], options: dict[str, ast.expr]) -> ir.Tile:
        if f in dt.BY_NAME:
            return _constant(_literal(x[0]), dt.BY_NAME[f], ())
        if f == "full":
            return _constant(_literal(x[0]), dt.BY_NAME[_name(x[2])], ast.literal_eval(x[1]))
        if f == "load":
            return ir.Load(
                self.view(x[0], _literal(options["fill"]) if "fill" in options else 0), ast.literal_eval(x[1])
            )
        if f == "scalar":
            return ir.Scalar(self.extent(x[0]), dt.BY_NAME[_name(x[1])] if len(x) > 1 else dt.i64)
        if f == "index":
            return ir.Index(
                ast.literal_eval(x[0]),
                ast.literal_eval(x[1]),
                dt.BY_NAME[_name(x[2])] if len(x) > 2 else dt.i64,
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
                _literal(options["fill"]) if "fill" in options else 0,
            )
        return self.map(node, f, x)

    def map(self, node: ast.expr, op: str, x: list[ast.expr]) -> ir.Map:
        typed = op in TYPED_BY_ATTRIBUTE
        if arity(op) != len(x) - typed:
            raise self.refuse(node, f"no map {op} has {len(x) - typed} operands")
        if typed:
            return ir.Map(op, (self.tile(x[0]),), dt.BY_NAME[_name(x[1])])
        literals = [_literal(o) for o in x]
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


def _name(node: ast.AST) -> str:
    """The name that a node is, with its dots; '' for anything else."""
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _literal(node: ast.expr) -> Any:
    """The Python number that a node is, or None."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _literal(node.operand)
        return None if inner is None else -inner
    if isinstance(node, ast.Name) and node.id in ("inf", "nan"):
        return float(node.id)
    return (
        node.value if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)) else None
    )


def _values(node: ast.expr) -> Any:
    return [_values(e) for e in node.elts] if isinstance(node, ast.List) else _literal(node)
