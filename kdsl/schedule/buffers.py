"""The memory of a program's values: arguments, results, constants, and temporaries for what crosses a kernel's border.

In:  ir.frame.Grouping.  Out: a Buffer for every value; the Program that kernels over these buffers make.
Arguments have the strides that the grouping names; results and temporaries are C-contiguous.
Read before: ir/frame.py. Read next: program.py, gpu/program.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from kdsl.ir import loops as ir
from kdsl.ir.frame import Grouping, ScanPlan
from kdsl.ir.ops import ELEMENTWISE, MOVEMENT, REDUCTIONS, Op
from kdsl.ir.sizes import names_in, row_major
from kdsl.ir.tensor import Shape, Value


class Buffers:
    """The memory of every value: arguments, results, constants; temporaries on demand."""

    def __init__(self, grouping: Grouping) -> None:
        self.g = grouping
        self.by_value: dict[Value, ir.Buffer] = {}
        self.constants: list[object] = []
        self.names: set[str] = set()
        self.reshaped: dict[Value, ir.Reshaped] = {}
        self.statistics = _statistics(grouping)
        for i, v in enumerate(grouping.function.parameters):
            self.add(v, "argument", i, tuple(grouping.strides.get(v, row_major(v.shape))))
        for i, v in enumerate(grouping.results):
            self.add(v, "result", i)
        self.arrays = {
            e.result: e.attributes["array"] for p in grouping.plans for e in p.equations if e.op is Op.CONSTANT
        } | dict(grouping.arrays)

    @property
    def all(self) -> list[ir.Buffer]:
        return list(self.by_value.values())

    def add(self, v: Value, role: str, number: int = 0, strides: Shape | None = None) -> ir.Buffer:
        name = v.name if v.name.isidentifier() else {"argument": "x", "result": "out", "constant": "c"}.get(role, "t")
        if name in self.names:
            base, n = name, 1
            while name in self.names:
                name, n = f"{base}{n}", n + 1
        self.names.add(name)
        dtype = v.dtype.compute if role == "temporary" and v in self.statistics else v.dtype
        buffer = ir.Buffer(name, dtype, v.shape, row_major(v.shape) if strides is None else strides, role, number)
        self.by_value[v] = buffer
        return buffer

    def memory(self, v: Value) -> ir.Buffer | ir.Reshaped:
        """Where a value lies."""
        root = self.g.aliases.get(v)
        if root is not None:
            if v not in self.reshaped:
                memory = self.memory(root)
                self.reshaped[v] = ir.Reshaped(ir.root(memory), v.shape, row_major(v.shape))
            return self.reshaped[v]
        if v not in self.by_value:
            if v in self.arrays:
                self.constants.append(self.arrays[v])
                return self.add(v, "constant", len(self.constants) - 1)
            return self.add(v, "temporary")
        return self.by_value[v]


def _statistics(grouping: Grouping) -> set[Value]:
    """Folds and what is computed of folds alone: short values that many others are made of. Those of f16 and bf16 wait between
    kernels as f32, so that a row's weights belong to the row's own maximum and sum; so do a step's values that lie in memory."""
    found: set[Value] = set()
    for plan in grouping.plans:
        for e in plan.equations:
            of_folds = e.op in ELEMENTWISE | MOVEMENT and e.values and all(v in found for v in e.values)
            if e.op in REDUCTIONS or of_folds:
                found.add(e.result)
        if isinstance(plan, ScanPlan) and plan.resident is not None:  # a step's values are as in registers
            found |= {m.into for m in plan.resident.moves()} - set(plan.outputs)
    return found


def assembled(grouping: Grouping, buffers: Buffers, kernels: Sequence[ir.Kernel]) -> ir.Program:
    """The program of these kernels, with the buffers that they mention and the sizes that those have."""
    used = dict.fromkeys(b for k in kernels for b in k.buffers)
    own = set(buffers.all)
    packed = tuple(b for b in used if b not in own)  # memory that a schedule made for itself
    kept = tuple(b for b in buffers.all if b.role in ("argument", "result") or b in used) + packed
    sizes = sorted({n for k in kernels for n in k.sizes} | {n for b in kept for x in (*b.shape, *b.strides) for n in names_in(x)})
    return ir.Program(grouping.function.name, kept, tuple(kernels), tuple(sizes), tuple(buffers.constants))
