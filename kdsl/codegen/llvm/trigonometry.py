"""sin, cos, tan, atan and the inverse functions on vectors, f32 and f64.

In:  floating Values.  Out: Values. The argument of sin and cos is reduced by multiples of pi/2 in three parts; where a lane
is too large for that, a helper of the module (`HUGE`) multiplies by 2/pi to as many bits as it takes (Payne and Hanek).
The errors stated are the largest measured (tests/codegen/llvm/test_functions.py).
Read before: exponentials.py. Read next: functions.py.
"""

from __future__ import annotations

from kdsl.codegen.llvm.exponentials import polynomial
from kdsl.codegen.llvm.writer import Value, Writer
from kdsl.codegen.two_over_pi import two_over_pi

HALF_PI = {
    "float": (1.5707963705062866, -4.371138828673793e-08, -1.7151245100058819e-15),
    "double": (1.5707963267948966, 6.123233995736766e-17, -1.4973849048591698e-33),
}
LIMIT = {"float": 50000.0, "double": 1.0e6}  # up to here three parts are enough
SIN = {
    "float": [2.7557314e-6, -1.98412698e-4, 8.33333377e-3, -1.66666672e-1],
    "double": [1.58969099521155010221e-10, -2.50507602534068634195e-08, 2.75573137070700676789e-06, -1.98412698298579493134e-04,
               8.33333333332248946124e-03, -1.66666666666666324348e-01],
}  # fmt: skip
COS = {
    "float": [2.44331571e-5, -1.38873162e-3, 4.16666456e-2],
    "double": [-1.13596475577881948265e-11, 2.08757232129817482790e-09, -2.75573143513906633035e-07, 2.48015872894767294178e-05,
               -1.38888888888741095749e-03, 4.16666666666666019037e-02],
}  # fmt: skip


def _bytes() -> str:
    """The bits of 2/pi after the point, as bytes, least significant first, behind 32 zero bytes."""
    bits = two_over_pi()
    return "".join(f"\\{b:02X}" for b in bits.to_bytes(160, "little")) + "\\00" * 32


# x = 2**e * m with a 53-bit m. Wanted is x * 2/pi modulo 4: of the product m * (2/pi), the bits from 2**(2-e) down.
HUGE = """
@two_over_pi = internal constant [192 x i8] c"BITS", align 64
define internal <2 x double> @reduce_huge(double %x) nounwind memory(none) {
  %bits = bitcast double %x to i64
  %positive = and i64 %bits, 9223372036854775807
  %exponent = lshr i64 %positive, 52
  %fraction = and i64 %bits, 4503599627370495
  %m = or i64 %fraction, 4503599627370496
  %e = sub i64 %exponent, 1075
  %e.low = call i64 @llvm.smax.i64(i64 %e, i64 -70)
  %drop = sub i64 1280, %e.low
  %start = sub i64 %drop, 190
  %start.ok = call i64 @llvm.smin.i64(i64 %start, i64 1160)
  %byte = lshr i64 %start.ok, 3
  %shift = sub i64 %drop, 190
  %back = shl i64 %byte, 3
  %offset = sub i64 %shift, %back
  %p = getelementptr i8, ptr @two_over_pi, i64 %byte
  %window = load i256, ptr %p, align 1
  %wide = zext i64 %m to i256
  %amount = zext i64 %offset to i256
  %aligned = lshr i256 %window, %amount
  %kept = and i256 %aligned, 6277101735386680763835789423207666416102355444464034512895
  %product = mul i256 %kept, %wide
  %top = lshr i256 %product, 62
  %turn = trunc i256 %top to i192
  %turn.hi = lshr i192 %turn, 128
  %quarter64 = trunc i192 %turn.hi to i64
  %rest.wide = lshr i192 %turn, 64
  %rest = trunc i192 %rest.wide to i64
  %rest.low = trunc i192 %turn to i64
  %half = lshr i64 %rest, 63
  %quarter.up = add i64 %quarter64, %half
  %quarter = and i64 %quarter.up, 3
  %part.high = sitofp i64 %rest to double
  %part.low = uitofp i64 %rest.low to double
  %part.scaled = fmul double %part.low, 0x3BF0000000000000
  %part = fadd double %part.high, %part.scaled
  %angle = fmul double %part, 0x3BF921FB54442D18
  %minus = fneg double %angle
  %negative = icmp slt i64 %bits, 0
  %r = select i1 %negative, double %minus, double %angle
  %q.minus = sub i64 0, %quarter
  %q.mod = and i64 %q.minus, 3
  %q = select i1 %negative, i64 %q.mod, i64 %quarter
  %finite = icmp ult i64 %positive, 9218868437227405312
  %r.or.nan = select i1 %finite, double %r, double 0x7FF8000000000000
  %q.float = uitofp i64 %q to double
  %a = insertelement <2 x double> poison, double %r.or.nan, i32 0
  %b = insertelement <2 x double> %a, double %q.float, i32 1
  ret <2 x double> %b
}
"""


