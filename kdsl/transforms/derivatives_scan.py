"""The derivative of a scan: a scan in the other direction, whose step is derived from the step.

    carry, y[t] = step(carry, x[t], w)
    d_carry, d_x[t] = step's vjp(carry before t, x[t], w; d_carry, d_y[t]);   d_w = the sum over t of what the vjp gives for w

In:  the equations of one scan, the cotangents of its results.  Out: cotangents of its operands, through a Simplifier.
The carries before each step are made again from checkpoints (ir/scans.py), unless the step's vjp does not read them.
What the vjp gives for a closure is added up in a carry, before sums over axes of it are taken; a contraction (h @ w gives
h.T @ g) is not added up step by step: its two factors are stacked and contracted once, over the steps too; rows that a
step took from a table (w[i]) are scattered once.
The derivative of this derivative: the states are a scan of their own then, all of them kept.
Read before: differentiate.py, ir/scans.py. Read next: residuals.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from kdsl.ir.ops import Op
from kdsl.ir.rules import Builder, identity
from kdsl.ir.scans import Scan, live_parts, scan_attributes, scan_result
from kdsl.ir.tensor import Equation, Function, Operand, TensorType, Value
from kdsl.transforms.cost import estimate
from kdsl.transforms.prune import prune
from kdsl.transforms.rewrite import Simplifier

LINEAR = frozenset({Op.SUM, Op.PERMUTE, Op.RESHAPE, Op.BROADCAST, Op.SLICE, Op.PAD, Op.NEG, Op.CAST})
LARGER = 4  # a sum is taken after the last step if what it sums is at most this many times as large as a carry or slice
Vjp = Callable[[Function], Function]


def with_checkpoints(function: Function) -> Function:
    """The program with the checkpoints of its scans, for a derivative to find."""
    equations: list[Equation] = []
    seen: set[tuple] = set()
    for e in function.equations:
        equations.append(e)
        if e.op is Op.SCAN and e.attributes["replay"] is None and Scan(e).key not in seen:
            s = Scan(e)
            seen.add(s.key)
            for i, v in enumerate(s.step.results[: s.carries]):
                a = {**e.attributes, "index": len(s.step.results) + i}
                equations.append(Equation(Value(scan_result(a), v.name), Op.SCAN, e.operands, a, e.location))
    return replace(function, equations=tuple(equations))


def pull_scan(
    b: Simplifier, e: Equation, cotangents: Mapping[int, Value], active: Sequence[bool], vjp: Vjp
) -> list[Value | None]:
    """The cotangents of a scan's operands, from those of its results by number. `active`: which operands want one."""
    s = Scan(e)
    if s.replay is None:
        return _Pulled(b, s, cotangents, active, vjp).run()
    plain = unfolded(s, sorted(cotangents))
    derived = vjp(plain)
    zeros = [
        cotangents[i] if i in cotangents else b.as_value(b.full(0.0, r.shape, r.dtype))
        for i, r in zip(sorted(cotangents), plain.results, strict=True)
    ]
    given = dict(zip(derived.parameters, (*e.values, *zeros), strict=True))
    gradients = iter(b.replay(derived, given))  # type: ignore[arg-type]
    return [b.as_value(next(gradients)) if v.dtype.is_floating else None for v in e.values]


def unfolded(s: Scan, wanted: Sequence[int]) -> Function:
    """A scan that starts from checkpoints as two that do not: all states, then its steps. Its results `wanted`."""
    assert s.replay is not None
    b = Builder(s.equation.location)
    operands = tuple(Value(v.type, v.name) for v in s.equation.values)
    init, kept, xs, closures = (operands[part] for part in s.parts)
    first = [b.cast(_first(b, v), r.dtype) for v, r in zip(kept, s.replay.results, strict=True)]
    twice = s.replay.results + s.replay.parameters[: len(kept)]
    forward = replace(s.replay, name=f"{s.replay.name}_states", results=twice)
    a = scan_attributes(forward, len(kept), s.axes, (0,) * len(kept), s.length, not s.reverse, every=s.every)
    states = [b.emit(Op.SCAN, *first, *xs, *closures, **a, index=len(kept) + i) for i in range(len(kept))]
    a = scan_attributes(
        s.step, s.carries, ((0,) * len(kept) + s.axes), s.out_axes, s.length, s.reverse, every=s.every
    )
    results = [b.emit(Op.SCAN, *init, *states, *xs, *closures, **a, index=i) for i in wanted]
    return Function(f"{s.step.name}_unfolded", operands, tuple(b.equations), tuple(r for r in results if isinstance(r, Value)))


