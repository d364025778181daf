"""Products of warpgroups (wgmma, sm_90a): four warps multiply 64 rows by up to 256 columns straight from near memory.

In:  an accumulator in the layout of mma.sync with 16 rows a warp, both operands in boxed near memory.  Out: the accumulator.
Warp 4g + i holds rows 64g + 16i onwards, as the hardware wants it. An operand is told by a descriptor: where it begins, how
far its panels (`leading`) and its groups of eight rows lie apart, and that its rows are swizzled; a step of 16 along k moves
the beginning.
One asm statement holds a tile's products and their wait, so that nothing can come between them and touch the accumulator; the
tensor cores stay busy with the products of the other warpgroup.
Read before: macros_bulk.py. Read next: macros_dot.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kdsl.codegen.cuda.layout import accumulator
from kdsl.codegen.cuda.records import Near, Tile
from kdsl.codegen.cuda.writer import V, Writer, f32, i32, i64
from kdsl.ir.boxes import LINE

ROWS = 64  # of a warpgroup's product
DEPTH = 16  # elements along k of one instruction
GROUP = 8 * LINE  # bytes of eight rows, which the swizzle exchanges among themselves
SWIZZLE_128 = 1 << 62


def _steps(near: Near, runs_along_k: bool) -> list[int]:
    """How many bytes from its beginning an operand's every 16 of k begin."""
    panel = near.shape[0] * LINE
    if not runs_along_k:
        return [k * LINE for k in range(0, near.shape[0], DEPTH)]
    per_panel = LINE // (2 * DEPTH)
    return [s // per_panel * panel + s % per_panel * 2 * DEPTH for s in range(near.shape[1] // DEPTH)]


def _descriptor(w: Writer, address: V, near: Near) -> V:
    """Of an operand that begins at this address."""
    start = w.zext(w.and_(w.lshr(address, i32(4)), i32(0x3FFF)), i64)
    leading, stride = near.shape[0] * LINE, GROUP
    return w.or_(start, i64(leading >> 4 << 16 | stride >> 4 << 32 | SWIZZLE_128))


def dot_of_warpgroups(w: Writer, spec: Tile, acc: V, kinds: Sequence[Any], values: Sequence[V], half: str) -> V:
    """acc + left @ right."""
    m, n = spec.shape
    if spec.layout != accumulator(m, n, (m // 16, 1)) or m % ROWS or n > 256:
        raise TypeError(f"a product of warpgroups in {spec}: 64 rows for four warps, 256 columns at most")
    left, right = (kind.spec for kind in kinds)
    a_along_k, b_along_k = not kinds[0].transposed, kinds[1].transposed
    group = w.lshr(w.thread(), i32(7))
    own = ROWS * LINE if a_along_k else left.shape[0] * LINE  # from one warpgroup's rows to the next one's
    a = _descriptor(w, w.add(values[0], w.mul(group, i32(own))), left)
    b = _descriptor(w, values[1], right)
    c = w.registers(acc)
    registers = ", ".join(f"${i}" for i in range(len(c)))
    lines = ["wgmma.fence.sync.aligned;"]
    descriptors: list[V] = []
    for x, y in zip(_steps(left, a_along_k), _steps(right, b_along_k), strict=True):
        first = 2 * len(c) + len(descriptors)
        descriptors += [w.add(a, i64(x >> 4)), w.add(b, i64(y >> 4))]
        lines.append(
            f"wgmma.mma_async.sync.aligned.m64n{n}k16.f32.{half}.{half} "
            f"{{{registers}}}, ${first}, ${first + 1}, 1, 1, 1, {int(not a_along_k)}, {int(not b_along_k)};"
        )
    lines += ["wgmma.commit_group.sync.aligned;", "wgmma.wait_group.sync.aligned 0;"]
    letters = ["=f"] * len(c) + [str(i) for i in range(len(c))] + ["l"] * len(descriptors)
    out = w.asm("\n\t".join(lines), [f32] * len(c), [*c, *descriptors], ",".join(letters), True)
    return w.pack(out)
