"""Tensor-core instructions: fragments laid out by hand as the PTX manual draws them, results against NumPy."""

import ml_dtypes
import numpy as np
import pytest

from kdsl.emulator import Emulator
from kdsl.errors import DivergenceError, RaceError, UnwrittenError
from tests.emulator.kernels import text

LANE = np.arange(32)
G, T = LANE >> 2, LANE & 3


def upper(i):  # the rows of a0, a1, a4, a5 in m16n8k16
    return i < 2 or 4 <= i < 6


# (row, column) of element i of A, B and C for every thread, shape by shape, as in the manual's figures
MANUAL = {
    ("m16n8k16", 2): (
        lambda i: (G if upper(i) else G + 8, T * 2 + (i & 1) + (0 if i < 4 else 8)),
        lambda i: (T * 2 + (i & 1) + (0 if i < 2 else 8), G),
    ),
    ("m16n8k8", 2): (lambda i: (G if i < 2 else G + 8, T * 2 + (i & 1)), lambda i: (T * 2 + i, G)),
    ("m16n8k8", 4): (lambda i: (G if i in (0, 2) else G + 8, T if i < 2 else T + 4), lambda i: (T if i == 0 else T + 4, G)),
    ("m16n8k4", 4): (lambda i: (G if i == 0 else G + 8, T), lambda i: (T, G)),
    ("m16n8k32", 1): (
        lambda i: (G if i < 4 or 8 <= i < 12 else G + 8, T * 4 + (i & 3) + (0 if i < 8 else 16)),
        lambda i: (T * 4 + (i & 3) + (0 if i < 4 else 16), G),
    ),
    ("m16n8k16", 1): (lambda i: (G if i < 4 else G + 8, T * 4 + (i & 3)), lambda i: (T * 4 + i, G)),
    ("m8n8k4", 8): (lambda i: (G, T), lambda i: (T, G)),
}


def c_place(i, m):
    return (G if m == 8 or i < 2 else G + 8), T * 2 + (i & 1)


def spread(matrix, place, count, word):
    """Each thread's elements of a matrix as words [register, thread]."""
    elements = np.stack([matrix[place(i)] for i in range(count)], 1)
    return np.ascontiguousarray(elements).view(word).T.copy()


