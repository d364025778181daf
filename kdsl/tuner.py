"""kd.tune: tries other numbers in a kernel's schedules, checks what they compute, and keeps the fastest on disk.

In:  a kernel and the arguments of a call.  Out: Tuned: what was chosen, times before and after. Later compilations of the same
program for the same target, in this process or another, use it.
A schedule asks its target for the numbers that may vary (`target.choice(name, default)`); SPACE says what they may be. One
number after the other is varied, the best so far kept. A candidate is dropped unseen if registers cannot hold its tiles, or if
it leaves the source as it was; run and dropped if its results are not those of the default.
Read before: target.py, schedule/register_tile.py. Read next: pipeline.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsl.errors import VerifyError, entry_point
from kdsl.frontend.signature import Call
from kdsl.runtime.cuda_arrays import DeviceTensor
from kdsl.runtime.cuda_driver import call as of_driver
from kdsl.runtime.cuda_driver import driver
from kdsl.specialisation import Specialisation, compiler, target_for, target_of
from kdsl.target import Target

if TYPE_CHECKING:
    from kdsl.kernel import Kernel

Choices = tuple[tuple[str, int], ...]

SPACE: tuple[tuple[Choices, ...], ...] = (  # each line is one step: of its candidates the fastest stays
    tuple((("dot rows", r), ("dot vectors", v)) for r, v in ((4, 2), (4, 3), (6, 2), (8, 2), (10, 2), (12, 2), (8, 3), (5, 4))),
    tuple((("dot depth", n),) for n in (192, 256, 512, 768)),
    tuple((("dot row tiles", n),) for n in (4, 8, 16, 32)),
    tuple((("dot panels", n),) for n in (8, 16, 32, 64)),
    tuple((("row vectors", n),) for n in (1, 2, 8)),
)
DEFAULT: Choices = (("default", 1),)  # no schedule asks for it
SECONDS = 45.0  # after which no candidate is begun
TURNS = 5  # a candidate's time is its best of so many, in turns with the best so far
GAIN = 0.98  # of the best time so far: less is noise


@dataclass(frozen=True)
class Tuned:
    """What tuning found. Times are milliseconds of one call; `tried` counts the candidates that ran."""

    choices: Choices
    before: float
    after: float
    tried: int


@entry_point
def tune(f: Kernel, /, *args: Any, **kwargs: Any) -> Tuned:
    """Find the fastest schedules of a kernel for arguments like these, and use them from now on.

    Example: `kd.tune(softmax, x)`
    """
    call = f.read(args, kwargs)
    found = tuned(f, call)
    f.forget()
    return found


def tuned(f: Kernel, call: Call) -> Tuned:
    """What tuning this call finds; kept on disk."""
    from kdsl.choices import keep_choices

    traced = f.traced(call)
    target = replace(target_for(target_of(f.target, call.tensors), call.signature, call.tensors), choices=())
    tree, sizes = traced.tree, call.signature.sizes

    def compiled(choices: Choices) -> Specialisation:
        chosen = replace(target, choices=choices or DEFAULT)
        program = compiler().compile_forward(traced.function, call.signature.strides, chosen)
        return Specialisation(program, traced, tree, sizes, call.wrap)

    best, default = (), compiled(())
    values = default.bind(call.tensors)
    expected = [np.asarray(x) for x in default.run(call.tensors, None, values)]
    fastest, sources, tried = default, {str(default.program.record["source"])}, 0
    ends = time.perf_counter() + SECONDS
    for step in SPACE:
        now, winner, winning = best, fastest, best
        for candidate in step:
            choices = _joined(now, candidate)
            if time.perf_counter() > ends or not _fits(choices, target):
                continue
            other = compiled(choices)
            source = str(other.program.record["source"])
            if source in sources:
                continue
            sources.add(source)
            tried += 1
            _check(other.run(call.tensors, None, values), expected, choices)
            theirs, ours = race(_runner(winner, call.tensors, values), _runner(other, call.tensors, values))
            if ours < GAIN * theirs:
                winner, winning = other, choices
        best, fastest = winning, winner
    before, after = race(_runner(default, call.tensors, values), _runner(fastest, call.tensors, values))
    if after >= before:
        best, after = (), before
    keep_choices(traced.function, call.signature.strides, target, best)
    return Tuned(best, before * 1e3, after * 1e3, tried)


def _joined(a: Choices, b: Choices) -> Choices:
    return tuple(sorted({**dict(a), **dict(b)}.items()))


def _fits(choices: Choices, target: Target) -> bool:
    """Whether a product's accumulators, two operands and a value beside them have registers."""
    chosen = dict(choices)
    rows, vectors = chosen.get("dot rows", 1), chosen.get("dot vectors", 1)
    return target.kind != "cpu" or rows * vectors + vectors + 1 <= target.vector_registers


def _check(got: Sequence[Any], expected: Sequence[Any], choices: Choices) -> None:
    """A schedule may add in another order, no more."""
    for x, want in zip(map(np.asarray, got), expected, strict=True):
        if want.dtype.kind not in "fV":
            good = bool((x == want).all())
        else:
            eps = 2.0**-8 if want.dtype.kind == "V" else float(np.finfo(want.dtype).eps)
            wide = want.astype(np.float64)
            finite = np.isfinite(wide)
            bound = 64 * eps * max(1.0, float(np.abs(wide[finite]).max(initial=0.0)))
            difference = np.abs(x.astype(np.float64)[finite] - wide[finite])
            good = not (difference > bound).any() and bool((np.isfinite(x.astype(np.float64)) == finite).all())
        if not good:
            raise VerifyError(f"the schedule {dict(choices)} computes something else than the default one", location=False)


def _runner(found: Specialisation, tensors: Sequence[Any], sizes: Mapping[str, int]) -> Callable[[], None]:
    def run() -> None:
        results = found.run(tensors, None, sizes)
        first = next((x for x in results if isinstance(x, DeviceTensor)), None)
        if first is not None:
            of_driver(driver().cuStreamSynchronize, first.stream)

    return run


def race(*runners: Callable[[], None]) -> list[float]:
    """The seconds of one call of each, in turns."""
    times = [[_once(run, 1)] for run in runners]
    number = max(1, min(1000, int(2e-3 / max(1e-7, min(t[0] for t in times)))))
    for _ in range(TURNS):
        for t, run in zip(times, runners):
            t.append(_once(run, number))
    return [min(t[1:]) for t in times]


def _once(run: Callable[[], None], number: int) -> float:
    start = time.perf_counter()
    for _ in range(number):
        run()
    return (time.perf_counter() - start) / number
