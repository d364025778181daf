"""x modulo pi/2 for any x, as an LLVM function in 64-bit words: what sin, cos and tan call where x is large.

The same product as on the CPU (codegen/llvm/trigonometry.py, HUGE): the bits of 2/pi that matter times the 53 bits of x,
here with three words of 64 bits and no table in memory: the words are chosen by selects.
In:  nothing.  Out: the text of `<2 x double> @reduce_huge(double)`: the angle within +-pi/4, and the quarter turn, 0 to 3.
Read before: codegen/llvm/trigonometry.py. Read next: scalars.py.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

from kdsl.codegen.two_over_pi import two_over_pi

WORDS = 24


def _words() -> list[int]:
    """The bits of 2/pi after the point as words, least significant first, behind four words of zeros."""
    bits = two_over_pi()
    return [(bits >> (64 * i)) & (2**64 - 1) for i in range(WORDS)]


@lru_cache
def reduce_huge() -> str:
    """The text of the function."""
    lines: list[str] = []
    count = 0

    def put(text: str) -> str:
        nonlocal count
        count += 1
        lines.append(f"  %h{count} = {text}")
        return f"%h{count}"

    def signed(n: int) -> int:
        return n - (1 << 64) if n >> 63 else n

    words = _words()

    def word(index: str) -> str:
        out = "0"
        for i, value in enumerate(words):
            here = put(f"icmp eq i64 {index}, {i}")
            out = put(f"select i1 {here}, i64 {signed(value)}, i64 {out}")
        return out

    bits = put("bitcast double %x to i64")
    positive = put(f"and i64 {bits}, 9223372036854775807")
    exponent = put(f"lshr i64 {positive}, 52")
    fraction = put(f"and i64 {bits}, 4503599627370495")
    m = put(f"or i64 {fraction}, 4503599627370496")
    small = put(f"icmp slt i64 {exponent}, 1005")  # where there is nothing to reduce
    bounded = put(f"select i1 {small}, i64 1005, i64 {exponent}")
    start = put(f"sub i64 2165, {bounded}")  # 1280 - 190 - (exponent - 1075)
    index, shift = put(f"ashr i64 {start}, 6"), put(f"and i64 {start}, 63")
    rest = put(f"sub i64 63, {shift}")
    read = [word(index)] + [word(put(f"add i64 {index}, {i}")) for i in (1, 2, 3)]
    limbs = []
    for low, high in pairwise(read):
        upper = put(f"shl i64 {put(f'shl i64 {high}, 1')}, {rest}")
        limbs.append(put(f"or i64 {put(f'lshr i64 {low}, {shift}')}, {upper}"))

    def high_half(a: str, b: str) -> str:
        return put(f'call i64 asm "mul.hi.u64 $0, $1, $2;", "=l,l,l"(i64 {a}, i64 {b})')

    product, carry = [], "0"
    for limb in limbs:
        low = put(f"mul i64 {limb}, {m}")
        total = put(f"add i64 {low}, {carry}")
        over = put(f"zext i1 {put(f'icmp ult i64 {total}, {low}')} to i64")
        carry = put(f"add i64 {high_half(limb, m)}, {over}")
        product.append(total)
    product.append(carry)
    turn = [
        put(f"or i64 {put(f'lshr i64 {a}, 62')}, {put(f'shl i64 {b}, 2')}") for a, b in pairwise(product)
    ]
    low, middle, quarters = turn
    up = put(f"add i64 {quarters}, {put(f'lshr i64 {middle}, 63')}")
    quarter = put(f"and i64 {up}, 3")
    part = put(f"fmul double {put(f'uitofp i64 {low} to double')}, 0x3BF0000000000000")
    whole = put(f"fadd double {put(f'sitofp i64 {middle} to double')}, {part}")
    angle = put(f"fmul double {whole}, 0x3BF921FB54442D18")
    negative = put(f"icmp slt i64 {bits}, 0")
    r = put(f"select i1 {negative}, double {put(f'fsub double -0.0, {angle}')}, double {angle}")
    turned = put(f"and i64 {put(f'sub i64 0, {quarter}')}, 3")
    q = put(f"select i1 {negative}, i64 {turned}, i64 {quarter}")
    finite = put(f"icmp ult i64 {positive}, 9218868437227405312")
    r = put(f"select i1 {finite}, double {r}, double 0x7FF8000000000000")
    both = put(f"insertelement <2 x double> undef, double {r}, i32 0")
    both = put(f"insertelement <2 x double> {both}, double {put(f'uitofp i64 {q} to double')}, i32 1")
    body = "\n".join(lines)
    return f"define internal <2 x double> @reduce_huge(double %x) noinline {{\n{body}\n  ret <2 x double> {both}\n}}\n"
