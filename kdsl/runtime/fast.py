"""The short way from Python into a program: one native function that checks the arguments, makes the results and calls.

In:  for each kind of call that has been seen, a record: what the arguments must be (NumPy arrays of a dtype, shape and strides,
Python floats, static values; tuples, lists and dicts of them), and the Executable for it. Out: `FastCall.call(*arguments,
**keywords)`, which runs the first record that fits and returns the results, or NotImplemented where none fits: runtime/call.py
takes everything.
`FastCall.into(out, *arguments, **keywords)` does the same for `out=`: an array, or a tuple or list of arrays, which it returns.
Read before: runtime/fast_record.py, runtime/fast_native.py. Read next: runtime/call.py.
"""

from __future__ import annotations

import ctypes
import math
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsl.runtime.fast_native import bound, never
from kdsl.runtime.fast_record import (
    ARRAY,
    BITS,
    DICT,
    DOUBLE,
    EQUAL,
    FLOAT,
    LIST,
    NAMED_STRIDE,
    ROOM,
    SAME,
    SIZE,
    TUPLE,
)

if TYPE_CHECKING:
    from kdsl.runtime.call import ArgumentSpec, Executable

SMALL_BYTES = 16 * 1024  # a call that touches less keeps the GIL: giving it up costs more than running
_COMPARED = (int, str, bytes)  # static values of these types may be other objects of the same value


@dataclass(frozen=True)
class Tensor:
    """An array that is argument `number` of the program."""

    number: int


@dataclass(frozen=True)
class Number:
    """A Python float that is argument `number` of the program (f32 or f64, 0-d)."""

    number: int


@dataclass(frozen=True)
class Same:
    """A static value: an int, float, string or bytes of the same value, anything else this very object."""

    value: Any


@dataclass(frozen=True)
class SizeOf:
    """A Python int that is the value of the named size `name`, which no array of the call may tell."""

    name: str


@dataclass(frozen=True)
class Nested:
    """A tuple, list or dict of these, of the type `kind`; `keys` of a dict."""

    kind: type
    children: tuple[Argument, ...]
    keys: tuple[Any, ...] = ()


Argument = Tensor | Number | Same | SizeOf | Nested


class FastCall:
    """The records of one kernel. `call` and `into` are builtin functions that return the results, or NotImplemented."""

    call: Callable[..., Any]
    into: Callable[..., Any]

    def __init__(self) -> None:
        self._head = np.zeros(1, np.int64)  # the address of the newest record; the native functions are bound to this array
        self._kept: list[Any] = []
        self.call, self.into = bound("fast_call", self._head), bound("fast_into", self._head)

    def add(
        self,
        executable: Executable,
        arguments: Sequence[Argument],
        finish: Callable[[tuple[Any, ...]], Any] | None = None,
        single: bool = False,
        sizes: Mapping[str, int] | None = None,
        keywords: Sequence[str] = (),
        held: Sequence[int] = (),
        told: Sequence[str] = (),
        fixed: Mapping[int, np.ndarray[Any, Any]] = {},
    ) -> bool:
        """From now on, calls whose arguments look like this take the short way. False where the short way cannot take them.

        The last arguments have the names `keywords`. `single`: return the only result itself; else a tuple, through `finish`
        where one is given: the results, then the program's arguments numbered `held`, then the values of the sizes `told`.
        `fixed`: arguments of the program that are the same at each call. `sizes`: the record holds for
        these values of the named sizes only (where something about them was checked)."""
        record = self.call is not never and executable.is_native and _record(
            executable, arguments, finish, single, sizes, tuple(keywords), held, told, fixed
        )
        if not record:
            return False
        words, kept = record
        words[0] = self._head[0]
        self._kept.append((words, kept))
        self._head[0] = words.ctypes.data
        return True

    def __len__(self) -> int:
        return len(self._kept)


