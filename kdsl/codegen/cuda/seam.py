"""All that names numba.cuda: the numba types of tiles, how a macro is registered, and source to PTX.

In:  a typing function and a writer of LLVM IR for each macro; generated source.  Out: macros; PTX, with no driver needed.
numba-cuda is an optional extra: nothing outside this folder imports it, and nothing here is imported before it is used.
Read before: records.py. Read next: writer.py, macros.py.
"""

from __future__ import annotations

import linecache
import re
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from llvmlite import ir
from numba import cuda
from numba.cuda import dispatcher, types
from numba.cuda.cudadecl import registry as typing_registry
from numba.cuda.cudaimpl import registry as lowering_registry
from numba.cuda.extending import core_models as models
from numba.cuda.extending import intrinsic, register_model, typeof_impl
from numba.cuda.typing import signature
from numba.cuda.typing.templates import AbstractTemplate

from kdsl.codegen.cuda.records import Array, Near, Tile
from kdsl.codegen.cuda.writer import REGISTER, VIEW, Writer, i32

_numbers: dict[Any, int] = {}


def _number(spec: Any) -> int:
    return _numbers.setdefault(spec, len(_numbers))


class Spec(types.Opaque):  # type: ignore[misc]
    """The type of a record used as a global: a compile-time constant."""

    def __init__(self, spec: Any) -> None:
        self.spec = spec
        super().__init__(f"Spec({_number(spec)})")


class TileType(types.Type):  # type: ignore[misc]
    def __init__(self, spec: Tile) -> None:
        self.spec = spec
        super().__init__(f"Tile({_number(spec)})")


class NearType(types.Type):  # type: ignore[misc]
    def __init__(self, spec: Near, transposed: bool = False) -> None:
        self.spec, self.transposed = spec, transposed
        super().__init__(f"Near({_number(spec)},{transposed})")


class ViewType(types.Type):  # type: ignore[misc]
    def __init__(self, spec: Array) -> None:
        self.spec = spec
        super().__init__(f"View({_number(spec)})")


class SizeType(types.Type):  # type: ignore[misc]
    """A 32-bit count or index that stays 32 bits wide."""

    def __init__(self) -> None:
        super().__init__("size")


size_type = SizeType()
Number, Integer, Float = types.Number, types.Integer, types.Float
boolean, void = types.boolean, types.void


def _model(numba_type: type, backend: Callable[[Any], ir.Type]) -> None:
    @register_model(numba_type)
    class Model(models.PrimitiveModel):  # type: ignore[misc]
        def __init__(self, manager: Any, fe_type: Any) -> None:
            super().__init__(manager, fe_type, backend(fe_type))


_model(TileType, lambda t: ir.ArrayType(REGISTER[t.spec.dtype], t.spec.count))
_model(NearType, lambda t: i32)
_model(ViewType, lambda t: VIEW)
_model(SizeType, lambda t: i32)
register_model(Spec)(models.OpaqueModel)
for record in (Tile, Near, Array):
    typeof_impl.register(record)(lambda value, context: Spec(value))


@lowering_registry.lower_constant(Spec)
def _constant(context: Any, builder: Any, ty: Any, value: Any) -> Any:
    return context.get_dummy_value()


def literal(t: Any) -> Any:
    """The value of an argument that is a literal, else None."""
    return t.literal_value if isinstance(t, types.Literal) else None


def macro(returns: Callable[..., Any], static: int | None = None) -> Callable[[Callable[..., Any]], Any]:
    """A macro from a typing function (argument types to result type) and the writer that follows it.

    `static` is the position of an argument that must be a literal.
    """

    def decorate(write: Callable[..., Any]) -> Any:
        count = write.__code__.co_argcount - 2
        names = "".join(", " + n for n in write.__code__.co_varnames[2 : 2 + count])

        def typed(context: Any, *args: Any) -> Any:
            if static is not None and literal(args[static]) is None:
                return None  # numba asks again with literals
            result = returns(*args)

            def codegen(context: Any, builder: Any, sig: Any, values: Any) -> Any:
                out = write(Writer(builder), sig, *values)
                return context.get_dummy_value() if out is None else out

            return None if result is None else (signature(result, *args), codegen)

        scope: dict[str, Any] = {"typed": typed}
        exec(f"def {write.__name__}(context{names}): return typed(context{names})", scope)
        return intrinsic(scope[write.__name__])

    return decorate


def infix(op: Any, returns: Callable[[Any], Any], write: Callable[..., Any]) -> None:
    """Give a Python operator a meaning on tiles and sizes."""

    class Template(AbstractTemplate):  # type: ignore[misc]
        key = op

        def generic(self, args: Any, kws: Any) -> Any:
            out = returns(args) if len(args) == 2 else None
            return None if out is None else signature(out, *[types.unliteral(a) for a in args])

    typing_registry.register_global(op)(Template)
    kinds = [TileType, SizeType, types.Number]
    for left in kinds:
        for right in kinds:
            if (left, right) != (types.Number, types.Number):
                lowering_registry.lower(op, left, right)(
                    lambda context, builder, sig, values: write(Writer(builder), sig, values)
                )


PARAMETERS = {"address": types.uint64, "size": size_type, "f32": types.float32}


def compile_ptx(
    source: str, name: str, scope: Mapping[str, Any], parameters: list[str], threads: int, arch: str
) -> str:
    """The PTX of the kernel `name` of a generated source, its entry called by that name.

    `parameters`: "address", "size" or "f32" each; `arch`: "sm_80" … . Source lines stay readable in tracebacks.
    """
    capability = (int(arch[3:].rstrip("a")) // 10, int(arch[3:].rstrip("a")) % 10)
    dispatcher.get_current_device = lambda: SimpleNamespace(
        compute_capability=capability
    )  # nothing here may ask a driver
    file = f"<kdsl cuda {name}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    namespace = dict(scope)
    exec(compile(source, file, "exec"), namespace)
    kind = types.void(*[PARAMETERS[p] for p in parameters])
    ptx, _ = cuda.compile(
        namespace[name], kind, device=False, abi="numba", cc=capability, launch_bounds=(threads, 1)
    )
    entry = re.search(r"\.entry\s+(\w+)", ptx)
    assert entry is not None
    return str(ptx.replace(entry.group(1), name))
