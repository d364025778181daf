"""@kernel: the object that a user holds. Called on arrays it runs compiled code; called in a kernel it becomes part of it.

In:  any Python callable.  Out: Kernel, with its derivatives (`vjp`, `pullback`, `defvjp`) and everything there is to look at.
Read before: frontend/signature.py, specialisation/. Read next: gradients/, pipeline.py, inspection/.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsl.errors import ArgumentError, entry_point, for_the_user
from kdsl.frontend.annotations import calling_scope, parameters_of
from kdsl.frontend.signature import Call, Reader
from kdsl.frontend.trace import Traced, has_tracers, inlined, require_equal, trace, tracer_of
from kdsl.frontend.trees import unflatten
from kdsl.gradients.grad import value_and_gradient
from kdsl.gradients.pullback import Pullback
from kdsl.gradients.rules import call_with_rule
from kdsl.gradients.vjp import Vjp
from kdsl.inspection.looking import Looking
from kdsl.interop.arguments import as_view, wrapper_of
from kdsl.language.dispatch import current, set_eager
from kdsl.specialisation import (
    Choice,
    ShortWay,
    Specialisation,
    Specialisations,
    choose,
    compiler,
    numbers_of,
    target_named,
    wants_tuning,
)

if TYPE_CHECKING:
    from kdsl.inspection.verify import Report
    from kdsl.pipeline import Compiled


@entry_point
def kernel(
    function: Callable[..., Any] | None = None, *, target: str | None = None, types: Any = None
) -> Any:
    """Make a kernel of any Python callable: `@kd.kernel`, or `kd.kernel(f, target="cpu", types=(kd.f32["N"],))`.

    Example: `double = kd.kernel(lambda x: x + x)`
    """
    scope = calling_scope(2)
    if function is None:
        return lambda f: Kernel(f, target, types, scope)
    return Kernel(function, target, types, scope)


class Kernel(Looking):
    """A Python callable that runs as compiled kernels."""

    def __init__(
        self,
        function: Callable[..., Any],
        target: str | None = None,
        types: Any = None,
        scope: Mapping[str, Any] | None = None,
    ) -> None:
        if isinstance(function, Kernel):
            kernel: Kernel = function
            target, function = target or kernel.target, kernel.function
        if not callable(function):
            raise ArgumentError(f"a kernel is made of a callable, and {function!r} is none")
        self.function: Callable[..., Any] = function
        self.target: str | None = target
        self.label = label_of(function)
        self.reader = Reader(
            function, self.label, parameters_of(function, types, scope or {}), as_view, wrapper_of
        )
        self.rule: Callable[..., Any] | None = None
        self._traces = Specialisations(self.label)
        self._with_rule: dict[Any, Traced] = {}
        self._short = ShortWay()
        self._fast = self._short.call
        self._programs: dict[Any, Specialisation] = {}
        self._bound: weakref.WeakKeyDictionary[Any, Kernel] = weakref.WeakKeyDictionary()
        functools.update_wrapper(self, function, updated=())
        if target is not None:
            target_named(target)

    # --- calling ----------------------------------------------------------------------------------------------------------
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if current() is None:
            result = self._fast(*args, **kwargs)
            if result is not NotImplemented:
                return result
            if "out" not in kwargs and (result := self._short.on_gpu(args, kwargs)) is not NotImplemented:
                return result
        try:
            out = None
            if "out" in kwargs and "out" not in self.reader.parameters:
                out = kwargs.pop("out")
                if current() is None:
                    result = self._short.into(out, *args, **kwargs)
                    if result is not NotImplemented:
                        return result
                    result = self._short.into_on_gpu(out, args, kwargs)
                    if result is not NotImplemented:
                        return result
            call = self.read(args, kwargs)
            if has_tracers(call):
                return self._inline(call)
            found = self.specialise(call)
            sizes = found.bind(call.tensors)
            result = found.call(call.tensors, out, sizes)
            self._short.remember(found, call, args, kwargs, sizes)
            return result
        except Exception as error:
            for_the_user(error)
            raise

    def _inline(self, call: Call) -> Any:
        """This kernel inside another: its equations join the outer kernel's; with a rule of its own it stays a call."""
        if self.rule is not None:
            traced = call_with_rule(self, call)
            return unflatten(traced.tree, iter(inlined(traced, call.tensors)))
        args, kwargs = call.signature.rebuild(tracer_of(x) for x in call.tensors)
        return self.function(*args, **kwargs)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """A kernel defined in a class: `self` is part of the kernel."""
        if instance is None:
            return self
        found = self._bound.get(instance)
        if found is None:
            found = self._bound[instance] = Kernel(functools.partial(self.function, instance), self.target)
        return found

    def __repr__(self) -> str:
        return f"<kernel {self.label}>"

    # --- compiling --------------------------------------------------------------------------------------------------------
    def read(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
        """The arguments as the compiler sees them."""
        return self.reader.read(tuple(args), kwargs, require_equal)

    def traced(self, call: Call) -> Traced:
        """The program that the body describes for these types: the body runs once for each kind of arguments."""
        if has_tracers(call):
            return trace(self.function, call.signature, self.label)
        with self._traces.lock:
            found = self._traces.known.get(call.signature.key)
            if found is None:
                found = trace(self.function, call.signature, self.label)
                self._traces.put(call.signature.key, found, call.signature)
            return found

    def differentiable(self, call: Call) -> Traced:
        """`traced`, or a single call of it where the kernel has a rule of its own."""
        if self.rule is None:
            return self.traced(call)
        if has_tracers(call):
            return call_with_rule(self, call)
        found = self._with_rule.get(call.signature.key)
        if found is None:
            found = self._with_rule[call.signature.key] = call_with_rule(self, call)
        return found

    def specialise(self, call: Call, target: str | None = None) -> Specialisation:
        """The compiled program for these types."""
        with self._traces.lock:
            traced = self.traced(call)
            choice = self.choice(call, traced, target)
            found = self._programs.get(choice.key)
            if found is None:
                function, chosen = choice.function, choice.target
                if wants_tuning(call.tensors):
                    from kdsl.tuned import is_tuned
                    from kdsl.tuner import tuned

                    if not is_tuned(function, call.signature.strides, "forward", chosen):
                        tuned(self, call)
                compiled = compiler().compile_forward(function, call.signature.strides, chosen)
                found = self._programs[choice.key] = Specialisation(
                    compiled, traced, traced.tree, call.signature.sizes, call.wrap, choice.exact
                )
            return found

    def choice(
        self, call: Call, traced: Traced, target: str | None = None, tensors: Sequence[Any] | None = None
    ) -> Choice:
        """What a call is compiled as; `tensors` are all that its program takes, where they are not the call's alone."""
        numbers = self._traces.note(numbers_of(traced, call.signature, call.tensors))
        return choose(target or self.target, call, traced, numbers, call.tensors if tensors is None else tensors)

    def forget(self) -> None:
        """Compile again at the next call: tuning has found something."""
        with self._traces.lock:
            self._programs.clear()
            self._short = ShortWay()
            self._fast = self._short.call

    # --- derivatives ------------------------------------------------------------------------------------------------------
    @functools.cached_property
    def vjp(self) -> Vjp:
        """`f.vjp(*args, *cotangents)`: one gradient for each positional floating tensor argument."""
        return Vjp(self)

    @functools.cached_property
    def pullback(self) -> Pullback:
        """`results, pullback = f.pullback(*args)`: the forward runs once; `pullback(*cotangents)` gives what `vjp` gives."""
        return Pullback(self)

    @entry_point
    def defvjp(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Use `rule(args, results, cotangents)` as this kernel's derivative: one gradient or None per positional argument."""
        if not callable(rule):
            raise ArgumentError(f"a rule is a callable, and {rule!r} is none")
        self.rule = rule
        self._with_rule.clear()
        for derived in ("vjp", "pullback"):
            self.__dict__.pop(derived, None)
        return rule

    # --- looking ----------------------------------------------------------------------------------------------------------
    def looked_at(
        self, types: Sequence[Any], statics: Mapping[str, Any], target: str | None
    ) -> list[Compiled]:
        """The compiled programs that inspection/ shows."""
        return [self.specialise(self.read(self.reader.completed(types, statics), statics), target).program]

    @entry_point
    def reference(self, *args: Any, **kwargs: Any) -> Any:
        """The NumPy meaning of this call: floating values in f64, rounded to the kernel's dtypes."""
        from kdsl.ir.meaning import evaluate

        call = self.read(args, kwargs)
        traced = self.traced(call)
        sizes = Specialisation(None, traced, traced.tree, call.signature.sizes).bind(call.tensors)
        return unflatten(traced.tree, iter(evaluate(traced.function, *call.tensors, sizes=sizes, exact=True)))

    @entry_point
    def verify(self, *args: Any, **kwargs: Any) -> Report:
        """Compare with the NumPy meaning on every target that this machine runs, and check gradients by finite differences."""
        from kdsl.inspection.verify import verify_kernel

        return verify_kernel(self, args, kwargs)


@entry_point
def grad(function: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Kernel:
    """The gradient of a 0-d floating result with respect to the positional arguments `argnums`, as a kernel.

    Example: `kd.grad(lambda w, x: kd.sum((x @ w) ** 2))(w, x)`
    """
    return _gradient(function, argnums, False, calling_scope(2))


@entry_point
def value_and_grad(function: Callable[..., Any], argnums: int | Sequence[int] = 0) -> Kernel:
    """Like `grad`, but the kernel returns (result, gradient).

    Example: `loss, dw = kd.value_and_grad(lambda w, x: kd.sum((x @ w) ** 2))(w, x)`
    """
    return _gradient(function, argnums, True, calling_scope(2))


def _gradient(
    function: Callable[..., Any], argnums: int | Sequence[int], with_value: bool, scope: Mapping[str, Any]
) -> Kernel:
    inner = function if isinstance(function, Kernel) else Kernel(function, scope=scope)
    out = Kernel(value_and_gradient(inner, argnums, with_value), inner.target)
    out.reader.parameters = inner.reader.parameters
    return out


def label_of(function: Callable[..., Any]) -> str:
    """What messages call a callable."""
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__name__", type(function).__name__)
    return "lambda" if name == "<lambda>" else name


# --- the language outside a kernel ------------------------------------------------------------------------------------------
_eager: dict[Callable[..., Any], Kernel] = {}


def _run_eagerly(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A function of the language on arrays: a kernel of that one call."""
    found = _eager.get(function)
    if found is None:
        found = _eager[function] = Kernel(function)
    return found(*_traced_numbers(function, args), **kwargs)


def _traced_numbers(function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Python floats beside floating arrays as 0-d arrays of their dtype: `kd.multiply(x, rate)` compiles once for all rates."""
    if float not in map(type, args) or function.__name__ not in _ANY_NUMBER:
        return args
    dtypes = {x.dtype for x in args if isinstance(x, np.ndarray)}
    if len(dtypes) != 1 or not dtypes <= {np.dtype(np.float32), np.dtype(np.float64)}:
        return args
    (dtype,) = dtypes
    return tuple(np.asarray(x, dtype) if type(x) is float else x for x in args)


_ANY_NUMBER = frozenset({"add", "subtract", "multiply", "divide", "maximum", "minimum", "where", "clip"})


set_eager(_run_eagerly)
