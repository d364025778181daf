"""The dot without tensor cores: every thread multiplies and adds what its registers want, in any dtype.

In:  an accumulator tile in any layout, two operands in near memory.  Out: the tile with their product added, in order of k.
Per step of k a thread reads the rows and columns of its own registers, in pieces of up to 16 bytes, each once.
Read before: places.py, words.py, layout.patches. Read next: macros_dot.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kdsl.codegen.cuda.places import near_address
from kdsl.codegen.cuda.records import BYTES, Tile
from kdsl.codegen.cuda.words import plain_load, word_of
from kdsl.codegen.cuda.writer import V, Writer, i32

BODY = 512  # multiplications of a thread that stand one after the other; beyond that they are a loop


class _Side:
    """One operand: `axis` 0 for the left, whose rows are the tile's rows, 1 for the right."""

    def __init__(self, w: Writer, kind: Any, base: V, tile: Tile, axis: int) -> None:
        self.w, self.spec, self.base = w, kind.spec, base
        self.at = w.position(tile.layout)[axis]
        self.offsets = sorted({o[axis] for o in tile.layout.offsets})
        self.turned = kind.transposed != (axis == 1)  # near memory holds [k, position] and not [position, k]
        self.most = 16 // BYTES[self.spec.dtype]
        self.run = min(self.most, tile.layout.run(self.most)) if axis == 1 else 1

    def fetch(self, k: V, count: int) -> dict[int, list[V]]:
        """For each position of the thread its elements k … k + count - 1."""
        out: dict[int, list[V]] = {o: [] for o in self.offsets}
        if self.turned:
            for step in range(count):
                for i in range(0, len(self.offsets), self.run):
                    group = self.offsets[i : i + self.run]
                    for o, v in zip(group, self._piece(self._plus(k, step), self._plus(self.at, group[0]), self.run)):
                        out[o].append(v)
        else:
            for o in self.offsets:
                for step in range(0, count, min(self.most, count)):
                    out[o] += self._piece(self._plus(self.at, o), self._plus(k, step), min(self.most, count))
        return out

    def _plus(self, x: V, n: int) -> V:
        return self.w.add(x, i32(n)) if n else x

    def _piece(self, row: V, column: V, count: int) -> list[V]:
        w, s = self.w, self.spec
        if s.swizzled:
            address = near_address(w, s, self.base, row, column)
        else:
            inside = w.mul(column, i32(BYTES[s.dtype]))
            address = w.add(self.base, w.add(w.mul(row, i32(s.row_bytes)), inside))
        word, n = word_of(BYTES[s.dtype], count)
        return w.from_words(plain_load(w, 3, address, word, n, False), s.dtype, count)


def dot_in_lanes(w: Writer, tile: Tile, total: V, kinds: Sequence[Any], values: Sequence[V]) -> V:
    """total + left @ right"""
    sides = [_Side(w, kind, v, tile, axis) for axis, (kind, v) in enumerate(zip(kinds, values))]
    extent = kinds[0].spec.shape[0 if kinds[0].transposed else 1]
    real = tile.dtype in ("f32", "f64")
    chunk = min(extent, max(4, *(s.most for s in sides)))

    def step(k: V, held: list[V]) -> list[V]:
        a, b = (s.fetch(k, chunk) for s in sides)
        for i in range(chunk):
            held = [
                w.fadd(w.fmul(a[r][i], b[c][i]), x) if real else w.add(w.mul(a[r][i], b[c][i]), x)
                for x, (r, c) in zip(held, tile.layout.offsets)
            ]
        return held

    many = max(1, min(extent // chunk, BODY // (chunk * len(tile.layout.offsets))))

    def steps(number: V, held: list[V]) -> list[V]:
        first = w.mul(number, i32(chunk * many))
        for i in range(many):
            held = step(w.add(first, i32(i * chunk)) if i else first, held)
        return held

    return w.pack(w.repeat(extent // (chunk * many), w.registers(total), steps))
