"""Chains for a GPU equal their meaning, interpreted: attention, its variants, its gradients, products with folds behind them."""

import numpy as np
import pytest

import kdsl.dtypes as dt
from kdsl.ir import loops as ir
from kdsl.ir.frame import Illegal
from kdsl.ir.ops import Op
from kdsl.ir.rules import Builder
from kdsl.schedule.gpu.chain_tiling import ChainTiling
from tests.schedule.dot_programs import attention, causal, parameter, values
from tests.schedule.gpu.gpu_dots import agrees, program
from tests.schedule.test_chains import gradient

SMALL = ChainTiling(16, 16, (1, 1))


@pytest.mark.parametrize("dtype", [dt.f32, dt.bf16, dt.f16], ids=lambda d: d.name)
@pytest.mark.parametrize(
    ("shape", "variant"),
    [
        ((2, 37, 37, 8), {}), ((1, 5, 5, 3), {}), ((1, 64, 64, 16), {"mask": None}), ((1, 61, 61, 16), {"window": 7}),
        ((2, 19, 19, 8), {"cap": 5.0}), ((1, 7, 33, 8), {"mask": None}), ((1, 40, 40, 8, 21), {}), ((2, 64, 64, 16), {}),
        ((1, 130, 130, 8), {"window": 5}), ((1, 13, 40, 8), {"mask": None}), ((1, 48, 48, 160), {}),
        ((1, 48, 48, 32), {"window": 20}),
    ],
)  # fmt: skip
def test_attention(shape, variant, dtype):
    b, parameters, results = attention(*shape, **variant, dtype=dtype)
    p = agrees(b, parameters, results, SMALL, operations=shape[2] * shape[3])
    assert len(p.kernels) == 1
    assert not any(x.role == "temporary" for x in p.buffers)


def test_attention_with_its_own_tiles():
    b, parameters, results = attention(1, 150, 150, 64, dtype=dt.bf16)
    agrees(b, parameters, results)


@pytest.mark.parametrize("by", ["rows", "columns"])
@pytest.mark.parametrize("shape", [(2, 37, 8), (1, 32, 16), (1, 7, 3), (1, 50, 8)])
def test_gradients_of_attention(shape, by):
    b, parameters, results = gradient(*shape, by)
    rng = np.random.default_rng(0)
    arrays = values(rng, parameters)
    arrays[4] = np.abs(arrays[4]) + 3
    agrees(b, parameters, results, SMALL, arrays)


def test_a_sum_of_what_a_mask_leaves_alone_waits_for_the_maximum():
    """exp(y - max(s)) answers to a shift of the maximum, but is not 0 where s is -inf: it must not be added up meanwhile."""
    b = Builder()
    q, k, m, y = parameter("q", (1, 20, 8)), parameter("k", (1, 64, 8)), parameter("m", (1, 20, 64)), parameter("y", (1, 20, 64))
    s = b.emit(Op.ADD, b.dot("btd", "bsd", "bts", q, k), m)
    top = b.emit(Op.BROADCAST, b.reduce(Op.MAX, s, (2,)), shape=s.shape, axes=(0, 1))
    total = b.reduce(Op.SUM, b.emit(Op.EXP, b.emit(Op.SUB, y, top)), (2,))
    arrays = values(np.random.default_rng(0), (q, k, m, y))
    arrays[2] = np.where(np.arange(64) < 32, -np.inf, 0.0).astype("f4") * np.ones((1, 20, 1), "f4")
    agrees(b, (q, k, m, y), (total,), SMALL, arrays)


