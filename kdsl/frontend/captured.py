"""What a kernel's body reads from outside: globals and closure cells, its own and its helpers'.

In:  a callable.  Out: Captured, which tells cheaply whether any of these names means another object by now.
Such values are constants of the traced program, so a specialisation holds only as long as they are the same objects. Modules,
classes and kdsl's own functions are not watched, and neither is what lies inside an object (an element of a list, an attribute).
Read next: kernel.py.
"""

from __future__ import annotations

import builtins
import functools
from collections.abc import Callable
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from kdsl.ir.location import is_users

_MISSING = object()


class Captured:
    """The watched names: pairs of a dict (or cell) and a name, with the object that each meant."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.names: list[tuple[dict[str, Any], str, Any]] = []
        self.cells: list[tuple[Any, Any]] = []
        self._seen: set[int] = set()
        self._callable(function)

    def __bool__(self) -> bool:
        return bool(self.names or self.cells)

    def unchanged(self) -> bool:
        """Whether all names still mean the same objects."""
        for scope, name, value in self.names:
            if scope.get(name, _MISSING) is not value:
                return False
        for cell, value in self.cells:
            if _contents(cell) is not value:
                return False
        return True

    def _callable(self, function: Any) -> None:
        while isinstance(function, functools.partial):
            for x in (*function.args, *function.keywords.values()):
                self._value(x)
            function = function.func
        if isinstance(function, MethodType):
            function = function.__func__
        inner = getattr(function, "function", None)  # a kernel
        if inner is not None and not isinstance(function, FunctionType):
            self._callable(inner)
        if (
            not isinstance(function, FunctionType)
            or id(function) in self._seen
            or not is_users(function.__code__.co_filename)
        ):
            return
        self._seen.add(id(function))
        self._code(function.__code__, function.__globals__)
        for cell in function.__closure__ or ():
            value = _contents(cell)
            self.cells.append((cell, value))
            self._value(value)

    def _code(self, code: CodeType, scope: dict[str, Any]) -> None:
        for name in code.co_names:
            value = scope.get(name, _MISSING)
            if (
                value is _MISSING
                or isinstance(value, (ModuleType, type))
                or getattr(builtins, name, None) is value
            ):
                continue
            if isinstance(value, FunctionType) and not is_users(value.__code__.co_filename):
                continue
            if not any(s is scope and n == name for s, n, _ in self.names):
                self.names.append((scope, name, value))
                self._value(value)
        for constant in code.co_consts:  # functions within the function
            if isinstance(constant, CodeType):
                self._code(constant, scope)

    def _value(self, value: Any) -> None:
        if callable(value) and not isinstance(value, type):
            self._callable(value)


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return _MISSING
