"""exp and its family, as polynomials on vectors, f32 and f64.

In:  floating Values.  Out: Values; nothing calls a library. No flag allows reassociation or fusing here beyond the written
fma: the order is the accuracy. The errors stated are the largest measured over each function's whole range
(tests/codegen/llvm/test_functions.py holds them).
Read before: writer.py. Read next: logarithms.py, functions.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from kdsl.codegen.llvm.writer import Value, Writer

LN2 = {"float": (0.693359375, -2.12194440e-4), "double": (0.6931471805599453, 2.3190468138462996e-17)}
# (exp(r) - 1 - r) / r**2 for |r| <= ln(2)/2, highest power first
SERIES = {
    "float": [1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1],
    "double": [1 / 6227020800, 1 / 479001600, 1 / 39916800, 1 / 3628800, 1 / 362880, 1 / 40320, 1 / 5040, 1 / 720, 1 / 120,
               1 / 24, 1 / 6, 0.5],
}  # fmt: skip
# exp(r) for |r| <= ln(2)/2, and 2**f for |f| <= 1/2
EXP = {
    "float": [1.3814598534480273e-3, 8.3687169522767240e-3, 4.1668388052605420e-2, 1.6666520631092493e-1,
              4.9999993447747560e-1, 1.0, 1.0],
    "double": [*SERIES["double"], 1.0, 1.0],
}  # fmt: skip
EXP2 = [1.5353359920707021e-4, 1.3398877113284177e-3, 9.6184373831209800e-3, 5.5503324646789280e-2,
        2.4022647913282060e-1, 6.9314720285778730e-1, 1.0]  # fmt: skip


def polynomial(w: Writer, x: Value, coefficients: Sequence[float]) -> Value:
    """Horner, highest power first."""
    out = w.coefficient(coefficients[0], x)
    for c in coefficients[1:]:
        out = w.fma(out, x, w.coefficient(c, x))
    return out


def clamp(w: Writer, x: Value, low: float, high: float) -> Value:
    """x within bounds; NaN stays."""
    top, bottom = w.coefficient(high, x), w.coefficient(low, x)
    x = w.select(w.compare("fcmp ogt", x, top), top, x)
    return w.select(w.compare("fcmp olt", x, bottom), bottom, x)


def whole(w: Writer, k: Value) -> Value:
    """A small whole floating number as an integer of the same width."""
    if k.type == "float":
        return w.convert("fptosi", k, "i32")
    # AVX2 has no conversion to i64: adding 1.5 * 2**52 puts the number into the low bits
    moved = w.convert("bitcast", w.binary("fadd", k, w.literal(6755399441055744.0, "double")), "i64")
    return w.binary("sub", moved, w.literal(0x4338000000000000, "i64"))


def power_of_two(w: Writer, e: Value) -> Value:
    """2**e for an integer e in the range of normal numbers."""
    bias, shift, type = (127, 23, "float") if e.type == "i32" else (1023, 52, "double")
    return w.convert(
        "bitcast", w.binary("shl", w.binary("add", e, w.literal(bias, e.type)), w.literal(shift, e.type)), type
    )


def nearest(w: Writer, x: Value, factor: float) -> tuple[Value, Value]:
    """k, the whole number nearest to x * factor, and the bits of a number that ends in k + 2 * bias, for `scale`.

    Adding a large number leaves no room for a fraction, and the last bits are the whole number itself.
    """
    large = w.coefficient(12582912.0 + 254 if x.type == "float" else 6755399441055744.0 + 2046, x)
    t = w.binary("fadd", x, large) if factor == 1.0 else w.fma(x, w.coefficient(factor, x), large)
    return w.binary("fsub", t, large), w.convert("bitcast", t, "i32" if x.type == "float" else "i64")


def scale(w: Writer, y: Value, bits: Value) -> Value:
    """y * 2**k with the bits of `nearest`, in two halves so that results below the least normal number round once."""
    half = w.binary("lshr", bits, w.literal(1, bits.type))
    other = w.binary("sub", bits, half)
    shift = w.literal(23 if bits.type == "i32" else 52, bits.type)
    first, second = (w.convert("bitcast", w.binary("shl", e, shift), y.type) for e in (half, other))
    return w.binary("fmul", w.binary("fmul", y, first), second)


def reduce(w: Writer, x: Value) -> tuple[Value, Value, Value]:
    """x = k * ln(2) + r with a whole k and |r| <= ln(2)/2: (k, its bits for `scale`, r)."""
    high, low = LN2[x.type]
    k, bits = nearest(w, x, 1.4426950408889634)
    r = w.fma(k, w.coefficient(-high, x), x)
    return k, bits, w.fma(k, w.coefficient(-low, x), r)


def less_one(w: Writer, r: Value) -> Value:
    """exp(r) - 1 for |r| <= ln(2)/2."""
    return w.fma(w.binary("fmul", polynomial(w, r, SERIES[r.type]), r), r, r)


def exp(w: Writer, x: Value) -> Value:
    """e**x, at most 1.0 ulp; below the least normal number 1.5 ulp."""
    x = clamp(w, x, *((-104.0, 89.0) if x.type == "float" else (-746.0, 710.0)))
    _, bits, r = reduce(w, x)
    return scale(w, polynomial(w, r, EXP[x.type]), bits)


def exp_of_several(w: Writer, xs: Sequence[Value]) -> list[Value]:
    """e**x of several f32 vectors side by side, to the bits of `exp`.

    As many chains as a processor follows at once; without bounds and in one scaling, which is right where every result is a
    normal number. Elsewhere, and for NaN, all are computed again by `exp`.
    """
    large, high, low = 12582912.0, *LN2["float"]
    moved = [w.fma(x, w.coefficient(1.4426950408889634, x), w.coefficient(large, x)) for x in xs]
    ks = [w.binary("fsub", t, w.coefficient(large, t)) for t in moved]
    rs = [w.fma(k, w.coefficient(-high, k), x) for k, x in zip(ks, xs, strict=True)]
    rs = [w.fma(k, w.coefficient(-low, k), r) for k, r in zip(ks, rs, strict=True)]
    first, *rest = EXP["float"]
    ps = [w.coefficient(first, r) for r in rs]
    for c in rest:
        ps = [w.fma(p, r, w.coefficient(c, r)) for p, r in zip(ps, rs, strict=True)]
    bits = [w.convert("bitcast", t, "i32") for t in moved]
    shifts = [w.binary("shl", b, w.literal(23, "i32")) for b in bits]
    ys = [w.binary("add", w.convert("bitcast", p, "i32"), s) for p, s in zip(ps, shifts, strict=True)]
    ys = [w.convert("bitcast", y, "float") for y in ys]
    least, most = -125, 127  # k, for results that are normal numbers
    above = [w.binary("sub", b, w.literal(0x4B400000 + least, "i32")) for b in bits]
    while len(above) > 1:
        above = [w.intrinsic("umax", above[i : i + 2]) for i in range(0, len(above) - 1, 2)] + above[len(above) & ~1 :]
    beyond = w.any(w.compare("icmp ugt", above[0], w.literal(most - least, "i32")))
    return w.unless(beyond, ys, lambda depth: [exp(w, Value(x.text, x.type, x.width, depth)) for x in xs])


def exp2(w: Writer, x: Value) -> Value:
    """2**x, at most 1.0 ulp; exact for whole x."""
    x = clamp(w, x, *((-151.0, 129.0) if x.type == "float" else (-1076.0, 1025.0)))
    k, bits = nearest(w, x, 1.0)
    f = w.binary("fsub", x, k)
    if x.type == "float":
        return scale(w, polynomial(w, f, EXP2), bits)
    high = w.binary("fmul", f, w.literal(0.6931471805599453, x.type))
    lost = w.fma(f, w.literal(0.6931471805599453, x.type), w.negative(high))  # by the product
    y = w.binary("fadd", less_one(w, high), lost)
    return scale(w, w.binary("fadd", y, w.literal(1.0, x.type)), bits)


def expm1(w: Writer, x: Value) -> Value:
    """e**x - 1, at most 1.5 ulp."""
    least = -30.0 if x.type == "float" else -60.0  # from there down it is -1
    bounded = clamp(w, x, least, 89.0 if x.type == "float" else 710.0)
    k, _, r = reduce(w, bounded)
    power = power_of_two(w, w.binary("sub", whole(w, k), w.literal(1, "i32" if x.type == "float" else "i64")))
    half = w.fma(power, less_one(w, r), w.binary("fsub", power, w.literal(0.5, x.type)))
    y = w.binary("fadd", half, half)
    y = w.select(w.compare("fcmp oeq", x, w.literal(0.0, x.type)), x, y)  # -0.0 stays
    return w.select(w.compare("fcmp ole", x, w.literal(least, x.type)), w.literal(-1.0, x.type), y)


def tanh(w: Writer, x: Value) -> Value:
    """Hyperbolic tangent, at most 1.5 ulp: x + x**3 * P below 0.625, else 1 - 2 / (exp(2x) + 1)."""
    one, two = w.literal(1.0, x.type), w.literal(2.0, x.type)
    s, size = w.binary("fmul", x, x), w.intrinsic("fabs", (x,))
    if x.type == "float":
        p = polynomial(
            w, s, [-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1]
        )
    else:
        above = [-9.64399179425052238628e-1, -9.92877231001918586564e1, -1.61468768441708447952e3]
        below = [1.0, 1.12811678491632931402e2, 2.23548839060100448583e3, 4.84406305325125486048e3]
        p = w.binary("fdiv", polynomial(w, s, above), polynomial(w, s, below))
    near = w.fma(w.binary("fmul", p, s), x, x)
    near = w.select(w.compare("fcmp oeq", x, w.literal(0.0, x.type)), x, near)
    e = exp(w, w.binary("fadd", size, size))
    far = w.intrinsic("copysign", (w.binary("fsub", one, w.binary("fdiv", two, w.binary("fadd", e, one))), x))
    return w.select(w.compare("fcmp olt", size, w.literal(0.625, x.type)), near, far)


def erf(w: Writer, x: Value) -> Value:
    """Error function, at most 1.0 ulp (f32) and 1.5 ulp (f64)."""
    t = w.intrinsic("fabs", (x,))
    s = w.binary("fmul", x, x)
    one = w.literal(1.0, x.type)
    if x.type == "float":
        small = polynomial(w, s, [
            -0.000599104969, 0.00499339588, -0.0267667342, 0.112818025,
            -0.376124859, 0.128379151])  # fmt: skip
        # 1 - exp(-polynomial)
        r = w.fma(w.literal(1.7294893e-05, x.type), t, w.literal(-0.00038320868, x.type))
        u = w.fma(w.literal(0.00388393435, x.type), t, w.literal(-0.0242545605, x.type))
        r = w.fma(r, s, u)
        for c in (0.106777847, 0.634846687, 0.128717512):
            r = w.fma(r, t, w.literal(c, x.type))
        r = clamp(w, w.fma(r, t, t), 0.0, 20.0)
        r = w.select(w.compare("fcmp ogt", t, w.literal(4.0, x.type)), w.literal(20.0, x.type), r)
        tail, bound = exp(w, w.binary("fsub", w.literal(0.0, x.type), r)), 0.921875
    else:
        small = polynomial(w, s, [
            5.957176147748911e-11, -1.1372848856791674e-09, 1.4659775274047436e-08, -1.6350312701054695e-07,
            1.6461000484121368e-06, -1.4925595266831182e-05, 0.0001205533111164271,
            -0.000854832698083379, 0.0052239776248180145, -0.026866170645076792,
            0.11283791670954879, -0.3761263890318375, 0.1283791670955126])  # fmt: skip
        # 1 - exp(-t*t) * erfcx(t), a polynomial in (t - 2.5) / (t + 2.5)
        far = clamp(w, t, 0.0, 6.2)
        u = w.binary(
            "fdiv", w.binary("fsub", far, w.literal(2.5, x.type)), w.binary("fadd", far, w.literal(2.5, x.type))
        )
        scaled = polynomial(w, u, [
            3.426584157745285e-07, 1.3114092686403511e-07, -1.8011340797288152e-06, -2.314998950849681e-06,
            7.552406470861937e-06, 1.8617294135018403e-05, -3.418221946303844e-05,
            -0.00012887744294332978, 0.00022838037815709953, 0.0008759154649029062,
            -0.002642365964300101, -0.003993701166284603, 0.03992253907558564,
            -0.12503305237882378, 0.2517131932174493,
            -0.3717367339489734, 0.2108063640611436])  # fmt: skip
        minus = w.binary("fmul", w.binary("fsub", w.literal(0.0, x.type), far), far)
        tail, bound = w.binary("fmul", exp(w, minus), scaled), 1.0
    large = w.binary("fsub", one, tail)
    near = w.fma(small, x, x)
    far_value = w.intrinsic("copysign", (large, x))
    return w.select(
        w.compare("fcmp ult", t, w.literal(bound, x.type)), near, w.select(w.compare("fcmp oeq", x, x), far_value, x)
    )
