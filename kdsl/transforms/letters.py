"""Letters: which axes of which values are the same loop, by union-find over equations.

In:  equations in program order.  Out: ir.frame.Letters, or Illegal.
Elementwise equations make the axes of operands and result equal; broadcasts, permutations and reshapes rename them; folds drop
some. What follows from the equations alone is *hard*. Two things are *soft*, each undone where it makes a clash (one value
wanted at two places at once, as in x @ x.T):
    uses of one input are named alike, so that they can share loads;
    a dropped letter is a bound variable and may be named after any loop of its length.
Without the first, softmax is [a b] with a maximum over c: two kernels. Without the second some sums get a loop of their own.
An axis of extent 1 has no letter. An axis may be split in two when a reshape meets it: [12] against [3, 4] becomes two letters.
Read before: ir/frame.py. Read next: plan_rows.py, plan_dots.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from kdsl.ir.frame import Illegal, Letter, Letters, flat
from kdsl.ir.ops import ELEMENTWISE, REDUCTIONS, Op
from kdsl.ir.sizes import Extent, divide
from kdsl.ir.tensor import Equation, Value

MOVING = frozenset({Op.SLICE, Op.PAD, Op.CONCAT, Op.WINDOW, Op.TAKE, Op.TAKE_ALONG})  # may read axes elsewhere
Node = int
Nodes = tuple[tuple[Node, ...], ...]


class Union:
    """Union-find over axes whose members can be split into a product of parts, with undo."""

    def __init__(self) -> None:
        self.parent: list[Node] = []
        self.extent: list[Extent] = []
        self.parts: list[tuple[Node, Node] | None] = []
        self.log: list[tuple[list, int, object]] = []

    def new(self, extent: Extent) -> Node:
        self.parent.append(len(self.parent))
        self.extent.append(extent)
        self.parts.append(None)
        return len(self.parent) - 1

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

    def letters(self, i: Node) -> tuple[Node, ...]:
        """The letters of one axis."""
        i = self.find(i)
        if self.parts[i] is None:
            return () if self.extent[i] == 1 else (i,)
        return tuple(self.leaves((i,)))

    def tie(self, i: Node, j: Node) -> None:
        """Make two axes one."""
        i, j = self.find(i), self.find(j)
        if i != j:
            if self.parts[i] is None and self.parts[j] is None and self.extent[i] == self.extent[j]:
                self._set(self.parent, j, i)
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
                self._set(self.parent, q, p)
                continue
            if not _splits(n, m):
                p, q, n, m, x, y = q, p, m, n, y, x
            if not _splits(n, m):
                raise Illegal(f"a reshape that neither splits nor merges whole axes ({n} against {m})")
            rest = divide(n, m)
            assert rest is not None
            outer, inner = self.new(m), self.new(rest)
            self._set(self.parts, p, (outer, inner))
            self._set(self.parent, outer, q)
            x = [leaf for i in x for leaf in reversed(self.leaves((i,)))]
            y = [leaf for i in y for leaf in reversed(self.leaves((i,)))]
            x.append(inner)
        if x or y:
            raise Illegal("axes of different extents")

    def _set(self, column: list, i: int, value: object) -> None:
        self.log.append((column, i, column[i]))
        column[i] = value

    def mark(self) -> int:
        return len(self.log)

    def undo(self, mark: int) -> None:
        while len(self.log) > mark:
            column, i, old = self.log.pop()
            column[i] = old


def _splits(n: Extent, m: Extent) -> bool:
    return n != 0 and m != 0 and divide(n, m) is not None


@lru_cache(maxsize=8192)
def tied_axes(equation: Equation) -> list[tuple[int, int, int]]:
    """(operand, its axis, axis of the result) that are the same loop, for every op but DOT, RESHAPE and the scatters.

    Axes that are not listed are folded away, made anew, or read at other places than the loop's."""
    op, attributes, result = equation.op, equation.attributes, equation.result
    values = [(i, o) for i, o in enumerate(equation.operands) if isinstance(o, Value)]
    if op in ELEMENTWISE or op in (Op.BARRIER, Op.SORT, Op.ARGSORT):
        return [(i, d, d) for i, o in values for d in range(len(o.shape))]
    if op in REDUCTIONS:
        kept = [d for d in range(len(values[0][1].shape)) if d not in attributes["axes"]]
        return [(0, d, r) for r, d in enumerate(kept)]
    if op is Op.BROADCAST:
        return [(0, d, r) for d, r in enumerate(attributes["axes"]) if values[0][1].shape[d] == result.shape[r]]
    if op is Op.PERMUTE:
        return [(0, d, r) for r, d in enumerate(attributes["axes"])]
    if op is Op.SLICE:
        return [(0, d, d) for d in range(len(result.shape)) if not moves(equation, d)]
    if op is Op.PAD:
        return [(0, d, d) for d in range(len(result.shape)) if not moves(equation, d)]
    if op is Op.CONCAT:
        return [(i, d, d) for i, o in values for d in range(len(result.shape)) if d != attributes["axis"]]
    if op is Op.WINDOW:
        return [(0, d, d) for d in range(len(result.shape) - 1) if d != attributes["axis"]]
    if op is Op.TAKE:
        axis, n = attributes["axis"], len(values[1][1].shape)
        x = [(0, d, d if d < axis else d + n - 1) for d in range(len(values[0][1].shape)) if d != axis]
        return x + [(1, d, axis + d) for d in range(n)]
    if op is Op.TAKE_ALONG:
        n = len(result.shape)
        axis = attributes["axis"]
        x = [(0, d, d) for d in range(n) if d != axis and values[0][1].shape[d] == result.shape[d]]
        return x + [(1, d, d) for d in range(n)]
    if op is Op.SEARCHSORTED:
        return [(1, d, d) for d in range(len(result.shape))]
    return []


