"""Each kind of mistake in GPU code, in a kernel of a few lines, is an error of its own; what is right is none."""

import re

import numpy as np
import pytest

from kdsl.emulator import Emulator
from kdsl.errors import (
    BarrierError,
    DivergenceError,
    EmulatorError,
    MisalignedError,
    OutOfBoundsError,
    RaceError,
    UnwrittenError,
)
from tests.emulator.kernels import compiled, needs_numba, program, text

START = """
    mov.u32 %r1, %tid.x;
    mov.u32 %r2, %ctaid.x;
    ld.param.u64 %d1, [x];
    mul.wide.u32 %d2, %r1, 4;
    add.s64 %d3, %d1, %d2;
    shl.b32 %r3, %r1, 2;
    mov.u32 %r4, near;
    add.s32 %r5, %r4, %r3;
"""
NEAR = ".shared .align 16 .b8 near[512];"


def launch(body, threads=64, blocks=1, n=64, **options):
    gpu = Emulator(text(START + body, ".param .u64 x", NEAR, arch="sm_80"), **options)
    x = gpu.put(np.arange(n, dtype=np.int32), "x")
    gpu.launch("k", blocks, threads, 0, [x])
    return gpu.read(x, np.int32, (n,))


def fails(error, body, match="", **options):
    with pytest.raises(error, match=match):
        launch(body, **options)


def test_out_of_bounds():
    launch("ld.global.u32 %r9, [%d3];")
    fails(OutOfBoundsError, "ld.global.u32 %r9, [%d3+4];", r"thread 63 of block 0 reads .*\n.*0 bytes after the end of x")
    fails(OutOfBoundsError, "st.global.u32 [%d3+-4], %r1;", "4 bytes before the beginning of x")
    fails(OutOfBoundsError, "st.shared.u32 [%r5+300], %r1;", "outside of shared memory")
    fails(OutOfBoundsError, "cvt.u64.u32 %d3, %r1; ld.global.u32 %r9, [%d3];", "far from every buffer")


def test_misaligned():
    fails(MisalignedError, "ld.global.v2.u32 {%r8, %r9}, [%d3];", r"\(and 31 more\) reads 8 bytes")
    fails(MisalignedError, "st.shared.u32 [%r5+2], %r1;", "no multiple of 4")


def test_unwritten():
    fails(UnwrittenError, "ld.shared.u32 %r9, [%r5];", "shared memory that nobody has written")
    fails(UnwrittenError, "st.shared.u8 [%r5], %r1; ld.shared.u32 %r9, [%r5];")


def test_races_in_shared_memory():
    write, read = "st.shared.u32 [%r5], %r1;", "xor.b32 %r6, %r5, 4; ld.shared.u32 %r9, [%r6];"
    launch(f"{write} bar.sync 0; {read}")
    launch(f"{write} bar.warp.sync 0xffffffff; {read}")  # neighbours are in one warp
    fails(RaceError, write + read, "thread 0 of block 0 .*another|thread 1 ")
    far = read.replace("%r5, 4", "%r5, 128")
    fails(RaceError, f"{write} bar.warp.sync 0xffffffff; {far}", "no barrier lies between")
    fails(RaceError, f"{write} bar.sync 0; {read} {write}", "that thread .* read")
    fails(RaceError, "st.shared.u32 [%r4], %r1;", "in the same instruction")
    launch(f"{write} bar.sync 0; {far} bar.sync 0; {write}")
    launch("st.shared.u32 [%r4], 0;", threads=1)


def test_atomic_operations_do_not_race_with_each_other():
    setup = "setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.u32 [%r4], 0; bar.sync 0;"
    launch(f"{setup} atom.shared.add.u32 %r9, [%r4], 1; bar.sync 0; ld.shared.u32 %r9, [%r4];")
    fails(RaceError, f"{setup} atom.shared.add.u32 %r9, [%r4], 1; ld.shared.u32 %r9, [%r4];")
    fails(RaceError, setup.replace("bar.sync 0;", "") + "atom.shared.add.u32 %r9, [%r4], 1;")
    got = launch("red.global.add.u32 [%d1], 1;", blocks=3)
    assert got[0] == 3 * 64


def test_races_in_global_memory():
    fails(RaceError, "st.global.u32 [%d3], %r2;", "of block 1 .*nothing orders the two", blocks=2)
    fails(RaceError, "xor.b32 %r6, %r1, 1; mad.wide.u32 %d4, %r6, 4, %d1; ld.global.u32 %r9, [%d4]; st.global.u32 [%d3], %r9;")
    launch("ld.global.u32 %r9, [%d3]; st.global.u32 [%d3], %r9;")
    fails(RaceError, "ld.global.nc.u32 %r9, [%d3]; st.global.u32 [%d3], %r9;", "read as constant")
    swap = "xor.b32 %r6, %r1, 1; mad.wide.u32 %d4, %r6, 4, %d1; ld.global.u32 %r9, [%d4]; bar.sync 0; st.global.u32 [%d3], %r9;"
    np.testing.assert_array_equal(launch(swap), np.arange(64) ^ 1)
    assert launch("st.global.u32 [%d3], %r2;", blocks=2, check=False).shape == (64,)


