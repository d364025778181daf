"""All that names numba.cuda: the numba types of tiles, how a macro is registered, and source to PTX.

In:  a typing function and a writer of LLVM IR for each macro; generated source.  Out: macros; PTX, with no driver needed.
numba-cuda is an optional extra: nothing outside this folder imports it, and nothing here is imported before it is used.
Read before: records.py, contexts.py. Read next: writer.py, macros.py.
"""

from __future__ import annotations

import linecache
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Union

from llvmlite import ir
from numba import cuda
from numba.cuda import types
from numba.cuda.cudadecl import registry as typing_registry
from numba.cuda.cudaimpl import registry as lowering_registry
from numba.cuda.extending import core_models as models
from numba.cuda.extending import register_model, typeof_impl
from numba.cuda.typing import signature
from numba.cuda.typing.templates import AbstractTemplate

from kdsl.codegen.cuda.contexts import own_contexts
from kdsl.codegen.cuda.records import Array, Axis, Gates, Near, Tile
from kdsl.codegen.cuda.writer import REGISTER, Writer, i32, i64

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
    """A slot of near memory: its address."""

    def __init__(self, spec: Near, transposed: bool = False) -> None:
        self.spec, self.transposed = spec, transposed
        super().__init__(f"Near({_number(spec)},{transposed})")


class ArrayType(types.Type):  # type: ignore[misc]
    """Its address, then the extents and strides that are no numbers."""

    def __init__(self, spec: Array) -> None:
        self.spec = spec
        super().__init__(f"Array({_number(spec)})")


class SizeType(types.Type):  # type: ignore[misc]
    """A 64-bit count or index, the same for the whole block."""

    def __init__(self) -> None:
        super().__init__("size")


class WalkType(types.Type):  # type: ignore[misc]
    """An index that is a size plus whole multiples of positions along the tile's axes."""

    def __init__(self, factors: tuple[int, ...]) -> None:
        self.factors = factors
        super().__init__(f"Walk{factors}")


class EdgeType(types.Type):  # type: ignore[misc]
    """An index that may leave its axis: beyond the end, or (`both`) also before the start."""

    def __init__(self, inner: Any, both: bool) -> None:
        self.inner, self.both = inner, both
        super().__init__(f"Edge({inner},{both})")


class ViewType(types.Type):  # type: ignore[misc]
    """Memory at a place: an array or near memory, and an index for each of its axes; `run` elements go at once.

    `loose`: only where they lie so; who accesses it finds out."""

    def __init__(self, memory: Any, index: tuple[Any, ...], run: int, loose: bool = False) -> None:
        self.memory, self.index, self.run, self.loose = memory, index, run, loose
        super().__init__(f"View({memory},{','.join(map(str, index))},{run},{loose})")


size_type = SizeType()
Number, Integer, Float, Boolean = types.Number, types.Integer, types.Float, types.Boolean
boolean, void = types.boolean, types.void


def _llvm(t: Any) -> ir.Type:
    if isinstance(t, TileType):
        return ir.ArrayType(REGISTER[t.spec.dtype], t.spec.count)
    if isinstance(t, NearType):
        return i32
    if isinstance(t, ArrayType):
        dynamic = sum(isinstance(n, str) for n in (*t.spec.shape, *t.spec.strides))
        return ir.LiteralStructType([i64] * (1 + dynamic))
    if isinstance(t, EdgeType):
        return _llvm(t.inner)
    if isinstance(t, ViewType):
        return ir.LiteralStructType([_llvm(x) for x in (t.memory, *t.index)])
    return i64  # SizeType, WalkType


def _model(numba_type: type) -> None:
    @register_model(numba_type)
    class Model(models.PrimitiveModel):  # type: ignore[misc]
        def __init__(self, manager: Any, fe_type: Any) -> None:
            super().__init__(manager, fe_type, _llvm(fe_type))


for _kind in (TileType, NearType, ArrayType, SizeType, WalkType, EdgeType, ViewType):
    _model(_kind)
register_model(Spec)(models.OpaqueModel)
for _record in (Tile, Near, Array, Gates, Axis):
    typeof_impl.register(_record)(lambda value, context: Spec(value))


@lowering_registry.lower_constant(Spec)
def _constant(context: Any, builder: Any, ty: Any, value: Any) -> Any:
    return context.get_dummy_value()


def literal(t: Any) -> Any:
    """The value of an argument that is a literal, else None."""
    return t.literal_value if isinstance(t, types.Literal) else None


def factors(t: Any) -> Union[tuple[int, ...], None]:
    """How an index walks along the tile's axes; None for what is no walk."""
    if isinstance(t, Spec) and isinstance(t.spec, Axis):
        return tuple(int(i == t.spec.number) for i in range(t.spec.number + 1))
    return t.factors if isinstance(t, WalkType) else None


