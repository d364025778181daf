"""The compiler from top to bottom: one line per stage, each recorded by name and verified.

In:  a traced Function, the strides of its parameters, a Target.  Out: Compiled: something that can be run, and the record of
every stage on the way, which `stages()`, the goldens, the tour and crash reports all read.
Only this file knows the order of the stages. Read before: docs/decisions/stages.md. Read next: transforms/simplify.py.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kdsl.codegen.llvm.module import emit_module
from kdsl.errors import InternalError, KdslError, TargetError
from kdsl.ir.frame import Grouping
from kdsl.ir.frame_printer import show_frames, show_grouping
from kdsl.ir.loop_printer import show_loops
from kdsl.ir.loop_verify import verify_loops
from kdsl.ir.loops import Program
from kdsl.ir.printer import show
from kdsl.ir.sizes import Extent, Size, evaluate
from kdsl.ir.tensor import Function, Value, attribute_key
from kdsl.ir.verify import verify
from kdsl.runtime import cache
from kdsl.runtime.call import ArgumentSpec, Executable, IndexCheck, ResultSpec
from kdsl.runtime.cpu import asm, load, runs_here
from kdsl.schedule.program import schedule
from kdsl.target import Target
from kdsl.transforms.differentiate import vjp
from kdsl.transforms.expand import expand
from kdsl.transforms.group import group
from kdsl.transforms.prune import prune
from kdsl.transforms.residuals import Split, split_forward_backward
from kdsl.transforms.simplify import simplify

Strides = Sequence[Any]  # for each parameter None (C-contiguous) or its strides in elements


# --- the stages -------------------------------------------------------------------------------------------------------------
def compile_forward(function: Function, strides: Strides, target: Target) -> Compiled:
    """A kernel as it was traced."""
    record = Record(function.name, function.facts)
    with record:
        program = record("traced", function)
        program = record("simplified", simplify(program))
        return _machine_code(program, strides, target, record)


def compile_vjp(function: Function, wanted: Sequence[int], strides: Strides, target: Target) -> Compiled:
    """The gradients of a traced kernel, those numbered `wanted` among its floating parameters'."""
    record = Record(f"{function.name}.vjp", function.facts)
    with record:
        program = record("traced", function)
        program = record("simplified", simplify(program))
        program = record("derived", _gradients(program, wanted))
        return _machine_code(program, strides, target, record)


def compile_half(half: Function, strides: Strides, target: Target, record: Record) -> Compiled:
    """One half of a pullback, as `halves` cut it."""
    record = record.copy(half.name)
    with record:
        program = record("derived", half)
        return _machine_code(program, strides, target, record)


def _machine_code(program: Function, strides: Strides, target: Target, record: Record) -> Compiled:
    """From a simplified tensor program to a Compiled; the same program for the same target is compiled once."""
    key = program_key(program), tuple(strides), target.name
    with _lock:
        known = _programs.get(key)
        if known is not None:
            record.update((stage, output) for stage, output in known.record.items() if stage not in record)
            return replace(known, record=record)
        given = {p: s for p, s in zip(program.parameters, strides) if s is not None}
        expanded = record("expanded", expand(program))
        grouping = record("grouped", group(expanded, target, given))
        loops = record("scheduled", replace(schedule(grouping, target), facts=record.facts))
        text = record("source", emit_module(loops, target))
        executable = _executable(grouping, loops, load(text, target)) if runs_here(target) else None
        return _programs.setdefault(key, Compiled(program, record, target, executable))


def _gradients(program: Function, wanted: Sequence[int]) -> Function:
    derived = vjp(program)
    return prune(replace(derived, results=tuple(derived.results[i] for i in wanted)))


def derivative(function: Function, wanted: Sequence[int]) -> Function:
    """The gradients of a kernel inside another one: a program to be inlined there."""
    return _gradients(simplify(function), wanted)


# --- what comes out ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Compiled:
    """A program for one target: what it computes, the stages it went through, and how to run it (None: not on this machine)."""

    function: Function
    record: Record
    target: Target
    executable: Executable | None

    def run(self, tensors: Sequence[Any], out: Sequence[Any] | None, sizes: Mapping[str, int]) -> list[Any]:
        """The results for these tensors."""
        if self.executable is None:
            raise TargetError(f"this machine cannot run code for {self.target.name}")
        return self.executable(tensors, out, sizes)

    def assembly(self) -> str:
        """The machine code as text."""
        return asm(self.record["source"], self.target)


