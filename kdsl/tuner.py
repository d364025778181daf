"""kd.tune: tries other numbers in a kernel's schedules, checks what they compute, and keeps the fastest on disk.

In:  a kernel, its vjp or its pullback, and the arguments of a call.  Out: Tuned: what was chosen, times before and after. Later
compilations of the same program for the same target, in this process or another, use it.
A schedule asks its target for the numbers that may vary (`target.choice(name, default)`); choices.py says what they may be. One
number after the other is varied, the best so far kept. A candidate is dropped unseen if registers or near memory cannot hold
its tiles, or if it leaves the source as it was; not run if it spills; run and dropped if its results are not the default's.
Read before: target.py, choices.py. Read next: pipeline.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsl.choices import DEFAULT, Choices, fits, joined, space
from kdsl.errors import ArgumentError, KdslError, VerifyError, entry_point
from kdsl.frontend.signature import Call
from kdsl.gradients.pullback import Pullback
from kdsl.gradients.vjp import Vjp
from kdsl.runtime.cuda_arrays import DeviceTensor, put
from kdsl.runtime.cuda_driver import call as of_driver
from kdsl.runtime.cuda_driver import driver
from kdsl.specialisation import compiler, sizes_of, target_for, target_of
from kdsl.target import Target

if TYPE_CHECKING:
    from kdsl.kernel import Kernel
    from kdsl.pipeline import Compiled

SECONDS = 45.0  # after which no candidate is begun
TURNS = 5  # a candidate's time is its best of so many, in turns with the best so far
GAIN = 0.98  # of the best time so far: less is noise


@dataclass(frozen=True)
class Tuned:
    """What tuning found. Times are milliseconds of one call; `tried` counts the candidates that ran. A pullback's choices are
    the forward's, its times the sums of both halves; `backward` has the other half by itself."""

    choices: Choices
    before: float
    after: float
    tried: int
    backward: Tuned | None = None


@dataclass(frozen=True)
class Subject:
    """One program: how it is compiled for a target, what it runs on, what it is kept under."""

    compiled: Callable[[Target], Compiled]
    tensors: Sequence[Any]
    sizes: Mapping[str, int]
    key: tuple[Any, ...]  # function, strides, what is made of it
    target: Target


@entry_point
def tune(f: Kernel | Vjp | Pullback, /, *args: Any, **kwargs: Any) -> Tuned:
    """Find the fastest schedules of a kernel for arguments like these, and use them from now on.

    `kd.tune(f.vjp, *args, *cotangents)` and `kd.tune(f.pullback, *args)` do the same for its derivatives.
    Example: `kd.tune(softmax, x)`
    """
    from kdsl.gradients.arguments import split

    if isinstance(f, Vjp):
        parts = split(f.kernel, args, kwargs)
        found = search(_of_vjp(f, parts))
    elif isinstance(f, Pullback):
        found = tuned_pullback(f, f.kernel.read(args, kwargs))
    elif hasattr(f, "traced"):
        found = tuned(f, f.read(args, kwargs))
    else:
        raise ArgumentError(f"{f!r} is no kernel, nor the vjp or the pullback of one")
    f.forget()
    return found


# --- what is tuned ----------------------------------------------------------------------------------------------------------
def tuned(f: Kernel, call: Call) -> Tuned:
    """What tuning this call of a kernel finds; kept on disk."""
    function, strides = f.choice(call, f.traced(call)).function, call.signature.strides
    target = _target(f, call.signature, call.tensors)

    def compiled(chosen: Target) -> Compiled:
        return compiler().compile_forward(function, strides, chosen)

    sizes = sizes_of(call.signature.sizes, call.tensors)
    return search(Subject(compiled, call.tensors, sizes, (function, strides, "forward"), target))


def tuned_vjp(f: Vjp, parts: Any) -> Tuned:
    """The same for its vjp; `parts` are the arguments taken apart."""
    return search(_of_vjp(f, parts))


def _of_vjp(f: Vjp, parts: Any) -> Subject:
    from kdsl.gradients.arguments import gradient_tree

    call, function = parts.call, f.kernel.choice(parts.call, parts.traced).function
    strides = (*call.signature.strides, *parts.cotangents.strides)
    _, wanted = gradient_tree(call)
    target = _target(f.kernel, call.signature, parts.tensors)

    def compiled(chosen: Target) -> Compiled:
        return compiler().compile_vjp(function, wanted, strides, chosen)

    sizes = sizes_of(call.signature.sizes + parts.cotangents.sizes, parts.tensors)
    return Subject(compiled, parts.tensors, sizes, (function, strides, ("vjp", tuple(wanted))), target)


def tuned_pullback(f: Pullback, call: Call) -> Tuned:
    """The same for both halves of a pullback; the cotangents are random numbers."""
    forward, backward = _of_pullback(f, call)
    first = search(forward)
    second = search(backward)
    return Tuned(first.choices, first.before + second.before, first.after + second.after, first.tried + second.tried, second)