def _record(
    executable: Executable,
    arguments: Sequence[Argument],
    finish: Callable[[tuple[Any, ...]], Any] | None,
    single: bool,
    sizes: Mapping[str, int] | None,
    keywords: tuple[str, ...],
    held: Sequence[int],
    told: Sequence[str],
    fixed: Mapping[int, np.ndarray[Any, Any]],
) -> tuple[np.ndarray[Any, Any], list[Any]] | None:
    """The words of a record (runtime/fast_record.py says which is what) and what must live as long; None: not possible."""
    objects = _flat(arguments)
    numbers = {x.number: i for i, x in enumerate(objects) if isinstance(x, (Tensor, Number))}
    dims = sum(r.ndim for r in executable.results)
    counts = (len(objects), len(executable.order), len(executable.sizes), len(executable.results), dims)
    if sorted([*numbers, *fixed]) != list(range(len(executable.arguments))) or max(counts) > ROOM:
        return None
    if not numbers.keys() >= set(held) or not all(_fits_always(x, executable.arguments[i]) for i, x in fixed.items()):
        return None
    named = {n for s in executable.arguments for n in (*s.shape, *(s.strides or ())) if isinstance(n, str)}
    named |= {x.name for x in objects if isinstance(x, SizeOf)}
    names = [*executable.sizes, *sorted(named.difference(executable.sizes))]  # the program reads the first ones
    if not named.issuperset(names) or not named.issuperset(told) or len(names) > ROOM:
        return None
    if sizes is not None and not sizes.keys() >= named:
        return None
    if any(callable(c.extent) for c in executable.checks) and sizes is None:
        return None
    slot = {pointer: i for i, pointer in enumerate(executable.order)}
    kept: list[Any] = [executable, finish, fixed]

    def table(numbers: Sequence[int]) -> int:
        words = np.array([*numbers, 0], np.int64)
        kept.append(words)
        return words.ctypes.data

    def address_of(x: Any) -> int:
        kept.append(x)
        return id(x)

    specs: list[int] = []
    after = len(arguments)
    for x in objects:
        if isinstance(x, Nested):
            kind = TUPLE if issubclass(x.kind, tuple) else LIST if issubclass(x.kind, list) else DICT
            specs += [kind, address_of(x.kind), 0, len(x.children), table([address_of(k) for k in x.keys]), after, 0, 0]
            after += len(x.children)
        elif isinstance(x, Same):
            specs += _static(x.value, address_of)
        elif isinstance(x, SizeOf):
            specs += [SIZE, 0, names.index(x.name), 0, 0, 0, 0, 0]
        else:
            spec = executable.arguments[x.number]
            place = slot["argument", x.number]
            if isinstance(x, Number):
                if spec.dtype.name not in ("f32", "f64") or spec.shape:
                    return None
                specs += [FLOAT if spec.dtype.name == "f32" else DOUBLE, 0, place, 0, 0, 0, 0, 0]
                continue
            axes = table(_axes(spec, names))
            flags = 0x100 | (spec.strides is None)  # aligned, C-contiguous
            dtype = address_of(spec.dtype.numpy)
            specs += [ARRAY, dtype, place, len(spec.shape), axes, flags, spec.dtype.bytes, spec.strides is not None]
    results: list[int] = []
    for i, result in enumerate(executable.results):
        dtype = address_of(result.dtype.numpy)
        results += [dtype, slot["result", i], result.ndim, result.dtype.bytes, i in executable.visible]
    checks: list[int] = []
    for check in executable.checks:
        width = executable.results[check.least].dtype.bytes
        if width not in (4, 8) or executable.results[check.least].dtype.kind != "signed":
            return None
        checks += [slot["result", check.least], slot["result", check.largest], check.length(sizes or {}), width]
    constants = [x for i, c in enumerate(executable.constants) for x in (slot["constant", i], c.ctypes.data, c.nbytes)]
    constants += [x for i, c in fixed.items() for x in (slot["argument", i], c.ctypes.data, c.nbytes)]
    over = [x for a, r in executable.in_place for x in (r, slot["argument", a])]
    exact = table([sizes[name] for name in names]) if sizes is not None else 0
    address = executable.library.address
    words = np.array(
        [
            0, len(arguments) - len(keywords), table(specs), len(names), len(executable.results), table(results),
            len(constants) // 3, table(constants), address("program"), address("arena"), address("shapes"), exact,
            _is_large(executable), 0 if single else id(finish) if finish else 1, len(executable.checks), table(checks),
            len(keywords), table([address_of(sys.intern(k)) for k in keywords]), len(objects),
            len(held), table([numbers[n] for n in held]), len(told), table([names.index(n) for n in told]),
            len(over) // 2, table(over),
        ],
        np.int64,
    )  # fmt: skip
    return words, kept


def _fits_always(x: np.ndarray[Any, Any], spec: ArgumentSpec) -> bool:
    return x.dtype == spec.dtype.numpy and x.shape == spec.shape and spec.strides is None and x.flags.carray


def _flat(arguments: Sequence[Argument]) -> list[Argument]:
    """The arguments, then the elements of the containers among all of these, in the order of the containers."""
    objects = list(arguments)
    for x in objects:  # grows as it is walked
        if isinstance(x, Nested):
            objects += x.children
    return objects


def _static(value: Any, address_of: Callable[[Any], int]) -> list[int]:
    """The words that describe a static value."""
    if type(value) is float:
        return [BITS, struct.unpack("q", struct.pack("d", value))[0], 0, 0, 0, 0, 0, 0]
    if type(value) in _COMPARED:
        return [EQUAL, address_of(value), 0, 0, id(type(value)), 0, 0, 0]
    return [SAME, address_of(value), 0, 0, 0, 0, 0, 0]


def _axes(spec: ArgumentSpec, sizes: Sequence[str]) -> list[int]:
    """For each axis its extent (or -1 - the number of a size) and its stride in bytes (or NAMED_STRIDE + that number)."""
    out: list[int] = []
    for i, n in enumerate(spec.shape):
        step = spec.strides[i] if spec.strides is not None else 0
        out.append(-1 - sizes.index(n) if isinstance(n, str) else n)
        out.append(NAMED_STRIDE + sizes.index(step) if isinstance(step, str) else step * spec.dtype.bytes)
    return out


def _is_large(executable: Executable) -> bool:
    """Whether other Python threads should run meanwhile: with named sizes always, else by the bytes that are touched."""
    shapes = [spec.shape for spec in executable.arguments]
    if executable.sizes or any(isinstance(n, str) for shape in shapes for n in shape):
        return True
    nothing = (ctypes.c_int64 * 1)()
    shapes += executable.result_shapes(nothing)
    kinds = [spec.dtype for spec in executable.arguments] + [spec.dtype for spec in executable.results]
    touched = sum(math.prod(map(int, shape)) * dtype.bytes for shape, dtype in zip(shapes, kinds))
    return touched + executable.arena_bytes(nothing) >= SMALL_BYTES
