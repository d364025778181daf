"""The instruction writer: every pure instruction goes through `pure`, which needs no LLVM pass after it.

In:  instructions as text, with the values they read.  Out: lines of LLVM IR, in loop frames.
Equal instructions are written once (value numbering), each in the outermost loop where its operands are known. Sharing of
loads between rows, and the hoisting of addresses, splats and masks out of loops, follow from that alone.
Read next: indices.py (integers), memory.py (views), tiles.py (tile expressions), kernel.py (statements).

A Value is a scalar (width 1) or a vector of `width` lanes. A scalar stands for a tile element that is the same in all
lanes until it meets a vector: then it is splat. f16 and bf16 never appear here: they are `float` in registers.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence

from kdsl.dtypes import DType
from kdsl.target import Target

TYPES = {"bool": "i1", "i8": "i8", "u8": "i8", "i16": "i16", "u16": "i16", "i32": "i32", "u32": "i32", "i64": "i64", "u64": "i64",
         "f16": "float", "bf16": "float", "f32": "float", "f64": "double"}  # fmt: skip


class Value:
    """An SSA value or a literal: `text` as an operand, known from loop depth `depth` on; `const` where it is a known integer."""

    __slots__ = ("const", "depth", "text", "type", "width")

    def __init__(self, text: str, type: str, width: int = 1, depth: int = 0, const: int | None = None) -> None:
        self.text, self.type, self.width, self.depth, self.const = text, type, width, depth, const

    @property
    def full(self) -> str:
        """The LLVM type with lanes."""
        return self.type if self.width == 1 else f"<{self.width} x {self.type}>"

    def __repr__(self) -> str:
        return f"{self.full} {self.text}"


class Frame:
    """One loop body (or the function's): its lines so far, and what has been computed at this depth."""

    __slots__ = ("cache", "lines")

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.cache: dict[str, Value] = {}


def vector(type: str, width: int) -> str:
    return type if width == 1 else f"<{width} x {type}>"


def float_text(x: float, type: str) -> str:
    """A floating literal as LLVM reads it without loss: the bits of the double of the same value."""
    if type == "float":
        try:
            (x,) = struct.unpack("<f", struct.pack("<f", x))
        except OverflowError:
            x = math.copysign(math.inf, x)
    return f"0x{struct.unpack('<Q', struct.pack('<d', x))[0]:016X}"


class Writer:
    """Holds the frames of the function being written. `lanes` is the vector width of this kernel in elements."""

    def __init__(self, target: Target, lanes: int, declarations: set[str]) -> None:
        self.target, self.lanes, self.declarations = target, lanes, declarations
        self.frames = [Frame()]
        self.label = "entry"
        self.count = 0
        self.helpers: dict[str, Callable[[], str]] = {}  # functions that the module must define: the text of each
        self.words: dict[str, tuple[str, Value]] = {}  # f16 and bf16 numbers as floats: dtype, and the word (i32: upper half)
        self.place = 0  # the depth at which loads are put: that of the statement they belong to
        self.reads: dict[str, Value] = {}  # of memory that this kernel writes, since the last write
        self.reads_of = ("", 0)  # the basic block, and the depth, that they stand in

    @property
    def depth(self) -> int:
        return len(self.frames) - 1

    def fresh(self) -> str:
        self.count += 1
        return f"%v{self.count}"

    # --- instructions ---------------------------------------------------------------------------------------------------
    def pure(self, line: str, operands: Sequence[Value], type: str, width: int = 1) -> Value:
        """The value of a pure instruction: an older equal one, or a new one in the outermost loop that knows the operands."""
        depth = 0
        for v in operands:
            if v.depth > depth:
                depth = v.depth
        frame = self.frames[depth]
        found = frame.cache.get(line)
        if found is None:
            self.count += 1
            found = frame.cache[line] = Value(f"%v{self.count}", type, width, depth)
            frame.lines.append(f"  {found.text} = {line}")
        return found

    def read(self, line: str, operands: Sequence[Value], type: str, width: int, shared: bool) -> Value:
        """A read of memory, at the depth of the statement it belongs to; `shared` where nothing in this kernel writes there.

        Other reads are equal within a basic block until something is written."""
        depth = self.place
        for v in operands:
            if v.depth > depth:
                depth = v.depth
        frame = self.frames[depth]
        if shared:
            for outer in self.frames[: depth + 1]:
                found = outer.cache.get(line)
                if found is not None:
                    return found
            known = frame.cache
        else:
            if self.reads_of != (self.label, depth):
                self.reads_of = self.label, depth
                self.reads.clear()
            known = self.reads
            if line in known:
                return known[line]
        value = known[line] = Value(self.fresh(), type, width, depth)
        frame.lines.append(f"  {value.text} = {line}")
        return value

    def line(self, text: str) -> None:
        """An instruction with an effect, here and now."""
        self.reads.clear()
        self.frames[-1].lines.append("  " + text)

    def declare(self, name: str, result: str, arguments: Sequence[str]) -> str:
        self.declarations.add(f"declare {result} @{name}({', '.join(arguments)})")
        return f"@{name}"

    def intrinsic(self, name: str, operands: Sequence[Value], flags: str = "", extra: str = "") -> Value:
        """llvm.<name> on operands of one type, result of the same type; `extra`: a trailing constant operand ("i1 false")."""
        operands = self.level(operands)
        v = operands[0]
        code = {"float": "f32", "double": "f64"}.get(v.type, v.type)
        arguments = [v.full] * len(operands) + ([extra.split()[0]] if extra else [])
        f = self.declare(f"llvm.{name}.{f'v{v.width}' if v.width > 1 else ''}{code}", v.full, arguments)
        text = ", ".join([f"{v.full} {o.text}" for o in operands] + ([extra] if extra else []))
        return self.pure(f"call {flags + ' ' if flags else ''}{v.full} {f}({text})", operands, v.type, v.width)

    def unless(self, seldom: Value, values: Sequence[Value], others: Callable[[int], Sequence[Value]]) -> list[Value]:
        """These values; where `seldom` is true, those that `others(depth)` writes instead, out of the way."""
        self.count += 1
        n, before = self.count, self.label
        self.frames.append(Frame())
        self.label = f"seldom{n}"
        instead = others(self.depth)
        inner, end = self.frames.pop(), self.label
        self.helpers.setdefault("!0", lambda: '!0 = !{!"branch_weights", i32 1, i32 2000}')
        out = self.frames[-1].lines
        out += [
            f"  br i1 {seldom.text}, label %seldom{n}, label %on{n}, !prof !0", f"seldom{n}:", *inner.lines, f"  br label %on{n}",
            f"on{n}:",
        ]  # fmt: skip
        self.label = f"on{n}"
        results = []
        for v, w in zip(values, instead, strict=True):
            results.append(Value(self.fresh(), v.type, v.width, self.depth))
            out.append(f"  {results[-1].text} = phi {v.full} [ {v.text}, %{before} ], [ {w.text}, %{end} ]")
        return results

    def any(self, v: Value) -> Value:
        """Whether any lane is true."""
        if v.width == 1:
            return v
        bits = self.pure(f"bitcast {v.full} {v.text} to i{v.width}", (v,), f"i{v.width}")
        return self.compare("icmp ne", bits, self.literal(0, bits.type))

    # --- literals, lanes ------------------------------------------------------------------------------------------------
    def literal(self, x: bool | int | float, type: str) -> Value:
        if type in ("float", "double"):
            return Value(float_text(float(x), type), type)
        if type == "i1":
            return Value("true" if x else "false", type, const=int(bool(x)))
        bits = int(type[1:])
        number = int(x) & ((1 << bits) - 1)
        number -= (number >> (bits - 1)) << bits
        return Value(str(number), type, const=number)

    def constant(self, x: bool | int | float, dtype: DType) -> Value:
        return self.literal(x, TYPES[dtype.name])

    def coefficient(self, x: float, like: Value) -> Value:
        """A constant of a polynomial, in as many lanes as `like`; read once, before all loops.

        It comes from memory that LLVM must take for changeable: short of registers it keeps the vector on the stack, where an
        instruction has it as an operand. A literal it would load anew for each use, by an instruction of its own, from an
        address that may end in the same 12 bits as one of the stack just written: the processor then waits for that write.
        """
        if like.width == 1:
            return self.literal(x, like.type)
        text, bytes = float_text(x, like.type), like.width * (4 if like.type == "float" else 8)
        name = f"@{like.type}{like.width}_{text[2:]}"
        self.helpers.setdefault(
            name, lambda: f"{name} = internal global {like.full} splat ({like.type} {text}), align {bytes}"
        )
        return self.pure(f"load {like.full}, ptr {name}, align {bytes}", (), like.type, like.width)

    def integers(self, numbers: Sequence[int], type: str) -> Value:
        """A constant vector."""
        if type == "i1":
            return Value(f"<{', '.join('i1 true' if n else 'i1 false' for n in numbers)}>", type, len(numbers))
        return Value(f"<{', '.join(f'{type} {n}' for n in numbers)}>", type, len(numbers))

    def splat(self, v: Value, width: int) -> Value:
        if v.width == width:
            return v
        assert v.width == 1, f"a vector of {v.width} lanes where {width} are wanted"
        if v.text[0] != "%":
            return Value(f"splat ({v.type} {v.text})", v.type, width)
        known, word = self.words.get(v.text, ("", v))
        if known == "bf16" and word.type == "i16":  # twice as many; the lower half of each lane is shifted out
            pairs = self.splat(word, 2 * width)
            lanes = self.pure(f"bitcast {pairs.full} {pairs.text} to {vector('i32', width)}", [pairs], "i32", width)
            return self.convert("bitcast", self.binary("shl", lanes, self.literal(16, "i32")), "float")
        t = vector(v.type, width)
        one = self.pure(f"insertelement {t} poison, {v.type} {v.text}, i32 0", [v], v.type, width)
        return self.pure(
            f"shufflevector {t} {one.text}, {t} poison, <{width} x i32> zeroinitializer", [one], v.type, width
        )

    def level(self, operands: Sequence[Value]) -> list[Value]:
        """All scalars, or all vectors of one width."""
        width = operands[0].width
        for v in operands:
            if v.width != width:
                width = max(v.width for v in operands)
                return [v if v.width == width else self.splat(v, width) for v in operands]
        return list(operands)

    def extract(self, v: Value, lane: int) -> Value:
        if v.width == 1:
            return v
        return self.pure(f"extractelement {v.full} {v.text}, i32 {lane}", [v], v.type)

    def shuffle(self, a: Value, b: Value | None, lanes: Sequence[int]) -> Value:
        """Lanes picked from a then b, by number."""
        if len(lanes) == 1 and lanes[0] < a.width:
            return self.extract(a, lanes[0])
        second = b.text if b is not None else "poison"
        mask = f"<{len(lanes)} x i32> <{', '.join(f'i32 {n}' for n in lanes)}>"
        return self.pure(f"shufflevector {a.full} {a.text}, {a.full} {second}, {mask}", [a, b or a], a.type, len(lanes))

    def collect(self, scalars: Sequence[Value]) -> Value:
        """A vector of the given lanes."""
        if len(scalars) == 1:
            return scalars[0]
        t = vector(scalars[0].type, len(scalars))
        v = Value("poison", scalars[0].type, len(scalars))
        for i, s in enumerate(scalars):
            v = self.pure(f"insertelement {t} {v.text}, {s.type} {s.text}, i32 {i}", [v, s], s.type, len(scalars))
        return v

    # --- words shared by the op tables ----------------------------------------------------------------------------------
    def binary(self, op: str, a: Value, b: Value) -> Value:
        """Any two-operand instruction, flags included: `fadd contract`, `and`, `shl` …"""
        a, b = self.level((a, b))
        return self.pure(f"{op} {a.full} {a.text}, {b.text}", (a, b), a.type, a.width)

    def compare(self, predicate: str, a: Value, b: Value) -> Value:
        """`fcmp olt`, `icmp slt` …"""
        a, b = self.level((a, b))
        return self.pure(f"{predicate} {a.full} {a.text}, {b.text}", (a, b), "i1", a.width)

    def select(self, c: Value, a: Value, b: Value) -> Value:
        if c.text in ("true", "false"):
            return a if c.text == "true" else b
        if c.width == 1 and (a.width > 1 or b.width > 1):
            a, b = self.level((a, b))
            return self.pure(f"select i1 {c.text}, {a.full} {a.text}, {b.full} {b.text}", (c, a, b), a.type, a.width)
        c, a, b = self.level((c, a, b))
        return self.pure(f"select {c.full} {c.text}, {a.full} {a.text}, {b.full} {b.text}", (c, a, b), a.type, a.width)

    def negative(self, v: Value) -> Value:
        return self.pure(f"fneg {v.full} {v.text}", (v,), v.type, v.width)

    def convert(self, word: str, v: Value, type: str) -> Value:
        """zext, sext, trunc, bitcast, fpext, fptrunc, sitofp …"""
        if v.type == type:
            return v
        return self.pure(f"{word} {v.full} {v.text} to {vector(type, v.width)}", (v,), type, v.width)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        return self.intrinsic("fma", (a, b, c))