def _executable(grouping: Grouping, loops: Program, library: Any) -> Executable:
    """The runtime knows no IR: say in its words what the program takes and gives."""
    number = {v: i for i, v in enumerate(grouping.results)}
    arguments = [
        ArgumentSpec(p.dtype, _words(p.shape), _words(grouping.strides[p]) if p in grouping.strides else None)
        for p in grouping.function.parameters
    ]
    checks = [
        IndexCheck(number[c.least], number[c.largest], _length(c.extent), c.location) for c in grouping.checks
    ]
    return Executable(
        library,
        arguments,
        [ResultSpec(r.dtype, len(r.shape)) for r in grouping.results],
        loops.sizes,
        loops.constants,
        checks,
        order=[(b.role, b.number) for b in loops.buffers if b.role != "temporary"],
    )


def _words(extents: Sequence[Extent]) -> tuple[int | str, ...]:
    return tuple(n if isinstance(n, int) else str(n) for n in extents)


def _length(extent: Extent) -> Any:
    return (lambda sizes: evaluate(extent, sizes)) if isinstance(extent, Size) else extent


_programs: dict[Any, Compiled] = {}
_lock = threading.RLock()


def program_key(function: Function) -> Any:
    """What a program computes, without names and places: programs with equal keys share their code."""
    number: dict[Value, int] = {p: i for i, p in enumerate(function.parameters)}
    lines = []
    for e in function.equations:
        operands = tuple(number[o] if isinstance(o, Value) else attribute_key(o) for o in e.operands)
        attributes = tuple(
            (k, program_key(v) if isinstance(v, Function) else attribute_key(v))
            for k, v in e.attributes.items()
        )
        lines.append((e.op, operands, attributes))
        number[e.result] = len(number)
    return (
        tuple(p.type for p in function.parameters),
        tuple(lines),
        tuple(number[r] for r in function.results),
    )


# --- the two halves of a pullback ---------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Halves:
    """A program cut in two (transforms/residuals.py), and the stages up to the cut."""

    split: Split
    record: Record


def halves(function: Function, wanted: Sequence[int]) -> Halves:
    """The forward that also returns what the backward needs, and the backward."""
    record = Record(f"{function.name}.pullback", function.facts)
    with record:
        program = record("traced", function)
        program = record("simplified", simplify(program))
        return Halves(split_forward_backward(program, wanted), record)


# --- the record ---------------------------------------------------------------------------------------------------------------
class Record(dict[str, Any]):
    """Every stage's output by name, in order, each checked before it is handed on. `facts` hold at every call (ir/tensor.py)."""

    def __init__(self, name: str, facts: Sequence[Extent] = (), stages: Mapping[str, Any] | None = None) -> None:
        super().__init__(stages or {})
        self.name, self.facts = name, tuple(facts)

    def __call__(self, stage: str, program: Any) -> Any:
        self[stage] = program
        if isinstance(program, Function):
            verify(program)
        elif isinstance(program, Program):
            verify_loops(program)
        return program

    def copy(self, name: str = "") -> Record:  # type: ignore[override]
        """The same stages so far, to go on from."""
        return Record(name or self.name, self.facts, self)

    def texts(self) -> dict[str, str]:
        """The stages as texts."""
        out = {}
        for stage, program in self.items():
            out[stage] = _text(program)
            if isinstance(program, Grouping):
                out["lowered"] = show_frames(program)
        return out

    def __enter__(self) -> Record:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        """Anything but a user's mistake is a mistake in kdsl: save the stages so far and say where they are."""
        if isinstance(error, Exception) and not isinstance(error, (KdslError, MemoryError, RecursionError)):
            last = next(reversed(self), "none")
            raise InternalError(
                f"kdsl failed after the stage {last!r} of {self.name}: {type(error).__name__}: {error}",
                facts=(
                    "this is a mistake in kdsl, not in your kernel",
                    f"the stages it got to are in {self._save(error)}",
                ),
            ) from error

    def _save(self, error: Exception) -> str:
        texts = {**self.texts(), "error": f"{type(error).__name__}: {error}"}
        folder = (
            cache.folder() / "failures" / hashlib.sha256("".join(texts.values()).encode()).hexdigest()[:12]
        )
        folder.mkdir(parents=True, exist_ok=True)
        for i, (stage, text) in enumerate(texts.items()):
            (folder / f"{i}-{stage}.txt").write_text(text, encoding="utf-8")
        return str(folder)


def _text(program: Any) -> str:
    if isinstance(program, Function):
        return show(program)
    if isinstance(program, Program):
        return show_loops(program)
    if isinstance(program, Grouping):
        return show_grouping(program)
    return str(program)
