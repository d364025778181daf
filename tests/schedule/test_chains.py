"""Chains of products and folds equal their meaning: attention, its variants, and its gradients by rows and by columns."""

import numpy as np
import pytest

import kdsl.dtypes as dt
from kdsl.ir import loops as ir
from kdsl.ir.ops import Op
from kdsl.ir.rules import Builder
from tests.schedule.dot_programs import attention, attention_meaning, both, causal, parameter, program, values
from tests.tolerance import assert_close


@pytest.mark.parametrize(
    ("shape", "variant"),
    [
        ((2, 37, 37, 8), {}), ((1, 5, 5, 3), {}), ((1, 64, 64, 16), {"mask": None}), ((1, 61, 61, 16), {"window": 7}),
        ((2, 19, 19, 8), {"cap": 5.0}), ((1, 7, 33, 8), {"mask": None}), ((1, 40, 40, 8, 21), {}),
        ((1, 130, 130, 8), {"window": 5}),
        ((1, 13, 40, 8), {"mask": None}), ((1, 1, 40, 8), {"mask": None}),
    ],
)  # fmt: skip
def test_attention(shape, variant):
    b, parameters, results = attention(*shape, **variant)
    arrays = values(np.random.default_rng(0), parameters)
    p = program(b, parameters, results)
    assert [k.kind for k in p.kernels].count("kernel") == 1
    for got in both(p, arrays):
        for g, w in zip(got, attention_meaning(*arrays, **variant), strict=True):
            assert_close(g, w.astype("f4"), operations=shape[2] * shape[3])


@pytest.mark.parametrize(
    ("level", "dtype"), [("x86-64-v4", dt.f32), ("x86-64-v3", dt.f64), ("arm64", dt.f32)]
)
def test_attention_for_other_vectors(level, dtype):
    b, parameters, results = attention(1, 40, 40, 8, dtype=dtype)
    arrays = values(np.random.default_rng(0), parameters)
    for got in both(program(b, parameters, results, level), arrays, level):
        for g, w in zip(got, attention_meaning(*arrays), strict=True):
            assert_close(g, w.astype(dtype.numpy), operations=320)


def test_no_scores_are_stored_and_masked_tiles_are_not_computed():
    b, parameters, results = attention(2, 64, 64, 8)
    p = program(b, parameters, results)
    assert all(64 * 64 > np.prod(buffer.shape[1:]) for buffer in p.buffers if buffer.role == "temporary")
    bounds = [
        s.hi for s in ir.walk(p.kernels[-1].body) if isinstance(s, ir.Stream) and s.index.startswith("p")
    ]
    assert bounds and not any(isinstance(hi, int) for hi in bounds)


def gradient(batch, n, width, by):
    b = Builder()
    q, k, v, do = (parameter(x, (batch, n, width)) for x in ("q", "k", "v", "do"))
    top, inverse, delta = (parameter(x, (batch, n)) for x in ("top", "inverse", "delta"))
    along = lambda x: b.emit(Op.BROADCAST, x, shape=(batch, n, n), axes=(0, 1))  # noqa: E731
    s = b.emit(Op.MUL, b.dot("btd", "bsd", "bts", q, k), width**-0.5)
    s = b.emit(Op.WHERE, causal(b, s.shape), s, -np.inf)
    p = b.emit(Op.MUL, b.emit(Op.EXP, b.emit(Op.SUB, s, along(top))), along(inverse))
    ds = b.emit(
        Op.MUL,
        b.emit(Op.MUL, p, b.emit(Op.SUB, b.dot("btd", "bsd", "bts", do, v), along(delta))),
        width**-0.5,
    )
    results = [] if by == "columns" else [b.dot("bts", "bsd", "btd", ds, k)]
    if by != "rows":
        results.append(b.dot("bts", "btd", "bsd", ds, q))
    if by in ("columns", "both"):
        results.append(b.dot("bts", "btd", "bsd", p, do))
    return b, [q, k, v, do, top, inverse, delta], results


