"""Every op, for each class of dtypes, as PTX on the emulator: the meaning on the values that break things.

All ops of one dtype are results of one program. The other dtypes are the full grid: pytest -m slow.
"""

from __future__ import annotations

import numpy as np
import pytest

import kdsl.dtypes as dt
from kdsl.ir.meaning import evaluate
from kdsl.ir.ops import ELEMENTWISE, Op
from kdsl.ir.rules import Builder
from kdsl.ir.tensor import Function, TensorType, Value
from tests.emulator.kernels import needs_numba
from tests.gpu_target.checked import scheduled
from tests.gpu_target.on_emulator import run
from tests.test_every_op import INEXACT, NOT_ALIKE, REDUCED, program, taken, values, wrong

pytestmark = [pytest.mark.oracle, needs_numba]
LENGTH = 260
EITHER_ZERO = (Op.MAXIMUM, Op.MINIMUM)  # of +0 and -0: IEEE's maximumNumber and NumPy disagree, both are right
CLASSES = ("bool", "i32", "u8", "bf16", "f32", "f64")
DTYPES = [pytest.param(d, id=d.name, marks=() if d.name in CLASSES else pytest.mark.slow) for d in dt.ALL]


@pytest.mark.parametrize("d", DTYPES)
def test_elementwise(d):
    ops = [op for op in sorted(ELEMENTWISE - NOT_ALIKE, key=lambda o: o.value) if taken(op, d)]
    arrays = [values(d, seed, LENGTH) for seed in (0, 1)]
    f = program(ops, d, LENGTH)
    want = evaluate(f, *arrays)
    if d.is_floating:
        exact = evaluate(f, *arrays, exact=True)
        want = tuple(e if op in INEXACT else w for op, w, e in zip(ops, want, exact, strict=True))
    for op, got, expected in zip(ops, run(scheduled(f, *arrays), *arrays), want, strict=True):
        at = [i for i in wrong(op, d, got, expected) if not (op in EITHER_ZERO and got[i] == expected[i])]
        assert not at, f"{op.value} of {[x[at[0]] for x in arrays]}: {got[at[0]]!r} instead of {expected[at[0]]!r}"


@pytest.mark.parametrize("source", DTYPES)
def test_casts_and_choices(source):
    b, x = Builder(), values(source, 0, LENGTH)
    parameter = Value(TensorType(source, (LENGTH,)), "x")
    results = [b.emit(Op.CAST, parameter, dtype=d) for d in dt.ALL]
    hit = b.emit(Op.EQ, parameter, parameter)
    results.append(b.emit(Op.WHERE, hit, parameter, b.emit(Op.CAST, b.emit(Op.NOT, hit), dtype=source)))
    f = Function("casts", (parameter,), tuple(b.equations), tuple(results))
    for d, got, want in zip((*dt.ALL, source), run(scheduled(f, x), x), evaluate(f, x), strict=True):
        wide = "f8" if d.is_floating else d.numpy
        np.testing.assert_array_equal(got.astype(wide), want.astype(wide), err_msg=f"{source} to {d}")


@pytest.mark.parametrize("d", DTYPES)
@pytest.mark.parametrize("shape", [(7, 37), *(pytest.param(s, marks=pytest.mark.slow) for s in ((1, 1), (70, 3)))])
def test_reductions(d, shape):
    count = int(np.prod(shape))
    x = values(d, 0, max(count, 300))[-count:].reshape(shape)
    b, parameter = Builder(), Value(TensorType(d, shape), "x")
    ops = (Op.ANY, Op.ALL) if d is dt.bool_ else REDUCED
    cases = [(op, axes) for op in ops for axes in ((0,), (1,), (0, 1)) if op not in REDUCED[4:] or len(axes) == 1]
    results = tuple(b.reduce(op, parameter, axes) for op, axes in cases)
    f = Function("reduced", (parameter,), tuple(b.equations), results)
    for (op, axes), got, want in zip(cases, run(scheduled(f, x), x), evaluate(f, x, exact=True), strict=True):
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
