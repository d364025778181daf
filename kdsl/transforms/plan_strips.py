"""Plans of strips: products, folds and maps along one letter, the line, kept near for a few rows.

    producer    a product whose operands are stored or mapped from what is stored; its result has the row and the line
    fold        over the line, used again along it (softmax) or not (linear + cross-entropy)
    consumer    a product that sums the line away; one operand is a line value of this kernel, the other is stored
    gathered    a product that sums the rows away; it is added up in memory while the rows are walked, one group after the other

Attention is producer, folds, consumer; its backward two producers, one consumer and two gathered, or the other way round.
A line value that waits for a fold or a consumer lies in a strip [rows of a tile, line]. Positions that an index mask makes
neutral for every fold and consumer are cut off (transforms/cut.py).
In:  Facts.  Out: a DotFrame with a line, or Illegal with numbers.
Read before: transforms/dot_facts.py. Read next: schedule/chain.py.
"""

from __future__ import annotations

from kdsl.ir.dot_frame import DotFrame, Product
from kdsl.ir.frame import Illegal, Letter, flat
from kdsl.ir.ops import REDUCTIONS, Op
from kdsl.ir.sizes import Extent, names_in, substitute
from kdsl.ir.tensor import Equation, Value
from kdsl.target import Target
from kdsl.transforms.cut import find_cut
from kdsl.transforms.dot_facts import Facts, product_of
from kdsl.transforms.online import online_frame

STRIP_ROWS = 6
LONG = 1024  # what a named size is taken to be where strips must stay near
FOLDS = frozenset({Op.SUM, Op.PROD, Op.MAX, Op.MIN, Op.ANY, Op.ALL})


def strip_frame(facts: Facts, target: Target) -> DotFrame:
    """The walk of a kernel with several products, or with a product and folds."""
    folded = {e.result for e in facts.equations if e.op in REDUCTIONS}
    waits = _depending(facts, folded | {e.result for e in facts.dots})
    producers = [e for e in facts.dots if not any(v in waits for v in e.values)]
    behind = [e for e in facts.dots if e not in producers]
    reasons: list[Illegal] = []
    for line, row in _directions(facts, producers, behind, waits):
        try:
            return _frame(facts, target, producers, behind, waits, line, row)
        except Illegal as reason:
            reasons.append(reason)
    raise reasons[0]


def _frame(
    facts: Facts,
    target: Target,
    producers: list[Equation],
    behind: list[Equation],
    waits: set[Value],
    line: Letter,
    row: Letter | None,
) -> DotFrame:
    """The frame with this line and these rows."""
    gathered = [e for e in behind if row not in facts.result(e) and row in facts.of(e, 0) & facts.of(e, 1)]
    consumers = [e for e in behind if e not in gathered]
    outer = tuple(
        x for x in dict.fromkeys(x for e in facts.dots for x in facts.result(e)) if x not in (row, line)
    )
    columns = {e: _column(facts, e, 0 if e.operands[0] in waits else 1) for e in behind}
    outer = tuple(x for x in outer if x not in columns.values())
    core = {*outer, *(() if row is None else (row,))}
    for e in producers:
        if set(facts.result(e)) != core | {line}:
            raise Illegal("a product whose result has other letters than rows and line")
    products = []
    for e in producers:
        a = 0 if row in facts.of(e, 0) or (row is None and line not in facts.of(e, 0)) else 1
        if row in facts.of(e, 1 - a) or line in facts.of(e, a):
            raise Illegal("a product whose operands both run along the rows")
        products.append(product_of(facts, e, a, line))
    for e in consumers:
        a = 0 if e.operands[0] in waits else 1
        if e.operands[1 - a] in waits:
            raise Illegal("a product of two values that are computed in the kernel")
        if row in facts.of(e, 1 - a):
            raise Illegal("a product whose stored operand runs along the rows")
        products.append(product_of(facts, e, a, columns[e]))
        if products[-1].k != (line,):
            raise Illegal("a product that sums more than the line")
    for e in facts.equations:
        if e.op in REDUCTIONS:
            if e.op not in FOLDS:
                raise Illegal(f"{e.op.value} in a strip")
            dropped = facts.of(e, 0) - set(facts.result(e))
            if dropped != {line}:
                raise Illegal("a fold along another letter than the line")
    if gathered and target.kind != "cpu":
        raise Illegal("a sum over rows, which run side by side here")
    for e in gathered:
        a = 0 if e.operands[0] in waits else 1
        if e.operands[1 - a] in waits:
            raise Illegal("a product of two values that are computed in the kernel")
        if line in facts.of(e, 1 - a) or line not in facts.of(e, a):
            raise Illegal("a product that sums the rows of a value without the line")
        if columns[e] is None or set(facts.result(e)) != {*outer, line, columns[e]}:
            raise Illegal("a sum over rows with other letters than line and columns")
        products.append(product_of(facts, e, a, columns[e]))
        if products[-1].k != (row,):
            raise Illegal("a product that sums more than the rows")
    when, passes = _passes(facts, behind, waits)
    _check_shapes(facts, core, line, columns, consumers, gathered)
    strips = _strips(facts, line, when, behind, waits)
    cut = find_cut(facts, row, line, behind) if row is not None else None
    frame = DotFrame(outer, row, tuple(products), line, when, passes, strips, cut)
    if target.kind != "cpu":
        return online_frame(facts, frame)
    _check_sizes(facts, target, line, row, products, strips)
    return frame


