"""What the verifier refuses, and what the interpreter finds while it runs."""

import numpy as np
import pytest

from kdsl.ir.interpreter import interpret
from kdsl.ir.interpreter_memory import LoopError
from kdsl.ir.loop_parser import parse_loops
from kdsl.ir.loop_verify import verify_loops

FRAME = """
program('p', N)
x = argument(f32[N, 64])
h = argument(bf16[64])
t = temporary(f32[N])
y = result(f32[N, 64])

@kernel('kernel', N)
def k(x, h, t, y):
    for i in parallel(0, N, 1):
"""


def program(*lines):
    return parse_loops(FRAME + "".join(f"        {line}\n" for line in lines))


WHOLE = "store(y[i, #1], load(x[i, #1], (1, 64)))"


def test_right():
    p = program(WHOLE)
    verify_loops(p)
    x = np.ones((5, 64), np.float32)
    assert (interpret(p, x, np.zeros(64, p.buffers[1].dtype.numpy))[0] == x).all()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["store(y[i, #1 + 1], load(x[i, #1], (1, 64)))"],
            r"index #1 \+ 1 of y's axis 1 of 64 is unchecked and not proved inside",
        ),
        (["store(y[i, #1], load(x[i + 1, #1], (1, 64)))"], "unchecked and not proved inside"),
        (
            ["store(y[edge(0), #1], load(x[i, #1], (1, 64)))"],
            "every iteration of i writes the same elements of y",
        ),
        (
            ["store(y[i, 0], load(x[i, #1], (1, 64)))"],
            r"axes \[1\] of a tile of \(1, 64\) have no place in y",
        ),
        (["a = load(t[i], ())", WHOLE], "t is read before anything is stored there"),
        (
            ["s = near(f32[64])", "a = load(s[#0], (64,))", WHOLE],
            "near memory s is read before anything is put there",
        ),
        (["a = load(x[i, 0], ())", "a = load(x[i, 1], ())", WHOLE], "a is defined twice"),
        (["N = load(x[i, 0], ())", WHOLE], "N is a size and defined again"),
        (["store(x[i, 0], f32(1.0))", WHOLE], "the argument x is stored to"),
        (["s = near(bf16[64])", "put(s[#0], full(1, (64,), i32))", WHOLE], r"i32\[64\] is put into bf16 s"),
        (
            ["for j in stream(0, 3, 1, a=f32(0.0)):", "    next(a=i32(0))", WHOLE],
            r"a starts as f32\[\] and goes on as i32\[\]",
        ),
        (
            ["for j in stream(0, 3, 1):", "    a = f32(1.0)", "store(y[i, 0], a)"],
            "a is used where it is not defined",
        ),
        (["if load(x[i, 0], ()) + 1.0:", "    " + WHOLE], r"a condition is f32\[\], not bool\[\]"),
        (
            ["a = full(0.0, (2, 2), f32) + full(0.0, (1, 3), f32)", WHOLE],
            r"a tile of \(2, 2\) does not broadcast to \(2, 3\)",
        ),
        (
            ["a = dot(full(0.0, (2, 2), f32), full(0.0, (2, 3), f32), full(0.0, (4, 2), f32))", WHOLE],
            "a dot of",
        ),
        (["a = cast(load(h[0], ()), bf16)", WHOLE], "a tile is bf16, which exists in memory only"),
        (
            ["r = cast(load(x[i, 0], ()), i64)", "store(y[i, r], f32(0.0))"],
            r"index r of y's axis 1 of 64 is unchecked.*r unknown",
        ),
        (["a = load(x[i, j], ())", WHOLE], "the index j has j, which is none here"),
    ],
)
def test_refused(lines, message):
    with pytest.raises(LoopError, match=message):
        verify_loops(program(*lines))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["for c in stream(0, 65, 32):", "    store(y[i, edge(c + #1)], load(x[i, c + #1], (1, 32)))"],
            "leaves its axis 1 of 64, unchecked",
        ),
        (["store(y[i, #1], load(x[i, #1], (1, 32)))"], "elements of the result are never written"),
        (["store(y[i // 2, #1], load(x[i, #1], (1, 64)))"], "two iterations write one element"),
        ([WHOLE, "a = load(y[0, #1], (1, 64))"], "one iteration reads what another writes"),
        (
            [
                "s = near(f32[64])",
                "put(s[#0], full(1.0, (32,), f32))",
                "store(y[i, #1], load(s[#1], (1, 64)))",
            ],
            "read where nothing was written",
        ),
        (["store(y[i, #1 // 2], load(x[i, #1], (1, 64)))"], "one tile writes an element twice"),
    ],
)
def test_found_while_running(lines, message):
    p = program(*lines)
    with pytest.raises(LoopError, match=message):
        interpret(p, np.ones((5, 64), np.float32), np.zeros(64, p.buffers[1].dtype.numpy))


def test_strides_of_arguments():
    p = parse_loops("""
program('p', x.stride0, x.stride1)
x = argument(f32[3, 4], strides=(x.stride0, x.stride1))
y = result(f32[4, 3])
@kernel('kernel', x.stride0, x.stride1)
def k(x, y):
    for i in parallel(0, 4, 1):
        store(y[i, #1], permute(load(x[#0, i], (3, 1)), (1, 0)))
""")
    verify_loops(p)
    x = np.arange(48, dtype=np.float32).reshape(6, 8)
    for view in (
        x[::2, ::2],
        x[::-2, 7:3:-1],
        np.ascontiguousarray(x[:3, :4]),
        np.broadcast_to(x[0, :4], (3, 4)),
    ):
        assert (interpret(p, view)[0] == view.T).all()


def test_half_precision_lives_in_memory_only():
    p = parse_loops("""
program('p')
x = argument(bf16[40])
y = result(bf16[40])
@kernel('kernel')
def k(x, y):
    for i in parallel(0, 40, 40):
        store(y[#0], load(x[#0], (40,)) / 3.0 * 3.0)
""")
    verify_loops(p)
    x = np.arange(40).astype(p.buffers[0].dtype.numpy)
    y = interpret(p, x)[0]
    assert y.dtype == x.dtype
    assert (y == x).all()
