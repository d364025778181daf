"""f.vjp and f.pullback: gradients in the structure of the positional arguments.

In:  a kernel and the arguments of a call, cotangents last.  Out: gradients.
Outside a kernel they are compiled programs; inside one their equations join the outer kernel's, so that all of this nests.
Read before: gradients/arguments.py, transforms/residuals.py. Read next: gradients/grad.py.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdsl.errors import ArgumentError, entry_point
from kdsl.frontend.signature import Call
from kdsl.frontend.trace import Traced, has_tracers, inlined
from kdsl.frontend.trees import unflatten
from kdsl.gradients.arguments import (
    Cotangents,
    Split,
    floating_results,
    gradient_tree,
    read_cotangents,
    split,
)
from kdsl.inspection.looking import Looking
from kdsl.ir.tensor import Value
from kdsl.language.tracer import Tracer
from kdsl.specialisation import Specialisation, compiler, sizes_of, target_named
from kdsl.target import default_target

if TYPE_CHECKING:
    from kdsl.pipeline import Compiled, Halves

Kernel = Any  # kernel.py stands on this file, not the other way round


class Vjp(Looking):
    """`f.vjp(*args, *cotangents)`: a tuple of one gradient per positional floating argument."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.label = f"{kernel.label}.vjp"
        self._programs: dict[Any, Specialisation] = {}

    @entry_point
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        parts = split(self.kernel, args, kwargs)
        if has_tracers(parts.call) or any(isinstance(x, Tracer) for x in parts.cotangents.tensors):
            return vjp_inside(parts)
        return self.specialise(parts).call(parts.tensors)

    def specialise(self, parts: Split, target: str | None = None) -> Specialisation:
        """The compiled program for these types."""
        key = (
            parts.call.signature.key,
            parts.call.signature.strides,
            parts.call.wrap,
            parts.cotangents.strides,
            target or self.kernel.target or default_target(),
        )
        found = self._programs.get(key)
        if found is None or found.traced is not parts.traced:
            tree, wanted = gradient_tree(parts.call)
            strides = (*parts.call.signature.strides, *parts.cotangents.strides)
            compiled = compiler().compile_vjp(parts.traced.function, wanted, strides, target_named(key[-1]))
            sizes = parts.call.signature.sizes + parts.cotangents.sizes
            found = Specialisation(compiled, parts.traced, tree, sizes, parts.call.wrap)
            self._programs[key] = found
        return found

    def looked_at(
        self, types: Sequence[Any], statics: Mapping[str, Any], target: str | None
    ) -> list[Compiled]:
        """The compiled programs that inspection/ shows."""
        return [self.specialise(split(self.kernel, tuple(types), statics), target).compiled]  # type: ignore[list-item]

    def __repr__(self) -> str:
        return f"<{self.label}>"


def vjp_inside(parts: Split) -> Any:
    """The gradients within a kernel that is being traced."""
    tree, wanted = gradient_tree(parts.call)
    derived = compiler().derivative(parts.traced.function, wanted)
    traced = Traced(derived, tree, parts.traced.checks)
    return unflatten(tree, iter(inlined(traced, parts.tensors)))


class Pullback(Looking):
    """`results, pullback = f.pullback(*args)`."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.label = f"{kernel.label}.pullback"
        self._forward: dict[Any, tuple[Specialisation, Halves]] = {}
        self._backward: dict[Any, Specialisation] = {}

    @entry_point
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = self.kernel.read(args, kwargs)
        traced = self.kernel.differentiable(call)
        if has_tracers(call):
            results = unflatten(traced.tree, iter(inlined(traced, call.tensors)))
            return results, functools.partial(_pull_inside, self.label, call, traced)
        forward, halves = self._forward_half(call, traced)
        flat = forward.run(call.tensors)
        count = len(traced.function.results)
        kept = [call.tensors[i] for i in halves.needed] + flat[count:]
        return forward.structured(flat[:count]), Pulled(self, call, traced, halves, kept)

    def _forward_half(
        self, call: Call, traced: Traced, target: str | None = None
    ) -> tuple[Specialisation, Halves]:
        key = (
            call.signature.key,
            call.signature.strides,
            call.wrap,
            target or self.kernel.target or default_target(),
        )
        found = self._forward.get(key)
        if found is None or found[0].traced is not traced:
            _, wanted = gradient_tree(call)
            halves = compiler().Halves(traced.function, wanted)
            compiled = compiler().compile_half(
                halves, "forward", call.signature.strides, target_named(key[-1])
            )
            found = self._forward[key] = (
                Specialisation(compiled, traced, traced.tree, call.signature.sizes, call.wrap),
                halves,
            )
        return found

    def backward_half(
        self, pulled: Pulled, cotangents: Cotangents, target: str | None = None
    ) -> Specialisation:
        """The backward program of one forward."""
        key = id(pulled.halves), cotangents.strides, target or self.kernel.target or default_target()
        found = self._backward.get(key)
        if found is None or found.traced is not pulled.traced:
            halves = pulled.halves
            tree, _ = gradient_tree(pulled.call)
            own = tuple(pulled.call.signature.leaves[i].strides for i in halves.needed)
            strides = (*own, *(None,) * halves.residuals, *cotangents.strides)
            compiled = compiler().compile_half(halves, "backward", strides, target_named(key[-1]))
            found = self._backward[key] = Specialisation(compiled, pulled.traced, tree, (), pulled.call.wrap)
        return found

    def looked_at(
        self, types: Sequence[Any], statics: Mapping[str, Any], target: str | None
    ) -> list[Compiled]:
        """The forward program, then the backward one."""
        call = self.kernel.read(self.kernel.reader.completed(types, statics), statics)
        traced = self.kernel.differentiable(call)
        forward, halves = self._forward_half(call, traced, target)
        pulled = Pulled(self, call, traced, halves, [])
        results = floating_results(traced)
        cotangents = Cotangents(tuple(r.type for r in results), (None,) * len(results), ())
        return [forward.compiled, self.backward_half(pulled, cotangents, target).compiled]  # type: ignore[list-item]

    def __repr__(self) -> str:
        return f"<{self.label}>"


@dataclass(eq=False)
class Pulled:
    """The second half of a pullback: it holds what the forward kept."""

    pullback: Pullback
    call: Call
    traced: Traced
    halves: Halves
    kept: list[Any]

    @entry_point
    def __call__(self, *cotangents: Any) -> Any:
        """One gradient per positional floating argument."""
        results = floating_results(self.traced)
        _count(self.pullback.label, results, cotangents)
        read = read_cotangents(self.pullback.label, results, cotangents, self.call)
        backward = self.pullback.backward_half(self, read)
        sizes = sizes_of(self.call.signature.sizes, self.call.tensors)
        sizes.update(sizes_of(read.sizes, [*self.call.tensors, *read.tensors]))
        assert backward.compiled is not None
        flat = backward.compiled.run([*self.kept, *read.tensors], None, sizes)
        return backward.structured(flat)


def _pull_inside(label: str, call: Call, traced: Traced, *cotangents: Any) -> Any:
    results = floating_results(traced)
    _count(label, results, cotangents)
    return vjp_inside(Split(call, traced, read_cotangents(label, results, cotangents, call)))


def _count(label: str, results: Sequence[Value], cotangents: Sequence[Any]) -> None:
    if len(results) != len(cotangents):
        raise ArgumentError(
            f"{label} takes {len(results)} cotangents, one for each floating result; got {len(cotangents)}"
        )