def moves(equation: Equation, axis: int) -> bool:
    """Does a SLICE or PAD read this axis at another place than its loop's?"""
    a = equation.attributes
    if equation.op is Op.SLICE:
        operand = equation.operands[0]
        assert isinstance(operand, Value)
        return a["starts"][axis] != 0 or a["steps"][axis] != 1 or a["sizes"][axis] != operand.shape[axis]
    return any(a[key][axis] != 0 for key in ("low", "high", "interior"))


def letters_of(equations: Sequence[Equation], contiguous: Callable[[Value], bool] | None = None, soft: bool = True) -> Letters:
    """The letters of all axes in these equations; Illegal where one value would be wanted at two places at once."""
    union = Union()
    new = union.new
    made: dict[Value, Nodes] = {e.result: tuple((new(n),) for n in e.result.shape) for e in equations}
    uses: dict[tuple[Equation, int], Nodes] = {}
    private: list[Node] = []  # axes that are read at other places than a loop's: never the name of a loop
    for e in equations:
        operands: list[Nodes] = []
        for i, o in enumerate(e.operands):
            if not isinstance(o, Value):
                operands.append(())
                continue
            nodes = made.get(o)
            if nodes is None:
                nodes = uses[e, i] = tuple((new(n),) for n in o.shape)
            operands.append(nodes)
        _tie(union, e, operands, made[e.result])
        if e.op in MOVING:
            tied = {(i, d) for i, d, _ in tied_axes(e)}
            private += [n for i, nodes in enumerate(operands) for d, (n,) in enumerate(nodes) if (i, d) not in tied]
    rows = [nodes for nodes in (*made.values(), *uses.values()) if len(nodes) > 1]
    if _clash(union, rows):
        raise Illegal("one value is wanted at two places at once")
    if soft:
        _name_uses_alike(union, uses, rows, private)
        _name_bound_letters(union, equations, made, uses, rows, private)
    leaves = union.letters
    values = {v: tuple([leaves(i) for (i,) in nodes]) for v, nodes in made.items()}
    reads = {k: tuple([leaves(i) for (i,) in nodes]) for k, nodes in uses.items()}
    size = {x: union.extent[x] for nodes in (*values.values(), *reads.values()) for axis in nodes for x in axis}
    found = Letters(values, reads, size)
    return merge_letters(equations, found, contiguous or (lambda v: True)) if soft else found


