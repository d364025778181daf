"""A kernel as one flat list of instructions: called functions stand where they are called, each time with names of their own.

In:  a Module and a kernel's name.  Out: Flat: code, labels, registers, and the variables of each memory space.
GPU code has no recursion to speak of, and a flat list needs no stack for each thread.
Read before: parse.py. Read next: registers.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from kdsl.emulator.parse import Function, Instruction, Module, Variable, split
from kdsl.errors import EmulatorError

_NAME = re.compile(r"(?<![\w$@%.])[A-Za-z_$%][\w$@%]*")
IGNORED = {"vprintf"}  # printing from a kernel has no effect
FAILS = {"__assertfail", "__assert_fail"}


@dataclass
class Flat:
    """One kernel, ready to be compiled to closures."""

    name: str
    parameters: list[Variable]
    code: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    tables: dict[str, list[str]] = field(default_factory=dict)
    registers: dict[str, str] = field(default_factory=dict)
    variables: list[Variable] = field(default_factory=list)
    most_threads: int | None = None


def flatten(module: Module, name: str) -> Flat:
    """The kernel `name` with every call expanded."""
    kernel = module.functions.get(name)
    if kernel is None or not kernel.is_kernel:
        known = ", ".join(f.name for f in module.functions.values() if f.is_kernel) or "none"
        raise EmulatorError(f"the module has no kernel {name}", facts=f"its kernels: {known}", location=False)
    flat = Flat(name, kernel.parameters, most_threads=kernel.most_threads)
    flat.variables = [v for v in module.variables]
    _Expansion(module, flat).expand(kernel, "", {}, (name,))
    return flat


class _Expansion:
    def __init__(self, module: Module, flat: Flat) -> None:
        self.module, self.flat, self.count = module, flat, 0

    def expand(self, function: Function, prefix: str, renamed: dict[str, str], path: tuple[str, ...]) -> None:
        """Append a function's code; `renamed` maps its parameters to the caller's variables."""
        flat = self.flat
        for v in function.variables:  # shared memory is one for all calls, the rest belongs to the call
            own = f"{function.name}:{v.name}" if v.space in ("shared", "global", "const") else prefix + v.name
            renamed[v.name] = own
            if all(own != other.name for other in flat.variables):
                flat.variables.append(replace(v, name=own))
        known = set(function.labels) | set(function.tables) | {r for r in function.registers if not r.endswith("<")}
        prefixes = {r[:-1] for r in function.registers if r.endswith("<")}
        for r, kind in function.registers.items():
            flat.registers[prefix + r] = kind
        end = f"{prefix}@end"

        def new(match: re.Match[str]) -> str:
            word = match.group()
            if word in renamed:
                return renamed[word]
            if word in known or re.sub(r"\d+$", "", word) in prefixes:
                return prefix + word
            return word

        starts: dict[int, list[str]] = {}
        for label, at in function.labels.items():
            starts.setdefault(at, []).append(prefix + label)
        for name, targets in function.tables.items():
            flat.tables[prefix + name] = [prefix + t for t in targets]
        for i, old in enumerate(function.code):
            for label in starts.pop(i, ()):
                flat.labels[label] = len(flat.code)
            ins = replace(
                old,
                operands=tuple(_NAME.sub(new, o) for o in old.operands),
                predicate=None if old.predicate is None else prefix + old.predicate,
            )
            if ins.op[0] == "call":
                self.call(ins, path)
            elif ins.op[0] == "ret" and prefix:
                flat.code.append(replace(ins, op=("bra",), operands=(end,)))
            else:
                flat.code.append(ins)
        for labels in starts.values():
            for label in labels:
                flat.labels[label] = len(flat.code)
        if prefix:
            flat.labels[end] = len(flat.code)

    def call(self, ins: Instruction, path: tuple[str, ...]) -> None:
        operands = list(ins.operands)
        results = split(operands.pop(0)[1:-1]) if operands[0].startswith("(") else []
        name = operands.pop(0)
        values = split(operands.pop(0)[1:-1]) if operands and operands[0].startswith("(") else []
        function = self.module.functions.get(name)
        if name in IGNORED:
            return
        if name in FAILS:
            self.flat.code.append(replace(ins, op=("trap",), operands=()))
            return
        if function is None or name in path:
            reason = "calls itself" if function is not None else "is not in the module"
            raise EmulatorError(f"{path[0]} calls {name}, which {reason}", facts=f"PTX line {ins.line}", location=False)
        self.count += 1
        prefix = f"{name}#{self.count}:"
        renamed: dict[str, str] = {}
        skip = f"{prefix}@skip"
        if ins.predicate is not None:
            self.flat.code.append(replace(ins, op=("bra",), operands=(skip,), negated=not ins.negated))
        for formal, actual in (*zip(function.parameters, values), *zip(function.results, results)):
            renamed[formal.name] = actual
        self.expand(function, prefix, renamed, (*path, name))
        self.flat.labels[skip] = len(self.flat.code)