def test_barriers_that_a_part_reaches():
    fails(BarrierError, "setp.lt.u32 %p1, %r1, 32; @%p1 bar.sync 0;", r"\(and 31 more\) waits at a barrier")
    fails(BarrierError, "setp.lt.u32 %p1, %r1, 16; @%p1 bar.sync 0;")
    fails(BarrierError, "setp.lt.u32 %p1, %r1, 32; @%p1 bra end; bar.sync 0;\nend:", "32 have ended")
    launch("setp.lt.u32 %p1, %r1, 32; @%p1 bar.sync 1, 32;")
    launch("setp.lt.u32 %p1, %r1, 32; @%p1 bra one; bar.sync 0; bra end;\none: bar.sync 0;\nend:")


def test_named_barriers_order_only_those_who_meet():
    """Warp 0 writes, arrives and goes on; warp 1 waits for it and may read, warp 2 may not."""
    body = """
    shr.u32 %r10, %r1, 5;
    setp.eq.u32 %p1, %r10, 0;
    setp.eq.u32 %p2, %r10, WHO;
    @%p1 st.shared.u32 [%r5], %r1;
    @%p1 bar.arrive 1, 64;
    setp.eq.u32 %p3, %r10, 1;
    @%p3 bar.sync 1, 64;
    and.b32 %r11, %r3, 127;
    add.s32 %r12, %r4, %r11;
    @%p2 ld.shared.u32 %r9, [%r12];"""
    launch(body.replace("WHO", "1"), threads=96)
    fails(RaceError, body.replace("WHO", "2"), threads=96)


def test_a_divided_warp():
    half = "setp.lt.u32 %p1, %r1, 16; "
    fails(DivergenceError, half + "@%p1 shfl.sync.bfly.b32 %r9, %r1, 1, 0x1f, 0xffffffff;", "whole warp must execute")
    launch(half + "@%p1 shfl.sync.bfly.b32 %r9, %r1, 1, 0x1f, 0x0000ffff;", threads=32)
    fails(DivergenceError, half + "@%p1 shfl.sync.bfly.b32 %r9, %r1, 16, 0x1f, 0x0000ffff;", "does not take part", threads=32)
    fails(DivergenceError, "vote.sync.ballot.b32 %r9, 1, 0xffff;", "not in the member mask")


def test_threads_that_part_meet_again_before_a_shuffle():
    body = """
    and.b32 %r10, %r1, 1;
    setp.eq.u32 %p1, %r10, 0;
    @%p1 bra far;
    mov.u32 %r11, 100;
meet:
    shfl.sync.bfly.b32 %r12, %r11, 1, 0x1f, 0xffffffff;
    st.global.u32 [%d3], %r12;
    bra end;
far:
    mov.u32 %r11, 200;
    bra meet;
end:"""
    np.testing.assert_array_equal(launch(body), np.tile([100, 200], 32))


def test_a_kernel_without_end(monkeypatch):
    from kdsl.emulator import emulator

    monkeypatch.setattr(emulator, "PATIENCE", 1000)
    fails(EmulatorError, "again: bra again;", "still runs after")


def test_counters():
    gpu = Emulator(text(START + "shl.b32 %r6, %r5, 1; ld.global.u32 %r9, [%d3]; st.shared.u32 [%r6], %r9;",
                        ".param .u64 x", NEAR), count=True)  # fmt: skip
    gpu.launch("k", 1, 64, 0, [gpu.put(np.arange(64, dtype=np.int32))])
    assert gpu.counters.bank_conflicts == 2  # every second word: two passes for each warp
    assert (gpu.counters.sectors, gpu.counters.fewest_sectors, gpu.counters.global_accesses) == (8, 8, 2)
    assert gpu.counters.instructions["shared memory"] == gpu.counters.instructions["global memory"] == 2
    assert gpu.counters.active == 1
    assert "bank conflicts" in str(gpu.counters)


@pytest.mark.oracle
@needs_numba
@pytest.mark.filterwarnings("ignore")
def test_the_line_in_the_kernel():
    from numba import cuda
    from numba.cuda import types

    def shift(x):
        i = cuda.grid(1)
        x[i + 1] = 2.0  # one too far

    gpu = Emulator(compiled(shift, types.void(types.Array(types.float32, 1, "C")), lineinfo=True))
    x = gpu.put(np.zeros(32, np.float32), "x")
    with pytest.raises(OutOfBoundsError, match=r"tests/emulator/test_checks\.py:\d+\n.*one too far"):
        gpu.launch("shift", 1, 32, 0, [0, 0, 32, 4, x, 32, 4])


@pytest.mark.oracle
@needs_numba
def test_the_line_in_a_generated_kernel():
    ptx = program("softmax")
    cut = re.search(r"bar\.sync\s+0;", ptx)
    gpu = Emulator(ptx[: cut.start()] + ptx[cut.end() :])
    x = np.zeros((2, 1000), np.float32)
    with pytest.raises(RaceError, match=r"m = fold_max\(a, 1\)"):
        gpu.launch("softmax", 2, 128, 0, [gpu.put(x), gpu.room(x.nbytes), 2])