@pytest.mark.parametrize("by", ["rows", "columns", "both", "two"])
@pytest.mark.parametrize("shape", [(2, 37, 8), (1, 32, 16), (1, 7, 3), (1, 50, 8)])
def test_gradients_of_attention(shape, by):
    _batch, n, width = shape
    rng = np.random.default_rng(0)
    q, k, v, do = (rng.standard_normal(shape).astype("f4") for _ in range(4))
    s = np.where(np.tri(n, dtype=bool), q.astype("f8") @ k.swapaxes(1, 2) * width**-0.5, -np.inf)
    top = s.max(2)
    e = np.exp(s - top[..., None])
    inverse = 1 / e.sum(2)
    p, dp = e * inverse[..., None], do.astype("f8") @ v.swapaxes(1, 2)
    delta = (p * dp).sum(2)
    ds = p * (dp - delta[..., None]) * width**-0.5
    want = {"rows": [ds @ k], "columns": [ds.swapaxes(1, 2) @ q, p.swapaxes(1, 2) @ do]}
    want |= {"both": want["rows"] + want["columns"], "two": want["rows"] + want["columns"][:1]}
    arrays = [q, k, v, do, *(np.ascontiguousarray(x, "f4") for x in (top, inverse, delta))]
    b, parameters, results = gradient(*shape, by)
    one = program(b, parameters, results)
    assert [k.kind for k in one.kernels].count("kernel") == 1
    for got in both(one, arrays):
        for g, w in zip(got, want[by], strict=True):
            assert_close(g, w.astype("f4"), operations=16 * n * width)


@pytest.mark.parametrize("dtype", [dt.f32, dt.f16, dt.f64])
@pytest.mark.parametrize("shape", [(1, 37, 29, 8, 21), (1, 5, 18, 3, 16), (1, 2, 7, 8, 8), (2, 50, 33, 9, 33)])
def test_a_product_that_sums_the_rows(shape, dtype):
    """Its sums are added in memory, under a map, beside one that sums the line."""
    batch, rows, line, k, columns = shape
    b = Builder()
    x, y = parameter("x", (batch, rows, k), dtype), parameter("y", (batch, line, k), dtype)
    u, v = parameter("u", (batch, rows, columns), dtype), parameter("v", (batch, line, columns), dtype)
    e = b.emit(Op.TANH, b.dot("brk", "blk", "brl", x, y))
    across = b.dot("brl", "blc", "brc", e, v)
    down = b.emit(Op.ADD, b.emit(Op.MUL, b.dot("brl", "brc", "blc", e, u), 0.5), v)
    p = program(b, [x, y, u, v], [across, down])
    assert [k.kind for k in p.kernels].count("kernel") == 1
    arrays = values(np.random.default_rng(0), [x, y, u, v])
    wide = [a.astype("f8") for a in arrays]
    t = np.tanh(wide[0] @ wide[1].swapaxes(1, 2))
    for got in both(p, arrays):
        for g, w in zip(got, [t @ wide[3], t.swapaxes(1, 2) @ wide[2] * 0.5 + wide[3]], strict=True):
            assert_close(g, w.astype(dtype.numpy), operations=rows * line)


@pytest.mark.parametrize("n", [5, 16, 33])
def test_a_product_and_a_fold_over_its_columns(n):
    b = Builder()
    x, w = parameter("x", (13, 9)), parameter("w", (9, n))
    y = b.dot("mk", "kn", "mn", x, w)
    e = b.emit(
        Op.EXP, b.emit(Op.SUB, y, b.emit(Op.BROADCAST, b.reduce(Op.MAX, y, (1,)), shape=y.shape, axes=(0,)))
    )
    out = b.emit(Op.DIV, e, b.emit(Op.BROADCAST, b.reduce(Op.SUM, e, (1,)), shape=y.shape, axes=(0,)))
    arrays = values(np.random.default_rng(0), [x, w])
    z = arrays[0].astype("f8") @ arrays[1]
    z = np.exp(z - z.max(1, keepdims=True))
    for got in both(program(b, [x, w], [out]), arrays):
        assert_close(got[0], (z / z.sum(1, keepdims=True)).astype("f4"), operations=9 * n)
