"""Runs tensor programs through the whole pipeline, on memory that starts as garbage, and compares with their meaning.

forward(function, arrays)            the results of the compiled program
gradients(function, arrays)          its derivative's, and what the derivative means
halves(function, arrays)             the same through the two programs of a pullback
compare(got, function, arrays)       within what rounding may do: how far the meaning moves when the arguments do
With the fixture `poisoned`, results and temporaries are full of NaN (integers: -1) before a kernel writes them.
"""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from kdsl import pipeline
from kdsl.ir.meaning import bind_sizes, evaluate
from kdsl.runtime import call
from kdsl.target import default_target, parse_target
from kdsl.transforms.differentiate import vjp
from kdsl.transforms.simplify import simplify

EPSILON = {"f16": 2.0**-10, "bf16": 2.0**-7, "f32": 2.0**-23, "f64": 2.0**-52}
LAYOUTS = ("C", "F", "steps", "backwards", "permuted", "padded")


class _Native:
    """The runtime's native code; what it allocates is full of ones."""

    def __init__(self, native):
        self.launch, self.release, self.allocate_, self.address = native.launch, native.release, native.allocate, native.address

    def allocate(self, count):
        place = self.allocate_(count)
        if place:
            ctypes.memset(place, 255, count)
        return place


@pytest.fixture
def poisoned(monkeypatch):
    """Elements that no kernel writes are seen: memory is NaN before a call."""
    native, empty = call.native, call.empty

    def garbage(shape, dtype):
        out = empty(shape, dtype)
        if out.size:
            out.reshape(-1).view(np.uint8)[:] = 255
        return out

    monkeypatch.setattr(call, "empty", garbage)
    monkeypatch.setattr(call, "native", lambda: _Native(native()))
    monkeypatch.setattr(call.Executable, "_short", lambda self, *rest: None)


def laid_out(x, layout):
    """The same values under other strides."""
    if x.ndim == 0 or layout == "C":
        return x
    if layout == "F":
        return np.asfortranarray(x)
    if layout == "permuted":
        order = np.roll(np.arange(x.ndim), 1)
        return np.ascontiguousarray(x.transpose(order)).transpose(np.argsort(order))
    if layout == "padded":
        view = np.empty((*x.shape[:-1], x.shape[-1] + 3), x.dtype)[..., 1 : 1 + x.shape[-1]]
    elif layout == "steps":
        view = np.empty(tuple(2 * n + 1 for n in x.shape), x.dtype)[tuple(slice(1, 1 + 2 * n, 2) for n in x.shape)]
    else:
        view = np.empty(x.shape, x.dtype)[tuple(slice(None, None, -1) for _ in x.shape)]
    view[...] = x
    return view


def strides(x):
    return None if x.flags.c_contiguous else tuple(s // x.itemsize for s in x.strides)


def target():
    return parse_target(default_target())


def forward(function, arrays):
    compiled = pipeline.compile_forward(function, [strides(x) for x in arrays], target())
    return compiled.run(arrays, None, bind_sizes(function, arrays))


def cotangents(function, arrays):
    rng = np.random.default_rng(0)
    results = evaluate(function, *arrays)
    pairs = zip(function.results, results, strict=True)
    return [np.asarray(rng.standard_normal(x.shape).astype(r.dtype.numpy)) for r, x in pairs if r.dtype.is_floating]


def wanted(function):
    return tuple(range(sum(p.dtype.is_floating for p in function.parameters)))


def gradients(function, arrays, layout="C"):
    """(gradients, the program they are the results of, its arguments)"""
    every = [*arrays, *(laid_out(x, layout) for x in cotangents(function, arrays))]
    compiled = pipeline.compile_vjp(function, wanted(function), [strides(x) for x in every], target())
    return compiled.run(every, None, bind_sizes(function, arrays)), vjp(simplify(function)), every


def halves(function, arrays):
    """(results, gradients) by the two programs of a pullback"""
    cut = pipeline.Halves(function, wanted(function))
    sizes = bind_sizes(function, arrays)
    first = pipeline.compile_half(cut, "forward", [strides(x) for x in arrays], target()).run(arrays, None, sizes)
    kept = [arrays[i] for i in cut.needed] + first[len(function.results) :]
    given = [*kept, *cotangents(function, arrays)]
    second = pipeline.compile_half(cut, "backward", [strides(x) for x in given], target())
    return first[: len(function.results)], second.run(given, None, sizes)


def compare(got, function, arrays, what=""):
    """Fail, naming an element, where a result is further from the meaning than rounding may have brought it."""
    sizes = bind_sizes(function, arrays)
    types = [e.result.dtype for e in function.equations] + [p.dtype for p in function.parameters]
    epsilon = max((EPSILON[d.name] for d in types if d.is_floating), default=0.0)
    want = evaluate(function, *arrays, sizes=sizes)
    others = [evaluate(function, *_moved(arrays, epsilon, s), sizes=sizes, exact=s % 2 == 0) for s in range(5)]
    floats = [np.abs(np.nan_to_num(x.astype("f8"), posinf=0, neginf=0)) for x in arrays if x.dtype.kind in "fV"]
    size = max((float(x.max()) for x in floats if x.size), default=0.0)
    for number, (have, w) in enumerate(zip(got, want, strict=True)):
        assert have.shape == w.shape and have.dtype == w.dtype
        if w.dtype.kind in "fV":
            a, b = have.astype("f8"), w.astype("f8")
            limit = _limit(b, [o[number].astype("f8") for o in others], epsilon, size)
        else:
            a, b = have, w
            sure = np.all([o[number] == w for o in others], axis=0)
            limit = np.where(sure, 0.0, np.inf)
        with np.errstate(all="ignore"):
            same = (a == b) | (a != a) & (b != b) | np.isinf(limit)
            fine = same if w.dtype.kind not in "fV" else same | (np.abs(a - b) <= limit)
        assert np.all(fine), f"{what} result {number}: {_first(fine, a, b, limit)}"


def _moved(arrays, epsilon, seed):
    """The arguments with every element a few roundings off; seed 0: as they are."""
    rng = np.random.default_rng(seed)
    off = 4 * epsilon * (seed > 0)
    move = lambda x: (x.astype("f8") * (1 + off * rng.choice([-1, 1], x.shape))).astype(x.dtype)  # noqa: E731
    return [move(x) if x.dtype.kind in "fV" else x for x in arrays]


def _limit(b, others, epsilon, size):
    with np.errstate(all="ignore"):
        spread = np.zeros(b.shape)
        for o in others:
            apart = np.where((o == b) | (np.isnan(o) & np.isnan(b)), 0.0, np.abs(o - b))
            spread = np.maximum(spread, np.where(np.isnan(apart), np.inf, apart))
        finite = np.where(np.isfinite(b), np.abs(b), 0.0)
        return 8 * spread + 64 * epsilon * (finite + 0.1 * np.max(finite, initial=0.0) + 0.05 * size) + 1e-300


def _first(fine, a, b, limit):
    at = tuple(int(i) for i in np.argwhere(~fine)[0])
    return f"at {at} {a[at]!r} instead of {b[at]!r}, may be off by {limit[at]:.3g}; {int(np.sum(~fine))} of {fine.size} are wrong"
