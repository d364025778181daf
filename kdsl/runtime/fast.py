"""The short way from Python into a program: one native function that checks the arguments, makes the results and calls.

In:  for each kind of call that has been seen, a record: what the positional arguments must be (NumPy arrays of a dtype, shape
and strides; one particular object; a Python float), and the Executable for it. Out: `FastCall.call(*arguments)`, which runs the
first record that fits and returns the results, or NotImplemented where none fits: runtime/call.py takes everything.
It reads arrays the way every C extension does, through the fields of PyArrayObject; where a probe finds them elsewhere, or
Python is another one than CPython with a GIL, `call` always says NotImplemented.
Read before: runtime/buffers.py. The native text is runtime/fast_text.py. Read next: runtime/call.py.
"""

from __future__ import annotations

import ctypes
import math
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsl.runtime.buffers import handler, numpy_function
from kdsl.runtime.fast_text import ARRAY, DOUBLE, FLAGS, FLOAT, NAMED_STRIDE, OWNER, SAME
from kdsl.runtime.native import native
from kdsl.runtime.out import are_small, copy_into

if TYPE_CHECKING:
    from kdsl.runtime.call import ArgumentSpec, Executable

SMALL_BYTES = 16 * 1024  # a call that touches less keeps the GIL: giving it up costs more than running
_MOST = 250  # arguments, results, sizes of a record; the native side has room for 256


@dataclass(frozen=True)
class Tensor:
    """A positional argument that is argument `number` of the program."""

    number: int


@dataclass(frozen=True)
class Number:
    """A positional argument that is a Python float, and argument `number` of the program (f32 or f64, 0-d)."""

    number: int


@dataclass(frozen=True)
class Same:
    """A positional argument that must be this very object: a static value."""

    value: Any


class FastCall:
    """The records of one kernel. `call` is a builtin function; `call(*arguments)` returns the results or NotImplemented."""

    call: Callable[..., Any]

    def __init__(self) -> None:
        self._head = np.zeros(1, np.int64)  # the address of the newest record; the native function is bound to this array
        self._kept: list[Any] = []
        self.call = _bound(self._head) if _usable() else _never

    def add(
        self,
        executable: Executable,
        arguments: Sequence[Tensor | Number | Same],
        finish: Callable[[tuple[Any, ...]], Any] | None = None,
        single: bool = False,
        sizes: Mapping[str, int] | None = None,
    ) -> bool:
        """From now on, calls whose arguments look like this take the short way. False where the short way cannot take them.

        `single`: return the only result itself; else a tuple, through `finish` where one is given. `sizes`: the record
        holds for these values of the named sizes only (where something about them was checked)."""
        record = self.call is not _never and _record(executable, arguments, finish, single, sizes)
        if not record:
            return False
        words, kept = record
        words[0] = self._head[0]
        self._kept.append((words, kept))
        self._head[0] = words.ctypes.data
        return True

    def into(self, out: Any, arguments: Sequence[Any]) -> Any:
        """`call` with `out=` an array, or a tuple or list of arrays; `out` itself, or NotImplemented."""
        places = (out,) if type(out) is np.ndarray else out
        if type(places) not in (tuple, list) or not are_small(places):
            return NotImplemented
        results = self.call(*arguments)
        flat = (results,) if type(results) is np.ndarray else results
        if type(flat) is not tuple or len(flat) != len(places) or not all(type(x) is np.ndarray for x in (*flat, *places)):
            return NotImplemented
        copy_into(places, flat)
        return out

    def __len__(self) -> int:
        return len(self._kept)

    def clear(self) -> None:
        """Forget all records."""
        self._head[0] = 0
        self._kept.clear()


