"""A single product in every shape, dtype and order of letters equals NumPy's einsum, interpreted and compiled."""

import numpy as np
import pytest

import kdsl.dtypes as dt
from kdsl.codegen.llvm.module import emit_kernels
from kdsl.ir.ops import Op
from kdsl.ir.rules import Builder
from kdsl.schedule.register_tile import Tiling
from kdsl.target import LEVELS
from tests.schedule.dot_programs import both, parameter, program, values
from tests.tolerance import assert_close

SPECS = [
    ("mk,kn->mn", (7, 5), (5, 9)), ("mk,kn->mn", (61, 40), (40, 50)), ("mk,kn->mn", (1, 1), (1, 1)),
    ("mk,kn->mn", (25, 9), (9, 16)), ("mk,kn->mn", (6, 8), (8, 17)), ("mk,kn->mn", (5, 3), (3, 130)),
    ("km,kn->mn", (17, 61), (17, 33)), ("mk,nk->mn", (61, 17), (37, 17)), ("mk,kn->nm", (61, 17), (17, 37)),
    ("bmk,bkn->bmn", (3, 7, 5), (3, 5, 9)), ("btk,khd->bhtd", (2, 5, 6), (6, 3, 4)), ("abk,akc->bc", (3, 7, 5), (3, 5, 9)),
    ("m,n->mn", (5,), (7,)), ("k,kn->n", (5,), (5, 77)), ("mk,k->m", (7, 5), (5,)), ("bk,bk->b", (3, 7), (3, 7)),
    ("k,k->", (30,), (30,)), ("ij,jk->k", (3, 4), (4, 5)), ("bqhd,bkhd->bhqk", (2, 9, 3, 4), (2, 11, 3, 4)),
    ("mk,kn->mn", (0, 5), (5, 4)), ("mk,kn->mn", (3, 0), (0, 4)), ("mk,kn->mn", (3, 4), (4, 0)),
]  # fmt: skip


def product(spec, left, right, dtype=dt.f32):
    names, out = spec.split("->")
    a, c = names.split(",")
    b = Builder()
    x, y = parameter("x", left, dtype), parameter("y", right, dtype)
    return b, [x, y], b.dot(a, c, out, x, y)


def check(spec, left, right, dtype=dt.f32, level="x86-64-v3", tiling=None):
    b, parameters, result = product(spec, left, right, dtype)
    arrays = values(np.random.default_rng(0), parameters)
    want = np.einsum(
        spec,
        *(x.astype("f8" if dtype.is_floating else dtype.numpy) for x in arrays),
        dtype=None if dtype.is_floating else dtype.numpy,
    )
    p = program(b, parameters, [result], level, tiling)
    for got in both(p, arrays, level):
        assert_close(got[0], np.asarray(want).astype(dtype.numpy), operations=max(left[-1:] or (1,)))
    return p


@pytest.mark.parametrize(("spec", "left", "right"), SPECS)
def test_equals_einsum(spec, left, right):
    check(spec, left, right)


@pytest.mark.parametrize("dtype", [dt.f64, dt.f16, dt.bf16, dt.i8, dt.i32, dt.i64, dt.u16])
def test_every_dtype(dtype):
    check("mk,kn->mn", (13, 17), (17, 33), dtype)


@pytest.mark.parametrize("dtype", [dt.f32, dt.f64, dt.f16])
def test_an_operand_that_runs_the_other_way_is_turned_in_registers(dtype):
    p = check("mk,nk->mn", (61, 40), (64, 40), dtype)
    text, _ = emit_kernels(p, LEVELS["x86-64-v3"])
    assert "masked.gather" not in text
    for columns, depth in ((50, 40), (64, 13), (37, 9)):
        check("mk,nk->mn", (61, depth), (columns, depth), dtype)
    check("mk,nk->mn", (61, 40), (50, 40), level="arm64")
    check("mk,nk->mn", (61, 40), (50, 40), level="x86-64-v4")


def test_the_other_levels():
    check("mk,kn->mn", (61, 40), (40, 50), level="x86-64-v4")
    check("km,kn->mn", (17, 61), (17, 33), level="arm64")


def test_long_sums_are_cut_in_pieces():
    p = check("mk,kn->mn", (61, 700), (700, 40), tiling=Tiling(6, 16, 4, 4, 2, 256))
    assert p.kernels[-1].schedule["pieces"] == 3


def test_what_is_packed():
    count = lambda p: [k.kind for k in p.kernels].count("packing")  # noqa: E731
    assert count(check("mk,kn->mn", (61, 40), (40, 50))) == 1  # b, read by eleven row tiles
    assert count(check("mk,kn->mn", (3, 40), (40, 50))) == 0  # read once: in place
    assert count(check("km,kn->mn", (17, 61), (17, 50))) == 2  # a runs along its rows


@pytest.mark.parametrize(("rows", "depth", "columns"), [(13, 17, 33), (61, 8, 16), (6, 5, 7), (0, 3, 4)])
def test_maps_on_the_tile(rows, depth, columns):
    b, parameters, y = product("mk,kn->mn", (rows, depth), (depth, columns))
    bias, scale, rest = (
        parameter("bias", (columns,)),
        parameter("scale", (rows,)),
        parameter("rest", (rows, columns)),
    )
    y = b.emit(Op.TANH, b.emit(Op.ADD, y, b.broadcast_to(bias, y.shape)))
    y = b.emit(Op.MUL, y, b.emit(Op.BROADCAST, scale, shape=y.shape, axes=(0,)))
    y = b.emit(Op.ADD, y, rest)
    parameters += [bias, scale, rest]
    x, w, c, s, r = arrays = values(np.random.default_rng(1), parameters)
    want = np.tanh(x.astype("f8") @ w + c) * s[:, None] + r
    p = program(b, parameters, [y])
    assert [k.kind for k in p.kernels].count("kernel") == 1
    for got in both(p, arrays):
        assert_close(got[0], want.astype("f4"), operations=depth)


def test_an_operand_that_is_computed():
    b = Builder()
    x, w = parameter("x", (25, 18)), parameter("w", (18, 20))
    y = b.dot("mk", "kn", "mn", b.emit(Op.EXP, x), b.emit(Op.MUL, w, 2.0))
    arrays = values(np.random.default_rng(2), [x, w])
    for got in both(program(b, [x, w], [y]), arrays):
        assert_close(got[0], (np.exp(arrays[0].astype("f8")) @ (2 * arrays[1])).astype("f4"), operations=18)
