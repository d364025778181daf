"""Random small programs: what every pass, and the compiler as a whole, must keep the meaning of.

    @given(programs())                     a Program: function, arrays for its parameters
    programs(dtypes=("f32",), smooth=True) only differentiable ops, away from kinks and poles
Built with plain equations (ir/rules.Builder), so that nothing is simplified before the pass under test sees it.
"""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

import kdsl.dtypes as dt
from kdsl.ir.ops import Op
from kdsl.ir.rules import Builder
from kdsl.ir.tensor import Function, TensorType, Value
from kdsl.ir.verify import verify

EXTENTS = (1, 2, 3, 5, 7, 8)
SMOOTH_UNARY = (Op.NEG, Op.EXP, Op.TANH, Op.SIGMOID, Op.SIN, Op.COS, Op.ERF, Op.ATAN)
ANY_UNARY = (*SMOOTH_UNARY, Op.ABS, Op.SIGN, Op.FLOOR, Op.ROUND, Op.SQRT, Op.LOG)
SMOOTH_BINARY = (Op.ADD, Op.SUB, Op.MUL)
ANY_BINARY = (*SMOOTH_BINARY, Op.DIV, Op.MAXIMUM, Op.MINIMUM)
LITERALS = (1.0, 2.0, 0.5, -1.0, 0.25, 3.0, 1.5, 0.0)


@dataclass
class Program:
    function: Function
    arrays: tuple

    def __repr__(self):
        from kdsl.ir.printer import show

        return show(self.function)


class Maker:
    """Draws equations onto a growing list of values, all of one floating dtype."""

    def __init__(self, draw, dtype, smooth):
        self.draw, self.dtype, self.smooth = draw, dtype, smooth
        self.b = Builder()
        self.values = []

    def pick(self, values=None):
        return self.draw(st.sampled_from(values or self.values))

    def emit(self, op, *operands, **attributes):
        out = self.b.emit(op, *operands, **attributes)
        self.values.append(out)
        return out

    def unary(self):
        self.emit(self.draw(st.sampled_from(SMOOTH_UNARY if self.smooth else ANY_UNARY)), self.pick())

    def literal(self):
        op = self.draw(st.sampled_from(SMOOTH_BINARY))
        x, c = self.pick(), self.draw(st.sampled_from(LITERALS))
        self.emit(op, *((x, c) if self.draw(st.booleans()) else (c, x)))

    def binary(self):
        """Two values, broadcast against each other where their shapes allow it."""
        x = self.pick()
        fits = [v for v in self.values if _broadcastable(v.shape, x.shape)]
        y = self.pick(fits)
        shape = np.broadcast_shapes(x.shape, y.shape)
        x, y = self.b.broadcast_to(x, shape), self.b.broadcast_to(y, shape)
        op = self.draw(st.sampled_from(SMOOTH_BINARY if self.smooth else ANY_BINARY))
        self.emit(op, x, y)

    def ratio(self):
        """x / (1 + exp(y)): a quotient that has no pole."""
        x = self.pick()
        y = self.b.emit(Op.ADD, 1.0, self.b.emit(Op.EXP, self.b.emit(Op.TANH, x)))
        self.emit(Op.DIV, x, y)

    def softmax(self):
        x = self.pick([v for v in self.values if v.shape] or None)
        if not x.shape:
            return self.unary()
        axis = self.draw(st.integers(0, len(x.shape) - 1))
        m = self.b.broadcast_to(self.b.reduce(Op.MAX, x, (axis,), True), x.shape)
        e = self.b.emit(Op.EXP, self.b.emit(Op.SUB, x, m))
        self.emit(Op.DIV, e, self.b.broadcast_to(self.b.reduce(Op.SUM, e, (axis,), True), x.shape))

    def normalise(self):
        x = self.pick([v for v in self.values if v.shape] or None)
        if not x.shape:
            return self.unary()
        n = float(x.shape[-1])
        last = (len(x.shape) - 1,)
        mean = self.b.emit(Op.DIV, self.b.reduce(Op.SUM, x, last, True), n)
        d = self.b.emit(Op.SUB, x, self.b.broadcast_to(mean, x.shape))
        var = self.b.emit(Op.DIV, self.b.reduce(Op.SUM, self.b.emit(Op.MUL, d, d), last, True), n)
        std = self.b.emit(Op.SQRT, self.b.emit(Op.ADD, var, 0.5))
        self.emit(Op.DIV, d, self.b.broadcast_to(std, x.shape))

    def reduction(self):
        x = self.pick([v for v in self.values if v.shape] or None)
        if not x.shape:
            return self.unary()
        axes = self.draw(st.sets(st.integers(0, len(x.shape) - 1), min_size=1))
        op = self.draw(st.sampled_from((Op.SUM,) if self.smooth else (Op.SUM, Op.MAX, Op.MIN, Op.PROD)))
        self.values.append(self.b.reduce(op, x, tuple(axes), self.draw(st.booleans())))

    def movement(self):
        x = self.pick()
        kind = self.draw(
            st.sampled_from(("permute", "reshape", "slice", "pad", "concat", "newaxis", "window"))
        )
        ndim = len(x.shape)
        if kind == "permute":
            self.emit(Op.PERMUTE, x, axes=tuple(self.draw(st.permutations(range(ndim)))))
        elif kind == "reshape":
            flat = int(np.prod(x.shape))
            self.emit(Op.RESHAPE, x, shape=self.draw(st.sampled_from(((flat,), (1, flat), (flat, 1)))))
        elif kind == "newaxis":
            self.values.append(self.b.insert_axes(x, (self.draw(st.integers(0, ndim)),), ndim + 1))
        elif not ndim:
            self.unary()
        elif kind == "slice":
            spans = [self.draw(st.sampled_from(_spans(n))) for n in x.shape]
            starts, sizes, steps = zip(*spans, strict=True)
            self.emit(Op.SLICE, x, starts=starts, sizes=sizes, steps=steps)
        elif kind == "pad":
            low, high, interior = (tuple(self.draw(st.integers(0, 2)) for _ in x.shape) for _ in range(3))
            self.emit(
                Op.PAD, x, low=low, high=high, interior=interior, value=self.draw(st.sampled_from((0.0, 1.0)))
            )
        elif kind == "window":
            axis = self.draw(st.integers(0, ndim - 1))
            size = self.draw(st.integers(1, x.shape[axis]))
            self.emit(Op.WINDOW, x, axis=axis, size=size, stride=self.draw(st.integers(1, 2)), dilation=1)
        else:
            axis = self.draw(st.integers(0, ndim - 1))
            other = self.pick([v for v in self.values if v.shape == x.shape])
            self.emit(Op.CONCAT, x, other, axis=axis)

    def dot(self):
        x = self.pick([v for v in self.values if len(v.shape) >= 1] or None)
        if not x.shape:
            return self.unary()
        k = x.shape[-1]
        others = [v for v in self.values if v.shape and k in v.shape]
        y = self.pick(others)
        at = self.draw(st.sampled_from([i for i, n in enumerate(y.shape) if n == k]))
        left = tuple(f"l{i}" for i in range(len(x.shape) - 1)) + ("k",)
        right = tuple("k" if i == at else f"r{i}" for i in range(len(y.shape)))
        if len(left) + len(right) <= 6:
            out = [c for c in (*left, *right) if c != "k"]
            self.emit(Op.DOT, x, y, left=left, right=right, out=tuple(self.draw(st.permutations(out))))

    def choice(self):
        x = self.pick()
        y = self.pick([v for v in self.values if v.shape == x.shape])
        axis = len(x.shape) - 1
        if axis >= 0 and self.draw(st.booleans()):
            index = self.b.emit(Op.IOTA, shape=x.shape, axis=axis, dtype=dt.i64)
            condition = self.b.emit(Op.LT, index, self.draw(st.integers(0, 3)))
        elif self.smooth:
            return
        else:
            condition = self.b.emit(self.draw(st.sampled_from((Op.LT, Op.GE, Op.EQ))), x, y)
        self.emit(Op.WHERE, condition, x, self.draw(st.sampled_from((y, 0.0))))

    def gather(self):
        x = self.pick([v for v in self.values if v.shape] or None)
        if not x.shape:
            return self.unary()
        axis = self.draw(st.integers(0, len(x.shape) - 1))
        line = self.b.emit(Op.IOTA, shape=(4,), axis=0, dtype=dt.i64)
        index = self.b.emit(Op.MOD, self.b.emit(Op.MUL, line, 3), x.shape[axis])
        taken = self.emit(Op.TAKE, x, index, axis=axis)
        if self.draw(st.booleans()):
            self.emit(Op.SCATTER_ADD, x, index, taken, axis=axis)

    STEPS = (
        "unary",
        "literal",
        "binary",
        "ratio",
        "softmax",
        "normalise",
        "reduction",
        "movement",
        "dot",
        "choice",
        "gather",
    )


