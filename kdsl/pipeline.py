"""The compiler from top to bottom: one line per stage, each recorded by name and verified.

In:  a traced Function, the strides of its parameters, a Target.  Out: Compiled: something that can be run, and the record of
every stage on the way.
A program that was compiled before, by this process or an earlier one, is not compiled again: its record is then filled when
somebody looks at it. Only this file knows the order of the stages.
Read before: record.py. Read next: transforms/simplify.py, kept.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kdsl import kept, tuned
from kdsl.codegen.llvm.module import emit_module
from kdsl.errors import InternalError, TargetError
from kdsl.ir.fingerprint import fingerprint, plain
from kdsl.ir.tensor import Function
from kdsl.record import COMPILING, Record, Strides
from kdsl.runtime import cuda_driver
from kdsl.runtime.call import Executable
from kdsl.runtime.cpu import Library, asm, generator, load, runs_here
from kdsl.schedule.program import schedule
from kdsl.target import Target
from kdsl.transforms.derivatives_scan import with_checkpoints
from kdsl.transforms.differentiate import vjp
from kdsl.transforms.expand import expand
from kdsl.transforms.group import group
from kdsl.transforms.numbers import folded_names as folded_names
from kdsl.transforms.numbers import with_numbers as with_numbers
from kdsl.transforms.prune import prune
from kdsl.transforms.residuals import Split, split_forward_backward
from kdsl.transforms.simplify import simplify

if TYPE_CHECKING:
    from kdsl.codegen.cuda.assemble import Assembled
    from kdsl.codegen.cuda.kernels import GpuKernel


# --- the stages -------------------------------------------------------------------------------------------------------------
def compile_forward(function: Function, strides: Strides, target: Target) -> Compiled:
    """A kernel as it was traced, with the schedules that tuning found for it."""
    target = _tuned(function, strides, "forward", target)

    def stages(record: Record) -> Function:
        program = record("traced", function)
        return record("simplified", simplify(program))

    record = Record(function.name, function.facts, stages, strides, target, _machine_code)
    return _compiled(record, function, "forward")


def compile_vjp(function: Function, wanted: Sequence[int], strides: Strides, target: Target) -> Compiled:
    """The gradients of a traced kernel, those numbered `wanted` among its floating parameters'."""

    def stages(record: Record) -> Function:
        program = record("traced", function)
        program = record("simplified", simplify(program))
        return record("derived", _gradients(program, wanted))

    what = "vjp", tuple(wanted)
    target = _tuned(function, strides, what, target)
    record = Record(f"{function.name}.vjp", function.facts, stages, strides, target, _machine_code)
    return _compiled(record, function, what)


def compile_half(halves: Halves, half: str, strides: Strides, target: Target) -> Compiled:
    """The "forward" or the "backward" of a program that is cut in two."""

    def stages(record: Record) -> Function:
        split = halves.split
        record.update(halves.record)
        return record("derived", split.forward if half == "forward" else split.backward)

    what = half, halves.wanted, halves.cut
    target = _tuned(halves.function, strides, what, target)
    record = Record(f"{halves.function.name}_{half}", halves.function.facts, stages, strides, target, _machine_code)
    return _compiled(record, halves.function, what)


def _tuned(function: Function, strides: Strides, what: Any, target: Target) -> Target:
    """The target with the choices that tuning found; one that has choices already keeps them."""
    return target if target.choices else replace(target, choices=tuned.choices_of(function, strides, what, target))


def _machine_code(record: Record) -> str:
    """From a simplified tensor program to the text of its machine code."""
    program = record.program
    given = {p: s for p, s in zip(program.parameters, record.strides) if s is not None}
    expanded = record("expanded", expand(program))
    grouping = record("grouped", group(expanded, record.target, given))
    if record.target.kind != "cpu":
        loops = record("scheduled", replace(_gpu().schedule_gpu(grouping, record.target), facts=record.facts))
        return record("source", _gpu().source(loops, record.target))
    loops = record("scheduled", replace(schedule(grouping, record.target), facts=record.facts))
    return record("source", emit_module(loops, record.target))


def _gpu() -> Any:
    """gpu_stages.py, imported when a GPU or the emulator is asked for: who runs on a CPU need not wait for it."""
    from kdsl import gpu_stages

    return gpu_stages


def _gradients(program: Function, wanted: Sequence[int]) -> Function:
    derived = vjp(program)
    return prune(replace(derived, results=tuple(derived.results[i] for i in wanted)))


def derivative(function: Function, wanted: Sequence[int]) -> Function:
    """The gradients of a kernel inside another one: a program to be inlined there."""
    return _gradients(simplify(function), wanted)