def _register(key: Any, returns: Callable[..., Any], write: Callable[..., Any], literals: bool) -> None:
    class Template(AbstractTemplate):  # type: ignore[misc]
        prefer_literal = literals

        def generic(self, args: Any, kws: Any) -> Any:
            out = returns(*args)
            return None if out is None else signature(out, *args)

    Template.key = key

    def lower(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        out = write(Writer(builder), sig, *values)
        return context.get_dummy_value() if out is None else out

    typing_registry.register_global(key, types.Function(Template))
    lowering_registry.lower(key, types.VarArg(types.Any))(lower)


def macro(
    returns: Callable[..., Any], literals: bool = False, name: str = ""
) -> Callable[[Callable[..., Any]], Any]:
    """A macro from a typing function (argument types to result type, None if they do not fit) and the writer that follows it.

    `literals`: the typing function reads values of arguments."""

    def decorate(write: Callable[..., Any]) -> Any:
        def key(*args: Any) -> Any:
            raise TypeError(f"{key.__name__} has a meaning in GPU kernels only")

        key.__name__ = name or write.__name__
        _register(key, returns, write, literals)
        return key

    return decorate


def infix(op: Any, returns: Callable[..., Any], write: Callable[..., Any]) -> None:
    """Give a Python operator a meaning on tiles, sizes and walks."""

    class Template(AbstractTemplate):  # type: ignore[misc]
        key = op
        prefer_literal = True

        def generic(self, args: Any, kws: Any) -> Any:
            out = returns(*args) if any(isinstance(a, _OWN) for a in args) else None
            return None if out is None else signature(out, *args)

    def lower(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        return write(Writer(builder), sig, *values)

    typing_registry.register_global(op)(Template)
    for own in _OWN:
        lowering_registry.lower(op, own)(lower)
        for other in (*_OWN, types.Number, types.Boolean):
            lowering_registry.lower(op, own, other)(lower)
            lowering_registry.lower(op, other, own)(lower)


_OWN = (TileType, SizeType, WalkType, Spec)
PTX_VERSION = "9.0"  # what the driver of CUDA 13.0 reads; a newer NVVM writes a newer number above the same instructions
PARAMETERS = {"address": types.uint64, "size": size_type, "map": types.uint64}
MAP_BYTES = 128  # of a tensor map


def compile_ptx(
    source: str, name: str, scope: Mapping[str, Any], parameters: list[str], threads: int, arch: str
) -> str:
    """The PTX of the kernel `name` of a generated source, its entry called by that name.

    `parameters`: "address", "size" or "map" each; `arch`: "sm_80", "sm_90a" … . Source lines stay readable in tracebacks."""
    digits, suffix = arch[3:].rstrip("a"), "a" if arch.endswith("a") else ""
    capability = (int(digits) // 10, int(digits) % 10, *suffix)
    file = f"<kdsl cuda {name}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    namespace = dict(scope)
    exec(compile(source, file, "exec"), namespace)
    kind = types.void(*[PARAMETERS[p] for p in parameters])
    with own_contexts(capability), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Dd]ebug")  # that the source lies in no file
        ptx, _ = cuda.compile(
            namespace[name],
            kind,
            device=False,
            abi="numba",
            cc=capability,
            launch_bounds=(threads, 1),
            lineinfo=True,  # the same instructions; the emulator and profilers say which line they came from
        )
    entry = re.search(r"\.entry\s+(\w+)", ptx)
    assert entry is not None
    text = ptx.replace(entry.group(1), name)
    for i in (i for i, p in enumerate(parameters) if p == "map"):
        text = _by_value(text, f"{name}_param_{i}")
    return re.sub(r"^\.version .*$", f".version {PTX_VERSION}", text, count=1, flags=re.M)


def _by_value(ptx: str, parameter: str) -> str:
    """A word among the parameters becomes a tensor map, and what was loaded from it the address of the map.

    numba passes scalars only, the copy engine wants its map among the parameters (`__grid_constant__` in C++)."""
    declared = rf"\.param \.[bu]64 {parameter}(?=[,\s])"
    text, once = re.subn(declared, f".param .align 64 .b8 {parameter}[{MAP_BYTES}]", ptx)
    loads = rf"ld\.param\.[bu]64\s+(%\w+), \[{parameter}\];"
    text = re.sub(loads, rf"cvta.param.u64 \1, {parameter};", text)
    assert once == 1 and f"[{parameter}" not in text, f"{parameter} is used as no tensor map is"
    return text
