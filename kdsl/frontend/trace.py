"""A Python callable to tensor IR: its body runs once on tracers, and what they record is the program.

In:  a callable and a Signature.  Out: Traced: the Function, the tree of its results, the places its sizes are checked at.
Read before: frontend/signature.py, language/tracer.py, language/dispatch.py. Read next: transforms/simplify.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdsl.errors import ArgumentError, KdslError, ResultError
from kdsl.frontend.signature import Call, Signature
from kdsl.frontend.trees import Tree, flatten
from kdsl.ir.location import find_location_of_mistake, kernel_boundary, location_of_call, return_location
from kdsl.ir.rules import Builder
from kdsl.ir.sizes import Extent, Size
from kdsl.ir.tensor import Function, Value
from kdsl.language.dispatch import Check, Trace, current, require, tracing
from kdsl.language.operands import value as as_value
from kdsl.language.sizes import NamedSize
from kdsl.language.tracer import Tracer

RESULTS = "results are tensors and Python numbers, in tuples, lists and dicts; None stays None"


@dataclass(frozen=True, eq=False)
class Traced:
    """A traced kernel. `tree`: the structure of its results; `checks`: what each call must check of its named sizes.

    `captured`: tensors of an outer kernel that its body uses; they are the last parameters of the function.
    """

    function: Function
    tree: Tree
    checks: tuple[Check, ...] = ()
    captured: tuple[Tracer, ...] = ()


def trace(function: Callable[..., Any], signature: Signature, name: str) -> Traced:
    """Run the callable on tracers for the signature's tensors."""
    parameters = tuple(Value(leaf.type, leaf.path) for leaf in signature.leaves)
    builder = Builder()
    with tracing(builder) as running:
        args, kwargs = signature.rebuild(Tracer(builder, p) for p in parameters)
        tree, results = _results(lambda: _run_body(function, args, kwargs), function, name, running)
    tracers, values = zip(*running.captured.values()) if running.captured else ((), ())
    program = Function(
        name, parameters + values, tuple(builder.equations), results, location_of_call(function), _facts(running)
    )
    return Traced(program, tree, tuple(running.checks), tracers)


def _facts(running: Trace) -> tuple[Extent, ...]:
    """What each call checks of its named sizes, as expressions that are then at least 0."""
    return tuple(
        difference
        for c in running.checks
        for difference in ((c.left - c.right,) if c.relation == ">=" else (c.left - c.right, c.right - c.left))
    )


@kernel_boundary
def _run_body(function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
    return function(*args, **kwargs)


def _results(
    run: Callable[[], Any], function: Callable[..., Any], name: str, running: Trace
) -> tuple[Tree, tuple[Value, ...]]:
    """The structure of what the body returns, and its values."""
    leaves: list[tuple[str, Any]] = []
    returned = run()
    try:
        tree = flatten(returned, _is_leaf, "result", leaves)
    except ArgumentError as error:
        raise ResultError(
            f"{name} returns what is no tensor: {str(error).splitlines()[0]}",
            facts=RESULTS,
            location=return_location(run, function) or find_location_of_mistake(),
        ) from None
    wrong = _not_tensors(tree, "result")
    foreign = [
        path
        for path, x in leaves
        if isinstance(x, Tracer) and x.builder is not running.builder and running.adopt(x) is None
    ]
    if wrong or foreign:
        path, what = wrong[0] if wrong else (foreign[0], "tensor of another kernel")
        raise ResultError(
            f"{name} returns {_article(what)} {what}{'' if path == 'result' else f' as {path}'}, "
            "which is no tensor of this kernel",
            facts=RESULTS,
            location=return_location(run, function) or find_location_of_mistake(),
        )
    running.builder.location = location_of_call(function)
    return tree, tuple(as_value(x) for _, x in leaves)


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _is_leaf(x: Any) -> bool:
    return isinstance(x, (Tracer, bool, int, float, np.generic, np.ndarray, NamedSize, Size))


def _not_tensors(tree: Tree, path: str) -> list[tuple[str, str]]:
    """Paths of results that are neither tensors nor None, with what they are."""
    if tree.kind == "static" and tree.value is not None and tree.value.value is not None:
        return [(path, type(tree.value.value).__name__)]
    keys = tree.keys or range(len(tree.children))
    return [
        found for key, child in zip(keys, tree.children) for found in _not_tensors(child, f"{path}[{key!r}]")
    ]


def inline(function: Function, operands: list[Value], builder: Builder) -> list[Value]:
    """The equations of `function` once more in `builder`, on `operands` in place of its parameters; its results."""
    new: dict[Value, Any] = dict(zip(function.parameters, operands))
    for equation in function.equations:
        given = tuple(new[o] if isinstance(o, Value) else o for o in equation.operands)
        builder.location = equation.location
        new[equation.result] = builder.emit(
            equation.op, *given, name=equation.result.name, **equation.attributes
        )
    return [new[r] for r in function.results]


def inlined(traced: Traced, operands: list[Any]) -> list[Tracer]:
    """A traced program as part of the kernel that is being traced now; its results as tracers."""
    running = current()
    assert running is not None
    place = running.builder.location
    results = inline(traced.function, [as_value(x) for x in (*operands, *traced.captured)], running.builder)
    running.builder.location = place
    running.checks.extend(traced.checks)
    return [Tracer(running.builder, r) for r in results]


def tracer_of(x: Any) -> Tracer:
    """A tensor argument of a kernel within a kernel: arrays among them are constants."""
    running = current()
    assert running is not None
    return x if isinstance(x, Tracer) else Tracer(running.builder, as_value(x))


def has_tracers(call: Call) -> bool:
    """Whether a call happens inside a kernel that is being traced."""
    return current() is not None or any(isinstance(x, Tracer) for x in call.tensors)


def require_equal(left: Extent, right: Extent, mistake: KdslError) -> None:
    """Two sizes that an annotation wants equal; inside a kernel that may hang on the call."""
    require(left, "==", right, mistake)
