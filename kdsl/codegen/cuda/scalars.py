"""Elementwise ops on scalars as LLVM functions for NVVM, written by the same tables as the CPU's vectors.

In:  an op and its dtypes.  Out: `function(op, …)`: a name and the text of all functions that must be in the module.
The tables (codegen/llvm/operations.py) decide what an op is; here stand only the differences of the dialect: NVVM reads an
old LLVM (no fneg, few intrinsics), fuses a*b+c wherever it may (so what must not be fused is an instruction of its own), and
PTX has conversions and roundings as single instructions. exp and exp2 of f32 use the machine's own power of two.
Read before: codegen/llvm/writer.py, operations.py. Read next: macros.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from kdsl.codegen.cuda.huge_angles import reduce_huge
from kdsl.codegen.llvm.operations import apply
from kdsl.codegen.llvm.writer import TYPES, Value, Writer
from kdsl.dtypes import BY_NAME
from kdsl.target import Target

LETTER = {"float": "f", "double": "d", "i16": "h", "i32": "r", "i64": "l"}
WORD = {"float": "f32", "double": "f64"}


@lru_cache(maxsize=1024)
def function(op: str, operands: tuple[str, ...], dtype: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The name of the function for an op on these dtypes, and the name and text of it and of each function that it calls."""
    w = Writer(_TARGET, 1, set())
    w.helpers["reduce_huge"] = reduce_huge
    kinds = [BY_NAME[d] for d in operands]
    x = [Value(f"%x{i}", TYPES[d]) for i, d in enumerate(operands)]
    rule = OWN.get((op, operands[0]))
    out = rule(w, x) if rule else apply(w, op, x, BY_NAME[dtype], kinds)
    name = f"kdsl.{op}.{'.'.join((*operands, dtype))}"
    parameters = ", ".join(f"{v.type} {v.text}" for v in x)
    body = "\n".join(w.frames[0].lines)
    text = f"define internal {out.type} @{name}({parameters}) alwaysinline {{\n{body}\n  ret {out.type} {out.text}\n}}\n"
    texts = [text]
    while w.helpers:
        _, helper = w.helpers.popitem()
        texts.append(helper())
    needed: dict[str, str] = {}
    texts = [legal(t, needed) for t in texts]
    named = tuple((m.group(1), part) for t in texts for part in _functions(t) if (m := _NAME.search(part)))
    return name, (*named, *needed.items())


_TARGET = Target("cuda", "sm_80", 16, 255)
_NAME = re.compile(r"^define internal .*?@([\w.]+)\(", re.M)
_DEFINITION = re.compile(r"^define .*?^}\n", re.M | re.S)


def _functions(text: str) -> list[str]:
    return _DEFINITION.findall(text)


# --- the machine's own ----------------------------------------------------------------------------------------------------
def instruction(w: Writer, text: str, operands: Sequence[Value], type: str) -> Value:
    """One PTX instruction, $0 being its result."""
    constraints = ",".join(["=" + LETTER[type], *(LETTER[v.type] for v in operands)])
    return w.pure(
        f'call {type} asm "{text}", "{constraints}"({", ".join(map(repr, operands))})', operands, type
    )


SHIFTED = "{ .reg .b32 bits; mov.b32 bits, $1; shl.b32 bits, bits, 23; mov.b32 $0, bits; }"


def exp(w: Writer, x: Sequence[Value]) -> Value:
    """e**x as 2**n * 2**r, n a whole number from -126 to 126 and r from 0 to 1 but for what overflows or is subnormal.

    Eight instructions: n + 126 is found within 0 … 252 by saturation and rounding down, and stands in the low bits of a number
    that shifts them to the exponent's place. At most 4 ulp."""
    v, one = x[0], "float"
    part = w.literal(1.4426950408889634 / 252, one)
    low = instruction(w, "fma.rn.sat.f32 $0, $1, $2, $3;", (v, part, w.literal(0.5, one)), one)
    place = instruction(w, "fma.rm.f32 $0, $1, $2, $3;", (low, w.literal(252.0, one), w.literal(12582913.0, one)), one)
    n = w.binary("fadd", place, w.literal(-12583039.0, one))
    r = w.fma(v, w.literal(1.4426950408889634, one), w.negative(n))
    r = w.fma(v, w.literal(1.925963033500011e-08, one), r)
    power = instruction(w, "ex2.approx.ftz.f32 $0, $1;", (r,), one)
    return w.binary("fmul", power, instruction(w, SHIFTED, (place,), one))


OWN: dict[tuple[str, str], Callable[[Writer, Sequence[Value]], Value]] = {
    ("exp", "f32"): exp,
    ("exp2", "f32"): lambda w, x: instruction(w, "ex2.approx.f32 $0, $1;", x, "float"),
    ("maximum", "f32"): lambda w, x: instruction(w, "max.NaN.f32 $0, $1, $2;", x, "float"),
    ("minimum", "f32"): lambda w, x: instruction(w, "min.NaN.f32 $0, $1, $2;", x, "float"),
}


