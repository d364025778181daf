"""Where a call of the language goes: into the program that is being traced, or, on arrays, to a kernel of its own.

In:  a function of the language and its arguments.  Out: its tracer, or the arrays that a one-equation kernel returns.
The front end opens a trace with `with tracing(builder) as trace:`; kernel.py puts its own function into `eager`.
Read before: ir/rules.py. Read next: tracer.py, operands.py.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from kdsl.errors import ArgumentError, KdslError, for_the_user
from kdsl.ir.location import find_location
from kdsl.ir.rules import Builder
from kdsl.ir.sizes import Extent, at_least
from kdsl.ir.tensor import Value

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Check:
    """What must hold of the named sizes at each call, and the mistake if it does not: left == right or left >= right."""

    left: Extent
    relation: str  # "==" | ">="
    right: Extent
    mistake: KdslError


@dataclass(eq=False)
class Trace:
    """A program in the making: its builder, what must be checked at the call, and whether the language itself is running.

    A kernel that is traced within another (to be differentiated there) may use the outer kernel's tensors: each becomes a
    further parameter, `captured[outer value] = (outer tracer, parameter)`.
    """

    builder: Builder
    checks: list[Check] = field(default_factory=list)
    inside: bool = False
    outer: Trace | None = None
    captured: dict[Value, tuple[Any, Value]] = field(default_factory=dict)

    def adopt(self, tracer: Any) -> Value | None:
        """The parameter that stands for an outer kernel's tensor; None for one that belongs to no kernel in the making."""
        outer = self.outer
        while outer is not None and outer.builder is not tracer.builder:
            outer = outer.outer
        if outer is None:
            return None
        value = tracer.value
        return self.captured.setdefault(value, (tracer, Value(value.type, value.name)))[1]


class _State(threading.local):
    trace: Trace | None = None


_state = _State()
FUNCTIONS: dict[str, Callable[..., Any]] = {}  # every public function by name: operators and NumPy's names are looked up here


def _no_kernels(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    raise ArgumentError(f"kd.{function.__name__} was called outside a kernel before kdsl.kernel was imported")


eager: Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any] = _no_kernels


def set_eager(run: Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]) -> None:
    """From now on `run(function, args, kwargs)` answers calls outside a kernel."""
    global eager
    eager = run


@contextmanager
def tracing(builder: Builder) -> Iterator[Trace]:
    """Emit into `builder` while the block runs; nested traces return to the outer one."""
    outer = _state.trace
    _state.trace = Trace(builder, outer=outer)
    try:
        yield _state.trace
    finally:
        _state.trace = outer


def current() -> Trace | None:
    """The trace of this thread, or None outside a kernel."""
    return _state.trace


def outside(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call outside a kernel."""
    if any(hasattr(a, "builder") for a in args):
        raise ArgumentError("this tensor belongs to a kernel that has ended", hint="return it from the kernel")
    return eager(function, args, kwargs)


def public(function: F) -> F:
    """Make a definition part of the language: one place in the user's source for each call, and arrays outside a kernel."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        trace = _state.trace
        if trace is None:
            try:
                return outside(call, args, kwargs)
            except Exception as error:
                for_the_user(error)
                raise
        if trace.inside:
            return function(*args, **kwargs)
        trace.inside = True
        trace.builder.location = find_location()
        try:
            return function(*args, **kwargs)
        except TypeError:
            _check_arguments(function, args, kwargs)
            raise
        finally:
            trace.inside = False

    home = function.__module__.rpartition(".")[2]
    FUNCTIONS[f"random.{function.__name__}" if home == "random" else function.__name__] = call
    return call  # type: ignore[return-value]


def _check_arguments(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Tell, in the user's words, that a call does not fit a definition."""
    signature = inspect.signature(function)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as mistake:
        shown = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
        written = signature.replace(parameters=shown, return_annotation=signature.empty)
        raise ArgumentError(f"kd.{function.__name__}: {mistake}", facts=(f"it takes {written}",)) from None


def require(left: Extent, relation: str, right: Extent, mistake: KdslError) -> None:
    """Raise `mistake` unless left relation right ("==" or ">="); where that hangs on named sizes, check it at the call."""
    if at_least(left, right) and (relation == ">=" or left == right):
        return
    if at_least(right, left + 1) or (relation == "==" and at_least(left, right + 1)):
        raise mistake
    trace = _state.trace
    assert trace is not None, "named sizes exist only while tracing"
    trace.checks.append(Check(left, relation, right, mistake))
