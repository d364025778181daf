"""Virtual values: products that no kernel stores, because every kernel that wants them computes them again.

In:  a prepared Function.  Out: the equations that are virtual: scores, and what is computed from them element by element.

    s = q @ k.mT        [batch, rows, line] is larger than q and k, and k of one batch entry stays near the core:
    p = exp(s - max)    so s and p are computed again by the maximum, by the sum, by p @ v, and by each gradient

A product qualifies if its result is larger than both operands, if each operand's part of one batch entry fits near memory,
and if it has batch letters or is folded by a maximum (a plain product of two matrices is better stored). What it costs is
one more product per kernel that cannot be merged; what it saves is writing and reading rows x line elements. Random numbers that
only such values read (dropout of the weights) are drawn again too.
Read before: transforms/free.py. Read next: transforms/group.py.
"""

from __future__ import annotations

from collections.abc import Iterable

from kdsl.ir.ops import ELEMENTWISE, MOVEMENT, SOURCES, Op
from kdsl.ir.sizes import Extent, names_in, substitute
from kdsl.ir.tensor import Equation, Function, Value
from kdsl.transforms.cost import NEAR_BYTES

LONG = 1024


def virtual_equations(
    function: Function, results: Iterable[Value], stored: set[Equation], near_bytes: int = NEAR_BYTES
) -> set[Equation]:
    """The equations that every reader repeats; never those that a reader could not (`stored`)."""
    kept = set(results)
    made = {e.result: e for e in function.equations}
    folded = _folded(function, made)
    out: set[Equation] = set()
    for e in function.equations:
        if e.result in kept or e in stored:
            continue
        if e.op is Op.DOT:
            if _qualifies(e, folded, near_bytes) and not any(made.get(v) in out for v in e.values):
                out.add(e)
        elif e.op in ELEMENTWISE and any(_behind(v, made, out) for v in e.values):
            out.add(e)
    return out | _drawn_again(function, kept, out, stored)


def _drawn_again(
    function: Function, kept: set[Value], virtual: set[Equation], stored: set[Equation]
) -> set[Equation]:
    """Random numbers, and masks made of them, that only virtual values read: a counter draws the same ones again."""
    random: set[Value] = set()
    readers: dict[Value, list[Equation]] = {}
    for e in function.equations:
        if e.op is Op.RANDOM_BITS or (
            (e.op in ELEMENTWISE or e.op in MOVEMENT) and e.values and all(v in random for v in e.values)
        ):
            random.add(e.result)
        for v in e.values:
            readers.setdefault(v, []).append(e)
    out: set[Equation] = set()
    for e in reversed(function.equations):
        if e.result in random and e.result not in kept and e not in stored:
            if all(q in virtual or q in out for q in readers.get(e.result, ())):
                out.add(e)
    return out


def _behind(v: Value, made: dict[Value, Equation], virtual: set[Equation]) -> bool:
    e = made.get(v)
    while e is not None and e.op in MOVEMENT and e.op is not Op.BROADCAST:
        e = made.get(e.values[0])
    return e is not None and e in virtual


def _folded(function: Function, made: dict[Value, Equation]) -> set[Value]:
    """Values from which a maximum along an axis is computed element by element."""
    out: set[Value] = set()
    for e in reversed(function.equations):
        if e.op is Op.MAX or (
            e.result in out and (e.op in ELEMENTWISE or e.op in MOVEMENT or e.op in SOURCES)
        ):
            out.update(e.values)
    return out


def _qualifies(e: Equation, folded: set[Value], near_bytes: int) -> bool:
    left, right, out = (e.attributes[x] for x in ("left", "right", "out"))
    batch = {c for c in out if c in left and c in right}
    largest = 0
    for letters, v in zip((left, right), e.values, strict=True):
        each: Extent = v.dtype.compute.bytes
        for c, n in zip(letters, v.shape, strict=True):
            if c not in batch:
                each = each * n
        if _long(each) > near_bytes:
            return False
        largest = max(largest, _long(v.type.count))
    if all(c in left and c in right for c in out):
        return False
    return _long(e.result.type.count) > largest and (bool(batch) or e.result in folded)


def _long(n: Extent) -> int:
    """A number for an extent; named sizes count as LONG."""
    got = n if isinstance(n, int) else substitute(n, dict.fromkeys(names_in(n), LONG))
    assert isinstance(got, int)
    return got
