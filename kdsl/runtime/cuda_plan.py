"""All launches of one program for certain sizes on one device, as a table that native code walks in one call.

In:  the program's memory and launches, the values of its named sizes, a device.  Out: Plan; `plan.table()` lends a table, in
whose `words` the caller writes addresses (`plan.at[name]` is where), `plan.run(table, stream)` allocates and launches.
A call has a table to itself, so that several threads may call one program. A parameter of a kernel is one of the words, or the
16 of a tensor map (cuda_maps.py).
Temporaries, and numbers that the host gives, are one block of memory (cuda_arena.py), freed behind the last launch.
Read before: runtime/cuda_native.py, runtime/cuda_maps.py. Read next: runtime/cuda_call.py.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdsl.dtypes import DType
from kdsl.runtime.cuda_arena import arrange
from kdsl.runtime.cuda_driver import mistake
from kdsl.runtime.cuda_launch import GpuFunction
from kdsl.runtime.cuda_maps import WORDS, Boxes
from kdsl.runtime.cuda_memory import Block, collect, pool
from kdsl.runtime.cuda_native import NO_MEMORY, WHERE

Sizes = Mapping[str, int]
NUMBER_BYTES = 8
HEAD = 10  # words of a table before the tables in it


@dataclass(frozen=True)
class Parameter:
    """A word of a launch: the address of the memory `name`, a multiple of `alignment`, or the size `name`."""

    name: str
    kind: str  # "address" | "size"
    alignment: int = 8


@dataclass(frozen=True)
class Launch:
    """One kernel in its turn."""

    function: GpuFunction
    blocks: Callable[[Sizes], int]
    parameters: tuple[Parameter, ...]
    maps: tuple[tuple[str, Boxes], ...] = ()  # tensor maps, which follow the words, and the memory of each


@dataclass(frozen=True)
class Place:
    """Memory of the program."""

    name: str
    role: str  # "argument" | "result" | "temporary" | "constant"
    number: int
    dtype: DType
    shape: Callable[[Sizes], tuple[int, ...]]


class Table:
    """The words of one call: those of cuda_native.py, then the program's own."""

    __slots__ = ("address", "words")

    def __init__(self, values: Sequence[int], inner: Sequence[tuple[int, int]]) -> None:
        """`inner`: (i, j) where word i is the address of word j."""
        self.words = (ctypes.c_uint64 * len(values))(*values)
        self.address = ctypes.addressof(self.words)
        for i, j in inner:
            self.words[i] = self.address + 8 * j


