"""Macros of memory: views of arrays with bounds, near memory, asynchronous copies, and the dot on tensor cores.

In:  seam.py, writer.py, macros.py.  Out: `MEMORY_MACROS`, the rest of the names that generated source may use.
A read outside a view gives the fill value, a write outside is dropped. Read before: macros.py. Read next: emit.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from llvmlite import ir

from kdsl.codegen.cuda.layout import Layout, operand_a, operand_b
from kdsl.codegen.cuda.macros import as_size, spread
from kdsl.codegen.cuda.records import BYTES, Array, Near
from kdsl.codegen.cuda.seam import NearType, TileType, ViewType, literal, macro, void
from kdsl.codegen.cuda.writer import VIEW, V, Writer, f32, i16, i32, i64


# --- global memory ---------------------------------------------------------------------------------
@macro(lambda array, address, offset, rows, columns, stride: ViewType(array.spec))
def view(w: Writer, sig: Any, array: V, address: V, offset: V, rows: V, columns: V, stride: V) -> V:
    """rows x columns elements, `offset` elements after `address`, rows `stride` elements apart."""
    sizes = [as_size(w, t, v) for t, v in zip(sig.args[2:], (offset, rows, columns, stride), strict=True)]
    start = w.add(address, w.mul(w.zext(sizes[0], i64), i64(BYTES[sig.args[0].spec.dtype])))
    out = ir.Constant(VIEW, ir.Undefined)
    for i, v in enumerate([start, *sizes[1:]]):
        out = w.insert_value(out, v, i)
    return out


def _runs(
    w: Writer, v: V, array: Array, layout: Layout, row: V, column: V, count: int
) -> Iterator[tuple[int, V, V, V]]:
    """For every run of `count` registers: the number of the first, whether it is inside, the base, the run's address."""
    base, rows, columns, stride = (w.extract_value(v, i) for i in range(4))
    each = BYTES[array.dtype]
    pitch = w.mul(stride, i32(each))
    at = w.position(layout)
    row, column = w.add(row, at[0]), w.add(column, at[1])
    start = w.add(base, w.mul(w.zext(row, i64), w.zext(pitch, i64)))
    start = w.add(start, w.mul(w.zext(column, i64), i64(each)))
    for i in range(0, len(layout.offsets), count):
        r, c = layout.offsets[i]
        below = w.icmp_signed("<", w.add(row, i32(r)), rows)
        inside = w.and_(below, w.icmp_signed("<", w.add(column, i32(c)), columns))
        yield i, inside, base, w.add(start, w.add(w.zext(w.mul(pitch, i32(r)), i64), i64(c * each)))