def test_rows_that_are_masked_throughout_give_what_numpy_gives():
    b = Builder()
    q, k, v, m = parameter("q", (1, 20, 8)), parameter("k", (1, 24, 8)), parameter("v", (1, 24, 8)), parameter("m", (1, 20, 24))
    s = b.emit(Op.ADD, b.dot("btd", "bsd", "bts", q, k), m)
    top = b.emit(Op.BROADCAST, b.reduce(Op.MAX, s, (2,)), shape=s.shape, axes=(0, 1))
    e = b.emit(Op.EXP, b.emit(Op.SUB, s, top))
    total = b.reduce(Op.SUM, e, (2,))
    o = b.dot("bts", "bsd", "btd", e, v)
    o = b.emit(Op.DIV, o, b.emit(Op.BROADCAST, total, shape=o.shape, axes=(0, 1)))
    rng = np.random.default_rng(0)
    arrays = values(rng, [q, k, v, m])
    arrays[3][0, 3] = -np.inf
    arrays[3][0, 5, :17] = -np.inf
    arrays[3][0, 6, 16:] = -np.inf
    arrays[3][0, 7, 3] = np.nan
    arrays[0][0, 8] = -1000 * np.abs(arrays[0][0, 8])
    arrays[1][...] = np.abs(arrays[1]) + 1
    agrees(b, [q, k, v, m], [o, total], SMALL, arrays)


@pytest.mark.parametrize("n", [5, 16, 33])
def test_a_product_and_folds_over_its_columns(n):
    b = Builder()
    x, w = parameter("x", (13, 9)), parameter("w", (9, n))
    s = b.dot("mk", "kn", "mn", x, w)
    top = b.reduce(Op.MAX, s, (1,))
    spread = b.emit(Op.BROADCAST, top, shape=s.shape, axes=(0,))
    total = b.reduce(Op.SUM, b.emit(Op.EXP, b.emit(Op.SUB, s, spread)), (1,))
    least = b.reduce(Op.MIN, s, (1,))
    p = agrees(b, [x, w], [b.emit(Op.ADD, top, b.emit(Op.LOG, total)), least], SMALL)
    assert sum(isinstance(s, ir.Stream) for s in ir.walk(p.kernels[0].body)) == 1 + (n > 16)


def test_a_sum_that_cannot_be_corrected_waits_for_another_walk():
    b = Builder()
    x, w = parameter("x", (13, 9)), parameter("w", (9, 40))
    s = b.dot("mk", "kn", "mn", x, w)
    mean = b.emit(Op.MUL, b.reduce(Op.SUM, s, (1,)), 1 / 40)
    d = b.emit(Op.SUB, s, b.emit(Op.BROADCAST, mean, shape=s.shape, axes=(0,)))
    p = agrees(b, [x, w], [b.reduce(Op.SUM, b.emit(Op.MUL, d, d), (1,))], SMALL)
    assert sum(isinstance(s, ir.Stream) for s in ir.walk(p.kernels[0].body)) == 4
    with pytest.raises(Illegal, match="stored and folded"):
        program(b, [x, w], [d])


def test_weights_may_be_results():
    b, parameters, results = attention(1, 20, 20, 8)
    weights = next(e.result for e in b.equations if e.op is Op.EXP)
    agrees(b, parameters, [weights, *results], SMALL)


def test_a_bias_two_value_matrices_and_a_sum():
    b = Builder()
    q, k, v, u, bias = (
        parameter(n, s)
        for n, s in zip("qkvum", [(2, 30, 8)] * 3 + [(2, 30, 20), (30, 30)], strict=True)
    )
    s = b.dot("btd", "bsd", "bts", q, k)
    s = b.emit(Op.ADD, s, b.emit(Op.BROADCAST, bias, shape=s.shape, axes=(1, 2)))
    s = b.emit(Op.WHERE, causal(b, s.shape), s, -np.inf)
    top = b.emit(Op.BROADCAST, b.reduce(Op.MAX, s, (2,)), shape=s.shape, axes=(0, 1))
    e = b.emit(Op.EXP, b.emit(Op.SUB, s, top))
    agrees(b, [q, k, v, u, bias], [b.dot("bts", "bsd", "btd", e, v), b.dot("bts", "bsd", "btd", e, u)], SMALL)


def test_tensor_cores_take_the_weights_from_registers():
    b, parameters, results = attention(1, 128, 128, 64, dtype=dt.bf16)
    p = program(b, parameters, results)
    body = list(ir.walk(p.kernels[0].body))
    assert not any(isinstance(s, ir.Put) for s in body)
    assert [c.depth for c in body if isinstance(c, ir.Copy)] == [1, 2, 2, 2, 2]
    assert sum(isinstance(s, ir.Near) for s in body) == 3
