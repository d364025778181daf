"""Union-find over axes that can be split into products of parts, with undo; it refuses a letter twice on one value.

In:  axes as they are met, each of one value.  Out: the letters of every axis.
Every member knows on which values it stands, as bits of an integer: two members of one value are never made one.
Read next: letters.py.
"""

from __future__ import annotations

from collections.abc import Iterable

from kdsl.ir.frame import Illegal
from kdsl.ir.sizes import Extent, divide

Node = int


class Union:
    """Members with an extent; `tie` and `unify` make them one or raise Illegal, `undo` takes that back."""

    def __init__(self) -> None:
        self.parent: list[Node] = []
        self.extent: list[Extent] = []
        self.parts: list[tuple[Node, Node] | None] = []
        self.values: list[int] = []  # a bit for each value on which the member (if it is a root) stands
        self.log: list[tuple[list, int, object]] = []

    def copy(self) -> Union:
        """The same, to go on from independently."""
        out = Union()
        out.parent, out.extent = self.parent.copy(), self.extent.copy()
        out.parts, out.values = self.parts.copy(), self.values.copy()
        return out

    def row(self, extents: Iterable[Extent], value: int) -> tuple[Node, ...]:
        """New members: the axes of a value, whose bit is `value`."""
        first = len(self.parent)
        self.extent.extend(extents)
        new = range(first, len(self.extent))
        self.parent.extend(new)
        self.parts.extend([None] * len(new))
        self.values.extend([value] * len(new))
        return tuple(new)

    def find(self, i: Node) -> Node:
        parent = self.parent
        while parent[i] != i:
            i = parent[i]
        return i

    def leaves(self, nodes: Iterable[Node]) -> list[Node]:
        """The unsplit members that `nodes` stand for, without those of extent 1."""
        out: list[Node] = []
        for i in nodes:
            i = self.find(i)
            parts = self.parts[i]
            if parts is not None:
                out += self.leaves(parts)
            elif self.extent[i] != 1:
                out.append(i)
        return out

    def tie(self, i: Node, j: Node) -> None:
        """Make two axes one."""
        i, j = self.find(i), self.find(j)
        if i != j:
            if self.parts[i] is None and self.parts[j] is None and self.extent[i] == self.extent[j]:
                self._join(i, j)
            else:
                self.unify((i,), (j,))

    def unify(self, a: Iterable[Node], b: Iterable[Node]) -> None:
        """Make two rows of axes one, splitting where that helps; Illegal where they do not fit."""
        x, y = self.leaves(a), self.leaves(b)
        x.reverse()
        y.reverse()
        while x and y:
            p, q = x.pop(), y.pop()
            if p == q:
                continue
            n, m = self.extent[p], self.extent[q]
            if n == m:
                self._join(p, q)
                continue
            if not _splits(n, m):
                p, q, n, m, x, y = q, p, m, n, y, x
            if not _splits(n, m):
                raise Illegal(f"a reshape that neither splits nor merges whole axes ({n} against {m})")
            outer, inner = self.row((m, divide(n, m)), self.values[p])  # type: ignore[arg-type]
            self._set(self.parts, p, (outer, inner))
            self._join(q, outer)
            x = [leaf for i in x for leaf in reversed(self.leaves((i,)))]
            y = [leaf for i in y for leaf in reversed(self.leaves((i,)))]
            x.append(inner)
        if x or y:
            raise Illegal("axes of different extents")

    def apart(self, i: Node, j: Node) -> bool:
        """Do two unsplit roots stand on one value?"""
        return bool(self.values[i] & self.values[j])

    def _join(self, i: Node, j: Node) -> None:
        """Root j becomes a member of root i."""
        if self.extent[i] != 1:
            if self.values[i] & self.values[j]:
                raise Illegal("one value is wanted at two places at once")
            self._set(self.values, i, self.values[i] | self.values[j])
        self._set(self.parent, j, i)

    def _set(self, column: list, i: int, value: object) -> None:
        self.log.append((column, i, column[i]))
        column[i] = value

    def mark(self) -> int:
        return len(self.log)

    def undo(self, mark: int) -> None:
        while len(self.log) > mark:
            column, i, old = self.log.pop()
            column[i] = old

    def letters(self, rows: Iterable[tuple[Node, ...]]) -> list[tuple[tuple[Node, ...], ...]]:
        """For each row of axes the letters of each axis."""
        parent = self.parent
        known: dict[Node, tuple[Node, ...]] = {}
        out = []
        for nodes in rows:
            axes = []
            for i in nodes:
                while parent[i] != i:
                    i = parent[i]
                found = known.get(i)
                if found is None:
                    found = known[i] = tuple(self.leaves((i,)))
                axes.append(found)
            out.append(tuple(axes))
        return out


def _splits(n: Extent, m: Extent) -> bool:
    return n != 0 and m != 0 and divide(n, m) is not None
