"""The memory of the loop IR's interpreter: flat arrays that know what was written, by whom, and who read it.

In:  a Buffer or Near with its sizes known.  Out: a Store whose reads and writes are checked element by element:
outside the memory, never written, written by two iterations of a Parallel, read by one and written by another.
Read before: ir/loops.py. Read next: ir/interpreter.py.
"""

from __future__ import annotations

import numpy as np

from kdsl.dtypes import DType

NOBODY, SEVERAL = -1, -2


class LoopError(AssertionError):
    """A loop IR program that does what its invariants forbid."""


class Storage:
    """Elements at flat positions (in elements from the first); position 0 is at `base`, for strides may be negative."""

    def __init__(
        self, name: str, dtype: DType, shape: tuple[int, ...], strides: tuple[int, ...], written: bool
    ) -> None:
        self.name, self.dtype = name, dtype
        reach = [(n - 1) * s for n, s in zip(shape, strides, strict=True)] if 0 not in shape else []
        self.base = -sum(r for r in reach if r < 0)
        count = self.base + sum(r for r in reach if r > 0) + 1 if 0 not in shape else 0
        self.data = np.zeros(count, dtype.numpy)
        self.data.view(np.uint8)[:] = 0xA5 if dtype.kind != "bool" else 0
        self.written = np.full(count, written)
        self.writer: np.ndarray | None = None  # who wrote in the running kernel; kept only where it writes
        self.reader: np.ndarray | None = None  # who read there

    def array(self, shape: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
        """The elements as an array over this memory."""
        if 0 in shape:
            return np.zeros(shape, self.dtype.numpy)
        bytes_ = self.dtype.bytes
        return np.lib.stride_tricks.as_strided(self.data[self.base :], shape, [s * bytes_ for s in strides])

    def watch(self, on: bool) -> None:
        """Start a kernel: forget who read and wrote."""
        self.writer = np.full(self.data.size, NOBODY) if on else None
        self.reader = np.full(self.data.size, NOBODY) if on else None

    def read(self, at: np.ndarray, iteration: int) -> np.ndarray:
        """The elements at flat positions, each of which must have been written."""
        at = at + self.base
        if not self.written[at].all():
            raise LoopError(
                f"{self.name} is read where nothing was written: flat position {_first(at, ~self.written[at])}"
            )
        if self.writer is not None and self.reader is not None:
            writer = self.writer[at]
            other = (writer != NOBODY) & (writer != iteration)
            if other.any():
                raise LoopError(
                    f"{self.name}: one iteration reads what another writes, at flat position {_first(at, other)}"
                )
            reader = self.reader[at]
            self.reader[at] = np.where((reader == NOBODY) | (reader == iteration), iteration, SEVERAL)
        return self.data[at]

    def write(self, at: np.ndarray, values: np.ndarray, iteration: int) -> None:
        """Put values at flat positions, no position twice."""
        at = at.ravel() + self.base
        if at.size > 1 and np.unique(at).size != at.size:
            raise LoopError(f"{self.name}: one tile writes an element twice")
        if self.writer is not None and self.reader is not None:
            for who, what in (
                (self.writer, "two iterations write one element"),
                (self.reader, "one iteration writes what another read"),
            ):
                other = (who[at] != NOBODY) & (who[at] != iteration)
                if other.any():
                    raise LoopError(f"{self.name}: {what}, at flat position {_first(at, other)}")
            self.writer[at] = iteration
        self.data[at] = values.ravel()
        self.written[at] = True


def _first(at: np.ndarray, wrong: np.ndarray) -> int:
    return int(np.broadcast_to(at, wrong.shape)[wrong].ravel()[0])
