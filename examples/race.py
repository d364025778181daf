"""A race between the threads of a GPU, found on a laptop: 64 numbers are turned round through shared memory.

Each thread puts its number into shared memory and takes another's. Without a barrier between the two, a thread may read before
the other has written. On a GPU this often goes well; the emulator always says so.

    python examples/race.py
"""

from __future__ import annotations

import numpy as np

from kdsl.emulator import Emulator
from kdsl.errors import EmulatorError

BROKEN = """
    mov.u32      %r1, %tid.x;             // t: the number of this thread
    mul.wide.u32 %d1, %r1, 4;
    ld.param.u64 %d2, [x];
    add.s64      %d3, %d2, %d1;
    ld.global.u32 %r2, [%d3];             // x[t]
    mov.u32      %r3, near;
    mad.lo.u32   %r4, %r1, 4, %r3;
    st.shared.u32 [%r4], %r2;             // near[t] = x[t]
    sub.u32      %r5, 63, %r1;
    mad.lo.u32   %r6, %r5, 4, %r3;
    ld.shared.u32 %r7, [%r6];             // near[63 - t]
    ld.param.u64 %d4, [y];
    add.s64      %d5, %d4, %d1;
    st.global.u32 [%d5], %r7;             // y[t] = near[63 - t]
    ret;
"""
LOAD = "    sub.u32      %r5, 63"
FIXED = BROKEN.replace(LOAD, "    bar.sync     0;                       // wait for all threads of the block\n" + LOAD)
KERNEL = """
.version 9.0
.target sm_80
.address_size 64
.visible .entry turn(.param .u64 x, .param .u64 y) {{
    .reg .b32 %r<10>;
    .reg .b64 %d<10>;
    .shared .align 4 .b8 near[8192];
{body}
}}
"""


def turned(body: str, gpu: Emulator) -> np.ndarray:
    """0 to 63 turned round by a kernel with this body."""
    numbers = np.arange(64, dtype=np.uint32)
    gpu.load(KERNEL.format(body=body))
    x, y = gpu.put(numbers, "x"), gpu.room(numbers.nbytes, "y")
    gpu.launch("turn", grid=1, threads=64, arguments=[x, y])
    result: np.ndarray = gpu.read(y, numbers.dtype, numbers.shape)
    return result


def mistake(body: str) -> str:
    """What the emulator says about a kernel with this body."""
    try:
        turned(body, Emulator())
    except EmulatorError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing is wrong"


def counted(stride: int) -> str:
    """What the kernel that is right does, its numbers `stride` words apart in shared memory."""
    gpu = Emulator(count=True)
    turned(FIXED.replace("%r1, 4, %r3", f"%r1, {4 * stride}, %r3").replace("%r5, 4, %r3", f"%r5, {4 * stride}, %r3"), gpu)
    return str(gpu.counters)


def main() -> None:
    print(mistake(BROKEN))
    np.testing.assert_array_equal(turned(FIXED, Emulator()), np.arange(64)[::-1])
    print(mistake(FIXED))
    for stride in (1, 32):
        print(f"\nstride {stride}\n{counted(stride)}")


if __name__ == "__main__":
    main()
