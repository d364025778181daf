"""Random small programs: what every pass, and the compiler as a whole, must keep the meaning of.

    @given(programs())                     a Program: function, arrays for its parameters
    programs(dtypes=("f32",), smooth=True) only differentiable ops, away from kinks and poles
    programs(only=Maker.ALL)               with integers, truth values, casts, any contraction, gathers, scatters, random bits
    programs(named=True)                   axes M and N instead of numbers
    programs(extents=(0, 1, 33))           the extents to choose from
Built with plain equations (ir/rules.Builder), so that nothing is simplified before the pass under test sees it.
"""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

import kdsl.dtypes as dt
from kdsl.ir.ops import Op
from kdsl.ir.rules import Builder
from kdsl.ir.sizes import evaluate, size
from kdsl.ir.tensor import Function, TensorType, Value
from kdsl.ir.verify import verify

EXTENTS = (1, 2, 3, 5, 7, 8)
SMOOTH_UNARY = (Op.NEG, Op.EXP, Op.TANH, Op.SIGMOID, Op.SIN, Op.COS, Op.ERF, Op.ATAN)
ANY_UNARY = (*SMOOTH_UNARY, Op.ABS, Op.SIGN, Op.FLOOR, Op.ROUND, Op.SQRT, Op.LOG)
SMOOTH_BINARY = (Op.ADD, Op.SUB, Op.MUL)
ANY_BINARY = (*SMOOTH_BINARY, Op.DIV, Op.MAXIMUM, Op.MINIMUM)
INTEGER_BINARY = (Op.ADD, Op.SUB, Op.MUL, Op.FLOOR_DIV, Op.MOD, Op.AND, Op.OR, Op.XOR, Op.SHL, Op.SHR, Op.MAXIMUM, Op.MINIMUM)
COMPARED = (Op.EQ, Op.NE, Op.LT, Op.LE, Op.GT, Op.GE)
INTEGERS = ("i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64")
LITERALS = (1.0, 2.0, 0.5, -1.0, 0.25, 3.0, 1.5, 0.0)


@dataclass
class Program:
    function: Function
    arrays: tuple

    def __repr__(self):
        from kdsl.ir.printer import show

        return show(self.function)