def _record(
    executable: Executable,
    arguments: Sequence[Tensor | Number | Same],
    finish: Callable[[tuple[Any, ...]], Any] | None,
    single: bool,
    sizes: Mapping[str, int] | None,
) -> tuple[np.ndarray[Any, Any], list[Any]] | None:
    """The words of a record (runtime/fast_text.py says which is what) and what must live as long; None: not possible."""
    tensors = [a.number for a in arguments if not isinstance(a, Same)]
    counts = (len(arguments), len(executable.order), len(executable.sizes), len(executable.results))
    dims = sum(len(s.shape) for s in executable.arguments) + sum(r.ndim for r in executable.results)
    if sorted(tensors) != list(range(len(executable.arguments))) or max(*counts, dims) > _MOST:
        return None
    named = {n for s in executable.arguments for n in (*s.shape, *(s.strides or ())) if isinstance(n, str)}
    if not named.issuperset(executable.sizes):
        return None
    if any(callable(c.extent) for c in executable.checks) and sizes is None:
        return None
    slot = {pointer: i for i, pointer in enumerate(executable.order)}
    kept: list[Any] = [executable, finish]

    def table(numbers: Sequence[int]) -> int:
        words = np.array([*numbers, 0], np.int64)
        kept.append(words)
        return words.ctypes.data

    specs: list[int] = []
    for argument in arguments:
        if isinstance(argument, Same):
            kept.append(argument.value)
            specs += [SAME, id(argument.value), 0, 0, 0, 0, 0, 0]
            continue
        spec = executable.arguments[argument.number]
        place = slot["argument", argument.number]
        if isinstance(argument, Number):
            if spec.dtype.name not in ("f32", "f64") or spec.shape:
                return None
            specs += [FLOAT if spec.dtype.name == "f32" else DOUBLE, 0, place, 0, 0, 0, 0, 0]
            continue
        kept.append(spec.dtype.numpy)
        axes = table(_axes(spec, executable.sizes))
        flags = 0x100 | (spec.strides is None)  # aligned, C-contiguous
        specs += [ARRAY, id(spec.dtype.numpy), place, len(spec.shape), axes, flags, spec.dtype.bytes, spec.strides is not None]
    results: list[int] = []
    for i, result in enumerate(executable.results):
        kept.append(result.dtype.numpy)
        results += [id(result.dtype.numpy), slot["result", i], result.ndim, result.dtype.bytes, i in executable.visible]
    checks: list[int] = []
    for check in executable.checks:
        width = executable.results[check.least].dtype.bytes
        if width not in (4, 8) or executable.results[check.least].dtype.kind != "signed":
            return None
        checks += [slot["result", check.least], slot["result", check.largest], check.length(sizes or {}), width]
    constants = [x for i, c in enumerate(executable.constants) for x in (slot["constant", i], c.ctypes.data)]
    exact = table([sizes[name] for name in executable.sizes]) if sizes is not None else 0
    address = executable.library.address
    words = np.array(
        [
            0, len(arguments), table(specs), len(executable.sizes), len(executable.results), table(results),
            len(executable.constants), table(constants), address("program"), address("arena"), address("shapes"), exact,
            _is_large(executable), 0 if single else id(finish) if finish else 1, len(executable.checks), table(checks),
        ],
        np.int64,
    )  # fmt: skip
    return words, kept


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


# --- the native function ------------------------------------------------------------------------------------------------------
class _Method(ctypes.Structure):
    """PyMethodDef."""

    _fields_ = [("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int), ("doc", ctypes.c_char_p)]


def _never(*arguments: Any) -> Any:
    return NotImplemented


def _bound(head: np.ndarray[Any, Any]) -> Callable[..., Any]:
    new = ctypes.pythonapi.PyCFunction_NewEx
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p]
    return new(ctypes.addressof(_method()), head, None)


@lru_cache
def _method() -> _Method:
    METH_FASTCALL = 0x80
    method = _Method(b"fast_call", native().address("fast_call"), METH_FASTCALL, None)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(method))
    return method


@lru_cache
def _usable() -> bool:
    """Whether objects are laid out as the native text believes, tried on live ones; if so, set it up."""
    if platform.python_implementation() != "CPython" or not getattr(sys, "_is_gil_enabled", lambda: True)():
        return False
    if ctypes.sizeof(ctypes.c_void_p) != 8 or "t" in getattr(sys, "abiflags", "") or np.ndarray.__basicsize__ < OWNER + 8:
        return False

    def read(x: Any, offset: int, kind: Any = ctypes.c_int64) -> Any:
        return kind.from_address(id(x) + offset).value

    probes = np.zeros((3, 5), np.float32), np.zeros((4, 6), np.int64)[::2, ::-1], np.zeros((), np.float64), np.zeros((2, 0), "i1")
    for x in probes:
        flags = x.flags.c_contiguous | x.flags.f_contiguous << 1 | x.flags.owndata << 2 | x.flags.aligned << 8 | 0x400
        shape = (ctypes.c_int64 * x.ndim).from_address(read(x, 32)) if x.ndim else ()
        strides = (ctypes.c_int64 * x.ndim).from_address(read(x, 40)) if x.ndim else ()
        found = (read(x, 8), read(x, 16), read(x, 24, ctypes.c_int32), tuple(shape), tuple(strides), read(x, 56))
        if found != (id(np.ndarray), x.ctypes.data, x.ndim, x.shape, x.strides, id(x.dtype)):
            return False
        if read(x, FLAGS, ctypes.c_int32) != flags:
            return False
    if read(1.5, 8) != id(float) or read(1.5, 16, ctypes.c_double) != 1.5:
        return False
    addresses = (id(np.ndarray), numpy_function(94), id(float), id(handler()))  # 94: PyArray_NewFromDescr
    given = (ctypes.c_int64 * len(addresses))(*addresses)
    ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(native().address("fast_setup"))(ctypes.addressof(given))
    probe = np.empty(3, np.float32)
    return _owner_name(probe) is not None


def _owner_name(x: np.ndarray[Any, Any]) -> str | None:
    """The name of the allocator that an array's owner field points to."""
    try:
        capsule = ctypes.cast(ctypes.c_void_p.from_address(id(x) + OWNER), ctypes.py_object).value
    except ValueError:
        return None
    return repr(capsule) if type(capsule).__name__ == "PyCapsule" else None
