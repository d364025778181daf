"""Macros of register tiles: operators, elementwise functions, folds. Each is one statement of a generated kernel.

A tile's type carries dtype, shape and layout, so one macro serves every shape, and a layout that does not fit is a TypeError
when the kernel is compiled. In:  seam.py, writer.py.  Out: `MACROS`, the names that generated source may use.
Read before: seam.py, writer.py. Read next: macros_memory.py.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from kdsl.codegen.cuda.layout import Layout
from kdsl.codegen.cuda.records import Tile
from kdsl.codegen.cuda.seam import (
    Float,
    Integer,
    SizeType,
    TileType,
    boolean,
    infix,
    literal,
    macro,
    size_type,
)
from kdsl.codegen.cuda.writer import V, Writer, f32, i32

ARITHMETIC = {
    operator.add: ("fadd", "add"),
    operator.sub: ("fsub", "sub"),
    operator.mul: ("fmul", "mul"),
    operator.truediv: ("fdiv", None),
}
COMPARE = {
    operator.lt: "<",
    operator.le: "<=",
    operator.gt: ">",
    operator.ge: ">=",
    operator.eq: "==",
    operator.ne: "!=",
}
BITWISE = {operator.and_: "and_", operator.or_: "or_"}
SIZE_ONLY = {operator.floordiv: "udiv", operator.mod: "urem"}


def as_size(w: Writer, t: Any, v: V) -> V:
    """An integer argument as 32 bits."""
    if isinstance(t, SizeType):
        return v
    if literal(t) is not None:
        return i32(literal(t))
    return w.trunc(v, i32) if v.type.width > 32 else v


def spread(w: Writer, t: Any, value: V, out: Tile) -> list[V]:
    """The registers of a tile or number, one for each register of the tile `out`."""
    if not isinstance(t, TileType):
        if isinstance(t, (Integer, SizeType)):
            value = w.sitofp(value, f32) if out.dtype == "f32" else as_size(w, t, value)
        elif isinstance(t, Float) and value.type != f32:
            value = w.fptrunc(value, f32)
        return [value] * len(out.layout.offsets)
    have, mine = w.registers(value), t.spec
    if mine.dtype == "bf16":
        have = [v for pair in have for v in w.from_bf16x2(pair)]
    at = {o: i for i, o in enumerate(mine.layout.offsets)}
    places = (tuple(0 if mine.shape[k] == 1 else o[k] for k in (0, 1)) for o in out.layout.offsets)
    return [have[at[p]] for p in places]


def map_result(args: Sequence[Any], dtype: str | None) -> Any:
    """The type of a map: the greatest of its tiles, with which all others' lanes and warps must agree."""
    tiles = [a.spec for a in args if isinstance(a, TileType)]
    if not tiles:
        return None
    top = max(tiles, key=lambda s: s.shape[0] * s.shape[1])
    for s in tiles:
        wanted = top.layout
        for axis in (0, 1):
            if s.shape[axis] == 1 and top.shape[axis] != 1:
                wanted = wanted.drop(axis)
            elif s.shape[axis] != top.shape[axis]:
                return None
        if (s.layout.lane, s.layout.warp) != (wanted.lane, wanted.warp):
            raise TypeError(f"layouts differ: {s} in a map of {top}; a convert is missing")
    if dtype is None:
        kinds = {s.dtype for s in tiles}
        real = any(isinstance(a, Float) for a in args) or kinds & {"f32", "bf16"}
        dtype = "f32" if real else "i32" if "i32" in kinds else "bool"
    return TileType(top.of(dtype))


