"""Every op, every dtype it takes, through the whole compiler: the meaning on the values that break things, and the derivative.

All ops of one dtype are results of one program, so that this stays fast.
"""

from __future__ import annotations

import numpy as np
import pytest

import kdsl.dtypes as dt
from kdsl.ir.meaning import MEANING, evaluate
from kdsl.ir.ops import BINARY, ELEMENTWISE, TO_BOOL, UNARY, Op
from kdsl.ir.rules import RULES, Builder
from kdsl.ir.tensor import Function, TensorType, Value
from kdsl.transforms.differentiate import APART, DERIVATIVES
from tests.codegen.llvm.test_operations import INEXACT, legal, values
from tests.whole import forward, gradients, poisoned  # noqa: F401

NOT_ALIKE = {Op.CAST, Op.BITCAST, Op.WHERE}  # their operands have other dtypes than their result: tested below
ULP = {"f32": 6, "f64": 8, "f16": 1, "bf16": 1}
LENGTH = 1003


def test_every_table_is_total():
    assert set(RULES) == set(MEANING) == set(DERIVATIVES) | APART == set(Op)


def taken(op, d):
    """Does the tensor IR have this op for this dtype?"""
    return legal(op, d) and (d.is_floating or op not in (Op.IS_INF, Op.IS_NAN))


def program(ops, d, count):
    b = Builder()
    inputs = tuple(Value(TensorType(d, (count,)), name) for name in "xy")
    results = tuple(b.emit(op, *inputs[: 2 if op in BINARY else 1]) for op in ops)
    return Function("every", inputs, tuple(b.equations), results)


def wrong(op, d, got, want):
    """Where a result is not the meaning's."""
    same = (got == want) | (got != got) & (want != want)
    if d.is_floating and op not in TO_BOOL:
        zeros = (want == 0) & (got == 0)
        same &= ~zeros | (np.signbit(got.astype("f8")) == np.signbit(want.astype("f8"))) | (op in INEXACT)
        if op in INEXACT or d in (dt.f16, dt.bf16):
            g, w = got.astype("f8"), want.astype("f8")
            info = {"f16": (2.0**-10, 2.0**-24), "bf16": (2.0**-7, 2.0**-133), "f32": (2.0**-23, 2.0**-149)}
            unit, least = info.get(d.name, (2.0**-52, 5e-324))
            same |= np.isfinite(w) & (np.abs(g - w) <= ULP[d.name] * (unit * np.abs(w) + least))
    return np.flatnonzero(~same)


@pytest.mark.parametrize("d", dt.ALL, ids=str)
def test_elementwise(d, poisoned):  # noqa: F811
    ops = [op for op in sorted(ELEMENTWISE - NOT_ALIKE, key=lambda o: o.value) if taken(op, d)]
    arrays = [values(d, seed, LENGTH) for seed in (0, 1)]
    f = program(ops, d, LENGTH)
    want = evaluate(f, *arrays)
    if d.is_floating:
        exact = evaluate(f, *arrays, exact=True)
        want = tuple(e if op in INEXACT else w for op, w, e in zip(ops, want, exact, strict=True))
    for op, got, expected in zip(ops, forward(f, arrays), want, strict=True):
        assert got.dtype == expected.dtype
        at = wrong(op, d, got, expected)
        assert not len(at), f"{op.value} of {[x[at[0]] for x in arrays]}: {got[at[0]]!r} instead of {expected[at[0]]!r}"


@pytest.mark.parametrize("source", dt.ALL, ids=str)
def test_casts_and_choices(source, poisoned):  # noqa: F811
    b, x = Builder(), values(source, 0, LENGTH)
    parameter = Value(TensorType(source, (LENGTH,)), "x")
    results = [b.emit(Op.CAST, parameter, dtype=d) for d in dt.ALL]
    hit = b.emit(Op.EQ, parameter, parameter)
    results.append(b.emit(Op.WHERE, hit, parameter, b.emit(Op.CAST, b.emit(Op.NOT, hit), dtype=source)))
    f = Function("casts", (parameter,), tuple(b.equations), tuple(results))
    for d, got, want in zip((*dt.ALL, source), forward(f, [x]), evaluate(f, x), strict=True):
        assert got.dtype == want.dtype
        wide = "f8" if d.is_floating else d.numpy
        np.testing.assert_array_equal(got.astype(wide), want.astype(wide), err_msg=f"{source} to {d}")


