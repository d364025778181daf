"""The op table: what each elementwise op of the loop IR is in LLVM instructions, for every dtype.

In:  an op's name, its operands as Values, the dtypes.  Out: a Value. Everything is written through Writer, so equal
instructions are shared. `contract` (a*b+c may be fused) is the one freedom that arithmetic gets: NaN, infinity and the sign
of zero survive. Contract section 5's rules for integers hold: see integers.py.
Read before: writer.py. Read next: integers.py, exponentials.py, trigonometry.py, remainders.py, casts.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kdsl.codegen.llvm.casts import bitcast, cast, round_to
from kdsl.codegen.llvm.functions import FUNCTIONS
from kdsl.codegen.llvm.integers import INTEGERS
from kdsl.codegen.llvm.random_bits import philox
from kdsl.codegen.llvm.remainders import floor_div, modulo
from kdsl.codegen.llvm.writer import Value, Writer
from kdsl.dtypes import DType

Rule = Callable[[Writer, list[Value]], Value]

ARITHMETIC = {"add": "fadd contract", "sub": "fsub contract", "mul": "fmul contract", "div": "fdiv"}
COMPARE = {"eq": ("oeq", "eq", "eq"), "ne": ("une", "ne", "ne"), "lt": ("olt", "slt", "ult"), "le": ("ole", "sle", "ule"),
           "gt": ("ogt", "sgt", "ugt"), "ge": ("oge", "sge", "uge")}  # fmt: skip
ROUNDING = {"floor": "floor", "ceil": "ceil", "trunc": "trunc", "round": "roundeven"}


def maximum(w: Writer, x: list[Value]) -> Value:
    """NaN if either is: the compare drops a NaN of the first, which the second select brings back."""
    return _extreme(w, x, "fcmp ogt")


def minimum(w: Writer, x: list[Value]) -> Value:
    return _extreme(w, x, "fcmp olt")


def _extreme(w: Writer, x: list[Value], better: str) -> Value:
    a, b = w.level(x)
    # the second operand is returned where either is NaN (one vmaxps); in a running maximum the new value is the first
    return w.select(w.compare("fcmp uno", a, a), a, w.select(w.compare(better, a, b), a, b))


def where(w: Writer, x: list[Value]) -> Value:
    return w.select(*x)


def sign(w: Writer, x: list[Value]) -> Value:
    """-1, 0 or 1; of both zeros 0; NaN stays what it is."""
    v = x[0]
    one = w.intrinsic("copysign", (w.splat(w.literal(1.0, v.type), v.width), v))
    zero = w.literal(0.0, v.type)
    return w.select(w.compare("fcmp one", v, zero), one, w.binary("fadd", v, w.splat(zero, v.width)))


def sign_bit(w: Writer, x: list[Value]) -> Value:
    type = {"float": "i32", "double": "i64"}[x[0].type]
    return w.compare("icmp slt", w.convert("bitcast", x[0], type), w.literal(0, type))


def rsqrt(w: Writer, x: list[Value]) -> Value:
    return w.binary("fdiv", w.literal(1.0, x[0].type), w.intrinsic("sqrt", x))


def next_after(w: Writer, x: list[Value]) -> Value:
    """The next number from a towards b: one step in the order of the bits."""
    a, b = w.level(x)
    type, low = {"float": ("i32", -(1 << 31)), "double": ("i64", -(1 << 63))}[a.type]
    zero, one = w.literal(0.0, a.type), w.literal(1, type)
    bits = w.convert("bitcast", a, type)
    positive = w.compare("icmp sge", bits, w.literal(0, type))
    up = w.compare("fcmp olt", a, b)
    away = w.binary("xor", w.binary("xor", up, positive), w.splat(w.literal(True, "i1"), a.width))
    moved = w.select(away, w.binary("add", bits, one), w.binary("sub", bits, one))
    smallest = w.binary("or", w.binary("and", w.convert("bitcast", b, type), w.literal(low, type)), one)
    moved = w.select(w.compare("fcmp oeq", a, zero), smallest, moved)
    out = w.convert("bitcast", moved, a.type)
    out = w.select(w.compare("fcmp oeq", a, b), b, out)
    return w.select(w.compare("fcmp uno", a, b), w.binary("fadd", a, b), out)


def fma(w: Writer, x: list[Value]) -> Value:
    return w.fma(*x)


FLOATING: dict[str, Rule] = {
    **{op: (lambda w, x, text=text: w.binary(text, *x)) for op, text in ARITHMETIC.items()},
    **{op: (lambda w, x, name=name: w.intrinsic(name, x)) for op, name in ROUNDING.items()},
    **{op: (lambda w, x, p=p: w.compare(f"fcmp {p[0]}", *x)) for op, p in COMPARE.items()},
    "neg": lambda w, x: w.negative(x[0]),
    "abs": lambda w, x: w.intrinsic("fabs", x),
    "sqrt": lambda w, x: w.intrinsic("sqrt", x),
    "copysign": lambda w, x: w.intrinsic("copysign", x),
    "is_nan": lambda w, x: w.compare("fcmp uno", x[0], x[0]),
    "is_inf": lambda w, x: w.compare("fcmp oeq", w.intrinsic("fabs", x), w.literal(float("inf"), x[0].type)),
    "maximum": maximum, "minimum": minimum, "sign": sign, "sign_bit": sign_bit, "rsqrt": rsqrt, "nextafter": next_after,
    "fma": fma, "floor_div": floor_div, "mod": modulo,
    **FUNCTIONS,
}  # fmt: skip


def apply(w: Writer, op: str, operands: Sequence[Value], dtype: DType, operand_dtypes: Sequence[DType]) -> Value:
    """The value of one op: `dtype` is the result's, `operand_dtypes` the operands'."""
    x = list(operands)
    if op == "where":
        return where(w, x)
    if op in ("stop_gradient", "barrier"):
        return x[0]
    of = operand_dtypes[0].compute
    if op == "cast":
        return cast(w, x[0], operand_dtypes[0], dtype)
    if op == "bitcast":
        return bitcast(w, x[0], operand_dtypes[0], dtype)
    if op in ("round_f16", "round_bf16"):
        return round_to(w, x[0], op[6:])
    if op == "philox":
        return philox(w, *x)
    if of.is_floating:
        return FLOATING[op](w, x)
    return INTEGERS[op](w, x, of)
