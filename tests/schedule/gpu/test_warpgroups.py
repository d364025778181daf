"""Products of warpgroups: tiles brought by the copy engine, multiplied by wgmma; run by the emulator, which sees every race."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest

import kdsl as kd
import kdsl.dtypes as dt
from kdsl.codegen.cuda.kernels import emit_cuda
from kdsl.errors import EmulatorError
from kdsl.ir.boxes import boxes_of
from kdsl.ir.loops import Buffer, View, axis
from kdsl.ir.meaning import evaluate
from kdsl.ir.sizes import size
from kdsl.ir.tensor import Function
from kdsl.schedule.gpu.dot_tiling import Tiling, warpgroup_tiling
from kdsl.target import parse_target
from kdsl.testing import gpu_code
from tests.schedule.dot_programs import values
from tests.schedule.gpu import gpu_dots
from tests.schedule.gpu.test_dots_emulated import product
from tests.tolerance import assert_close

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(importlib.util.find_spec("numba_cuda") is None, reason="needs numba-cuda"),
]
HOPPER = parse_target("cuda:sm_90a")
SMALL = Tiling(64, 64, 64, (4, 1), 3, 1, 1)
WIDE = Tiling(128, 256, 64, (8, 1), 2, 1, 1)


@pytest.fixture(autouse=True)
def hopper(monkeypatch):
    monkeypatch.setattr(gpu_dots, "TARGET", HOPPER)


def agrees(built, tiling=None):
    """The emulated kernel gives what the equations mean."""
    from tests.schedule.gpu.emulated import emulated

    builder, parameters, results = built
    p = gpu_dots.program(builder, parameters, results, tiling)
    assert "brings" in emit_cuda(p)
    arrays = values(np.random.default_rng(0), parameters)
    function = Function("f", tuple(parameters), tuple(builder.equations), tuple(results))
    for got, want in zip(emulated(p, arrays, arch="sm_90a"), evaluate(function, *arrays), strict=True):
        assert_close(got, want, operations=4096)


@pytest.mark.parametrize("letters", [("mk", "kn", "mn"), ("km", "kn", "mn"), ("mk", "nk", "mn"), ("km", "nk", "mn")])
@pytest.mark.parametrize("dtype", [dt.bf16, dt.f16])
def test_operands_that_lie_either_way(letters, dtype):
    agrees(product(letters, dtype, m=72, k=136, n=80), SMALL)


@pytest.mark.parametrize("letters", [("mk", "kn", "mn"), ("km", "nk", "mn")])
def test_two_warpgroups_beside_each_other(letters):
    agrees(product(letters, dt.bf16, m=136, k=192, n=264), WIDE)


@pytest.mark.parametrize(
    ("letters", "sizes", "tiling"),
    [
        (("mk", "kn", "mn"), {"m": 64, "k": 64, "n": 64}, SMALL),
        (("mk", "kn", "mn"), {"m": 8, "k": 8, "n": 8}, SMALL),
        (("mk", "kn", "mn"), {"m": 64, "k": 512, "n": 64}, Tiling(64, 64, 64, (4, 1), 3, 3, 1)),
        (("bmk", "bkn", "bmn"), {"b": 3, "m": 65, "k": 72, "n": 72}, SMALL),
        (("mbk", "bnk", "bnm"), {"b": 2, "m": 40, "k": 128, "n": 64}, SMALL),
        (("mkl", "kln", "mn"), {"m": 64, "k": 3, "l": 72, "n": 64}, SMALL),
        (("abmk", "bkn", "abmn"), {"a": 2, "b": 2, "m": 64, "k": 64, "n": 64}, SMALL),
        (("mk", "nk", "mn"), {"m": 67, "k": 64, "n": 51}, SMALL),  # results whose rows begin anywhere
        (("bmk", "bnk", "mbn"), {"b": 2, "m": 72, "k": 64, "n": 136}, Tiling(64, 128, 64, (4, 1), 2, 1, 1)),
    ],
)
def test_shapes(letters, sizes, tiling):
    agrees(product(letters, dt.bf16, **sizes), tiling)


def test_a_block_runs_several_tiles_in_turn(monkeypatch):
    """Two blocks for nine tiles, and two of a band of two times two for sixteen."""
    monkeypatch.setattr(gpu_dots, "TARGET", replace(HOPPER, units=1))
    for m in (192, 256):
        built = product(("mk", "kn", "mn"), dt.bf16, m=m, k=192, n=192)
        (kernel,) = emit_cuda(gpu_dots.program(*built, SMALL)).kernels
        assert kernel.blocks == 2 and ("band" in kernel.source) == (m == 256)
        agrees(built, SMALL)


@pytest.mark.parametrize("line", ["landed(GATES, k_count)", "leave(GATES, k_count)", "room(GATES, k_count)"])
def test_a_missing_wait_is_noticed(line, monkeypatch):
    from tests.schedule.gpu import emulated

    def without(p):
        found = emit_cuda(p)
        found.kernels = tuple(replace(k, source=k.source.replace(line, "size(0)")) for k in found.kernels)
        return found

    monkeypatch.setattr(emulated, "emit_cuda", without)
    with pytest.raises(EmulatorError):
        agrees(product(("mk", "kn", "mn"), dt.bf16, m=64, k=320, n=64), SMALL)


def test_two_results_leave(monkeypatch):
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s).astype(dt.f16.numpy) for s in ((72, 64), (64, 72)))

    def both(x, w):
        y = x @ w
        return y, kd.maximum(y, 0), kd.astype(y, kd.f32)

    f = kd.kernel(both, target="emulator:sm_90a")
    source = f.source(x, w, target="cuda:sm_90a")
    assert source.count("def ") == 1 and source.count("send(") == 4 and source.count(" store(") == 2
    y, positive, wide = f(x, w)
    assert_close(y, (x.astype("f4") @ w.astype("f4")).astype(x.dtype), operations=4096)
    np.testing.assert_array_equal(positive, np.maximum(y, 0))
    np.testing.assert_array_equal(wide.astype(x.dtype), y)


def test_what_follows_a_product_is_fused():
    rng = np.random.default_rng(0)
    x, w, b, r = (rng.standard_normal(s).astype(dt.bf16.numpy) for s in ((72, 64), (64, 72), (72,), (72, 72)))
    f = kd.kernel(lambda x, w, b, r: kd.maximum(x @ w + b, 0) + r, target="emulator:sm_90a")
    source = f.source(x, w, b, r, target="cuda:sm_90a")
    assert "brings" in source and source.count("def ") == 1
    wide = [a.astype("f4") for a in (x, w, b, r)]
    want = np.maximum(wide[0] @ wide[1] + wide[2], 0) + wide[3]
    assert_close(f(x, w, b, r), want.astype(x.dtype), operations=4096)


def test_rows_of_a_named_number():
    def rows(x: kd.bf16["N", 128], w: kd.bf16[128, 64]):
        return x @ w

    f = kd.kernel(rows, target="emulator:sm_90a")
    assert "brings" in f.source(kd.bf16["N", 128], kd.bf16[128, 64], target="cuda:sm_90a")
    for n in (1, 64, 100):
        x, w = (np.ones(s, dt.bf16.numpy) for s in ((n, 128), (128, 64)))
        assert (f(x, w).astype("f4") == 128).all()


def test_which_tiles():
    assert warpgroup_tiling(HOPPER, 4096, 4096, 4096, 1) == Tiling(128, 256, 64, (8, 1), 4, 1, 1)
    assert warpgroup_tiling(HOPPER, 1024, 1024, 1024, 1).rows == 64
    assert warpgroup_tiling(HOPPER, 128, 128, 8192, 1).parts > 1
    for shape in ((32, 4096, 4096), (4096, 32, 4096), (4096, 4096, 48)):
        assert warpgroup_tiling(HOPPER, *shape, 1) is None


def test_what_the_copy_engine_can_bring():
    i, k = size("i") + axis(0), size("k") + axis(1)

    def boxes(shape, strides, index, dtype=dt.bf16, tile=(64, 64)):
        return boxes_of(View(Buffer("x", dtype, shape, strides, "argument"), index), tile)

    assert boxes((100, 200), (200, 1), (i, k)).box == (64, 64)
    assert boxes((200, 100), (1, 200), (k, i)).start == (size("i"), size("k"))
    assert boxes((3, 100, 200), (20000, 200, 1), (size("b"), i, k)).box == (1, 64, 64)
    assert boxes((3, 100, 200), (7, 200, 1), (0, i, k)).shape == (100, 200)  # of an axis that stays at 0 nothing is said
    assert boxes((size("N"), 8 * size("K")), (8 * size("K"), 1), (i, k)) is not None
    assert boxes((100, 201), (201, 1), (i, k)) is None  # rows that begin between pieces of 16 bytes
    assert boxes((100, size("K")), (size("K"), 1), (i, k)) is None
    assert boxes((100, 200), (-200, 1), (i, k)) is None and boxes((100, 200), (0, 1), (i, k)) is None
    assert boxes((100, 400), (400, 2), (i, k)) is None
    assert boxes((100, 200), (200, 1), (i, size("k") + 2 * axis(1))) is None
    assert boxes((2,) * 4 + (64, 64), (2**16, 2**15, 2**14, 2**13, 64, 1), (*map(size, "abcd"), i, k)) is None
    assert boxes((100, 200), (200, 1), (i, k), tile=(64, 32)) is None
    assert boxes((600, 64), (64, 1), (i, k), tile=(512, 64)) is None


def test_instructions():
    """A tile of 128 x 256 a step of 64: four products of 16 by two warpgroups, five boxes; 16 rows of 256
    columns leave a warp in four boxes; no thread loads or stores."""
    f = kd.kernel(lambda x, y: x @ y)
    code = gpu_code(f, kd.bf16[4096, 4096], kd.bf16[4096, 4096], arch="sm_90a")
    assert code.spill_bytes == 0 and code.registers <= 168 and code.near_bytes <= 227 * 1024
    (kernel,) = code.kernels
    assert kernel.threads == 32 * 9
    copy = "cp.async.bulk.tensor.2d"
    assert code.count("wgmma.mma_async") % 4 == 0 and code.count(f"{copy}.shared::cluster.global") % 5 == 0
    assert code.count("stmatrix") == 16 and code.count(f"{copy}.global.shared::cta") == 4
    assert code.count("ldmatrix") == code.count("mma.sync") == code.count("cp.async.cg") == 0
    assert not kernel.accesses
    for arch in ("sm_90", "sm_80", "sm_100a"):
        assert not gpu_code(f, kd.bf16[1024, 1024], kd.bf16[1024, 1024], arch=arch).count("wgmma.mma_async")
