"""A compiled program that can be called with arrays.

In:  a Library with `@program`, `@arena` and `@shapes` (docs/decisions/stages.md), what its arguments and results are, and the
values of its named sizes.  Out: new arrays, or those of `out=` filled.
Ordinary arrays take the short way through native code (runtime/fast.py). What stands here takes everything: any strides,
unaligned and byte-swapped data, NumPy scalars, `out=` that overlaps an argument.
Read before: runtime/cpu.py, runtime/buffers.py, runtime/fast.py. Read next: pipeline.py.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdsl.dtypes import DType
from kdsl.errors import OutOfRangeError, ResultError
from kdsl.runtime.buffers import empty
from kdsl.runtime.cpu import Library
from kdsl.runtime.fast import FastCall, Tensor
from kdsl.runtime.native import native
from kdsl.runtime.out import check_out

MOST_RECORDS = 16

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class ArgumentSpec:
    """A tensor argument. Each extent is an integer or the name of a size; `strides` (in elements; integers or names of sizes
    such as "x.stride0") is None for C-contiguous data, the common case."""

    dtype: DType
    shape: tuple[int | str, ...]
    strides: tuple[int | str, ...] | None = None


@dataclass(frozen=True)
class ResultSpec:
    """A result; `@shapes` says how long its axes are."""

    dtype: DType
    ndim: int


@dataclass(frozen=True)
class IndexCheck:
    """The numbers of two hidden 0-d results, the least and the greatest index used along an axis, and how long that axis is
    (an integer, or how to get it from the named sizes). Kernels must not read or write outside whatever the index is."""

    least: int
    largest: int
    extent: int | Callable[[Mapping[str, int]], int]
    location: Any = None

    def length(self, sizes: Mapping[str, int]) -> int:
        return self.extent if isinstance(self.extent, int) else self.extent(sizes)


class Executable:
    """`executable(arrays)` -> list of results; `sizes` gives the named sizes where the arguments' shapes do not."""

    is_native = True  # its program is machine code of this process, which the short way may call

    def __init__(
        self,
        library: Any,
        arguments: Sequence[ArgumentSpec],
        results: Sequence[ResultSpec],
        sizes: Sequence[str] = (),
        constants: Sequence[Array] = (),
        checks: Sequence[IndexCheck] = (),
        order: Sequence[tuple[str, int]] | None = None,
        in_place: Sequence[tuple[int, int]] = (),
    ) -> None:
        """`in_place`: (argument, result) where the result may be written over the argument.
        `order`: ("argument" | "result" | "constant", number) for each pointer of `@program`, by default in that order.
        Results beyond those the caller sees are the ones that `checks` names."""
        self.library, self.arguments, self.results = library, tuple(arguments), tuple(results)
        self.sizes, self.checks = tuple(sizes), tuple(checks)
        self.constants = tuple(np.array(c, order="C", copy=True) for c in constants)
        every = [("argument", i) for i in range(len(arguments))] + [("result", i) for i in range(len(results))]
        self.order = tuple(order) if order is not None else (*every, *(("constant", i) for i in range(len(constants))))
        hidden = {n for c in checks for n in (c.least, c.largest)}
        # a call that finds an index outside is repeated to say which: then the arguments must still be what they were
        self.in_place = () if checks else tuple(in_place)
        self.visible = tuple(i for i in range(len(results)) if i not in hidden)
        self._every = [Tensor(i) for i in range(len(self.arguments))]
        self._sized_checks = any(callable(c.extent) for c in self.checks)
        self._fast: FastCall | None = None
        if self.is_native:
            self._connect(library)

    def _connect(self, library: Library) -> None:
        self._arena = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(library.address("arena"))
        self._shapes = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(library.address("shapes"))
        pointers = (ctypes.c_void_p,) * 4
        self._program = ctypes.CFUNCTYPE(None, *pointers)(library.address("program"))

    def __call__(
        self, arrays: Sequence[Any], out: Sequence[Any] | None = None, sizes: Mapping[str, int] | None = None
    ) -> list[Array]:
        """Run. `arrays` have the specs' dtypes and shapes (the caller has checked); everything else about them is free."""
        if out is not None and len(out) != len(self.visible):
            raise ResultError(f"out= has {len(out)} arrays, the kernel has {len(self.visible)} results", location=False)
        short = self._short(arrays, out, sizes)
        if short is not None:
            return short
        inputs = [self._readable(x, spec) for x, spec in zip(arrays, self.arguments, strict=True)]
        values = self.size_values(inputs, sizes or {})
        words = (ctypes.c_int64 * max(1, len(self.sizes)))(*(values[name] for name in self.sizes))
        shapes = self.result_shapes(words)
        results = self._results(shapes, inputs, out)
        self._run(inputs, results, words)
        self._check(results, values)
        if out is not None:
            for target, i in zip(out, self.visible, strict=True):
                if results[i] is not target:
                    target[...] = results[i]
            return list(out)
        return [results[i] for i in self.visible]

    def _short(
        self, arrays: Sequence[Any], out: Sequence[Any] | None, sizes: Mapping[str, int] | None
    ) -> list[Array] | None:
        """The results by the short way, or None where it does not take these arguments."""
        if self._fast is None:
            self._fast = FastCall()
            self._fast.add(self, self._every)
        results = self._fast.call(*arrays) if out is None else self._fast.into(list(out), *arrays)
        if results is not NotImplemented:
            return list(results)
        if sizes and self._sized_checks and len(self._fast) < MOST_RECORDS:
            self._fast.add(self, self._every, sizes=sizes)  # for the next call with these sizes
        return None

    def result_shapes(self, words: Any) -> list[tuple[int, ...]]:
        """The shape of every result for these sizes."""
        extents = (ctypes.c_int64 * max(1, sum(r.ndim for r in self.results)))()
        self._shapes(ctypes.addressof(words), ctypes.addressof(extents))
        shapes, at = [], 0
        for result in self.results:
            shapes.append(tuple(extents[at : at + result.ndim]))
            at += result.ndim
        return shapes

    def arena_bytes(self, words: Any) -> int:
        """Bytes of temporaries for these sizes."""
        return self._arena(ctypes.addressof(words))

    # --- before ---------------------------------------------------------------------------------------------------------------
    def _readable(self, x: Any, spec: ArgumentSpec) -> Array:
        """The array itself where a kernel can read it as it is, else a copy: native byte order, aligned, the baked strides."""
        array = np.asarray(x)
        if array.dtype != spec.dtype.numpy or not array.flags.aligned:
            array = array.astype(spec.dtype.numpy, order="C")
        if spec.strides is None:
            return array if array.flags.c_contiguous else np.ascontiguousarray(array).reshape(array.shape)
        item = spec.dtype.bytes
        if any(stride % item for stride in array.strides):
            array = array.copy("C")
        fixed = [(s, n) for s, n in zip(spec.strides, range(array.ndim)) if isinstance(s, int)]
        if any(array.strides[n] != s * item and array.shape[n] != 1 for s, n in fixed):
            return _with_strides(array, spec)
        return array

    def size_values(self, inputs: Sequence[Array], given: Mapping[str, int]) -> dict[str, int]:
        """The named sizes, and named strides, of one call."""
        values = dict(given)
        for array, spec in zip(inputs, self.arguments):
            values.update((name, n) for name, n in zip(spec.shape, array.shape) if isinstance(name, str))
            steps = zip(spec.strides or (), array.strides)
            values.update((name, s // spec.dtype.bytes) for name, s in steps if isinstance(name, str))
        return values

    def _results(self, shapes: Sequence[tuple[int, ...]], inputs: Sequence[Array], out: Sequence[Any] | None) -> list[Array]:
        """Where results go: new arrays, or those of `out=` unless they overlap something that is still to be read."""
        results: list[Array | None] = [None] * len(shapes)
        if out is not None:
            for position, (target, i) in enumerate(zip(out, self.visible)):
                check_out(target, shapes[i], self.results[i].dtype.numpy, position)
                others = [*inputs, *(x for k, x in enumerate(out) if k != position)]
                usable = target.flags.c_contiguous and target.flags.aligned and target.dtype.isnative
                if usable and not any(np.may_share_memory(target, x) for x in others):
                    results[i] = target
        return [empty(n, spec.dtype.numpy) if r is None else r for r, n, spec in zip(results, shapes, self.results)]

    # --- the call ---------------------------------------------------------------------------------------------------------------
    def _run(self, inputs: Sequence[Array], results: Sequence[Array], words: Any) -> None:
        arrays = {"argument": inputs, "result": results, "constant": self.constants}
        pointers = (ctypes.c_void_p * max(1, len(self.order)))(*(arrays[role][i].ctypes.data for role, i in self.order))
        need = self.arena_bytes(words)
        place = native().allocate(need) if need else None
        if need and place is None:
            raise MemoryError(f"no {need} bytes for temporaries")
        try:
            self._program(ctypes.addressof(pointers), ctypes.addressof(words), place, native().launch)
        finally:
            if place is not None:
                native().release(place)

    def _check(self, results: Sequence[Array], sizes: Mapping[str, int]) -> None:
        for check in self.checks:
            least, largest, n = int(results[check.least]), int(results[check.largest]), check.length(sizes)
            for index in (least, largest):
                if least <= largest and not -n <= index < n:  # least > largest: no index at all
                    message = f"index {index} is out of range for an axis of size {n}"
                    raise OutOfRangeError(message, location=check.location or False)


def _with_strides(array: Array, spec: ArgumentSpec) -> Array:
    """A copy that has the strides which the program expects (only their signs and order can be asked for: see ArgumentSpec)."""
    assert spec.strides is not None
    item = spec.dtype.bytes
    lowest = highest = 0
    steps = [s if isinstance(s, int) else array.strides[i] // item for i, s in enumerate(spec.strides)]
    for n, step in zip(array.shape, steps):
        if n == 0:
            return np.empty(array.shape, array.dtype)
        lowest, highest = lowest + min(0, (n - 1) * step), highest + max(0, (n - 1) * step)
    memory = empty((highest - lowest + 1,), spec.dtype.numpy)
    view = np.lib.stride_tricks.as_strided(memory[-lowest:], array.shape, [s * item for s in steps], writeable=True)
    view[...] = array
    return view
