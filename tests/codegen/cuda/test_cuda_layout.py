"""Layouts: every element is held, rows and columns of a tile fit it, and what converts freely."""

import pytest

from kdsl.codegen.cuda.layout import accumulator, blocked, operand_a, operand_b


def elements(layout):
    out = []
    for thread in range(32 << len(layout.warp)):
        at = [0, 0]
        for bit, step in enumerate(layout.lane + layout.warp):
            if thread >> bit & 1:
                at = [at[0] + step[0], at[1] + step[1]]
        out += [(at[0] + r, at[1] + c) for r, c in layout.offsets]
    return out


@pytest.mark.parametrize(
    ("layout", "rows", "columns", "copies"),
    [
        (accumulator(64, 64, (4, 1)), 64, 64, 1),
        (accumulator(128, 128, (4, 2)), 128, 128, 1),
        (operand_a(64, 32, (4, 1)), 64, 32, 1),
        (operand_a(128, 32, (4, 2)), 128, 32, 2),
        (operand_b(32, 128, (4, 2)), 32, 128, 4),
        (blocked((1, 1024), (1, 128), 4), 1, 1024, 1),
        (blocked((4, 64), (8, 16), 4), 4, 64, 2),
        (blocked((64, 8), (32, 2), 4), 64, 8, 1),
    ],
)
def test_every_element_is_held(layout, rows, columns, copies):
    held = elements(layout)
    assert set(held) == {(r, c) for r in range(rows) for c in range(columns)}
    assert len(held) == rows * columns * copies


def test_conversions():
    scores = accumulator(64, 64, (4, 1))
    assert scores.converts_freely(operand_a(64, 64, (4, 1)))  # the weights of attention need no movement
    assert not scores.converts_freely(operand_b(64, 64, (4, 1)))
    assert not scores.converts_freely(blocked((64, 64), (16, 8), 8))
    assert scores.drop(1) == accumulator(64, 128, (4, 1)).drop(1)  # a row's maximum rescales any accumulator
    assert not scores.crosses_warps(1)
    assert scores.crosses_warps(0)
    assert blocked((1, 1024), (1, 128), 4).crosses_warps(1)
