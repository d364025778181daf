"""Macros of register tiles: operators and elementwise functions. Each is one operator or call in a generated kernel.

A tile's type carries dtype, shape and layout, so one macro serves every shape, and a layout that does not fit is a TypeError
when the kernel is compiled. What an op means is in the tables that the CPU uses too (scalars.py).
In:  seam.py, writer.py.  Out: `MACROS`, names that generated source may use.
Read before: seam.py, writer.py. Read next: folds.py, macros_views.py.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

from kdsl.codegen.cuda.records import BYTES, HALVES, Tile
from kdsl.codegen.cuda.seam import (
    Boolean,
    Float,
    Integer,
    SizeType,
    TileType,
    WalkType,
    boolean,
    factors,
    infix,
    literal,
    macro,
    size_type,
)
from kdsl.codegen.cuda.writer import REGISTER, UNSIGNED, V, Writer, f64, i1, i32, i64
from kdsl.ir.ops import CORE, ELEMENTWISE, TO_BOOL

# the operators of Python that stand for ops
INFIX = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv, "mod": operator.mod,
    "floor_div": operator.floordiv, "shl": operator.lshift, "shr": operator.rshift, "and": operator.and_,
    "or": operator.or_, "xor": operator.xor, "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge,
    "eq": operator.eq, "ne": operator.ne, "neg": operator.neg, "not": operator.invert,
}  # fmt: skip
COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
DIRECT = {"add": ("fadd", "add"), "sub": ("fsub", "sub"), "mul": ("fmul", "mul"), "div": ("fdiv", ""),
          "and": ("", "and_"), "or": ("", "or_"), "xor": ("", "xor")}  # fmt: skip
# elementwise ops that are calls; "cast" and "bitcast" are a macro for each dtype
CALLS = sorted(
    {op.value for op in ELEMENTWISE & CORE} - set(INFIX) - {"cast", "bitcast"}
    | {"fma", "round_f16", "round_bf16", "philox"}
)


# --- numbers as elements ----------------------------------------------------------------------------------------------------
def as_size(w: Writer, t: Any, v: V) -> V:
    """An integer argument as 64 bits."""
    if literal(t) is not None:
        return i64(literal(t))
    if isinstance(t, Integer) and v.type.width < 64:
        return w.sext(v, i64) if t.signed else w.zext(v, i64)
    return v


def spread(w: Writer, t: Any, value: V, out: Tile) -> list[V]:
    """The registers of a tile or number, one for each register of the tile `out`."""
    if not isinstance(t, TileType):
        if isinstance(t, Float):
            wide = value if value.type == f64 else w.fpext(value, f64)
            value = w.number(wide, "f64", out.dtype)
        elif isinstance(t, Boolean):
            value = value if value.type == i1 else w.trunc(value, i1)
            value = value if out.dtype == "bool" else w.number(w.zext(value, i64), "i64", out.dtype)
        else:
            value = w.number(as_size(w, t, value), "i64", out.dtype)
        return [value] * len(out.layout.offsets)
    have, mine = w.registers(value), t.spec
    if mine.dtype in HALVES:
        have = [v for pair in have for v in w.halves(pair, mine.dtype)]
    at = {o: i for i, o in enumerate(mine.layout.offsets)}
    skip = len(out.shape) - len(mine.shape)
    places = (tuple(0 if n == 1 else o for n, o in zip(mine.shape, offset[skip:])) for offset in out.layout.offsets)
    return [have[at[p]] for p in places]


def joined(args: Sequence[Any], dtype: str | None = None) -> Any:
    """The type of a map: the greatest of its tiles, with which all others' lanes and warps must agree."""
    tiles = [a.spec for a in args if isinstance(a, TileType)]
    if not tiles:
        return None
    top = max(tiles, key=lambda s: (math.prod(s.shape), len(s.shape)))
    for s in tiles:
        if len(s.shape) > len(top.shape) or any(a not in (1, b) for a, b in zip(s.shape[::-1], top.shape[::-1])):
            raise TypeError(f"{s.shape} in a map of {top.shape}: an expand is missing")
        wanted = top.layout.part(s.shape)
        if s.layout.threads != wanted.threads:
            raise TypeError(f"layouts differ: {s} in a map of {top}; a convert is missing")
    if dtype is None:
        kinds = {("f32" if s.dtype in HALVES else s.dtype) for s in tiles}
        if len(kinds) > 1:
            raise TypeError(f"a map of {' and '.join(sorted(kinds))}: a cast is missing")
        (dtype,) = kinds
    return TileType(top.of(dtype))


