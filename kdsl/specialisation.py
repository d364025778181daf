"""One compiled program behind a kernel: made for certain types, run on any arguments that have them.

In:  a tensor Function with what each call must bind and check.  Out: Specialisation.run(tensors) -> results in their structure.
Programs are kept by what they compute, never by name: two specialisations that trace to one program share its code.
Read before: frontend/signature.py, pipeline.py. Read next: kernel.py.
"""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsl.errors import DeviceError, InternalError, ResultError, SpecialisationWarning, TargetError
from kdsl.frontend.signature import Call, Signature, SizeSource
from kdsl.frontend.trace import Traced
from kdsl.frontend.trees import LEAF, Tree, builder, flatten, unflatten
from kdsl.interop.arguments import as_view, is_array, on_device
from kdsl.ir.location import user_stacklevel
from kdsl.ir.ops import Op
from kdsl.ir.sizes import evaluate
from kdsl.ir.tensor import Function
from kdsl.runtime.cuda_arrays import DeviceTensor
from kdsl.runtime.cuda_call import GpuExecutable
from kdsl.runtime.cuda_driver import level, missing
from kdsl.runtime.cuda_short import Handing, ShortCall
from kdsl.runtime.fast import Argument, FastCall, Nested, Number, Same, SizeOf, Tensor
from kdsl.target import Target, default_target, parse_target, size_class

if TYPE_CHECKING:
    from kdsl.pipeline import Compiled

MANY = 16
MOST_RECORDS = 64
MOST_NUMBER = 64  # elements of a named axis that a scan's step folds: so many lie in registers


def compiler() -> Any:
    """pipeline.py, imported when something is compiled first: `import kdsl` costs little."""
    from kdsl import pipeline

    return pipeline


def target_of(name: str | None, tensors: Sequence[Any]) -> str:
    """The target of a call: the one that is named, else where its arguments lie, else the default."""
    tensor = next((x for x in tensors if isinstance(x, DeviceTensor)), None)
    if tensor is None:
        return name or default_target()
    if name is not None and name.partition(":")[0] != "cuda":
        raise DeviceError(f"an argument lies on cuda:{tensor.device}, and the kernel is for {name}")
    return name or f"cuda:{level(tensor.device)}"


def target_named(name: str) -> Target:
    """The Target that a user's text names; plain "cuda" is this machine's GPU, where it has one."""
    if name == "cuda" and missing() is None:
        name = f"cuda:{level()}"
    try:
        return parse_target(name)
    except ValueError as error:
        raise TargetError(str(error)) from None


def wants_tuning(tensors: Sequence[Any]) -> bool:
    """Whether what is compiled for these is to be tuned first: KDSL_TUNE=1 says so, where they are arrays and not types."""
    return os.environ.get("KDSL_TUNE") == "1" and all(isinstance(x, (np.ndarray, DeviceTensor)) for x in tensors)


def target_for(name: str, signature: Signature, tensors: Sequence[Any]) -> Target:
    """The Target of a call. A GPU's knows the classes of the named sizes that rows of the arguments have."""
    target = target_named(name)
    if target.kind == "cpu" or not signature.sizes:
        return target
    rows = {str(leaf.type.shape[-1]) for leaf in signature.leaves if leaf.type.ndim > 1}
    found = sizes_of([s for s in signature.sizes if s.name in rows], tensors)
    return replace(target, classes=tuple(size_class(n, v) for n, v in sorted(found.items()) if isinstance(v, int)))


# --- named sizes that are compiled as numbers -----------------------------------------------------------------------------
Numbers = tuple[tuple[str, int], ...]  # named sizes of a call for whose values there is a program of its own


def numbers_of(traced: Traced, signature: Signature, tensors: Sequence[Any]) -> Numbers:
    """The named sizes that this call's program takes as numbers: the few elements that a scan's step folds."""
    names = folded_names(traced) if signature.sizes else ()
    if not names:
        return ()
    found = sizes_of([s for s in signature.sizes if s.name in names and not s.of_stride], tensors)
    return tuple((n, v) for n, v in sorted(found.items()) if isinstance(v, int) and 0 < v <= MOST_NUMBER)


def folded_names(traced: Traced) -> frozenset[str]:
    """The names whose values may be taken as numbers, found once."""
    found = _names.get(traced)
    if found is None:
        scans = any(e.op is Op.SCAN for e in traced.function.equations)
        found = _names[traced] = compiler().folded_names(traced.function) if scans else frozenset()
    return found


