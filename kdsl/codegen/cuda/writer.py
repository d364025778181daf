"""The small writer through which every macro makes LLVM IR: the few builder calls, inline PTX, and what is built of them.

In:  an llvmlite IRBuilder (another back end gives another object with these methods).  Out: instructions at its end.
Read before: records.py. Read next: macros.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from kdsl.codegen.cuda.layout import Layout, Step
from kdsl.codegen.cuda.records import BYTES, Near

f32, i64, i32, i16, i8, i1 = ir.FloatType(), *(ir.IntType(n) for n in (64, 32, 16, 8, 1))
REGISTER = {"f32": f32, "i32": i32, "bool": i1, "bf16": i32}
VIEW = ir.LiteralStructType([i64, i32, i32, i32])  # address, rows, columns, stride in elements
V = Any  # an LLVM value

_CALLS = (
    "add",
    "mul",
    "and_",
    "or_",
    "xor",
    "shl",
    "lshr",
    "udiv",
    "urem",
    "sub",
    "fadd",
    "fsub",
    "fmul",
    "fdiv",
    "select",
    "bitcast",
    "zext",
    "trunc",
    "sitofp",
    "fptrunc",
    "inttoptr",
    "ptrtoint",
    "load",
    "store",
    "extract_value",
    "insert_value",
    "extract_element",
    "insert_element",
    "icmp_signed",
    "icmp_unsigned",
    "fcmp_ordered",
    "fcmp_unordered",
    "if_then",
)


class Writer:
    """The builder calls that macros may use (`_CALLS`), and what all macros share."""

    def __init__(self, builder: Any) -> None:
        self.builder, self.module = builder, builder.module
        for name in _CALLS:
            setattr(self, name, getattr(builder, name))

    def __getattr__(self, name: str) -> Callable[..., V]:
        raise AttributeError(f"the writer has no {name}")

    # --- registers of a tile ---------------------------------------------------------------------------
    def registers(self, tile: V) -> list[V]:
        return [self.extract_value(tile, i) for i in range(tile.type.count)]

    def pack(self, values: Sequence[V]) -> V:
        out = ir.Constant(ir.ArrayType(values[0].type, len(values)), ir.Undefined)
        for i, v in enumerate(values):
            out = self.insert_value(out, v, i)
        return out

    def vector(self, values: Sequence[V]) -> V:
        if len(values) == 1:
            return values[0]
        out = ir.Constant(ir.VectorType(values[0].type, len(values)), ir.Undefined)
        for i, v in enumerate(values):
            out = self.insert_element(out, v, i32(i))
        return out

    def elements(self, vector: V) -> list[V]:
        if not isinstance(vector.type, ir.VectorType):
            return [vector]
        return [self.extract_element(vector, i32(i)) for i in range(vector.type.count)]

    # --- PTX -------------------------------------------------------------------------------------------
    def asm(
        self, text: str, out: Sequence[ir.Type], ins: Sequence[V], constraints: str, effect: bool = False
    ) -> Any:
        """One inline instruction: nothing, one value, or a list of values."""
        result = ir.VoidType() if not out else out[0] if len(out) == 1 else ir.LiteralStructType(list(out))
        kind = ir.FunctionType(result, [v.type for v in ins])
        r = self.builder.asm(kind, text, constraints + (",~{memory}" if effect else ""), list(ins), effect)
        return [self.extract_value(r, i) for i in range(len(out))] if len(out) > 1 else r

    def plain(self, text: str) -> None:
        self.builder.asm(ir.FunctionType(ir.VoidType(), []), text, "~{memory}", [], True)

    def special(self, register: str) -> V:
        """%tid.x, %ctaid.x …"""
        name = f"llvm.nvvm.read.ptx.sreg.{register}"
        function = self.module.globals.get(name) or ir.Function(self.module, ir.FunctionType(i32, []), name)
        return self.builder.call(function, [])

    def shuffle(self, v: V, mask: int) -> V:
        return self.asm(f"shfl.sync.bfly.b32 $0, $1, {mask}, 0x1f, 0xffffffff;", [f32], [v], "=f,f", True)

    def to_bf16x2(self, low: V, high: V) -> V:
        return self.asm("cvt.rn.bf16x2.f32 $0, $2, $1;", [i32], [low, high], "=r,f,f")

    def from_bf16x2(self, pair: V) -> tuple[V, V]:
        return self.bitcast(self.shl(pair, i32(16)), f32), self.bitcast(self.and_(pair, i32(0xFFFF0000)), f32)

    def to_words(self, values: Sequence[V], dtype: str) -> list[V]:
        """f32 values as the 32-bit words (or one 16-bit word) that lie in memory."""
        if dtype != "bf16":
            return [self.bitcast(v, i32) for v in values]
        if len(values) == 1:
            return [self.trunc(self.to_bf16x2(values[0], values[0]), i16)]
        return [self.to_bf16x2(*values[j : j + 2]) for j in range(0, len(values), 2)]

    # --- places ----------------------------------------------------------------------------------------
    def thread(self) -> V:
        return self.special("tid.x")

    def dot_bits(self, number: V, steps: Sequence[int]) -> V:
        """The sum of a number's bits times steps; neighbouring bits with doubling steps go together."""
        total, i = i32(0), 0
        while i < len(steps):
            if not steps[i]:
                i += 1
                continue
            n = 1
            while i + n < len(steps) and steps[i + n] == steps[i] << n:
                n += 1
            bits = self.and_(self.lshr(number, i32(i)), i32((1 << n) - 1))
            total = self.or_(total, self.mul(bits, i32(steps[i])))
            i += n
        return total

    def position(self, layout: Layout) -> tuple[V, V]:
        """(row, column) of this thread's first register."""
        steps = layout.lane + layout.warp
        return self._position(self.thread(), steps)

    def warp_position(self, layout: Layout) -> tuple[V, V]:
        return self._position(self.lshr(self.thread(), i32(5)), layout.warp)

    def _position(self, number: V, steps: Sequence[Step]) -> tuple[V, V]:
        return self.dot_bits(number, [s[0] for s in steps]), self.dot_bits(number, [s[1] for s in steps])

    def first_holder(self, layout: Layout) -> V | None:
        """True in one of the threads that hold the same values; None where no two do."""
        mask = sum(1 << i for i, s in enumerate(layout.lane + layout.warp) if s == (0, 0))
        return self.icmp_unsigned("==", self.and_(self.thread(), i32(mask)), i32(0)) if mask else None

    # --- shared memory ---------------------------------------------------------------------------------
    def near_base(self, name: str = "_near", bytes_: int = 0) -> V:
        """The address of dynamic shared memory, or of a static array of its own."""
        g = self.module.globals.get(name)
        if g is None:
            g = ir.GlobalVariable(self.module, ir.ArrayType(i8, bytes_), name, addrspace=3)
            g.align = 16 if bytes_ else 1024
            g.linkage = "internal" if bytes_ else "external"
            if bytes_:
                g.initializer = ir.Constant(g.type.pointee, ir.Undefined)
        return self.ptrtoint(g, i32)

    def near_store(self, address: V, values: Sequence[V]) -> None:
        value = self.vector(values)
        self.store(value, self.inttoptr(address, ir.PointerType(value.type, 3)), align=4 * len(values))

    def near_load(self, address: V, element: ir.Type, count: int) -> list[V]:
        kind = ir.VectorType(element, count) if count > 1 else element
        return self.elements(self.load(self.inttoptr(address, ir.PointerType(kind, 3)), align=4 * count))

    def near_address(self, near: Near, base: V, row: V, column: V) -> V:
        """The byte address of an element; the swizzle exchanges chunks by the row's low bits."""
        each = 16 // BYTES[near.dtype]
        chunks = near.row_bytes // 16
        shift, mask = {1: (0, 0), 2: (2, 1), 4: (1, 3)}.get(chunks, (0, 7))
        chunk = self.lshr(column, i32(each.bit_length() - 1))
        if mask:
            chunk = self.xor(chunk, self.and_(self.lshr(row, i32(shift)), i32(mask)))
        inside = self.mul(self.and_(column, i32(each - 1)), i32(BYTES[near.dtype]))
        return self.add(
            base, self.add(self.mul(row, i32(near.row_bytes)), self.or_(self.shl(chunk, i32(4)), inside))
        )
