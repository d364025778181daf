"""Copies and products that go on by themselves: cp.async, mbarriers, TMA, wgmma; right with their waits, noticed without."""

import re

import ml_dtypes
import numpy as np
import pytest

from kdsl.emulator import Emulator
from kdsl.errors import BarrierError, EmulatorError, MisalignedError, RaceError, UnwaitedCopyError, UnwrittenError
from tests.emulator.kernels import text

bf16 = ml_dtypes.bfloat16

# Each thread copies 16 bytes of x, the last ones fewer; then reads what its neighbour copied.
COPY = """
    mov.u32 %r1, %tid.x;
    ld.param.u64 %d1, [x];
    ld.param.u64 %d2, [y];
    mul.wide.u32 %d3, %r1, 16;
    add.s64 %d4, %d1, %d3;
    shl.b32 %r2, %r1, 4;
    mov.u32 %r3, near;
    add.s32 %r4, %r3, %r2;
    mov.u32 %r9, 16;
    setp.gt.u32 %p1, %r1, 59;
    @%p1 mov.u32 %r9, 6;
    cp.async.ca.shared.global [%r4], [%d4], 16, %r9;
    cp.async.commit_group;
    cp.async.commit_group;
    cp.async.wait_group 1;
    bar.sync 0;
    xor.b32 %r5, %r4, 16;
    ld.shared.v4.u32 {%r10, %r11, %r12, %r13}, [%r5];
    add.s64 %d5, %d2, %d3;
    st.global.v4.u32 [%d5], {%r10, %r11, %r12, %r13};"""
NEAR = ".shared .align 1024 .b8 near[4096];"
XY = ".param .u64 x, .param .u64 y"


def copy(body):
    x = np.arange(512, dtype=np.uint16).reshape(64, 8)
    gpu = Emulator(text(body, XY, NEAR, arch="sm_80"))
    X, Y = gpu.put(x, "x"), gpu.room(x.nbytes, "y")
    gpu.launch("k", 1, 64, 0, [X, Y])
    want = x.copy()
    want[60:, 3:] = 0
    np.testing.assert_array_equal(gpu.read(Y, x.dtype, x.shape), want[np.arange(64) ^ 1])


def test_copies_of_threads():
    copy(COPY)
    with pytest.raises(UnwaitedCopyError, match="still filling"):
        copy(COPY.replace("wait_group 1", "wait_group 2"))
    with pytest.raises(UnwaitedCopyError, match="still filling"):
        copy(COPY.replace("cp.async.commit_group;", "", 1))
    with pytest.raises(RaceError, match="no barrier lies between"):
        copy(COPY.replace("bar.sync 0;", ""))
    with pytest.raises(MisalignedError):
        copy(COPY.replace("add.s64 %d4, %d1, %d3;", "add.s64 %d4, %d1, %d3; add.s64 %d4, %d4, 4;"))


def test_groups_belong_to_threads():
    """Half of the threads commit twice: only they may leave one group unwaited."""
    odd = "and.b32 %r20, %r1, 1; setp.eq.u32 %p2, %r20, 1;"
    copy(COPY.replace("cp.async.commit_group;\n    cp", f"{odd} @%p2 bra skip;\n cp.async.commit_group;\nskip:\n cp", 1)
         .replace("wait_group 1", "wait_group 0"))  # fmt: skip
    with pytest.raises(UnwaitedCopyError):
        copy(COPY.replace("cp.async.commit_group;\n    cp", f"{odd} @%p2 bra skip;\n cp.async.commit_group;\nskip:\n cp", 1))