_names: weakref.WeakKeyDictionary[Traced, frozenset[str]] = weakref.WeakKeyDictionary()


def numbered(traced: Traced, numbers: Numbers) -> Function:
    """The traced program with numbers in place of these names."""
    return compiler().with_numbers(traced.function, dict(numbers)) if numbers else traced.function


@dataclass(eq=False)
class Specialisation:
    """A compiled program with the structure of its results and what must hold at each call."""

    compiled: Compiled | None
    traced: Traced
    tree: Tree
    sizes: tuple[SizeSource, ...]
    wrap: Callable[[np.ndarray], Any] | None = (
        None  # makes the callers' kind of array of a result; None: NumPy's own
    )
    exact: bool = False  # other values of the named sizes may have another program

    @property
    def program(self) -> Compiled:
        """The compiled program, where there is one."""
        assert self.compiled is not None
        return self.compiled

    def bind(self, tensors: Sequence[Any]) -> dict[str, int]:
        """The named sizes of a call, checked."""
        sizes = sizes_of(self.sizes, tensors)
        for name, most, each in self.program.target.classes if self.compiled else ():
            n = sizes[name]
            if n % each or n > (most or n):
                raise InternalError(f"{name} = {n} is given to a program for multiples of {each} up to {most}")
        for check in self.traced.checks:
            left, right = evaluate(check.left, sizes), evaluate(check.right, sizes)
            if not (left == right if check.relation == "==" else left >= right):
                raise check.mistake
        return sizes

    def run(
        self, tensors: Sequence[Any], out: Sequence[Any] | None = None, sizes: Mapping[str, int] | None = None
    ) -> list[Any]:
        """The results as a flat list; `sizes` where `bind` has been called already."""
        return self.program.run(tensors, out, self.bind(tensors) if sizes is None else sizes)

    def call(self, tensors: Sequence[Any], out: Any = None, sizes: Mapping[str, int] | None = None) -> Any:
        """The results in the structure that the kernel returns; `out` has that structure too."""
        if out is None:
            return self.structured(self.run(tensors, None, sizes))
        self.run(tensors, self._places(out), sizes)
        return out

    def structured(self, flat: Sequence[Any]) -> Any:
        """Flat results in the structure that the kernel returns, as arrays of the caller's kind."""
        if flat and isinstance(flat[0], DeviceTensor):
            return unflatten(self.tree, map(on_device, flat))
        return unflatten(self.tree, iter(flat if self.wrap is None else map(self.wrap, flat)))

    def _places(self, out: Any) -> list[Any]:
        leaves: list[tuple[str, Any]] = []
        tree = flatten(out, is_array, "out", leaves)
        if _shape_of_tree(tree) != _shape_of_tree(self.tree):
            raise ResultError(f"out= has the structure {tree}, but the results have {self.tree}")
        return [as_view(x) for _, x in leaves]


def sizes_of(sources: Sequence[SizeSource], tensors: Sequence[Any]) -> dict[str, int]:
    """The named sizes that the tensors of a call tell."""
    out = {}
    for s in sources:
        x = tensors[s.leaf]
        out[s.name] = x.strides[s.axis] // x.itemsize if s.of_stride else x.shape[s.axis]
    return out


def _shape_of_tree(tree: Tree) -> Any:
    """A structure in which tuples and lists are one."""
    kind = "sequence" if isinstance(tree.kind, type) and issubclass(tree.kind, (tuple, list)) else tree.kind
    return kind, tree.keys, tree.value, tuple(map(_shape_of_tree, tree.children))