def _operator(op: Any) -> None:
    def returns(args: Sequence[Any]) -> Any:
        if any(isinstance(a, TileType) for a in args):
            return None if op in SIZE_ONLY else map_result(args, "bool" if op in COMPARE else None)
        if any(isinstance(a, SizeType) for a in args) and all(
            isinstance(a, (SizeType, Integer)) for a in args
        ):
            return boolean if op in COMPARE else size_type
        return None

    def write(w: Writer, sig: Any, values: Sequence[V]) -> V:
        if not isinstance(sig.return_type, TileType):
            x, y = (as_size(w, t, v) for t, v in zip(sig.args, values, strict=True))
            if op in COMPARE:
                return w.icmp_signed(COMPARE[op], x, y)
            return getattr(w, SIZE_ONLY.get(op) or BITWISE.get(op) or str(ARITHMETIC[op][1]))(x, y)
        out = sig.return_type.spec
        real = any(
            isinstance(t, Float) or (isinstance(t, TileType) and t.spec.dtype in ("f32", "bf16"))
            for t in sig.args
        )
        wide = out if op in BITWISE else out.of("f32" if real else "i32")
        xs, ys = (spread(w, t, v, wide) for t, v in zip(sig.args, values, strict=True))

        def one(x: V, y: V) -> V:
            if op in COMPARE and real:  # != is true of NaN, the others are false
                return (w.fcmp_unordered if op is operator.ne else w.fcmp_ordered)(COMPARE[op], x, y)
            if op in COMPARE:
                return w.icmp_signed(COMPARE[op], x, y)
            return getattr(w, BITWISE.get(op) or str(ARITHMETIC[op][0 if real else 1]))(x, y)

        return w.pack([one(x, y) for x, y in zip(xs, ys, strict=True)])

    infix(op, returns, write)


for _op in (*ARITHMETIC, *COMPARE, *BITWISE, *SIZE_ONLY):
    _operator(_op)


def _function(name: str, instruction: str) -> Any:
    def write(w: Writer, sig: Any, x: V) -> V:
        values = spread(w, sig.args[0], x, sig.return_type.spec)
        return w.pack([w.asm(f"{instruction} $0, $1;", [f32], [v], "=f,f") for v in values])

    write.__name__ = name
    return macro(lambda x: map_result([x], "f32"))(write)


def _maximum(w: Writer, x: V, y: V) -> V:
    return w.asm("max.NaN.f32 $0, $1, $2;", [f32], [x, y], "=f,f,f")  # NumPy's: a NaN stays


@macro(lambda x, y: map_result([x, y], "f32"))
def maximum(w: Writer, sig: Any, x: V, y: V) -> V:
    out = sig.return_type.spec
    pairs = zip(spread(w, sig.args[0], x, out), spread(w, sig.args[1], y, out), strict=True)
    return w.pack([_maximum(w, *p) for p in pairs])


@macro(lambda c, x, y: map_result([c, x, y], "f32"))
def where(w: Writer, sig: Any, c: V, x: V, y: V) -> V:
    out = sig.return_type.spec
    columns = (
        spread(w, t, v, out.of(d))
        for t, v, d in zip(sig.args, (c, x, y), ("bool", "f32", "f32"), strict=True)
    )
    return w.pack([w.select(*p) for p in zip(*columns, strict=True)])


@macro(lambda tile, value: TileType(tile.spec))
def full(w: Writer, sig: Any, tile: V, value: V) -> V:
    return w.pack(spread(w, sig.args[1], value, sig.return_type.spec))


@macro(lambda tile, x: map_result([TileType(tile.spec), x], x.spec.dtype))
def expand(w: Writer, sig: Any, tile: V, x: V) -> V:
    """A row, a column or a single value as a whole tile."""
    return w.pack(spread(w, sig.args[1], x, sig.return_type.spec))


@macro(lambda tile, axis: TileType(tile.spec.of("i32")), static=1)
def index(w: Writer, sig: Any, tile: V, axis: V) -> V:
    """The row (axis 0) or column number of every element."""
    out, k = sig.return_type.spec, literal(sig.args[1])
    at = w.position(out.layout)[k]
    return w.pack([w.or_(at, i32(o[k])) for o in out.layout.offsets])


@macro(lambda tile, x: TileType(tile.spec))
def convert(w: Writer, sig: Any, tile: V, x: V) -> V:
    """The same values in another dtype or order of registers; what crosses lanes goes through near memory instead."""
    out, have = sig.return_type.spec, sig.args[1].spec
    if not have.layout.converts_freely(out.layout):
        raise TypeError(f"{have} to {out} must go through near memory")
    values = spread(w, sig.args[1], x, out.of("f32"))
    return w.pack(w.to_words(values, "bf16") if out.dtype == "bf16" else values)