def _tie(union: Union, e: Equation, operands: list[Nodes], result: Nodes) -> None:
    if e.op is Op.DOT:
        by: dict[str, tuple[Node, ...]] = {}
        for names, nodes in ((e.attributes["left"], operands[0]), (e.attributes["right"], operands[1]), (e.attributes["out"], result)):
            for name, node in zip(names, nodes, strict=True):
                union.unify(by.setdefault(name, node), node)
        return
    if e.op is Op.RESHAPE:
        union.unify([x for axis in operands[0] for x in axis], [x for axis in result for x in axis])
        return
    if e.op in (Op.SCATTER_ADD, Op.SCATTER_ALONG):
        _tie_scatter(union, e, operands, result)
        return
    for i, d, r in tied_axes(e):
        union.tie(operands[i][d][0], result[r][0])


def _tie_scatter(union: Union, e: Equation, operands: list[Nodes], result: Nodes) -> None:
    axis, (x, index, updates) = e.attributes["axis"], operands
    for a, b in zip(x, result, strict=True):
        union.unify(a, b)
    if e.op is Op.SCATTER_ADD:
        for d in range(len(result)):
            if d != axis:
                union.unify(updates[d if d < axis else d + len(index) - 1], result[d])
        for d, node in enumerate(index):
            union.unify(updates[axis + d], node)
        return
    for d, node in enumerate(index):
        union.unify(updates[d], node)
        if d != axis and union.extent[union.find(node[0])] == union.extent[union.find(result[d][0])]:
            union.unify(node, result[d])


def _clash(union: Union, rows: list[Nodes]) -> bool:
    """Does a value have one letter on two axes?"""
    parent, parts, extent = union.parent, union.parts, union.extent
    for nodes in rows:
        seen = set()
        for (i,) in nodes:
            while parent[i] != i:
                i = parent[i]
            if parts[i] is not None:
                for leaf in union.leaves((i,)):
                    if leaf in seen:
                        return True
                    seen.add(leaf)
            elif extent[i] != 1:
                if i in seen:
                    return True
                seen.add(i)
    return False


def _name_uses_alike(union: Union, uses: dict[tuple[Equation, int], Nodes], rows: list[Nodes], private: list[Node]) -> None:
    apart = set(map(union.find, private))
    first: dict[tuple[Value, int], Node] = {}  # the first use's name for each axis of an input
    for (e, i), nodes in uses.items():
        value = e.operands[i]
        assert isinstance(value, Value)
        pairs = [(first.setdefault((value, d), n), n) for d, (n,) in enumerate(nodes) if union.find(n) not in apart]
        if all(union.find(a) == union.find(b) for a, b in pairs):
            continue
        mark = union.mark()
        try:
            for a, b in pairs:
                union.tie(a, b)
            if not _clash(union, rows):
                continue
        except Illegal:
            pass
        union.undo(mark)


def _name_bound_letters(
    union: Union, equations: Sequence[Equation], made: dict[Value, Nodes], uses: dict[tuple[Equation, int], Nodes],
    rows: list[Nodes], private: list[Node],
) -> None:  # fmt: skip
    bound: list[Node] = []
    for e in equations:
        if e.op in REDUCTIONS:
            source = made.get(e.operands[0]) or uses.get((e, 0)) or ()  # type: ignore[arg-type]
            bound += [source[a][0] for a in e.attributes["axes"]]
    if not bound:
        return
    apart = set(union.leaves(private))
    loops = [x for x in dict.fromkeys(x for nodes in made.values() for axis in nodes for x in union.leaves(axis)) if x not in apart]
    for node in bound:
        for a in union.leaves((node,)):
            for b in loops:
                a, b = union.find(a), union.find(b)
                if a == b or union.extent[a] != union.extent[b] or union.parts[a] or union.parts[b]:
                    continue
                mark = union.mark()
                union.unify((a,), (b,))
                if not _clash(union, rows):
                    break
                union.undo(mark)