def _depending(facts: Facts, roots: set[Value]) -> set[Value]:
    out = set(roots)
    for e in facts.equations:
        if any(v in out for v in e.values):
            out.add(e.result)
    return out


def _directions(
    facts: Facts, producers: list[Equation], behind: list[Equation], waits: set[Value]
) -> list[tuple[Letter, Letter | None]]:
    """The choices of (line, row), the best first: where products sum two letters, one is the line, one the row."""
    if not behind:
        return [_directions_of_folds(facts, producers)]
    summed: dict[Letter, int] = {}  # how many products sum a letter
    for e in behind:
        for x in (facts.of(e, 0) & facts.of(e, 1)) - set(facts.result(e)):
            summed[x] = summed.get(x, 0) + 1
    if len(summed) == 2:
        x, y = sorted(summed, key=lambda x: -summed[x])  # more products sum the line than the rows
        for e in producers:
            if any((x in facts.of(e, i)) == (y in facts.of(e, i)) for i in (0, 1)):
                raise Illegal("contractions that walk along different letters")
        return [(x, y), (y, x)]
    if len(summed) != 1:
        raise Illegal("contractions that walk along different letters")
    (line,) = summed
    rows: frozenset[Letter] | None = None
    for e in behind:
        a = 0 if e.operands[0] in waits else 1
        own = facts.of(e, a) - facts.of(e, 1 - a)
        rows = own if rows is None else rows & own
    candidates = [x for x in facts.result(behind[0]) if x in (rows or ())]
    return [(line, _row(facts, producers, candidates))]


def _directions_of_folds(facts: Facts, producers: list[Equation]) -> tuple[Letter, Letter | None]:
    """The same where no product stands behind the line."""
    dropped = {x for e in facts.equations if e.op in REDUCTIONS for x in facts.of(e, 0) - set(facts.result(e))}
    if len(dropped) != 1:
        raise Illegal("products side by side" if not dropped else "folds along different letters behind a product")
    (line,) = dropped
    e = producers[0]
    b = 0 if line in facts.of(e, 0) else 1
    if any(line not in facts.result(q) for q in producers):
        raise Illegal("a fold along a summed letter")
    return line, _row(facts, producers, [x for x in facts.result(e) if x in facts.of(e, 1 - b) - facts.of(e, b)])


def _row(facts: Facts, producers: list[Equation], candidates: list[Letter]) -> Letter | None:
    """The longest letter that is in one operand of every producer only."""
    return facts.longest(
        x for x in candidates if all((x in facts.of(e, 0)) != (x in facts.of(e, 1)) for e in producers)
    )


def _column(facts: Facts, e: Equation, a: int) -> Letter | None:
    """The letter of a consumer's result that its stored operand alone has."""
    own = [x for x in facts.result(e) if x not in facts.of(e, a)]
    if len(own) > 1:
        raise Illegal("a product with several column letters behind a strip")
    return own[0] if own else None


def _passes(facts: Facts, consumers: list[Equation], waits: set[Value]) -> tuple[dict[Value, int], int]:
    when: dict[Value, int] = {}
    for e in facts.equations:
        before = max((when.get(v, 0) for v in e.values), default=0)
        when[e.result] = before + (e.op in REDUCTIONS or e in consumers)
    return when, 1 + max(when.values(), default=0)


