"""Arguments to types: what a call looks like to the compiler, and the key under which its specialisation is kept.

In:  the arguments of a call (arrays, tracers, types, static values).  Out: a Signature: the tensor leaves with their types and
strides, the trees that hold the static values, the named sizes with the places they are read from, and the key.
Read before: frontend/trees.py, frontend/annotations.py. Read next: frontend/trace.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import kdsl.dtypes as dt
from kdsl.dtypes import DType, TypeSpec
from kdsl.errors import ArgumentError, DtypeError
from kdsl.frontend.annotations import Bindings, Parameter, parameter_and_call, spec_below
from kdsl.frontend.trees import Tree, flatten, unflatten
from kdsl.ir.sizes import Extent, Size, size
from kdsl.ir.tensor import TensorType
from kdsl.language.tracer import Tracer


@dataclass(frozen=True)
class Leaf:
    """One tensor among the arguments. `strides` in elements where it is not C-contiguous, else None; `positional`: the number
    of its argument, None for a keyword-only one."""

    path: str
    type: TensorType
    strides: tuple[Extent, ...] | None
    positional: int | None


@dataclass(frozen=True)
class SizeSource:
    """Where a call finds a named size: axis `axis` of the shape (or of the strides) of leaf number `leaf`."""

    name: str
    leaf: int
    axis: int
    of_stride: bool = False


@dataclass(frozen=True, eq=False)
class Signature:
    """A call as the compiler sees it; `key` is what its trace depends on, all but the strides.

    `args` and `kwargs` are trees; the caller wrote the first `given` positional arguments, the others are defaults.
    """

    args: tuple[Tree, ...]
    kwargs: Mapping[str, Tree]
    leaves: tuple[Leaf, ...]
    sizes: tuple[SizeSource, ...]
    given: int
    key: Any
    names: tuple[str, ...] = ()  # of the positional arguments

    @property
    def strides(self) -> tuple[tuple[Extent, ...] | None, ...]:
        """Of each leaf: None where it is C-contiguous."""
        return tuple(leaf.strides for leaf in self.leaves)

    def rebuild(self, leaves: Any) -> tuple[list[Any], dict[str, Any]]:
        """The arguments again, with other things in the tensors' places."""
        it = iter(leaves)
        args = [unflatten(tree, it) for tree in self.args]
        return args, {name: unflatten(tree, it) for name, tree in self.kwargs.items()}


@dataclass(eq=False)
class Call:
    """A Signature and the tensors themselves, in the order of its leaves."""

    signature: Signature
    tensors: list[Any]
    wrap: Any = None  # makes results of the kind of the first array argument; None: NumPy's


