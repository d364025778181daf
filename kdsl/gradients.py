"""Derivatives of kernels: f.vjp, f.pullback, kd.grad, kd.value_and_grad, and rules that users write themselves.

In:  a kernel and the arguments of a call, cotangents last.  Out: gradients in the structure of the positional arguments.
Outside a kernel they are compiled programs; inside one their equations join the outer kernel's, so that all of this nests.
Read before: kernel.py, transforms/differentiate.py. Read next: transforms/residuals.py.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import kdsl.dtypes as dt
from kdsl import pipeline
from kdsl.dtypes import TypeSpec
from kdsl.errors import ArgumentError, DtypeError, GradientError, ShapeError, entry_point
from kdsl.frontend.signature import Call, SizeSource
from kdsl.frontend.trace import Traced, has_tracers, inlined
from kdsl.frontend.trees import LEAF, Static, Tree, flatten, unflatten
from kdsl.interop.arguments import as_numpy_view
from kdsl.inspection.looking import Looking
from kdsl.ir.ops import Op
from kdsl.ir.rules import Builder
from kdsl.ir.sizes import Extent, Size, evaluate, size
from kdsl.ir.tensor import Function, TensorType, Value
from kdsl.language.dispatch import current, tracing
from kdsl.language.operands import value as as_value
from kdsl.language.tracer import Tracer
from kdsl.specialisation import Specialisation, sizes_of, target_named
from kdsl.target import default_target

Kernel = Any  # kernel.py stands on this file, not the other way round

# --- the structure of gradients ---------------------------------------------------------------------------------------------
def floating_results(traced: Traced) -> tuple[Value, ...]:
    """The results that have a cotangent."""
    return tuple(r for r in traced.function.results if r.dtype.is_floating)


def gradient_tree(call: Call) -> tuple[Tree, tuple[int, ...]]:
    """The tuple that vjp returns, and which of the floating leaves it holds: those of the positional arguments that were given."""
    numbers: list[int] = []
    floating = _floating_numbers(call)
    leaf = iter(range(len(call.signature.leaves)))
    children = []
    for position, tree in enumerate(call.signature.args):
        mine: list[int] = []
        child = _gradient_tree(tree, leaf, floating, mine)
        if mine and position < call.signature.given:
            children.append(child)
            numbers += mine
    return Tree(tuple, tuple(children)), tuple(numbers)


def _floating_numbers(call: Call) -> dict[int, int]:
    """Leaf number -> its number among the floating leaves."""
    floating = [i for i, leaf in enumerate(call.signature.leaves) if leaf.type.dtype.is_floating]
    return {leaf: i for i, leaf in enumerate(floating)}


def _gradient_tree(tree: Tree, leaf: Iterator[int], floating: dict[int, int], found: list[int]) -> Tree:
    if tree.kind == "leaf":
        number = next(leaf)
        if number not in floating:
            return _NONE
        found.append(floating[number])
        return LEAF
    if tree.kind == "static":
        return _NONE
    return Tree(tree.kind, tuple(_gradient_tree(child, leaf, floating, found) for child in tree.children), tree.keys)


_NONE = Tree("static", value=Static(None))


# --- cotangents -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Cotangents:
    """The cotangents of a call: tensors, the strides of those that are not C-contiguous, and where named strides come from."""

    tensors: tuple[Any, ...]
    strides: tuple[tuple[Extent, ...] | None, ...]
    sizes: tuple[SizeSource, ...]


def read_cotangents(label: str, results: Sequence[Value], given: Sequence[Any], call: Call) -> Cotangents:
    """Check that each cotangent has its result's dtype and shape."""
    tensors, strides, sources = [], [], []
    sizes = None
    for i, (result, x) in enumerate(zip(results, given)):
        name = f"cotangent {i}" if len(results) > 1 else "the cotangent"
        if isinstance(x, (int, float)) and not isinstance(x, np.generic) and result.shape == ():
            x = np.asarray(x, result.dtype.numpy)
        stride = None
        if isinstance(x, Tracer):
            have: TensorType = x.value.type
        elif isinstance(x, (TypeSpec, TensorType)):
            have = x if isinstance(x, TensorType) else TensorType(x.dtype, result.shape)  # type: ignore[arg-type]
        else:
            array = as_numpy_view(x)
            if array is None:
                raise ArgumentError(f"{name} of {label} must be {result.type}, not a {type(x).__name__}")
            x = array
            have = TensorType(dt.BY_NUMPY.get(x.dtype, dt.f64), x.shape)
        if have.dtype is not result.dtype:
            raise DtypeError(f"{name} of {label} is {have}, but the result is {result.type}", facts="a cotangent has the result's dtype")
        want = result.shape
        if not isinstance(x, (Tracer, TypeSpec, TensorType)) and any(isinstance(n, Size) for n in want):
            sizes = sizes_of(call.signature.sizes, call.tensors) if sizes is None else sizes
            want = tuple(evaluate(n, sizes) for n in want)
        if have.shape != want:
            shown = TensorType(result.dtype, want)
            raise ShapeError(f"{name} of {label} is {have}, but the result is {shown}", facts="a cotangent has the result's shape")
        if isinstance(x, np.ndarray) and not x.flags.c_contiguous:
            stride = tuple(s // x.itemsize for s in x.strides)
            if want != result.shape:
                named: list[Extent] = []
                for axis, s in enumerate(stride):
                    key = f"cotangent{i}.stride{axis}"
                    named.append(s if s in (0, 1) else size(key))
                    if s not in (0, 1):
                        sources.append(SizeSource(key, len(call.tensors) + i, axis, of_stride=True))
                stride = tuple(named)
        tensors.append(x)
        strides.append(stride)
    return Cotangents(tuple(tensors), tuple(strides), tuple(sources))


@dataclass(frozen=True, eq=False)
class Split:
    """The arguments of a vjp taken apart."""

    call: Call
    traced: Traced
    cotangents: Cotangents

    @property
    def tensors(self) -> list[Any]:
        return [*self.call.tensors, *self.traced.captured, *self.cotangents.tensors]


def split(kernel: Kernel, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Split:
    """Which of `args` are cotangents: the smallest number of them that fits."""
    tried: list[str] = []
    for count in range(len(args) + 1):
        front, last = args[: len(args) - count], args[len(args) - count :]
        try:
            kernel.reader.bind(front, kwargs)
        except ArgumentError as error:
            tried.append(error.message)
            continue
        call = kernel.read(front, kwargs)
        traced = kernel.differentiable(call)
        results = floating_results(traced)
        if len(results) == count:
            return Split(call, traced, read_cotangents(f"{kernel.label}.vjp", results, last, call))
        tried.append(f"with {len(front)} arguments {kernel.label} has {len(results)} floating results, and {count} cotangents are left")
    raise ArgumentError(
        f"{kernel.label}.vjp takes the arguments of {kernel.label}, then one cotangent for each floating result; got {len(args)}",
        facts=next((t for t in tried if t.startswith("with ")), f"{kernel.label} is called as {kernel.label}{kernel.reader.form()}"),
    )


# --- vjp and pullback -------------------------------------------------------------------------------------------------------
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
        key = (parts.call.signature.key, parts.call.signature.strides, parts.call.wrap, parts.cotangents.strides, target or self.kernel.target or default_target())
        found = self._programs.get(key)
        if found is None or found.traced is not parts.traced:
            tree, wanted = gradient_tree(parts.call)
            strides = (*parts.call.signature.strides, *parts.cotangents.strides)
            compiled = pipeline.compile_vjp(parts.traced.function, wanted, strides, target_named(key[-1]))
            sizes = parts.call.signature.sizes + parts.cotangents.sizes
            found = Specialisation(compiled, parts.traced, tree, sizes, parts.call.wrap)
            self._programs[key] = found
        return found

    def looked_at(self, types: Sequence[Any], statics: Mapping[str, Any], target: str | None) -> list[pipeline.Compiled]:
        """The compiled programs that inspection/ shows."""
        return [self.specialise(split(self.kernel, tuple(types), statics), target).compiled]  # type: ignore[list-item]

    def __repr__(self) -> str:
        return f"<{self.label}>"


def vjp_inside(parts: Split) -> Any:
    """The gradients within a kernel that is being traced."""
    tree, wanted = gradient_tree(parts.call)
    derived = pipeline.derivative(parts.traced.function, wanted)
    traced = Traced(derived, tree, parts.traced.checks)
    return unflatten(tree, iter(inlined(traced, parts.tensors)))


class Pullback(Looking):
    """`results, pullback = f.pullback(*args)`."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.label = f"{kernel.label}.pullback"
        self._forward: dict[Any, tuple[Specialisation, pipeline.Halves]] = {}
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
        kept = [call.tensors[i] for i in halves.split.needed] + flat[count:]
        return forward.structured(flat[:count]), Pulled(self, call, traced, halves, kept)

    def _forward_half(self, call: Call, traced: Traced, target: str | None = None) -> tuple[Specialisation, pipeline.Halves]:
        key = call.signature.key, call.signature.strides, call.wrap, target or self.kernel.target or default_target()
        found = self._forward.get(key)
        if found is None or found[0].traced is not traced:
            tree, wanted = gradient_tree(call)
            halves = pipeline.halves(traced.function, wanted)
            compiled = pipeline.compile_half(halves.split.forward, call.signature.strides, target_named(key[-1]), halves.record)
            found = self._forward[key] = Specialisation(compiled, traced, traced.tree, call.signature.sizes, call.wrap), halves
        return found

    def backward_half(self, pulled: Pulled, cotangents: Cotangents, target: str | None = None) -> Specialisation:
        """The backward program of one forward."""
        key = id(pulled.halves), cotangents.strides, target or self.kernel.target or default_target()
        found = self._backward.get(key)
        if found is None or found.traced is not pulled.traced:
            halves = pulled.halves
            tree, _ = gradient_tree(pulled.call)
            own = tuple(pulled.call.signature.leaves[i].strides for i in halves.split.needed)
            residuals = len(halves.split.backward.parameters) - len(own) - len(cotangents.tensors)
            strides = (*own, *(None,) * residuals, *cotangents.strides)
            compiled = pipeline.compile_half(halves.split.backward, strides, target_named(key[-1]), halves.record)
            found = self._backward[key] = Specialisation(compiled, pulled.traced, tree, (), pulled.call.wrap)
        return found

    def looked_at(self, types: Sequence[Any], statics: Mapping[str, Any], target: str | None) -> list[pipeline.Compiled]:
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
    halves: pipeline.Halves
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
        raise ArgumentError(f"{label} takes {len(results)} cotangents, one for each floating result; got {len(cotangents)}")


# --- kd.grad ----------------------------------------------------------------------------------------------------------------
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
                f"kd.grad needs one 0-d floating result, but {kernel.label} gives {traced.tree if traced.tree != LEAF else results[0].type}",
                hint="kd.sum(...) or kd.mean(...) makes a 0-d tensor; f.vjp takes cotangents of any shape",
            )
        tree, _ = gradient_tree(call)
        positions = floating_positions(call)
        unknown = [n for n in numbers if n % max(1, call.signature.given) not in positions or abs(n) > call.signature.given]
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


# --- rules that users write -------------------------------------------------------------------------------------------------
def call_with_rule(kernel: Kernel, call: Call) -> Traced:
    """A program that is one call of the kernel, so that differentiation meets its rule and not its body."""
    inner = kernel.traced(call)
    parameters = tuple(Value(p.type, p.name) for p in inner.function.parameters)
    builder = Builder(inner.function.location)
    rule = UserRule(kernel, call, inner)
    results = tuple(
        builder.emit(Op.CALL, *parameters, function=inner.function, rule=rule, index=i) for i in range(len(inner.function.results))
    )
    program = Function(kernel.label, parameters, tuple(builder.equations), results, inner.function.location)  # type: ignore[arg-type]
    return Traced(program, inner.tree, inner.checks, inner.captured)


@dataclass(frozen=True, eq=False)
class UserRule:
    """The `rule` attribute of a CALL: gives the gradient program when differentiation asks for it."""

    kernel: Kernel
    call: Call
    inner: Traced

    def __call__(self) -> Function:
        """The program (arguments, results, one cotangent per floating result) -> one gradient per floating argument."""
        function = self.inner.function
        builder = Builder(function.location)
        groups = (function.parameters, function.results, floating_results(self.inner))
        args, results, cotangents = (tuple(Value(v.type, v.name) for v in group) for group in groups)
        with tracing(builder):
            given, _ = self.call.signature.rebuild(Tracer(builder, v) for v in args)
            shown = unflatten(self.inner.tree, iter(Tracer(builder, v) for v in results))
            returned = self.kernel.rule(tuple(given), shown, tuple(Tracer(builder, v) for v in cotangents))  # type: ignore[misc]
            gradients = self._gradients(returned, len(given), args)
        return Function(f"{function.name}_rule", (*args, *results, *cotangents), tuple(builder.equations), gradients)

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
        for tree, gradient in zip(self.call.signature.args, returned):
            leaves: list[tuple[str, Any]] = []
            if gradient is not None:
                flatten(gradient, lambda x: x is None or isinstance(x, (Tracer, int, float, np.ndarray, np.generic)), "", leaves)
                if len(leaves) != tree.count:
                    raise GradientError(f"the rule of {self.kernel.label} gives {len(leaves)} gradients for an argument with {tree.count} tensors")
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
                f"the rule of {self.kernel.label} gives {out.type} as the gradient of {parameter.name}, which is {parameter.type}",
                facts="a gradient has its argument's dtype and shape",
            )
        return out