# --- what comes out ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Compiled:
    """A program for one target: the stages it went through, and how to run it (None: not on this machine)."""

    record: Record
    target: Target
    executable: Executable | None

    def run(self, tensors: Sequence[Any], out: Sequence[Any] | None, sizes: Mapping[str, int]) -> list[Any]:
        """The results for these tensors."""
        if self.executable is None:
            if self.target.kind == "cuda":
                cuda_driver.driver()  # says what is missing
            raise TargetError(f"this machine cannot run code for {self.target.name}")
        return self.executable(tensors, out, sizes)

    @property
    def kernels(self) -> tuple[GpuKernel, ...]:
        """What a GPU launches, in order."""
        return self.record["source"].kernels

    def assembly(self) -> str:
        """The machine code as text: a CPU's assembly, or PTX."""
        if self.target.kind == "cpu":
            return asm(self.record["source"], self.target)
        return self.ptx(self.target.level)

    def ptx(self, arch: str) -> str:
        """The PTX modules of all kernels, one after another."""
        return "\n".join(_gpu().ptx_of(kernel, arch) for kernel in self.kernels)

    def sass(self, arch: str) -> str:
        """A GPU's own instructions, of all kernels."""
        return "\n".join(_gpu().sass_of(kernel, arch) for kernel in self.kernels)

    def assembled(self, arch: str) -> tuple[Assembled, ...]:
        """The GPU code of every kernel, with what the linker said of it."""
        return tuple(_gpu().assembled(kernel, arch) for kernel in self.kernels)


def _compiled(record: Record, source: Function, what: Any) -> Compiled:
    """The program that `record` compiles: from this process, from the disk, or compiled now.

    `what` tells with `source` what the program is. A rule of the user's is Python: what it gives is a part of the program."""
    target = record.target
    if target.kind == "cuda" and cuda_driver.missing() is None:
        with COMPILING:
            source, given = _identity(record, source, what)
            return Compiled(record, target, _gpu().on_gpu(record, source, given))
    if target.kind == "emulator":
        record.complete()
        return Compiled(record, target, _gpu().emulated(record, source))
    if target.kind != "cpu" or not runs_here(target):
        record.complete()
        return Compiled(record, target, None)
    with COMPILING:
        source, given = _identity(record, source, what)
        key = repr((given, fingerprint(source), target, generator(target)))
        found = _programs.get(key) or kept.read(key)
        if found is None:
            record.complete()
            library = load(record["source"], target)
            found = kept.describe(record["grouped"], record["scheduled"], library, source), library
            kept.write(key, found[0])
        _programs[key] = found
        return Compiled(record, target, kept.executable(*found, source))


def _identity(record: Record, source: Function, what: Any) -> tuple[Function, Any]:
    """What a program is kept under, besides its target: the program it is made of, and what is made of it."""
    if what != "forward" and _has_rules(source):
        source, what = record.program, "derived"
    return source, plain((what, record.strides, record.facts))


def _has_rules(function: Function) -> bool:
    return any(
        e.attributes.get("rule") is not None or any(_has_rules(f) for f in e.attributes.values() if isinstance(f, Function))
        for e in function.equations
    )


_programs: dict[str, tuple[kept.Kept, Library]] = {}


# --- the two halves of a pullback ---------------------------------------------------------------------------------------------
Cut = tuple[tuple[int, ...], tuple[int, ...]]


class Halves:
    """A program that is cut in two (transforms/residuals.py). Where the cut runs is known; the halves are made when needed.

    `cut`: which parameters the backward needs, and which equations of the simplified program it is given the results of."""

    def __init__(self, function: Function, wanted: Sequence[int]) -> None:
        self.function, self.wanted = function, tuple(wanted)
        self.record = Record(f"{function.name}.pullback", function.facts, self._stages)
        self._split: Split | None = None
        key = None if _has_rules(function) else repr(("halves", fingerprint(function), self.wanted))
        self._known: Cut | None = kept.read_record(key) if key else None
        self.cut: Cut = self._known or self._cut(self.split)
        if key and not self._known:
            kept.write(key, self.cut)

    @property
    def needed(self) -> tuple[int, ...]:
        """The parameters that the backward begins with."""
        return self.cut[0]

    @property
    def residuals(self) -> int:
        """How many values of the forward follow them."""
        return len(self.cut[1])

    @property
    def split(self) -> Split:
        """The two programs."""
        if self._split is None:
            with self.record:
                self._split = split_forward_backward(self.record.program, self.wanted)
            if self._known and self._known != self._cut(self._split):
                raise InternalError(f"{self.function.name} was cut in two at other places before")
        return self._split

    def _stages(self, record: Record) -> Function:
        program = record("traced", self.function)
        return record("simplified", with_checkpoints(simplify(program)))

    def _cut(self, split: Split) -> Cut:
        number = {e.result: i for i, e in enumerate(self.record.program.equations)}
        return split.needed, tuple(number[v] for v in split.residuals)
