"""Reads the text that loop_printer.py writes, so that programs can be written by hand.

In:  a text.  Out: a Program, not yet verified.  A mistake is a LoopSyntaxError with the line.
Python's own parser does the reading (`#1` is made a name first); shapes and dtypes of tiles are inferred.
Read before: ir/loop_expression_parser.py. Read next: tests/ir/programs/.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from kdsl.ir import loops as ir
from kdsl.ir.loop_expression_parser import AXIS, ExpressionParser, LoopSyntaxError, literal_of, name_of
from kdsl.ir.sizes import row_major


def parse_loops(text: str, sizes: Mapping[str, int] | None = None) -> ir.Program:
    """The program of a text; named sizes that are given a value become numbers wherever they stand."""
    try:
        tree = ast.parse(re.sub(r"#(\d)", rf"{AXIS}\1", text))
    except SyntaxError as error:
        raise LoopSyntaxError(f"line {error.lineno}: {error.msg}") from error
    return _Parser(text, sizes or {}).program(tree)


class _Parser(ExpressionParser):
    """Reads programs and the statements of their kernels."""

    def program(self, tree: ast.Module) -> ir.Program:
        name, buffers, constants, kernels = "", [], [], []
        sizes: tuple[str, ...] = ()
        counts: dict[str, int] = {}
        for node in tree.body:
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Call)
                and name_of(node.value.func) == "program"
            ):
                first, *rest = node.value.args
                name, sizes = ast.literal_eval(first), self.names(rest)
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                buffer, value = self.buffer(name_of(node.targets[0]), node.value, counts)
                buffers.append(buffer)
                constants += [value] if buffer.role == "constant" else []
                self.memory[buffer.name] = buffer
            elif isinstance(node, ast.FunctionDef):
                kernels.append(self.kernel(node))
            else:
                raise self.refuse(node, "neither program(…), a buffer nor a kernel")
        return ir.Program(name, tuple(buffers), tuple(kernels), sizes, tuple(constants))

    def buffer(self, name: str, call: ast.Call, counts: dict[str, int]) -> tuple[ir.Buffer, Any]:
        role, options = name_of(call.func), {k.arg: k.value for k in call.keywords}
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
                or name_of(call.func) != "next"
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
            return self.let(name_of(node.targets[0]), node.value)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            return self.effect(node.value)
        raise self.refuse(node, "no statement")

    def loop(self, node: ast.For, call: ast.Call) -> ir.Parallel | ir.Stream:
        index, kind = name_of(node.target), name_of(call.func)
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
        if isinstance(value, ast.Call) and name_of(value.func) == "near":
            near = ir.Near(name, *self.type(value.args[0]))
            self.memory[name] = near
            return near
        tile = self.tile(value)
        self.tiles[name] = tuple(tile.shape), tile.dtype
        return ir.Let(name, tile)

    def effect(self, call: ast.Call) -> ir.Statement:
        kind, options = name_of(call.func), {str(k.arg): literal_of(k.value) for k in call.keywords}
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
        return tuple(n for n in map(name_of, nodes) if n not in self.given)


def _values(node: ast.expr) -> Any:
    return [_values(e) for e in node.elts] if isinstance(node, ast.List) else literal_of(node)
