"""What a kernel's parameters allow: annotations and `types=`, and the check of arguments against them.

In:  a callable; later the types of the arguments.  Out: Parameters; the argument's type with named sizes where the annotation
has names, or a ShapeError or DtypeError that points at the parameter and at the call.
Read before: dtypes.py (TypeSpec). Read next: frontend/signature.py.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kdsl import dtypes
from kdsl.dtypes import DType, DTypeClass, TypeSpec
from kdsl.errors import ArgumentError, DtypeError, ShapeError
from kdsl.ir.location import code_of, find_location_of_mistake
from kdsl.ir.sizes import Extent, Size, size
from kdsl.ir.tensor import Location, TensorType
from kdsl.language.dispatch import FUNCTIONS


class AnyDtype(DTypeClass):
    """kd.any: in an annotation any dtype, kd.any["N"]; called, the reduction of the array API."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return FUNCTIONS["any"](*args, **kwargs)


any_ = AnyDtype(dtypes.any_.name, dtypes.any_.kinds)


@dataclass(frozen=True)
class Parameter:
    """One parameter of the user's callable. `spec`: a TypeSpec, or tuples, lists and dicts of them, or None."""

    name: str
    kind: Any
    default: Any
    spec: Any


def parameters_of(function: Callable[..., Any], given: Any, scope: Mapping[str, Any]) -> dict[str, Parameter]:
    """The parameters of a callable. `given` are those of `types=`; `scope` are local names that annotations in quotes may use."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        raise ArgumentError(f"{function!r} is not a callable whose parameters Python knows") from None
    given = _given(given, list(signature.parameters))
    globals_ = getattr(inspect.unwrap(getattr(function, "func", function)), "__globals__", {})
    out = {}
    for name, parameter in signature.parameters.items():
        annotation = given.get(name, parameter.annotation)
        if isinstance(annotation, str):
            annotation = _evaluate(annotation, globals_, scope)
        out[name] = Parameter(name, parameter.kind, parameter.default, as_spec(annotation))
    return out


def _given(given: Any, names: list[str]) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        given = given if isinstance(given, (tuple, list)) else (given,)
        given = dict(zip(names, given)) if len(given) <= len(names) else dict.fromkeys(range(len(given)))
    unknown = [name for name in given if name not in names]
    if unknown:
        raise ArgumentError(
            f"types= names {', '.join(map(str, unknown))}, but the parameters are {', '.join(names) or 'none'}"
        )
    return dict(given)


def _evaluate(text: str, globals_: dict[str, Any], scope: Mapping[str, Any]) -> Any:
    """An annotation in quotes (or under `from __future__ import annotations`); None where its names are not known here."""
    try:
        return eval(text, globals_, dict(scope))
    except Exception:
        return None


def as_spec(annotation: Any) -> Any:
    """What an annotation says about tensors; None for annotations that are not kdsl's."""
    if isinstance(annotation, (DType, DTypeClass)):
        return TypeSpec(annotation, ())
    if isinstance(annotation, TypeSpec):
        return annotation
    if isinstance(annotation, types.GenericAlias):  # list[kd.f32["N"]], tuple[kd.f32, …], dict[str, kd.f32]
        inner = [as_spec(a) for a in annotation.__args__ if a is not Ellipsis]
        if annotation.__origin__ is tuple and Ellipsis not in annotation.__args__:
            return tuple(inner) if any(inner) else None
        return _Every(inner[-1]) if inner and inner[-1] is not None else None
    if isinstance(annotation, (tuple, list)):
        inner = [as_spec(a) for a in annotation]
        return tuple(inner) if any(s is not None for s in inner) else None
    if isinstance(annotation, dict):
        return {k: as_spec(a) for k, a in annotation.items()}
    return None


@dataclass(frozen=True)
class _Every:
    """The same for every leaf below."""

    spec: Any


def spec_below(spec: Any, key: Any) -> Any:
    """The spec of an element of an annotated container."""
    if isinstance(spec, _Every):
        return spec if not isinstance(spec.spec, TypeSpec) else spec.spec
    if isinstance(spec, tuple):
        return spec[key] if isinstance(key, int) and key < len(spec) else None
    return spec.get(key) if isinstance(spec, dict) else None


