"""kd.grad and kd.value_and_grad: the gradient of a 0-d result, as a kernel.

In:  a kernel and the numbers of the arguments to differentiate.  Out: a function of tracers that kernel.py makes a kernel of.
Read before: gradients/vjp.py. Read next: kernel.py.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kdsl.errors import GradientError
from kdsl.frontend.signature import Call
from kdsl.frontend.trace import inlined
from kdsl.frontend.trees import LEAF
from kdsl.gradients.arguments import Cotangents, Split
from kdsl.gradients.vjp import vjp_inside

Kernel = Any  # kernel.py stands on this file, not the other way round


def value_and_gradient(kernel: Kernel, argnums: int | Sequence[int], with_value: bool) -> Callable[..., Any]:
    """The body of kd.grad and kd.value_and_grad: a function of tracers, to be made a kernel."""
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    @functools.wraps(kernel.function)
    def body(*args: Any, **kwargs: Any) -> Any:
        call = kernel.read(args, kwargs)
        traced = kernel.differentiable(call)
        results = traced.function.results
        if traced.tree != LEAF or results[0].shape != () or not results[0].dtype.is_floating:
            raise GradientError(
                f"kd.grad needs one 0-d floating result, but {kernel.label} gives "
                f"{traced.tree if traced.tree != LEAF else results[0].type}",
                hint="kd.sum(...) or kd.mean(...) makes a 0-d tensor; f.vjp takes cotangents of any shape",
            )
        positions = floating_positions(call)
        unknown = [
            n
            for n in numbers
            if n % max(1, call.signature.given) not in positions or abs(n) > call.signature.given
        ]
        if unknown:
            raise GradientError(
                f"argument {unknown[0]} of {kernel.label} is no floating tensor",
                facts=f"the positional arguments with a gradient are {', '.join(map(str, positions)) or 'none'}",
            )
        one = np.ones((), results[0].dtype.numpy)
        gradients = vjp_inside(Split(call, traced, Cotangents((one,), (None,), ())))
        chosen = tuple(gradients[positions.index(n % call.signature.given)] for n in numbers)
        picked = chosen[0] if isinstance(argnums, int) else chosen
        if not with_value:
            return picked
        return inlined(traced, call.tensors)[0], picked

    body.__signature__ = inspect.signature(kernel.function)  # type: ignore[attr-defined]
    return body


def floating_positions(call: Call) -> list[int]:
    """The positional arguments that have a gradient."""
    found = {leaf.positional for leaf in call.signature.leaves if leaf.type.dtype.is_floating}
    return [i for i in range(call.signature.given) if i in found]
