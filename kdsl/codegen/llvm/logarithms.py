"""Logarithms and powers on vectors, f32 and f64.

In:  floating Values.  Out: Values. log(0) is -inf, of a negative number NaN, of infinity infinity; numbers below the least
normal one are scaled first. The errors stated are the largest measured (tests/codegen/llvm/test_functions.py).
Read before: exponentials.py. Read next: functions.py.
"""

from __future__ import annotations

from kdsl.codegen.llvm.exponentials import LN2, clamp, less_one, nearest, polynomial, scale
from kdsl.codegen.llvm.writer import Value, Writer

INF = float("inf")
NAN = float("nan")
# log(1+f) = f - f*f/2 + f**3 * P(f)
CUBIC = [7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1, 2.0000714765e-1,
         -2.4999993993e-1, 3.3333331174e-1]  # fmt: skip
# log((1+s)/(1-s)) = 2s + s * z * R(z), z = s*s
ATANH = [1.479819860511658591e-01, 1.531383769920937332e-01, 1.818357216161805012e-01, 2.222219843214978396e-01,
         2.857142874366239149e-01, 3.999999999940941908e-01, 6.666666666666735130e-01]  # fmt: skip


def split(w: Writer, x: Value) -> tuple[Value, Value]:
    """x = 2**e * m with m in [sqrt(1/2), sqrt(2)): (e, m - 1), both floating."""
    type, shift, least, up = ("i32", 23, 2.0**-126, 25) if x.type == "float" else ("i64", 52, 2.0**-1022, 54)
    tiny = w.compare("fcmp olt", x, w.literal(least, x.type))
    x = w.select(tiny, w.binary("fmul", x, w.literal(2.0**up, x.type)), x)
    root = 0x3F3504F3 if x.type == "float" else 0x3FE6A09E667F3BCD
    bits = w.convert("bitcast", x, type)
    above = w.binary("sub", bits, w.literal(root, type))
    if x.type == "float":
        whole = w.binary("ashr", above, w.literal(shift, type))
        exponent = w.convert("sitofp", whole, "float")
        mantissa = w.binary("sub", bits, w.binary("shl", whole, w.literal(shift, type)))
    else:  # AVX2 has no arithmetic shift of i64 and no conversion from it: the upper half is enough
        upper = w.convert("trunc", w.binary("lshr", above, w.literal(32, type)), "i32")
        exponent = w.convert("sitofp", w.binary("ashr", upper, w.literal(20, "i32")), "double")
        mask = w.literal(-(1 << shift), type)
        mantissa = w.binary("sub", bits, w.binary("and", above, mask))
    exponent = w.select(tiny, w.binary("fsub", exponent, w.literal(float(up), x.type)), exponent)
    m = w.convert("bitcast", mantissa, x.type)
    return exponent, w.binary("fsub", m, w.literal(1.0, x.type))


def specials(w: Writer, x: Value, y: Value) -> Value:
    """y = log(x) where x is positive and finite; what a logarithm is elsewhere."""
    zero, inf = w.literal(0.0, x.type), w.literal(INF, x.type)
    y = w.select(w.compare("fcmp oeq", x, inf), inf, y)
    y = w.select(w.compare("fcmp oeq", x, zero), w.literal(-INF, x.type), y)
    return w.select(w.compare("fcmp ult", x, zero), w.literal(NAN, x.type), y)


def mantissa_log(w: Writer, f: Value) -> tuple[Value, Value]:
    """log(1 + f) for 1 + f in [sqrt(1/2), sqrt(2)) as a large part and a small one."""
    square = w.binary("fmul", f, f)
    half = w.binary("fmul", square, w.literal(0.5, f.type))
    if f.type == "float":
        cubic = w.binary("fmul", w.binary("fmul", polynomial(w, f, CUBIC), f), square)
        return f, w.binary("fsub", cubic, half)
    s = w.binary("fdiv", f, w.binary("fadd", f, w.literal(2.0, f.type)))
    z = w.binary("fmul", s, s)
    r = w.binary("fmul", polynomial(w, z, ATANH), z)
    # f - (half - s * (half + r))
    return f, w.binary("fsub", w.binary("fmul", s, w.binary("fadd", half, r)), half)


def log(w: Writer, x: Value) -> Value:
    """Natural logarithm, at most 1.0 ulp."""
    e, f = split(w, x)
    large, small = mantissa_log(w, f)
    high, low = LN2[x.type]
    y = w.fma(e, w.literal(low, x.type), small)
    return specials(w, x, w.fma(e, w.literal(high, x.type), w.binary("fadd", y, large)))


