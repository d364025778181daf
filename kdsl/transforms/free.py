"""Free values: movements, sources, masks made of them and maps of single numbers: every kernel that reads them computes them.

In:  a Function.  Out: which equations are free, what a set of equations repeats, and which values are the same memory.
A reshape (or an inserted axis) of a value in memory is the same memory under another shape: an *alias*, no equation at all.
Read before: ir/frame.py. Read next: group.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kdsl.ir.ops import ELEMENTWISE, MOVEMENT, SOURCES, Op
from kdsl.ir.tensor import Equation, Function, Shape, Value
from kdsl.transforms.cost import HEAVY, NEAR_BYTES, cost_of
from kdsl.transforms.placed import placed_concatenations
from kdsl.transforms.virtual import virtual_equations

_SOURCES = SOURCES - {Op.RANDOM_BITS}


def is_alias(e: Equation) -> bool:
    """Does the result have the operand's elements in the operand's order?"""
    if e.op is Op.RESHAPE:
        return True
    if e.op is not Op.BROADCAST:
        return False
    x, axes = e.values[0], e.attributes["axes"]
    kept = {r for d, r in enumerate(axes) if x.shape[d] == e.result.shape[r]}
    return len(kept) == len(axes) and all(n == 1 for r, n in enumerate(e.result.shape) if r not in kept)


class FreeValues:
    """What is free in one function, and who reads what through it."""

    def __init__(
        self,
        function: Function,
        results: tuple[Value, ...],
        strides: Mapping[Value, Shape],
        stored: Iterable[Equation] = (),
        near_bytes: int = NEAR_BYTES,
    ) -> None:
        self.function, self.strides = function, strides
        self.made = {e.result: e for e in function.equations}
        self.kept_results = set(results)
        self.free: dict[Equation, bool] = {}
        self.masks: set[Equation] = set()
        self.lying: set[Equation] = set()  # constants that are read where the program keeps them
        self.virtual = virtual_equations(function, results, set(stored), near_bytes)
        for e in function.equations:
            self.free[e] = self._is_free(e)
        self.placed = placed_concatenations(function, results, lambda v: v in self.made and not self.free[self.made[v]])
        self.free.update(dict.fromkeys(self.placed, False))
        self._index()

    def _is_free(self, e: Equation) -> bool:
        if e.result in self.kept_results:
            return False
        if e in self.virtual:
            return True
        if e.op in MOVEMENT or e.op in _SOURCES or e.op is Op.STOP_GRADIENT:
            if all(v in self.made and self.made[v] in self.masks for v in e.values) and e.op in _SOURCES | MOVEMENT:
                self.masks.add(e)
            return True
        if e.op in ELEMENTWISE and cost_of(e.op) < HEAVY and all(v in self.made and self.made[v] in self.masks for v in e.values):
            self.masks.add(e)
            return True
        return e.op in ELEMENTWISE and all(v.type.count == 1 for v in (e.result, *e.values))  # 1 / t of a 0-d t: once a block

    def _index(self) -> None:
        self.source_memo: dict[Equation, frozenset[Equation]] = {}
        self.readers: dict[Equation, set[Equation]] = {e: set() for e in self.function.equations if not self.free[e]}
        for e in self.function.equations:
            if not self.free[e]:
                for q in self.sources(e):
                    self.readers[q].add(e)
        self.results_of: set[Equation] = {self.made[v] for v in self.kept_results if v in self.made}

    def is_free(self, e: Equation) -> bool:
        return self.free[e]

    def sources(self, e: Equation) -> frozenset[Equation]:
        """The equations that are not free and feed e, through free ones."""
        found = self.source_memo.get(e)
        if found is None:
            out: set[Equation] = set()
            for v in e.values:
                q = self.made.get(v)
                if q is not None:
                    out |= self.sources(q) if self.free[q] else {q}
            found = self.source_memo[e] = frozenset(out)
        return found

    def readers_of(self, e: Equation) -> set[Equation]:
        return self.readers[e]

    def is_read_outside(self, e: Equation, inside: set[Equation]) -> bool:
        return e in self.results_of or not self.readers[e] <= inside

    def root(self, v: Value) -> Value:
        """The value whose memory v is."""
        while True:
            e = self.made.get(v)
            if e is None or not self.free[e] or not is_alias(e):
                return v
            v = e.values[0]

    def in_memory(self, v: Value, inside: set[Equation]) -> bool:
        """Does v lie in memory for a kernel of these equations?"""
        root = self.root(v)
        e = self.made.get(root)
        if e is None:
            return root not in self.strides or root is v
        return (not self.free[e] or e in self.lying) and e not in inside

    def close(self, inside: set[Equation]) -> set[Equation]:
        """The equations with the free ones that lead to them."""
        out = set(inside)
        todo = list(inside)
        while todo:
            for v in todo.pop().values:
                e = self.made.get(v)
                if e is None or e in out or not self.free[e]:
                    continue
                if e.op in (Op.RESHAPE, Op.CONSTANT) and self.in_memory(v, inside):
                    continue
                out.add(e)
                todo.append(e)
        return out

    def store_operands(self, e: Equation) -> list[Equation]:
        """Give up repeating what feeds e directly: its free operands become equations of their own, its constants memory."""
        stored = []
        for v in e.values:
            q = self.made.get(v)
            while q is not None and self.free[q] and q.op is Op.RESHAPE and q.values[0] in self.made:
                if self.in_memory(q.result, set()):
                    q = None
                    break
                q = self.made[q.values[0]]
            if (
                q is not None
                and self.free[q]
                and q not in stored
                and not (q.op in (Op.RESHAPE, Op.CONSTANT) and self.in_memory(q.result, set()))
            ):
                if q.op is Op.CONSTANT:
                    self.lying.add(q)
                else:
                    self.free[q] = False
                self.masks.discard(q)
                stored.append(q)
        if stored:
            self._index()
        return stored

    def aliases(self, results: Iterable[Value]) -> dict[Value, Value]:
        """Each value that is another one's memory, with that one."""
        out: dict[Value, Value] = {}
        for e in self.function.equations:
            if self.free[e] and is_alias(e):
                root = self.root(e.result)
                if root is not e.result and root not in self.strides:
                    out[e.result] = root
        return out