def _broadcastable(a, b):
    return (
        all(m == n or m == 1 or n == 1 for m, n in zip(a[::-1], b[::-1], strict=False))
        and len(a) + len(b) <= 6
    )


def _spans(n):
    """(start, size, step) triples within an axis of n elements."""
    return [
        (0, n, 1),
        (n - 1, n, -1),
        (0, (n + 1) // 2, 2),
        (n - 1, (n + 1) // 2, -2),
        (n // 2, n - n // 2, 1),
        (0, 1, 1),
    ]


@st.composite
def programs(draw, dtypes=("f32",), smooth=False, steps=8, only=Maker.STEPS):
    """A program of up to `steps` steps (some are several equations) and arrays to run it on."""
    dtype = dt.BY_NAME[draw(st.sampled_from(dtypes))]
    maker = Maker(draw, dtype, smooth)
    m, n = draw(st.sampled_from(EXTENTS)), draw(st.sampled_from(EXTENTS))
    shapes = [(m, n), (n,), draw(st.sampled_from(((n, m), (m, 1), (2, m, n), (), (1,))))]
    parameters = tuple(Value(TensorType(dtype, s), name) for s, name in zip(shapes, "xyz", strict=True))
    maker.values.extend(parameters)
    for _ in range(draw(st.integers(1, steps))):
        if np.prod([int(np.prod(v.shape)) for v in maker.values[-1:]]) > 3000:
            break
        getattr(maker, draw(st.sampled_from(only)))()
    made = maker.values[len(parameters) :] or maker.values
    results = tuple(dict.fromkeys((made[-1], draw(st.sampled_from(made)))))
    function = Function("random", parameters, tuple(maker.b.equations), results)
    verify(function)
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    return Program(function, tuple(rng.uniform(-1.5, 1.5, s).astype(dtype.numpy) for s in shapes))
