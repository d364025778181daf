"""Which kernels a program became, why not fewer, and what they cost on this machine: as data and in words.

In:  a Grouping and the Program that was scheduled from it.  Out: Explanation.
Kernels are counted as they are launched: "kernel" by itself, "packing" for copies that feed a contraction, "finisher" for the
last step of sums that several blocks computed. Read before: ir/frame.py, ir/loops.py, memory.py. Read next: roofline.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kdsl.inspection.memory import MemoryFacts, memory_of
from kdsl.inspection.roofline import show_count, verdict
from kdsl.ir import loops as ir
from kdsl.ir.frame import Grouping, Move, Plan, ScanPlan
from kdsl.ir.sizes import Extent
from kdsl.target import Target


@dataclass(frozen=True)
class KernelFacts:
    """One launch. `reads` and `writes`: buffers as "name: type"; `stored`: the intermediate results among the writes."""

    name: str
    kind: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    bytes: Extent
    operations: Extent
    stored_intermediates: tuple[str, ...]
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    verdict: str
    part: str = ""


@dataclass(frozen=True)
class Explanation:
    """What `explain` found; its text is what it prints."""

    label: str
    kernels: tuple[KernelFacts, ...]
    reasons: tuple[str, ...]
    memory: tuple[MemoryFacts, ...] = ()  # of each program

    @property
    def stored_intermediates(self) -> tuple[str, ...]:
        """Everything that goes through memory from one kernel to another."""
        return tuple(s for k in self.kernels for s in k.stored_intermediates)

    def __str__(self) -> str:
        counts = {
            kind: sum(k.kind == kind for k in self.kernels) for kind in ("kernel", "packing", "finisher")
        }
        head = ", ".join(f"{n} {_plural(kind, n)}" for kind, n in counts.items() if n) or "no kernels"
        lines = [f"{self.label}: {head}"]
        part = ""
        for k in self.kernels:
            if k.part != part:
                part = k.part
                lines.append(f"{part}:")
            lines.append(
                f"  {k.kind} {k.name}: {show_count(k.bytes)}bytes, {show_count(k.operations)}operations"
            )
            lines.append(f"    reads {', '.join(k.reads) or 'nothing'}")
            lines.append(f"    writes {', '.join(k.writes) or 'nothing'}")
            lines += [f"    {note}" for note in k.notes]
            lines.append(f"    {k.verdict}")
        lines += [f"  {_words(m)}" for m in self.memory if m.temporaries != 0]
        if self.reasons:
            lines.append("  why there are not fewer kernels:")
            lines += [f"    {reason}" for reason in self.reasons]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<explanation of {self.label}: {len(self.kernels)} {_plural('kernel', len(self.kernels))}>"


def _words(m: MemoryFacts) -> str:
    """What a program keeps between its kernels, beside what it is given and gives."""
    counts = (f"{show_count(n)}bytes" for n in (m.temporaries, m.arguments, m.results))
    kept, given, made = counts
    return f"memory{' of ' + m.part if m.part else ''}: {kept} between kernels, {given} of arguments, {made} of results"


def _plural(word: str, n: int) -> str:
    return word if n == 1 or word == "packing" else f"{word}s"


def explain(label: str, parts: Sequence[tuple[str, Grouping, ir.Program, Target]]) -> Explanation:
    """The explanation of one program, or of the two of a pullback."""
    kernels: list[KernelFacts] = []
    reasons: list[str] = []
    for name, grouping, program, target in parts:
        mine = [f"{r.first} and {r.second}: {r.reason}" for r in grouping.refusals]
        reasons += [r for r in mine if r not in reasons]
        for kernel in program.kernels:
            own = _own_reasons(kernel, grouping)
            plan = _plan_of(kernel, grouping)
            facts = _facts(kernel, own, target, name if len(parts) > 1 else "")
            kernels.append(replace(facts, notes=(*facts.notes, *_states(plan))) if isinstance(plan, ScanPlan) else facts)
    memory = tuple(memory_of(program, name if len(parts) > 1 else "") for name, _, program, _ in parts)
    return Explanation(label, tuple(kernels), tuple(reasons) if len(kernels) > 1 else (), memory)


def _plan_of(kernel: ir.Kernel, grouping: Grouping) -> Plan | None:
    """The plan behind a kernel; packing kernels are named after theirs."""
    return max((p for p in grouping.plans if kernel.name.startswith(p.name)), key=lambda p: len(p.name), default=None)


def _states(plan: ScanPlan) -> list[str]:
    """What is kept of a scan's states for its gradient, in words."""
    out = []
    if plan.resident is None:
        kept, again = set(plan.kept), bool(plan.replayed)
    else:
        kept, again = {m.into for m in plan.resident.step if isinstance(m, Move) and m.how == "kept"}, bool(plan.resident.states)
    if kept:
        total: Extent = 0
        for v in kept:
            total = total + v.type.count * v.dtype.bytes
        out.append(f"states kept every {plan.every} steps: {show_count(total)}bytes")
    if again:
        out.append(f"states made again from those kept, {plan.every} steps at a time")
    return out


def _own_reasons(kernel: ir.Kernel, grouping: Grouping) -> tuple[str, ...]:
    """Why the plan behind a kernel was not merged with others."""
    plan = _plan_of(kernel, grouping)
    if plan is None:
        return ()
    made = {e.result for e in plan.equations}
    mine = (f"{r.first} and {r.second}: {r.reason}" for r in grouping.refusals if r.values & made)
    return tuple(dict.fromkeys(mine))


def _facts(kernel: ir.Kernel, reasons: tuple[str, ...], target: Target, part: str) -> KernelFacts:
    written, read = accesses(kernel)
    return KernelFacts(
        kernel.name,
        kernel.kind,
        tuple(_show(b) for b in kernel.buffers if b in read and b not in written),
        tuple(_show(b) for b in kernel.buffers if b in written),
        kernel.bytes,
        kernel.operations,
        tuple(_show(b) for b in kernel.buffers if b in written and b.role == "temporary"),
        reasons,
        kernel.notes,
        verdict(kernel.bytes, kernel.operations, target),
        part,
    )


def _show(b: ir.Buffer) -> str:
    return f"{b.name}: {b.dtype}[{', '.join(map(str, b.shape))}]"


def accesses(kernel: ir.Kernel) -> tuple[set[ir.Buffer], set[ir.Buffer]]:
    """The buffers that a kernel writes, and those that it reads."""
    written: set[ir.Buffer] = set()
    read: set[ir.Buffer] = set()
    for statement in ir.walk(kernel.body):
        for tile in ir.nodes(*ir.tiles_of(statement)):
            if (memory := ir.memory_read(tile)) is not None:
                _add(read, memory)
        if isinstance(statement, ir.Store):
            _add(written, statement.view.memory)
        elif isinstance(statement, ir.Copy):
            _add(read, statement.view.memory)
    return written, read


def _add(to: set[ir.Buffer], memory: ir.Memory) -> None:
    root = ir.root(memory)
    if isinstance(root, ir.Buffer):
        to.add(root)