# --- folds -----------------------------------------------------------------------------------------
def _fold(name: str, combine: Callable[[Writer, V, V], V]) -> Any:
    def tree(w: Writer, values: Sequence[V]) -> V:
        values = list(values)
        while len(values) > 1:
            pairs = (values[i : i + 2] for i in range(0, len(values), 2))
            values = [combine(w, *p) if len(p) == 2 else p[0] for p in pairs]
        return values[0]

    def across_warps(w: Writer, values: list[V], have: Tile, out: Tile, k: int, split: list[int]) -> list[V]:
        """Partials through near memory of the fold's own: [warp along the axis][place along the other]."""
        other, parts = out.shape[1 - k], 1 << len(split)
        at = w.position(out.layout)[1 - k]
        bits = [1 << split.index(i - 5) if i - 5 in split else 0 for i in range(5 + len(have.layout.warp))]
        part = w.dot_bits(w.thread(), bits)
        base = w.near_base(f"_fold{len(w.module.globals)}", 4 * other * parts)

        def cell(p: V, o: tuple[int, int]) -> V:
            return w.add(base, w.shl(w.add(w.mul(p, i32(other)), w.or_(at, i32(o[1 - k]))), i32(2)))

        n = out.layout.run(4) if k == 0 else 1
        firsts = [(i, out.layout.offsets[i]) for i in range(0, len(values), n)]
        held = Layout(
            (), out.layout.lane, tuple((1, 1) if i in split else s for i, s in enumerate(out.layout.warp))
        )
        writer = w.first_holder(held)

        def put() -> None:
            for i, o in firsts:
                w.near_store(cell(part, o), values[i : i + n])

        if writer is None:
            put()
        else:
            with w.if_then(writer):
                put()
        w.plain("bar.sync 0;")
        loads = ([w.near_load(cell(i32(p), o), f32, n) for p in range(parts)] for _, o in firsts)
        return [tree(w, same) for cells in loads for same in zip(*cells, strict=True)]

    def write(w: Writer, sig: Any, x: V, axis: V) -> V:
        have, out, k = sig.args[0].spec, sig.return_type.spec, literal(sig.args[1])
        groups: dict[tuple[int, ...], list[V]] = {}
        for v, o in zip(spread(w, sig.args[0], x, have.of("f32")), have.layout.offsets, strict=True):
            groups.setdefault(tuple(0 if i == k else o[i] for i in (0, 1)), []).append(v)
        values = [tree(w, groups[o]) for o in out.layout.offsets]
        for bit, step in enumerate(have.layout.lane):
            if step[k]:
                values = [combine(w, v, w.shuffle(v, 1 << bit)) for v in values]
        split = [bit for bit, step in enumerate(have.layout.warp) if step[k]]
        return w.pack(across_warps(w, values, have, out, k, split) if split else values)

    write.__name__ = name
    return macro(lambda x, axis: TileType(x.spec.drop(literal(axis)).of("f32")), static=1)(write)


# --- places and sizes ------------------------------------------------------------------------------
@macro(lambda axis: size_type, static=0)
def block(w: Writer, sig: Any, axis: V) -> V:
    return w.special(f"ctaid.{'xyz'[literal(sig.args[0])]}")


@macro(lambda value: size_type)
def size(w: Writer, sig: Any, value: V) -> V:
    return as_size(w, sig.args[0], value)


def _choice(name: str, sign: str) -> Any:
    def write(w: Writer, sig: Any, x: V, y: V) -> V:
        x, y = as_size(w, sig.args[0], x), as_size(w, sig.args[1], y)
        return w.select(w.icmp_signed(sign, x, y), x, y)

    write.__name__ = name
    return macro(lambda x, y: size_type)(write)


MACROS = {
    "maximum": maximum,
    "where": where,
    "full": full,
    "expand": expand,
    "index": index,
    "convert": convert,
    "block": block,
    "size": size,
    "smaller": _choice("smaller", "<"),
    "larger": _choice("larger", ">"),
    "exp2": _function("exp2", "ex2.approx.ftz.f32"),
    "log2": _function("log2", "lg2.approx.ftz.f32"),
    "reciprocal": _function("reciprocal", "rcp.approx.ftz.f32"),  # rcp.rn branches: 8 instructions more
    "rsqrt": _function("rsqrt", "rsqrt.approx.f32"),
    "fold_sum": _fold("fold_sum", lambda w, x, y: w.fadd(x, y)),
    "fold_max": _fold("fold_max", _maximum),
}
