"""The arguments of a derivative: which gradients there are, in which structure, and what their cotangents must be.

In:  a call of a kernel, its traced program, and what the user gives as cotangents.  Out: Trees, Cotangents, Split.
Read before: frontend/signature.py, frontend/trees.py. Read next: gradients/vjp.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import kdsl.dtypes as dt
from kdsl.dtypes import TypeSpec
from kdsl.errors import ArgumentError, DtypeError, ShapeError
from kdsl.frontend.signature import Call, SizeSource
from kdsl.frontend.trace import Traced
from kdsl.frontend.trees import LEAF, Static, Tree
from kdsl.interop.arguments import as_view
from kdsl.ir.sizes import Extent, Size, evaluate, size
from kdsl.ir.tensor import TensorType, Value
from kdsl.language.tracer import Tracer
from kdsl.specialisation import sizes_of

Kernel = Any  # kernel.py stands on this file, not the other way round


def floating_results(traced: Traced) -> tuple[Value, ...]:
    """The results that have a cotangent."""
    return tuple(r for r in traced.function.results if r.dtype.is_floating)


def gradient_tree(call: Call) -> tuple[Tree, tuple[int, ...]]:
    """The tuple that vjp returns, and which of the floating leaves it holds: those of the given positional arguments."""
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
    return Tree(
        tree.kind, tuple(_gradient_tree(child, leaf, floating, found) for child in tree.children), tree.keys
    )


_NONE = Tree("static", value=Static(None))


# --- cotangents ------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Cotangents:
    """The cotangents of a call: tensors, the strides of those that are not C-contiguous, and where named strides come from."""

    tensors: tuple[Any, ...]
    strides: tuple[tuple[Extent, ...] | None, ...]
    sizes: tuple[SizeSource, ...]


def sizes_of_call(call: Call) -> Callable[[], Mapping[str, int]]:
    """The named sizes of a call, when somebody asks."""
    return lambda: sizes_of(call.signature.sizes, call.tensors)


def read_cotangents(
    label: str, results: Sequence[Value], given: Sequence[Any], sizes: Callable[[], Mapping[str, int]], before: int
) -> Cotangents:
    """Check that each cotangent has its result's dtype and shape. `before`: how many tensors come before the cotangents."""
    tensors: list[Any] = []
    strides: list[tuple[Extent, ...] | None] = []
    sources: list[SizeSource] = []
    for i, (result, x) in enumerate(zip(results, given)):
        name = f"cotangent {i}" if len(results) > 1 else "the cotangent"
        if isinstance(x, (int, float)) and not isinstance(x, np.generic) and result.shape == ():
            x = np.asarray(x, result.dtype.numpy)
        stride: tuple[Extent, ...] | None = None
        if isinstance(x, Tracer):
            have: TensorType = x.value.type
        elif isinstance(x, (TypeSpec, TensorType)):
            have = x if isinstance(x, TensorType) else TensorType(x.dtype, result.shape)  # type: ignore[arg-type]
        else:
            array = as_view(x)
            if array is None:
                raise ArgumentError(f"{name} of {label} must be {result.type}, not a {type(x).__name__}")
            x = array
            have = TensorType(dt.BY_NUMPY.get(x.dtype, dt.f64), x.shape)
        if have.dtype is not result.dtype:
            raise DtypeError(
                f"{name} of {label} is {have}, but the result is {result.type}",
                facts="a cotangent has the result's dtype",
            )
        want = result.shape
        if not isinstance(x, (Tracer, TypeSpec, TensorType)) and any(isinstance(n, Size) for n in want):
            known = sizes()
            want = tuple(evaluate(n, known) for n in want)
        if have.shape != want:
            shown = TensorType(result.dtype, want)
            raise ShapeError(
                f"{name} of {label} is {have}, but the result is {shown}",
                facts="a cotangent has the result's shape",
            )
        if isinstance(x, np.ndarray) and not x.flags.c_contiguous:
            stride = tuple(s // x.itemsize for s in x.strides)
            if want != result.shape:
                named: list[Extent] = []
                for axis, s in enumerate(stride):
                    key = f"cotangent{i}.stride{axis}"
                    named.append(s if s in (0, 1) else size(key))
                    if s not in (0, 1):
                        sources.append(SizeSource(key, before + i, axis, of_stride=True))
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
    refused: Exception | None = None
    for count in range(len(args) + 1):
        front, last = args[: len(args) - count], args[len(args) - count :]
        try:
            kernel.reader.bind(front, kwargs)
        except ArgumentError as error:
            tried.append(error.message)
            continue
        try:
            call = kernel.read(front, kwargs)
            traced = kernel.differentiable(call)
        except Exception as error:  # a cotangent was taken for an argument that has a default: the body fails in any way
            refused = refused or error
            continue
        results = floating_results(traced)
        if len(results) == count:
            read = read_cotangents(f"{kernel.label}.vjp", results, last, sizes_of_call(call), len(call.tensors))
            return Split(call, traced, read)
        tried.append(
            f"with {len(front)} arguments {kernel.label} has {len(results)} floating results, and {count} cotangents are left"
        )
    if refused is not None:
        raise refused
    raise ArgumentError(
        f"{kernel.label}.vjp takes the arguments of {kernel.label}, then one cotangent for each floating result; got {len(args)}",
        facts=next(
            (t for t in tried if t.startswith("with ")),
            f"{kernel.label} is called as {kernel.label}{kernel.reader.form()}",
        ),
    )