def huge_helper() -> str:
    """The text of the helper, for a module that calls it."""
    return HUGE.replace("BITS", _bytes())


def reduce(w: Writer, x: Value) -> tuple[Value, Value]:
    """x = n * pi/2 + r with |r| <= pi/4: (r, n modulo 4 as an integer), through one function for each type."""
    t, type = x.full, x.type
    integer = "i32" if type == "float" else "i64"
    name = f"reduce_v{x.width}{'f32' if type == 'float' else 'f64'}"
    w.helpers.setdefault("reduce_huge", huge_helper)
    w.declarations.update({"declare i64 @llvm.smax.i64(i64, i64)", "declare i64 @llvm.smin.i64(i64, i64)"})
    w.helpers.setdefault(name, lambda: _reduce_function(w, name, x.width, type, integer))
    ti = t if integer == type else t.replace(type, integer)
    both = w.pure(f"call {{ {t}, {ti} }} @{name}({t} {x.text})", (x,), "pair", 1)
    r = w.pure(f"extractvalue {{ {t}, {ti} }} {both.text}, 0", (both,), type, x.width)
    return r, w.pure(f"extractvalue {{ {t}, {ti} }} {both.text}, 1", (both,), integer, x.width)


def _reduce_function(w: Writer, name: str, width: int, type: str, integer: str) -> str:
    """Three parts of pi/2 in line; a lane beyond LIMIT (or not finite) goes through the exact helper."""
    v = Writer(w.target, w.lanes, w.declarations)
    x = Value("%x", type, width)
    n = v.intrinsic("rint", (v.binary("fmul", x, v.literal(0.6366197723675814, type)),))
    r = x
    for part in HALF_PI[type]:
        r = v.fma(n, v.literal(-part, type), r)
    if type == "float":
        q = v.convert("fptosi", n, "i32")
    else:
        moved = v.convert("bitcast", v.binary("fadd", n, v.literal(6755399441055744.0, type)), "i64")
        q = v.binary("sub", moved, v.literal(0x4338000000000000, "i64"))
    small = v.compare("fcmp ole", v.intrinsic("fabs", (x,)), v.literal(LIMIT[type], type))
    if width == 1:
        all_small = small
    else:
        mask = v.pure(f"bitcast {small.full} {small.text} to i{width}", (small,), f"i{width}")
        all_small = v.compare("icmp eq", mask, v.literal(-1, f"i{width}"))
    t, ti = x.full, q.full
    pair = f"{{ {t}, {ti} }}"
    lines = [f"define internal {pair} @{name}({t} %x) nounwind memory(none) {{", "entry:", *v.frames[0].lines]
    lines += [f"  br i1 {all_small.text}, label %near, label %far", "near:"]
    lines += [
        f"  %n0 = insertvalue {pair} poison, {t} {r.text}, 0",
        f"  %n1 = insertvalue {pair} %n0, {ti} {q.text}, 1",
        f"  ret {pair} %n1",
    ]
    lines.append("far:")
    f = Writer(w.target, w.lanes, w.declarations)
    f.count = v.count
    angles, quarters = [], []
    for lane in range(width):
        one = f.convert("fpext", f.extract(x, lane), "double")
        both = f.pure(f"call <2 x double> @reduce_huge(double {one.text})", (one,), "double", 2)
        angles.append(f.convert("fptrunc", f.extract(both, 0), type))
        quarters.append(f.convert("fptosi", f.extract(both, 1), integer))
    a = f.select(small, r, f.collect(angles))
    b = f.select(small, q, f.collect(quarters))
    lines += f.frames[0].lines
    lines += [
        f"  %f0 = insertvalue {pair} poison, {t} {a.text}, 0",
        f"  %f1 = insertvalue {pair} %f0, {ti} {b.text}, 1",
        f"  ret {pair} %f1",
        "}",
    ]
    return "\n".join(lines) + "\n"


def sin_cos(w: Writer, x: Value) -> tuple[Value, Value]:
    """Both, at most 1.6 ulp; f64 beyond LIMIT 2.5 ulp."""
    r, q = reduce(w, x)
    z = w.binary("fmul", r, r)
    s = w.fma(w.binary("fmul", polynomial(w, z, SIN[x.type]), z), r, r)
    c = w.fma(
        w.binary("fmul", z, z), polynomial(w, z, COS[x.type]), w.fma(z, w.literal(-0.5, x.type), w.literal(1.0, x.type))
    )
    odd = w.compare("icmp ne", w.binary("and", q, w.literal(1, q.type)), w.literal(0, q.type))
    two = w.literal(2, q.type)
    shift = w.literal(30 if q.type == "i32" else 62, q.type)

    def signed(v: Value, quarter: Value) -> Value:
        """-v in the lower half of the circle."""
        flip = w.binary("shl", w.binary("and", quarter, two), shift)
        return w.convert("bitcast", w.binary("xor", w.convert("bitcast", v, q.type), flip), x.type)

    sine = signed(w.select(odd, c, s), q)
    cosine = signed(w.select(odd, s, c), w.binary("add", q, w.literal(1, q.type)))
    return w.select(w.compare("fcmp oeq", x, w.literal(0.0, x.type)), x, sine), cosine


