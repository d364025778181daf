"""Where in the user's source something is written: the innermost frame outside kdsl and NumPy, and its callers.

In:  the running frames.  Out: Location records (ir/tensor.py), each made once and shared.
Python 3.11 knows the columns of the expression that a frame is evaluating (`co_positions`), so that carets need no parsing.
Every traced equation asks for its place, so a known place costs one walk over the frames and a look-up.
Read next: errors.py, which draws what is found here.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import linecache
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from types import CodeType, FrameType
from typing import Any

import numpy as np

import kdsl.errors
from kdsl.ir.tensor import Location

_FOREIGN = tuple(os.path.dirname(os.path.abspath(f)) + os.sep for f in (kdsl.errors.__file__, np.__file__))
_NN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(kdsl.errors.__file__))), "nn") + os.sep
_is_users: dict[str, bool] = {}  # file name -> whether its frames count as the user's
_boundaries: set[CodeType] = set()  # functions that run a kernel's body: beyond is its caller
_known: dict[
    tuple[int, ...], tuple[Location, tuple[CodeType, ...]]
] = {}  # (id(code), instruction, …) -> place; keeps the codes alive


def kernel_boundary(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark the function that runs a kernel's body on tracers."""
    _boundaries.add(function.__code__)
    return function


def is_users(file: str) -> bool:
    """Whether a file holds the user's code (nn's layers do, kdsl's and NumPy's own do not)."""
    known = _is_users.get(file)
    if known is None:
        known = _is_users[file] = not (
            file.startswith(_FOREIGN) or file.startswith("<frozen") or file.startswith("<kdsl")
        )
    return known


def find_location() -> Location | None:
    """The place that the user's program is at, with the callers inside the kernel if it is in a helper."""
    frame: FrameType | None = sys._getframe(1)
    key: tuple[int, ...] = ()
    codes: tuple[CodeType, ...] = ()
    inside = True  # no boundary passed yet
    while frame is not None:
        code = frame.f_code
        if is_users(code.co_filename):
            key += (id(code), frame.f_lasti)
            codes += (code,)
            if not inside:
                break
        elif code in _boundaries:
            if codes:
                break
            inside = False  # a function of the language on arrays: the place is the call
        frame = frame.f_back
    else:  # not inside a kernel: the innermost place alone
        key, codes = key[:2], codes[:1]
    return _shared(key, codes) if codes else None


def find_location_of_mistake() -> Location | None:
    """find_location, and where the kernel belongs to a library (nn's layers) the way to the user's own line."""
    here = find_location()
    if here is None or not _is_library((here, *here.callers)[-1].file):
        return here
    frame: FrameType | None = sys._getframe(1)
    beyond: list[Location] = []
    skip = 1 + len(here.callers)
    while frame is not None:
        code = frame.f_code
        if is_users(code.co_filename):
            if skip:
                skip -= 1
            elif not _is_library(code.co_filename) or code.co_filename != (beyond or [here])[-1].file:
                beyond.append(place(code, frame.f_lasti))
                if not _is_library(code.co_filename):
                    break
        frame = frame.f_back
    return replace(here, callers=(*here.callers, *beyond))


def location_of_call(function: Callable[..., Any]) -> Location | None:
    """The line of a function's `def` or lambda: what mistakes about its parameters point at."""
    code = code_of(function)
    return None if code is None else Location(code.co_filename, code.co_firstlineno, function=code.co_name)


def return_location(run: Callable[[], Any], function: Callable[..., Any]) -> Location | None:
    """The expression after `return` (or a lambda's body), found by running the body once more under Python's profiler."""
    code = code_of(function)
    last: list[Location] = []

    def watch(frame: Any, event: str, argument: Any) -> None:
        if code is not None and event == "return" and frame.f_code is code:
            last.append(place(frame.f_code, frame.f_lasti))

    outer = sys.getprofile()
    sys.setprofile(watch)
    try:
        run()
    finally:
        sys.setprofile(outer)
    if not last or code is None:
        return location_of_call(function)
    found = last[-1]
    text = linecache.getline(found.file, found.line)
    if code.co_name == "<lambda>":  # its body: all that its instructions cover on the line
        spans = [
            (a, b)
            for line, end, a, b in code.co_positions()
            if line == end == found.line and a is not None and b
        ]
        start, stop = min((a for a, _ in spans), default=None), max((b for _, b in spans), default=None)
        return replace(found, start=start, stop=stop, end_line=found.line) if text.isascii() else found
    if found.start is not None and text[found.start :].startswith("return "):
        return replace(found, start=found.start + 7)
    return found


def user_stacklevel() -> int:
    """The `stacklevel` with which warnings.warn, called by our caller, points at the user's line."""
    frame: FrameType | None = sys._getframe(1)
    level = 1
    while frame is not None and not is_users(frame.f_code.co_filename):
        frame = frame.f_back
        level += 1
    return level


def code_of(function: Any) -> CodeType | None:
    """The code object behind a function, lambda, bound method or partial."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(inspect.unwrap(function), "__code__", None) or getattr(
        type(function).__call__, "__code__", None
    )


def _is_library(file: str) -> bool:
    return file.startswith(_NN) or f"{os.sep}site-packages{os.sep}" in file


def _shared(key: tuple[int, ...], codes: tuple[CodeType, ...]) -> Location:
    found = _known.get(key)
    if found is None:
        if len(_known) > 100_000:
            _known.clear()
        first, *callers = (place(code, instruction) for code, instruction in zip(codes, key[1::2]))
        found = _known[key] = (replace(first, callers=tuple(callers)) if callers else first, codes)
    return found[0]


def place(code: CodeType, instruction: int) -> Location:
    """One instruction of a code object as a place. Python counts columns in UTF-8 bytes, people in characters."""
    line, end_line, start, stop = next(itertools.islice(code.co_positions(), instruction // 2, None))
    if line is None:
        return Location(code.co_filename, code.co_firstlineno, function=code.co_qualname)
    name = code.co_name if code.co_name != "<module>" else ""
    if start is None or stop is None:
        return Location(code.co_filename, line, end_line=end_line, function=name)
    first, last = (
        linecache.getline(code.co_filename, line),
        linecache.getline(code.co_filename, end_line or line),
    )
    return Location(
        code.co_filename, line, _characters(first, start), _characters(last, stop), end_line, name
    )


def _characters(text: str, column: int) -> int:
    return len(text.encode()[:column].decode(errors="ignore")) if text else column


kdsl.errors.locate = find_location_of_mistake
