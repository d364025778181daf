"""f.pullback: the forward runs once, the backward when its cotangents are known.

In:  a kernel and the arguments of a call.  Out: its results, and a function of the cotangents that gives what `vjp` gives.
What lies between the two is a flat tuple, `held`: the residuals (values that the forward kept), the arguments that the backward
needs, and the named sizes, which its own arrays may not tell. Arguments that it does not need are not kept alive.
Read before: gradients/vjp.py, transforms/residuals.py. Read next: gradients/grad.py.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsl.errors import ArgumentError, ShapeError, for_the_user
from kdsl.frontend.signature import Call, Signature
from kdsl.frontend.trace import Traced, has_tracers, inlined
from kdsl.frontend.trees import Tree, builder, unflatten
from kdsl.gradients.arguments import (
    Split,
    floating_results,
    gradient_tree,
    read_cotangents,
    sizes_of_call,
)
from kdsl.gradients.derived import Derived, Kernel
from kdsl.gradients.vjp import vjp_inside
from kdsl.ir.sizes import evaluate
from kdsl.ir.tensor import Value
from kdsl.language.tracer import Tracer
from kdsl.specialisation import (
    Choice,
    ShortWay,
    Specialisation,
    compiler,
    sizes_of,
    wants_tuning,
)

if TYPE_CHECKING:
    from kdsl.pipeline import Compiled, Halves


class Pullback(Derived):
    """`results, pullback = f.pullback(*args)`."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel, "pullback")

    def _long_way(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        call = self.kernel.read(args, kwargs)
        traced = self.kernel.differentiable(call)
        if has_tracers(call):
            results = unflatten(traced.tree, iter(inlined(traced, call.tensors)))
            return results, functools.partial(_pull_inside, self.label, call, traced)
        forward, backward = self.halves(call, traced)
        sizes = forward.bind(call.tensors)
        flat = forward.run(call.tensors, None, sizes)
        count = len(traced.function.results)
        held = (*flat[count:], *(call.tensors[i] for i in backward.needed), *(sizes[n] for n in backward.told))
        finish = functools.partial(_finish, builder(traced.tree), backward, count)
        self._short.remember(
            forward, call, args, kwargs, sizes, (), finish, backward.needed, backward.told
        )
        return forward.structured(flat[:count]), Pulled(backward, held)

    def halves(self, call: Call, traced: Traced, target: str | None = None) -> tuple[Specialisation, Backward]:
        """The forward program for these types, and the backward that goes with it."""
        signature, choice = call.signature, self.kernel.choice(call, traced, target)
        found = self._programs.get(choice.key)
        if found is None:
            tree, wanted = gradient_tree(call)
            function, chosen = choice.function, choice.target
            halves = compiler().Halves(function, wanted)
            if wants_tuning(call.tensors):
                from kdsl.tuned import is_tuned
                from kdsl.tuner import tuned_pullback

                if not is_tuned(function, signature.strides, ("forward", halves.wanted, halves.cut), chosen):
                    tuned_pullback(self, call)
            compiled = compiler().compile_half(halves, "forward", signature.strides, chosen)
            forward = Specialisation(compiled, traced, traced.tree, signature.sizes, call.wrap, choice.exact)
            found = self._programs[choice.key] = (
                forward,
                Backward(self.label, signature, traced, tree, halves, call.wrap, choice),
            )
        return found

    def looked_at(self, types: Sequence[Any], statics: Mapping[str, Any], target: str | None) -> list[Compiled]:
        """The forward program, then the backward one."""
        call = self.kernel.read(self.kernel.reader.completed(types, statics), statics)
        traced = self.kernel.differentiable(call)
        forward, backward = self.halves(call, traced, target)
        return [forward.program, backward.specialise((None,) * len(floating_results(traced))).program]


def _finish(build: Any, backward: Backward, count: int, flat: tuple[Any, ...]) -> tuple[Any, Pulled]:
    """What a call gives, made of what the short way hands over: results, residuals, arguments, sizes."""
    return build(flat), Pulled(backward, flat[count:])


class Backward:
    """The second half of all pullbacks of one forward program."""

    def __init__(
        self, label: str, signature: Signature, traced: Traced, tree: Tree, halves: Halves, wrap: Any, choice: Choice
    ) -> None:
        self.label, self.signature, self.traced, self.tree = label, signature, traced, tree
        self.halves, self.wrap, self.target = halves, wrap, choice.target
        self.needed = halves.needed
        self.numbers = dict(choice.numbers)
        self.told = tuple(s.name for s in signature.sizes if s.name not in self.numbers)
        self._programs: dict[Any, Specialisation] = {}
        self._short = ShortWay()
        self.short = self._short.call

    def on_gpu(self, values: tuple[Any, ...]) -> Any:
        """The gradients by the short way of a GPU, or NotImplemented."""
        return self._short.on_gpu(values, {})

    def specialise(self, strides: tuple[Any, ...]) -> Specialisation:
        """The program for cotangents of these strides."""
        found = self._programs.get(strides)
        if found is None:
            own = tuple(self.signature.leaves[i].strides for i in self.needed)
            every = (*own, *(None,) * self.halves.residuals, *strides)
            compiled = compiler().compile_half(self.halves, "backward", every, self.target)
            found = self._programs[strides] = Specialisation(compiled, self.traced, self.tree, (), self.wrap)
        return found

    def long_way(self, held: tuple[Any, ...], given: tuple[Any, ...]) -> Any:
        """The gradients; the next call like this one takes the short way."""
        results = floating_results(self.traced)
        _count(self.label, results, given)
        if any(isinstance(x, Tracer) for x in given):
            raise ArgumentError(f"{self.label} ran outside this kernel, so its cotangents cannot be tensors of the kernel")
        residuals, count = self.halves.residuals, len(self.needed)
        arguments, sizes = held[residuals : residuals + count], dict(zip(self.told, held[residuals + count :]), **self.numbers)
        own = [self._unchanged(x, i, sizes) for x, i in zip(arguments, self.needed)]
        read = read_cotangents(self.label, results, given, lambda: sizes, 0)
        sizes.update(sizes_of(read.sizes, read.tensors))
        backward = self.specialise(read.strides)
        flat = backward.program.run([*own, *held[:residuals], *read.tensors], None, sizes)
        cotangents = range(count + residuals, count + residuals + len(given))
        places = (*range(count, count + residuals), *range(count), *self.told, *cotangents)
        self._short.remember_parts(backward, places, (*held, *given), sizes)
        return backward.structured(flat)

    def _unchanged(self, x: Any, number: int, sizes: Mapping[str, int]) -> Any:
        """An argument as an array: the forward's shape must be its shape still."""
        leaf = self.signature.leaves[number]
        array = np.asarray(x, leaf.type.dtype.numpy) if type(x) is float else x
        shape = tuple(evaluate(n, sizes) for n in leaf.type.shape)
        if array.shape != shape:
            raise ShapeError(f"{leaf.path} had the shape {shape} when {self.label} was called, and now has {array.shape}")
        return array


class Pulled:
    """The second half of one pullback: `pullback(*cotangents)`."""

    __slots__ = ("_backward", "_held")

    def __init__(self, backward: Backward, held: tuple[Any, ...]) -> None:
        self._backward, self._held = backward, held

    def __call__(self, *cotangents: Any) -> Any:
        """One gradient per positional floating argument."""
        result = self._backward.short(*self._held, *cotangents)
        if result is not NotImplemented:
            return result
        result = self._backward.on_gpu((*self._held, *cotangents))
        if result is not NotImplemented:
            return result
        try:
            return self._backward.long_way(self._held, cotangents)
        except Exception as error:
            for_the_user(error)
            raise

    def __repr__(self) -> str:
        return f"<{self._backward.label} of one call>"


def _pull_inside(label: str, call: Call, traced: Traced, *cotangents: Any) -> Any:
    results = floating_results(traced)
    _count(label, results, cotangents)
    read = read_cotangents(label, results, cotangents, sizes_of_call(call), len(call.tensors))
    return vjp_inside(Split(call, traced, read))


def _count(label: str, results: Sequence[Value], cotangents: Sequence[Any]) -> None:
    if len(results) != len(cotangents):
        raise ArgumentError(
            f"{label} takes {len(results)} cotangents, one for each floating result; got {len(cotangents)}"
        )
