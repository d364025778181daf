"""A C-contiguous result of a GPU written to memory with other strides, by the driver's own copies.

In:  where the elements are, where they shall be.  Out: copies on the stream: rows of what lies close together, as many in one
copy as one axis has; the other axes are walked by the host, so that permuted arrays of many axes take many copies.
Read before: runtime/cuda_arrays.py. Read next: runtime/cuda_call.py.
"""

from __future__ import annotations

import itertools

from kdsl.runtime.cuda_arrays import DeviceTensor
from kdsl.runtime.cuda_driver import call, driver

WIDEST_PITCH = 2**31 - 1  # bytes from row to row in one copy


def spread(source: DeviceTensor, target: DeviceTensor, stream: int) -> None:
    """Copy `source`, which is C-contiguous, to `target` of the same shape and dtype with strides of any size and sign."""
    if not source.size:
        return
    width = source.itemsize
    axes = [(n, a, b) for n, a, b in zip(source.shape, source.strides, target.strides) if n > 1]  # extent and both strides
    while axes and axes[-1][2] == width:
        width *= axes.pop()[0]
    fitting = [axis for axis in axes if width <= axis[2] <= WIDEST_PITCH and axis[1] <= WIDEST_PITCH]
    rows = max(fitting, default=None)
    if rows is not None:
        axes.remove(rows)
    for index in itertools.product(*(range(n) for n, _, _ in axes)):
        start = source.address + sum(i * a for i, (_, a, _) in zip(index, axes))
        end = target.address + sum(i * b for i, (_, _, b) in zip(index, axes))
        if rows is None:
            call(driver().cuMemcpyDtoDAsync, end, start, width, stream)
        else:
            _copy_rows(end, rows[2], start, rows[1], width, rows[0], stream)


def _copy_rows(to: int, to_pitch: int, of: int, of_pitch: int, width: int, rows: int, stream: int) -> None:
    functions = driver()
    what = functions.CUDA_MEMCPY2D()
    what.srcMemoryType = what.dstMemoryType = functions.CUmemorytype.CU_MEMORYTYPE_DEVICE
    what.srcDevice, what.srcPitch, what.dstDevice, what.dstPitch = of, of_pitch, to, to_pitch
    what.WidthInBytes, what.Height = width, rows
    call(functions.cuMemcpy2DAsync, what, stream)
