"""The NumPy meaning of the elementwise ops, and what any meaning may ask.

In:  a Context, an equation, its operands as NumPy arrays.  Out: a NumPy array. `ELEMENTWISE` has one for each op.
Read before: ir/ops.py, ir/numbers.py. Read next: ir/meaning_arrays.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kdsl.dtypes import DType
from kdsl.ir import numbers
from kdsl.ir.ops import Op
from kdsl.ir.sizes import Extent
from kdsl.ir.sizes import evaluate as value_of
from kdsl.ir.tensor import Equation, Literal

Array = np.ndarray


@dataclass(frozen=True)
class Context:
    """What a meaning may ask besides its operands: the values of the named sizes, and whether all is done in f64."""

    sizes: Mapping[str, int]
    exact: bool
    scans: dict[Any, Any] = field(default_factory=dict)  # all results of a scan, for the equations that name one each

    def working(self, dtype: DType) -> np.dtype:
        """The NumPy type in which values of `dtype` are held."""
        return np.dtype(np.float64) if self.exact and dtype.is_floating else dtype.compute.numpy

    def ints(self, extents: Iterable[Extent]) -> tuple[int, ...]:
        return tuple(value_of(n, self.sizes) for n in extents)


Meaning = Callable[..., Array]  # (context, equation, *operands) -> array


def constant(value: Literal, dtype: DType, context: Context) -> Array:
    """A literal of that dtype as a 0-d array."""
    return np.asarray(numbers.canonical(value, dtype), context.working(dtype))


def _plain(f: Callable[..., Array]) -> Meaning:
    return lambda c, e, *x: f(*x)


def _whole(f: Callable[[Array], Array]) -> Meaning:
    return lambda c, e, x: f(x) if x.dtype.kind == "f" else x


def _logical(on_bool: Callable[..., Array], on_integers: Callable[..., Array]) -> Meaning:
    return lambda c, e, *x: on_bool(*x) if x[0].dtype.kind == "b" else on_integers(*x)


def _erf(x: Array) -> Array:
    return np.array([math.erf(v) for v in x.ravel().tolist()], x.dtype).reshape(x.shape)


def _sigmoid(x: Array) -> Array:
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))


def _bitcast(c: Context, e: Equation, x: Array) -> Array:
    source, target = e.values[0].dtype, e.result.dtype
    return x.astype(source.numpy).view(target.numpy).astype(c.working(target))


def _nextafter(c: Context, e: Equation, x: Array, y: Array) -> Array:
    own = e.result.dtype.numpy
    return np.nextafter(x.astype(own), y.astype(own)).astype(x.dtype)


ELEMENTWISE: dict[Op, Meaning] = {
    Op.NEG: _plain(np.negative),
    Op.ABS: _plain(np.abs),
    Op.SIGN: _plain(np.sign),
    Op.EXP: _plain(np.exp),
    Op.EXP2: _plain(np.exp2),
    Op.EXPM1: _plain(np.expm1),
    Op.LOG: _plain(np.log),
    Op.LOG2: _plain(np.log2),
    Op.LOG10: _plain(np.log10),
    Op.LOG1P: _plain(np.log1p),
    Op.SQRT: _plain(np.sqrt),
    Op.RSQRT: _plain(lambda x: 1 / np.sqrt(x)),
    Op.SIN: _plain(np.sin),
    Op.COS: _plain(np.cos),
    Op.TAN: _plain(np.tan),
    Op.ASIN: _plain(np.arcsin),
    Op.ACOS: _plain(np.arccos),
    Op.ATAN: _plain(np.arctan),
    Op.SINH: _plain(np.sinh),
    Op.COSH: _plain(np.cosh),
    Op.TANH: _plain(np.tanh),
    Op.ASINH: _plain(np.arcsinh),
    Op.ACOSH: _plain(np.arccosh),
    Op.ATANH: _plain(np.arctanh),
    Op.SIGMOID: _plain(_sigmoid),
    Op.ERF: _plain(_erf),
    Op.FLOOR: _whole(np.floor),
    Op.CEIL: _whole(np.ceil),
    Op.ROUND: _whole(np.rint),
    Op.TRUNC: _whole(np.trunc),
    Op.IS_NAN: _plain(np.isnan),
    Op.IS_INF: _plain(np.isinf),
    Op.SIGN_BIT: _plain(lambda x: np.signbit(x) if x.dtype.kind == "f" else x < 0),
    Op.NOT: _logical(np.logical_not, np.invert),
    Op.CAST: lambda c, e, x: numbers.cast(x, e.result.dtype, c.working(e.result.dtype)),
    Op.BITCAST: _bitcast,
    Op.STOP_GRADIENT: _plain(np.asarray),
    Op.ADD: _plain(np.add),
    Op.SUB: _plain(np.subtract),
    Op.MUL: _plain(np.multiply),
    Op.DIV: _plain(np.divide),
    Op.FLOOR_DIV: _plain(numbers.floor_divide),
    Op.MOD: _plain(numbers.modulo),
    Op.POW: _plain(numbers.power),
    Op.ATAN2: _plain(np.arctan2),
    Op.COPYSIGN: _plain(np.copysign),
    Op.NEXTAFTER: _nextafter,
    Op.MAXIMUM: _plain(np.maximum),
    Op.MINIMUM: _plain(np.minimum),
    Op.MULHI: _plain(numbers.multiply_high),
    Op.AND: _logical(np.logical_and, np.bitwise_and),
    Op.OR: _logical(np.logical_or, np.bitwise_or),
    Op.XOR: _logical(np.logical_xor, np.bitwise_xor),
    Op.SHL: _plain(numbers.shift_left),
    Op.SHR: _plain(numbers.shift_right),
    Op.EQ: _plain(np.equal),
    Op.NE: _plain(np.not_equal),
    Op.LT: _plain(np.less),
    Op.LE: _plain(np.less_equal),
    Op.GT: _plain(np.greater),
    Op.GE: _plain(np.greater_equal),
    Op.WHERE: _plain(np.where),
    Op.BARRIER: _plain(np.asarray),
}
