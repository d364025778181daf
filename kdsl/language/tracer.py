"""Tracer: what a kernel's body holds in place of an array. Every operation on it appends an equation.

In:  the builder of the trace and a value of the tensor IR.  Out: operators, methods and Python's protocols over the
functions of the language, which it finds by name (dispatch.FUNCTIONS).
Read before: dispatch.py. Read next: operands.py, logic.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np

from kdsl.dtypes import DType
from kdsl.errors import ArgumentError, AxisError, ControlFlowError, ShapeError
from kdsl.ir.rules import Builder
from kdsl.ir.sizes import Size
from kdsl.ir.tensor import Value
from kdsl.language.dispatch import FUNCTIONS
from kdsl.language.sizes import shown


def _unary(name: str) -> Any:
    return lambda self: FUNCTIONS[name](self)


def _binary(name: str) -> Any:
    return lambda self, other: FUNCTIONS[name](self, other)


def _reflected(name: str) -> Any:
    return lambda self, other: FUNCTIONS[name](other, self)


def _equality(name: str) -> Any:
    return lambda self, other: NotImplemented if _incomparable(other) else FUNCTIONS[name](self, other)


def _incomparable(other: object) -> bool:
    """Whether == and != answer as Python does for objects that are nothing to each other."""
    return isinstance(other, (str, bytes, dict, set)) or other is None


def _method(name: str) -> Any:
    def method(self: Tracer, *args: Any, **kwargs: Any) -> Any:
        return FUNCTIONS[name](self, *args, **kwargs)

    method.__name__ = name
    method.__doc__ = f"See kd.{name}."
    return method


class Tracer:
    """A tensor inside a kernel: its dtype and shape are known, its numbers are not."""

    __slots__ = ("builder", "value")
    __hash__ = None  # type: ignore[assignment]
    __array_priority__ = 1000

    def __init__(self, builder: Builder, value: Value) -> None:
        self.builder = builder
        self.value = value

    # --- what is known --------------------------------------------------------------------------------------------------
    @property
    def shape(self) -> tuple[Any, ...]:
        return tuple(shown(n) for n in self.value.shape)

    @property
    def ndim(self) -> int:
        return len(self.value.shape)

    @property
    def size(self) -> Any:
        return shown(self.value.type.count)

    @property
    def dtype(self) -> DType:
        return self.value.dtype

    @property
    def T(self) -> Tracer:
        if self.ndim != 2:
            raise ShapeError(
                f".T turns matrices, and this is {self.value.type}",
                label=str(self.value.type),
                hint="use .mT for a stack of matrices, kd.permute_dims for any other order of the axes",
            )
        return FUNCTIONS["matrix_transpose"](self)

    @property
    def mT(self) -> Tracer:
        return FUNCTIONS["matrix_transpose"](self)

    def __repr__(self) -> str:
        return f"<{self.value.type} in a kernel>"

    # --- operators ------------------------------------------------------------------------------------------------------
    __neg__, __pos__, __abs__, __invert__ = _unary("negative"), _unary("positive"), _unary("abs"), _unary("bitwise_invert")
    __add__, __radd__ = _binary("add"), _reflected("add")
    __sub__, __rsub__ = _binary("subtract"), _reflected("subtract")
    __mul__, __rmul__ = _binary("multiply"), _reflected("multiply")
    __truediv__, __rtruediv__ = _binary("divide"), _reflected("divide")
    __floordiv__, __rfloordiv__ = _binary("floor_divide"), _reflected("floor_divide")
    __mod__, __rmod__ = _binary("remainder"), _reflected("remainder")
    __matmul__, __rmatmul__ = _binary("matmul"), _reflected("matmul")
    __and__, __rand__ = _binary("bitwise_and"), _reflected("bitwise_and")
    __or__, __ror__ = _binary("bitwise_or"), _reflected("bitwise_or")
    __xor__, __rxor__ = _binary("bitwise_xor"), _reflected("bitwise_xor")
    __lshift__, __rlshift__ = _binary("bitwise_left_shift"), _reflected("bitwise_left_shift")
    __rshift__, __rrshift__ = _binary("bitwise_right_shift"), _reflected("bitwise_right_shift")
    __eq__, __ne__ = _equality("equal"), _equality("not_equal")
    __lt__, __le__ = _binary("less"), _binary("less_equal")
    __gt__, __ge__ = _binary("greater"), _binary("greater_equal")

    def __pow__(self, other: Any, modulus: Any = None) -> Any:
        if modulus is not None:
            raise ArgumentError("pow of tensors takes no modulus", hint="write (a ** b) % m")
        return FUNCTIONS["pow"](self, other)

    __rpow__ = _reflected("pow")

    def __divmod__(self, other: Any) -> tuple[Any, Any]:
        return FUNCTIONS["floor_divide"](self, other), FUNCTIONS["remainder"](self, other)

    def __round__(self, digits: int | None = None) -> Tracer:
        if digits:
            raise ArgumentError("a tensor is rounded to integers only", hint="write kd.round(x * 10**n) / 10**n")
        return FUNCTIONS["round"](self)

    # --- methods that NumPy's arrays have -----------------------------------------------------------------------------------
    astype, squeeze, clip = map(_method, ("astype", "squeeze", "clip"))
    sum, prod, max, min, mean, var, std = map(_method, ("sum", "prod", "max", "min", "mean", "var", "std"))
    any, all, argmax, argmin = map(_method, ("any", "all", "argmax", "argmin"))

    def reshape(self, *shape: Any) -> Tracer:
        return FUNCTIONS["reshape"](self, shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: Any) -> Tracer:
        given = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
        return FUNCTIONS["permute_dims"](self, given or tuple(range(self.ndim))[::-1])

    def take(self, indices: Any, axis: int | None = None) -> Tracer:
        return FUNCTIONS["take"](self, indices, axis=axis)

    def repeat(self, repeats: Any, axis: int | None = None) -> Tracer:
        return FUNCTIONS["repeat"](self, repeats, axis=axis)

    def swapaxes(self, first: int, second: int) -> Tracer:
        if not all_within((first, second), self.ndim):
            raise AxisError(f"{self.value.type} has no axes {first} and {second}", label=str(self.value.type))
        axes = list(range(self.ndim))
        axes[first], axes[second] = axes[second], axes[first]
        return FUNCTIONS["permute_dims"](self, tuple(axes))

    def flatten(self) -> Tracer:
        return FUNCTIONS["reshape"](self, (-1,))

    ravel = flatten

    def copy(self) -> Tracer:
        return self

    # --- indexing and iteration ---------------------------------------------------------------------------------------------
    def __getitem__(self, key: Any) -> Tracer:
        return FUNCTIONS["getitem"](self, key)

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        raise ArgumentError(
            "a tensor in a kernel cannot be written to",
            hint="make a new one: kd.where(mask, new, x), kd.concat([...]) or kd.scatter_add(x, index, updates)",
        )

    def __len__(self) -> int:
        if not self.ndim:
            raise ArgumentError("a 0-d tensor has no length", label=str(self.value.type))
        n = self.value.shape[0]
        if isinstance(n, Size):
            raise ControlFlowError(
                f"the length {n} is not known while tracing", label=str(self.value.type), hint="write x.shape[0]: it stays a size"
            )
        return n

    def __iter__(self) -> Iterator[Tracer]:
        if not self.ndim:
            raise ArgumentError("a 0-d tensor cannot be iterated over", label=str(self.value.type))
        n = self.value.shape[0]
        if isinstance(n, Size):
            raise ControlFlowError(
                f"cannot iterate over a first axis of named size {n}",
                label=str(self.value.type),
                facts=("a Python loop is unrolled while tracing",),
                hint="fix the size in the annotation, or write the loop as an operation over the axis",
            )
        return iter(FUNCTIONS["unstack"](self))

    def __contains__(self, item: Any) -> NoReturn:
        self._asked_for_value("`in`", "write kd.any(x == item) and use it in kd.where")

    # --- Python asks for the numbers ------------------------------------------------------------------------------------------
    def __bool__(self) -> NoReturn:
        self._asked_for_value(
            "`if`, `while`, `and`, `or`, `not`, min() or max()",
            "choose with kd.where(condition, a, b), combine masks with & | ~, or pass what decides as a static argument",
        )

    def __int__(self) -> NoReturn:
        self._asked_for_value("int()", "x.astype(kd.i64) stays a tensor")

    def __index__(self) -> NoReturn:
        self._asked_for_value(
            "range, a list index or a size", "index tensors with kd.take, or pass the number as a static argument"
        )

    def __float__(self) -> NoReturn:
        self._asked_for_value("float() or the math module", "use kd's functions, kd.sqrt(x) for math.sqrt(x)")

    def __complex__(self) -> NoReturn:
        self._asked_for_value("complex()", "kdsl has no complex numbers")

    def item(self) -> NoReturn:
        self._asked_for_value("item()", "return the tensor from the kernel and read it there")

    def tolist(self) -> NoReturn:
        self._asked_for_value("tolist()", "return the tensor from the kernel and read it there")

    def __array__(self, dtype: Any = None, copy: Any = None) -> NoReturn:
        self._asked_for_value("a NumPy function that kdsl does not have, or np.asarray", "write it in kd's functions")

    def __format__(self, spec: str) -> str:
        if spec:
            self._asked_for_value("a format", "print the result outside the kernel")
        return repr(self)

    def _asked_for_value(self, asker: str, hint: str) -> NoReturn:
        raise ControlFlowError(
            f"the numbers of a tensor are not known while a kernel is traced, and {asker} asks for them",
            label=f"{self.value.type}",
            hint=hint,
        )

    # --- NumPy's functions mean ours ------------------------------------------------------------------------------------------
    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        from kdsl.language.numpy_names import call_ufunc

        return call_ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(self, function: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        from kdsl.language.numpy_names import call_function

        return call_function(function, args, kwargs)


def all_within(axes: tuple[int, ...], ndim: int) -> bool:
    return not [a for a in axes if not -ndim <= a < ndim]