@dataclass
class Reader:
    """Reads the calls of one callable. `as_array` makes an ndarray of a tensor argument, and None of anything else."""

    function: Callable[..., Any]
    label: str
    parameters: dict[str, Parameter]
    as_array: Callable[[Any], Any]
    wrapper_of: Callable[[Any], Any]
    _signature: inspect.Signature | None = field(default=None, repr=False)

    def form(self) -> inspect.Signature:
        """Python's own signature of the callable."""
        if self._signature is None:
            self._signature = inspect.signature(self.function)
        return self._signature

    def bind(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[list[tuple[str, Parameter, Any]], dict[str, Any], int]:
        """The arguments by parameter, defaults filled in: positional ones, keyword ones, how many positional ones were given."""
        names = list(self.parameters.values())
        plain = [p for p in names if p.kind in (p.kind.POSITIONAL_ONLY, p.kind.POSITIONAL_OR_KEYWORD)]
        if not kwargs and len(args) == len(plain) == len(names):
            return [(p.name, p, a) for p, a in zip(plain, args)], {}, len(args)
        try:
            bound = self.form().bind(*args, **kwargs)
        except TypeError as error:
            raise ArgumentError(
                f"{self.label}: {error}", facts=f"{self.label} is called as {self.label}{self.form()}"
            ) from None
        bound.apply_defaults()
        positional: list[tuple[str, Parameter, Any]] = []
        keywords: dict[str, Any] = {}
        given = 0
        for name, value in bound.arguments.items():
            p = self.parameters[name]
            if p.kind is p.kind.VAR_POSITIONAL:
                positional += [(f"{name}[{i}]", p, v) for i, v in enumerate(value)]
                given += len(value)
            elif p.kind is p.kind.VAR_KEYWORD:
                keywords.update(value)
            elif p.kind is p.kind.KEYWORD_ONLY:
                keywords[name] = value
            else:
                positional.append((name, p, value))
                given += len(positional) <= len(args) or name in kwargs
        return positional, keywords, given

    def completed(self, types: Sequence[Any], statics: Mapping[str, Any]) -> tuple[Any, ...]:
        """The types that a user looks at a kernel for; what she leaves out comes from annotations that fix it."""
        rest = list(self.parameters.values())[len(types) :]
        more = []
        for p in rest:
            if (
                p.spec is None
                or p.name in statics
                or p.default is not inspect.Parameter.empty
                or p.kind is not p.kind.POSITIONAL_OR_KEYWORD
            ):
                break
            more.append(p.spec)
        return (*types, *more)

    def read(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], require: Any = None) -> Call:
        """The call as types, named sizes and a key; ArgumentError, DtypeError or ShapeError where an annotation forbids it.

        `require(left, right, error)` takes equalities of sizes that only a later call can decide (in a kernel within a kernel).
        """
        positional, keywords, given = self.bind(args, kwargs)
        work = _Reading(self, Bindings(self.function, self.label, require))
        arg_trees = tuple(work.argument(name, p, value, i) for i, (name, p, value) in enumerate(positional))
        keyword_trees = {
            name: work.argument(name, self.parameters.get(name, _UNKNOWN), value, None)
            for name, value in keywords.items()
        }
        key = (arg_trees, tuple(keyword_trees.items()), tuple(leaf.type for leaf in work.leaves), given)
        signature = Signature(
            arg_trees,
            keyword_trees,
            tuple(work.leaves),
            tuple(work.sizes),
            given,
            key,
            tuple(name for name, _, _ in positional),
        )
        return Call(signature, work.tensors, work.wrap)


_UNKNOWN = Parameter("", None, None, None)