REDUCED = (Op.SUM, Op.PROD, Op.MAX, Op.MIN, Op.ARGMAX, Op.ARGMIN)


@pytest.mark.parametrize("d", dt.ALL, ids=str)
@pytest.mark.parametrize("shape", [(7, 37), (37, 7), (1, 1), (33, 1)])
def test_reductions(d, shape, poisoned):  # noqa: F811
    count = int(np.prod(shape))
    x = values(d, 0, max(count, 300))[-count:].reshape(shape)
    b, parameter = Builder(), Value(TensorType(d, shape), "x")
    ops = (Op.ANY, Op.ALL) if d is dt.bool_ else REDUCED
    cases = [(op, axes) for op in ops for axes in ((0,), (1,), (0, 1)) if op not in REDUCED[4:] or len(axes) == 1]
    results = tuple(b.reduce(op, parameter, axes) for op, axes in cases)
    f = Function("reduced", (parameter,), tuple(b.equations), results)
    for (op, axes), got, want in zip(cases, forward(f, [x]), evaluate(f, x, exact=True), strict=True):
        if d.is_floating and op in (Op.SUM, Op.PROD):
            size = np.sum(np.abs(x.astype("f8")), axes) if op is Op.SUM else np.abs(want.astype("f8"))
            unit = {"f16": 2.0**-10, "bf16": 2.0**-7, "f32": 2.0**-23, "f64": 2.0**-52}[d.name]
            g, w = got.astype("f8"), want.astype("f8")
            with np.errstate(all="ignore"):
                fine = (g == w) | (g != g) & (w != w) | (np.abs(g - w) <= unit * (1 + 2 * count**0.5) * size + 1e-45)
            assert np.all(fine), (op, axes, got, want)
        else:
            wide = "f8" if want.dtype.kind in "fV" else want.dtype
            np.testing.assert_array_equal(got.astype(wide), want.astype(wide), err_msg=f"{op} over {axes}")


SMOOTH = {  # where an op is differentiable: x and y are drawn from these
    Op.LOG: (0.5, 2), Op.LOG2: (0.5, 2), Op.LOG10: (0.5, 2), Op.SQRT: (0.5, 2), Op.RSQRT: (0.5, 2), Op.ACOSH: (1.5, 3),
    Op.POW: (0.5, 2), Op.ABS: (0.2, 1), Op.MOD: (1.1, 1.4), Op.FLOOR_DIV: (1.1, 1.4), Op.FLOOR: (0.1, 0.4), Op.CEIL: (0.1, 0.4),
    Op.ROUND: (0.1, 0.4), Op.TRUNC: (0.1, 0.4),
}  # fmt: skip
NO_DERIVATIVE = {Op.STOP_GRADIENT, Op.NEXTAFTER, *TO_BOOL}
DIFFERENTIABLE = [op for op in UNARY | BINARY if op not in NOT_ALIKE | NO_DERIVATIVE and legal(op, dt.f64)]


def test_derivatives(poisoned):  # noqa: F811
    """Against differences of the meaning along each argument (the ops are elementwise: all elements at once)."""
    rng, n, step = np.random.default_rng(0), 41, 1e-6
    for op in sorted(DIFFERENTIABLE, key=lambda o: o.value):
        low, high = SMOOTH.get(op, (-0.9, 0.9))
        x, y = rng.uniform(low, high, n), rng.uniform(low, high, n) + (2.0 if op is Op.MOD else 0.0)
        f = program([op], dt.f64, n)
        arrays = [x, y]
        found, _, every = gradients(f, arrays)
        cotangent = every[-1]
        for i in range(2 if op in BINARY else 1):
            moved = [[a + s * step * (i == k) for k, a in enumerate(arrays)] for s in (1, -1)]
            up, down = (evaluate(f, *m, exact=True)[0] for m in moved)
            want = cotangent * (up - down) / (2 * step)
            np.testing.assert_allclose(found[i], want, rtol=1e-5, atol=1e-7, err_msg=f"{op.value}, argument {i}")
