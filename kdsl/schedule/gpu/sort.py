"""SortPlan -> loop IR for a GPU: a stable sort of each row, all elements at once.

    short rows, one kernel: a bitonic network in near memory, a block for each row
        Stream over runs of 2**(k+1): Stream over distances 2**k … 1: every element meets its partner and keeps one of both
    long rows and those of a named length, two kernels: places by counting
        rank[i] = how many elements stand before element i;   then for each position the element that has this rank

Elements are ordered by key, equal ones by their place, so that no two are equal: what comes out is stable whatever was
exchanged on the way. NaN counts as the greatest. What fills a short row up stands behind everything.
Read before: ir/loops.py, transforms/plan_sort.py. Read next: program.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import kdsl.dtypes as dt
from kdsl.dtypes import DType
from kdsl.ir import loops as ir
from kdsl.ir.frame import SortPlan
from kdsl.ir.ops import Op
from kdsl.ir.sizes import Extent, row_major, size
from kdsl.ir.tensor import Value
from kdsl.schedule.gpu.nest import power_above, warps_for
from kdsl.schedule.kernels import kernel
from kdsl.schedule.positions import Memory
from kdsl.target import Target

MOST_NEAR = 2048  # elements of a row that lies near
COUNTED = 16, 128  # positions, and elements that they are compared with at a time


def schedule_sort(plan: SortPlan, memory: Callable[[Value], Memory], target: Target) -> list[ir.Kernel]:
    """The kernels of a sort."""
    sort = _Sort(plan, memory)
    if isinstance(sort.n, int) and 0 < sort.n <= MOST_NEAR:
        return [sort.network(power_above(sort.n))]
    return sort.counted()


def _truth(op: str, *operands: ir.Tile) -> ir.Tile:
    return ir.Map(op, operands, dt.bool_)


def _integer(op: str, *operands: ir.Tile) -> ir.Tile:
    return ir.Map(op, operands, dt.i64)


def _number(value: Extent) -> ir.Tile:
    return ir.Constant(value, dt.i64) if isinstance(value, int) else ir.Scalar(value, dt.i64)


class _Sort:
    def __init__(self, plan: SortPlan, memory: Callable[[Value], Memory]) -> None:
        self.p, self.memory = plan, memory
        first = plan.equations[0]
        (self.x,) = first.values
        self.axis, self.descending = first.attributes["axis"], first.attributes["descending"]
        self.n = self.x.shape[self.axis]
        self.key: DType = self.x.dtype.compute
        self.rows = [(f"row_{d}", n) for d, n in enumerate(self.x.shape) if d != self.axis]
        self.at_row = [size(index) for index, _ in self.rows]
        self.body: list[ir.Statement] = []

    # --- pieces ---------------------------------------------------------------------------------------------------------
    def let(self, name: str, tile: ir.Tile) -> ir.Tile:
        self.body.append(ir.Let(name, tile))
        return ir.Name(name, tuple(tile.shape), tile.dtype)

    def view(self, v: Value, at: Extent) -> ir.View:
        """Element `at` of the row in an argument or result."""
        index = [*self.at_row[: self.axis], at, *self.at_row[self.axis :]]
        return ir.View(self.memory(v), tuple(index), tuple(d == self.axis for d in range(len(index))))

    def before(self, a: ir.Tile, at: ir.Tile, b: ir.Tile, bt: ir.Tile) -> ir.Tile:
        """Whether element a, of place `at`, stands before element b of place `bt`."""
        tie = _truth("lt", at, bt)
        return _truth("or", self.less(a, b), _truth("and", _truth("not", self.less(b, a)), tie))

    def less(self, a: ir.Tile, b: ir.Tile) -> ir.Tile:
        if self.descending:
            a, b = b, a
        if self.key.kind == "bool":
            return _truth("and", _truth("not", a), b)
        less = _truth("lt", a, b)
        if not self.key.is_floating:
            return less
        return _truth("or", less, _truth("and", _truth("is_nan", b), _truth("not", _truth("is_nan", a))))

    def stores(self, at: Extent, key: Callable[[], ir.Tile], place: ir.Tile) -> None:
        for e in self.p.equations:
            if e.result in self.p.outputs:
                self.body.append(ir.Store(self.view(e.result, at), key() if e.op is Op.SORT else place, e.location))

    def finished(self, inner: tuple[ir.Parallel, ...], shape: tuple[int, int]) -> ir.Kernel:
        """The kernel of the statements so far, which start anew."""
        body = tuple(self.body)
        self.body = []
        loops = (*(ir.Parallel(index, 0, n, 1, ()) for index, n in self.rows), *inner)
        for loop in reversed(loops or (ir.Parallel("block", 0, 1, 1, ()),)):
            body = (replace(loop, body=body),)
        return kernel(self.p, body, {"warps": (warps_for(shape), 1), "tile": shape})

    # --- a short row ------------------------------------------------------------------------------------------------------
    def network(self, count: int) -> ir.Kernel:
        """One block sorts a row in near memory."""
        shape, here = (1, count), (size("#1"),)
        keys, places = ir.Near("keys", self.key, (count,)), ir.Near("places", dt.i64, (count,))
        index = ir.Index(1, shape, dt.i64)
        start = ir.Load(self.view(self.x, size("#1")), shape)
        self.body += [keys, places, ir.Put(keys, here, start), ir.Put(places, here, index)]
        outer, self.body = self.body, []
        distance = self.let("distance", _integer("shl", _number(1), _number(size("run") - size("step"))))
        partner = self.let("partner", _integer("xor", index, distance))
        a, at = self.let("mine", ir.Load(ir.View(keys, here), shape)), self.let("place", ir.Load(ir.View(places, here), shape))
        b = self.let("theirs", ir.Gather(keys, (partner,), shape))
        bt = self.let("their_place", ir.Gather(places, (partner,), shape))
        first = self.before(b, bt, a, at)
        if count != self.n:
            end = _number(self.n)
            first = _truth("and", _truth("lt", bt, end), _truth("or", _truth("ge", at, end), first))
        upwards = _truth("eq", _integer("and", _integer("shr", index, _number(size("run") + 1)), _number(1)), _number(0))
        lower = _truth("eq", _integer("and", index, distance), _number(0))
        smaller = _truth("eq", upwards, lower)  # of the pair, does this position keep the one that stands before?
        taken = self.let("taken", _truth("eq", first, smaller))
        self.body += [
            ir.Put(keys, here, ir.Map("where", (taken, b, a), self.key)),
            ir.Put(places, here, ir.Map("where", (taken, bt, at), dt.i64)),
        ]
        steps = ir.Stream("step", 0, size("run") + 1, 1, tuple(self.body), (), "forward")
        runs = ir.Stream("run", 0, count.bit_length() - 1, 1, (steps,), (), "forward")
        self.body = [*outer, runs]
        self.stores(size("#1"), lambda: ir.Load(ir.View(keys, here), shape), ir.Load(ir.View(places, here), shape))
        return self.finished((), shape)

    # --- a long row -------------------------------------------------------------------------------------------------------
    def counted(self) -> list[ir.Kernel]:
        """Ranks by counting, then the element of each rank."""
        shape, n = COUNTED, _number(self.n)
        extents = (*(n for _, n in self.rows), self.n)
        ranks = ir.Buffer(f"{self.p.name}_ranks", dt.i64, extents, row_major(extents), "temporary")
        down = _integer("add", ir.Index(0, (shape[0], 1), dt.i64), _number(size("at")))
        along = _integer("add", ir.Index(1, (1, shape[1]), dt.i64), _number(size("other")))

        def sums(name: str, tile: Callable[[], ir.Tile]) -> ir.Tile:
            """A sum along the whole row, for each position of the tile."""
            outer, self.body = self.body, []
            held = ir.Name(name, shape, dt.i64)
            more = tile()
            carry = ir.Carry(name, ir.Constant(0, dt.i64, shape), _integer("add", held, more))
            stream = ir.Stream("other", 0, self.n, shape[1], tuple(self.body), (carry,))
            self.body = [*outer, stream]
            return ir.Fold("sum", held, 1)

        a = self.let("key", ir.Load(self.view(self.x, size("at") + size("#0")), (shape[0], 1)))

        def standing_before() -> ir.Tile:
            b = self.let("other_key", ir.Load(self.view(self.x, size("other") + size("#1")), (1, shape[1])))
            counts = _truth("and", _truth("lt", along, n), self.before(b, along, a, down))
            return _integer("cast", counts)

        rank = ir.View(ranks, (*self.at_row, size("at") + size("#0")), (*(False for _ in self.rows), True))
        total = sums("count", standing_before)
        self.body.append(ir.Store(rank, total))
        blocks = (ir.Parallel("at", 0, self.n, shape[0], ()),)
        first = replace(self.finished(blocks, shape), name=f"{self.p.name}_ranks")

        def of_this_rank() -> ir.Tile:
            view = ir.View(ranks, (*self.at_row, size("other") + size("#1")), (*(False for _ in self.rows), True), -1)
            hit = _truth("eq", ir.Load(view, (1, shape[1])), down)
            return ir.Map("where", (hit, along, ir.Constant(0, dt.i64)), dt.i64)

        place = self.let("place", sums("found", of_this_rank))

        def key() -> ir.Tile:
            rows = [_number(x) for x in self.at_row]
            indices = (*rows[: self.axis], place, *rows[self.axis :])
            return ir.Gather(self.memory(self.x), indices, (shape[0], 1), _truth("lt", down, n))

        self.stores(size("at") + size("#0"), key, place)
        return [first, self.finished(blocks, shape)]
