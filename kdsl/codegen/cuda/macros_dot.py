"""Macros of near memory that fills while others compute, and the dot.

In:  seam.py, writer.py, macros_memory.py.  Out: `DOT_MACROS`, the rest of the names that generated source may use.
Read before: macros_lanes.py, barriers.py. Read next: macros_bulk.py, emit.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from kdsl.codegen.cuda.layout import Layout, operand_a, operand_b
from kdsl.codegen.cuda.macros_lanes import dot_in_lanes
from kdsl.codegen.cuda.macros_memory import read_tile, store
from kdsl.codegen.cuda.macros_warpgroup import dot_of_warpgroups
from kdsl.codegen.cuda.places import Places, near_address
from kdsl.codegen.cuda.records import BYTES, HALVES, Tile
from kdsl.codegen.cuda.seam import NearType, TileType, literal, macro, void
from kdsl.codegen.cuda.writer import V, Writer, f32, i32


@macro(lambda x, view: void)
def copy(w: Writer, sig: Any, x: V, view: V) -> None:
    """Start filling near memory from a view, 16 bytes a thread at a time (cp.async); outside it becomes zero."""
    s = sig.args[0].spec
    per = 16 // BYTES[s.dtype]
    pieces = math.prod(s.shape) // per
    ndim = len(s.shape)
    source = Places(w, sig.args[1], view, ndim, {})
    start = source.address([0] * ndim)  # of any element inside: where nothing is read, an address is still wanted
    for i in range(-(-pieces // s.threads)):
        number = w.add(w.thread(), i32(i * s.threads)) if i else w.thread()
        at, left = [], w.mul(number, i32(per))
        for extent in reversed(s.shape):
            at.insert(0, w.and_(left, i32(extent - 1)))
            left = w.lshr(left, i32(extent.bit_length() - 1))
        source.stand(at)
        inside = source.inside([0] * ndim, 0)
        address = source.address([0] * ndim)
        if s.swizzled:
            target = near_address(w, s, x, *at)
        else:
            target = w.add(x, w.mul(number, i32(16)))
        if inside is None:
            ins, text, letters = [target, address], "cp.async.cg.shared.global [$0], [$1], 16;", "r,l"
        else:
            ins = [target, w.select(inside, address, start), w.select(inside, i32(16), i32(0))]
            text, letters = "cp.async.cg.shared.global [$0], [$1], 16, $2;", "r,l,r"
        if (i + 1) * s.threads <= pieces:
            w.asm(text, [], ins, letters, True)
        else:
            with w.if_then(w.icmp_unsigned("<", w.thread(), i32(pieces - i * s.threads))):
                w.asm(text, [], ins, letters, True)


@macro(lambda: void)
def commit(w: Writer, sig: Any) -> None:
    w.plain("cp.async.commit_group;")


@macro(lambda left: void, literals=True)
def wait(w: Writer, sig: Any, left: V) -> None:
    w.plain(f"cp.async.wait_group {literal(sig.args[0])};")


@macro(lambda: void)
def barrier(w: Writer, sig: Any) -> None:
    w.plain("bar.sync 0;")


@macro(lambda tile, x, *fill: TileType(tile.spec))
def take(w: Writer, sig: Any, tile: V, x: V, *fill: V) -> V:
    """Read a register tile from near memory."""
    out, kind = sig.return_type.spec, sig.args[1]
    fragments = out.dtype in HALVES and len(out.layout.register) > 2 and out.layout.register[1] == (8, 0)
    if fragments and isinstance(kind, NearType):
        return w.pack(_fragments(w, kind, x, out.layout, range(out.count)))
    return read_tile(w, sig, x, fill[0] if fill else None)


# --- dot -------------------------------------------------------------------------------------------
def _fragments(w: Writer, kind: Any, base: V, layout: Layout, wanted: Sequence[int]) -> list[V]:
    """Registers `wanted` (groups of four, as ldmatrix.x4 fills them) of an operand tile in near memory."""
    s, out = kind.spec, []
    lane = w.and_(w.thread(), i32(31))

    def flip(rc: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(rc[::-1] if kind.transposed else rc)

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
        out += w.asm(text, [i32] * 4, [near_address(w, s, base, row, column)], "=r,=r,=r,=r,r", True)
    return out


def _dot_type(acc: Any, left: Any, right: Any) -> Any:
    return acc if all(isinstance(x, (TileType, NearType)) for x in (left, right)) else None


@macro(_dot_type)
def dot(w: Writer, sig: Any, acc: V, left: V, right: V) -> V:
    """acc + left @ right: on tensor cores where both operands are f16 or both bf16, else in lanes."""
    spec, kinds = sig.args[0].spec, sig.args[1:]
    halves = {kind.spec.dtype for kind in kinds}
    if all(isinstance(kind, NearType) and kind.spec.boxed for kind in kinds):
        return dot_of_warpgroups(w, spec, acc, kinds, (left, right), *halves)
    if len(halves) == 1 and halves <= set(HALVES) and spec.dtype == "f32":
        return _dot_on_cores(w, spec, acc, kinds, (left, right), *halves)
    if not all(isinstance(kind, NearType) for kind in kinds):
        raise TypeError(f"a product of {kinds[0].spec} without tensor cores: its operands must lie in near memory")
    return dot_in_lanes(w, spec, acc, kinds, (left, right))


def _dot_on_cores(w: Writer, spec: Tile, acc: V, kinds: Sequence[Any], values: Sequence[V], half: str) -> V:
    """An operand is a register tile or near memory, read step by step."""
    m, n = spec.shape
    down, across = (1 << sum(s[k] > 0 for s in spec.layout.warp) for k in (0, 1))
    k = kinds[0].spec.shape[0 if isinstance(kinds[0], NearType) and kinds[0].transposed else 1]
    layouts = operand_a(m, k, (down, across)), operand_b(k, n, (down, across))
    for kind, layout in zip(kinds, layouts, strict=True):
        if isinstance(kind, TileType) and kind.spec.layout != layout:
            raise TypeError(f"the dot's operand {kind.spec} must be in {layout}")
    c = w.registers(acc)
    held = [
        w.registers(v) if isinstance(t, TileType) else None for t, v in zip(kinds, values, strict=True)
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
                held, wanted, kinds, values, layouts, strict=True
            )
        )
        for i in range(rows):
            for j in range(columns) if i % 2 == 0 else reversed(range(columns)):
                o = 4 * (j + columns * i)
                c[o : o + 4] = w.asm(
                    f"mma.sync.aligned.m16n8k16.row.col.f32.{half}.{half}.f32 "
                    "{$0,$1,$2,$3}, {$4,$5,$6,$7}, {$8,$9}, {$10,$11,$12,$13};",
                    [f32] * 4,
                    a[4 * i : 4 * i + 4] + b[2 * j : 2 * j + 2] + c[o : o + 4],
                    "=f,=f,=f,=f,r,r,r,r,r,r,f,f,f,f",
                )
    return w.pack(c)


DOT_MACROS = {
    "copy": copy, "commit": commit, "wait": wait, "barrier": barrier, "put": store, "take": take, "dot": dot,
}  # fmt: skip
