"""How nn writes kernels: sizes that change from call to call are named, the others are fixed.

In:  a function of tensors and one short text per tensor parameter.  Out: a callable that picks the kernel for a call.

    @layer("... C", "C", "C")                 # x has any leading axes, which are named; C is fixed to the call's size
    def layer_norm(x, w, b, *, eps=1e-5): …

A capital letter is an axis whose size the kernel may rely on (a width, a vocabulary); `...` and small words are axes that change
(batch, time): the kernel is compiled once for all their values. "time C | batch time C" is an argument of either rank.
Read next: tensor.py, which calls these kernels through its tape.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import kdsl as kd

ARRAYS = (np.ndarray, kd.Array)  # what Tensors hold: in the host's memory, on a GPU


class Layer:
    """A family of kernels made from one function: one kernel for each set of fixed sizes and static values."""

    def __init__(self, function: Callable[..., Any], axes: tuple[str | None, ...]) -> None:
        self.function, self.axes = function, axes
        self.kernels: dict[Any, Any] = {}
        functools.update_wrapper(self, function)

    def kernel(self, args: Sequence[Any], static: dict[str, Any]) -> Any:
        """The kernel for arguments of these shapes. It takes positional arguments only: static values are part of it, so that
        each call of it is the shortest that kdsl has."""
        key = tuple([a.shape if isinstance(a, ARRAYS) else None for a in args]), tuple(static.items())
        found = self.kernels.get(key)
        if found is None:
            types = self.types(args)
            found = self.kernels.get((types, key[1]))
            if found is None:
                names = self.function.__code__.co_varnames
                annotations = {n: _annotation(t) for n, t in zip(names, types) if t is not None}
                function = functools.partial(self.function, **static) if static else self.function
                found = self.kernels[types, key[1]] = kd.kernel(function, types=annotations)
            self.kernels[key] = found
        return found

    def __call__(self, *args: Any, **static: Any) -> Any:
        return self.kernel(args, static)(*args)

    def fixed(self, **static: Any) -> Any:
        """A kernel that is compiled for the sizes of its call, all of them. For one token of one sequence: a product whose rows
        are known to be one reads its matrix as it lies."""
        key = "fixed", tuple(static.items())
        found = self.kernels.get(key)
        if found is None:
            found = self.kernels[key] = kd.kernel(functools.partial(self.function, **static) if static else self.function)
        return found

    def types(self, args: Sequence[Any]) -> tuple[tuple[int | str, ...] | None, ...]:
        """The axes of each argument."""
        return tuple(map(self._type, self.axes, args))

    @staticmethod
    def _type(text: str | None, array: Any) -> tuple[int | str, ...] | None:
        """The axes of one argument: a number where fixed, a name where it may change; None for what carries no annotation."""
        if text is None or not isinstance(array, ARRAYS):
            return None
        shape = array.shape
        choices = [choice.split() for choice in text.split("|")]
        words = next((w for w in choices if len(w) == len(shape)), choices[0])
        if "..." in words:
            at, free = words.index("..."), len(shape) - len(words) + 1
            words[at : at + 1] = [f"n{free - i}" for i in range(free)]
        if len(words) != len(shape):
            raise ValueError(f"an argument with axes '{text}' cannot have shape {shape}")
        return tuple(n if w.isupper() else w for w, n in zip(words, shape))


def _annotation(axes: tuple[int | str, ...]) -> Any:
    return kd.any[axes] if axes else kd.any


def layer(*axes: str | None) -> Callable[[Callable[..., Any]], Layer]:
    """Make a function of tensors a Layer; `axes` says for each positional parameter which axes are fixed (see above)."""
    return lambda function: Layer(function, axes)


def elementwise(function: Callable[..., Any]) -> Broadcasting:
    """Make a function of broadcasting tensors a family of kernels in which all axes are named but those that stretch."""
    return Broadcasting(function)


class Broadcasting(Layer):
    """A Layer whose axes are named by their position from the right; where shapes differ, axes of size 1 stay 1: they stretch."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function, ())

    def types(self, args: Sequence[Any]) -> tuple[tuple[int | str, ...] | None, ...]:
        shapes = [a.shape if isinstance(a, ARRAYS) else None for a in args]
        stretched = len({s for s in shapes if s is not None}) > 1
        return tuple(
            None if s is None else tuple(1 if n == 1 and stretched else f"n{len(s) - i}" for i, n in enumerate(s))
            for s in shapes
        )
