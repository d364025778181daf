"""A product with few rows or few columns -> a fold: every element of the large operand is read once, and no tile multiplies.

In:  a DotPlan without a line whose rows or columns are few.  Out: one kernel.

    Parallel outer …, few rows, columns by 32
        Stream k by 64 (parts): parts += a * b              lane by lane
        Fold(parts) along k, maps, Store

The tile's columns (axis 1) are whatever the large operand's memory runs along: k, or the letter of its own.
Read before: staging.py, dot_tiling.py. Read next: dots.py.
"""

from __future__ import annotations

from collections.abc import Callable

from kdsl.ir import loops as ir
from kdsl.ir.dot_frame import DotFrame, Product
from kdsl.ir.frame import DotPlan, Letter
from kdsl.ir.ops import Op
from kdsl.ir.rules import identity
from kdsl.ir.sizes import Extent, size
from kdsl.ir.tensor import Value
from kdsl.schedule.dot_values import Known, Memory, Place, Values
from kdsl.schedule.gpu.dot_tiling import guess
from kdsl.schedule.gpu.epilogue import finished
from kdsl.schedule.gpu.staging import operand_tile
from kdsl.schedule.kernels import kernel
from kdsl.target import Target

WARPS = 4


def thin_kernel(plan: DotPlan, memory: Callable[[Value], Memory], target: Target) -> ir.Kernel:
    """The kernel of a product with few rows or few columns."""
    return _Thin(plan, memory, target).kernel()


class _Thin:
    """`long` is the letter whose positions a tile holds beside k: the longer side, or an outer letter where there is none."""

    def __init__(self, plan: DotPlan, memory: Callable[[Value], Memory], target: Target) -> None:
        self.plan, self.memory, self.values = plan, memory, Values(plan, memory)
        self.units = target.units
        frame: DotFrame = plan.frame
        self.product: Product = frame.products[0]
        self.size = plan.letters.size
        sides = [x for x in (frame.row, self.product.column) if x is not None]
        letters = sides or list(frame.outer)
        self.long: Letter | None = max(letters, key=lambda x: guess(self.size[x]), default=None)
        self.grid = [x for x in (*frame.outer, *sides) if x != self.long]
        self.outer: dict[Letter, Extent] = {x: size(f"o{i}") for i, x in enumerate(self.grid)}
        self.dtype = self.product.equation.result.dtype.compute
        self.along_k = self._runs_along_k()
        self.shape, self.axis = self._shape()

    def _runs_along_k(self) -> bool:
        """Whether an operand with the long letter lies in memory along k."""
        *_, fast = self.product.k
        e = self.product.equation
        at: dict[Letter, Extent] = {x: size(f"at{x}") for x in self.size}
        at[fast] = size(f"at{fast}") + ir.axis(1)
        if self.long is not None:
            at[self.long] = size(f"at{self.long}") + ir.axis(0)
        for number in (0, 1):
            for load in ir.loads_in(self.values.operand(e, number, Place(at, (8, 8)), Known({}))):
                if load.shape == (8, 8) and self.values.stride(load.view, 0) == 1:
                    return False
        return True

    def _shape(self) -> tuple[tuple[int, int], int]:
        """The tile, and its axis along k."""
        n = 1 if self.long is None else guess(self.size[self.long])
        k = guess(self.size[self.product.k[-1]])
        blocks = 1
        for x in self.grid:
            blocks *= guess(self.size[x])
        wide = 1024 // self.dtype.bytes
        if self.along_k:
            columns = max(32, min(wide, _power(k)))
            rows = min(_power(n), max(1, 4 * wide // columns))
            while rows > 1 and blocks * -(-n // rows) < self.units:
                rows //= 2
            return (rows, columns), 1
        columns = max(8, min(128, _power(n)))
        while columns > 16 and blocks * -(-n // columns) < self.units:
            columns //= 2
        return (max(4, min(4 * wide // columns, _power(k))), columns), 0

    def place(self, own: Extent, shape: tuple[int, int], extra: dict[Letter, Extent], checked: set[Letter]) -> Place:
        at = {**self.outer, **extra}
        if self.long is not None:
            at[self.long] = size("i") + own
        tile = self.shape[1 - self.axis]
        if self.long is not None and not _divides(tile, self.size[self.long]):
            checked = {*checked, self.long}
        return Place(at, shape, frozenset(checked))

    def kernel(self) -> ir.Kernel:
        axis, other = self.axis, 1 - self.axis
        step = self.shape[axis]
        *slow, fast = self.product.k
        index: dict[Letter, Extent] = {x: size(f"s{i}") for i, x in enumerate(slow)}
        edge = set() if _divides(step, self.size[fast]) else {fast}
        place = self.place(ir.axis(other), self.shape, {**index, fast: size("k") + ir.axis(axis)}, edge)
        e = self.product.equation
        pair = tuple(operand_tile(self.values, e, i, place, {fast: axis}) for i in (0, 1))
        start: ir.Tile = ir.Constant(identity(Op.SUM, self.dtype), self.dtype, self.shape)
        names = [f"acc{i}" for i in range(len(slow))] + ["acc"]
        held = [ir.Name(n, self.shape, self.dtype) for n in names]
        inits = [start, *held[:-1]]
        total = ir.Map("add", (held[-1], ir.Map("mul", pair, self.dtype)), self.dtype)
        body: tuple[ir.Statement, ...] = (
            ir.Stream("k", 0, self.size[fast], step, (), (ir.Carry("acc", inits[-1], total),)),
        )
        for i in reversed(range(len(slow))):
            carry = ir.Carry(names[i], inits[i], held[i + 1])
            body = (ir.Stream(f"s{i}", 0, self.size[slow[i]], 1, body, (carry,)),)
        body += self.finish(ir.Fold("sum", held[0], axis))
        if self.long is not None:
            body = (ir.Parallel("i", 0, self.size[self.long], self.shape[other], body),)
        for i, x in reversed(list(enumerate(self.grid))):
            body = (ir.Parallel(f"o{i}", 0, self.size[x], 1, body),)
        if not isinstance(body[0], ir.Parallel) or len(body) != 1:
            body = (ir.Parallel("one", 0, 1, 1, body),)
        return kernel(self.plan, body, {"warps": self._warps(), "rows": self.shape[0], "columns": self.shape[1]})

    def _warps(self) -> tuple[int, int]:
        """Warps side by side where a row is long, else below one another."""
        return (min(WARPS, self.shape[0]), 1) if self.shape[0] > 1 else (1, min(WARPS, max(1, self.shape[1] // 128)))

    def finish(self, total: ir.Tile) -> tuple[ir.Statement, ...]:
        """Maps on the finished sums, and the stores of the outputs."""
        body: list[ir.Statement] = [ir.Let("total", total)]
        place = self.place(ir.axis(1 - self.axis), (total.shape[0], total.shape[1]), {}, set())
        known = Known({self.product.equation.result: ir.Name("total", total.shape, total.dtype)})
        return (*body, *finished(self.values, self.plan, self.memory, place, known, self.plan.outputs))


def _power(n: int) -> int:
    """The least power of two that is at least n."""
    return 1 << max(0, n - 1).bit_length()


def _divides(n: int, extent: Extent) -> bool:
    return isinstance(extent, int) and extent % n == 0