def operand_dtype(args: Sequence[Any]) -> str:
    """The dtype that all operands of a map have."""
    return next("f32" if a.spec.dtype in HALVES else a.spec.dtype for a in args if isinstance(a, TileType))


def element(w: Writer, op: str, values: Sequence[V], of: str, to: str) -> V:
    """One element of a map, without a call where that is a single instruction."""
    real = of in ("f32", "f64")
    if op in COMPARE and of != "bool":
        if real:  # != is true of NaN, the others are false
            return (w.fcmp_unordered if op == "ne" else w.fcmp_ordered)(COMPARE[op], *values)
        return (w.icmp_unsigned if of in UNSIGNED else w.icmp_signed)(COMPARE[op], *values)
    word = DIRECT.get(op, ("", ""))[0 if real else 1]
    if word and of != "bool":
        return getattr(w, word)(*values)
    return w.scalar(op, values, [of] * len(values), to)


# --- operators ----------------------------------------------------------------------------------------------------------------
def _operator(name: str, op: Any) -> None:
    def returns(*args: Any) -> Any:
        if any(isinstance(a, TileType) for a in args):
            return joined(args, "bool" if name in COMPARE else None)
        if all(isinstance(a, (SizeType, Integer)) for a in args) and name not in ("div", "neg", "not"):
            return boolean if name in COMPARE else size_type
        return _walk(name, args)

    def write(w: Writer, sig: Any, *values: V) -> V:
        out = sig.return_type
        if isinstance(out, TileType):
            of = operand_dtype(sig.args)
            columns = [spread(w, t, v, out.spec.of(of)) for t, v in zip(sig.args, values)]
            return w.pack([element(w, name, row, of, out.spec.dtype) for row in zip(*columns)])
        x = [i64(0) if not v.type == i64 and factors(t) else as_size(w, t, v) for t, v in zip(sig.args, values)]
        if name in ("floor_div", "mod") and (divisor := literal(sig.args[1])) and not divisor & (divisor - 1):
            return w.ashr(x[0], i64(divisor.bit_length() - 1)) if name == "floor_div" else w.and_(x[0], i64(divisor - 1))
        return element(w, name, x, "i64", "bool" if out == boolean else "i64")

    infix(op, returns, write)


def _walk(name: str, args: Sequence[Any]) -> Any:
    """Walks are added, subtracted, and multiplied by numbers; anything else is no walk."""
    parts = [factors(a) or (() if isinstance(a, (SizeType, Integer)) else None) for a in args]
    if len(parts) != 2 or None in parts or name not in ("add", "sub", "mul"):
        return None
    a, b = parts
    if name == "mul":
        which = 1 if a else 0
        times = literal(args[which])
        return None if times is None else WalkType(tuple(f * times for f in parts[1 - which]))
    sign = 1 if name == "add" else -1
    n = max(len(a), len(b))
    total = [x + sign * y for x, y in zip((*a, *[0] * (n - len(a))), (*b, *[0] * (n - len(b))))]
    return WalkType(tuple(total))


for _name, _op in INFIX.items():
    _operator(_name, _op)


# --- functions ----------------------------------------------------------------------------------------------------------------
def _function(name: str) -> Any:
    to_bool = name in {op.value for op in TO_BOOL}

    def returns(*args: Any) -> Any:
        if name == "where":
            return joined(args, operand_dtype(args[1:])) if any(isinstance(a, TileType) for a in args[1:]) else None
        if name == "philox":
            return joined(args, "u32")
        return joined(args, "bool" if to_bool else None)

    def write(w: Writer, sig: Any, *values: V) -> V:
        out = sig.return_type.spec
        kinds = [operand_dtype(sig.args[1:] if name == "where" else sig.args)] * len(values)
        if name == "where":
            kinds[0] = "bool"
        elif name == "philox":
            kinds = ["u32", "u32", "i64"]
        columns = [spread(w, t, v, out.of(k)) for t, v, k in zip(sig.args, values, kinds)]
        if name == "where":
            return w.pack([w.select(*row) for row in zip(*columns)])
        return w.pack([w.scalar(name, row, kinds, out.dtype) for row in zip(*columns)])

    return macro(returns, name=name)(write)


def _cast(dtype: str, op: str) -> Any:
    def write(w: Writer, sig: Any, x: V) -> V:
        out, of = sig.return_type.spec, operand_dtype(sig.args)
        return w.pack([w.scalar(op, [v], [of], dtype) for v in spread(w, sig.args[0], x, out.of(of))])

    return macro(lambda x: joined([x], dtype), name=f"{op}_{dtype}")(write)


def _choice(name: str, sign: str) -> Any:
    def write(w: Writer, sig: Any, x: V, y: V) -> V:
        x, y = as_size(w, sig.args[0], x), as_size(w, sig.args[1], y)
        return w.select(w.icmp_signed(sign, x, y), x, y)

    return macro(lambda x, y: size_type, name=name)(write)


