"""One product with maps around it -> tiles of the result in registers, operands staged through near memory.

In:  a DotPlan without a line, the memory of its values, the target.  Out: kernels in launch order.

    Parallel outer …, parts of k, rows by 128, columns by 128
        Stream slow k …
            Stream k by 32 (acc)                       operands copied several steps ahead (staging.py)
                acc = Dot(acc, rows x k, k x columns)
        maps on the tile, Store

f16 and bf16 operands meet on tensor cores and add up in f32; all other dtypes in their own. A product with few blocks and a
long k is summed in parts, which a second kernel adds in order. A product with few rows or columns is a fold (thin.py).
Read before: ir/dot_frame.py, staging.py. Read next: thin.py, chain.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from kdsl.ir import loops as ir
from kdsl.ir.boxes import boxes_of
from kdsl.ir.dot_frame import DotFrame, Product
from kdsl.ir.frame import DotPlan, Letter, flat
from kdsl.ir.ops import Op
from kdsl.ir.rules import identity
from kdsl.ir.sizes import Extent, ceildiv, minimum, row_major, size
from kdsl.ir.tensor import Value
from kdsl.schedule.dot_values import Known, Memory, Place, Values
from kdsl.schedule.gpu.chain import schedule_gpu_chain
from kdsl.schedule.gpu.dot_tiling import Tiling, band_of, choose_tiling, guess, is_thin, resident, warpgroup_tiling
from kdsl.schedule.gpu.epilogue import finished
from kdsl.schedule.gpu.staging import Staged, on_tensor_cores, operand_dtype, stage
from kdsl.schedule.gpu.thin import thin_kernel
from kdsl.schedule.kernels import kernel
from kdsl.schedule.register_tile import whole
from kdsl.target import Target

PANEL = 64  # columns of warpgroups' results that leave together


def schedule_gpu_dots(
    plan: DotPlan, memory: Callable[[Value], Memory], target: Target, tiling: Any = None
) -> list[ir.Kernel]:
    """The kernels of a plan of contractions, in launch order."""
    frame: DotFrame = plan.frame
    if frame.line is not None:
        return schedule_gpu_chain(plan, memory, target, tiling)
    n = plan.letters.size
    result = flat(plan.letters.values[frame.products[0].equation.result])
    if any(n[x] == 0 for x in result):
        return [nothing(plan, memory)]
    if not frame.products[0].k:
        return [multiplied(plan, memory)]
    if is_thin(plan):
        return [thin_kernel(plan, memory, target)]
    return _Product(plan, memory, target, tiling).kernels()


def nothing(plan: DotPlan, memory: Callable[[Value], Memory]) -> ir.Kernel:
    """The kernel of results without elements: blocks that are never started."""
    frame: DotFrame = plan.frame
    values = Values(plan, memory)
    letters = flat(plan.letters.values[frame.products[0].equation.result])
    place = Place({x: size(f"o{i}") for i, x in enumerate(letters)}, (1, 1))
    body: tuple[ir.Statement, ...] = ()
    for v in plan.outputs:
        view = values.view(memory(v), plan.letters.values[v], v.shape, place)
        dtype = v.dtype.compute
        body += (ir.Store(view, ir.Constant(identity(Op.SUM, dtype), dtype, (1, 1))),)
    for i, x in reversed(list(enumerate(letters))):
        body = (ir.Parallel(f"o{i}", 0, plan.letters.size[x], 1, body),)
    return kernel(plan, body, {"warps": (1, 1)})


def multiplied(plan: DotPlan, memory: Callable[[Value], Memory]) -> ir.Kernel:
    """A product that sums nothing: one multiplication for each element, and the maps on it."""
    frame: DotFrame = plan.frame
    (product,) = frame.products
    values, n = Values(plan, memory), plan.letters.size
    letters = flat(plan.letters.values[product.equation.result])
    tile = dict(zip(reversed(letters), (64, 16), strict=False))
    at: dict[Letter, Extent] = {x: size(f"o{i}") for i, x in enumerate(letters)}
    at |= {x: at[x] + ir.axis(d) for x, d in zip(tile, (1, 0), strict=False)}
    shape = (16 if len(tile) > 1 else 1, 64 if tile else 1)
    place = Place(at, shape, frozenset(x for x, m in tile.items() if not _divides(m, n[x])))
    dtype = product.equation.result.dtype.compute
    pair = tuple(values.operand(product.equation, i, place, Known({})) for i in (0, 1))
    known = Known({product.equation.result: ir.Name("product", shape, dtype)})
    body: list[ir.Statement] = [ir.Let("product", whole(ir.Map("mul", pair, dtype), shape))]
    nest = (*body, *finished(values, plan, memory, place, known, plan.outputs))
    for i, x in reversed(list(enumerate(letters))):
        nest = (ir.Parallel(f"o{i}", 0, n[x], tile.get(x, 1), nest),)
    if not letters:
        nest = (ir.Parallel("one", 0, 1, 1, nest),)
    return kernel(plan, nest, {"warps": (4, 1)})


class _Product:
    """The nest of one product. Loop indices: o0, o1 … outer letters, i the first row, j the first column, k."""

    def __init__(
        self, plan: DotPlan, memory: Callable[[Value], Memory], target: Target, tiling: Tiling | None
    ) -> None:
        self.plan, self.memory, self.values, self.target = plan, memory, Values(plan, memory), target
        self.frame: DotFrame = plan.frame
        self.product: Product = self.frame.products[0]
        self.size = plan.letters.size
        self.rows: Extent = 1 if self.frame.row is None else self.size[self.frame.row]
        self.columns: Extent = 1 if self.product.column is None else self.size[self.product.column]
        self.outer: dict[Letter, Extent] = {x: size(f"o{i}") for i, x in enumerate(self.frame.outer)}
        self.dtype = self.product.equation.result.dtype.compute
        if tiling is None:
            blocks = 1
            for x in self.frame.outer:
                blocks *= guess(self.size[x])
            shape = guess(self.rows), guess(self.columns), guess(self.size[self.product.k[-1]]), blocks
            tiling = self._of_warpgroups(target, *shape)
            tiling = tiling or choose_tiling(target, self._on_tensor_cores(), self.dtype.bytes, *shape)
        self._take(tiling)

    def _take(self, tiling: Tiling) -> None:
        self.t = tiling
        self.steps = {f"o{i}": 1 for i in range(len(self.frame.outer))} | {"i": self.t.rows, "j": self.t.columns}

    def _of_warpgroups(self, target: Target, *shape: int) -> Tiling | None:
        """A tiling for warpgroups, where the target has them and the copy engine can bring both operands."""
        tiling = warpgroup_tiling(target, *shape)
        if target.level != "sm_90a" or tiling is None or not self._on_tensor_cores():
            return None
        self._take(tiling)
        *slow, fast = self.product.k
        operands = self.staged({x: size(f"s{i}") for i, x in enumerate(slow)}, fast, size("k"))
        self.values = Values(self.plan, self.memory)  # the names of this trial are free again
        fills = [x.fill for x in operands]
        return tiling if all(isinstance(c, ir.Copy) and boxes_of(c.view, c.shape) for c in fills) else None

    def _on_tensor_cores(self) -> bool:
        e = self.product.equation
        at = Place({x: size(f"at{x}") for x in self.size}, (1, 1))
        dtypes = [operand_dtype(e, i, self.values.operand(e, i, at, Known({}))) for i in (0, 1)]
        pair = [ir.Near("", d, (1, 1)) for d in dtypes]
        return self.dtype.name == "f32" and on_tensor_cores(*pair)

    # --- places ----------------------------------------------------------------------------------------------------------
    def at(self, row: Extent, column: Extent) -> dict[Letter, Extent]:
        """Where the letters of the result stand, given what counts along its rows and columns."""
        own = {self.frame.row: size("i") + row, self.product.column: size("j") + column}
        return {**self.outer, **{x: e for x, e in own.items() if x is not None}}

    def checked(self, k: Letter | None = None) -> frozenset[Letter]:
        """Letters that are no whole number of tiles."""
        tiles = {self.frame.row: self.t.rows, self.product.column: self.t.columns, k: self.t.k}
        return frozenset(x for x, n in tiles.items() if x is not None and not _divides(n, self.size[x]))

    # --- the sum -----------------------------------------------------------------------------------------------------------
    def staged(self, slow: dict[Letter, Extent], fast: Letter, first: Extent) -> tuple[Staged, Staged]:
        """Both operands at one step of k."""
        p, t = self.product, self.t
        steps = {**self.steps, str(first): t.k}
        out = []
        for number, shape, d in ((p.a, (t.rows, t.k), 1), (p.b, (t.k, t.columns), 0)):
            at = {**self.at(ir.axis(0), ir.axis(1)), **slow, fast: first + ir.axis(d)}
            place = Place(at, shape, self.checked(fast))
            out.append(stage(self.values, p.equation, number, place, {fast: d}, steps, t.depth))
        return out[0], out[1]

    def sums(self, lo: Extent, hi: Extent) -> tuple[list[ir.Statement], ir.Tile]:
        """Statements that add the products from lo to hi of the innermost k, and the sum."""
        t = self.t
        start: ir.Tile = ir.Constant(identity(Op.SUM, self.dtype), self.dtype, (t.rows, t.columns))
        if any(self.size[x] == 0 for x in self.product.k):
            return [], start
        *slow, fast = self.product.k
        index = {x: size(f"s{i}") for i, x in enumerate(slow)}
        a, b = self.staged(dict(index), fast, size("k"))
        names = [f"acc{i}" for i in range(len(slow))] + ["acc"]
        held = [ir.Name(n, start.shape, start.dtype) for n in names]
        inits = [start, *held[:-1]]
        carry = ir.Carry("acc", inits[-1], ir.Dot(held[-1], a.read, b.read))
        body: tuple[ir.Statement, ...] = (ir.Stream("k", lo, hi, t.k, (a.fill, b.fill), (carry,)),)
        for i in reversed(range(len(slow))):
            step = ir.Carry(names[i], inits[i], held[i + 1])
            body = (ir.Stream(f"s{i}", 0, self.size[slow[i]], 1, body, (step,)),)
        return [a.near, b.near, *body], held[0]

    def finish(self, total: ir.Tile) -> list[ir.Statement]:
        """Maps on a finished tile, and the stores of the outputs; of warpgroups 64 columns after 64, which leave together and
        need few registers beside the accumulator."""
        if self.t.bringing and self.product.column is not None and isinstance(total, ir.Name):
            return [s for first in range(0, self.t.columns, PANEL) for s in self._panel(total, first)]
        place = Place(self.at(ir.axis(0), ir.axis(1)), (self.t.rows, self.t.columns), self.checked())
        known = Known({self.product.equation.result: total})
        return finished(self.values, self.plan, self.memory, place, known, self.plan.outputs)

    def _panel(self, total: ir.Tile, first: int) -> list[ir.Statement]:
        """The same of PANEL columns."""
        shape = self.t.rows, PANEL
        place = Place(self.at(ir.axis(0), first + ir.axis(1)), shape, self.checked())
        known = Known({self.product.equation.result: ir.Slice(total, (0, first), shape)})
        return finished(self.values, self.plan, self.memory, place, known, self.plan.outputs)

    # --- the nest ------------------------------------------------------------------------------------------------------
    def kernels(self) -> list[ir.Kernel]:
        depth = self.size[self.product.k[-1]]
        if self.t.parts == 1:
            body, total = self.sums(0, depth)
            return [self._grid([*body, *self.finish(total)])]
        return self._in_parts(depth)

    def _grid(self, body: list[ir.Statement], parts: Extent | None = None) -> ir.Kernel:
        """The loops over blocks around a body."""
        nest: tuple[ir.Statement, ...] = tuple(body)
        band = self.t.rows * band_of(self.t, self.rows, self.columns)
        if band > self.t.rows:
            nest = (ir.Parallel("i", size("band"), size("band") + band, self.t.rows, nest),)
        if self.product.column is not None:
            nest = (ir.Parallel("j", 0, self.columns, self.t.columns, nest),)
        if band > self.t.rows:
            nest = (ir.Parallel("band", 0, self.rows, band, nest),)
        elif self.frame.row is not None:
            nest = (ir.Parallel("i", 0, self.rows, self.t.rows, nest),)
        if parts is not None:
            nest = (ir.Parallel("part", 0, parts, 1, nest),)
        for i, x in reversed(list(enumerate(self.frame.outer))):
            nest = (ir.Parallel(f"o{i}", 0, self.size[x], 1, nest),)
        t = self.t
        schedule = {"warps": t.warps, "rows": t.rows, "columns": t.columns, "k": t.k, "depth": t.depth, "parts": t.parts}
        if t.bringing and any(isinstance(s, ir.Copy) for s in ir.walk(nest)):
            schedule |= {"bringing": t.bringing, "resident": resident(t, self.target)}
        return kernel(self.plan, nest, schedule)

    def _in_parts(self, depth: Extent) -> list[ir.Kernel]:
        """k in parts, each with its own blocks; then a kernel that adds the parts in order."""
        t, part = self.t, size("part")
        each = ceildiv(ceildiv(depth, t.k), t.parts) * t.k
        letters = (*self.frame.outer, *(x for x in (self.frame.row, self.product.column) if x is not None))
        shape = (t.parts, *(self.size[x] for x in letters))
        memory = ir.Buffer(f"{self.plan.name}_parts", self.dtype, shape, row_major(shape), "temporary")
        at = self.at(ir.axis(0), ir.axis(1))
        check = (False, *(x in self.checked() for x in letters))
        view = ir.View(memory, (part, *(at[x] for x in letters)), check if any(check) else ())
        body, total = self.sums(part * each, minimum(part * each + each, depth))
        first = self._grid([*body, ir.Store(view, total)], t.parts)
        first = replace(first, name=f"{first.name}_parts")
        start = ir.Constant(identity(Op.SUM, self.dtype), self.dtype, total.shape)
        held = ir.Name("acc", start.shape, start.dtype)
        add = ir.Carry("acc", start, ir.Map("add", (held, ir.Load(view, total.shape)), self.dtype))
        second = self._grid([ir.Stream("part", 0, t.parts, 1, (), (add,)), *self.finish(held)])
        return [first, second]


def _divides(n: int, extent: Extent) -> bool:
    return isinstance(extent, int) and extent % n == 0