class Specialisations:
    """All that one kernel has been compiled for."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.known: dict[Any, Any] = {}
        self.signatures: list[Signature] = []
        self.numbers: set[Numbers] = set()
        self.warned = False
        self.lock = threading.RLock()

    def put(self, key: Any, made: Any, signature: Signature) -> Any:
        """Keep what was made for this key; say so once when there are very many."""
        self.known[key] = made
        self.signatures.append(signature)
        if len(self.signatures) > MANY:
            self._warn(f"{len(self.signatures)} kinds of arguments", _what_changes(self.signatures))
        return made

    def note(self, numbers: Numbers) -> Numbers:
        """Say so too when named sizes have had very many values that programs are made for."""
        if numbers and numbers not in self.numbers:
            self.numbers.add(numbers)
            if len(self.numbers) > MANY:
                names = [dict(n) for n in self.numbers]
                name = max(sorted({k for n in names for k in n}), key=lambda k: len({n.get(k) for n in names}))
                way_out = f"a scan's step folds it, and has a program for each {name} up to {MOST_NUMBER}; pad it to a few sizes"
                self._warn(f"{len(self.numbers)} values of its sizes", f"the named size {name} keeps changing; {way_out}")
        return numbers

    def _warn(self, what: str, why: str) -> None:
        if not self.warned:
            self.warned = True
            text = f"{self.label} has been compiled for {what}: {why}"
            warnings.warn(text, SpecialisationWarning, stacklevel=user_stacklevel())


def _what_changes(signatures: list[Signature]) -> str:
    """The argument or axis that differs most from call to call, and what to do about it."""
    seen: dict[tuple[str, str], set[Any]] = {}
    for s in signatures:
        for name, tree in (*zip(s.names, s.args), *s.kwargs.items()):
            seen.setdefault(
                (f"the static value of {name}", "annotate it with a 0-d type (kd.f32) to trace it"), set()
            ).add(tree)
        for leaf in s.leaves:
            seen.setdefault((f"the dtype of {leaf.path}", "annotate it with one dtype"), set()).add(
                leaf.type.dtype
            )
            seen.setdefault(
                (f"the number of axes of {leaf.path}", "give it always the same number"), set()
            ).add(leaf.type.ndim)
            for axis, n in enumerate(leaf.type.shape):
                way_out = 'give the axis a name in the annotation (kd.f32["N"]) to compile once for all sizes'
                seen.setdefault((f"axis {axis} of {leaf.path}", way_out), set()).add(n)
    (what, way_out) = max(seen, key=lambda k: len(seen[k]))
    return f"{what} keeps changing; {way_out}"


# --- the short way --------------------------------------------------------------------------------------------------------
class ShortWay:
    """Calls that look like one that was made before go straight to native code (runtime/fast.py, runtime/cuda_short.py).

    Of a kernel, of its vjp or of its pullback. `call(*args, **kwargs)` gives NotImplemented where no record fits; so does
    `into(out, *args, **kwargs)`; `on_gpu` and `into_on_gpu` are for calls that these do not take."""

    def __init__(self) -> None:
        self._fast = FastCall()
        self._gpu: ShortCall | None = None
        self._known: set[Any] = set()
        self.call = self._fast.call
        self.into = self._fast.into

    def on_gpu(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The results on a GPU, or NotImplemented."""
        return NotImplemented if self._gpu is None else self._gpu.call(args, kwargs)

    def into_on_gpu(self, out: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """`out` on a GPU filled, or NotImplemented."""
        return NotImplemented if self._gpu is None else self._gpu.into(out, args, kwargs)

    def remember(
        self,
        found: Specialisation,
        call: Call,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        sizes: Mapping[str, int],
        cotangents: Sequence[Any] = (),
        finish: Callable[[Any], Any] | None = None,
        held: Sequence[int] = (),
        told: Sequence[str] = (),
    ) -> None:
        """Take the short way from now on. `args` are the call's, then the cotangents; `finish`, `held` and `told` as in
        FastCall.add, where the results are not simply the kernel's."""
        executable = found.program.executable
        if isinstance(executable, GpuExecutable):
            plan = plan_of(call, args[: len(args) - len(cotangents)], kwargs, cotangents, _on_gpu)
            if plan is not None:
                single = found.tree == LEAF and finish is None
                handing = Handing(found.tree.count, finish or _structure(found.tree), single, held, told)
                self._add_on_gpu(executable, plan[0], args, kwargs, sizes, handing, plan[1])
            return
        if found.wrap is not None or executable is None:
            return
        depends = found.exact or bool(found.traced.checks or found.program.target.classes)
        depends = depends or any(callable(c.extent) for c in executable.checks)
        checked = tuple(sizes.items()) if depends else None
        key = found, checked, tuple(kwargs), tuple(map(type, args))
        if key in self._known:
            return
        plan = plan_of(call, args[: len(args) - len(cotangents)], kwargs, cotangents)
        if plan is None or len(self._known) >= MOST_RECORDS:
            return
        self._known.add(key)
        single = found.tree == LEAF and finish is None
        finish = finish or _structure(found.tree)
        arguments, fixed = plan
        exact = sizes if checked else None
        self._fast.add(executable, arguments, finish, single, exact, tuple(kwargs), held, told, fixed)

    def _add_on_gpu(
        self,
        executable: GpuExecutable,
        plan: Sequence[Argument],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        sizes: Mapping[str, int],
        handing: Handing,
        fixed: Mapping[int, Any] = {},
    ) -> None:
        if self._gpu is None:
            self._gpu = ShortCall(as_view, on_device)
        self._gpu.add(executable, plan, args, kwargs, sizes, handing, fixed)

    def remember_parts(
        self, found: Specialisation, places: Sequence[int | str], values: Sequence[Any], sizes: Mapping[str, int]
    ) -> None:
        """The same for a program that is called with parts kept from before: each of `values` is an argument of the program
        by its number, or the value of a named size."""
        executable = found.program.executable
        if isinstance(executable, GpuExecutable):
            arguments: list[Argument] = [SizeOf(p) if isinstance(p, str) else Tensor(p) for p in places]
            handing = Handing(found.tree.count, _structure(found.tree))
            self._add_on_gpu(executable, arguments, values, {}, sizes, handing)
            return
        key = found, tuple(map(type, values))
        if found.wrap is not None or executable is None or key in self._known or len(self._known) >= MOST_RECORDS:
            return
        parts = zip(places, values)
        plan = [SizeOf(p) if isinstance(p, str) else _planned(LEAF, x, iter((p,)), _on_cpu) for p, x in parts]
        fits = [x for x in plan if x is not None]
        if len(fits) == len(plan):
            self._known.add(key)
            self._fast.add(executable, fits, _structure(found.tree))


def _structure(tree: Tree) -> Callable[[Any], Any] | None:
    """What makes the results of the tuple that native code gives; None where it is that tuple."""
    flat = tree.kind is tuple and all(child == LEAF for child in tree.children)
    return None if flat or tree == LEAF else builder(tree)


def plan_of(
    call: Call,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    cotangents: Sequence[Any],
    leaf: Callable[[int, Any], Argument | None] | None = None,
) -> tuple[list[Argument], dict[int, Any]] | None:
    """What the arguments of calls like this one are, keyword arguments last, and the tensors that are defaults, by number.

    None where the short way cannot take them. `leaf` says what a tensor of that number and value is."""
    leaf = leaf or _on_cpu
    signature = call.signature
    numbers = iter(range(len(call.tensors)))
    planned = [_planned(tree, value, numbers, leaf) for tree, value in zip(signature.args, args)]
    defaults = [next(numbers) for tree in signature.args[len(args) :] for _ in range(tree.count)]
    planned += [_planned(LEAF, x, iter((len(call.tensors) + i,)), leaf) for i, x in enumerate(cotangents)]
    named: dict[str, Argument | None] = {}
    for name, tree in signature.kwargs.items():
        if name in kwargs:
            named[name] = _planned(tree, kwargs[name], numbers, leaf)
        else:
            defaults += [next(numbers) for _ in range(tree.count)]
    if named.keys() != kwargs.keys():  # a positional parameter is given by its name
        return None
    planned += [named[name] for name in kwargs]
    fits = [x for x in planned if x is not None]
    return (fits, {i: call.tensors[i] for i in defaults}) if len(fits) == len(planned) else None


def _on_cpu(number: int, value: Any) -> Argument | None:
    return Tensor(number) if type(value) is np.ndarray else Number(number) if type(value) is float else None


def _on_gpu(number: int, value: Any) -> Argument:
    return Tensor(number)


def _planned(
    tree: Tree, value: Any, numbers: Iterator[int], leaf: Callable[[int, Any], Argument | None]
) -> Argument | None:
    if tree.kind == "static":
        return Same(value)
    if tree.kind == "leaf":
        return leaf(next(numbers), value)
    if type(value) is not tree.kind or (issubclass(tree.kind, dict) and tree.kind is not dict):
        return None
    values = value.values() if tree.kind is dict else value
    children = [_planned(child, v, numbers, leaf) for child, v in zip(tree.children, values)]
    fits = tuple(x for x in children if x is not None)
    return Nested(tree.kind, fits, tree.keys) if len(fits) == len(children) else None
