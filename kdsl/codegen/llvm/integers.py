"""Integer and bool ops, by contract section 5: they wrap; division by zero gives 0, the least integer // -1 wraps; `//` and
`%` round down; shifts by the width or more give 0 or the sign.

In:  operands as Values and their dtype.  Out: a Value. bool is i1 here.
Read before: writer.py. Read next: operations.py.
"""

from __future__ import annotations

from collections.abc import Callable

from kdsl.codegen.llvm.writer import Value, Writer
from kdsl.dtypes import DType

Rule = Callable[[Writer, list[Value], DType], Value]

COMPARE = {
    "eq": ("eq", "eq"),
    "ne": ("ne", "ne"),
    "lt": ("slt", "ult"),
    "le": ("sle", "ule"),
    "gt": ("sgt", "ugt"),
    "ge": ("sge", "uge"),
}


def plain(op: str) -> Rule:
    return lambda w, x, of: w.binary(op, *x)


def compare(name: str) -> Rule:
    signed, unsigned = COMPARE[name]
    return lambda w, x, of: w.compare(f"icmp {signed if of.kind == 'signed' else unsigned}", *x)


def extreme(name: str) -> Rule:
    def rule(w: Writer, x: list[Value], of: DType) -> Value:
        if of.kind == "bool":
            return w.binary("or" if name == "max" else "and", *x)
        return w.intrinsic(f"{'s' if of.kind == 'signed' else 'u'}{name}", x)

    return rule


def invert(w: Writer, x: list[Value], of: DType) -> Value:
    return w.binary("xor", x[0], w.literal(-1 if of.kind != "bool" else True, x[0].type))


def negate(w: Writer, x: list[Value], of: DType) -> Value:
    return w.binary("sub", w.literal(0, x[0].type), x[0])


def absolute(w: Writer, x: list[Value], of: DType) -> Value:
    return w.intrinsic("abs", x, extra="i1 false") if of.kind == "signed" else x[0]


def sign(w: Writer, x: list[Value], of: DType) -> Value:
    one = w.literal(1, x[0].type)
    if of.kind != "signed":
        return x[0] if of.kind == "bool" else w.intrinsic("umin", (x[0], one))
    return w.intrinsic("smax", (w.intrinsic("smin", (x[0], one)), w.literal(-1, x[0].type)))


def divide(quotient: bool) -> Rule:
    """Rounding down. The divisor is replaced by 1 where dividing would trap."""

    def rule(w: Writer, x: list[Value], of: DType) -> Value:
        a, b = w.level(x)
        zero, one, minus = (w.splat(w.literal(n, a.type), a.width) for n in (0, 1, -1))
        by_zero = w.compare("icmp eq", b, zero)
        if of.kind != "signed":
            safe = w.select(by_zero, one, b)
            return w.select(by_zero, zero, w.binary("udiv" if quotient else "urem", a, safe))
        negating = w.compare("icmp eq", b, minus)
        safe = w.select(w.binary("or", by_zero, negating), one, b)
        r = w.binary("srem", a, safe)
        wrong = w.binary("and", w.compare("icmp ne", r, zero), w.compare("icmp slt", w.binary("xor", r, safe), zero))
        if quotient:
            q = w.binary("sdiv", a, safe)
            q = w.select(wrong, w.binary("sub", q, one), q)
            return w.select(by_zero, zero, w.select(negating, w.binary("sub", zero, a), q))
        return w.select(by_zero, zero, w.select(wrong, w.binary("add", r, safe), r))

    return rule


def shift(left: bool) -> Rule:
    """A count of the width or more (a negative one, too) shifts everything out."""

    def rule(w: Writer, x: list[Value], of: DType) -> Value:
        a, n = w.level(x)
        most = w.literal(of.bits - 1, a.type)
        fits = w.compare("icmp ule", n, most)
        safe = w.select(fits, n, most)
        if not left and of.kind == "signed":
            return w.binary("ashr", a, safe)
        shifted = w.binary("shl" if left else "lshr", a, safe)
        return w.select(fits, shifted, w.literal(0, a.type))

    return rule


def power(w: Writer, x: list[Value], of: DType) -> Value:
    """By squaring, as many steps as the exponent has bits; a negative exponent gives 0, but for bases 1 and -1."""
    base, n = w.level(x)
    zero, one = w.literal(0, base.type), w.splat(w.literal(1, base.type), base.width)
    out, b, e = one, base, n
    for _ in range(of.bits):
        odd = w.compare("icmp ne", w.binary("and", e, one), zero)
        out = w.select(odd, w.binary("mul", out, b), out)
        b, e = w.binary("mul", b, b), w.binary("lshr", e, one)
    if of.kind != "signed":
        return out
    negative = w.compare("icmp slt", n, zero)
    unit = w.compare("icmp eq", w.binary("mul", base, base), one)
    unit = w.binary("and", unit, w.compare("icmp ule", w.binary("add", base, one), w.literal(2, base.type)))
    odd = w.compare("icmp ne", w.binary("and", n, one), zero)
    return w.select(negative, w.select(unit, w.select(odd, base, one), zero), out)


def multiply_high(w: Writer, x: list[Value], of: DType) -> Value:
    """The upper half of the product."""
    wide = f"i{2 * of.bits}"
    word = "sext" if of.kind == "signed" else "zext"
    a, b = (w.convert(word, v, wide) for v in w.level(x))
    return w.convert("trunc", w.binary("lshr", w.binary("mul", a, b), w.literal(of.bits, wide)), x[0].type)


def same(w: Writer, x: list[Value], of: DType) -> Value:
    return x[0]


def never(w: Writer, x: list[Value], of: DType) -> Value:
    return w.splat(w.literal(False, "i1"), x[0].width)


def logical(integer: str, boolean: str) -> Rule:
    return lambda w, x, of: w.binary(boolean if of.kind == "bool" else integer, *x)


INTEGERS: dict[str, Rule] = {
    "add": logical("add", "or"), "sub": logical("sub", "xor"), "mul": logical("mul", "and"),
    "floor_div": divide(True), "mod": divide(False), "pow": power, "mulhi": multiply_high,
    "and": plain("and"), "or": plain("or"), "xor": plain("xor"), "shl": shift(True), "shr": shift(False),
    "not": invert, "neg": negate, "abs": absolute, "sign": sign, "maximum": extreme("max"), "minimum": extreme("min"),
    **{name: compare(name) for name in COMPARE},
    "floor": same, "ceil": same, "round": same, "trunc": same, "is_nan": never, "is_inf": never,
    "sign_bit": lambda w, x, of: w.compare("icmp slt", x[0], w.literal(0, x[0].type)) if of.kind == "signed" else never(w, x, of),
}  # fmt: skip