def _check_shapes(
    facts: Facts,
    core: set[Letter],
    line: Letter,
    columns: dict[Equation, Letter | None],
    consumers: list[Equation],
    gathered: list[Equation],
) -> None:
    """Every value stands on the line, on a consumer's columns, on the rows alone, or behind a sum over rows on its letters."""
    after = _depending(facts, {e.result for e in consumers})
    made = {e.result for e in facts.dots}
    cones = {e: {x.result for x in facts.cone(e.result)} for e in facts.equations}
    for e in facts.equations:
        if e.result not in made and sum(q.result in cones[e] for q in columns) > 1:
            raise Illegal("a map of several products behind the strip")
    for e in facts.dots:
        for i in (0, 1):
            if facts.of(e, i) - facts.of(e, 1 - i) - set(facts.result(e)):
                raise Illegal("a product that sums a letter of one operand alone")
    for e in facts.equations:
        if e.result in facts.after and e.result not in made:
            have = set(flat(facts.letters.values[e.result]))
            sums = [q for q in gathered if q.result in cones[e]]
            if sums:
                if e.op in REDUCTIONS or not have <= set(facts.result(sums[0])):
                    raise Illegal("more than a map behind a sum over rows")
                continue
            if not have <= core | {line} and not have <= core | set(columns.values()):
                raise Illegal("a map larger than the strip or the product behind it")
            if e.result in after and line in have:
                raise Illegal("a product behind the strip that is used along the line again")
    for v in facts.outputs:
        have = set(flat(facts.letters.values[v]))
        sums = [q for q in gathered if q.result in {x.result for x in facts.cone(v)}]
        if sums:
            if have != set(facts.result(sums[0])):
                raise Illegal("an output that several lines would write")
            continue
        if not core <= have:
            raise Illegal("an output that every row would write again")
        own = {c for q, c in columns.items() if c is not None and q.result in {x.result for x in facts.cone(v)}}
        if have - core not in ({line}, set()) and not (len(own) == 1 and have - core == own):
            raise Illegal("an output along a letter that is not walked")
        if have - core == set() and len(own):
            raise Illegal("a row value computed from a product behind the strip")


def _strips(
    facts: Facts, line: Letter, when: dict[Value, int], consumers: list[Equation], waits: set[Value]
) -> tuple[Value, ...]:
    """Line values that are wanted in a later pass than they are known in."""
    out: dict[Value, None] = {}
    behind = {e.result for e in consumers}
    on_line = lambda v: line in flat(facts.letters.values[v])  # noqa: E731

    def want(v: Value, k: int) -> None:
        if v not in facts.made or not on_line(v):
            return
        e = facts.made[v]
        if when[v] < k and v in waits and e.op not in (Op.BROADCAST, Op.PERMUTE, Op.RESHAPE):
            if any(q.op is Op.DOT for q in facts.cone(v)) or when[v] > 0:
                out[v] = None
                return
        if e.op is Op.DOT or e.op in REDUCTIONS:
            return
        for o in e.values:
            want(o, k)

    for e in facts.equations:
        if e in consumers:
            a = 0 if e.operands[0] in waits else 1
            o = e.operands[a]
            while o in facts.made and facts.made[o].op in (Op.BROADCAST, Op.PERMUTE, Op.RESHAPE):  # type: ignore[index]
                o = facts.made[o].operands[0]  # type: ignore[index]
            if o not in facts.made:
                raise Illegal("a consumer of a stored value")
            out[o] = None  # type: ignore[index]
            want_inside(facts, o, when, want)  # type: ignore[arg-type]
        elif e.op in REDUCTIONS:
            o = e.operands[0]
            if isinstance(o, Value):
                want(o, when[e.result] - 1)
    for v in facts.outputs:
        if on_line(v) and not any(e.result in behind for e in facts.cone(v)):
            want(v, when[v])
    for v in list(out):
        want_inside(facts, v, when, want)
    return tuple(out)


def want_inside(facts: Facts, v: Value, when: dict[Value, int], want) -> None:  # type: ignore[no-untyped-def]
    """What a strip value is computed from, in its own pass."""
    e = facts.made[v]
    if e.op is not Op.DOT and e.op not in REDUCTIONS:
        for o in e.values:
            want(o, when[v])


def _check_sizes(
    facts: Facts,
    target: Target,
    line: Letter,
    row: Letter | None,
    products: list[Product],
    strips: tuple[Value, ...],
) -> None:
    """Strips must stay near, and what every few rows walk over too."""
    size = {x: _guess(n) for x, n in facts.letters.size.items()}
    strip = max(1, len(strips)) * STRIP_ROWS * size[line] * 4
    if strip > target.l2_bytes // 2:
        raise Illegal(f"strips of {strip} bytes do not stay near ({target.l2_bytes // 2})")
    rows = 1 if row is None else size[row]
    for p in products:
        walked = 4
        for x in {p.column, line if p.k == (row,) else None, *(x for x in p.k if x != row)} - {None}:
            walked *= size[x]  # type: ignore[index]
        if walked > 4 * target.l2_bytes and rows > 2 * STRIP_ROWS:
            raise Illegal(
                f"an operand of {walked} bytes would be walked over by every {STRIP_ROWS} rows ({4 * target.l2_bytes})"
            )


def _guess(n: Extent) -> int:
    """An extent; named sizes are taken to be LONG."""
    if isinstance(n, int):
        return n
    got = substitute(n, dict.fromkeys(names_in(n), LONG))
    assert isinstance(got, int)
    return got