class _Reading:
    """One call while it is being read."""

    def __init__(self, reader: Reader, bindings: Bindings) -> None:
        self.reader = reader
        self.bindings = bindings
        self.leaves: list[Leaf] = []
        self.tensors: list[Any] = []
        self.sizes: list[SizeSource] = []
        self.named: set[str] = set()
        self.wrap: Any = None

    def argument(self, name: str, parameter: Parameter, value: Any, position: int | None) -> Tree:
        found: list[tuple[str, Any]] = []
        try:
            tree = flatten(self._numbers(value, parameter.spec), self._is_tensor, name, found)
        except ArgumentError as error:
            raise ArgumentError(
                error.message, label=f"a {type(value).__name__}", facts=error.facts,
                location=parameter_and_call(self.reader.function, parameter.name),
            ) from None  # fmt: skip
        if isinstance(parameter.spec, TypeSpec) and tree.kind != "leaf":
            raise ArgumentError(
                f"{name} is a {type(value).__name__}, but {self.reader.label} declares it {parameter.spec}",
                facts=f"{parameter.spec} is a tensor: an array, a NumPy scalar, or a Python number where it is 0-d",
                location=parameter_and_call(self.reader.function, parameter.name),
            )
        specs = _specs(tree, parameter.spec)
        for (path, tensor), spec in zip(found, specs):
            self._leaf(path, tensor, spec, parameter.name or name, position)
        return tree

    def _is_tensor(self, value: Any) -> bool:
        return (
            isinstance(value, (np.ndarray, np.generic, Tracer, TypeSpec, TensorType))
            or self.reader.as_array(value) is not None
        )

    def _numbers(self, value: Any, spec: Any) -> Any:
        """Python numbers become 0-d arrays where the annotation says that they are traced."""
        if isinstance(value, DType) and isinstance(spec, TypeSpec):
            return TypeSpec(value, ())
        if isinstance(spec, TypeSpec):
            return (
                _as_scalar(value, spec)
                if isinstance(value, (bool, int, float)) and not isinstance(value, np.generic)
                else value
            )
        if spec is not None and isinstance(value, (tuple, list)):
            new = [self._numbers(v, spec_below(spec, i)) for i, v in enumerate(value)]
            return type(value)(*new) if hasattr(value, "_fields") else type(value)(new)
        if spec is not None and isinstance(value, dict):
            return {k: self._numbers(v, spec_below(spec, k)) for k, v in value.items()}
        return value

    def _leaf(
        self, path: str, tensor: Any, spec: TypeSpec | None, parameter: str, position: int | None
    ) -> None:
        strides: tuple[Extent, ...] | None = None
        if isinstance(tensor, Tracer):
            type_ = tensor.value.type
        elif isinstance(tensor, (TypeSpec, TensorType)):
            type_ = tensor if isinstance(tensor, TensorType) else _ahead_of_time(tensor, path)
        else:
            if not any(isinstance(x, np.ndarray) for x in self.tensors):
                self.wrap = self.reader.wrapper_of(tensor)
            tensor = self.reader.as_array(tensor)
            dtype = dt.BY_NUMPY.get(tensor.dtype) or dt.BY_NUMPY.get(tensor.dtype.newbyteorder("="))
            if dtype is None:
                raise DtypeError(
                    f"{path} is an array of {tensor.dtype}, which kdsl does not have",
                    facts=f"dtypes are {', '.join(d.name for d in dt.ALL)}", location=self.bindings.place(parameter),
                )  # fmt: skip
            type_ = TensorType(dtype, tensor.shape)
            if not tensor.flags.c_contiguous and not any(s % dtype.bytes for s in tensor.strides):
                strides = tuple(s // dtype.bytes for s in tensor.strides)
        if spec is not None:
            named = self.bindings.check(spec, type_, path, parameter)
            type_ = (
                type_ if isinstance(tensor, Tracer) else named
            )  # in a kernel the outer kernel's sizes go on
        number = len(self.leaves)
        for axis, n in enumerate(type_.shape):
            if isinstance(n, Size) and str(n) not in self.named and not isinstance(tensor, Tracer):
                self.named.add(str(n))
                self.sizes.append(SizeSource(str(n), number, axis))
        if strides is not None and any(isinstance(n, Size) for n in type_.shape):
            strides = tuple(self._stride(path, number, axis, s) for axis, s in enumerate(strides))
        self.leaves.append(Leaf(path, type_, strides, position))
        self.tensors.append(tensor)

    def _stride(self, path: str, leaf: int, axis: int, stride: Extent) -> Extent:
        """Of an argument with named sizes the strides are named too: one program serves all; 0 and 1 are worth their own."""
        if stride in (0, 1):
            return stride
        name = f"{path}.stride{axis}"
        self.sizes.append(SizeSource(name, leaf, axis, of_stride=True))
        return size(name)


def _specs(tree: Tree, spec: Any) -> list[TypeSpec | None]:
    """The spec of each leaf of an argument."""
    if tree.kind == "leaf":
        return [spec if isinstance(spec, TypeSpec) else None]
    keys = tree.keys or range(len(tree.children))
    return [s for key, child in zip(keys, tree.children) for s in _specs(child, spec_below(spec, key))]


def _as_scalar(value: bool | int | float, spec: TypeSpec) -> np.ndarray:
    kind = "bool" if isinstance(value, bool) else "signed" if isinstance(value, int) else "floating"
    if isinstance(spec.dtype, DType):
        dtype = spec.dtype
        fits = {"bool": 0, "signed": 1, "floating": 2}[kind] <= {
            "bool": 0,
            "signed": 1,
            "unsigned": 1,
            "floating": 2,
        }[dtype.kind]
    else:
        dtype = {"bool": dt.bool_, "signed": dt.i64, "floating": dt.f32}[kind]
        if kind == "signed" and spec.dtype is dt.floating:
            dtype = dt.f32
        fits = spec.dtype.admits(dtype)
    if not fits:
        raise DtypeError(f"{value!r} is not {spec}")
    if dtype.is_integer and not np.iinfo(dtype.numpy).min <= value <= np.iinfo(dtype.numpy).max:
        raise DtypeError(f"{value!r} does not fit {dtype}")
    return np.asarray(value, dtype.numpy)


def _ahead_of_time(spec: TypeSpec, path: str) -> TensorType:
    """A type given in an array's place."""
    if not isinstance(spec.dtype, DType) or spec.leading:
        raise ArgumentError(
            f"{path} is {spec}, which is a class of types", hint="give the dtype and every size, kd.f32[4, 8]"
        )
    return TensorType(spec.dtype, tuple(n if isinstance(n, int) else size(n) for n in spec.shape))
