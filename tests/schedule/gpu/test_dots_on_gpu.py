"""Products for a GPU equal their meaning, interpreted: any extents, dtypes, walks, and maps around them."""

import numpy as np
import pytest

import kdsl.dtypes as dt
from kdsl.ir import loops as ir
from kdsl.ir.ops import Op
from kdsl.ir.rules import Builder
from kdsl.ir.sizes import size
from kdsl.schedule.gpu.dot_tiling import Tiling
from tests.schedule.dot_programs import parameter
from tests.schedule.gpu.gpu_dots import agrees, program

SMALL = Tiling(16, 32, 16, (1, 1), 2)


def product(letters, sizes, dtype=dt.f32):
    left, right, out = letters
    b = Builder()
    x, y = (parameter(n, [sizes[c] for c in s], dtype) for n, s in (("x", left), ("y", right)))
    return b, [x, y], b.dot(left, right, out, x, y)


@pytest.mark.parametrize("m", [0, 1, 5, 16, 33])
@pytest.mark.parametrize("n", [0, 1, 3, 31, 64])
@pytest.mark.parametrize("k", [0, 1, 7, 32])
def test_extents(m, n, k):
    b, inputs, z = product(("mk", "kn", "mn"), {"m": m, "n": n, "k": k})
    agrees(b, inputs, [z])


@pytest.mark.parametrize(
    "letters",
    [("mk", "kn", "mn"), ("km", "kn", "mn"), ("mk", "nk", "mn"), ("km", "nk", "mn"), ("mk", "kn", "nm"),
     ("bmk", "bkn", "bmn"), ("mbk", "nbk", "bmn"), ("bmk", "kn", "bmn"), ("bck", "kn", "bcn"), ("mkl", "lkn", "mn"),
     ("bmk", "bk", "bm"), ("mk", "k", "m"), ("k", "k", ""), ("bk", "bk", "b"), ("m", "n", "mn"), ("bm", "bn", "bmn")],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [dt.f32, dt.bf16], ids=["f32", "bf16"])
def test_walks(letters, dtype):
    sizes = {"m": 40, "n": 24, "k": 48, "b": 3, "c": 5, "l": 3}
    b, inputs, z = product(letters, sizes, dtype)
    agrees(b, inputs, [z])


@pytest.mark.parametrize("dtype", [dt.f16, dt.bf16, dt.f64, dt.i32, dt.i64, dt.u8, dt.i16], ids=lambda d: d.name)
def test_dtypes(dtype):
    b, inputs, z = product(("mk", "kn", "mn"), {"m": 37, "n": 70, "k": 40}, dtype)
    agrees(b, inputs, [z])


def linear(m, k, n, dtype=dt.bf16):
    """gelu-like maps behind a product, and a residual."""
    b = Builder()
    x, w, bias, r = (
        parameter(name, s, dtype) for name, s in (("x", (m, k)), ("w", (k, n)), ("bias", (n,)), ("r", (m, n)))
    )
    z = b.emit(Op.ADD, b.dot("mk", "kn", "mn", x, w), b.emit(Op.BROADCAST, bias, shape=(m, n), axes=(1,)))
    z = b.emit(Op.MUL, z, b.emit(Op.TANH, z))
    return b, [x, w, bias, r], b.emit(Op.ADD, z, r)


@pytest.mark.parametrize("shape", [(33, 24, 40), (128, 64, 256), (7, 9, 11), (1, 40, 24), (40, 64, 2)])
def test_maps_behind(shape):
    b, inputs, z = linear(*shape)
    agrees(b, inputs, [z])


@pytest.mark.parametrize("k", [5, 32, 33])
def test_maps_before_are_zero_beyond_the_end(k):
    b = Builder()
    x, y = parameter("x", (20, k)), parameter("y", (k, 36))
    p = b.emit(Op.EXP, x)
    q = b.emit(Op.DIV, 1.0, y)
    agrees(b, [x, y], [b.dot("mk", "kn", "mn", p, q)])


def test_operands_are_copied_in_pieces_where_rows_are_whole_pieces():
    b, inputs, z = product(("mk", "kn", "mn"), {"m": 100, "n": 64, "k": 48}, dt.bf16)
    p = program(b, inputs, [z], SMALL)
    copies = [s for s in ir.walk(p.kernels[0].body) if isinstance(s, ir.Copy)]
    assert [c.shape for c in copies] == [(16, 16), (16, 32)] and all(c.depth == 2 for c in copies)
    b, inputs, z = product(("mk", "kn", "mn"), {"m": 100, "n": 63, "k": 48}, dt.bf16)
    p = program(b, inputs, [z], SMALL)
    assert [c.shape for c in ir.walk(p.kernels[0].body) if isinstance(c, ir.Copy)] == [(16, 16)]


def test_transposed_operands_lie_as_in_memory():
    b, inputs, z = product(("km", "nk", "mn"), {"m": 64, "n": 64, "k": 64}, dt.bf16)
    p = program(b, inputs, [z], SMALL)
    copies = [s for s in ir.walk(p.kernels[0].body) if isinstance(s, ir.Copy)]
    assert [c.shape for c in copies] == [(16, 16), (32, 16)]
    assert {str(i) for c in copies for i in c.index} == {"#0", "#1"}


@pytest.mark.parametrize("n", [1, 15, 64])
def test_named_sizes(n):
    b = Builder()
    m, k = size("M"), size("K")
    x, y = parameter("x", (m, k)), parameter("y", (k, 48))
    z = b.dot("mk", "kn", "mn", x, y)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((n, 2 * n + 1)).astype("f4"), rng.standard_normal((2 * n + 1, 48)).astype("f4")]
    agrees(b, [x, y], [z], SMALL, arrays)


def test_a_long_k_is_summed_in_parts():
    b, inputs, z = product(("km", "kn", "mn"), {"m": 64, "n": 96, "k": 5000})
    p = agrees(b, inputs, [z], operations=5000)
    assert len(p.kernels) == 2 and any(x.role == "temporary" for x in p.buffers)


def test_strides():
    b, inputs, z = product(("mk", "kn", "mn"), {"m": 20, "n": 40, "k": 24})
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 48)).astype("f4")[::-2, ::2]
    y = rng.standard_normal((40, 24)).astype("f4").T
    agrees(b, inputs, [z], None, [x, y], strides={inputs[0]: (-96, 2), inputs[1]: (1, 24)})