# --- the scan backwards -----------------------------------------------------------------------------------------------------
@dataclass(eq=False)
class _Total:
    """A part of a closure's gradient: what is added up over the steps (or two factors to contract, or rows to scatter), and
    what is done then."""

    after: tuple[Equation, ...]  # outermost last: each takes the one before
    term: Value | None = None
    factors: Equation | None = None
    number: int = 0  # of the backward step's result for the term


class _Pulled:
    def __init__(
        self, b: Simplifier, s: Scan, cotangents: Mapping[int, Value], active: Sequence[bool], vjp: Vjp
    ) -> None:
        self.b, self.s, self.g = b, s, cotangents
        self.active = [active[part] for part in s.parts]
        self.derived = vjp(s.step)
        self.carries, _, self.xs, self.closures = s.parameters()
        self.stacked: dict[Value, int] = {}  # factors of contractions: the numbers of the backward step's results

    def run(self) -> list[Value | None]:
        b, s = self.b, self.s
        inner = Simplifier(gradients=True)
        inner.location = s.equation.location
        floating = [i for i, v in enumerate(self.carries) if v.dtype.is_floating]
        turned = [Value(self.carries[i].type, _named(self.carries[i])) for i in floating]
        known = [j for j, y in enumerate(s.ys) if y.dtype.is_floating and s.carries + j in self.g]
        slices = [Value(s.ys[j].type, _named(s.ys[j])) for j in known]
        given: dict[Value, Operand] = {p: p for p in s.step.parameters}
        parameters = iter(self.derived.parameters[len(s.step.parameters) :])
        dcarry, dy = dict(zip(floating, turned, strict=True)), dict(zip(known, slices, strict=True))
        for i, r in enumerate(s.step.results):
            if r.dtype.is_floating:
                own = dcarry.get(i) if i < s.carries else dy.get(i - s.carries)
                given[next(parameters)] = inner.full(0.0, r.shape, r.dtype) if own is None else own
        gradients = iter([inner.as_value(g) for g in inner.replay(self.derived, given)])
        by_parameter = {p: next(gradients) for p in s.step.parameters if p.dtype.is_floating}
        wanted_xs = [i for i, (p, on) in enumerate(zip(self.xs, self.active[2], strict=True)) if on and p in by_parameter]
        closures = zip(range(len(self.closures)), self.closures, self.active[3], strict=True)
        totals = {i: self.totals(inner, by_parameter[p]) for i, p, on in closures if on and p in by_parameter}
        # the backward step: carries first (cotangents, then what is added up), then what each step gives
        results = [by_parameter[self.carries[i]] for i in floating]
        sums: list[Value] = []
        for total in (t for each in totals.values() for t in each if t.term is not None):
            assert total.term is not None
            sums.append(Value(TensorType(total.term.dtype.compute, total.term.shape), "total"))
            total.number = len(results)
            results.append(inner.value(Op.ADD, sums[-1], inner.as_value(inner.cast(total.term, sums[-1].dtype))))
        count = len(results)
        results += [by_parameter[self.xs[i]] for i in wanted_xs]
        axes = [s.axes[i] for i in wanted_xs]
        for total in (t for each in totals.values() for t in each if t.factors is not None):
            assert total.factors is not None
            for v in total.factors.values[-2:]:
                if v not in self.xs and v not in self.stacked:
                    self.stacked[v] = len(results)
                    results.append(v)
                    axes.append(0)
        out = self.emitted(inner, turned + sums, results, slices, known, axes, count, floating)
        # outside: the gradients
        zero: list[Value | None] = [None] * len(s.equation.values)
        for k, i in enumerate(floating):
            zero[i] = out(k)
            if (checkpoint := self.g.get(len(s.step.results) + i)) is not None:
                zero[i] = b.value(Op.ADD, out(k), b.cast(_first(b, checkpoint), out(k).dtype))
        for k, i in enumerate(wanted_xs):
            zero[s.parts[2].start + i] = out(count + k)
        for i, each in totals.items():
            zero[s.parts[3].start + i] = self.added_up(each, out, self.closures[i])
        return zero

    def emitted(
        self, inner: Simplifier, carried: list[Value], results: list[Value], slices: list[Value], known: list[int],
        axes: list[int], count: int, floating: list[int],
    ) -> Callable[[int], Value]:  # fmt: skip
        """The backward scan in the outer program: its results by number."""
        b, s = self.b, self.s
        step = prune(Function(f"{s.step.name}_vjp", (), tuple(inner.equations), tuple(results), s.step.location))
        read = {v for e in step.equations for v in e.values} | set(results)
        replayed = replace(s.step, results=s.step.results[: s.carries])
        live, needed = live_parts(replayed, s.carries, [i for i, p in enumerate(self.carries) if p in read])
        states = sorted(live) if any(p in read for p in self.carries) else []
        if not states:
            needed = set()
        xs = [i for i, p in enumerate(self.xs) if p in read or p in needed]
        closures = [i for i, p in enumerate(self.closures) if p in read or p in needed]
        inputs = tuple(self.xs[i] for i in xs) + tuple(slices), tuple(self.closures[i] for i in closures)
        before = tuple(self.carries[i] for i in states)
        step = replace(step, parameters=(*carried, *before, *inputs[0], *inputs[1]))
        again = prune(
            Function(
                f"{s.step.name}_again", (*before, *inputs[0], *inputs[1]), s.step.equations,
                tuple(s.step.results[i] for i in states), s.step.location,
            )
        ) if states else None  # fmt: skip
        old = s.equation.attributes
        kept = [b.value(Op.SCAN, *s.equation.values, **{**old, "index": len(s.step.results) + i}) for i in states]
        starts = [self.cotangent(i) for i in floating]
        starts += [b.as_value(b.full(0.0, v.shape, v.dtype)) for v in carried[len(floating) :]]
        operands = (
            *starts, *kept, *(s.xs[i] for i in xs), *(self.g[s.carries + j] for j in known), *(s.closures[i] for i in closures)
        )  # fmt: skip
        all_axes = [*(s.axes[i] for i in xs), *(s.out_axes[j] for j in known)]
        a = scan_attributes(step, count, all_axes, axes, s.length, not s.reverse, again, s.every)
        return lambda i: b.value(Op.SCAN, *operands, **a, index=i)

    def cotangent(self, i: int) -> Value:
        r = self.s.step.results[i]
        return self.g[i] if i in self.g else self.b.as_value(self.b.full(0.0, r.shape, r.dtype))

    # --- closures -------------------------------------------------------------------------------------------------------
    def totals(self, inner: Simplifier, gradient: Value) -> list[_Total]:
        """A closure's gradient as parts that are added up apart."""
        s = self.s
        own = [estimate(v.type.count) for v in (*self.carries, *self.xs, *s.ys)]
        limit = LARGER * max(own, default=1)
        out: list[_Total] = []

        def split(v: Value, after: tuple[Equation, ...]) -> None:
            e = inner.define(v)
            if e is not None and e.op is Op.FULL and e.attributes["value"] == 0:
                return
            if e is not None and e.op is Op.ADD and len(e.values) == 2:
                for x in e.values:
                    split(x, after)
            elif e is not None and _is_done_once(inner, e):
                out.append(_Total(after, factors=e))
            elif (
                e is not None
                and e.op in LINEAR
                and (e.op is not Op.PAD or e.attributes["value"] == 0)
                and e.values[0].dtype.is_floating
                and (estimate(e.values[0].type.count) <= limit or _reaches_product(inner, e.values[0]))
            ):
                split(e.values[0], (e, *after))
            else:
                out.append(_Total(after, v))

        split(gradient, ())
        return out

    def added_up(self, parts: list[_Total], out: Callable[[int], Value], like: Value) -> Value | None:
        b, total = self.b, None
        for part in parts:
            if part.factors is None:
                x = out(part.number)
            elif part.factors.op is Op.SCATTER_ADD:
                index, updates = (self.all_steps(v, out) for v in part.factors.values[1:])
                zeros, axis = part.factors.values[0], part.factors.attributes["axis"]
                order = (*range(1, axis + 1), 0, *range(axis + 1, len(updates.shape)))
                empty = b.as_value(b.full(0.0, zeros.shape, zeros.dtype))
                x = b.value(Op.SCATTER_ADD, empty, index, b.as_value(b.permute(updates, order)), axis=axis)
            else:
                a = part.factors.attributes
                left, right = (self.all_steps(v, out) for v in part.factors.values)
                x = b.value(Op.DOT, left, right, left=("step", *a["left"]), right=("step", *a["right"]), out=a["out"])
            for e in part.after:
                x = b.value(e.op, x, **e.attributes)
            x = b.as_value(b.cast(x, like.dtype))
            total = x if total is None else b.value(Op.ADD, total, x)
        return total

    def all_steps(self, v: Value, out: Callable[[int], Value]) -> Value:
        """A factor in all steps, stacked in front: an operand of the scan, or what the backward steps give."""
        if v not in self.xs:
            return out(self.stacked[v])
        x, axis = self.s.xs[self.xs.index(v)], self.s.axes[self.xs.index(v)]
        return self.b.as_value(self.b.permute(x, (axis, *(i for i in range(len(x.shape)) if i != axis)))) if axis else x


