"""A kernel compiled for the emulator: one closure for each instruction, and what a wave must know before it starts.

In:  a Module and a kernel's name.  Out: Kernel: ops, kinds and guards by instruction number; sizes of shared and local memory.
Read before: flatten.py, registers.py. Read next: instructions.py, wave.py.
"""

from __future__ import annotations

import re
from typing import Any

from kdsl.emulator.flatten import flatten
from kdsl.emulator.instructions import compile_instruction
from kdsl.emulator.parse import Instruction, Module, type_bytes
from kdsl.emulator.registers import PARAMETER_WINDOW, Names
from kdsl.emulator.wave import BRANCH

ACCESSES = {"ld", "st", "atom", "red", "ldmatrix", "stmatrix", "cp"}


class Kernel:
    """One kernel of a module. Counters add up over launches until they are cleared."""

    def __init__(self, module: Module, name: str, globals_: dict[str, int]) -> None:
        self.flat = flat = flatten(module, name)
        addresses = dict(globals_)
        static = local = 0
        dynamic = []
        for v in flat.variables:
            if v.space == "shared" and v.size:
                static = -(-static // v.align) * v.align
                addresses[v.name] = static
                static += v.size
            elif v.space == "shared":
                dynamic.append(v)
            elif v.space in ("local", "param"):
                local = -(-local // v.align) * v.align
                addresses[v.name] = local
                local += v.size
        align = max((v.align for v in dynamic), default=1)
        self.dynamic_start = -(-static // align) * align
        addresses.update({v.name: self.dynamic_start for v in dynamic})
        self.static_bytes, self.local_bytes = static, local
        self.parameters: list[tuple[int, int]] = []  # (offset, bytes)
        end = 0
        self.parameter_names: set[str] = set()
        for v in flat.parameters:
            end = -(-end // v.align) * v.align
            self.parameters.append((end, v.size))
            addresses[v.name] = PARAMETER_WINDOW + end
            self.parameter_names.add(v.name)
            end += v.size
        self.parameter_bytes = end
        self.shared_granule = min([4, *(_smallest(i) for i in flat.code if i.op[0] in ACCESSES and _may(i, "shared"))])
        self.global_granule = min([4, *(_smallest(i) for i in flat.code if i.op[0] in ACCESSES and _may(i, "global"))])
        self.names = Names(flat, addresses)
        self.ops: list[Any] = []
        self.kinds: list[int] = []
        self.guards: list[Any] = []
        self.members: list[Any] = []
        for i in [*flat.code, Instruction(("exit",), (), None, False, 0, None)]:
            kind, op, members = compile_instruction(i, self)
            self.ops.append(flat.labels[op] if kind == BRANCH else op)
            self.kinds.append(kind)
            self.members.append(members)
            self.guards.append(None if i.predicate is None else self._guard(i.predicate, i.negated))
        self._touched: dict[int, frozenset[str]] = {}
        flat.code.append(Instruction(("exit",), (), None, False, 0, None))
        self.clear()

    def touched(self, p: int) -> frozenset[str]:
        """The registers that an instruction names."""
        if p not in self._touched:
            words = re.findall(r"[^\s,{}\[\]+|!]+", " ".join(self.flat.code[p].operands))
            self._touched[p] = frozenset(words)
        return self._touched[p]

    def clear(self) -> None:
        """Set the counters back."""
        self.threads_run = [0] * len(self.ops)
        self.warps_run = [0] * len(self.ops)

    def _guard(self, register: str, negated: bool) -> Any:
        i = self.names.slot(register, bool)
        if negated:
            return lambda w: ~w.R[i][w.at]
        return lambda w: w.R[i][w.at]


def _may(i: Instruction, space: str) -> bool:
    """Whether an instruction may touch a space: it names it, or names none."""
    spaces = {s.split("::")[0] for s in i.op} & {"global", "shared", "local", "param", "const"}
    return space in spaces or not spaces or i.op[0] == "cp"


def _smallest(i: Instruction) -> int:
    if i.op[0] in ("cp", "ldmatrix", "stmatrix"):
        return 4  # or 16
    kinds = [p for p in i.op if p[:1] in "busf" and p[1:2].isdigit()]
    return type_bytes(kinds[-1]) if kinds else 4
