"""Tensor maps: what the bulk copy engine of a GPU must be told of an array before it can bring boxes of it.

In:  where an array lies and how, in numbers.  Out: the 16 words that a launch passes by value (cuTensorMapEncodeTiled).
Maps are remembered: a training step asks for those of the step before.
Read before: runtime/cuda_driver.py. Read next: runtime/cuda_launch.py.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from kdsl.dtypes import BY_NAME
from kdsl.runtime.cuda_driver import call, driver

WORDS = 16  # of a map
TYPES = {"f16": "FLOAT16", "bf16": "BFLOAT16"}
REMEMBERED = 4096

Shape = Callable[[Mapping[str, int]], tuple[int, ...]]


@dataclass(frozen=True)
class Boxes:
    """An array's axes, slowest first, the last with neighbours in memory; strides in elements; the box that is brought."""

    dtype: str
    shape: Shape
    strides: Shape
    box: tuple[int, ...]

    def words(self, address: int, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The map of the array at this address, with these named sizes."""
        return encoded(self.dtype, address, self.shape(sizes), self.strides(sizes), self.box)


@lru_cache(REMEMBERED)
def encoded(
    dtype: str, address: int, shape: tuple[int, ...], strides: tuple[int, ...], box: tuple[int, ...]
) -> tuple[int, ...]:
    """A map in words. Rows of a box have 128 bytes, whose pieces of 16 are exchanged by the row's number."""
    d = driver()
    item = BY_NAME[dtype].bytes

    def words(values: Any) -> list[Any]:
        return [d.cuuint64_t(n) for n in reversed(values)]

    def halves(values: Any) -> list[Any]:
        return [d.cuuint32_t(n) for n in reversed(values)]

    tensor_map = call(
        d.cuTensorMapEncodeTiled,
        getattr(d.CUtensorMapDataType, f"CU_TENSOR_MAP_DATA_TYPE_{TYPES[dtype]}"),
        len(shape),
        address,
        words(shape),
        words([item * s for s in strides[:-1]]),
        halves(box),
        halves([1] * len(box)),
        d.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
        d.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B,
        d.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
        d.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
    )
    return tuple((ctypes.c_uint64 * WORDS).from_address(tensor_map.getPtr()))
