"""Compiled programs on disk: all that a later process needs to run one without compiling it again.

In:  a key (what is compiled, for which target, by which kdsl) and what a compiled program needs.  Out: the same again, or None.
The machine code itself lies under the key of its text (runtime/cpu.py); what is kept here is how to call it: arguments,
results, sizes, constants, checks. Places in the user's source are numbers of traced equations, so that a program which
moved to other lines still finds its code, and its messages still point at the right ones.
Read before: ir/fingerprint.py, runtime/cache.py. Read next: pipeline.py.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from kdsl.dtypes import BY_NAME
from kdsl.ir.frame import Grouping
from kdsl.ir.in_place import in_place
from kdsl.ir.loops import Program
from kdsl.ir.sizes import Extent, Size, evaluate
from kdsl.ir.tensor import Function, Location
from kdsl.runtime import cache
from kdsl.runtime.call import ArgumentSpec, Executable, IndexCheck, ResultSpec
from kdsl.runtime.cpu import Library, load_kept


@dataclass(frozen=True)
class Kept:
    """How to call the machine code under `code`: plain data. dtypes by name; a check has the number of its place, or None."""

    code: str
    arguments: tuple[tuple[str, tuple[int | str, ...], tuple[int | str, ...] | None], ...]
    results: tuple[tuple[str, int], ...]
    sizes: tuple[str, ...]
    constants: tuple[Any, ...]
    checks: tuple[tuple[int, int, Extent, int | None], ...]
    order: tuple[tuple[str, int], ...]
    in_place: tuple[tuple[int, int], ...]


def describe(grouping: Grouping, loops: Program, library: Any, source: Function) -> Kept:
    """What to keep of a program that was compiled from `source`."""
    number = {v: i for i, v in enumerate(grouping.results)}
    places = _places(source)
    return Kept(
        library.key,
        tuple(
            (p.dtype.name, _words(p.shape), _words(grouping.strides[p]) if p in grouping.strides else None)
            for p in grouping.function.parameters
        ),
        tuple((r.dtype.name, len(r.shape)) for r in grouping.results),
        tuple(loops.sizes),
        tuple(loops.constants),
        tuple(
            (number[c.least], number[c.largest], c.extent, places.index(c.location) if c.location in places else None)
            for c in grouping.checks
        ),
        tuple((b.role, b.number) for b in loops.buffers if b.role != "temporary"),
        in_place(loops),
    )


def executable(kept: Kept, library: Any, source: Function, kind: Callable[..., Any] = Executable) -> Any:
    """The runtime knows no IR: say in its words what the program takes and gives."""
    places = _places(source) if kept.checks else []
    return kind(
        library,
        [ArgumentSpec(BY_NAME[dtype], shape, strides) for dtype, shape, strides in kept.arguments],
        [ResultSpec(BY_NAME[dtype], ndim) for dtype, ndim in kept.results],
        kept.sizes,
        kept.constants,
        [
            IndexCheck(least, largest, _length(extent), None if place is None else places[place])
            for least, largest, extent, place in kept.checks
        ],
        kept.order,
        kept.in_place,
    )


def _words(extents: Sequence[Extent]) -> tuple[int | str, ...]:
    return tuple(n if isinstance(n, int) else str(n) for n in extents)


def _length(extent: Extent) -> Any:
    return (lambda sizes: evaluate(extent, sizes)) if isinstance(extent, Size) else extent


def _places(source: Function) -> list[Location | None]:
    """Where each equation comes from, those of called functions included."""
    out: list[Location | None] = []
    functions = [source]
    for function in functions:  # grows as it is walked
        for e in function.equations:
            out.append(e.location)
            functions += [f for f in e.attributes.values() if isinstance(f, Function) and f not in functions]
    return out


# --- on disk ------------------------------------------------------------------------------------------------------------------
def read(key: str) -> tuple[Kept, Library] | None:
    """The program under this key, its code in memory; None where either is not there, or not sound."""
    kept = read_record(key)
    library = load_kept(kept.code) if isinstance(kept, Kept) else None
    return None if library is None else (kept, library)


def read_record(key: str) -> Any:
    """What `write` stored, or None."""
    compiler = _compiler()
    data = cache.read(cache.key_of(compiler, key)) if compiler else None
    try:
        return None if data is None else pickle.loads(data)
    except Exception:  # damaged, or of another kdsl: it is made again
        return None


def write(key: str, record: Any) -> None:
    """Store plain data under a key."""
    compiler = _compiler()
    if compiler:
        cache.write(cache.key_of(compiler, key), pickle.dumps(record))


@lru_cache
def _compiler() -> str | None:
    """Which kdsl this is; None where that cannot be told: then nothing is kept."""
    return compiler_in(os.path.dirname(__file__), after=cache.IMPORTED - 1.0)


def compiler_in(folder: str, after: float) -> str | None:
    """What the file system says of each source of kdsl, and the versions of what it folds constants with.

    None where a source changed `after` it may have been imported, or where there are none."""
    try:
        files = sorted((path, os.stat(path)) for path in _sources(folder))
    except OSError:
        return None
    if not files or max(max(s.st_mtime, s.st_ctime) for _, s in files) > after:
        return None
    return repr((sys.version, np.__version__, [(path, s.st_mtime_ns, s.st_ctime_ns, s.st_size) for path, s in files]))


def _sources(folder: str) -> Iterator[str]:
    for entry in os.scandir(folder):
        if entry.is_dir():
            yield from _sources(entry.path)
        elif entry.name.endswith(".py"):
            yield entry.path
