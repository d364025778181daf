"""A step for many places at once: the same equations with one axis more in front of what differs from place to place.

In:  the equations of a step, and which of its parameters have the axis.  Out: equations that have it, through a Builder.
What no place differs in stays as it is and is spread where it meets the rest. f16 and bf16 become the f32 in which kernels
compute them, so that what is handed from one kernel to the next is not rounded; a CAST of the step's rounds as before.
Read before: ir/rules.py. Read next: parallel_scans.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from kdsl.ir.frame import Illegal
from kdsl.ir.ops import ELEMENTWISE, REDUCTIONS, Op
from kdsl.ir.rules import Builder
from kdsl.ir.scans import Scan
from kdsl.ir.tensor import Equation, Operand, TensorType, Value

CHUNK = "chunk"  # the letter of the axis in contractions
BITS = frozenset({Op.BITCAST, Op.NEXTAFTER})  # of f16 and bf16: they mean the narrow value


class SideBySide:
    """Emits equations for `count` places. `known`: what a value of the step became; `spread`: those with the axis."""

    def __init__(self, builder: Builder, count: int) -> None:
        self.b, self.count = builder, count
        self.known: dict[Value, Value] = {}
        self.spread: set[Value] = set()

    def parameter(self, old: Value, new: Value, spread: bool) -> None:
        """`new` stands for a parameter of the step."""
        out = self.widened(new)
        self.known[old] = out
        if spread:
            self.spread.add(out)

    def widened(self, v: Value) -> Value:
        """v in the dtype in which kernels compute it."""
        out = self.b.cast(v, v.dtype.compute)
        assert isinstance(out, Value)
        if v in self.spread:
            self.spread.add(out)
        return out

    def run(self, equations: Iterable[Equation], known: dict[Value, Value] | None = None) -> dict[Value, Value]:
        """Emit equations; `known` instead of what is known of some values. What their results became."""
        env = self.known if known is None else known
        for e in equations:
            if e.result not in env:
                self.b.location = e.location
                env[e.result] = self.emit(e, [env[o] if isinstance(o, Value) else o for o in e.operands])
        return env

    def whole(self, v: Value) -> Value:
        """v with the axis."""
        if v in self.spread:
            return v
        shape = (self.count, *v.shape)
        return self.made(self.b.emit(Op.BROADCAST, v, shape=shape, axes=tuple(range(1, len(shape)))))

    def made(self, v: Operand) -> Value:
        assert isinstance(v, Value)
        self.spread.add(v)
        return v

    def emit(self, e: Equation, operands: list[Operand]) -> Value:
        """One equation, for all places."""
        narrow = e.result.dtype.compute is not e.result.dtype
        if e.op in BITS and any(v.dtype.compute is not v.dtype for v in (e.result, *e.values)):
            raise Illegal(f"{e.op.value} of {e.result.dtype} in a step")
        if e.op is Op.SCAN:
            raise Illegal("a scan in a step")
        a = e.attributes
        if "dtype" in a and e.op is not Op.CAST:
            a = {**a, "dtype": a["dtype"].compute}
        if not any(o in self.spread for o in operands if isinstance(o, Value)):
            out = self.b.emit(e.op, *operands, name=e.result.name, **a)
        else:
            out = self.made(self.for_all(e, operands, a))
        assert isinstance(out, Value)
        if narrow and e.op is Op.CAST:
            out = self.made(self.widened(out)) if out in self.spread else self.widened(out)
        return out

    def for_all(self, e: Equation, operands: list[Operand], a: dict[str, Any]) -> Operand:
        op, b, n = e.op, self.b, self.count
        if op in ELEMENTWISE or op in (Op.BARRIER, Op.CONCAT, Op.TAKE_ALONG):
            whole = [self.whole(o) if isinstance(o, Value) else o for o in operands]
            return b.emit(op, *whole, name=e.result.name, **({**a, "axis": a["axis"] + 1} if "axis" in a else a))
        x = operands[0]
        assert isinstance(x, Value)
        if op is Op.DOT:
            letters = {k: (CHUNK, *a[k]) if v in self.spread else a[k] for k, v in zip(("left", "right"), operands, strict=True)}
            return b.emit(op, *operands, name=e.result.name, **letters, out=(CHUNK, *a["out"]))
        if op is Op.TAKE and operands[1] not in self.spread:
            return b.emit(op, *operands, name=e.result.name, axis=a["axis"] + 1)
        if op is Op.TAKE and x not in self.spread:
            out = b.emit(op, *operands, name=e.result.name, **a)
            return b.permute(self.made(out), _to_front(a["axis"], len(e.result.shape) + 1))
        shifted = _shifted(op, a, n)
        if shifted is None:
            raise Illegal(f"{op.value} in a step")
        return b.emit(op, x, name=e.result.name, **shifted)


def _to_front(axis: int, ndim: int) -> tuple[int, ...]:
    return (axis, *(i for i in range(ndim) if i != axis))


def _shifted(op: Op, a: dict[str, Any], n: int) -> dict[str, Any] | None:
    """The attributes of an op of one operand that has an axis of n more in front."""
    if op is Op.BROADCAST:
        return {"shape": (n, *a["shape"]), "axes": (0, *(i + 1 for i in a["axes"]))}
    if op is Op.PERMUTE:
        return {"axes": (0, *(i + 1 for i in a["axes"]))}
    if op is Op.RESHAPE:
        return {"shape": (n, *a["shape"])}
    if op is Op.SLICE:
        return {"starts": (0, *a["starts"]), "sizes": (n, *a["sizes"]), "steps": (1, *a["steps"])}
    if op is Op.PAD:
        return {**{k: (0, *a[k]) for k in ("low", "high", "interior")}, "value": a["value"]}
    if op in REDUCTIONS:
        return {"axes": tuple(i + 1 for i in a["axes"])}
    if op is Op.WINDOW:
        return {**a, "axis": a["axis"] + 1}
    return None


def chunked_parameter(p: Value, count: int, wide: bool) -> Value:
    """A parameter of a step, for `count` chunks."""
    return Value(TensorType(p.dtype.compute if wide else p.dtype, (count, *p.shape)), p.name)


def side_by_side(inner: Builder, s: Scan, count: int, live: Sequence[int]) -> tuple[SideBySide, tuple[Value, ...]]:
    """A step's parameters for `count` chunks: the carries `live`, states, xs; closures stay as they are."""
    side = SideBySide(inner, count)
    carries, states, xs, closures = s.parameters()
    out: list[Value] = []
    for p in [*(carries[i] for i in live), *states, *xs]:
        out.append(chunked_parameter(p, count, p not in xs))
        side.parameter(p, out[-1], True)
    for p in closures:
        out.append(p)
        side.parameter(p, p, False)
    return side, tuple(out)