def _is_product(e: Equation) -> bool:
    """Whether a contraction's result is larger than its factors' shares: each has an axis that the other lacks."""
    left, right = set(e.attributes["left"]), set(e.attributes["right"])
    out = set(e.attributes["out"])
    return bool(out & left - right) and bool(out & right - left)


def _is_done_once(inner: Simplifier, e: Equation) -> bool:
    """Is this a contraction or a scatter, to be done once for all steps?"""
    return (e.op is Op.DOT and _is_product(e)) or (e.op is Op.SCATTER_ADD and _is_zero(inner, e.values[0]))


def _is_zero(inner: Simplifier, v: Value) -> bool:
    e = inner.define(v, Op.FULL)
    return e is not None and e.attributes["value"] == 0


def _reaches_product(inner: Simplifier, v: Value) -> bool:
    e = inner.define(v)
    while e is not None and e.op in LINEAR and e.op is not Op.SUM:
        e = inner.define(e.values[0])
    return e is not None and e.op is Op.DOT and _is_product(e)


def _first(b: Builder, checkpoints: Value) -> Operand:
    """The first checkpoint (zeros where there is none), or its cotangent: a replay gives the others none."""
    zeros = (0,) * len(checkpoints.shape)
    nothing = identity(Op.ANY if checkpoints.dtype.kind == "bool" else Op.SUM, checkpoints.dtype)
    longer = b.emit(Op.PAD, checkpoints, low=zeros, high=(1, *zeros[1:]), interior=zeros, value=nothing)
    one = b.emit(Op.SLICE, longer, starts=zeros, sizes=(1, *checkpoints.shape[1:]), steps=(1,) * len(zeros))
    return b.emit(Op.RESHAPE, one, shape=checkpoints.shape[1:])


def _named(v: Value) -> str:
    return f"d_{v.name}" if v.name else ""
