"""Rules that users write: @f.defvjp.

In:  a kernel with a rule, a call of it.  Out: a program that is one CALL, whose `rule` attribute gives the gradient program.
Read before: transforms/differentiate.py. Read next: gradients/vjp.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdsl.errors import GradientError
from kdsl.frontend.signature import Call, Signature
from kdsl.frontend.trace import Traced
from kdsl.frontend.trees import flatten, unflatten
from kdsl.gradients.arguments import floating_results
from kdsl.ir.ops import Op
from kdsl.ir.rules import Builder
from kdsl.ir.tensor import Function, Value
from kdsl.language.dispatch import current, tracing
from kdsl.language.operands import value as as_value
from kdsl.language.tracer import Tracer

Kernel = Any  # kernel.py stands on this file, not the other way round


def call_with_rule(kernel: Kernel, call: Call) -> Traced:
    """A program that is one call of the kernel, so that differentiation meets its rule and not its body."""
    inner = kernel.traced(call)
    parameters = tuple(Value(p.type, p.name) for p in inner.function.parameters)
    builder = Builder(inner.function.location)
    rule = UserRule(kernel, call.signature, inner)
    results = tuple(
        builder.emit(Op.CALL, *parameters, function=inner.function, rule=rule, index=i)
        for i in range(len(inner.function.results))
    )
    place = inner.function.location
    program = Function(kernel.label, parameters, tuple(builder.equations), results, place)  # type: ignore[arg-type]
    return Traced(program, inner.tree, inner.checks, inner.captured)


@dataclass(frozen=True, eq=False)
class UserRule:
    """The `rule` attribute of a CALL: gives the gradient program when differentiation asks for it."""

    kernel: Kernel
    signature: Signature
    inner: Traced

    def __call__(self) -> Function:
        """The program (arguments, results, one cotangent per floating result) -> one gradient per floating argument."""
        function = self.inner.function
        builder = Builder(function.location)
        groups = (function.parameters, function.results, floating_results(self.inner))
        args, results, cotangents = (tuple(Value(v.type, v.name) for v in group) for group in groups)
        with tracing(builder):
            given, _ = self.signature.rebuild(Tracer(builder, v) for v in args)
            shown = unflatten(self.inner.tree, iter(Tracer(builder, v) for v in results))
            returned = self.kernel.rule(tuple(given), shown, tuple(Tracer(builder, v) for v in cotangents))  # type: ignore[misc]
            gradients = self._gradients(returned, len(given), args)
        return Function(
            f"{function.name}_rule", (*args, *results, *cotangents), tuple(builder.equations), gradients
        )

    def _gradients(self, returned: Any, count: int, parameters: Sequence[Value]) -> tuple[Value, ...]:
        if not isinstance(returned, (tuple, list)) and count == 1:
            returned = (returned,)
        if not isinstance(returned, (tuple, list)) or len(returned) != count:
            raise GradientError(
                f"the rule of {self.kernel.label} must return {count} gradients (or None), one per positional argument",
                facts=f"it returns {len(returned) if isinstance(returned, (tuple, list)) else type(returned).__name__}",
            )
        found: dict[int, Any] = {}
        number = 0
        for tree, gradient in zip(self.signature.args, returned):
            leaves: list[tuple[str, Any]] = []
            if gradient is not None:
                flatten(
                    gradient,
                    lambda x: x is None or isinstance(x, (Tracer, int, float, np.ndarray, np.generic)),
                    "",
                    leaves,
                )
                if len(leaves) != tree.count:
                    raise GradientError(
                        f"the rule of {self.kernel.label} gives {len(leaves)} gradients for an argument with {tree.count} tensors"
                    )
            found.update((number + i, g) for i, (_, g) in enumerate(leaves))
            number += tree.count
        return tuple(self._fitted(found.get(i), p) for i, p in enumerate(parameters) if p.dtype.is_floating)

    def _fitted(self, gradient: Any, parameter: Value) -> Value:
        running = current()
        assert running is not None
        if gradient is None:
            gradient = 0.0
        out = as_value(gradient, parameter.dtype) if not isinstance(gradient, Tracer) else as_value(gradient)
        if not isinstance(gradient, Tracer) and out.shape == ():
            out = running.builder.array(out, parameter.shape, parameter.dtype)
        if out.type != parameter.type:
            raise GradientError(
                f"the rule of {self.kernel.label} gives {out.type} as the gradient of {parameter.name}, "
                f"which is {parameter.type}",
                facts="a gradient has its argument's dtype and shape",
            )
        return out