@dataclass
class Bindings:
    """The named sizes met so far, each with the path and axis that gave it."""

    function: Callable[..., Any]
    label: str
    require: Callable[[Extent, Extent, Exception], None] | None = (
        None  # equality that only the call can decide
    )
    found: dict[str, tuple[Extent, str, int]] = field(default_factory=dict)

    def check(self, spec: TypeSpec, type_: TensorType, path: str, parameter: str) -> TensorType:
        """The argument's type with names where the annotation has them."""
        declared = f"{path} is declared {spec} by {self.label}"
        if not spec.dtype.admits(type_.dtype):
            wanted = (
                str(spec.dtype)
                if isinstance(spec.dtype, DType)
                else f"{_article(spec.dtype.name)} {spec.dtype.name} dtype"
            )
            raise DtypeError(
                f"{path} is {type_}, but {self.label} wants {wanted}", facts=declared, location=self.place(parameter),
                label=f"this call gives {type_}",
            )  # fmt: skip
        axes = len(type_.shape)
        if axes < len(spec.shape) or (axes > len(spec.shape) and not spec.leading):
            least = "at least " if spec.leading else ""
            raise ShapeError(
                f"{path} is {type_} with {_axes(axes)}, but {self.label} wants {least}{_axes(len(spec.shape))}",
                facts=declared, location=self.place(parameter), label=f"this call gives {type_}",
            )  # fmt: skip
        first = axes - len(spec.shape)
        shape = list(type_.shape)
        for axis, (want, have) in enumerate(zip(spec.shape, type_.shape[first:]), first):
            self._axis(spec, type_, path, parameter, axis, want, have)
            shape[axis] = want if isinstance(want, int) else size(want)
        return TensorType(type_.dtype, tuple(shape))

    def _axis(
        self,
        spec: TypeSpec,
        type_: TensorType,
        path: str,
        parameter: str,
        axis: int,
        want: int | str,
        have: Extent,
    ) -> None:
        known: Extent
        if isinstance(want, int):
            known, fact = want, f"{path} is declared {spec} by {self.label}"
            message = f"{path} is {type_}, but axis {axis} must be {want}"
        else:
            if want not in self.found:
                self.found[want] = have, path, axis
                return
            known, origin, origin_axis = self.found[want]
            fact = f"{want} is {known} by axis {origin_axis} of {origin}, and {have} by axis {axis} of {path}"
            message = f"{path} is {type_}, but {want} is {known} and axis {axis} is {have}"
        if known == have:
            return
        error = ShapeError(
            message, facts=fact, location=self.place(parameter), label=f"this call gives {type_}"
        )
        if self.require is not None and (isinstance(known, Size) or isinstance(have, Size)):
            self.require(known, have, error)
        else:
            raise error

    def place(self, parameter: str) -> Location | None:
        """The parameter where it is declared, then the call."""
        return parameter_and_call(self.function, parameter)


def parameter_and_call(function: Callable[..., Any], parameter: str) -> Location | None:
    """Where a parameter is declared, with the call below it; the call alone where there is no source."""
    call = find_location_of_mistake()
    declared = _declared(function, parameter)
    if declared is None:
        return call
    return replace(declared, callers=(replace(call, callers=()), *call.callers) if call else ())


def _declared(function: Callable[..., Any], parameter: str) -> Location | None:
    code = code_of(function)
    if code is None:
        return None
    try:
        tree = ast.parse("".join(linecache.getlines(code.co_filename)))
    except SyntaxError:
        return None
    for node in ast.walk(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
        a = node.args
        for arg in [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, [a.vararg, a.kwarg])]:
            if arg.arg == parameter and first == code.co_firstlineno:
                text = linecache.getline(code.co_filename, arg.lineno).encode()
                start = len(text[: arg.col_offset].decode())
                stop = len(text[: arg.end_col_offset].decode()) if arg.end_lineno == arg.lineno else None
                return Location(code.co_filename, arg.lineno, start, stop, arg.end_lineno, code.co_name)
    return None


def _axes(n: int) -> str:
    return f"{n} {'axis' if n == 1 else 'axes'}"


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def calling_scope(depth: int) -> Mapping[str, Any]:
    """The local names where a decorator runs: annotations in quotes may use them."""
    return sys._getframe(depth + 1).f_locals
