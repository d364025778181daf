"""Printer and parser of the loop IR: every construct comes back as it was written."""

import pytest

from kdsl.ir.loop_parser import LoopSyntaxError, parse_loops
from kdsl.ir.loop_printer import show_loops
from kdsl.ir.loop_verify import verify_loops

EVERYTHING = """\
program('everything', N, x.stride0)

x = argument(f32[N, 70], strides=(x.stride0, 1))
t = argument(i64[N])
b = argument(bf16[128])
c = constant(f32[2], [1.0, inf])
p = temporary(f32[N])
y = result(f32[N, 70])
z = result(f32)

@kernel('packing', N, x.stride0, bytes=8*N + 12, notes=('one', 'two'), schedule={'rows': 4})
def first(x, p):
    for i in parallel(0, N, 4):
        m = load(x[edge(#0 + i), 3], (4,), fill=-inf)
        store(p[edge(#0 + i)], where(is_nan(m), 0.0, -m))

@kernel('kernel', N, x.stride0, operations=70*N)
def second(x, t, b, c, p, y, z):
    last = scalar(N - 1)
    for i in parallel(0, N, 1):
        row = minimum(maximum(load(t[i], ()), 0), last)
        strip = near(f32[2, 96])
        for j in stream(0, 96, 32, order='backward', top=full(-inf, (1, 32), f32), n=i32(0)):
            a = load(x.view((N, 70), strides=(x.stride0, 1))[i, edge(#1 + j)], (1, 32))
            put(strip[(i % 2), #1 + j], exp(a) * ((a - 1.0) / (a + 2.0)))
            prefetch(x[edge(i + 1), edge(#1 + j)], (1, 32))
            next(top=maximum(top, a), n=n + cast(row, i32))
        copy(strip[-(i % 2) + 1, #1], b[#1], (1, 64), depth=2)
        if (n < 3) & (scalar(i) != 0):
            store(y[i, edge(#1 + 3)], full(1.0, (1, 2), f32))
        m2 = fold_max(top, 1)
        g = gather(p, (broadcast(row, (1, 8)),), (1, 8), mask=index(1, (1, 8)) < 3, fill=1.0)
        d = dot(full(0.0, (1, 1), f32), g, permute(slice(g, (0, 0), (1, 8)), (1, 0)))
        store(z[()], f32(0.5) + f32(nan))
        store(y[i, edge(min((N // 2), i) + #1)], prefix_sum(convert('accumulator', d), 1) + (m2 + load(c[1], ())))
"""


def test_round_trip():
    once = show_loops(parse_loops(EVERYTHING))
    assert once == show_loops(parse_loops(once))
    lines = [line.strip() for line in once.splitlines()]
    for line in EVERYTHING.splitlines():
        assert line.strip() in lines, line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("program('p')\nx = argumet(f32[3])", "line 2: argumet is no kind of buffer"),
        (
            "program('p')\nx = result(f32[3])\n@kernel('kernel')\ndef k(x):\n    store(x[#0], y)",
            "line 5: no tile is called y",
        ),
        (
            "program('p')\nx = result(f32[3])\n@kernel('kernel')\ndef k(x):\n    store(y[#0], f32(1.0))",
            "line 5: no memory is called y",
        ),
        (
            "program('p')\nx = result(f32[3])\n@kernel('kernel')\ndef k(x):\n    store(x[#0], foo(f32(1.0)))",
            "no map foo has 1 operands",
        ),
        ("program('p'", "line 1"),
    ],
)
def test_mistakes(text, message):
    with pytest.raises(LoopSyntaxError, match=message.replace("(", r"\(")):
        parse_loops(text)


def test_unverified_text_is_refused():
    with pytest.raises(AssertionError, match="a copy to strip changes the dtype"):
        verify_loops(parse_loops(EVERYTHING))
