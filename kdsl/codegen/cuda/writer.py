"""The small writer through which every macro makes LLVM IR: the few builder calls, inline PTX, and what is built of them.

In:  an llvmlite IRBuilder (another back end gives another object with these methods).  Out: instructions at its end.
Read before: records.py, scalars.py. Read next: macros.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from kdsl.codegen.cuda import scalars
from kdsl.codegen.cuda.layout import Layout, Step

f64, f32, f16 = ir.DoubleType(), ir.FloatType(), ir.HalfType()
i64, i32, i16, i8, i1 = (ir.IntType(n) for n in (64, 32, 16, 8, 1))
REGISTER = {"bool": i1, "i8": i8, "u8": i8, "i16": i16, "u16": i16, "i32": i32, "u32": i32, "i64": i64, "u64": i64,
            "f32": f32, "f64": f64, "f16": i32, "bf16": i32}  # fmt: skip
UNSIGNED = ("bool", "u8", "u16", "u32", "u64")
V = Any  # an LLVM value

_CALLS = (
    "add", "mul", "sub", "and_", "or_", "xor", "shl", "lshr", "ashr", "udiv", "urem", "fadd", "fsub", "fmul", "fdiv",
    "select", "bitcast", "zext", "sext", "trunc", "sitofp", "uitofp", "fptrunc", "fpext", "inttoptr", "ptrtoint", "load",
    "store", "extract_value", "insert_value", "extract_element", "insert_element", "icmp_signed", "icmp_unsigned",
    "fcmp_ordered", "fcmp_unordered", "if_then", "not_",
)  # fmt: skip


class Text(ir.Function):  # type: ignore[misc]
    """A function of a module whose definition is text."""

    def __init__(self, module: ir.Module, kind: ir.FunctionType, name: str, text: str) -> None:
        super().__init__(module, kind, name)
        self.text = text

    def __str__(self) -> str:
        return self.text


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

    def struct(self, values: Sequence[V]) -> V:
        out = ir.Constant(ir.LiteralStructType([v.type for v in values]), ir.Undefined)
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

    # --- one element -----------------------------------------------------------------------------------
    def scalar(self, op: str, values: Sequence[V], operands: Sequence[str], dtype: str) -> V:
        """An op of the tables on scalars: a call of its function, which this module then holds."""
        name, texts = scalars.function(op, tuple(operands), dtype)
        kind = ir.FunctionType(REGISTER[dtype], [v.type for v in values])
        for needed, text in texts:
            if needed not in self.module.globals:
                Text(self.module, kind, needed, text)
        return self.builder.call(self.module.globals[name], list(values))

    def number(self, v: V, source: str, dtype: str) -> V:
        """A number of the source ("i64" or "f64") as an element of this dtype; a literal is rounded once."""
        to = REGISTER[dtype]
        if dtype in ("f32", "f64"):
            if source == "f64":
                return v if to == f64 else self.fptrunc(v, f32)
            return self.sitofp(v, to)
        if dtype == "bool":
            return self.icmp_signed("!=", v, v.type(0))
        return v if v.type == to else self.trunc(v, to)

    def repeat(self, count: int, values: list[V], body: Callable[[V, list[V]], list[V]]) -> list[V]:
        """body(number, values) `count` times, each with what the one before gave."""
        if count == 1:
            return body(i32(0), values)
        b = self.builder
        before, loop, after = b.block, b.append_basic_block("repeat"), b.append_basic_block("repeated")
        b.branch(loop)
        b.position_at_end(loop)
        number, *held = (b.phi(v.type) for v in (i32(0), *values))
        out = [self.add(number, i32(1)), *body(number, held)]
        for phi, first, again in zip((number, *held), (i32(0), *values), out):
            phi.add_incoming(first, before)
            phi.add_incoming(again, b.block)
        b.cbranch(self.icmp_unsigned("<", out[0], i32(count)), loop, after)
        b.position_at_end(after)
        return out[1:]

    def choose(self, test: V, then: Callable[[], list[V]], otherwise: Callable[[], list[V]]) -> list[V]:
        """What one of two branches gives; only that one runs."""
        b = self.builder
        with b.if_else(test) as (yes, no):
            with yes:
                left = then()
                after_left = b.block
            with no:
                right = otherwise()
                after_right = b.block
        out = []
        for x, y in zip(left, right, strict=True):
            phi = b.phi(x.type)
            phi.add_incoming(x, after_left)
            phi.add_incoming(y, after_right)
            out.append(phi)
        return out

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

    def shuffle(self, v: V, mode: str, by: V) -> V:
        """The value that another lane holds: lane ^ by ("bfly"), or lane number by ("idx")."""
        if v.type == f64:
            return self.bitcast(self.shuffle(self.bitcast(v, i64), mode, by), f64)
        if v.type == i64:
            low, high = (self.shuffle(self.trunc(x, i32), mode, by) for x in (v, self.lshr(v, i64(32))))
            return self.or_(self.zext(low, i64), self.shl(self.zext(high, i64), i64(32)))
        if v.type == f32:
            text = f"shfl.sync.{mode}.b32 $0, $1, $2, 0x1f, 0xffffffff;"
            return self.asm(text, [f32], [v, by], "=f,f,r", True)
        if v.type != i32:
            return self.trunc(self.shuffle(self.zext(v, i32), mode, by), v.type)
        return self.asm(f"shfl.sync.{mode}.b32 $0, $1, $2, 0x1f, 0xffffffff;", [i32], [v, by], "=r,r,r", True)

    # --- what lies in memory -----------------------------------------------------------------------------
    def pair(self, low: V, high: V, dtype: str) -> V:
        """Two f32 as f16 or bf16 in one word."""
        return self.asm(f"cvt.rn.{dtype}x2.f32 $0, $2, $1;", [i32], [low, high], "=r,f,f")

    def halves(self, pair: V, dtype: str) -> tuple[V, V]:
        """The two f32 that a word of f16 or bf16 holds."""
        if dtype == "bf16":
            return self.bitcast(self.shl(pair, i32(16)), f32), self.bitcast(
                self.and_(pair, i32(0xFFFF0000)), f32
            )
        low, high = (self.trunc(x, i16) for x in (pair, self.lshr(pair, i32(16))))
        return self.fpext(self.bitcast(low, f16), f32), self.fpext(self.bitcast(high, f16), f32)

    def to_words(self, values: Sequence[V], dtype: str) -> list[V]:
        """Elements as the words of memory: i32, or one of 8 or 16 bits, or i64 each."""
        if dtype in ("f16", "bf16"):
            if len(values) == 1:
                return [self.trunc(self.pair(values[0], values[0], dtype), i16)]
            return [self.pair(*values[j : j + 2], dtype) for j in range(0, len(values), 2)]
        if dtype == "f64":
            return [self.bitcast(v, i64) for v in values]
        if dtype == "f32":
            return [self.bitcast(v, i32) for v in values]
        if dtype == "bool":
            values = [self.zext(v, i8) for v in values]
        bits = values[0].type.width
        if bits >= 32 or len(values) * bits < 32:
            return self._narrow(values) if bits < 32 else list(values)
        each = 32 // bits
        return [self._join(values[j : j + each], i32) for j in range(0, len(values), each)]

    def _narrow(self, values: Sequence[V]) -> list[V]:
        return list(values) if len(values) == 1 else [self._join(values, i16)]

    def _join(self, values: Sequence[V], word: ir.IntType) -> V:
        out = self.zext(values[0], word)
        for i, v in enumerate(values[1:], 1):
            out = self.or_(out, self.shl(self.zext(v, word), word(i * values[0].type.width)))
        return out

    def from_words(self, words: Sequence[V], dtype: str, count: int) -> list[V]:
        """The other way round."""
        if dtype in ("f16", "bf16"):
            if count == 1:
                return [self.halves(self.zext(words[0], i32), dtype)[0]]
            return [h for word in words for h in self.halves(word, dtype)]
        if dtype in ("f32", "f64"):
            return [self.bitcast(v, REGISTER[dtype]) for v in words]
        to = i8 if dtype == "bool" else REGISTER[dtype]
        values = []
        for word in words:
            for i in range(word.type.width // to.width):
                v = self.lshr(word, word.type(i * to.width)) if i else word
                values.append(v if v.type == to else self.trunc(v, to))
        return [self.icmp_unsigned("!=", v, i8(0)) for v in values] if dtype == "bool" else values

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

    def position(self, layout: Layout) -> list[V]:
        """Where this thread's first register lies, along each axis."""
        return self._position(self.thread(), layout.threads)

    def warp_position(self, layout: Layout) -> list[V]:
        return self._position(self.lshr(self.thread(), i32(5)), layout.warp)

    def _position(self, number: V, steps: Sequence[Step]) -> list[V]:
        return [self.dot_bits(number, [s[k] for s in steps]) for k in range(len(steps[0]) if steps else 2)]

    def first_holder(self, layout: Layout) -> V | None:
        """True in one of the threads that hold the same values; None where no two do."""
        mask = sum(1 << i for i, s in enumerate(layout.threads) if not any(s))
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
        bytes_ = len(values) * values[0].type.width // 8
        self.store(value, self.inttoptr(address, ir.PointerType(value.type, 3)), align=bytes_)

    def near_load(self, address: V, element: ir.Type, count: int) -> list[V]:
        kind = ir.VectorType(element, count) if count > 1 else element
        bytes_ = element.width * count // 8
        return self.elements(self.load(self.inttoptr(address, ir.PointerType(kind, 3)), align=bytes_))
