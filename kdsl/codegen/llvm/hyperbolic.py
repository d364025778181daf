"""Hyperbolic functions and their inverses from exp, expm1, log and log1p, f32 and f64.

In:  floating Values.  Out: Values. The errors stated are the largest measured (tests/codegen/llvm/test_functions.py).
Read before: exponentials.py, logarithms.py. Read next: functions.py.
"""

from __future__ import annotations

from kdsl.codegen.llvm.exponentials import exp, expm1
from kdsl.codegen.llvm.logarithms import log, log1p
from kdsl.codegen.llvm.writer import Value, Writer

LN2 = 0.6931471805599453


def _half_exp(w: Writer, t: Value) -> Value:
    """exp(t) / 2 without overflow before its time."""
    root = exp(w, w.binary("fmul", t, w.literal(0.5, t.type)))
    return w.binary("fmul", w.binary("fmul", root, w.literal(0.5, t.type)), root)


def sinh(w: Writer, x: Value) -> Value:
    """Hyperbolic sine, at most 4 ulp."""
    t = w.intrinsic("fabs", (x,))
    e = expm1(w, t)
    near = w.binary(
        "fmul",
        w.binary("fadd", e, w.binary("fdiv", e, w.binary("fadd", e, w.literal(1.0, x.type)))),
        w.literal(0.5, x.type),
    )
    y = w.select(w.compare("fcmp olt", t, w.literal(20.0, x.type)), near, _half_exp(w, t))
    y = w.select(w.compare("fcmp olt", t, w.literal(1e-5 if x.type == "float" else 1e-9, x.type)), t, y)
    return w.intrinsic("copysign", (y, x))


def cosh(w: Writer, x: Value) -> Value:
    """Hyperbolic cosine, at most 3 ulp."""
    t = w.intrinsic("fabs", (x,))
    e = exp(w, t)
    near = w.binary("fmul", w.binary("fadd", e, w.binary("fdiv", w.literal(1.0, x.type), e)), w.literal(0.5, x.type))
    return w.select(w.compare("fcmp olt", t, w.literal(20.0, x.type)), near, _half_exp(w, t))


def asinh(w: Writer, x: Value) -> Value:
    """Inverse hyperbolic sine, at most 3 ulp."""
    t, one = w.intrinsic("fabs", (x,)), w.literal(1.0, x.type)
    square = w.binary("fmul", t, t)
    root = w.intrinsic("sqrt", (w.binary("fadd", square, one),))
    near = log1p(w, w.binary("fadd", t, w.binary("fdiv", square, w.binary("fadd", root, one))))
    far = w.binary("fadd", log(w, t), w.literal(LN2, x.type))
    y = w.select(w.compare("fcmp olt", t, w.literal(1e5 if x.type == "float" else 1e9, x.type)), near, far)
    return w.intrinsic("copysign", (y, x))


def acosh(w: Writer, x: Value) -> Value:
    """Inverse hyperbolic cosine, at most 3 ulp."""
    t = w.binary("fsub", x, w.literal(1.0, x.type))
    root = w.intrinsic("sqrt", (w.binary("fmul", t, w.binary("fadd", t, w.literal(2.0, x.type))),))
    far = w.binary("fadd", log(w, x), w.literal(LN2, x.type))
    y = w.select(
        w.compare("fcmp olt", x, w.literal(1e5 if x.type == "float" else 1e9, x.type)),
        log1p(w, w.binary("fadd", t, root)),
        far,
    )
    return w.select(w.compare("fcmp olt", x, w.literal(1.0, x.type)), w.literal(float("nan"), x.type), y)


def atanh(w: Writer, x: Value) -> Value:
    """Inverse hyperbolic tangent, at most 3 ulp."""
    t = w.intrinsic("fabs", (x,))
    ratio = w.binary("fdiv", w.binary("fadd", t, t), w.binary("fsub", w.literal(1.0, x.type), t))
    y = w.binary("fmul", log1p(w, ratio), w.literal(0.5, x.type))
    return w.intrinsic(
        "copysign",
        (w.select(w.compare("fcmp olt", t, w.literal(1e-5 if x.type == "float" else 1e-9, x.type)), t, y), x),
    )


def sigmoid(w: Writer, x: Value) -> Value:
    """1 / (1 + exp(-x)), at most 2.5 ulp."""
    e = exp(w, w.negative(x))
    return w.binary("fdiv", w.literal(1.0, x.type), w.binary("fadd", e, w.literal(1.0, x.type)))