def sin(w: Writer, x: Value) -> Value:
    """Sine: see sin_cos."""
    return sin_cos(w, x)[0]


def cos(w: Writer, x: Value) -> Value:
    """Cosine: see sin_cos."""
    return sin_cos(w, x)[1]


def tan(w: Writer, x: Value) -> Value:
    """Tangent, at most 4.5 ulp."""
    return w.binary("fdiv", *sin_cos(w, x))


def atan(w: Writer, x: Value) -> Value:
    """Arc tangent, at most 3 ulp (f32) and 1 ulp (f64)."""
    t = w.intrinsic("fabs", (x,))
    one = w.literal(1.0, x.type)
    large = w.compare("fcmp ogt", t, w.literal(2.414213562373095, x.type))
    middle = w.compare("fcmp ogt", t, w.literal(0.4142135623730950 if x.type == "float" else 0.66, x.type))
    above = w.select(large, w.literal(-1.0, x.type), w.select(middle, w.binary("fsub", t, one), t))
    below = w.select(large, t, w.select(middle, w.binary("fadd", t, one), one))
    u = w.binary("fdiv", above, below)
    z = w.binary("fmul", u, u)
    base = w.select(
        large,
        w.literal(1.5707963267948966, x.type),
        w.select(middle, w.literal(0.7853981633974483, x.type), w.literal(0.0, x.type)),
    )
    if x.type == "float":
        p = polynomial(w, z, [8.05374449538e-2, -1.38776856032e-1, 1.99777106478e-1, -3.33329491539e-1])
        y = w.fma(w.binary("fmul", p, z), u, u)
    else:
        p = polynomial(w, z, [-8.750608600031904122785e-1, -1.615753718733365076637e1, -7.500855792314704667340e1,
                              -1.228866684490136173410e2, -6.485021904942025371773e1])  # fmt: skip
        q = polynomial(w, z, [1.0, 2.485846490142306297962e1, 1.650270098316988542046e2, 4.328810604912902668951e2,
                              4.853903996359136964868e2, 1.945506571482613964425e2])  # fmt: skip
        y = w.fma(u, w.binary("fdiv", w.binary("fmul", z, p), q), u)
        half = w.select(middle, w.literal(3.061616997868383e-17, x.type), w.literal(0.0, x.type))
        y = w.binary("fadd", y, w.select(large, w.literal(6.123233995736766e-17, x.type), half))
    return w.intrinsic("copysign", (w.binary("fadd", base, y), x))


def asin(w: Writer, x: Value) -> Value:
    """Arc sine, at most 4 ulp."""
    one = w.literal(1.0, x.type)
    root = w.intrinsic("sqrt", (w.binary("fmul", w.binary("fsub", one, x), w.binary("fadd", one, x)),))
    return atan(w, w.binary("fdiv", x, root))


def acos(w: Writer, x: Value) -> Value:
    """Arc cosine, at most 4 ulp."""
    one = w.literal(1.0, x.type)
    ratio = w.binary(
        "fdiv", w.intrinsic("sqrt", (w.binary("fsub", one, x),)), w.intrinsic("sqrt", (w.binary("fadd", one, x),))
    )
    half = atan(w, ratio)
    return w.binary("fadd", half, half)


def atan2(w: Writer, y: Value, x: Value) -> Value:
    """The angle of (x, y), at most 4 ulp; IEEE's special cases."""
    y, x = w.level((y, x))
    zero, pi = w.literal(0.0, x.type), w.literal(3.141592653589793, x.type)
    a, b = w.intrinsic("fabs", (y,)), w.intrinsic("fabs", (x,))
    ratio = w.binary("fdiv", a, b)
    ratio = w.select(
        w.compare("fcmp oeq", a, b), w.select(w.compare("fcmp oeq", a, zero), zero, w.literal(1.0, x.type)), ratio
    )
    angle = atan(w, ratio)
    integer = "i32" if x.type == "float" else "i64"
    left = w.compare("icmp slt", w.convert("bitcast", x, integer), w.literal(0, integer))
    low = w.literal(-8.742277657347586e-08 if x.type == "float" else 1.2246467991473532e-16, x.type)
    mirrored = w.binary("fsub", pi, w.binary("fsub", angle, low))
    angle = w.intrinsic("copysign", (w.select(left, mirrored, angle), y))
    return w.select(w.compare("fcmp uno", x, y), w.binary("fadd", x, y), angle)