def other_base(w: Writer, x: Value, unit: tuple[float, float], two: tuple[float, float]) -> Value:
    """log(x) * unit, where e * two is the exponent's share; both constants in two parts."""
    e, f = split(w, x)
    large, small = mantissa_log(w, f)
    t = w.literal(unit[0], x.type)
    part = w.fma(large, w.literal(unit[1], x.type), w.binary("fmul", small, t))
    part = w.fma(e, w.literal(two[1], x.type), part)
    product = w.binary("fmul", large, t)
    lost = w.fma(large, t, w.negative(product))
    part = w.binary("fadd", part, lost)
    whole = w.binary("fmul", e, w.literal(two[0], x.type))
    sum_ = w.binary("fadd", whole, product)  # e dominates or is 0
    rest = w.binary("fadd", w.binary("fsub", whole, sum_), product)
    return specials(w, x, w.binary("fadd", sum_, w.binary("fadd", rest, part)))


def log2(w: Writer, x: Value) -> Value:
    """Logarithm to base 2, at most 1.0 ulp; exact for powers of 2."""
    unit = (
        (1.4426950216293335, 1.9259629911266175e-8)
        if x.type == "float"
        else (1.4426950408889634, 2.0355273740931033e-17)
    )
    return other_base(w, x, unit, (1.0, 0.0))


def log10(w: Writer, x: Value) -> Value:
    """Logarithm to base 10, at most 1.5 ulp."""
    if x.type == "float":
        return other_base(w, x, (0.4342944920063019, -1.0103050118726031e-08), (0.301025390625, 4.6050389811952114e-06))
    return other_base(w, x, (0.4342944819032518, 1.098319650216765e-17), (0.30102999560767785, 5.630334806675098e-11))


def log1p(w: Writer, x: Value) -> Value:
    """log(1 + x), at most 1.5 ulp."""
    one, inf = w.literal(1.0, x.type), w.literal(INF, x.type)
    u = w.binary("fadd", x, one)
    back = w.binary("fsub", u, one)
    lost = w.binary("fadd", w.binary("fsub", one, w.binary("fsub", u, back)), w.binary("fsub", x, back))
    y = w.binary("fadd", log(w, u), w.binary("fdiv", lost, u))
    unchanged = w.compare("fcmp oeq", u, one)
    y = w.select(unchanged, x, y)
    y = w.select(w.compare("fcmp oeq", x, inf), inf, y)
    return w.select(w.compare("fcmp oeq", x, w.literal(-1.0, x.type)), w.literal(-INF, x.type), y)


# --- powers -----------------------------------------------------------------------------------------------------------------
def two_sum(w: Writer, a: Value, b: Value) -> tuple[Value, Value]:
    """a + b as a rounded sum and what was lost, |a| >= |b|."""
    s = w.binary("fadd", a, b)
    return s, w.binary("fadd", w.binary("fsub", a, s), b)


def two_product(w: Writer, a: Value, b: Value) -> tuple[Value, Value]:
    p = w.binary("fmul", a, b)
    return p, w.fma(a, b, w.negative(p))


def long_log(w: Writer, x: Value) -> tuple[Value, Value]:
    """log(x) for positive finite f64 x, in two parts that together have about 64 bits."""
    e, f = split(w, x)
    d = w.binary("fadd", f, w.literal(2.0, x.type))
    d_lost = w.binary("fadd", w.binary("fsub", w.literal(2.0, x.type), d), f)
    s = w.binary("fdiv", f, d)
    s_lost = w.fma(w.negative(s), d, f)
    s_lost = w.binary("fdiv", w.fma(w.negative(s), d_lost, s_lost), d)
    z, z_lost = two_product(w, s, s)
    z_lost = w.fma(w.binary("fadd", s, s), s_lost, z_lost)
    # s * (2 + z * (2/3 + z * tail)), the first two terms in two parts
    tail = polynomial(w, z, [2 / 25, 2 / 23, 2 / 21, 2 / 19, 2 / 17, 2 / 15, 2 / 13, 2 / 11, 2 / 9, 2 / 7, 2 / 5])
    c, c_lost = two_sum(w, w.literal(0.6666666666666666, x.type), w.binary("fmul", z, tail))
    c_lost = w.binary("fadd", c_lost, w.fma(z_lost, tail, w.literal(3.700743415417188e-17, x.type)))
    p, p_lost = two_product(w, z, c)
    p_lost = w.fma(z, c_lost, w.fma(z_lost, c, p_lost))
    q, q_lost = two_product(w, s, p)
    q_lost = w.fma(s, p_lost, w.fma(s_lost, p, q_lost))
    double_s = w.binary("fadd", s, s)
    y, lost = two_sum(w, double_s, q)
    lost = w.binary("fadd", lost, w.binary("fadd", q_lost, w.binary("fadd", s_lost, s_lost)))
    high, low = LN2["double"]
    k, k_lost = two_product(w, e, w.literal(high, x.type))
    total, rest = two_sum(w, k, y)
    rest = w.binary("fadd", rest, w.binary("fadd", w.fma(e, w.literal(low, x.type), k_lost), lost))
    zero = w.compare("fcmp oeq", e, w.literal(0.0, x.type))
    return two_sum(w, w.select(zero, y, total), w.select(zero, lost, rest))


