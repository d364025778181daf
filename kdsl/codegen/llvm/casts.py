"""Conversions between dtypes, by contract section 5: float to integer truncates, saturates and sends NaN to 0.

In:  a Value and its dtype.  Out: a Value of another dtype. f16 and bf16 are floats in registers, rounded on the way.
Read before: writer.py. Read next: operations.py.
"""

from __future__ import annotations

from kdsl.codegen.llvm.writer import TYPES, Value, Writer
from kdsl.dtypes import DType


def cast(w: Writer, v: Value, source: DType, target: DType) -> Value:
    """astype."""
    if target.name in ("f16", "bf16"):
        if source.name == target.name:
            return v
        if source.name == "f64":
            return round_to(w, narrow_to_odd(w, v), target.name)
        return round_to(w, cast(w, v, source, target.compute), target.name)
    source, type = source.compute, TYPES[target.name]
    if target.kind == "bool":
        if source.is_floating:
            return w.compare("fcmp une", v, w.literal(0.0, v.type))
        return v if source.kind == "bool" else w.compare("icmp ne", v, w.literal(0, v.type))
    if source.is_floating:
        if target.is_floating:
            return w.convert("fpext" if type == "double" else "fptrunc", v, type)
        return saturate(w, v, target)
    unsigned = source.kind in ("bool", "unsigned")
    if target.is_floating:
        return w.convert("uitofp" if unsigned else "sitofp", v, type)
    if v.const is not None:
        return w.literal(
            v.const & 1 if source.kind == "bool" else v.const % (1 << source.bits) if unsigned else v.const, type
        )
    if source.bits < target.bits:
        return w.convert("zext" if unsigned else "sext", v, type)
    return w.convert("trunc", v, type)


def narrow_to_odd(w: Writer, v: Value) -> Value:
    """f64 as f32, rounded to odd: rounding that once more to f16 or bf16 is then the same as rounding once."""
    f = w.convert("fptrunc", v, "float")
    back = w.convert("fpext", f, "double")
    bits = w.convert("bitcast", f, "i32")
    one = w.literal(1, "i32")
    inexact = w.compare("fcmp one", back, v)
    too_far = w.compare("fcmp ogt", w.intrinsic("fabs", (back,)), w.intrinsic("fabs", (v,)))
    down = w.select(too_far, w.binary("sub", bits, one), bits)
    odd = w.convert("bitcast", w.binary("or", down, one), "float")
    return w.select(inexact, odd, f)


def round_to(w: Writer, v: Value, name: str) -> Value:
    """A float rounded to the values of f16 or bf16, half to even."""
    if name == "f16":
        return w.convert("fpext", w.convert("fptrunc", v, "half"), "float")
    high = w.binary("and", bf16_bits(w, v), w.literal(-65536, "i32"))
    return known(w, w.convert("bitcast", high, "float"), name, high)


def known(w: Writer, v: Value, name: str, word: Value) -> Value:
    """A number whose word in memory need not be made again."""
    if v.text[0] == "%":
        w.words[v.text] = name, word
    return v


def saturate(w: Writer, v: Value, target: DType) -> Value:
    """Float to integer."""
    type, word = TYPES[target.name], "fptosi" if target.kind == "signed" else "fptoui"
    lanes = f"v{v.width}" if v.width > 1 else ""
    code = {"float": "f32", "double": "f64"}[v.type]
    to = f"<{v.width} x {type}>" if v.width > 1 else type
    f = w.declare(f"llvm.{word}.sat.{lanes}{type}.{lanes}{code}", to, (v.full,))
    return w.pure(f"call {to} {f}({v.full} {v.text})", (v,), type, v.width)


def bf16_bits(w: Writer, v: Value) -> Value:
    """The bits of a float rounded to bf16, half to even, in the upper 16 of an i32; NaN stays NaN."""
    i = w.convert("bitcast", v, "i32")
    odd = w.binary("and", w.binary("lshr", i, w.literal(16, "i32")), w.literal(1, "i32"))
    rounded = w.binary("add", w.binary("add", i, w.literal(0x7FFF, "i32")), odd)
    nan = w.binary("or", i, w.literal(0x400000, "i32"))
    return w.select(w.compare("fcmp uno", v, v), nan, rounded)


def bitcast(w: Writer, v: Value, source: DType, target: DType) -> Value:
    """The same bits as another dtype of the same width. f16 and bf16 have no bits in registers: their memory is read as u16."""
    assert source.bits == target.bits and "f16" not in source.name + target.name, f"bitcast from {source} to {target}"
    return w.convert("bitcast", v, TYPES[target.name])


def memory_bits(w: Writer, v: Value, dtype: DType) -> Value:
    """A float as the 16-bit word that memory holds for f16 or bf16."""
    name, word = w.words.get(v.text, ("", v))
    if name == dtype.name and word.type == "i16":
        return word
    if dtype.name == "f16":
        return w.convert("bitcast", w.convert("fptrunc", v, "half"), "i16")
    bits = word if name == dtype.name else bf16_bits(w, v)
    return w.convert("trunc", w.binary("lshr", bits, w.literal(16, "i32")), "i16")


def from_bits(w: Writer, v: Value, dtype: DType) -> Value:
    """The float that a 16-bit word of memory means."""
    if dtype.name == "f16":
        out = w.convert("fpext", w.convert("bitcast", v, "half"), "float")
    else:
        out = w.convert("bitcast", w.binary("shl", w.convert("zext", v, "i32"), w.literal(16, "i32")), "float")
    return known(w, out, dtype.name, v)
