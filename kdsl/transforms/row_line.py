"""Which letters of maps and folds are the line, which the rows, and which lies along the vectors.

In:  RowFacts: equations, letters, folds.  Out: their `line`, `rows` and `lane`; Illegal where folds disagree.
    line      the letters of the folds whose results are used in the kernel; else the letter contiguous in most of the traffic
    rows      the other letters, outermost first
    lane      the letter contiguous in most of the traffic, either of the line or the last row letter
Read before: letters.py. Read next: row_parts.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kdsl.ir.frame import Illegal, Letter, Letters, flat
from kdsl.ir.ops import Op
from kdsl.ir.sizes import Extent
from kdsl.ir.tensor import Equation, Value
from kdsl.target import Target
from kdsl.transforms.cost import NEAR_BYTES, bytes_of, estimate
from kdsl.transforms.ties import moves

SHORT_FOLD = 64  # a fold over so few elements is done in registers
GPU_SHORT = 512  # on a GPU one block does it, a tile of lanes after the other: finishers are


@dataclass(eq=False)
class RowFacts:
    """The letters of a kernel in their parts, and the folds sorted by what they drop."""

    equations: Sequence[Equation]
    letters: Letters
    outputs: Sequence[Value]
    made: dict[Value, Equation]
    folds: dict[Equation, frozenset[Letter]]
    used: set[Value]  # fold results that are used in the kernel
    target: Target | None = None
    line: tuple[Letter, ...] = ()
    rows: tuple[Letter, ...] = ()
    lane: Letter | None = None

    @property
    def gpu(self) -> Target | None:
        """The target, where it is a GPU."""
        return None if self.target is None or self.target.kind == "cpu" else self.target

    def on_line(self, v: Value) -> bool:
        return any(x in self.line for axis in self.letters.values[v] for x in axis)

    def whole_line(self, v: Value) -> bool:
        return set(self.line) <= set(flat(self.letters.values[v]))


def choose_line(w: RowFacts) -> None:
    letters = w.letters
    loops: dict[Letter, None] = {}
    for v in w.outputs:
        loops.update(dict.fromkeys(flat(letters.values[v])))
    for e in w.folds:
        loops.update(dict.fromkeys(flat(letters.of(e, 0))))
    lane = _contiguous_letter(w, loops)
    inner = {d for e, d in w.folds.items() if e.result in w.used and d}
    if len(inner) > 1:
        raise Illegal("folds that wait for each other along different axes")
    final = [d for e, d in w.folds.items() if e.result not in w.used and d]
    line: frozenset[Letter]
    if inner:
        line = next(iter(inner))
    elif any(e.op in (Op.ARGMAX, Op.ARGMIN) and d for e, d in w.folds.items()):
        line = next(d for e, d in w.folds.items() if e.op in (Op.ARGMAX, Op.ARGMIN) and d)
    elif any(lane in d for d in final):
        together = [d for d in final if lane in d]
        line = min(together, key=len)
        if len(line) > 1:
            line = frozenset({lane}) if lane is not None else line
    elif final and all(w.made[v] in w.folds for v in w.outputs) and (_little_traffic(w) or _short(w, final)):
        line = min(final, key=len)
    else:
        line = frozenset() if lane is None else frozenset({lane})
    order = _order(w, loops)
    if lane in line:
        w.line = (*(x for x in order if x in line and x != lane), lane)  # type: ignore[arg-type]
        w.rows = tuple(x for x in order if x not in line)
    else:
        w.line = tuple(x for x in order if x in line)
        w.rows = tuple(x for x in order if x not in line and x != lane) + (() if lane is None else (lane,))
    w.lane = lane


def _order(w: RowFacts, loops: dict[Letter, None]) -> list[Letter]:
    """The loops, as they stand in the values with most of them."""
    tables = sorted([*w.letters.values.values(), *w.letters.uses.values()], key=lambda t: -len(flat(t)))
    out: list[Letter] = []
    for t in tables:
        row = [x for x in flat(t) if x in loops]
        for i, x in enumerate(row):
            if x not in out:
                after = next((out.index(y) for y in row[i + 1 :] if y in out), len(out))
                out.insert(after, x)
    return out


def _contiguous_letter(w: RowFacts, loops: dict[Letter, None]) -> Letter | None:
    """The loop that is contiguous in most of the memory that is read and written."""
    votes: dict[Letter, int] = dict.fromkeys(loops, 0)
    reads: dict[tuple[Value, Letter], None] = {}
    for (e, i), axes in w.letters.uses.items():
        last = _lane_through_moves(w, e, i, axes)
        if last is not None:
            reads[e.operands[i], last] = None  # type: ignore[index]
    for v in w.outputs:
        last = next((x for x in reversed(flat(w.letters.values[v]))), None)
        if last is not None:
            reads[v, last] = None
    for v, letter in reads:
        if letter in votes:
            votes[letter] += estimate(v.type.count) * v.dtype.bytes
    if not votes:
        return None
    if not any(votes.values()):
        return list(votes)[-1]
    return max(votes, key=lambda x: votes[x])


def _lane_through_moves(w: RowFacts, e: Equation, operand: int, axes: tuple) -> Letter | None:
    """The last letter of an input; where that axis is sliced or windowed, the letter of the result's axis."""
    if not axes or not axes[-1]:
        return next(iter(reversed(flat(axes))), None)
    last = len(axes) - 1
    if e.op in (Op.SLICE, Op.PAD) and moves(e, last):
        result = w.letters.values[e.result][last]
        unit = e.op is Op.PAD or e.attributes["steps"][last] in (1, -1)
        return result[-1] if result and unit else None
    if e.op is Op.CONCAT and e.attributes["axis"] == last:
        result = w.letters.values[e.result][last]
        return result[-1] if result else None
    if e.op is Op.WINDOW and e.attributes["axis"] == last:
        result = w.letters.values[e.result][last]
        return result[-1] if result else None
    return axes[-1][-1]


def _short(w: RowFacts, final: list[frozenset[Letter]]) -> bool:
    """Is every fold one over a few elements, so that registers hold a tile of results meanwhile?"""
    count: Extent = 1
    for x in final[0]:
        count = count * w.letters.size[x]
    return isinstance(count, int) and count <= (GPU_SHORT if w.gpu else SHORT_FOLD) and all(d == final[0] for d in final)


def _little_traffic(w: RowFacts) -> bool:
    values = {e.operands[i] for e, i in w.letters.uses}
    return all(all(isinstance(n, int) for n in v.shape) for v in values if isinstance(v, Value)) and (
        sum(bytes_of(v.type) for v in values if isinstance(v, Value)) <= NEAR_BYTES
    )