def _of_pullback(f: Pullback, call: Call) -> tuple[Subject, Subject]:
    from kdsl.gradients.arguments import gradient_tree

    traced, strides = f.kernel.differentiable(call), call.signature.strides
    _, wanted = gradient_tree(call)
    function = f.kernel.choice(call, traced).function
    halves = compiler().Halves(function, wanted)
    target = _target(f.kernel, call.signature, call.tensors)
    sizes = sizes_of(call.signature.sizes, call.tensors)

    def half(which: str, own: Sequence[Any]) -> Callable[[Target], Compiled]:
        return lambda chosen: compiler().compile_half(halves, which, own, chosen)

    def subject(which: str, own: Sequence[Any], tensors: Sequence[Any]) -> Subject:
        key = function, own, (which, halves.wanted, halves.cut)
        return Subject(half(which, own), tensors, sizes, key, target)

    forward = subject("forward", strides, call.tensors)
    flat = forward.compiled(replace(target, choices=DEFAULT)).run(call.tensors, None, sizes)
    count = len(traced.function.results)
    results = [x for x, v in zip(flat, traced.function.results) if v.dtype.is_floating]
    random = np.random.default_rng(0)
    cotangents = [_alike(random.standard_normal(x.shape).astype(x.dtype), x) for x in results]
    own = (*(strides[i] for i in halves.needed), *(None,) * (halves.residuals + len(cotangents)))
    tensors = [*(call.tensors[i] for i in halves.needed), *flat[count:], *cotangents]
    return forward, subject("backward", own, tensors)


def _alike(x: Any, like: Any) -> Any:
    """An array where another one lies."""
    return put(x, like.device, like.stream) if isinstance(like, DeviceTensor) else x


def _target(f: Any, signature: Any, tensors: Sequence[Any]) -> Target:
    return replace(target_for(target_of(f.target, tensors), signature, tensors), choices=())


# --- the search -------------------------------------------------------------------------------------------------------------
def search(subject: Subject) -> Tuned:
    """The fastest choices for one program, kept on disk."""
    target = subject.target
    from kdsl.tuned import keep_choices

    default = subject.compiled(replace(target, choices=DEFAULT))
    expected = [_host(x) for x in default.run(subject.tensors, None, subject.sizes)]
    best: Choices = ()
    fastest, sources, tried = default, {str(default.record["source"])}, 0
    ends = time.perf_counter() + SECONDS
    for step in space(target):
        now, winner, winning = best, fastest, best
        for candidate in step:
            choices = joined(now, candidate)
            if time.perf_counter() > ends or not fits(choices, target):
                continue
            other = _compiled(subject, replace(target, choices=choices), sources)
            if other is None:
                continue
            tried += 1
            _check(other.run(subject.tensors, None, subject.sizes), expected, choices)
            theirs, ours = race(_Runner(winner, subject), _Runner(other, subject))
            if ours < GAIN * theirs:
                winner, winning = other, choices
        best, fastest = winning, winner
    before, after = race(_Runner(default, subject), _Runner(fastest, subject))
    if after >= before:
        best, after = (), before
    keep_choices(*subject.key, target, best)
    return Tuned(best, before * 1e3, after * 1e3, tried)


def _compiled(subject: Subject, target: Target, sources: set[str]) -> Compiled | None:
    """A candidate; None where it does not fit or is not proved right, is the same as another, or spills."""
    try:
        other = subject.compiled(target)
    except KdslError:  # what verification cannot prove is not run either
        return None
    source = str(other.record["source"])
    if source in sources:
        return None
    sources.add(source)
    if target.kind == "cuda" and any(code.spill_bytes for code in other.assembled(target.level)):
        return None
    return other


def _check(got: Sequence[Any], expected: Sequence[Any], choices: Choices) -> None:
    """A schedule may add in another order, no more."""
    for x, want in zip(map(_host, got), expected, strict=True):
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


def _host(x: Any) -> np.ndarray[Any, Any]:
    return x.numpy() if isinstance(x, DeviceTensor) else np.asarray(x)


# --- times ------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Runner:
    """Calls of a compiled program; those on a GPU are waited for once, after the last."""

    program: Compiled
    subject: Subject

    def __call__(self, times: int) -> None:
        results: Sequence[Any] = ()
        for _ in range(times):
            results = self.program.run(self.subject.tensors, None, self.subject.sizes)
        for x in _on_device(results):
            of_driver(driver().cuStreamSynchronize, x.stream)


def _on_device(results: Sequence[Any]) -> Iterator[DeviceTensor]:
    first = next((x for x in results if isinstance(x, DeviceTensor)), None)
    return iter(() if first is None else (first,))


def race(*runners: Callable[[int], None]) -> list[float]:
    """The seconds of one call of each, in turns."""
    times = [[_once(run, 1)] for run in runners]
    number = max(1, min(1000, int(2e-3 / max(1e-7, min(t[0] for t in times)))))
    for _ in range(TURNS):
        for t, run in zip(times, runners):
            t.append(_once(run, number))
    return [min(t[1:]) for t in times]


def _once(run: Callable[[int], None], number: int) -> float:
    start = time.perf_counter()
    run(number)
    return (time.perf_counter() - start) / number