@pytest.mark.parametrize(
    ("shape", "kind", "dtype", "out"),
    [
        ("m16n8k16", "bf16", ml_dtypes.bfloat16, "f32"),
        ("m16n8k16", "f16", np.float16, "f32"),
        ("m16n8k16", "f16", np.float16, "f16"),
        ("m16n8k8", "bf16", ml_dtypes.bfloat16, "f32"),
        ("m16n8k8", "tf32", np.float32, "f32"),
        ("m16n8k4", "tf32", np.float32, "f32"),
        ("m16n8k32", "s8", np.int8, "s32"),
        ("m16n8k32", "u8", np.uint8, "s32"),
        ("m16n8k16", "s8", np.int8, "s32"),
        ("m8n8k4", "f64", np.float64, "f64"),
    ],
)
def test_mma(shape, kind, dtype, out):
    m, k = int(shape[1 : shape.index("n")]), int(shape[shape.index("k") + 1 :])
    random = np.random.default_rng(0)
    a, b = (random.integers(-4, 5, s).clip(0 if kind == "u8" else -4).astype(dtype) for s in ((m, k), (k, 8)))
    c = random.integers(-4, 5, (m, 8)).astype({"f32": "f4", "s32": "i4", "f64": "f8", "f16": "f2"}[out])
    item = np.dtype(dtype).itemsize
    word = np.uint64 if item == 8 else np.uint32
    place_a, place_b = MANUAL[shape, item]
    A, B = spread(a, place_a, m * k // 32, word), spread(b, place_b, k * 8 // 32, word)
    C = spread(c, lambda i: c_place(i, m), m * 8 // 32, np.uint64 if out == "f64" else np.uint32)
    gpu = Emulator()
    buffers = [gpu.put(x) for x in (A, B, C)]
    D = gpu.room(C.nbytes)
    size = word().itemsize
    name, bits = ("%d", "b64") if size == 8 else ("%r", "b32")
    lines, names, at = ["mov.u32 %r99, %tid.x;"], [], 10
    for buffer, x in zip(buffers, (A, B, C)):
        group = [f"{name}{at + i}" for i in range(len(x))]
        for i, r in enumerate(group):
            lines.append(f"mad.wide.u32 %d1, %r99, {size}, {buffer.address + 32 * size * i};\nld.global.{bits} {r}, [%d1];")
        names.append(group)
        at += len(x)
    kinds = {"f64": "%g", "f32": "%f"}
    c_names = names[2]
    if out in kinds:
        lines += [f"mov.{bits} {kinds[out]}{i}, {r};" for i, r in enumerate(c_names)]
        c_names = [f"{kinds[out]}{i}" for i in range(len(c_names))]
    lists = ["{" + ", ".join(x) + "}" for x in (c_names, names[0], names[1], c_names)]
    lines.append(f"mma.sync.aligned.{shape}.row.col.{out}.{kind}.{kind}.{out} {', '.join(lists)};")
    for i, r in enumerate(c_names):
        store = out if out in kinds else "b32"
        lines.append(f"mad.wide.u32 %d1, %r99, {size}, {D.address + 32 * size * i};\nst.global.{store} [%d1], {r};")
    gpu.load(text("\n".join(lines)))
    gpu.launch("k", 1, 32)
    want = spread(
        (a.astype("f8") @ b.astype("f8") + c.astype("f8")).astype(c.dtype), lambda i: c_place(i, m), m * 8 // 32, word
    )
    np.testing.assert_array_equal(gpu.read(D, word, want.shape), want)


def matrices(load, store, count):
    """Threads write 16-byte rows, load matrices, store them elsewhere, write the rows back."""
    regs = "{" + ", ".join(f"%r{10 + i}" for i in range(count)) + "}"
    return f"""
    mov.u32 %r1, %tid.x;
    ld.param.u64 %d1, [x];
    ld.param.u64 %d2, [y];
    mul.wide.u32 %d3, %r1, 16;
    add.s64 %d4, %d1, %d3;
    ld.global.v4.u32 {{%r2, %r3, %r4, %r5}}, [%d4];
    mov.u32 %r6, near;
    shl.b32 %r7, %r1, 4;
    add.s32 %r8, %r6, %r7;
    st.shared.v4.u32 [%r8], {{%r2, %r3, %r4, %r5}};
    bar.sync 0;
    {load} {regs}, [%r8];
    bar.sync 0;
    {store} [%r8], {regs};
    bar.sync 0;
    ld.shared.v4.u32 {{%r2, %r3, %r4, %r5}}, [%r8];
    add.s64 %d5, %d2, %d3;
    st.global.v4.u32 [%d5], {{%r2, %r3, %r4, %r5}};"""


NEAR = ".shared .align 128 .b8 near[512];"


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True), (True, True)])
def test_ldmatrix_and_stmatrix(count, turned):
    x = np.arange(256, dtype=np.uint16).reshape(32, 8)
    ways = [".trans" if t else "" for t in turned]
    load, store = (f"{n}.sync.aligned.m8n8.x{count}{t}.shared.b16" for n, t in zip(("ldmatrix", "stmatrix"), ways))
    gpu = Emulator(text(matrices(load, store, count), ".param .u64 x, .param .u64 y", NEAR))
    X, Y = gpu.put(x), gpu.room(x.nbytes)
    gpu.launch("k", 1, 32, 0, [X, Y])
    want = x.copy().reshape(4, 8, 8)
    if turned[0] != turned[1]:
        want[:count] = want[:count].swapaxes(1, 2)
    np.testing.assert_array_equal(gpu.read(Y, x.dtype, x.shape), want.reshape(32, 8))


def test_ldmatrix_needs_what_it_reads_and_its_whole_warp():
    body = matrices("ldmatrix.sync.aligned.m8n8.x4.shared.b16", "stmatrix.sync.aligned.m8n8.x4.shared.b16", 4)
    x = np.zeros((64, 8), np.uint16)

    def launch(body, threads=32):
        gpu = Emulator(text(body, ".param .u64 x, .param .u64 y", ".shared .align 128 .b8 near[1024];"))
        gpu.launch("k", 1, threads, 0, [gpu.put(x), gpu.room(x.nbytes)])

    launch(body, 64)
    with pytest.raises(UnwrittenError):
        launch(body.replace("st.shared.v4.u32", "setp.lt.u32 %p1, %r1, 31;\n@%p1 st.shared.v4.u32", 1))
    with pytest.raises(DivergenceError):
        launch(body.replace("ldmatrix", "setp.lt.u32 %p1, %r1, 31;\n@%p1 ldmatrix", 1))
    with pytest.raises(RaceError):  # thread 1 of the warp reads rows that thread 0 wrote, with no barrier between
        launch(body.replace("bar.sync 0;", "", 1))
    launch(body.replace("bar.sync 0;", "bar.warp.sync 0xffffffff;"), 64)  # a warp's own rows need no more