# A producer warp brings tiles of x to a ring of two, 64 consumers double them and write them out.
PIPELINE = """
    mov.u32 %r1, %tid.x;
    ld.param.u64 %d1, [x];
    ld.param.u64 %d2, [y];
    mov.u32 %r3, near;
    add.s32 %r4, %r3, 2048;  // full: two mbarriers, then empty: two
    setp.ne.u32 %p1, %r1, 0;
    @%p1 bra made;
    mbarrier.init.shared::cta.b64 [%r4], 1;
    mbarrier.init.shared::cta.b64 [%r4+8], 1;
    mbarrier.init.shared::cta.b64 [%r4+16], 64;
    mbarrier.init.shared::cta.b64 [%r4+24], 64;
    fence.mbarrier_init.release.cluster;
made:
    bar.sync 0;
    mov.u32 %r5, 0;  // the number of the tile
    setp.ge.u32 %p2, %r1, 32;
    @%p2 bra consume;
    @%p1 bra end;
produce:
    and.b32 %r6, %r5, 1;
    shl.b32 %r7, %r6, 3;
    add.s32 %r8, %r4, %r7;
    shr.u32 %r9, %r5, 1;
    and.b32 %r9, %r9, 1;
    xor.b32 %r10, %r9, 1;
    {
    .reg .pred done;
again:
    mbarrier.try_wait.parity.shared::cta.b64 done, [%r8+16], %r10;
    @done bra on;
    bra again;
on:
    }
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r8], 256;
    shl.b32 %r11, %r6, 10;
    add.s32 %r12, %r3, %r11;
    mul.wide.u32 %d3, %r5, 256;
    add.s64 %d4, %d1, %d3;
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r12], [%d4], 256, [%r8];
    add.u32 %r5, %r5, 1;
    setp.lt.u32 %p3, %r5, 5;
    @%p3 bra produce;
    bra end;
consume:
    and.b32 %r6, %r5, 1;
    shl.b32 %r7, %r6, 3;
    add.s32 %r8, %r4, %r7;
    shr.u32 %r9, %r5, 1;
    and.b32 %r9, %r9, 1;
    {
    .reg .pred done;
again:
    mbarrier.try_wait.parity.shared::cta.b64 done, [%r8], %r9;
    @done bra on;
    bra again;
on:
    }
    shl.b32 %r11, %r6, 10;
    add.s32 %r12, %r3, %r11;
    sub.u32 %r13, %r1, 32;
    shl.b32 %r14, %r13, 2;
    add.s32 %r15, %r12, %r14;
    ld.shared.u32 %r16, [%r15];
    mbarrier.arrive.shared::cta.b64 _, [%r8+16];
    add.u32 %r16, %r16, %r16;
    mul.wide.u32 %d3, %r5, 256;
    add.s64 %d4, %d2, %d3;
    mul.wide.u32 %d5, %r13, 4;
    add.s64 %d4, %d4, %d5;
    st.global.u32 [%d4], %r16;
    add.u32 %r5, %r5, 1;
    setp.lt.u32 %p3, %r5, 5;
    @%p3 bra consume;
end:"""


def pipeline(body):
    x = np.arange(320, dtype=np.uint32)
    gpu = Emulator(text(body, XY, NEAR))
    X, Y = gpu.put(x, "x"), gpu.room(x.nbytes, "y")
    gpu.launch("k", 1, 96, 0, [X, Y])
    np.testing.assert_array_equal(gpu.read(Y, x.dtype, x.shape), 2 * x)


def wait_removed(body, number):
    found = list(re.finditer(r"mbarrier\.try_wait[^;]*;", body))[number]
    return body[: found.start()] + "setp.eq.u32 done, 1, 1;" + body[found.end() :]


def test_a_pipeline_of_bulk_copies():
    pipeline(PIPELINE)


@pytest.mark.parametrize(
    ("change", "errors"),
    [
        (lambda b: wait_removed(b, 0), (BarrierError,)),  # the producer arrives twice in one phase
        (lambda b: wait_removed(b, 1), (UnwrittenError, UnwaitedCopyError)),
        (lambda b: b.replace("bar.sync 0;", ""), (RaceError,)),
        (lambda b: b.replace("], 256;\n    shl", "], 512;\n    shl"), (BarrierError,)),
        (lambda b: b.replace("mbarrier.arrive.shared::cta.b64 _, [%r8+16];", ""), (BarrierError,)),
        (lambda b: b.replace("[%r4+16], 64", "[%r4+16], 32"), (BarrierError, RaceError)),
        (lambda b: b.replace("mbarrier.init.shared::cta.b64 [%r4+8], 1;", ""), (UnwrittenError,)),
    ],
)
def test_mistakes_in_a_pipeline_are_noticed(change, errors):
    with pytest.raises(errors):
        pipeline(change(PIPELINE))


