"""Every mistake that a user can make, one class each, and how a mistake is told.

A leaf: imports nothing else from kdsl. What comes in: what is wrong in the user's words, a label for the carets, facts that
clash, a way out, and a place (ir/location.py finds it when none is given). What goes out: a text of four parts:

    cannot add f32[64, 768] and f32[64]: last axes are 768 and 64
      --> examples/affine.py:14:9
    14 |     y = x @ w + bias
       |         ^^^^^^^^^^^^ f32[64, 768] + f32[64]
       = axes line up from the right. To add along the rows write bias[:, None]

Each class also derives from the builtin that NumPy raises for the same mistake, where NumPy has one.
"""

from __future__ import annotations

import functools
import linecache
import os
import types
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

_OWN_FILES = os.path.dirname(os.path.abspath(__file__)) + os.sep

def _nowhere() -> Any:
    return None


locate: Callable[[], Any] = _nowhere  # ir/location.py puts its own function here: where is the user right now?


class KdslError(Exception):
    """A mistake, told in the user's words. `location` is a place of ir/location.py, or False for none."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.__module__ = "kdsl"  # where users know it from, and what a traceback prints

    def __init__(
        self,
        message: str,
        *,
        label: str = "",
        facts: tuple[str, ...] | list[str] | str = (),
        hint: str = "",
        location: Any = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.label = label
        self.facts = (facts,) if isinstance(facts, str) else tuple(facts)
        self.hint = hint
        self.location = locate() if location is None else location or None

    def __str__(self) -> str:
        return "\n".join([self.message, *_places(self.location, self.label), *self._remarks()])

    def _remarks(self) -> Iterator[str]:
        margin = " " * (_margin(self.location) + 1)
        for remark in (*self.facts, *([self.hint] if self.hint else ())):
            first, *rest = remark.split("\n")
            yield f"{margin}= {first}"
            yield from (f"{margin}  {line}" for line in rest)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.message, self.label, self.facts, self.hint, self.location)


def _again(
    kind: type[KdslError], message: str, label: str, facts: tuple[str, ...], hint: str, location: Any
) -> KdslError:
    """The same mistake in another process."""
    return kind(message, label=label, facts=facts, hint=hint, location=location or False)


# --- mistakes in a kernel or a call ----------------------------------------------------------------------------------------
class ShapeError(KdslError, ValueError):
    """Shapes that do not fit each other, an annotation, or what a function needs."""


class AxisError(KdslError, ValueError, IndexError):
    """An axis that the tensor does not have, or one named twice."""


class DtypeError(KdslError, TypeError):
    """An element type that the function or the annotation does not take, or two without a common type."""


class OutOfRangeError(KdslError, IndexError):
    """An index outside its axis."""


class ArgumentError(KdslError, TypeError):
    """Too many, too few, unknown or impossible arguments."""


class ControlFlowError(KdslError, TypeError):
    """Python asks for the value of a tensor while the kernel is being traced."""


class ConstantError(KdslError, ValueError):
    """An array caught in a closure that is too large to be a constant of the kernel."""


class ResultError(KdslError, TypeError):
    """A kernel that returns something that is no tensor, or `out=` that does not fit the results."""


class GradientError(KdslError, TypeError):
    """A derivative that does not exist, or a rule that gives gradients that do not fit."""


class DeviceError(KdslError, ValueError):
    """Arguments that lie on different devices, or on one that this machine does not have."""


class TargetError(KdslError, ValueError):
    """A target that does not exist, or that cannot do what is asked of it yet."""


# --- what can go wrong on the way ------------------------------------------------------------------------------------------
class CompileError(KdslError, RuntimeError):
    """The assembler or linker refused a kernel; nothing was cached."""


class VerifyError(KdslError, AssertionError):
    """Two targets disagree about a result."""


class InternalError(KdslError, RuntimeError):
    """A mistake in kdsl, not in the kernel. The stages that it got to are saved."""


# --- what the emulator finds in a kernel's GPU code --------------------------------------------------------------------------
class EmulatorError(KdslError, RuntimeError):
    """GPU code that the emulator cannot run, or a mistake in it: one class below for each kind."""


class OutOfBoundsError(EmulatorError, IndexError):
    """A thread reads or writes outside of every buffer."""


class MisalignedError(EmulatorError):
    """An address that is no multiple of the bytes read or written there."""


class UnwrittenError(EmulatorError):
    """A thread reads memory that nobody has written."""


class RaceError(EmulatorError):
    """Two threads use the same bytes, one of them writing, and no barrier orders them."""


class UnwaitedCopyError(EmulatorError):
    """Memory is used while an asynchronous copy or product may still be under way."""


class BarrierError(EmulatorError):
    """A barrier that not all threads reach that it waits for: a GPU would hang."""


class DivergenceError(EmulatorError):
    """Only some threads of a warp execute an instruction that all of them must execute together."""


class SpecialisationWarning(UserWarning):
    """One kernel has been compiled for very many different arguments."""


# --- drawing ---------------------------------------------------------------------------------------------------------------
def _places(location: Any, label: str) -> Iterator[str]:
    """The line of the mistake with its carets, then the callers' lines."""
    if location is None:
        return
    width = _margin(location)
    places = (location, *location.callers)
    for place in places:
        column = "" if place.start is None else f":{place.start + 1}"
        name = f", in {place.function}" if len(places) > 1 and place.function else ""
        yield f"{' ' * width}--> {short_path(place.file)}:{place.line}{column}{name}"
        text = linecache.getline(place.file, place.line).rstrip()
        if text:
            note = label if place is location else "called here"
            stop = len(text) if place.stop is None or place.end_line not in (None, place.line) else place.stop
            start = len(text) - len(text.lstrip()) if place.start is None else place.start
            yield f"{place.line:>{width}} | {_plain(text)}"
            yield f"{' ' * width} | {' ' * _columns(text[:start])}{'^' * max(1, _columns(text[start:stop]))} {note}".rstrip()


def _margin(location: Any) -> int:
    return (
        2 if location is None else max(2, *(len(str(place.line)) for place in (location, *location.callers)))
    )


def _plain(text: str) -> str:
    return text.expandtabs(4)


def _columns(text: str) -> int:
    return len(_plain(text))


def short_path(file: str) -> str:
    """A path as a user would type it: relative where it lies below the current folder."""
    try:
        relative = os.path.relpath(file)
    except ValueError:  # another drive
        return file
    return relative if not relative.startswith("..") and os.path.exists(file) else file


def for_the_user(error: BaseException) -> None:
    """Give a mistake its place, and take kdsl's own frames out of the traceback.

    Entry points call it and then `raise` without a name, which adds no frame.
    """
    if isinstance(error, KdslError) and error.location is None:
        error.location = locate()
    if os.environ.get("KDSL_TRACEBACK") == "full":
        return
    kept = []
    step = error.__traceback__
    while step is not None:
        if not step.tb_frame.f_code.co_filename.startswith(_OWN_FILES):
            kept.append(step)
        step = step.tb_next
    chain = None
    for step in reversed(kept):
        chain = types.TracebackType(chain, step.tb_frame, step.tb_lasti, step.tb_lineno)
    error.__traceback__ = chain


def entry_point(function: F) -> F:
    """Let no frame of kdsl be seen in tracebacks out of this function."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            for_the_user(error)
            raise

    return call  # type: ignore[return-value]