@macro(lambda tile, v, row, column, fill: TileType(tile.spec))
def load(w: Writer, sig: Any, tile: V, v: V, row: V, column: V, fill: V) -> V:
    out, array = sig.return_type.spec, sig.args[1].spec
    each = BYTES[array.dtype]
    n = out.layout.run(min(array.vector, 16 // each))
    element = i16 if n * each == 2 else i32
    words = max(n * each // 4, 1)
    kind = ir.VectorType(element, words) if words > 1 else element
    empty = spread(w, sig.args[4], fill, out.of("f32"))[0]
    values: list[V] = []
    at = as_size(w, sig.args[2], row), as_size(w, sig.args[3], column)
    for _, inside, base, address in _runs(w, v, array, out.layout, *at, n):
        x = w.load(w.inttoptr(w.select(inside, address, base), ir.PointerType(kind, 1)), align=n * each)
        x.set_metadata("invariant.load", w.module.add_metadata([]))  # no kernel reads what it writes
        parts = w.elements(x)
        if array.dtype == "f32":
            reals = [w.bitcast(p, f32) for p in parts]
        elif element is i16:
            reals = [w.bitcast(w.shl(w.zext(parts[0], i32), i32(16)), f32)]
        else:
            reals = [h for p in parts for h in w.from_bf16x2(p)]
        values += [w.select(inside, r, empty) for r in reals]
    return w.pack(w.to_words(values, "bf16") if out.dtype == "bf16" else values)


@macro(lambda v, row, column, x: void)
def store(w: Writer, sig: Any, v: V, row: V, column: V, x: V) -> None:
    array, have = sig.args[0].spec, sig.args[3].spec
    each = BYTES[array.dtype]
    values = spread(w, sig.args[3], x, have.of("f32"))
    n = have.layout.run(min(array.vector, 16 // each))
    holder = w.first_holder(have.layout)
    at = as_size(w, sig.args[1], row), as_size(w, sig.args[2], column)
    for i, inside, _, address in _runs(w, v, array, have.layout, *at, n):
        value = w.vector(w.to_words(values[i : i + n], array.dtype))
        with w.if_then(inside if holder is None else w.and_(inside, holder)):
            w.store(value, w.inttoptr(address, ir.PointerType(value.type, 1)), align=n * each)


# --- near memory -----------------------------------------------------------------------------------
@macro(lambda near, number: NearType(near.spec))
def near(w: Writer, sig: Any, near: V, number: V) -> V:
    """Tile `number` of a ring."""
    s = sig.return_type.spec
    slot = w.urem(as_size(w, sig.args[1], number), i32(s.depth)) if s.depth > 1 else i32(0)
    return w.add(w.near_base(), w.add(i32(s.start), w.mul(slot, i32(s.bytes))))


@macro(lambda x: NearType(x.spec, True))
def transposed(w: Writer, sig: Any, x: V) -> V:
    return x


@macro(lambda x, v, row, column: void)
def copy(w: Writer, sig: Any, x: V, v: V, row: V, column: V) -> None:
    """Start filling near memory from a view, 16 bytes a thread at a time (cp.async); outside it becomes zero."""
    s = sig.args[0].spec
    each = BYTES[s.dtype]
    per = 16 // each
    across = s.shape[1] // per
    chunks = s.shape[0] * across
    base, rows, columns, stride = (w.extract_value(v, i) for i in range(4))
    pitch, t = w.mul(stride, i32(each)), w.thread()
    row, column = as_size(w, sig.args[2], row), as_size(w, sig.args[3], column)
    for i in range(-(-chunks // s.threads)):
        first = i * s.threads
        if across <= s.threads:
            r = w.add(w.udiv(t, i32(across)), i32(first // across))
            c = w.mul(w.urem(t, i32(across)), i32(per))
        else:
            r, c = i32(first // across), w.mul(w.add(t, i32(first % across)), i32(per))
        y, x_ = w.add(row, r), w.add(column, c)
        inside = w.and_(w.icmp_signed("<", y, rows), w.icmp_signed("<", x_, columns))
        source = w.add(base, w.mul(w.zext(y, i64), w.zext(pitch, i64)))
        source = w.add(source, w.mul(w.zext(x_, i64), i64(each)))
        ins = [w.near_address(s, x, r, c), w.select(inside, source, base), w.select(inside, i32(16), i32(0))]
        text = "cp.async.cg.shared.global [$0], [$1], 16, $2;"
        if first + s.threads <= chunks:
            w.asm(text, [], ins, "r,l,r", True)
        else:
            with w.if_then(w.icmp_unsigned("<", t, i32(chunks - first))):
                w.asm(text, [], ins, "r,l,r", True)


@macro(lambda: void)
def commit(w: Writer, sig: Any) -> None:
    w.plain("cp.async.commit_group;")


@macro(lambda left: void, static=0)
def wait(w: Writer, sig: Any, left: V) -> None:
    w.plain(f"cp.async.wait_group {literal(sig.args[0])};")


@macro(lambda: void)
def barrier(w: Writer, sig: Any) -> None:
    w.plain("bar.sync 0;")


def _cells(w: Writer, near: Near, base: V, layout: Layout, count: int) -> Iterator[tuple[int, V]]:
    at = w.position(layout)
    for i in range(0, len(layout.offsets), count):
        r, c = layout.offsets[i]
        yield i, w.near_address(near, base, w.or_(at[0], i32(r)), w.or_(at[1], i32(c)))


@macro(lambda x, value: void)
def put(w: Writer, sig: Any, x: V, value: V) -> None:
    """Write a register tile to near memory."""
    s, have = sig.args[0].spec, sig.args[1].spec
    n = have.layout.run(16 // BYTES[s.dtype])
    values = spread(w, sig.args[1], value, have.of("f32"))

    def each() -> None:
        for i, address in _cells(w, s, x, have.layout, n):
            w.near_store(address, w.to_words(values[i : i + n], s.dtype))

    holder = w.first_holder(have.layout)
    if holder is None:
        return each()
    with w.if_then(holder):
        each()
    return None


@macro(lambda tile, x: TileType(tile.spec))
def take(w: Writer, sig: Any, tile: V, x: V) -> V:
    """Read a register tile from near memory."""
    out, s = sig.return_type.spec, sig.args[1].spec
    if out.dtype == "bf16" and len(out.layout.register) > 2 and out.layout.register[1] == (8, 0):
        return w.pack(_fragments(w, sig.args[1], x, out.layout, range(out.count)))
    n = out.layout.run(16 // BYTES[s.dtype])
    words: list[V] = []
    for _, address in _cells(w, s, x, out.layout, n):
        words += w.near_load(address, i32, n * BYTES[s.dtype] // 4)
    if s.dtype == "f32":
        return w.pack([w.bitcast(v, f32) for v in words])
    return w.pack(words if out.dtype == "bf16" else [h for v in words for h in w.from_bf16x2(v)])


# --- dot -------------------------------------------------------------------------------------------
def _fragments(w: Writer, kind: Any, base: V, layout: Layout, wanted: Sequence[int]) -> list[V]:
    """Registers `wanted` (groups of four, as ldmatrix.x4 fills them) of an operand tile in near memory."""
    s, out = kind.spec, []
    lane = w.and_(w.thread(), i32(31))

    def flip(rc: tuple[Any, Any]) -> tuple[Any, Any]:
        return rc[::-1] if kind.transposed else rc

    trans = (
        ".trans" if flip(layout.register[0]) != (0, 1) else ""
    )  # pairs run against the rows of near memory
    start = flip(w.warp_position(layout))
    words = layout.offsets[::2]
    for four in zip(*[iter(wanted)] * 4, strict=True):
        origin = words[four[0]]
        steps = [flip((words[four[i]][0] - origin[0], words[four[i]][1] - origin[1])) for i in (1, 2)]
        o = flip(origin)
        r = w.or_(w.and_(lane, i32(7)), w.dot_bits(lane, [0, 0, 0, steps[0][0], steps[1][0]]))
        c = w.dot_bits(lane, [0, 0, 0, steps[0][1], steps[1][1]])
        row, column = w.or_(w.or_(start[0], r), i32(o[0])), w.or_(w.or_(start[1], c), i32(o[1]))
        text = f"ldmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 {{$0,$1,$2,$3}}, [$4];"
        out += w.asm(text, [i32] * 4, [w.near_address(s, base, row, column)], "=r,=r,=r,=r,r", True)
    return out


def _dot_type(acc: Any, left: Any, right: Any) -> Any:
    return acc if all(isinstance(x, (TileType, NearType)) for x in (left, right)) else None


@macro(_dot_type)
def dot(w: Writer, sig: Any, acc: V, left: V, right: V) -> V:
    """acc + left @ right on tensor cores; an operand is a register tile or near memory, read step by step."""
    spec, kinds = sig.args[0].spec, sig.args[1:]
    m, n = spec.shape
    down, across = (1 << sum(s[k] > 0 for s in spec.layout.warp) for k in (0, 1))
    k = kinds[0].spec.shape[0 if isinstance(kinds[0], NearType) and kinds[0].transposed else 1]
    layouts = operand_a(m, k, (down, across)), operand_b(k, n, (down, across))
    for kind, layout in zip(kinds, layouts, strict=True):
        if kind.spec.dtype != "bf16" or (isinstance(kind, TileType) and kind.spec.layout != layout):
            raise TypeError(f"the dot's operand {kind.spec} must be bf16 in {layout}")
    c = w.registers(acc)
    held = [
        w.registers(v) if isinstance(t, TileType) else None for t, v in zip(kinds, (left, right), strict=True)
    ]
    rows, columns, steps = m // down // 16, n // across // 8, k // 16
    for step in range(steps):
        wanted = (
            [r + 4 * (step + steps * i) for i in range(rows) for r in range(4)],
            [r + 2 * (step + steps * j) for j in range(columns) for r in range(2)],
        )
        a, b = (
            [own[i] for i in which] if own else _fragments(w, kind, value, layout, which)
            for own, which, kind, value, layout in zip(
                held, wanted, kinds, (left, right), layouts, strict=True
            )
        )
        for i in range(rows):
            for j in range(columns) if i % 2 == 0 else reversed(range(columns)):
                o = 4 * (j + columns * i)
                c[o : o + 4] = w.asm(
                    "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                    "{$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};",
                    [f32] * 4,
                    a[4 * i : 4 * i + 4] + b[2 * j : 2 * j + 2] + c[o : o + 4],
                    "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f",
                )
    return w.pack(c)


MEMORY_MACROS = {
    "view": view,
    "load": load,
    "store": store,
    "near": near,
    "transposed": transposed,
    "copy": copy,
    "commit": commit,
    "wait": wait,
    "barrier": barrier,
    "put": put,
    "take": take,
    "dot": dot,
}
