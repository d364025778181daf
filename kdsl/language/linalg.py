"""Contractions: matmul, einsum with any number of operands, tensordot, vecdot.

In:  tensors whose axes carry letters.  Out: sums of products over the letters that the result lacks, as DOT equations
(as products where nothing is summed). Integers stay in their dtype; f16 and bf16 are accumulated in f32.
Read before: operands.py. Read next: manipulation.py.
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdsl.errors import ArgumentError, DtypeError, ShapeError
from kdsl.ir.ops import Op
from kdsl.ir.sizes import Extent
from kdsl.ir.tensor import Value
from kdsl.language.creation import counting
from kdsl.language.dispatch import public
from kdsl.language.manipulation import permute_dims, reshaped
from kdsl.language.operands import cast, common_dtype, emit, one_axis, traced, value
from kdsl.language.tracer import Tracer


@dataclass(eq=False)
class Lettered:
    """A tensor whose axes have names."""

    value: Value
    letters: tuple[str, ...]

    @property
    def sizes(self) -> dict[str, Extent]:
        return dict(zip(self.letters, self.value.shape))


def _numbers(*arrays: Any, verb: str) -> list[Value]:
    """Tensors in their common dtype, which must be one of numbers."""
    values = [value(a) for a in arrays]
    dtype = common_dtype(*values, what=verb)
    if dtype.kind == "bool":
        raise DtypeError(
            f"cannot {verb} bools", label=", ".join(str(v.type) for v in values), hint="cast first, x.astype(kd.i64) or kd.f32"
        )
    return [cast(v, dtype) for v in values]


# --- contracting --------------------------------------------------------------------------------------------------
def contract(operands: Sequence[Lettered], out: tuple[str, ...]) -> Value:
    """The sum of the product of all operands over every letter that `out` lacks, in a cheap order of pairs."""
    work = [_diagonals(o) for o in operands]
    sizes: dict[str, Extent] = {}
    for o in work:
        sizes.update({c: n for c, n in o.sizes.items() if n != 1 or c not in sizes})
    work = [_without_ones(o, sizes) for o in work]
    while len(work) > 1:
        i, j = _cheapest(work, out, sizes)
        b, a = work.pop(j), work.pop(i)
        others = {c for o in work for c in o.letters} | set(out)
        work.append(_pair(_summed(a, others | set(b.letters)), _summed(b, others | set(a.letters)), others))
    result = _summed(work[0], set(out))
    return _arranged(result, out, sizes)


def _cheapest(work: list[Lettered], out: tuple[str, ...], sizes: dict[str, Extent]) -> tuple[int, int]:
    """The pair whose product shrinks the total of elements most, then costs least."""
    if len(work) == 2:
        return 0, 1

    def count(letters: set[str]) -> int:
        return math.prod(n if isinstance(n, int) else 256 for n in map(sizes.__getitem__, letters))

    def price(pair: tuple[int, int]) -> tuple[int, int]:
        a, b = (set(work[k].letters) for k in pair)
        kept = set(out) | {c for k, o in enumerate(work) if k not in pair for c in o.letters}
        return count((a | b) & kept) - count(a) - count(b), count(a | b)

    return min(((i, j) for j in range(len(work)) for i in range(j)), key=price)


def _pair(a: Lettered, b: Lettered, kept: set[str]) -> Lettered:
    """Two operands as one: a DOT where a shared letter is summed, else a broadcast product."""
    letters = tuple(c for c in dict.fromkeys(a.letters + b.letters) if c in kept)
    if set(a.letters) | set(b.letters) == set(letters):
        sizes = {**a.sizes, **b.sizes}
        left, right = (_arranged(o, letters, sizes) for o in (a, b))
        return Lettered(emit(Op.MUL, left, right), letters)
    shared = [c for c in a.letters if c in b.letters and c in kept]
    letters = (*shared, *(c for c in letters if c not in shared))  # batch axes first
    return Lettered(emit(Op.DOT, a.value, b.value, left=a.letters, right=b.letters, out=letters), letters)


def _summed(o: Lettered, kept: set[str]) -> Lettered:
    """Letters that nobody else needs are summed before any product."""
    axes = tuple(i for i, c in enumerate(o.letters) if c not in kept)
    if not axes:
        return o
    return Lettered(emit(Op.SUM, o.value, axes=axes), tuple(c for c in o.letters if c in kept))


def _without_ones(o: Lettered, sizes: dict[str, Extent]) -> Lettered:
    """An axis of size 1 whose letter is longer elsewhere repeats: it needs no letter."""
    kept = tuple(c for c in o.letters if o.sizes[c] == sizes[c])
    return o if kept == o.letters else Lettered(reshaped(o.value, tuple(o.sizes[c] for c in kept)), kept)


def _diagonals(o: Lettered) -> Lettered:
    """A letter that stands twice means the diagonal: everything else is masked, and summed."""
    for c in dict.fromkeys(o.letters):
        while o.letters.count(c) > 1:
            first = o.letters.index(c)
            second = o.letters.index(c, first + 1)
            v = o.value
            hit = emit(Op.EQ, counting(v.shape, first), counting(v.shape, second))
            masked = emit(Op.WHERE, hit, v, 0.0 if v.dtype.is_floating else 0, dtype=v.dtype)
            o = Lettered(emit(Op.SUM, masked, axes=(second,)), o.letters[:second] + o.letters[second + 1 :])
    return o


def _arranged(o: Lettered, letters: tuple[str, ...], sizes: dict[str, Extent]) -> Value:
    """The axes in the order of `letters`; letters that the operand lacks are broadcast."""
    order = tuple(o.letters.index(c) for c in letters if c in o.letters)
    v = value(permute_dims(traced(o.value), order))
    if len(order) == len(letters):
        return v
    axes = tuple(i for i, c in enumerate(letters) if c in o.letters)
    return emit(Op.BROADCAST, v, shape=tuple(sizes[c] for c in letters), axes=axes)


def _check_letters(operands: Sequence[Lettered], what: str) -> None:
    """Equal letters must mean equal sizes (1 repeats)."""
    seen: dict[str, tuple[Extent, Value]] = {}
    for o in operands:
        for c, n in zip(o.letters, o.value.shape):
            size, where = seen.setdefault(c, (n, o.value))
            if size == 1:
                seen[c] = (n, o.value)
            elif n not in (1, size):
                raise ShapeError(
                    f"{what}: {c} is {size} in {where.type} and {n} in {o.value.type}",
                    label=", ".join(str(p.value.type) for p in operands),
                )


# --- the functions ------------------------------------------------------------------------------------------------
@public
def matmul(x1: Any, x2: Any, /) -> Tracer:
    """The matrix product over the last axis of x1 and the second to last (or only) axis of x2; the axes before broadcast.

    Shapes: [.., m, k] @ [.., k, n] = [.., m, n]; a 1-d operand is a row on the left, a column on the right.
    Raises: ShapeError where k differs. Example: `kd.matmul(x, w)`.
    """
    a, b = _numbers(x1, x2, verb="multiply")
    if not a.shape or not b.shape:
        raise ShapeError(
            f"cannot multiply {a.type} @ {b.type}: 0-d tensors are no matrices",
            label=f"{a.type} @ {b.type}",
            hint="write *",
        )
    batch = string.ascii_lowercase[: max(len(a.shape), len(b.shape), 2) - 2]
    left = batch[len(batch) - max(0, len(a.shape) - 2) :] + ("MK" if len(a.shape) > 1 else "K")
    right = batch[len(batch) - max(0, len(b.shape) - 2) :] + ("KN" if len(b.shape) > 1 else "K")
    inner = b.shape[-2] if len(b.shape) > 1 else b.shape[-1]
    if a.shape[-1] != inner:
        fits = len(b.shape) > 1 and a.shape[-1] == b.shape[-1]
        raise ShapeError(
            f"cannot multiply {a.type} @ {b.type}: inner sizes are {a.shape[-1]} and {inner}",
            label=f"{a.type} @ {b.type}",
            facts=("[.., m, k] @ [.., k, n] gives [.., m, n]",),
            hint=f"{b.name or 'the second'}.mT has {inner} columns and fits" if fits else "",
        )
    for c in batch:
        sizes = {v.shape[letters.index(c)] for v, letters in ((a, left), (b, right)) if c in letters} - {1}
        if len(sizes) > 1:
            raise ShapeError(
                f"cannot multiply {a.type} @ {b.type}: the axes before the matrices do not broadcast",
                label=f"{a.type} @ {b.type}",
            )
    out = tuple(c for c in f"{batch}MN" if c in left + right)
    return traced(contract([Lettered(a, tuple(left)), Lettered(b, tuple(right))], out))


@public
def einsum(subscripts: str, /, *operands: Any) -> Tracer:
    """The sum of products that Einstein's notation names, of any number of tensors: letters that stand right of -> are
    kept, the others are summed; without -> the letters that stand once are kept, in alphabetical order. `...` stands
    for axes that broadcast.

    Raises: ShapeError where a letter has two sizes. Example: `kd.einsum("bij,bjk->bik", x, y)`.
    """
    if not isinstance(subscripts, str):
        raise ArgumentError("einsum's first argument is a text such as 'ij,jk->ik'")
    values = _numbers(*operands, verb="contract")
    inputs, arrow, result = subscripts.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if len(terms) != len(values):
        raise ArgumentError(f"einsum {subscripts!r} names {len(terms)} tensors, and there are {len(values)}")
    lettered = [_term(term, v, subscripts) for term, v in zip(terms, values)]
    dots = max(([c for c in o.letters if len(c) > 1] for o in lettered), key=len)
    if arrow:
        out = _letters(result, dots if "..." in result else [], subscripts)
        unknown = [c for c in out if not any(c in o.letters for o in lettered)]
        if unknown or len(set(out)) < len(out):
            raise ArgumentError(f"einsum {subscripts!r}: {unknown[0] if unknown else 'a letter'} right of -> " +
                                ("stands nowhere on the left" if unknown else "stands twice"))  # fmt: skip
    else:
        flat = [c for o in lettered for c in o.letters if len(c) == 1]
        out = (*dots, *sorted(c for c in set(flat) if flat.count(c) == 1))
    _check_letters(lettered, f"einsum {subscripts!r}")
    return traced(contract(lettered, out))


def _term(term: str, v: Value, subscripts: str) -> Lettered:
    named = len(term.replace("...", ""))
    free = len(v.shape) - named
    if free < 0 or (free and "..." not in term):
        raise ShapeError(f"einsum {subscripts!r}: {term!r} names {named} axes, and the tensor is {v.type}", label=str(v.type))
    return Lettered(v, _letters(term, [f"...{i}" for i in range(free, 0, -1)] if "..." in term else [], subscripts))


def _letters(term: str, dots: list[str], subscripts: str) -> tuple[str, ...]:
    before, ellipsis, after = term.partition("...")
    if not (before + after).isalpha() and before + after:
        raise ArgumentError(f"einsum {subscripts!r}: axes are letters, not {term!r}")
    return (*before, *(dots if ellipsis else ()), *after)


@public
def tensordot(x1: Any, x2: Any, /, *, axes: Any = 2) -> Tracer:
    """The sum of products over pairs of axes: the last n of x1 with the first n of x2, or two lists of axes.

    Example: `kd.tensordot(x, y, axes=([1], [0]))`.
    """
    a, b = _numbers(x1, x2, verb="contract")
    n, m = len(a.shape), len(b.shape)
    if isinstance(axes, (int, np.integer)):
        if not 0 <= axes <= min(n, m):
            raise ShapeError(f"cannot contract {axes} axes of {a.type} and {b.type}", label=f"{a.type}, {b.type}")
        first, second = list(range(n - axes, n)), list(range(axes))
    else:
        lists = [list(s) if isinstance(s, (tuple, list)) else [s] for s in axes]
        first, second = ([one_axis(i, len(v.shape), str(v.type)) for i in s] for s, v in zip(lists, (a, b)))
    if len(first) != len(second) or len(set(first)) < len(first) or len(set(second)) < len(second):
        raise ArgumentError(f"tensordot needs pairs of axes, not {axes}")
    left, right = [f"l{i}" for i in range(n)], [f"r{i}" for i in range(m)]
    for i, j in zip(first, second):
        if a.shape[i] != b.shape[j]:
            raise ShapeError(
                f"cannot contract axis {i} of {a.type} with axis {j} of {b.type}: sizes are {a.shape[i]} and {b.shape[j]}",
                label=f"{a.type}, {b.type}",
            )
        right[j] = left[i]
    out = tuple(c for c in (*left, *right) if (c in left) != (c in right))
    return traced(contract([Lettered(a, tuple(left)), Lettered(b, tuple(right))], out))


@public
def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Tracer:
    """sum(x1 * x2) along an axis counted from the right; the others broadcast. Example: `kd.vecdot(x, y)`."""
    a, b = _numbers(x1, x2, verb="multiply")
    if not a.shape or not b.shape:
        raise ShapeError("vecdot needs vectors, not 0-d tensors", label=f"{a.type}, {b.type}")
    if axis >= 0 and len(a.shape) != len(b.shape):
        raise ArgumentError("vecdot needs a negative axis where ranks differ: axes line up from the right")
    places = [one_axis(axis, len(v.shape), str(v.type)) for v in (a, b)]
    moved = [[c for i, c in enumerate(v.shape) if i != p] for v, p in zip((a, b), places)]
    if a.shape[places[0]] != b.shape[places[1]]:
        raise ShapeError(f"cannot multiply {a.type} and {b.type}: sizes along axis {axis} differ", label=f"{a.type}, {b.type}")
    names = [[f"{len(rest) - i}" for i in range(len(rest))] for rest in moved]
    lettered = [Lettered(v, (*n[:p], "K", *n[p:])) for v, n, p in zip((a, b), names, places)]
    _check_letters(lettered, "vecdot")
    return traced(contract(lettered, tuple(names[0] if len(names[0]) >= len(names[1]) else names[1])))


@public
def matrix_transpose(x: Any, /) -> Tracer:
    """x with its last two axes exchanged. Example: `kd.matrix_transpose(x)`."""
    v = value(x)
    n = len(v.shape)
    if n < 2:
        raise ShapeError(f"a matrix has two axes, and this is {v.type}", label=str(v.type))
    return permute_dims(traced(v), (*range(n - 2), n - 1, n - 2))


