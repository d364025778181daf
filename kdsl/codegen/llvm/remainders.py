"""The exact floating remainder on vectors, and `//` and `%`, which are made of it.

In:  floating Values.  Out: Values; nothing calls a library.
x mod y is exact: with y' = y * 2**k so large that x / y' < 2**52, a whole q near x / y' leaves x - q * y', which one fma
gives without error and which has the same remainder by y. So each turn of a loop takes 51 bits off the difference of the
exponents; nearly always one turn is all. f32 is computed in f64, where its least numbers are normal ones.
Read before: writer.py, trigonometry.py. Read next: operations.py.
"""

from __future__ import annotations

from kdsl.codegen.llvm.writer import Value, Writer

BITS = 51  # that one turn takes off
NORMAL = 2.0**-960  # below it, exponents are read from the number times 2**64


def fmod(w: Writer, a: Value, b: Value) -> Value:
    """a - trunc(a / b) * b, exact, with a's sign: C's fmod, through one function for each width."""
    a, b = w.level((a, b))
    name = f"remainder_v{a.width}"
    w.helpers.setdefault(name, lambda: _function(w, name, a.width))
    wide = [w.convert("fpext", v, "double") for v in (a, b)]
    t = wide[0].full
    text = f"call {t} @{name}({t} {wide[0].text}, {t} {wide[1].text})"
    return w.convert("fptrunc", w.pure(text, wide, "double", a.width), a.type)


def _exponent(v: Writer, x: Value) -> Value:
    """The exponent of a positive number, also of one below the least normal number, up to a constant."""
    small = v.compare("fcmp olt", x, v.literal(NORMAL, "double"))
    scaled = v.select(small, v.binary("fmul", x, v.literal(2.0**64, "double")), x)
    exponent = v.binary("lshr", v.convert("bitcast", scaled, "i64"), v.literal(52, "i64"))
    return v.binary("sub", exponent, v.select(small, v.literal(64, "i64"), v.literal(0, "i64")))


def _power_of_two(v: Writer, e: Value) -> Value:
    return v.convert("bitcast", v.binary("shl", v.binary("add", e, v.literal(1023, "i64")), v.literal(52, "i64")), "double")


def _function(w: Writer, name: str, width: int) -> str:
    """The loop: lanes whose x is less than y already stay as they are."""
    blocks = [Writer(w.target, w.lanes, w.declarations) for _ in range(4)]
    entry, turn, step, done = blocks
    for i, block in enumerate(blocks):
        block.count = 1000 * i  # names of their own
    a, b, x = (Value(text, "double", width) for text in ("%a", "%b", "%x"))
    infinity, zero, one = (entry.splat(entry.literal(n, "double"), width) for n in (float("inf"), 0.0, 1.0))

    size, divisor = entry.intrinsic("fabs", (a,)), entry.intrinsic("fabs", (b,))
    finite = entry.compare("fcmp olt", size, infinity)
    ordinary = entry.binary("and", entry.compare("fcmp olt", divisor, infinity), entry.compare("fcmp ogt", divisor, zero))
    ordinary = entry.binary("and", finite, ordinary)
    start, y = entry.select(ordinary, size, zero), entry.select(ordinary, divisor, one)
    y_exponent = _exponent(entry, y)

    more = any_more = turn.compare("fcmp oge", x, y)
    if width > 1:
        mask = turn.pure(f"bitcast {more.full} {more.text} to i{width}", (more,), f"i{width}")
        any_more = turn.compare("icmp ne", mask, turn.literal(0, f"i{width}"))

    apart = step.binary("sub", _exponent(step, x), y_exponent)
    k = step.intrinsic("smax", (step.binary("sub", apart, step.literal(BITS, "i64")), step.literal(0, "i64")))
    half = step.binary("lshr", k, step.literal(1, "i64"))
    large = step.binary("fmul", y, _power_of_two(step, half))
    large = step.binary("fmul", large, _power_of_two(step, step.binary("sub", k, half)))
    q = step.intrinsic("trunc", (step.binary("fdiv", x, large),))
    rest = step.fma(step.negative(q), large, x)  # q may be one too much: then it is negative
    rest = step.select(step.compare("fcmp olt", rest, zero), step.binary("fadd", rest, large), rest)
    after = step.select(more, rest, x)

    into_infinity = done.binary("and", finite, done.compare("fcmp oeq", divisor, infinity))
    other = done.select(into_infinity, a, done.splat(done.literal(float("nan"), "double"), width))
    result = done.select(ordinary, done.intrinsic("copysign", (x, a)), other)

    t = a.full
    lines = [f"define internal {t} @{name}({t} %a, {t} %b) nounwind memory(none) {{", "entry:", *entry.frames[0].lines]
    lines += ["  br label %turn", "turn:", f"  %x = phi {t} [ {start.text}, %entry ], [ {after.text}, %step ]"]
    lines += [*turn.frames[0].lines, f"  br i1 {any_more.text}, label %step, label %done"]
    lines += ["step:", *step.frames[0].lines, "  br label %turn"]
    lines += ["done:", *done.frames[0].lines, f"  ret {t} {result.text}", "}"]
    return "\n".join(lines) + "\n"


def floor_div(w: Writer, x: list[Value]) -> Value:
    """floor of the exact quotient, as Python has it."""
    a, b = w.level(x)
    remainder = fmod(w, a, b)
    quotient = w.binary("fdiv", w.binary("fsub", a, remainder), b)
    differs = w.binary(
        "xor",
        w.compare("fcmp olt", remainder, w.literal(0.0, a.type)),
        w.compare("fcmp olt", b, w.literal(0.0, a.type)),
    )
    below = w.binary("and", differs, w.compare("fcmp one", remainder, w.literal(0.0, a.type)))
    quotient = w.select(below, w.binary("fsub", quotient, w.literal(1.0, a.type)), quotient)
    rounded = w.intrinsic("floor", (quotient,))
    half = w.compare("fcmp ogt", w.binary("fsub", quotient, rounded), w.literal(0.5, a.type))
    rounded = w.select(half, w.binary("fadd", rounded, w.literal(1.0, a.type)), rounded)
    zero = w.compare("fcmp oeq", quotient, w.literal(0.0, a.type))
    signed_zero = w.intrinsic("copysign", (w.splat(w.literal(0.0, a.type), a.width), w.binary("fdiv", a, b)))
    rounded = w.select(zero, signed_zero, rounded)
    return w.select(w.compare("fcmp oeq", b, w.literal(0.0, a.type)), w.binary("fdiv", a, b), rounded)


def modulo(w: Writer, x: list[Value]) -> Value:
    """The remainder with the divisor's sign, exact."""
    a, b = w.level(x)
    r = fmod(w, a, b)
    zero = w.literal(0.0, a.type)
    differs = w.binary("xor", w.compare("fcmp olt", r, zero), w.compare("fcmp olt", b, zero))
    moved = w.select(w.binary("and", w.compare("fcmp one", r, zero), differs), w.binary("fadd", r, b), r)
    return w.select(w.compare("fcmp oeq", r, zero), w.intrinsic("copysign", (r, b)), moved)