class Maker:
    """Draws equations onto growing lists: values of one floating dtype, integers of any, truth values."""

    def __init__(self, draw, dtype, smooth):
        self.draw, self.dtype, self.smooth = draw, dtype, smooth
        self.b = Builder()
        self.values, self.integers, self.truths = [], [], []

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
        shape = _broadcast_shapes(x.shape, y.shape)
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
        if not x.shape or 0 in x.shape:
            return self.unary()
        axis = self.draw(st.integers(0, len(x.shape) - 1))
        m = self.b.broadcast_to(self.b.reduce(Op.MAX, x, (axis,), True), x.shape)
        e = self.b.emit(Op.EXP, self.b.emit(Op.SUB, x, m))
        self.emit(Op.DIV, e, self.b.broadcast_to(self.b.reduce(Op.SUM, e, (axis,), True), x.shape))

    def normalise(self):
        x = self.pick([v for v in self.values if v.shape] or None)
        if not x.shape or 0 in x.shape:
            return self.unary()
        n = float(x.shape[-1]) if isinstance(x.shape[-1], int) else 3.0
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
        sums = self.smooth or 0 in x.shape
        op = self.draw(st.sampled_from((Op.SUM,) if sums else (Op.SUM, Op.MAX, Op.MIN, Op.PROD)))
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
            flat = x.type.count
            self.emit(Op.RESHAPE, x, shape=self.draw(st.sampled_from(((flat,), (1, flat), (flat, 1)))))
        elif kind == "newaxis":
            self.values.append(self.b.insert_axes(x, (self.draw(st.integers(0, ndim)),), ndim + 1))
        elif not ndim:
            self.unary()
        elif 0 in x.shape:
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
            n, dilation = x.shape[axis], self.draw(st.integers(1, 2))
            if not isinstance(n, int):
                return
            window = self.draw(st.integers(1, min(5, (n - 1) // dilation + 1)))
            stride = self.draw(st.integers(1, 3))
            self.emit(Op.WINDOW, x, axis=axis, size=window, stride=stride, dilation=dilation)
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
        left = (*(f"l{i}" for i in range(len(x.shape) - 1)), "k")
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
        if not x.shape or 0 in x.shape or not all(isinstance(n, int) for n in x.shape):
            return self.unary()
        axis = self.draw(st.integers(0, len(x.shape) - 1))
        line = self.b.emit(Op.IOTA, shape=(4,), axis=0, dtype=dt.i64)
        index = self.b.emit(Op.MOD, self.b.emit(Op.MUL, line, 3), x.shape[axis])
        taken = self.emit(Op.TAKE, x, index, axis=axis)
        if self.draw(st.booleans()):
            self.emit(Op.SCATTER_ADD, x, index, taken, axis=axis)

    # --- with other dtypes, and ops that meet any axes ------------------------------------------------------------------
    def integer(self):
        """Counting, truncating, places of extremes, arithmetic of two integers, and folds of them."""
        kind = self.draw(st.sampled_from(("count", "truncate", "place", "binary", "fold")))
        x = self.pick()
        dtype = dt.BY_NAME[self.draw(st.sampled_from(INTEGERS))]
        if kind == "binary" and self.integers:
            y = self.pick(self.integers)
            z = self.pick([v for v in self.integers if v.type == y.type] + [self.draw(st.sampled_from((1, 2, 3, 7, 0)))])
            out = self.b.emit(self.draw(st.sampled_from(INTEGER_BINARY)), y, z)
        elif kind == "fold" and any(v.shape and 0 not in v.shape for v in self.integers):
            y = self.pick([v for v in self.integers if v.shape and 0 not in v.shape])
            axes = self.draw(st.sets(st.integers(0, len(y.shape) - 1), min_size=1))
            out = self.b.reduce(self.draw(st.sampled_from((Op.SUM, Op.PROD, Op.MAX, Op.MIN))), y, tuple(axes))
        elif kind == "place" and x.shape and 0 not in x.shape:
            axis = self.draw(st.integers(0, len(x.shape) - 1))
            out = self.b.emit(self.draw(st.sampled_from((Op.ARGMAX, Op.ARGMIN))), x, axes=(axis,))
        elif kind == "count" and x.shape:
            out = self.b.emit(Op.IOTA, shape=x.shape, axis=self.draw(st.integers(0, len(x.shape) - 1)), dtype=dtype)
        else:
            out = self.b.cast(self.b.emit(Op.MUL, x, 4.0), dtype)
        self.integers.append(out)

    def truth(self):
        """Comparisons, logic, any and all."""
        kind = self.draw(st.sampled_from(("compare", "integers", "logic", "fold")))
        if kind == "integers" and self.integers:
            y = self.pick(self.integers)
            out = self.b.emit(self.draw(st.sampled_from(COMPARED)), y, self.draw(st.integers(0, 3)))
        elif kind == "logic" and self.truths:
            y = self.pick(self.truths)
            z = self.pick([v for v in self.truths if v.shape == y.shape])
            out = self.b.emit(self.draw(st.sampled_from((Op.AND, Op.OR, Op.XOR))), y, self.b.emit(Op.NOT, z))
        elif kind == "fold" and any(v.shape for v in self.truths):
            y = self.pick([v for v in self.truths if v.shape])
            axes = self.draw(st.sets(st.integers(0, len(y.shape) - 1), min_size=1))
            out = self.b.reduce(self.draw(st.sampled_from((Op.ANY, Op.ALL))), y, tuple(axes))
        else:
            x = self.pick()
            y = self.pick([v for v in self.values if v.shape == x.shape])
            out = self.b.emit(self.draw(st.sampled_from(COMPARED)), x, self.draw(st.sampled_from((y, 0.25))))
        self.truths.append(out)

    def number(self):
        """An integer or a truth value as a floating one."""
        if not (self.integers or self.truths):
            return self.integer()
        x = self.pick(self.integers + self.truths)
        if x.dtype is not dt.bool_:
            x = self.b.emit(Op.MOD, x, 7)
        self.values.append(self.b.cast(x, self.dtype))

    def choose(self):
        """where with any condition that broadcasts."""
        x = self.pick()
        fits = [v for v in self.truths if _broadcastable(v.shape, x.shape)]
        if not fits:
            return self.truth()
        c = self.pick(fits)
        shape = _broadcast_shapes(c.shape, x.shape)
        y = self.pick([v for v in self.values if v.shape == x.shape])
        x, y = self.b.broadcast_to(x, shape), self.b.broadcast_to(y, shape)
        self.emit(Op.WHERE, self.b.broadcast_to(c, shape), *self.draw(st.sampled_from(((x, y), (x, 0.5), (0.0, x)))))

    def cast(self):
        """Through another floating dtype and back."""
        other = dt.BY_NAME[self.draw(st.sampled_from(("f16", "bf16", "f32", "f64")))]
        x = self.b.cast(self.pick(), other)
        self.values.append(self.b.cast(self.b.emit(Op.ADD, x, x), self.dtype))

    def einsum(self):
        """A contraction with any letters: shared and kept, shared and summed, in one operand and summed."""
        x, y = self.pick(), self.pick()
        if len(x.shape) + len(y.shape) > 6:
            return
        left, right = [f"l{i}" for i in range(len(x.shape))], [f"r{i}" for i in range(len(y.shape))]
        for i, n in enumerate(y.shape):
            fits = [a for a, m in zip(left, x.shape, strict=True) if m == n and a not in right]
            if fits and self.draw(st.booleans()):
                right[i] = self.draw(st.sampled_from(fits))
        letters = list(dict.fromkeys(left + right))
        kept = [c for c in letters if self.draw(st.integers(0, 2))]
        self.emit(Op.DOT, x, y, left=tuple(left), right=tuple(right), out=tuple(self.draw(st.permutations(kept))))

    def index(self, shape, n):
        """Indices of that shape into an axis of n elements: known to the compiler, or computed from values."""
        if shape and self.draw(st.booleans()):
            line = self.b.emit(Op.IOTA, shape=shape, axis=self.draw(st.integers(0, len(shape) - 1)), dtype=dt.i32)
            found = self.b.emit(Op.ADD, self.b.emit(Op.MUL, line, 5), 1)
        else:
            known = [v for v in self.integers if v.shape == shape and v.dtype in (dt.i32, dt.i64)]
            line = self.pick(known) if known else self.b.full(self.draw(st.integers(0, 9)), shape, dt.i64)
            found = self.b.emit(Op.MUL, line, 3)
        found = self.b.emit(Op.MOD, found, n)
        return self.b.emit(Op.SUB, found, n) if self.draw(st.booleans()) else found

    def along(self):
        """take_along and its scatter."""
        x = self.pick([v for v in self.values if v.shape and 0 not in v.shape] or None)
        if not x.shape or 0 in x.shape or not all(isinstance(n, int) for n in x.shape):
            return self.unary()
        axis = self.draw(st.integers(0, len(x.shape) - 1))
        shape = list(x.shape)
        shape[axis] = self.draw(st.sampled_from((1, 3, x.shape[axis])))
        index = self.index(tuple(shape), x.shape[axis])
        taken = self.emit(Op.TAKE_ALONG, x, index, axis=axis)
        if self.draw(st.booleans()):
            self.emit(Op.SCATTER_ALONG, x, index, self.b.emit(Op.ADD, taken, 1.0), axis=axis)

    def rows(self):
        """take by any index and the scatter of other updates."""
        x = self.pick([v for v in self.values if v.shape and 0 not in v.shape] or None)
        if not x.shape or 0 in x.shape or not all(isinstance(n, int) for n in x.shape):
            return self.unary()
        axis = self.draw(st.integers(0, len(x.shape) - 1))
        index = self.index(self.draw(st.sampled_from(((), (1,), (5,), (2, 3), (0,)))), x.shape[axis])
        taken = self.emit(Op.TAKE, x, index, axis=axis)
        if self.draw(st.booleans()):
            self.emit(Op.SCATTER_ADD, x, index, self.b.emit(Op.MUL, taken, 0.5), axis=axis)

    def random(self):
        """Random numbers in [0, 1)."""
        key = self.b.cast(self.b.emit(Op.IOTA, shape=(2,), axis=0, dtype=dt.i64), dt.u32)
        shape = self.pick().shape
        bits = self.b.emit(Op.SHR, self.b.emit(Op.RANDOM_BITS, key, shape=shape), 8)
        self.values.append(self.b.emit(Op.MUL, self.b.cast(bits, self.dtype), 2.0**-24))

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
    ALL = (*STEPS, "integer", "truth", "number", "choose", "cast", "einsum", "along", "rows", "random")


def _broadcastable(a, b):
    return (
        all(m == n or m == 1 or n == 1 for m, n in zip(a[::-1], b[::-1], strict=False))
        and len(a) + len(b) <= 6
    )


def _broadcast_shapes(a, b):
    a, b = (1,) * (len(b) - len(a)) + tuple(a), (1,) * (len(a) - len(b)) + tuple(b)
    return tuple(n if m == 1 else m for m, n in zip(a, b, strict=True))


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


THIRD = (lambda m, n: (n, m), lambda m, n: (m, 1), lambda m, n: (2, m, n), lambda m, n: (), lambda m, n: (1,))
SPECIAL = (0.0, -0.0, np.inf, -np.inf, np.nan, 1.0)


@st.composite
def programs(
    draw, dtypes=("f32",), smooth=False, steps=8, only=Maker.STEPS, extents=EXTENTS, named=False, special=False, most=3000
):  # fmt: skip
    """A program of up to `steps` steps (some are several equations) and arrays to run it on.

    `special`: NaN, infinities and signed zeros are among the arrays' elements. `most`: about how many elements a value has."""
    dtype = dt.BY_NAME[draw(st.sampled_from(dtypes))]
    maker = Maker(draw, dtype, smooth)
    m, n = draw(st.sampled_from(extents)), draw(st.sampled_from(extents))
    last = draw(st.sampled_from(THIRD))
    shapes = [(m, n), (n,), last(m, n)]
    m, n = (size("M"), size("N")) if named else (m, n)
    types = [(m, n), (n,), last(m, n)]
    parameters = tuple(Value(TensorType(dtype, s), name) for s, name in zip(types, "xyz", strict=True))
    maker.values.extend(parameters)
    for _ in range(draw(st.integers(1, steps))):
        if any(_elements(v, most) > most for v in maker.values[-2:]):
            break
        getattr(maker, draw(st.sampled_from(only)))()
    made = maker.values[len(parameters) :] or maker.values
    others = maker.integers + maker.truths
    results = tuple(dict.fromkeys((made[-1], draw(st.sampled_from(made)), *others[-1:])))
    function = Function("random", parameters, tuple(maker.b.equations), results)
    verify(function)
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    arrays = [rng.uniform(-1.5, 1.5, s).astype(dtype.numpy) for s in shapes]
    if special:
        for x in arrays:
            where = rng.random(x.shape) < 0.2
            x[where] = rng.choice(SPECIAL, int(np.sum(where))).astype(x.dtype)
    return Program(function, tuple(arrays))


def _elements(v, most):
    n = v.type.count
    return n if isinstance(n, int) else evaluate(n, {"M": int(most**0.25), "N": int(most**0.25)})