# --- tiles from numbers -----------------------------------------------------------------------------------------------------
@macro(lambda tile, value: TileType(tile.spec))
def full(w: Writer, sig: Any, tile: V, value: V) -> V:
    return w.pack(spread(w, sig.args[1], value, sig.return_type.spec))


@macro(lambda tile, x: TileType(tile.spec.of(x.spec.dtype)))
def expand(w: Writer, sig: Any, tile: V, x: V) -> V:
    """A row, a column or a single value as a whole tile."""
    out, have = sig.return_type.spec, sig.args[1].spec
    if out.layout.part(have.shape).threads != have.layout.threads:
        raise TypeError(f"{have} to {out}: a convert is missing")
    return w.pack(spread(w, sig.args[1], x, out))


@macro(lambda tile, axis: TileType(tile.spec), literals=True)
def index(w: Writer, sig: Any, tile: V, axis: V) -> V:
    """The position of every element along an axis."""
    out, k = sig.return_type.spec, literal(sig.args[1])
    at = w.position(out.layout)[k]
    values = [w.or_(at, i32(o[k])) for o in out.layout.offsets]
    return w.pack([_as(w, v, out.dtype) for v in values])


def _as(w: Writer, v: V, dtype: str) -> V:
    to = REGISTER[dtype]
    return v if to.width == 32 else w.zext(v, to) if to.width == 64 else w.trunc(v, to)


@macro(lambda tile, x: TileType(tile.spec))
def convert(w: Writer, sig: Any, tile: V, x: V) -> V:
    """The same values in another dtype or order of registers; what crosses lanes goes through near memory instead."""
    out, have = sig.return_type.spec, sig.args[1].spec
    if not have.layout.converts_freely(out.layout):
        raise TypeError(f"{have} to {out} must go through near memory")
    values = spread(w, sig.args[1], x, out.of(have.dtype))
    if out.dtype in HALVES:
        return w.pack(w.to_words(values, out.dtype))
    return w.pack(values)


@macro(lambda tile, x, *start: TileType(tile.spec), literals=True)
def piece(w: Writer, sig: Any, tile: V, x: V, *start: V) -> V:
    """The part of a tile that begins at `start`: some of its registers."""
    have, out = sig.args[1].spec, sig.return_type.spec
    which = have.layout.part_at(tuple(map(literal, sig.args[2:])), out.layout)
    if which is None:
        raise TypeError(f"{out} of {have} must go through near memory")
    registers = w.registers(x)
    return w.pack([registers[i] for i in which])


@macro(lambda tile, x: TileType(tile.spec))
def turn(w: Writer, sig: Any, tile: V, x: V) -> V:
    """The tile with its axes in another order: the same registers."""
    return w.pack(w.registers(x))


@macro(lambda x: size_type)
def uniform(w: Writer, sig: Any, x: V) -> V:
    """A single integer, which all threads hold, as a size."""
    (v,) = spread(w, sig.args[0], x, sig.args[0].spec)
    if v.type == i64:
        return v
    return (w.zext if sig.args[0].spec.dtype in UNSIGNED else w.sext)(v, i64)


@macro(lambda x: boolean)
def holds(w: Writer, sig: Any, x: V) -> V:
    """A single truth, which all threads hold, for an `if`."""
    return spread(w, sig.args[0], x, sig.args[0].spec)[0]


# --- places and sizes ------------------------------------------------------------------------------
@macro(lambda: size_type)
def block(w: Writer, sig: Any) -> V:
    """The number of this block."""
    return w.zext(w.special("ctaid.x"), i64)


@macro(lambda: size_type)
def blocks(w: Writer, sig: Any) -> V:
    """How many blocks there are."""
    return w.zext(w.special("nctaid.x"), i64)


@macro(lambda value: size_type)
def size(w: Writer, sig: Any, value: V) -> V:
    return as_size(w, sig.args[0], value)


MACROS = {
    **{name: _function(name) for name in CALLS},
    **{dtype if dtype != "bool" else "boolean": _cast(dtype, "cast") for dtype in BYTES if dtype not in HALVES},
    **{f"bits_{dtype}": _cast(dtype, "bitcast") for dtype in BYTES if dtype not in (*HALVES, "bool")},
    "full": full, "expand": expand, "index": index, "convert": convert, "turn": turn, "piece": piece,
    "uniform": uniform, "holds": holds,
    "block": block, "blocks": blocks, "size": size, "smaller": _choice("smaller", "<"), "larger": _choice("larger", ">"),
}  # fmt: skip
