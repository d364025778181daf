"""exp and its family, as polynomials on vectors.

In:  floating Values.  Out: Values; nothing calls a library. No flag allows reassociation here: the order is the accuracy.
Read before: writer.py. Read next: functions.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from kdsl.codegen.llvm.writer import Value, Writer


def polynomial(w: Writer, x: Value, coefficients: Sequence[float]) -> Value:
    """Horner, highest first."""
    out = w.literal(coefficients[0], x.type)
    for c in coefficients[1:]:
        out = w.fma(out, x, w.literal(c, x.type))
    return out


def clamp(w: Writer, x: Value, low: float, high: float) -> Value:
    """x within bounds; NaN stays."""
    top, bottom = w.literal(high, x.type), w.literal(low, x.type)
    x = w.select(w.compare("fcmp ogt", x, top), top, x)
    return w.select(w.compare("fcmp olt", x, bottom), bottom, x)


def scale(w: Writer, y: Value, k: Value) -> Value:
    """y * 2**k for a whole k, in two halves so that results below the least normal number come out right."""
    if y.type == "float":
        type, bias, shift = "i32", 127, 23
        i = w.convert("fptosi", k, type)
    else:  # AVX2 has no conversion to i64: the magic number puts k into the low bits
        type, bias, shift = "i64", 1023, 52
        magic = w.literal(6755399441055744.0, "double")
        i = w.binary("sub", w.convert("bitcast", w.binary("fadd", k, magic), type), w.literal(0x4338000000000000, type))
    if type == "i32":
        half = w.binary("ashr", i, w.literal(1, type))
    else:
        half = w.convert("sext", w.binary("ashr", w.convert("trunc", i, "i32"), w.literal(1, "i32")), "i64")

    def power(e: Value) -> Value:
        return w.convert("bitcast", w.binary("shl", w.binary("add", e, w.literal(bias, type)), w.literal(shift, type)), y.type)

    return w.binary("fmul", w.binary("fmul", y, power(half)), power(w.binary("sub", i, half)))


def exp(w: Writer, x: Value) -> Value:
    """e**x. f32: at most 1.01 ulp."""
    c = [1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1]
    x = clamp(w, x, -104.0, 89.0)
    k = w.intrinsic("rint", (w.binary("fmul", x, w.literal(1.4426950408889634, x.type)),))
    r = w.fma(k, w.literal(-0.693359375, x.type), x)
    r = w.fma(k, w.literal(2.12194440e-4, x.type), r)
    y = w.binary("fadd", w.fma(w.binary("fmul", polynomial(w, r, c), r), r, r), w.literal(1.0, x.type))
    return scale(w, y, k)
