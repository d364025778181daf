"""Regions of concatenations and paddings are loops of their own: their text, their meaning, and at random."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kdsl as kd
from kdsl.ir import loops as ir
from kdsl.ir.loop_printer import show_loops
from kdsl.ir.ops import Op
from kdsl.ir.rules import Builder
from kdsl.ir.sizes import size
from kdsl.schedule.program import schedule
from tests.schedule.grouped import TARGET, agrees, parameters

rng = np.random.default_rng(0)


def normal(*shape):
    return rng.standard_normal(shape).astype("f4")


def run(build, *arrays, shapes=None):
    """Check a program against its meaning; its text."""
    inputs, b = parameters(*arrays, shapes=shapes), Builder()
    result = build(b, *inputs)
    return show_loops(schedule(agrees(inputs, b.equations, [result], arrays), TARGET))


def joined(axis):
    return lambda b, *x: b.emit(Op.CONCAT, *x, axis=axis)


def test_parts_of_whole_tiles_have_no_choice():
    text = run(joined(0), normal(640), normal(320))
    assert text.endswith(
        "    for b_0 in parallel(0, 1, 1):\n"
        "        for j_0 in stream(0, 640, 32):\n"
        "            store(out[#1 + j_0], load(x[#1 + j_0], (1, 32)))\n"
        "        for j_0 in stream(640, 960, 32):\n"
        "            store(out[#1 + j_0], load(y[#1 + j_0 - 640], (1, 32)))\n"
    )


def test_the_tile_with_two_parts_chooses():
    text = run(joined(1), normal(3, 500), normal(3, 524))
    assert "for j_0 in stream(0, 480, 32)" in text and "for j_0 in stream(512, 1024, 32)" in text
    assert text.count("where") == 1 and text.count("edge") == 2


def test_rows_of_a_padding():
    text = run(lambda b, x: b.emit(Op.PAD, x, low=(2, 0), high=(3, 0), interior=(0, 0), value=1.5), normal(50, 96))
    assert "where" not in text and "edge" not in text


def test_blocks_of_a_stack_choose_once():
    def stack(b, x, y):
        x, y = (b.emit(Op.BROADCAST, v, shape=(5000, 2), axes=(0,)) for v in (x, y))
        left, right = (b.emit(Op.SLICE, v, starts=(0, 0), sizes=(5000, 1), steps=(1, 1)) for v in (x, y))
        return b.emit(Op.CONCAT, left, right, axis=1)

    text = run(stack, normal(5000), normal(5000))
    assert "where" not in text and text.count("if ") == 0, text


def test_folds_go_from_region_to_region():
    def total(b, x, y):
        return b.emit(Op.SUM, b.emit(Op.EXP, b.emit(Op.CONCAT, x, y, axis=1)), axes=(1,))

    for n, m in [(320, 640), (100, 333), (1, 400), (511, 32), (0, 370), (370, 0), (31, 1)]:
        text = run(total, normal(3, n), normal(3, m))
        assert "edge" not in text or n % 32 or n + m <= 64


def test_named_parts():
    for n, m in [(0, 5), (64, 64), (33, 100), (100, 1), (31, 0), (1, 1)]:
        text = run(joined(0), normal(n), normal(m), shapes=[(size("N"),), (size("M"),)])
        assert text.count("for j") >= 3


@pytest.mark.parametrize("axis", [0, 1])
def test_many_parts(axis):
    parts = [normal(*((n, 70) if axis == 0 else (70, n))) for n in (3, 40, 1, 64, 100, 7, 32, 33)]
    text = run(joined(axis), *parts)
    assert len([line for line in text.splitlines() if "for " in line]) < 80


def test_more_parts_than_regions():
    parts = [normal(n % 5 * 20 + 1) for n in range(70)]
    b, inputs = Builder(), parameters(*parts[:10])
    values = [inputs[i % 10] for i in range(70)]
    result = b.emit(Op.CONCAT, *values, axis=0)
    agrees(inputs, b.equations, [result], parts[:10])


extents = st.integers(0, 150)


@settings(max_examples=60, deadline=None)
@given(st.lists(extents, min_size=2, max_size=4), st.integers(0, 1), st.integers(1, 5), st.booleans(), st.data())
def test_any_concatenation(parts, axis, other, pads, data):
    """Concatenated, padded, mapped and folded along either axis."""
    arrays = [normal(*((n, other * 13) if axis == 0 else (other * 13, n))) for n in parts]
    inputs, b = parameters(*arrays), Builder()
    mapped = [b.emit(Op.MUL, x, float(i + 1)) if i % 2 else b.emit(Op.TANH, x) for i, x in enumerate(inputs)]
    v = b.emit(Op.CONCAT, *mapped, axis=axis)
    if pads:
        low, high = (tuple(data.draw(st.integers(0, 40)) for _ in range(2)) for _ in range(2))
        v = b.emit(Op.PAD, v, low=low, high=high, interior=(0, 0), value=0.25)
    results = [v, b.emit(Op.SUM, v, axes=(1,)), b.emit(Op.SUM, v, axes=(0,))]
    kept = data.draw(st.sets(st.integers(0, 2), min_size=1))
    agrees(inputs, b.equations, [results[i] for i in sorted(kept)], arrays)


def test_values_are_those_of_numpy():
    a, b = normal(300, 100), normal(300, 77)
    x = np.concatenate([a, b], 1)
    y = kd.kernel(lambda a, b: kd.concat([a, b[:, ::-1]], axis=1))(a, b[:, ::-1])
    np.testing.assert_array_equal(y, x)
    e = kd.kernel(lambda a, b: kd.argmax(kd.concat([a, b], axis=1), axis=1))(a, b)
    np.testing.assert_array_equal(e, x.argmax(1))
    f = kd.kernel(lambda a, b: kd.cumulative_sum(kd.pad(kd.concat([a, b], axis=1), [(1, 2), (40, 3)]), axis=1))(a, b)
    np.testing.assert_allclose(f, np.pad(x, [(1, 2), (40, 3)]).cumsum(1), rtol=1e-4, atol=1e-4)


def test_gradient_of_parts():
    def parts(x):
        return x[:, :90] * x[:, 90:180], x[:, 180:]

    x = normal(40, 333)
    g = normal(40, 90), normal(40, 153)
    (dx,) = kd.kernel(parts).vjp(x, *g)
    np.testing.assert_allclose(dx, np.concatenate([g[0] * x[:, 90:180], g[0] * x[:, :90], g[1]], 1), rtol=1e-6)


def test_names_are_defined_once():
    """The verifier says so too; this says that regions share nothing but loop indices."""
    inputs, b = parameters(normal(3, 100), normal(3, 100)), Builder()
    v = b.emit(Op.CONCAT, *inputs, axis=1)
    e = b.emit(Op.EXP, v)
    result = b.emit(Op.SUM, b.emit(Op.MUL, e, e), axes=(1,))
    program = schedule(agrees(inputs, b.equations, [result], [normal(3, 100), normal(3, 100)]), TARGET)
    lets = [s.name for k in program.kernels for s in ir.walk(k.body) if isinstance(s, ir.Let)]
    assert len(lets) == len(set(lets))
