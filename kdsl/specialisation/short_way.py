"""Calls that look like one that was made before go straight to native code.

In:  a call that went the long way, and its program.  Out: ShortWay: its `call` takes the next one like it.
What decides whether a call is like another is a plan of its arguments (runtime/fast.py, runtime/cuda_short.py).
Read before: program.py, runtime/fast.py. Read next: kernel.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kdsl.frontend.signature import Call
from kdsl.frontend.trees import LEAF, Tree, builder
from kdsl.interop.arguments import as_view, on_device
from kdsl.runtime.cuda_call import GpuExecutable
from kdsl.runtime.cuda_short import Handing, ShortCall
from kdsl.runtime.fast import Argument, FastCall, Nested, Number, Same, SizeOf, Tensor
from kdsl.specialisation.program import Specialisation

MOST_RECORDS = 64


class ShortWay:
    """Calls that look like one that was made before go straight to native code (runtime/fast.py, runtime/cuda_short.py).

    Of a kernel, of its vjp or of its pullback. `call(*args, **kwargs)` gives NotImplemented where no record fits; so does
    `into(out, *args, **kwargs)`; `on_gpu` and `into_on_gpu` are for calls that these do not take."""

    def __init__(self) -> None:
        self._fast = FastCall()
        self._gpu: ShortCall | None = None
        self._known: set[Any] = set()
        self.call = self._fast.call
        self.into = self._fast.into

    def on_gpu(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The results on a GPU, or NotImplemented."""
        return NotImplemented if self._gpu is None else self._gpu.call(args, kwargs)

    def into_on_gpu(self, out: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """`out` on a GPU filled, or NotImplemented."""
        return NotImplemented if self._gpu is None else self._gpu.into(out, args, kwargs)

    def remember(
        self,
        found: Specialisation,
        call: Call,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        sizes: Mapping[str, int],
        cotangents: Sequence[Any] = (),
        finish: Callable[[Any], Any] | None = None,
        held: Sequence[int] = (),
        told: Sequence[str] = (),
    ) -> None:
        """Take the short way from now on. `args` are the call's, then the cotangents; `finish`, `held` and `told` as in
        FastCall.add, where the results are not simply the kernel's."""
        executable = found.program.executable
        if isinstance(executable, GpuExecutable):
            plan = plan_of(call, args[: len(args) - len(cotangents)], kwargs, cotangents, _on_gpu)
            if plan is not None:
                single = found.tree == LEAF and finish is None
                handing = Handing(found.tree.count, finish or _structure(found.tree), single, held, told)
                self._add_on_gpu(executable, plan[0], args, kwargs, sizes, handing, plan[1])
            return
        if found.wrap is not None or executable is None:
            return
        depends = found.exact or bool(found.traced.checks or found.program.target.classes)
        depends = depends or any(callable(c.extent) for c in executable.checks)
        checked = tuple(sizes.items()) if depends else None
        key = found, checked, tuple(kwargs), tuple(map(type, args))
        if key in self._known:
            return
        plan = plan_of(call, args[: len(args) - len(cotangents)], kwargs, cotangents)
        if plan is None or len(self._known) >= MOST_RECORDS:
            return
        self._known.add(key)
        single = found.tree == LEAF and finish is None
        finish = finish or _structure(found.tree)
        arguments, fixed = plan
        exact = sizes if checked else None
        self._fast.add(executable, arguments, finish, single, exact, tuple(kwargs), held, told, fixed)

    def _add_on_gpu(
        self,
        executable: GpuExecutable,
        plan: Sequence[Argument],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        sizes: Mapping[str, int],
        handing: Handing,
        fixed: Mapping[int, Any] = {},
    ) -> None:
        if self._gpu is None:
            self._gpu = ShortCall(as_view, on_device)
        self._gpu.add(executable, plan, args, kwargs, sizes, handing, fixed)

    def remember_parts(
        self, found: Specialisation, places: Sequence[int | str], values: Sequence[Any], sizes: Mapping[str, int]
    ) -> None:
        """The same for a program that is called with parts kept from before: each of `values` is an argument of the program
        by its number, or the value of a named size."""
        executable = found.program.executable
        if isinstance(executable, GpuExecutable):
            arguments: list[Argument] = [SizeOf(p) if isinstance(p, str) else Tensor(p) for p in places]
            handing = Handing(found.tree.count, _structure(found.tree))
            self._add_on_gpu(executable, arguments, values, {}, sizes, handing)
            return
        key = found, tuple(map(type, values))
        if found.wrap is not None or executable is None or key in self._known or len(self._known) >= MOST_RECORDS:
            return
        parts = zip(places, values)
        plan = [SizeOf(p) if isinstance(p, str) else _planned(LEAF, x, iter((p,)), _on_cpu) for p, x in parts]
        fits = [x for x in plan if x is not None]
        if len(fits) == len(plan):
            self._known.add(key)
            self._fast.add(executable, fits, _structure(found.tree))


def _structure(tree: Tree) -> Callable[[Any], Any] | None:
    """What makes the results of the tuple that native code gives; None where it is that tuple."""
    flat = tree.kind is tuple and all(child == LEAF for child in tree.children)
    return None if flat or tree == LEAF else builder(tree)


def plan_of(
    call: Call,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    cotangents: Sequence[Any],
    leaf: Callable[[int, Any], Argument | None] | None = None,
) -> tuple[list[Argument], dict[int, Any]] | None:
    """What the arguments of calls like this one are, keyword arguments last, and the tensors that are defaults, by number.

    None where the short way cannot take them. `leaf` says what a tensor of that number and value is."""
    leaf = leaf or _on_cpu
    signature = call.signature
    numbers = iter(range(len(call.tensors)))
    planned = [_planned(tree, value, numbers, leaf) for tree, value in zip(signature.args, args)]
    defaults = [next(numbers) for tree in signature.args[len(args) :] for _ in range(tree.count)]
    planned += [_planned(LEAF, x, iter((len(call.tensors) + i,)), leaf) for i, x in enumerate(cotangents)]
    named: dict[str, Argument | None] = {}
    for name, tree in signature.kwargs.items():
        if name in kwargs:
            named[name] = _planned(tree, kwargs[name], numbers, leaf)
        else:
            defaults += [next(numbers) for _ in range(tree.count)]
    if named.keys() != kwargs.keys():  # a positional parameter is given by its name
        return None
    planned += [named[name] for name in kwargs]
    fits = [x for x in planned if x is not None]
    return (fits, {i: call.tensors[i] for i in defaults}) if len(fits) == len(planned) else None


def _on_cpu(number: int, value: Any) -> Argument | None:
    return Tensor(number) if type(value) is np.ndarray else Number(number) if type(value) is float else None


def _on_gpu(number: int, value: Any) -> Argument:
    return Tensor(number)


def _planned(
    tree: Tree, value: Any, numbers: Iterator[int], leaf: Callable[[int, Any], Argument | None]
) -> Argument | None:
    if tree.kind == "static":
        return Same(value)
    if tree.kind == "leaf":
        return leaf(next(numbers), value)
    if type(value) is not tree.kind or (issubclass(tree.kind, dict) and tree.kind is not dict):
        return None
    values = value.values() if tree.kind is dict else value
    children = [_planned(child, v, numbers, leaf) for child, v in zip(tree.children, values)]
    fits = tuple(x for x in children if x is not None)
    return Nested(tree.kind, fits, tree.keys) if len(fits) == len(children) else None
