"""f.verify(*args): does every target that this machine can run give what the NumPy meaning gives, and are gradients right?

In:  a kernel and the arguments of a call.  Out: Report, one Row each for numpy, cpu, emulator, cuda and gradient; a target that
cannot run says why. The reference is the NumPy meaning in f64. Raises VerifyError at the first disagreement.
Read before: ir/meaning.py, inspection/tolerance.py.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdsl.errors import KdslError, VerifyError
from kdsl.inspection.tolerance import bound_of, worst
from kdsl.ir.meaning import evaluate
from kdsl.ir.tensor import Function

COMPILERS = "numba_cuda", "llvmlite"  # the packages that make PTX
MOST_EMULATED = 1 << 19  # elements of arguments and results: some seconds
STEPS = (1e-4, 1e-6, 1e-3)  # of finite differences; one that meets no kink is enough


@dataclass(frozen=True)
class Row:
    """One comparison. `passed` is None where it could not be made, False where nothing could be compiled; `note` says why, or how
    large the error was."""

    name: str
    passed: bool | None
    note: str


@dataclass(frozen=True)
class Report:
    """What verify found, printed as a table."""

    label: str
    rows: tuple[Row, ...]

    def __getitem__(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)

    def __str__(self) -> str:
        words = {True: "agrees", False: "FAILED", None: "not run"}
        return "\n".join(
            [f"{self.label}:", *(f"  {row.name:<9} {words[row.passed]:<10} {row.note}" for row in self.rows)]
        )


def verify_kernel(kernel: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Report:
    """All rows for one call of a Kernel."""
    return Report(kernel.label, tuple(_rows(kernel, tuple(args), kwargs)))


def _rows(kernel: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Row]:
    call = kernel.read(args, kwargs)
    found = kernel.specialise(call, "cpu")
    function: Function = found.traced.function
    sizes = found.bind(call.tensors)
    exact = evaluate(function, *call.tensors, sizes=sizes, exact=True)
    plain = evaluate(function, *call.tensors, sizes=sizes)
    return [
        _compare("numpy", kernel.label, function, plain, exact),
        _compare("cpu", kernel.label, function, found.run(call.tensors), exact),
        _emulator(kernel, call, function, exact),
        _compiled_for("cuda", kernel, call, function, exact),
        _gradient(kernel, call, function, sizes, args, kwargs),
    ]


def _emulator(kernel: Any, call: Any, function: Function, exact: Sequence[Any]) -> Row:
    """The GPU code, run on the CPU; a mistake that the emulator finds in it is raised."""
    absent = [name for name in COMPILERS if importlib.util.find_spec(name) is None]
    if absent:
        return Row("emulator", None, f"{absent[0]} is not there to compile for GPUs: pip install 'kdsl[cuda]'")
    elements = sum(np.size(x) for x in (*call.tensors, *exact))
    if elements > MOST_EMULATED:
        return Row("emulator", None, f"{elements} elements are too many for the emulator (at most {MOST_EMULATED})")
    return _compiled_for("emulator", kernel, call, function, exact)


def _compiled_for(target: str, kernel: Any, call: Any, function: Function, exact: Sequence[Any]) -> Row:
    """The comparison on a GPU target; a program for which no code can be made is a failure, a GPU that is not there is none."""
    try:
        found = kernel.specialise(call, target)
    except Exception as error:  # whatever a compiler says
        return Row(target, False, f"no GPU code: {type(error).__name__}: {str(error).splitlines()[0]}")
    if found.program.executable is None:
        try:
            found.run(call.tensors)
        except KdslError as error:
            return Row(target, None, error.message)
    return _compare(target, kernel.label, function, found.run(call.tensors), exact)


def _compare(name: str, label: str, function: Function, results: Sequence[Any], exact: Sequence[Any]) -> Row:
    largest = 0.0
    for number, (have, want) in enumerate(zip(results, exact)):
        bound = bound_of(function, want)
        ratio, index = worst(have, want, bound)
        if not ratio <= 1.0:
            where = f"result{f' {number}' if len(exact) > 1 else ''}[{', '.join(map(str, index))}]"
            raise VerifyError(
                f"{label} disagrees with its NumPy meaning ({name})",
                facts=f"{where} is {have[index]}, the reference is {want[index]}, the bound is {bound[index]:.3g}",
            )
        largest = max(largest, ratio)
    return Row(name, True, f"largest error {largest:.2g} of the bound")


def _gradient(
    kernel: Any,
    call: Any,
    function: Function,
    sizes: Mapping[str, int],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Row:
    """The derivative along one random direction, by kernel and by differences of the NumPy meaning in f64."""
    positions = [
        i
        for i, leaf in enumerate(call.signature.leaves)
        if leaf.type.dtype.is_floating and leaf.positional is not None
    ]
    positions = [i for i in positions if call.signature.leaves[i].positional < call.signature.given]
    floating = [i for i, r in enumerate(function.results) if r.dtype.is_floating]
    if not positions or not floating:
        return Row("gradient", None, "there is no floating argument, or no floating result")
    random = np.random.default_rng(0)
    base = [np.asarray(x, np.float64) if i in positions else x for i, x in enumerate(call.tensors)]
    direction = {i: random.standard_normal(base[i].shape) for i in positions}
    shapes = [evaluate(function, *call.tensors, sizes=sizes)[i].shape for i in floating]
    cotangents = [
        random.standard_normal(s).astype(function.results[i].dtype.numpy) for i, s in zip(floating, shapes)
    ]
    flat = [g for _, g in _leaves(kernel.vjp(*args, *cotangents, **kwargs))]
    terms = [float(np.sum(np.asarray(g, np.float64) * direction[i])) for i, g in zip(positions, flat)]
    size = sum(
        float(np.sum(np.abs(np.asarray(g, np.float64) * direction[i]))) for i, g in zip(positions, flat)
    )
    eps = max(
        float(np.finfo(np.float32).eps), *(2.0 ** -_digits(function.results[i].dtype) for i in floating)
    )
    allowed = 1e-6 * size + 64 * eps * size + 1e-12
    differences = []
    for step in STEPS:
        sides = []
        for sign in (1, -1):
            moved = [x + sign * step * direction[i] if i in direction else x for i, x in enumerate(base)]
            results = evaluate(function, *moved, sizes=sizes, exact=True, rounded=False)
            sides.append(
                sum(float(np.sum(results[i] * c.astype(np.float64))) for i, c in zip(floating, cotangents))
            )
        differences.append((sides[0] - sides[1]) / (2 * step))
    error = min(abs(sum(terms) - d) for d in differences)
    if not (error <= allowed + 1e-5 * abs(sum(terms))) and not np.isnan(sum(differences)):
        raise VerifyError(
            f"{kernel.label}.vjp disagrees with finite differences (gradient)"
            + (": the rule that defvjp gave is not the derivative" if kernel.rule is not None else ""),
            facts=f"along one direction it gives {sum(terms):.8g}, differences give {differences[0]:.8g}, "
            f"the bound is {allowed:.3g}",
        )
    return Row("gradient", True, f"error {error:.2g} along a random direction, bound {allowed:.2g}")


def _digits(dtype: Any) -> int:
    return {"f16": 10, "bf16": 7, "f32": 23, "f64": 52}[dtype.name]


def _leaves(value: Any) -> list[tuple[str, Any]]:
    if value is None:
        return []
    if isinstance(value, (tuple, list)):
        return [leaf for v in value for leaf in _leaves(v)]
    if isinstance(value, dict):
        return [leaf for v in value.values() for leaf in _leaves(v)]
    return [("", value)]
