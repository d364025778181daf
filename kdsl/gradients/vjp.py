"""f.vjp: gradients in the structure of the positional arguments.

In:  a kernel and the arguments of a call, cotangents last.  Out: gradients.
Outside a kernel it is a compiled program; inside one its equations join the outer kernel's, so that all of this nests.
Read before: gradients/arguments.py, gradients/derived.py. Read next: gradients/pullback.py, gradients/grad.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kdsl.frontend.trace import Traced, has_tracers, inlined
from kdsl.frontend.trees import unflatten
from kdsl.gradients.arguments import Split, gradient_tree, split
from kdsl.gradients.derived import Derived, Kernel
from kdsl.language.tracer import Tracer
from kdsl.specialisation import (
    Specialisation,
    compiler,
    wants_tuning,
)

if TYPE_CHECKING:
    from kdsl.pipeline import Compiled


class Vjp(Derived):
    """`f.vjp(*args, *cotangents)`: a tuple of one gradient per positional floating argument."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel, "vjp")

    def _long_way(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        parts = split(self.kernel, args, kwargs)
        if has_tracers(parts.call) or any(isinstance(x, Tracer) for x in parts.cotangents.tensors):
            return vjp_inside(parts)
        found = self.specialise(parts)
        sizes = found.bind(parts.tensors)
        result = found.call(parts.tensors, None, sizes)
        cotangents = args[len(args) - len(parts.cotangents.tensors) :]
        self._short.remember(found, parts.call, args, kwargs, sizes, cotangents)
        return result

    def specialise(self, parts: Split, target: str | None = None) -> Specialisation:
        """The compiled program for these types."""
        call = parts.call
        choice = self.kernel.choice(call, parts.traced, target, parts.tensors)
        key = choice.key, parts.cotangents.strides
        found = self._programs.get(key)
        if found is None:
            tree, wanted = gradient_tree(call)
            function, chosen = choice.function, choice.target
            strides = (*call.signature.strides, *parts.cotangents.strides)
            if wants_tuning(parts.tensors):
                from kdsl.tuned import is_tuned
                from kdsl.tuner import tuned_vjp

                if not is_tuned(function, strides, ("vjp", tuple(wanted)), chosen):
                    tuned_vjp(self, parts)
            compiled = compiler().compile_vjp(function, wanted, strides, chosen)
            sizes = call.signature.sizes + parts.cotangents.sizes
            found = Specialisation(compiled, parts.traced, tree, sizes, call.wrap, choice.exact)
            self._programs[key] = found
        return found

    def looked_at(
        self, types: Sequence[Any], statics: Mapping[str, Any], target: str | None
    ) -> list[Compiled]:
        """The compiled programs that inspection/ shows."""
        return [self.specialise(split(self.kernel, tuple(types), statics), target).program]


def vjp_inside(parts: Split) -> Any:
    """The gradients within a kernel that is being traced."""
    tree, wanted = gradient_tree(parts.call)
    derived = compiler().derivative(parts.traced.function, wanted)
    traced = Traced(derived, tree, parts.traced.checks)
    return unflatten(tree, iter(inlined(traced, parts.tensors)))