# --- the dialect ------------------------------------------------------------------------------------------------------------
def legal(text: str, needed: dict[str, str]) -> str:
    """Text of today's LLVM as NVVM reads it; what it calls joins `needed`."""
    text = re.sub(r"= fneg (\w+) (\S+)", r"= fsub \1 -0.0, \2", text)
    text = text.replace("poison", "undef").replace(" nounwind memory(none)", "")

    def exact(m: re.Match[str]) -> str:
        word, type, a, b = m.groups()
        code = f"{word[1:]}.rn.{WORD[type]} $0, $1, $2;"
        return f'= call {type} asm "{code}", "={LETTER[type]},{LETTER[type]},{LETTER[type]}"({type} {a}, {type} {b})'

    text = re.sub(r"= (fadd|fsub|fmul) (float|double) (?!-0\.0,)([^,\s]+), (\S+)", exact, text)

    def call(m: re.Match[str]) -> str:
        name, suffix = m.groups()
        if name in ("fma", "sqrt"):
            return _declared(m.group(0)[:-1], name, suffix, needed) + "("
        own = f"own.{name}.{suffix}"
        needed[own] = BODIES[name](own, suffix)
        return f"@{own}("

    return re.sub(r"@llvm\.([a-z]+(?:\.sat)?)\.([\w.]+)\(", call, text)


def _declared(full: str, name: str, suffix: str, needed: dict[str, str]) -> str:
    type = {"f32": "float", "f64": "double"}[suffix]
    needed[full[1:]] = f"declare {type} {full}({', '.join([type] * (3 if name == 'fma' else 1))})\n"
    return full


def _one(code: str) -> Callable[[str, str], str]:
    """A function of one instruction on a floating value."""

    def body(name: str, suffix: str) -> str:
        type, letter = {"f32": ("float", "f"), "f64": ("double", "d")}[suffix]
        inside = f'  %r = call {type} asm "{code.replace("T", suffix)}", "={letter},{letter}"({type} %a)\n'
        return f"define internal {type} @{name}({type} %a) alwaysinline {{\n{inside}  ret {type} %r\n}}\n"

    return body


def _copysign(name: str, suffix: str) -> str:
    type, letter = {"f32": ("float", "f"), "f64": ("double", "d")}[suffix]
    code = f'call {type} asm "copysign.{suffix} $0, $1, $2;", "={letter},{letter},{letter}"({type} %b, {type} %a)'
    return f"define internal {type} @{name}({type} %a, {type} %b) alwaysinline {{\n  %r = {code}\n  ret {type} %r\n}}\n"


def _extreme(predicate: str) -> Callable[[str, str], str]:
    def body(name: str, type: str) -> str:
        return (
            f"define internal {type} @{name}({type} %a, {type} %b) alwaysinline {{\n"
            f"  %c = icmp {predicate} {type} %a, %b\n  %r = select i1 %c, {type} %a, {type} %b\n  ret {type} %r\n}}\n"
        )

    return body


def _absolute(name: str, type: str) -> str:
    return (
        f"define internal {type} @{name}({type} %a, i1 %unused) alwaysinline {{\n  %m = sub {type} 0, %a\n"
        f"  %c = icmp slt {type} %a, 0\n  %r = select i1 %c, {type} %m, {type} %a\n  ret {type} %r\n}}\n"
    )


def _saturate(signed: bool) -> Callable[[str, str], str]:
    """Float to integer: the machine's conversion saturates; narrower integers are then clamped, NaN is 0."""

    def body(name: str, suffix: str) -> str:
        type, source = suffix.split(".")
        bits, (real, letter) = int(type[1:]), {"f32": ("float", "f"), "f64": ("double", "d")}[source]
        wide = max(bits, 32)
        sign = "s" if signed else "u"
        code = f"cvt.rzi.{sign}{wide}.{source} $0, $1;"
        lines = [f'  %v = call i{wide} asm "{code}", "={LETTER[f"i{wide}"]},{letter}"({real} %a)']
        value = "%v"
        if bits < 32:
            low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
            less, more = ("slt", "sgt") if signed else ("ult", "ugt")
            lines += [
                f"  %c = icmp {more} i32 %v, {high}",
                f"  %d = select i1 %c, i32 {high}, i32 %v",
                f"  %e = icmp {less} i32 %d, {low}",
                f"  %f = select i1 %e, i32 {low}, i32 %d",
                f"  %g = trunc i32 %f to {type}",
            ]
            value = "%g"
        lines += [f"  %n = fcmp uno {real} %a, %a", f"  %r = select i1 %n, {type} 0, {type} {value}"]
        return f"define internal {type} @{name}({real} %a) alwaysinline {{\n" + "\n".join(lines) + f"\n  ret {type} %r\n}}\n"

    return body


BODIES: dict[str, Callable[[str, str], str]] = {
    "fabs": _one("abs.T $0, $1;"), "floor": _one("cvt.rmi.T.T $0, $1;"), "ceil": _one("cvt.rpi.T.T $0, $1;"),
    "trunc": _one("cvt.rzi.T.T $0, $1;"), "roundeven": _one("cvt.rni.T.T $0, $1;"), "rint": _one("cvt.rni.T.T $0, $1;"),
    "copysign": _copysign, "abs": _absolute, "fptosi.sat": _saturate(True), "fptoui.sat": _saturate(False),
    "smax": _extreme("sgt"), "smin": _extreme("slt"), "umax": _extreme("ugt"), "umin": _extreme("ult"),
}  # fmt: skip
