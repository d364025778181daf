"""Every map, movement and fold by itself is a kernel, at shapes that break things."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import kdsl.dtypes as dt
from kdsl.ir.loop_printer import show_loops
from kdsl.ir.ops import Op
from kdsl.ir.rules import Builder
from kdsl.ir.sizes import size
from kdsl.schedule.program import schedule
from tests.schedule.grouped import TARGET, agrees, parameters, single

SHAPES = [(5, 7), (33, 65), (2, 3, 40), (1, 1, 3), (0, 4), (4, 0), (3, 1, 50, 2)]
rng = np.random.default_rng(0)


def normal(*shape):
    return rng.standard_normal(shape).astype("f4")


def some_axes(shape):
    return [a for r in range(1, len(shape) + 1) for a in itertools.combinations(range(len(shape)), r)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("op", [Op.SUM, Op.PROD, Op.MAX, Op.MIN, Op.ARGMAX, Op.ARGMIN])
def test_folds(op, shape):
    x = normal(*shape)
    for axes in some_axes(shape):
        empty = 0 in [shape[a] for a in axes]
        if (op in (Op.ARGMAX, Op.ARGMIN) and len(axes) > 1) or (empty and op not in (Op.SUM, Op.PROD)):
            continue
        single(op, x, axes=axes)


@pytest.mark.parametrize("shape", SHAPES)
def test_truth_of_all_and_any(shape):
    for axes in some_axes(shape):
        single(Op.ANY, normal(*shape) > 1, axes=axes)
        single(Op.ALL, normal(*shape) > -1, axes=axes)


def test_places_with_nan_and_infinity():
    x = normal(6, 70)
    x[0, 40], x[0, 5], x[1], x[2], x[3, 69] = np.nan, np.nan, -np.inf, np.inf, 9
    for op in (Op.ARGMAX, Op.ARGMIN, Op.MAX, Op.MIN, Op.SUM):
        single(op, x, axes=(1,))
        single(op, x, axes=(0,))


@pytest.mark.parametrize("shape", SHAPES)
def test_movements(shape):
    x, n = normal(*shape), len(shape)
    for axes in itertools.permutations(range(n)):
        single(Op.PERMUTE, x, axes=axes)
    single(Op.RESHAPE, x, shape=(x.size,))
    single(Op.BROADCAST, x, shape=(2, *shape), axes=tuple(range(1, n + 1)))
    single(Op.BROADCAST, x, shape=(*shape, 1, 3), axes=tuple(range(n)))
    for axis in range(n):
        single(Op.CONCAT, x, x * 2, x + 1, axis=axis)
    if not x.size:
        return
    single(Op.SLICE, x, starts=tuple(k - 1 for k in shape), sizes=shape, steps=(-1,) * n)
    single(Op.SLICE, x, starts=tuple(k // 3 for k in shape), sizes=tuple((k - k // 3 + 1) // 2 for k in shape), steps=(2,) * n)
    single(Op.PAD, x, low=(1,) * n, high=(2,) * n, interior=(0,) * n, value=1.5)
    single(Op.PAD, x, low=(0,) * n, high=(1,) * n, interior=(1,) * n, value=0.0)
    single(Op.WINDOW, x, axis=n - 1, size=min(2, shape[-1]), stride=1, dilation=1)
    single(Op.WINDOW, x, axis=0, size=min(2, shape[0]), stride=2, dilation=1)


@pytest.mark.parametrize("shape", [s for s in SHAPES if 0 not in s])
def test_gathers(shape):
    x, n = normal(*shape), len(shape)
    for axis, dtype, index in [(0, "i8", (5,)), (n - 1, "i4", (2, 3)), (n - 1, "i8", ())]:
        single(Op.TAKE, x, rng.integers(-shape[axis], shape[axis], index).astype(dtype), axis=axis)
    for axis in range(n):
        single(Op.TAKE_ALONG, x, rng.integers(-shape[axis], shape[axis], shape).astype("i8"), axis=axis)


@pytest.mark.parametrize("dtype", ["bool", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "bf16", "f4", "f8"])
def test_dtypes(dtype):
    kind = dt.as_dtype("bf16").numpy if dtype == "bf16" else np.dtype(dtype)
    x = (rng.standard_normal((7, 37)) * 3).astype(kind)
    single(Op.BARRIER, x)
    single(Op.CAST, x, dtype=dt.f64)
    if dtype != "bool":
        single(Op.SUM, x, axes=(0,))
        single(Op.SUM, x, axes=(0, 1))
        single(Op.MAX, x, axes=(1,))
        single(Op.MUL, x, x)


def test_sources():
    single(Op.RANDOM_BITS, np.array([3, 9], "u4"), shape=(5, 7))
    single(Op.IOTA, shape=(5, 7), axis=0, dtype=dt.i32)
    single(Op.IOTA, shape=(5, 7), axis=1, dtype=dt.f32)
    single(Op.FULL, shape=(5,), value=2, dtype=dt.f64)
    single(Op.CONSTANT, array=np.arange(6.0).reshape(2, 3))
    single(Op.SIZE, value=7)


def softmax(b, x):
    top = b.reduce(Op.MAX, x, (1,), keepdims=True)
    e = b.emit(Op.EXP, b.emit(Op.SUB, x, b.broadcast_to(top, x.shape)))
    total = b.reduce(Op.SUM, e, (1,), keepdims=True)
    return b.emit(Op.DIV, e, b.broadcast_to(total, x.shape))


@pytest.mark.parametrize("rows, line", [(1, 1), (3, 31), (3, 32), (2, 33), (5, 100), (0, 3), (40, 7)])
@pytest.mark.parametrize("named", [False, True])
def test_softmax_is_one_kernel(rows, line, named):
    array = normal(rows, line)
    (x,) = parameters(array, shapes=[(size("N"), size("D"))] if named else None)
    b = Builder()
    y = softmax(b, x)
    assert len(agrees([x], b.equations, [y], [array]).plans) == 1


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)])
def test_folds_over_named_axes(axes):
    for shape in [(1, 1), (3, 70), (70, 3), (0, 5), (33, 64)]:
        array = normal(*shape)
        (x,) = parameters(array, shapes=[(size("N"), size("D"))])
        b = Builder()
        total = b.emit(Op.SUM, b.emit(Op.MUL, x, 2.0), axes=axes)
        agrees([x], b.equations, [total], [array])


@pytest.mark.parametrize("step", [1, 2, -1, -3])
def test_strided_arguments(step):
    base = normal(40, 66)
    array = base[::step, ::2].T
    (x,) = parameters(array)
    b = Builder()
    y = b.emit(Op.EXP, x)
    flat = b.emit(Op.RESHAPE, x, shape=(array.size,))
    strides = {x: tuple(s // 4 for s in array.strides)}
    agrees([x], b.equations, [y, b.emit(Op.SUM, x, axes=(0,)), b.emit(Op.NEG, flat)], [array], strides)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("view", [lambda x: x, lambda x: x[::-1], lambda x: x[:, ::-1]])
@pytest.mark.parametrize("shape", [(2, 2), (5, 17), (9, 33), (3, 2, 7)])
def test_lines_of_several_loops_end_where_the_inner_one_ends(shape, view, named):
    """A reshape of strided memory is walked by a loop for each axis; the edge of the inner one is not the next row."""
    array = view(normal(*shape))
    names = [size(n) for n in "MNK"[: len(shape)]]
    (x,) = parameters(array, shapes=[tuple(names)] if named else None)
    b = Builder()
    flat = b.emit(Op.RESHAPE, b.emit(Op.EXP, x), shape=(x.type.count,))
    total = b.emit(Op.BROADCAST, b.emit(Op.SUM, flat, axes=(0,)), shape=flat.shape, axes=())
    agrees(
        [x], b.equations, [b.emit(Op.DIV, flat, total), b.emit(Op.NEG, flat)], [array], {x: tuple(s // 4 for s in array.strides)}
    )


@pytest.mark.parametrize("columns", [4, 8, 9, 33])
def test_a_narrower_last_tile_of_columns_computes_its_own_values(columns):
    """max over rows and where it is met: two values are kept between the passes, one is computed from the other."""
    z, y = normal(9, columns), normal(9, columns)
    inputs, b = parameters(z, y), Builder()
    e = b.emit(Op.EXP, inputs[1])
    v = b.emit(Op.DIV, inputs[0], b.emit(Op.ADD, e, 1.0))
    hit = b.emit(Op.EQ, v, b.broadcast_to(b.reduce(Op.MAX, v, (0,), True), v.shape))
    count = b.reduce(Op.SUM, b.emit(Op.CAST, hit, dtype=dt.f32), (0,), True)
    share = b.emit(Op.DIV, b.emit(Op.CAST, hit, dtype=dt.f32), b.broadcast_to(count, v.shape))
    agrees(inputs, b.equations, [share, b.emit(Op.MUL, b.emit(Op.MUL, share, v), e)], [z, y])


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("shape", [(3, 40, 70), (20, 70), (3, 2, 64), (1, 33), (2, 5), (40, 0)])
def test_what_lies_with_gaps_is_laid_near_once_for_all_rows(shape, named):
    """x * taps[:, 1], and its sums over the rows."""
    x, taps = normal(*shape), normal(shape[-1], 4)
    shapes = [tuple(size(f"n{i}") for i in range(len(shape) - 1)) + shape[-1:], taps.shape] if named else None
    inputs, b = parameters(x, taps, shapes=shapes), Builder()
    column = b.emit(Op.SLICE, inputs[1], starts=(0, 1), sizes=(shape[-1], 1), steps=(1, 1))
    column = b.broadcast_to(b.emit(Op.RESHAPE, column, shape=shape[-1:]), inputs[0].shape)
    scaled = b.emit(Op.MUL, inputs[0], column)
    total = b.emit(Op.SUM, scaled, axes=tuple(range(len(shape) - 1)))
    for results in ([scaled], [scaled, total]):
        grouping = agrees(inputs, b.equations, results, [x, taps])
        if shape[-1] == 70:
            assert "near(f32[70])" in show_loops(schedule(grouping, TARGET))
