"""A size as the user holds it: an integer, or a NamedSize that answers only what is true for all values.

In:  extents of the tensor IR (ir/sizes.py).  Out: what `x.shape` shows, and back again.
The compiler compares sizes by their normal form ("N" == 4 is False); a user's `if x.shape[0] == 4` must not be answered
so, because N may well be 4 at a call. Hence a class of its own. Read before: ir/sizes.py. Read next: tracer.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from kdsl.errors import ArgumentError, ControlFlowError
from kdsl.ir.sizes import Extent, Size, at_least
from kdsl.language.dispatch import FUNCTIONS


def shown(x: Extent) -> Any:
    """An extent as the user sees it."""
    return NamedSize(x) if isinstance(x, Size) else x


def is_size(x: object) -> bool:
    """Whether x can stand for a number of elements: an integer or a named size."""
    return isinstance(x, (int, np.integer, NamedSize, Size)) and not isinstance(x, (bool, np.bool_))


def extent(x: Any, what: str = "a size") -> Extent:
    """The extent that a user's integer or size means."""
    if isinstance(x, NamedSize):
        return x.extent
    if isinstance(x, Size):
        return x
    if not is_size(x):
        if hasattr(x, "builder"):
            raise ControlFlowError(
                f"{what} must be known before the kernel runs, but it is a tensor",
                hint="sizes come from shapes, Python integers and names in annotations",
            )
        raise ArgumentError(f"{what} must be an integer or a named size, not {x!r}")
    return int(x)


def extents(shape: Any, what: str = "a shape") -> tuple[Extent, ...]:
    """The extents that a shape (one size or a sequence of them) means."""
    return (extent(shape, what),) if is_size(shape) or not isinstance(shape, (tuple, list)) else tuple(
        extent(n, what) for n in shape
    )


def _whole(operation: Callable[[Extent, Extent], Extent], name: str, reflected: bool) -> Any:
    """An operation that stays a size with integers and sizes, and is the tensor function `name` with anything else."""

    def method(self: NamedSize, other: Any) -> Any:
        if is_size(other):
            a, b = (extent(other), self.extent) if reflected else (self.extent, extent(other))
            return shown(operation(a, b))
        return FUNCTIONS[name](other, self) if reflected else FUNCTIONS[name](self, other)

    return method


def _tensor(name: str, reflected: bool) -> Any:
    def method(self: NamedSize, other: Any) -> Any:
        return FUNCTIONS[name](other, self) if reflected else FUNCTIONS[name](self, other)

    return method


class NamedSize:
    """A size known by name only. Integer arithmetic stays a size; `/` and tensors make it a 0-d i64 tensor."""

    __slots__ = ("extent",)
    __array_priority__ = 100

    def __init__(self, extent: Size) -> None:
        self.extent = extent

    __add__ = _whole(lambda a, b: a + b, "add", False)
    __radd__ = _whole(lambda a, b: a + b, "add", True)
    __sub__ = _whole(lambda a, b: a - b, "subtract", False)
    __rsub__ = _whole(lambda a, b: a - b, "subtract", True)
    __mul__ = _whole(lambda a, b: a * b, "multiply", False)
    __rmul__ = _whole(lambda a, b: a * b, "multiply", True)
    __floordiv__ = _whole(lambda a, b: a // b, "floor_divide", False)
    __rfloordiv__ = _whole(lambda a, b: a // b, "floor_divide", True)
    __mod__ = _whole(lambda a, b: a % b, "remainder", False)
    __rmod__ = _whole(lambda a, b: a % b, "remainder", True)
    __truediv__ = _tensor("divide", False)
    __rtruediv__ = _tensor("divide", True)
    __pow__ = _tensor("pow", False)
    __rpow__ = _tensor("pow", True)

    def __neg__(self) -> Any:
        return shown(-self.extent)

    def __pos__(self) -> NamedSize:
        return self

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        from kdsl.language.numpy_names import call_ufunc

        return call_ufunc(ufunc, method, inputs, kwargs)

    def __repr__(self) -> str:
        return repr(self.extent)

    def __hash__(self) -> int:
        return hash(self.extent)

    # --- comparisons: decided where they hold for all values, names being at least 0 ---------------------------------
    def __eq__(self, other: object) -> Any:
        if not is_size(other):
            return FUNCTIONS["equal"](self, other) if hasattr(other, "builder") else NotImplemented
        a, b = self.extent, extent(other)
        if a == b:
            return True
        if at_least(a, b + 1) or at_least(b, a + 1):
            return False
        return self._undecided("==", other)

    def __ne__(self, other: object) -> Any:
        if not is_size(other):
            return FUNCTIONS["not_equal"](self, other) if hasattr(other, "builder") else NotImplemented
        return not self == other

    def __ge__(self, other: Any) -> Any:
        return self._compare(">=", "greater_equal", other, lambda a, b: at_least(a, b), lambda a, b: at_least(b, a + 1))

    def __lt__(self, other: Any) -> Any:
        return self._compare("<", "less", other, lambda a, b: at_least(b, a + 1), lambda a, b: at_least(a, b))

    def __gt__(self, other: Any) -> Any:
        return self._compare(">", "greater", other, lambda a, b: at_least(a, b + 1), lambda a, b: at_least(b, a))

    def __le__(self, other: Any) -> Any:
        return self._compare("<=", "less_equal", other, lambda a, b: at_least(b, a), lambda a, b: at_least(a, b + 1))

    def __bool__(self) -> bool:
        return bool(self != 0)

    def _compare(
        self, sign: str, name: str, other: Any, yes: Callable[[Extent, Extent], bool], no: Callable[[Extent, Extent], bool]
    ) -> Any:
        if not is_size(other):
            return FUNCTIONS[name](self, other)
        a, b = self.extent, extent(other)
        if yes(a, b):
            return True
        return False if no(a, b) else self._undecided(sign, other)

    def _undecided(self, sign: str, other: Any) -> NoReturn:
        raise ControlFlowError(
            f"whether {self} {sign} {other} depends on the call",
            label=f"{self} is a named size",
            facts=("a kernel is traced once for all values of its named sizes",),
            hint="fix the size in the annotation (a number instead of the name) to decide it while tracing",
        )

    def __index__(self) -> int:
        raise ControlFlowError(
            f"the size {self} is not known while tracing",
            label=f"{self} is a named size",
            facts=("Python's range, list indexing and the like need a number",),
            hint="fix the size in the annotation (a number instead of the name)",
        )

    __int__ = __index__

    def __float__(self) -> float:
        raise ControlFlowError(
            f"the size {self} is not known while tracing",
            label=f"{self} is a named size",
            hint="use kd's functions on it, kd.sqrt(n) for math.sqrt(n): they make it a 0-d tensor",
        )