def positive_power(w: Writer, x: Value, y: Value) -> Value:
    """x**y for x > 0 in f64, also 0 and infinity as limits."""
    inf = w.literal(INF, x.type)
    high, low = long_log(w, x)
    p, lost = two_product(w, y, high)
    lost = w.fma(y, low, lost)
    bounded = clamp(w, p, -746.0, 710.0)
    lost = w.select(w.compare("fcmp oeq", bounded, p), lost, w.literal(0.0, x.type))
    k, bits = nearest(w, bounded, 1.4426950408889634)
    big, little = LN2["double"]
    r = w.fma(k, w.literal(-big, x.type), bounded)
    r, rest = two_sum(w, r, w.fma(k, w.literal(-little, x.type), lost))
    e = less_one(w, r)
    e = w.binary("fadd", e, w.fma(rest, e, rest))
    result = scale(w, w.binary("fadd", e, w.literal(1.0, x.type)), bits)
    # x = 0 or infinity: the result is 0 or infinity by the sign of y
    grows = w.binary(
        "xor", w.compare("fcmp ogt", x, w.literal(1.0, x.type)), w.compare("fcmp olt", y, w.literal(0.0, x.type))
    )
    limit = w.select(grows, inf, w.literal(0.0, x.type))
    one = w.compare("fcmp oeq", x, w.literal(1.0, x.type))
    at_limit = w.binary("or", w.compare("fcmp oeq", x, w.literal(0.0, x.type)), w.compare("fcmp oeq", x, inf))
    at_limit = w.binary("or", at_limit, w.compare("fcmp oeq", w.intrinsic("fabs", (y,)), inf))
    result = w.select(at_limit, limit, result)
    return w.select(one, w.literal(1.0, x.type), result)


def power(w: Writer, x: Value, y: Value) -> Value:
    """x**y, at most 1.0 ulp (f32, computed in f64) and 2.0 ulp (f64); IEEE's special cases."""
    x, y = w.level((x, y))
    if x.type == "float":
        wide = power(w, w.convert("fpext", x, "double"), w.convert("fpext", y, "double"))
        return w.convert("fptrunc", wide, "float")
    zero, one, half = (w.literal(c, x.type) for c in (0.0, 1.0, 0.5))
    size = w.intrinsic("fabs", (x,))
    result = positive_power(w, size, y)
    halved = w.binary("fmul", y, half)
    is_whole = w.compare("fcmp oeq", w.intrinsic("trunc", (y,)), y)
    is_even = w.compare("fcmp oeq", w.intrinsic("trunc", (halved,)), halved)
    not_even = w.binary("xor", is_even, w.splat(w.literal(True, "i1"), x.width))
    is_odd = w.binary("and", is_whole, not_even)
    signed = w.select(is_odd, w.intrinsic("copysign", (result, x)), result)
    finite = w.compare("fcmp olt", w.intrinsic("fabs", (y,)), w.literal(INF, x.type))
    fraction = w.binary("and", finite, w.binary("xor", is_whole, w.splat(w.literal(True, "i1"), x.width)))
    invalid = w.binary(
        "and",
        w.binary("and", w.compare("fcmp olt", x, zero), fraction),
        w.compare("fcmp ogt", x, w.literal(-INF, x.type)),
    )
    result = w.select(invalid, w.literal(NAN, x.type), signed)
    result = w.select(w.compare("fcmp uno", x, y), w.binary("fadd", x, y), result)
    always = w.binary("or", w.compare("fcmp oeq", y, zero), w.compare("fcmp oeq", x, one))
    return w.select(always, one, result)
