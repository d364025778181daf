"""Random bits: Philox4x32-10, one element by itself or a run of neighbours.

In:  the two words of the key, the numbers of elements.  Out: a u32 for each: word `number % 4` of counter `number // 4`.
A counter gives four words. Lanes that are neighbours share counters: half as many as there are lanes are worked out, each in a
lane of 64 bits, where the product of two words is one instruction; their words are then laid in the order of the elements.
Source: Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3".
Read before: writer.py. Read next: operations.py, tiles.py.
"""

from __future__ import annotations

from kdsl.codegen.llvm.writer import Value, Writer

ROUNDS = 10
FACTORS = 0xD2511F53, 0xCD9E8D57
STEPS = 0x9E3779B9, 0xBB67AE85  # what the key's words grow by in each round
WORD = 0xFFFFFFFF


def philox(w: Writer, key0: Value, key1: Value, number: Value) -> Value:
    """One word for each element, whatever its neighbours are."""
    words = _words(w, key0, key1, w.binary("lshr", number, w.literal(2, "i64")))
    which = w.binary("and", number, w.literal(3, "i64"))
    out = words[3]
    for i in (2, 1, 0):
        out = w.select(w.compare("icmp eq", which, w.literal(i, "i64")), words[i], out)
    return w.convert("trunc", out, "i32")


def philox_run(w: Writer, key0: Value, key1: Value, first: Value, width: int) -> Value:
    """The words of the elements first, first + 1 … in `width` lanes. Those before element 0 are anything."""
    n = max(2, width // 2)  # counters; a run may begin at any word of the first of them
    counter = w.binary("add", w.binary("ashr", first, w.literal(2, "i64")), w.integers(range(n), "i64"))
    words = [w.binary("and", w.splat(x, n), w.literal(WORD, "i64")) for x in _words(w, key0, key1, counter)]
    low, high = (_pairs(w, *words[:2]), _pairs(w, *words[2:]))  # words 0, 1 and words 2, 3 of each counter
    order = [2 * (e // 4) + e % 2 + (2 * n if e % 4 >= 2 else 0) for e in range(4 * n)]
    begins = [w.shuffle(low, high, order[i : i + width]) for i in range(4)]
    which = w.binary("and", first, w.literal(3, "i64"))
    out = begins[3]
    for i in (2, 1, 0):
        out = w.select(w.compare("icmp eq", which, w.literal(i, "i64")), begins[i], out)
    return out


def _words(w: Writer, key0: Value, key1: Value, counter: Value) -> list[Value]:
    """The four words of each counter, in lanes of 64 bits whose upper halves hold anything."""
    keys = [w.convert("zext", k, "i64") for k in (key0, key1)]
    c = [counter, w.binary("lshr", counter, w.literal(32, "i64")), w.literal(0, "i64"), w.literal(0, "i64")]
    for turn in range(ROUNDS):
        if turn:
            keys = [w.binary("add", k, w.literal(step, "i64")) for k, step in zip(keys, STEPS, strict=True)]
        first, second = (
            w.binary("mul", w.binary("and", word, w.literal(WORD, "i64")), w.literal(factor, "i64"))
            for word, factor in zip((c[0], c[2]), FACTORS, strict=True)
        )
        upper = [w.binary("lshr", product, w.literal(32, "i64")) for product in (first, second)]
        c = [
            w.binary("xor", w.binary("xor", upper[1], c[1]), keys[0]),
            second,
            w.binary("xor", w.binary("xor", upper[0], c[3]), keys[1]),
            first,
        ]
    return c


def _pairs(w: Writer, a: Value, b: Value) -> Value:
    """a0, b0, a1, b1 … as 32-bit words."""
    both = w.binary("or", a, w.binary("shl", b, w.literal(32, "i64")))
    return w.pure(f"bitcast {both.full} {both.text} to <{2 * both.width} x i32>", [both], "i32", 2 * both.width)