def product(n, a_in_registers, turned, keeps=1):
    """One warpgroup: boxes of a (64 x 64) and b (n x 64, or 64 x n if turned) by TMA, four products of depth 16."""
    half = n // 2
    accumulator = "{" + ", ".join(f"%f{i}" for i in range(half)) + "}"
    lines = [f"mov.f32 %f{i}, 0f3F800000;" for i in range(half)]
    for step in range(4):
        if a_in_registers:
            lines += [f"add.s32 %r30, %r29, {32 * step};"]
            rows = [("%r40", 0), ("%r41", 1024), ("%r42", 16), ("%r43", 1040)]
            for register, offset in rows:  # a lies plain in shared memory: row g at 128 g, pairs at 4 q
                lines += [f"ld.shared.b32 {register}, [%r30+{offset}];"]
            left = "{%r40, %r41, %r42, %r43}"
        else:
            lines += [f"add.s64 %d20, %d10, {2 * step};"]
            left = "%d20"
        lines += [f"add.s64 %d21, %d11, {(2048 >> 4) * step if turned else 2 * step};"]
        flags = f"1, 1, {int(turned)}" if a_in_registers else f"1, 1, 0, {int(turned)}"
        keep = "1" if step or keeps else "0"
        wgmma = f"wgmma.mma_async.sync.aligned.m64n{n}k16.f32.bf16.bf16 {accumulator}, {left}, %d21, %p9, {flags};"
        lines += ["wgmma.fence.sync.aligned;", f"setp.ne.u32 %p9, {keep}, 0;", wgmma]
    swizzle = 1 << 62
    stores = []
    for i in range(0, half, 2):
        j, h = divmod(i // 2, 2)
        stores += [f"st.global.v2.f32 [%d7+{4 * (8 * h * n + 8 * j)}], {{%f{i}, %f{i + 1}}};"]
    make_b = f"or.b64 %d11, %d9, {swizzle | (64 << 32) | (512 << 16 if n > 64 else 1 << 16)};"
    return f"""
    mov.u32 %r1, %tid.x;
    ld.param.u64 %d1, [a];
    ld.param.u64 %d2, [b];
    ld.param.u64 %d3, [c];
    mov.u32 %r3, near;
    mov.u32 %r4, bar;
    setp.ne.u32 %p1, %r1, 0;
    @%p1 bra made;
    mbarrier.init.shared::cta.b64 [%r4], 1;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r4], {8192 + 128 * n};
    cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r3], [%d1, {{0, 0}}], [%r4];
    {"".join(f'''
    add.s32 %r5, %r3, {8192 + 8192 * i};
    cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r5], [%d2, {{{64 * i}, 0}}], [%r4];'''
             for i in range(n // 64 if turned else 1))}
made:
    bar.sync 0;
wait:
    mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r4], 0;
    @!%p2 bra wait;
    shr.u32 %r6, %r3, 4;
    cvt.u64.u32 %d8, %r6;
    or.b64 %d10, %d8, {swizzle | (64 << 32) | (1 << 16)};
    add.s32 %r7, %r3, 8192;
    shr.u32 %r8, %r7, 4;
    cvt.u64.u32 %d9, %r8;
    {make_b}
    shr.u32 %r10, %r1, 5;
    shl.b32 %r10, %r10, 4;
    and.b32 %r11, %r1, 31;
    shr.u32 %r12, %r11, 2;
    add.s32 %r13, %r10, %r12;  // the row
    and.b32 %r14, %r11, 3;
    shl.b32 %r15, %r14, 2;
    mad.lo.u32 %r29, %r13, 128, %r15;
    add.s32 %r29, %r29, %r3;
    {chr(10).join(lines)}
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
    mul.wide.u32 %d5, %r13, {4 * n};
    mul.wide.u32 %d6, %r14, 8;
    add.s64 %d7, %d3, %d5;
    add.s64 %d7, %d7, %d6;
    {chr(10).join(stores)}"""


def multiply(n=64, a_in_registers=False, turned=False, keeps=1, change=lambda body: body):
    random = np.random.default_rng(0)
    a = random.integers(-3, 4, (64, 64)).astype(bf16)
    b = random.integers(-3, 4, (64, n) if turned else (n, 64)).astype(bf16)
    near = f".shared .align 1024 .b8 near[{8192 + 128 * n}]; .shared .align 8 .b8 bar[8];"
    gpu = Emulator(text(change(product(n, a_in_registers, turned, keeps)), ".param .u64 a, .param .u64 b, .param .u64 c", near))
    A, B, C = gpu.put(a, "a"), gpu.put(b, "b"), gpu.room(256 * n, "c")
    left = gpu.tensor_map(A, bf16, (64, 64), (64, 64), swizzle=0 if a_in_registers else 128)
    right = gpu.tensor_map(B, bf16, b.shape[::-1], (64, min(b.shape[0], 256)), swizzle=128)
    gpu.launch("k", 1, 128, 0, [left, right, C])
    wide = a.astype("f8") @ (b if turned else b.T).astype("f8")
    np.testing.assert_array_equal(gpu.read(C, np.float32, (64, n)), wide + keeps)


@pytest.mark.parametrize("n", [8, 64, 128])
def test_products_of_a_warpgroup(n):
    multiply(n)


def test_products_with_the_left_operand_in_registers():
    multiply(64, a_in_registers=True)


@pytest.mark.parametrize("n", [64, 128])
def test_products_with_the_right_operand_turned(n):
    multiply(n, turned=True)


def test_products_that_begin_anew():
    multiply(64, keeps=0)


@pytest.mark.parametrize(
    ("old", "error"),
    [
        ("wgmma.wait_group.sync.aligned 0;", UnwaitedCopyError),
        ("wgmma.commit_group.sync.aligned;", UnwaitedCopyError),
        ("wait:\n    mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r4], 0;\n    @!%p2 bra wait;", EmulatorError),
    ],
)
def test_mistakes_with_products_are_noticed(old, error):
    with pytest.raises(error):
        multiply(change=lambda body: body.replace(old, ""))


# A tile goes out by TMA; the tensor is smaller than the box.
OUT = """
    mov.u32 %r1, %tid.x;
    ld.param.u64 %d1, [y];
    mov.u32 %r3, near;
    mad.lo.u32 %r4, %r1, 16, %r3;
    st.shared.v4.u32 [%r4], {%r1, %r1, %r1, %r1};
    fence.proxy.async.shared::cta;
    bar.sync 0;
    setp.ne.u32 %p1, %r1, 0;
    @%p1 bra end;
    cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%d1, {0, 3}], [%r3];
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group.read 0;
    st.shared.u32 [%r4], 7;
end:"""


def test_a_box_that_leaves_shared_memory():
    def leave(body):
        gpu = Emulator(text(body, ".param .u64 y", NEAR))
        Y = gpu.put(np.zeros((16, 8), np.int32), "y")
        gpu.launch("k", 1, 32, 0, [gpu.tensor_map(Y, np.int32, (8, 16), (8, 16))])
        return gpu.read(Y, np.int32, (16, 8))

    want = np.zeros((16, 8), np.int32)
    want[3:] = np.repeat(np.arange(32), 4).reshape(16, 8)[:13]
    np.testing.assert_array_equal(leave(OUT), want)
    with pytest.raises(UnwaitedCopyError, match="may still be reading"):
        leave(OUT.replace("cp.async.bulk.wait_group.read 0;", ""))
    with pytest.raises(RaceError):
        leave(OUT.replace("bar.sync 0;", ""))


def test_a_tensor_map_keeps_the_rules():
    gpu = Emulator()
    x = gpu.put(np.zeros((8, 100), np.float32))
    with pytest.raises(EmulatorError, match="fits the swizzle"):
        gpu.tensor_map(x, np.float32, (100, 8), (64, 8), swizzle=128)
    with pytest.raises(EmulatorError, match="multiples of 16"):
        gpu.tensor_map(x, np.float32, (25, 8), (8, 8))
