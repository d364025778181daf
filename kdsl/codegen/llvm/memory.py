"""Views of memory: addresses, bounds as masks, loads, stores, gathers.

In:  a View and the positions of one element group: `width` lanes along one tile axis.  Out: its Value, or stores.
An address is a chain of getelementptr, outermost loop first. A checked axis becomes a condition: for all lanes at once (then
the load goes to a block of the fill value and no lane mask is needed; stores branch) or lane by lane (a mask). Static
ones vanish.
Read before: indices.py. Read next: tiles.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

import numpy as np

from kdsl.codegen.llvm.casts import from_bits, memory_bits
from kdsl.codegen.llvm.indices import Indices
from kdsl.codegen.llvm.writer import TYPES, Value, vector
from kdsl.dtypes import DType
from kdsl.ir import loops as ir
from kdsl.ir.loops import Memory, Near, View
from kdsl.ir.sizes import Extent, names_in, split
from kdsl.ir.tensor import Literal

Position = Union[int, Value]  # along one tile axis
STORED = {"bool": "i8", "f16": "i16", "bf16": "i16"}  # where memory's type is not the register's


def always_there(view: View) -> bool:
    """Whether the element is one that every call has, so that it may be read before all loops: key[0] of a key (2,)."""
    places = zip(view.index, view.memory.shape, strict=True)
    inside = all(isinstance(i, int) and isinstance(n, int) and 0 <= i < n for i, n in places)
    return inside and not isinstance(view.memory, Near)


class Plan:
    """What every element of a view shares: the offset and each checked index as {axis: factor} and a rest (None: not linear)."""

    def __init__(self, view: View, ndim: int) -> None:
        axes = {f"#{k}" for k in range(ndim)}
        offset: Extent = 0
        for i, s in zip(view.index, ir.strides(view.memory), strict=True):
            offset = offset + i * s
        self.offset = offset
        self.linear = self._split(offset, axes)
        self.checked = [
            (index, extent, self._split(index, axes))
            for index, extent, check in zip(view.index, view.memory.shape, view.checks, strict=True)
            if check
        ]

    @staticmethod
    def _split(x: Extent, axes: set[str]) -> tuple[dict[int, Extent], Extent] | None:
        if isinstance(x, int) or not names_in(x) & axes:
            return {}, x
        try:
            factors, rest = split(x, axes)
        except ValueError:
            return None
        return {int(name[1:]): factor for name, factor in factors.items()}, rest


class Access(Indices):
    """Adds reading and writing of memory."""

    pointers: dict[Memory, Value]
    written: set[Memory]  # buffers and Nears that this kernel writes
    plans: dict[tuple[View, int], Plan]

    def plan(self, view: View, ndim: int) -> Plan:
        found = self.plans.get((view, ndim))
        if found is None:
            found = self.plans[view, ndim] = Plan(view, ndim)
        return found

    def position(self, p: Position) -> Value:
        return self.number(p) if isinstance(p, int) else p

    # --- addresses ------------------------------------------------------------------------------------------------------
    def step(self, pointer: Value, type: str, terms: Sequence[Value]) -> Value:
        """The pointer moved by the terms, outermost loop first, constants last."""
        constant = 0
        for term in sorted((t for t in terms), key=lambda t: t.depth):
            if term.const is not None:
                constant += term.const
            else:
                pointer = self.pure(
                    f"getelementptr {type}, ptr {pointer.text}, i64 {term.text}", (pointer, term), "ptr"
                )
        if constant:
            pointer = self.pure(f"getelementptr {type}, ptr {pointer.text}, i64 {constant}", (pointer,), "ptr")
        return pointer

    def address(
        self, plan: Plan, memory: Memory, at: Sequence[Position], lane: int, width: int
    ) -> tuple[Value, Value | int | None]:
        """(pointer of lane 0, step from lane to lane), or (pointers of all lanes, None) where the step varies."""
        base = self.pointers[ir.root(memory)]
        type = STORED.get(memory.dtype.name, TYPES[memory.dtype.name])
        if plan.linear is None:
            axes = self.axis_values(at, lane, width)
            offset = self.integer(plan.offset, axes)
            if offset.width == 1:
                return self.step(base, type, [offset]), 0
            text = f"getelementptr {type}, ptr {base.text}, {offset.full} {offset.text}"
            return self.pure(text, (base, offset), "ptr", width), None
        factors, rest = plan.linear
        terms = self.terms(rest)
        for axis, factor in factors.items():
            p = at[axis]
            if not (isinstance(p, int) and p == 0):
                terms.append(self.times(self.integer(factor), self.position(p)))
        pointer = self.step(base, type, terms)
        if width == 1:
            return pointer, 0
        factor = factors.get(lane, 0)
        return pointer, factor if isinstance(factor, int) else self.integer(factor)

    def axis_values(self, at: Sequence[Position], lane: int, width: int) -> dict[str, Value]:
        """What each tile axis stands for, one number per lane for the lanes' axis."""
        axes = {}
        for k, p in enumerate(at):
            v = self.position(p)
            if k == lane and width > 1:
                v = self.binary("add", v, self.integers(range(width), "i64"))
            axes[f"#{k}"] = v
        return axes

    # --- bounds ---------------------------------------------------------------------------------------------------------
    def inside(
        self, plan: Plan, at: Sequence[Position], lane: int, width: int, valid: int
    ) -> tuple[Value | bool, Value | None]:
        """(condition for all lanes, mask lane by lane or None): which of `width` lanes, of which `valid` exist, are inside."""
        uniform: Value | bool = True
        mask = None if valid >= width else self.integers([int(i < valid) for i in range(width)], "i1")
        for index, extent, linear in plan.checked:
            axes = self.axis_values(at, lane, width)
            factor = linear[0].get(lane, 0) if linear is not None and width > 1 else 0
            if width > 1 and factor in (1, -1) and linear is not None:
                first = self.integer(index, self.axis_values(at, lane, 1))
                lanes = self.unit_mask(
                    first, self.integer(extent), int(factor), width, self.is_first_natural(index, at)
                )
                if lanes is not None:
                    mask = lanes if mask is None else self.binary("and", mask, lanes)
                continue
            i = self.integer(index, axes)
            conditions = [self.below(i, self.integer(extent))]
            if not self.is_first_natural(index, at):
                conditions.append(self.below(self.number(-1), i))
            for c in conditions:
                if isinstance(c, bool):
                    uniform = uniform and c if c else False
                elif c.width == 1:
                    uniform = c if uniform is True else uniform if uniform is False else self.binary("and", uniform, c)
                else:
                    mask = c if mask is None else self.binary("and", mask, c)
        return uniform, mask

    def is_first_natural(self, index: Extent, at: Sequence[Position]) -> bool:
        """Whether an index is at least 0 at every tile position (positions are)."""
        self.natural.update(f"#{k}" for k in range(len(at)))
        return self.is_natural(index)

    def below(self, a: Value, b: Value) -> Value | bool:
        if a.const is not None and b.const is not None:
            return a.const < b.const
        return self.compare("icmp slt", a, b)

    def unit_mask(self, first: Value, extent: Value, factor: int, width: int, natural: bool) -> Value | None:
        """Lanes l with 0 <= first + factor*l < extent; None where all are."""
        if factor == 1:  # -first <= l < extent - first
            low, high = self.subtract(self.number(0), first), self.subtract(extent, first)
        else:  # first - extent < l <= first
            low, high = self.add(self.subtract(first, extent), self.number(1)), self.add(first, self.number(1))
        mask = None
        if high.const is None or high.const < width:
            mask = self.lanes_below(high, width)
        if not (natural and factor == 1) and (low.const is None or low.const > 0):
            outside = self.lanes_below(low, width)
            above = self.binary("xor", outside, self.splat(self.literal(True, "i1"), width))
            mask = above if mask is None else self.binary("and", mask, above)
        return mask

    def lanes_below(self, n: Value, width: int) -> Value:
        """Lanes l < n."""
        if n.const is not None:
            return self.integers([int(i < n.const) for i in range(width)], "i1")
        zero, most = self.number(0), self.number(width)
        n = self.intrinsic("smin", (self.intrinsic("smax", (n, zero)), most))
        return self.compare("icmp slt", self.integers(range(width), "i32"), self.convert("trunc", n, "i32"))

    # --- reading --------------------------------------------------------------------------------------------------------
    def load(self, view: View, at: Sequence[Position], lane: int, width: int, valid: int) -> Value:
        """`width` lanes along tile axis `lane` from position `at`; those from `valid` on do not exist and are not read."""
        memory = view.memory
        plan = self.plan(view, len(at))
        shared = ir.root(memory) not in self.written
        uniform, mask = self.inside(plan, at, lane, width, valid)
        fill = self.constant(view.fill, memory.dtype.compute)
        if uniform is False:
            return fill
        pointer, step = self.address(plan, memory, at, lane, width)
        if isinstance(step, int) and step == 0 and not self.lane_checks(plan, lane):  # one element for all lanes
            width, mask = 1, None
        type = STORED.get(memory.dtype.name, TYPES[memory.dtype.name])
        if (isinstance(step, int) and step == 1) or width == 1:
            if isinstance(uniform, Value):  # a jump, or a vector's choice by one bit, would cost more
                pointer = self.select(uniform, pointer, self.fill_block(view.fill, memory.dtype))
            if mask is None:
                line = f"load {vector(type, width)}, ptr {pointer.text}, align {memory.dtype.bytes}"
                place, self.place = self.place, 0 if shared and width == 1 and always_there(view) else self.place
                read = self.read(line, (pointer,), type, width, shared)
                self.place = place
                return self.from_memory(read, memory.dtype)
            return self.masked_load(pointer, mask, memory.dtype, fill, width, shared)
        if isinstance(uniform, Value):
            everywhere = self.splat(uniform, width)
            mask = everywhere if mask is None else self.binary("and", mask, everywhere)
        pointers = self.lane_pointers(pointer, step, type, width)
        return self.gather_pointers(pointers, mask, memory.dtype, fill, width, shared)

    def fill_block(self, fill: Literal, dtype: DType) -> Value:
        """A vector's worth of fill in memory: what is read in place of elements that are all outside."""
        with np.errstate(all="ignore"):
            one = np.asarray(fill).astype(dtype.numpy).tobytes()
        name = f"fill_{one.hex()}"
        text = "".join(f"\\{b:02X}" for b in one * self.lanes)
        self.helpers.setdefault(
            name, lambda: f'@{name} = internal constant [{len(one) * self.lanes} x i8] c"{text}", align 64'
        )
        return Value(f"@{name}", "ptr")

    @staticmethod
    def lane_checks(plan: Plan, lane: int) -> bool:
        """Whether a checked index differs from lane to lane."""
        return any(linear is None or lane in linear[0] for _, _, linear in plan.checked)

    def lane_pointers(self, pointer: Value, step: Value | int | None, type: str, width: int) -> Value:
        if step is None:
            return pointer
        if isinstance(step, int):
            offsets = self.integers([step * i for i in range(width)], "i64")
        else:
            offsets = self.binary("mul", step, self.integers(range(width), "i64"))
        text = f"getelementptr {type}, ptr {pointer.text}, {offsets.full} {offsets.text}"
        return self.pure(text, (pointer, offsets), "ptr", width)

    def masked_load(self, pointer: Value, mask: Value, dtype: DType, fill: Value, width: int, shared: bool) -> Value:
        type = STORED.get(dtype.name, TYPES[dtype.name])
        t, m = vector(type, width), f"<{width} x i1>"
        f = self.declare(f"llvm.masked.load.v{width}{code(type)}.p0", t, ("ptr", "i32", m, t))
        line = f"call {t} {f}(ptr {pointer.text}, i32 {dtype.bytes}, {m} {mask.text}, {t} zeroinitializer)"
        v = self.read(line, (pointer, mask), type, width, shared)
        v = self.from_memory(v, dtype)
        return v if is_zero(fill) else self.select(mask, v, self.splat(fill, width))

    def gather_pointers(
        self, pointers: Value, mask: Value | None, dtype: DType, fill: Value, width: int, shared: bool
    ) -> Value:
        type = STORED.get(dtype.name, TYPES[dtype.name])
        t, m = vector(type, width), f"<{width} x i1>"
        f = self.declare(f"llvm.masked.gather.v{width}{code(type)}.v{width}p0", t, (f"<{width} x ptr>", "i32", m, t))
        which = mask.text if mask is not None else "splat (i1 true)"
        line = f"call {t} {f}(<{width} x ptr> {pointers.text}, i32 {dtype.bytes}, {m} {which}, {t} zeroinitializer)"
        v = self.read(line, (pointers,) if mask is None else (pointers, mask), type, width, shared)
        v = self.from_memory(v, dtype)
        return v if mask is None or is_zero(fill) else self.select(mask, v, self.splat(fill, width))

    # --- writing --------------------------------------------------------------------------------------------------------
    def store(self, view: View, at: Sequence[Position], lane: int, width: int, valid: int, value: Value) -> None:
        """Write `width` lanes along tile axis `lane`; those from `valid` on, and those outside, are not written."""
        memory = view.memory
        plan = self.plan(view, len(at))
        uniform, mask = self.inside(plan, at, lane, width, valid)
        if uniform is False:
            return
        pointer, step = self.address(plan, memory, at, lane, width)
        value = self.to_memory(self.splat(value, width), memory.dtype)
        bytes = memory.dtype.bytes
        if width > 1 and isinstance(step, int) and step != 1 and mask is None:
            lines = [self.lane_store(pointer, step * lane, self.extract(value, lane), bytes) for lane in range(width)]
        elif width > 1 and step != 1:
            pointers = self.lane_pointers(pointer, step, value.type, width)
            f = self.declare(
                f"llvm.masked.scatter.v{width}{code(value.type)}.v{width}p0", "void",
                (value.full, f"<{width} x ptr>", "i32", f"<{width} x i1>"),
            )  # fmt: skip
            which = mask.text if mask is not None else "splat (i1 true)"
            target = f"<{width} x ptr> {pointers.text}, i32 {bytes}, <{width} x i1> {which}"
            lines = [f"call void {f}({value.full} {value.text}, {target})"]
        elif mask is None:
            lines = [f"store {value.full} {value.text}, ptr {pointer.text}, align {bytes}"]
        else:
            f = self.declare(
                f"llvm.masked.store.v{width}{code(value.type)}.p0", "void", (value.full, "ptr", "i32", mask.full)
            )
            lines = [f"call void {f}({value.full} {value.text}, ptr {pointer.text}, i32 {bytes}, {mask.full} {mask.text})"]
        if uniform is True:
            for line in lines:
                self.line(line)
            return
        assert isinstance(uniform, Value)
        self.count += 1
        yes, no = f"inside{self.count}", f"outside{self.count}"
        self.line(f"br i1 {uniform.text}, label %{yes}, label %{no}")
        self.frames[-1].lines += [f"{yes}:", *(f"  {line}" for line in lines), f"  br label %{no}", f"{no}:"]
        self.label = no

    def lane_store(self, pointer: Value, offset: int, element: Value, bytes: int) -> str:
        """The instruction that writes one lane so many elements behind the first."""
        if offset:
            text = f"getelementptr {element.type}, ptr {pointer.text}, i64 {offset}"
            pointer = self.pure(text, (pointer,), "ptr")
        return f"store {element.type} {element.text}, ptr {pointer.text}, align {bytes}"

    # --- between memory's types and registers' ----------------------------------------------------------------------------
    def from_memory(self, v: Value, dtype: DType) -> Value:
        if dtype.kind == "bool":
            return self.compare("icmp ne", v, self.literal(0, "i8"))
        return from_bits(self, v, dtype) if dtype.name in ("f16", "bf16") else v

    def to_memory(self, v: Value, dtype: DType) -> Value:
        if dtype.kind == "bool":
            return self.convert("zext", v, "i8")
        return memory_bits(self, v, dtype) if dtype.name in ("f16", "bf16") else v


def code(type: str) -> str:
    """How intrinsics' names spell an element type."""
    return {"float": "f32", "double": "f64"}.get(type, type)


def is_zero(v: Value) -> bool:
    return v.const == 0 or v.text == "0x0000000000000000"