class Plan:
    """A program for certain sizes on a device. `numbers`: the arguments that are numbers of the host, written by native code."""

    def __init__(
        self, launches: Sequence[Launch], places: Sequence[Place], values: Sizes, device: int, numbers: Sequence[int] = ()
    ) -> None:
        self.device, self.pool = device, pool(device)
        self.names = tuple(launch.function.name for launch in launches)
        self.shapes = {p.name: p.shape(values) for p in places}
        sizes = {p.name: math.prod(self.shapes[p.name]) * p.dtype.bytes for p in places}
        results = sorted((p for p in places if p.role == "result"), key=lambda p: p.number)
        given = {p.number: p for p in places if p.role == "argument" and p.number in numbers}
        scratch = [*(p for p in places if p.role == "temporary" and sizes[p.name]), *(given[n] for n in numbers)]
        touched: dict[str, list[int]] = {}
        for i, launch in enumerate(launches):
            for name in (*(p.name for p in launch.parameters), *(name for name, _ in launch.maps)):
                touched.setdefault(name, []).append(i)
        spans = []
        for place in scratch:
            used = touched.get(place.name, [0])
            is_number = place.role == "argument"
            spans.append((NUMBER_BYTES if is_number else sizes[place.name], -1 if is_number else used[0], used[-1]))
        offsets, self.scratch_bytes = arrange(spans)

        starts = [HEAD]  # of the tables: rooms, places, numbers, launches, parameters, the program's words
        counts = (2 * len(results), 2 * len(scratch), 3 * len(numbers), 5 * len(launches))
        for count in (*counts, sum(len(launch.parameters) + len(launch.maps) + 1 for launch in launches)):
            starts.append(starts[-1] + count)
        rooms, spots, bits, kernels, parameters, own = starts
        self.at = {name: own + i for i, name in enumerate([*self.shapes, *values])}
        self.bits = {number: bits + 3 * i + 1 for i, number in enumerate(numbers)}
        maps = own + len(self.at)
        words = [0] * (maps + WORDS * sum(len(launch.maps) for launch in launches))
        self.maps: list[tuple[int, str, Boxes]] = []  # the first word of each, the memory it is of
        inner: list[tuple[int, int]] = [(2, rooms), (5, spots), (7, bits), (9, kernels)]
        words[:HEAD] = [
            self.pool.entries, len(results), 0, self.scratch_bytes, len(scratch), 0, len(numbers), 0, len(launches), 0,
        ]  # fmt: skip
        for i, place in enumerate(results):
            inner.append((rooms + 2 * i, self.at[place.name]))
            words[rooms + 2 * i + 1] = sizes[place.name]
        for i, (place, offset) in enumerate(zip(scratch, offsets)):
            inner.append((spots + 2 * i, self.at[place.name]))
            words[spots + 2 * i + 1] = offset
        for i, number in enumerate(numbers):
            inner.append((bits + 3 * i, self.at[given[number].name]))
            words[bits + 3 * i + 2] = -(-given[number].dtype.bytes // 4)
        for i, launch in enumerate(launches):
            f, blocks = launch.function, launch.blocks(values)
            handle = int(f.on(device)) if blocks else 0
            words[kernels + 5 * i : kernels + 5 * i + 4] = [handle, blocks, f.threads, f.near_bytes]
            inner.append((kernels + 5 * i + 4, parameters))
            inner += [(parameters + j, self.at[p.name]) for j, p in enumerate(launch.parameters)]
            parameters += len(launch.parameters)
            for name, boxes in launch.maps if blocks else ():
                inner.append((parameters, maps))
                self.maps.append((maps, name, boxes))
                maps, parameters = maps + WORDS, parameters + 1
            parameters += 1  # a null at the end
        for name, value in values.items():
            words[self.at[name]] = value & (2**64 - 1)
        inside = {p.name for p in (*results, *scratch)}
        self.ahead = any(name in inside for _, name, _ in self.maps)  # a map needs the address of what native code would allocate
        if self.ahead:
            words[3:5] = 0, 0
            self._scratch = [(self.at[place.name], offset) for place, offset in zip(scratch, offsets)]
        self.values = dict(values)
        self._words, self._inner = words, inner
        self._free: list[Table] = []  # tables that no call is filling

    def table(self) -> Table:
        """A table for one call. `run` takes it back."""
        try:
            return self._free.pop()
        except IndexError:
            return Table(self._words, self._inner)

    def try_run(self, table: Table, stream: int, own: bool) -> int:
        """Put the program on a stream; with `own` its results are allocated too (not if `ahead`), their addresses in the words.

        0, or what failed; then nothing is left allocated. The table is free again with `done`."""
        if not self.maps:
            return self.pool.run(table.address, stream, own)
        assert not (own and self.ahead)
        block = Block(self.scratch_bytes, self.device, stream) if self.ahead else None
        if block is not None:
            for word, offset in self._scratch:
                table.words[word] = block.address + offset
        for first, name, boxes in self.maps:
            table.words[first : first + WORDS] = [*boxes.words(table.words[self.at[name]], self.values)]
        return self.pool.run(table.address, stream, own)

    def done(self, table: Table) -> None:
        """The caller has read what it wants of the table, the driver what it needs."""
        self._free.append(table)

    def run(self, table: Table, stream: int) -> None:
        """`try_run` where results have memory; what fails is an error."""
        what = self.try_run(table, stream, False)
        if what // WHERE & 3 == NO_MEMORY:
            collect(self.device, stream)
            what = self.try_run(table, stream, False)
        self.done(table)
        if what:
            where = f"the launch of {self.names[what // WHERE >> 2]}" if what // WHERE & 3 == 3 else "memory for temporaries"
            raise mistake(what % WHERE, where)


def bits_of(number: Any, dtype: DType) -> int:
    """The bytes of a number as an integer."""
    return int.from_bytes(np.asarray(number, dtype.numpy).tobytes(), "little")
