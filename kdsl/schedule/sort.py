"""SortPlan -> loop IR: a stable merge sort of each row.

    Parallel over the other axes:
        keys[0], places[0] = the row, 0 1 2 …
        Stream over merges p (runs of w = 2**p elements become runs of 2w), from keys[p % 2] to keys[1 - p % 2]:
            Stream over pairs of runs:
                Stream (forward) over their elements, carrying how far each run is used up
        the results = keys[merges % 2], places[merges % 2]

The right run's element goes first only if it is strictly before the left one's: equal ones keep their order. NaN counts as
the greatest. Both copies of a short row are near memory; those of a long row, or of one with a named size, are temporaries.
Read before: ir/loops.py, transforms/plan_sort.py. Read next: program.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import kdsl.dtypes as dt
from kdsl.dtypes import DType
from kdsl.ir import loops as ir
from kdsl.ir.frame import SortPlan
from kdsl.ir.ops import Op
from kdsl.ir.sizes import Extent, row_major, size
from kdsl.ir.tensor import Equation, Value
from kdsl.schedule.kernels import kernel
from kdsl.schedule.positions import Memory
from kdsl.target import Target

NEAR_BYTES = 64 * 1024  # of both copies of a row
MOST_MERGES = 63


def schedule_sort(plan: SortPlan, memory: Callable[[Value], Memory], target: Target) -> list[ir.Kernel]:
    """The kernel of a sort."""
    return [_Sort(plan, memory, target).kernel()]


def name(name: str, dtype: DType = dt.i64) -> ir.Name:
    """What a 0-d Let or carry holds."""
    return ir.Name(name, (), dtype)


def number(value: Extent) -> ir.Tile:
    return ir.Constant(value, dt.i64) if isinstance(value, int) else ir.Scalar(value, dt.i64)


def integer(op: str, *operands: ir.Tile) -> ir.Map:
    return ir.Map(op, operands, dt.i64)


def truth(op: str, *operands: ir.Tile) -> ir.Map:
    return ir.Map(op, operands, dt.bool_)


class RowSort:
    """The sort of one row; a subclass says where rows lie. `label` makes the names of two sorts in one kernel differ."""

    keys: Memory
    places: Memory | None

    def __init__(self, equations: Sequence[Equation], wanted: Sequence[Value], target: Target, label: str = "") -> None:
        self.equations, self.wanted, self.label = equations, wanted, label
        first = equations[0]
        (self.x,) = first.values
        self.axis, self.descending = first.attributes["axis"], first.attributes["descending"]
        self.n = self.x.shape[self.axis]
        self.width = target.lanes(self.x.dtype.bytes) * 4
        self.with_places = any(e.op is Op.ARGSORT for e in equations)
        self.at_row: list[Extent] = []  # the indices of the row in copies that are no near memory
        self.body: list[ir.Statement] = []

    def own(self, hint: str) -> str:
        return hint + self.label

    def at(self, hint: str) -> Extent:
        return size(self.own(hint))

    def named(self, hint: str, dtype: DType = dt.i64) -> ir.Name:
        return name(self.own(hint), dtype)

    def outside(self, v: Value, at: Extent, check: bool) -> ir.View:
        """The elements `at` of the row in the operand or a result."""
        raise NotImplementedError

    # --- memory -------------------------------------------------------------------------------------------------------------
    def copies(self, label: str, dtype: DType, rows: Sequence[Extent]) -> Memory:
        """Two rows, near where their size is known and small; else in memory of `rows` such rows."""
        if isinstance(self.n, int) and 2 * self.n * (self.x.dtype.bytes + 8) <= NEAR_BYTES:
            return ir.Near(label, dtype, (2, max(1, self.n)))
        shape = (*rows, 2, self.n)
        return ir.Buffer(label, dtype, shape, row_major(shape), "temporary")

    def view(self, memory: Memory, copy: Extent, at: Extent, check: bool) -> ir.View:
        """Element `at` of a copy of the row."""
        outer = () if isinstance(memory, ir.Near) else tuple(self.at_row)
        return ir.View(memory, (*outer, copy, at), (*(False for _ in outer), False, check))

    def write(self, memory: Memory, copy: Extent, at: Extent, tile: ir.Tile, check: bool) -> ir.Statement:
        if isinstance(memory, ir.Near) and not check:
            return ir.Put(memory, (copy, at), tile)
        return ir.Store(self.view(memory, copy, at, check), tile)

    # --- the nest -----------------------------------------------------------------------------------------------------------
    def sort(self) -> None:
        """The statements of one row."""
        self.along("i", self.begin)
        merges = self.merges()
        self.body.append(ir.Stream(self.own("p"), 0, merges, 1, tuple(self.merge()), (), "forward"))
        final = merges % 2
        self.along("k", lambda at, shape, check: self.finish(final, at, shape, check))

    def along(self, index: str, inside: Callable[[Extent, ir.TileShape, bool], list[ir.Statement]]) -> None:
        """Statements for tiles of the whole row, the last of which may reach over its end."""
        width = min(self.width, max(1, self.n)) if isinstance(self.n, int) else self.width
        check = not (isinstance(self.n, int) and self.n % width == 0)
        at = self.at(index) + size("#0")
        self.body.append(ir.Stream(self.own(index), 0, self.n, width, tuple(inside(at, (width,), check))))

    def begin(self, at: Extent, shape: ir.TileShape, check: bool) -> list[ir.Statement]:
        out = [self.write(self.keys, 0, at, ir.Load(self.outside(self.x, at, check), shape), check)]
        if self.places is not None:
            position = integer("add", number(self.at("i")), ir.Index(0, shape, dt.i64))
            out.append(self.write(self.places, 0, at, position, check))
        return out

    def finish(self, final: Extent, at: Extent, shape: ir.TileShape, check: bool) -> list[ir.Statement]:
        out: list[ir.Statement] = []
        for e in self.equations:
            if e.result in self.wanted:
                source = self.keys if e.op is Op.SORT else self.places
                assert source is not None
                tile = ir.Load(self.view(source, final, at, check), shape)
                out.append(ir.Store(self.outside(e.result, at, check), tile, e.location))
        return out

    def merges(self) -> Extent:
        """How often runs must double until one run is the whole row: how many powers of two are less than its length."""
        if isinstance(self.n, int):
            return max(0, (self.n - 1).bit_length()) if self.n else 0
        less = truth("lt", integer("shl", ir.Constant(1, dt.i64), number(self.at("power"))), number(self.n))
        count = integer("add", self.named("doubled"), ir.Map("cast", (less,), dt.i64))
        carry = ir.Carry(self.own("doubled"), ir.Constant(0, dt.i64), count)
        self.body.append(ir.Stream(self.own("power"), 0, MOST_MERGES, 1, (), (carry,)))
        most = integer("minimum", self.named("doubled"), ir.Constant(MOST_MERGES, dt.i64))
        bounded = integer("maximum", most, ir.Constant(0, dt.i64))  # the verifier sees the bounds
        self.body.append(ir.Let(self.own("merges"), bounded))
        return self.at("merges")

    def merge(self) -> list[ir.Statement]:
        """All pairs of neighbouring runs of 2**p elements."""
        p, n = number(self.at("p")), number(self.n)
        zero, one, two = (ir.Constant(k, dt.i64) for k in range(3))
        pairs = integer("add", integer("shr", integer("sub", n, one), integer("add", p, one)), one)
        run = self.named("run")

        def inside(x: ir.Tile) -> ir.Tile:  # the lower bound is there for the verifier
            return integer("minimum", integer("maximum", x, zero), n)

        pair: list[ir.Statement] = [
            ir.Let(self.own("start"), inside(integer("mul", integer("mul", number(self.at("q")), two), run))),
            ir.Let(self.own("middle"), inside(integer("add", self.named("start"), run))),
            ir.Let(self.own("end"), inside(integer("add", self.named("middle"), run))),
            self.pair(),
        ]
        return [
            ir.Let(self.own("run"), integer("shl", one, p)),
            ir.Let(self.own("pairs"), pairs),
            ir.Stream(self.own("q"), 0, self.at("pairs"), 1, tuple(pair), (), "forward"),
        ]

    def pair(self) -> ir.Statement:
        """One element of the merged run after the other."""
        source, to = self.at("p") % 2, (self.at("p") + 1) % 2
        left = ir.Load(self.view(self.keys, source, self.at("left"), True), ())
        right = ir.Load(self.view(self.keys, source, self.at("right"), True), ())
        key = left.dtype
        more = truth("lt", self.named("right"), self.named("end"))
        none = truth("ge", self.named("left"), self.named("middle"))
        first = truth("and", more, truth("or", none, self.before(self.named("b", key), self.named("a", key))))
        body: list[ir.Statement] = [
            ir.Let(self.own("left"), self.named("lefts")),
            ir.Let(self.own("right"), self.named("rights")),
            ir.Let(self.own("a"), left),
            ir.Let(self.own("b"), right),
            ir.Let(self.own("take"), first),
        ]
        take = self.named("take", dt.bool_)
        chosen = ir.Map("where", (take, self.named("b", key), self.named("a", key)), key)
        body.append(ir.Store(self.view(self.keys, to, self.at("o"), False), chosen))
        if self.places is not None:
            at = ir.Map("where", (take, self.named("right"), self.named("left")), dt.i64)
            body.append(ir.Let(self.own("from"), at))
            place = ir.Load(self.view(self.places, source, self.at("from"), True), ())
            body.append(ir.Store(self.view(self.places, to, self.at("o"), False), place))
        step = ir.Map("cast", (take,), dt.i64)
        next_left = integer("sub", integer("add", self.named("left"), ir.Constant(1, dt.i64)), step)
        carries = (
            ir.Carry(self.own("lefts"), self.named("start"), next_left),
            ir.Carry(self.own("rights"), self.named("middle"), integer("add", self.named("right"), step)),
        )
        return ir.Stream(self.own("o"), self.at("start"), self.at("end"), 1, tuple(body), carries, "forward")

    def before(self, a: ir.Tile, b: ir.Tile) -> ir.Tile:
        """Whether a stands strictly before b."""
        if self.descending:
            a, b = b, a
        if a.dtype.kind == "bool":
            return truth("and", truth("not", a), b)
        less = truth("lt", a, b)
        if not a.dtype.is_floating:
            return less
        return truth("or", less, truth("and", truth("is_nan", b), truth("not", truth("is_nan", a))))


class _Sort(RowSort):
    """A kernel of its own: rows side by side."""

    def __init__(self, plan: SortPlan, memory: Callable[[Value], Memory], target: Target) -> None:
        super().__init__(plan.equations, plan.outputs, target)
        self.p, self.memory = plan, memory
        self.rows = [(d, extent) for d, extent in enumerate(self.x.shape) if d != self.axis]
        self.at_row = [size(f"b_{d}") for d, _ in self.rows]
        extents = [extent for _, extent in self.rows]
        self.keys = self.copies("keys", self.x.dtype, extents)
        self.places = self.copies("places", dt.i64, extents) if self.with_places else None

    def copies(self, label: str, dtype: DType, rows: Sequence[Extent]) -> Memory:
        memory = super().copies(label, dtype, rows)
        if isinstance(memory, ir.Near):
            self.body.append(memory)
            return memory
        return replace(memory, name=f"{self.p.name}_{label}")

    def outside(self, v: Value, at: Extent, check: bool) -> ir.View:
        index = dict(zip((d for d, _ in self.rows), self.at_row))
        index[self.axis] = at
        every = range(len(v.shape))
        return ir.View(self.memory(v), tuple(index[d] for d in every), tuple(check and d == self.axis for d in every))

    def kernel(self) -> ir.Kernel:
        self.sort()
        body = tuple(self.body)
        for d, extent in reversed(self.rows or [(0, 1)]):
            body = (ir.Parallel(f"b_{d}", 0, extent, 1, body),)
        return kernel(self.p, body, {"width": self.width})
