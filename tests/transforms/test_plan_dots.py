"""What the planner of contractions takes, what it refuses and with which reason."""

import numpy as np
import pytest

import kdsl.dtypes as dt
from kdsl.ir.frame import Illegal
from kdsl.ir.ops import Op
from kdsl.ir.rules import Builder
from kdsl.ir.tensor import Function
from kdsl.target import LEVELS
from kdsl.transforms.plan_dots import plan_dots
from kdsl.transforms.repeat import repeat_sources
from kdsl.transforms.virtual import virtual_equations
from tests.schedule.dot_programs import attention, parameter

TARGET = LEVELS["x86-64-v3"]


def plan(b, outputs):
    return plan_dots(b.equations, outputs, "k", None, TARGET)


def test_a_plain_product():
    b = Builder()
    y = b.dot("mk", "kn", "mn", parameter("x", (20, 30)), parameter("w", (30, 40)))
    found = plan(b, [y])
    assert found.frame.line is None and found.operations == 2 * 20 * 30 * 40
    assert found.bytes == 4 * (20 * 30 + 30 * 40 + 20 * 40)


def test_attention_is_a_strip_of_three_passes():
    b, _, results = attention(2, 32, 32, 8)
    frame = plan(b, results).frame
    assert frame.line is not None and frame.passes == 3 and len(frame.strips) == 2
    assert frame.cut.below == 0 and frame.cut.above is None


def test_a_window_cuts_both_ends():
    b, _, results = attention(2, 32, 32, 8, window=5)
    cut = plan(b, results).frame.cut
    assert (cut.below, cut.above) == (0, 4)


def test_no_cut_where_masked_positions_count():
    b = Builder()
    q, k = parameter("q", (32, 8)), parameter("k", (32, 8))
    s = b.dot("td", "sd", "ts", q, k)
    i, j = (b.emit(Op.IOTA, shape=(32, 32), axis=a, dtype=dt.i64) for a in (0, 1))
    s = b.emit(Op.WHERE, b.emit(Op.GE, i, j), s, 1.0)  # not neutral for a sum
    assert plan(b, [b.reduce(Op.SUM, s, (1,))]).frame.cut is None


@pytest.mark.parametrize(("neutral", "op"), [(0.0, Op.SUM), (-np.inf, Op.MAX)])
def test_a_cut_for_each_neutral_element(neutral, op):
    b = Builder()
    s = b.dot("td", "sd", "ts", parameter("q", (32, 8)), parameter("k", (32, 8)))
    i, j = (b.emit(Op.IOTA, shape=(32, 32), axis=a, dtype=dt.i64) for a in (0, 1))
    s = b.emit(Op.WHERE, b.emit(Op.GT, i, j), s, neutral)
    assert plan(b, [b.reduce(op, s, (1,))]).frame.cut.below == -1


def refused(b, outputs):
    with pytest.raises(Illegal) as error:
        plan(b, outputs)
    return str(error.value)


def test_refusals():
    b = Builder()
    x, w, u = parameter("x", (20, 30)), parameter("w", (30, 40)), parameter("u", (30, 50))
    y, z = b.dot("mk", "kn", "mn", x, w), b.dot("mk", "kn", "mn", x, u)
    assert "side by side" in refused(b, [y, z])
    b = Builder()
    y = b.dot("mk", "kn", "mn", parameter("x", (2000, 3000)), parameter("w", (3000, 4000)))
    assert "bytes would be walked over" in refused(b, [b.reduce(Op.SUM, y, (1,))])
    b = Builder()
    y = b.dot("mk", "kn", "mn", parameter("x", (20, 3)), parameter("w", (3, 400000)))
    assert "bytes do not stay near" in refused(b, [b.reduce(Op.SUM, y, (1,))])


def test_scores_are_virtual_and_plain_products_are_not():
    b, parameters, results = attention(2, 32, 32, 8)
    function = Function("f", tuple(parameters), tuple(b.equations), tuple(results))
    found = virtual_equations(function, results, set())
    assert b.equations[0] in found and not any(e.op in (Op.MAX, Op.SUM) for e in found)
    assert b.equations[0] not in virtual_equations(function, results, {b.equations[0]})
    b = Builder()
    y = b.dot("mk", "kn", "mn", parameter("x", (200, 8)), parameter("w", (8, 200)))
    z = b.emit(Op.EXP, y)
    assert not virtual_equations(Function("f", (), tuple(b.equations), (z,)), [z], set())


def test_one_array_of_indices_for_each_reader():
    b = Builder()
    i = b.emit(Op.IOTA, shape=(9,), axis=0, dtype=dt.i64)
    m = b.emit(
        Op.GE,
        b.emit(Op.BROADCAST, i, shape=(9, 9), axes=(0,)),
        b.emit(Op.BROADCAST, i, shape=(9, 9), axes=(1,)),
    )
    out = b.emit(Op.CAST, m, dtype=dt.f32)
    again = repeat_sources(Function("f", (), tuple(b.equations), (out,)))
    assert sum(e.op is Op.IOTA for e in again.equations) == 2


@pytest.mark.parametrize(
    ("dtype", "offset", "cut"), [(dt.i64, 3, True), (dt.i32, 3, True), (dt.i8, 3, False), (dt.i32, 2**31 - 5, False)]
)
def test_no_cut_where_an_index_may_wrap(dtype, offset, cut):
    b = Builder()
    s = b.dot("td", "sd", "ts", parameter("q", (200, 8)), parameter("k", (200, 8)))
    i, j = (b.emit(Op.IOTA, shape=(200, 200), axis=a, dtype=dtype) for a in (0, 1))
    s = b.emit(Op.WHERE, b.emit(Op.GE, b.emit(Op.ADD, i, offset), j), s, 0.0)
    assert (plan(b, [b.reduce(Op.SUM, s, (1,))]).frame.cut is not None) == cut