def dropped(equation: Equation, letters: Letters) -> frozenset[Letter]:
    """The letters that an equation sums (or folds) away."""
    if equation.op in REDUCTIONS:
        axes = letters.of(equation, 0)
        return frozenset(x for a in equation.attributes["axes"] for x in axes[a])
    if equation.op is Op.DOT:
        both = {*flat(letters.of(equation, 0)), *flat(letters.of(equation, 1))}
        return frozenset(both - set(flat(letters.values[equation.result])))
    return frozenset()


def merge_letters(equations: Sequence[Equation], letters: Letters, contiguous: Callable[[Value], bool]) -> Letters:
    """Join letters a, b that always stand side by side and are folded together: one loop instead of two.

    Not where an index counts one of them, nor where an input's memory or a moved axis keeps them apart."""
    apart: set[Letter] = set()
    for (e, i), axes in letters.uses.items():
        if not contiguous(e.operands[i]):  # type: ignore[arg-type]
            apart.update(flat(axes))
    after: dict[Letter, Letter | None] = {}  # the only neighbour so far; None where there are several, or none
    before: dict[Letter, Letter | None] = {}
    for table in {*letters.values.values(), *letters.uses.values()}:
        last: Letter | None = None
        for axis in table:
            for x in axis:
                if last is not None and after.setdefault(last, x) != x:
                    after[last] = None
                if before.setdefault(x, last) != last:
                    before[x] = None
                last = x
        if last is not None:
            after[last] = None
    joinable = [(a, b) for a, b in after.items() if b is not None and before[b] == a and a not in apart and b not in apart]
    if not joinable:
        return letters
    groups: list[frozenset[Letter]] = []
    for e in equations:
        groups.extend(_kept_apart(e, letters, apart))
    joins = {
        a: b for a, b in joinable if a not in apart and b not in apart and all((a in g) == (b in g) for g in groups)
    }  # a -> the letter right of it that swallows it
    if not joins:
        return letters
    size = dict(letters.size)
    for a in joins:
        b = joins[a]
        while b in joins:
            b = joins[b]
        size[b] = size.pop(a) * size[b]
    cut = lambda t: tuple(tuple(x for x in axis if x not in joins) for axis in t)  # noqa: E731
    return Letters({v: cut(t) for v, t in letters.values.items()}, {k: cut(t) for k, t in letters.uses.items()}, size)


def _kept_apart(e: Equation, letters: Letters, apart: set[Letter]) -> list[frozenset[Letter]]:
    """Sets of letters that must be joined as a whole or not at all; letters that an equation counts go to `apart`."""
    if e.op in REDUCTIONS:
        out = dropped(e, letters)
        if e.op in (Op.ARGMAX, Op.ARGMIN):
            apart.update(out if len(out) > 1 else ())
        return [out]
    if e.op is Op.DOT:
        return [frozenset(flat(letters.of(e, 0))), frozenset(flat(letters.of(e, 1))), frozenset(flat(letters.values[e.result]))]
    if e.op is Op.IOTA:
        apart.update(letters.values[e.result][e.attributes["axis"]])
    elif e.op in (Op.SLICE, Op.PAD):
        for d in range(len(e.result.shape)):
            if moves(e, d):
                apart.update(letters.values[e.result][d])
                apart.update(letters.of(e, 0)[d])
    elif e.op in (Op.CONCAT, Op.WINDOW, Op.TAKE, Op.TAKE_ALONG):
        tied = {(i, d) for i, d, _ in tied_axes(e)}
        result = set(range(len(e.result.shape))) if e.op in (Op.TAKE, Op.TAKE_ALONG) else {r for _, _, r in tied_axes(e)}
        for r, axis in enumerate(letters.values[e.result]):
            if r not in result:
                apart.update(axis)
        for i, o in enumerate(e.operands):
            if isinstance(o, Value):
                for d, axis in enumerate(letters.of(e, i)):
                    if (i, d) not in tied:
                        apart.update(axis)
    elif e.op in (Op.SCATTER_ADD, Op.SCATTER_ALONG):
        apart.update(letters.values[e.result][e.attributes["axis"]])
        apart.update(flat(letters.of(e, 1)))
    return []
