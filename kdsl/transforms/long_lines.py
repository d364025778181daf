"""Lines too long to stay near: products whose result is only folded along one axis, and what a fold of a block must be told.

In:  a Function in core ops, a product of it.  Out: a LongLine, or None where a value along the line is wanted whole.

    s = x @ w + b  [rows, line]     line values: the product, and maps of it with what is constant on the rows or the line
    m = max(s)                      an early fold: it waits for nothing
    z = sum(exp(s - m))             a late fold: what it sums answers to m -> m + d by a factor exp(k*d) (transforms/shift.py)
    s[i, t[i]]                      a gather along the line

Read before: transforms/shift.py. Read next: transforms/line_blocks.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from kdsl.ir.ops import ELEMENTWISE, REDUCTIONS, SOURCES, Op
from kdsl.ir.rules import identity
from kdsl.ir.sizes import names_in
from kdsl.ir.tensor import Equation, Function, Operand, Value
from kdsl.target import Target
from kdsl.transforms.cost import bytes_of
from kdsl.transforms.cut import through
from kdsl.transforms.plan_strips import STRIP_ROWS
from kdsl.transforms.shift import shift_degrees

FOLDS = frozenset({Op.SUM, Op.PROD, Op.MAX, Op.MIN, Op.ANY, Op.ALL})
REPEATED = frozenset({Op.ABS, Op.LT, Op.LE, Op.WHERE})  # from a maximum to what is subtracted: logsumexp replaces infinities
FAR = 8  # a result of so many times the second cache is better not stored


@dataclass(eq=False)
class LongLine:
    """A product with the values along its line, and how these are used up."""

    product: Equation
    operand: int  # the one whose own axis the line is
    place: int  # of the line among that operand's axes
    axis: int  # of the line in every line value
    made: dict[Value, Equation]
    values: dict[Value, int] = field(default_factory=dict)  # line values: 0, or 1 where they wait for an early fold
    early: set[Equation] = field(default_factory=set)
    late: dict[Equation, tuple[Value, float]] = field(default_factory=dict)  # fold -> the row value it waits for, and k
    gathers: set[Equation] = field(default_factory=set)

    @property
    def length(self) -> int:
        n = self.product.result.shape[self.axis]
        assert isinstance(n, int)
        return n


def long_line(function: Function, product: Equation, target: Target) -> LongLine | None:
    """What is known of the line of `product`, if nobody needs it whole and storing it is dear."""
    line = _line_of(function, product)
    if line is None or not _is_long(line, target):
        return None
    row_values: dict[Value, set[Value]] = {}  # what is computed from folds -> the early folds in it
    waits: dict[Value, set[Value]] = {product.result: set()}  # line value -> the row values that it waits for
    line.values[product.result] = 0
    for e in function.equations:
        if not any(v in line.values for v in e.values):
            folds = set().union(*(row_values.get(v, set()) for v in e.values))
            if folds:
                row_values[e.result] = folds
            continue
        if e.op in ELEMENTWISE:
            found = set().union(*(waits.get(v, set()) for v in e.values))
            for v in e.values:
                if v not in line.values:
                    source = _spread(line, v)
                    if source is None:
                        return None
                    found |= {source} if source in row_values else set()
            line.values[e.result], waits[e.result] = int(bool(found)), found
        elif e.op in REDUCTIONS:
            rounded = e.result.dtype.compute is not e.result.dtype  # parts would be rounded in memory
            if e.op not in FOLDS or tuple(e.attributes["axes"]) != (line.axis,) or rounded:
                return None
            wanted = waits[e.values[0]]
            if not wanted:
                line.early.add(e)
                row_values[e.result] = {e.result}
                continue
            k = _factor(function, line, e, wanted, row_values)
            if k is None:
                return None
            line.late[e] = (next(iter(wanted)), k)
            row_values[e.result] = {e.result}  # a third pass would wait for it: no early fold
        elif e.op is Op.TAKE_ALONG and e.values[0] in line.values and e.values[1] not in line.values:
            x, index = e.values
            if e.attributes["axis"] != line.axis or any(
                n != m for d, (n, m) in enumerate(zip(x.shape, index.shape, strict=True)) if d != line.axis
            ) or index.shape[line.axis] != 1:  # fmt: skip
                return None
            line.gathers.add(e)
            row_values[e.result] = set().union(waits[x], {e.result})
        else:
            return None
    used_up = line.early | set(line.late)
    return line if used_up and not any(r in line.values for r in function.results) else None


def _line_of(function: Function, e: Equation) -> LongLine | None:
    """The last axis that one operand alone has, where no axis is in both and in the result."""
    left, right, out = (e.attributes[x] for x in ("left", "right", "out"))
    if e.op is not Op.DOT or any(c in left and c in right for c in out) or len({*left}) < len(left) or len({*right}) < len(right):
        return None
    own = [[c for c in out if c in left], [c for c in out if c in right]]
    axis = len(out) - 1
    operand = 1 if out and out[axis] in right else 0
    if not out or len(own[operand]) != 1 or not own[1 - operand]:
        return None
    place = (left, right)[operand].index(out[axis])
    return LongLine(e, operand, place, axis, {q.result: q for q in function.equations})


def _is_long(line: LongLine, target: Target) -> bool:
    """Is the result large, and the line too long for strips (transforms/plan_strips.py)?"""
    e = line.product
    n, walked = e.result.shape[line.axis], e.values[line.operand]
    if not isinstance(n, int) or any(names_in(x) for x in walked.shape if not isinstance(x, int)):
        return False
    strips = STRIP_ROWS * n * 4 > target.l2_bytes // 2 or bytes_of(walked.type) > 4 * target.l2_bytes
    return target.kind == "cpu" and strips and bytes_of(e.result.type) >= FAR * target.l2_bytes


def _spread(line: LongLine, v: Value) -> Value | None:
    """The source of a broadcast on the rows alone (all of them) or on the line alone."""
    e = line.made.get(v)
    if e is None or e.op is not Op.BROADCAST:
        return None
    (x,), axes = e.values, e.attributes["axes"]
    rows = tuple(range(line.axis))
    if axes == rows and x.shape == v.shape[:-1]:
        return x
    on_line = axes == (line.axis,) and x.shape == v.shape[line.axis :]
    made = line.made.get(x)
    return x if () == axes or (on_line and (made is None or made.op not in SOURCES - {Op.IOTA})) else None


def _factor(
    function: Function, line: LongLine, fold: Equation, wanted: set[Value], row_values: dict[Value, set[Value]]
) -> float | None:
    """k, if the operand of `fold` is scaled by exp(k*d) when the one row value that it waits for is shifted by d.

    That value must follow a running maximum (k < 0) or minimum (k > 0), so that no factor overflows."""
    if len(wanted) != 1 or fold.op is not Op.SUM:
        return None
    (r,) = wanted
    folds = row_values[r]
    if len(folds) != 1:
        return None
    (m,) = folds
    extreme = line.made[m]
    if extreme not in line.early or not follows(line, r, m):
        return None
    degree = shift_degrees(function, r).get(fold.values[0])
    if degree is None or degree.kind != "scale" or (extreme.op, degree.k < 0) not in ((Op.MAX, True), (Op.MIN, False)):
        return None
    return degree.k


def follows(line: LongLine, r: Value, m: Value) -> bool:
    """Is r the fold m, but for what replaces infinities?"""
    if r is m:
        return True
    e = line.made.get(r)
    return e is not None and e.op in REPEATED and all(follows(line, v, m) for v in e.values)


def is_neutral(line: LongLine) -> bool:
    """Where the product is -inf, does every fold along the line get its neutral element?"""
    if not line.product.result.dtype.is_floating:
        return False
    there: dict[Value, float] = {line.product.result: -math.inf}

    def of(o: Operand) -> float | None:
        return there.get(o) if isinstance(o, Value) else float(o)

    for v in line.values:
        e = line.made[v]
        if e is not line.product and (value := through(e, of)) is not None:
            there[v] = value
    return all(of(e.operands[0]) == identity(e.op, e.result.dtype) for e in (*line.early, *line.late))
