"""Loads and stores of neighbours in one access: as few words as they fit, guarded where they may lie outside.

In:  an address, the words and, where it may be false, whether they are inside.  Out: instructions.
A guarded load reads nothing where it is outside and gives 0: a predicate and not a branch, so that loads stay in flight.
Read before: writer.py. Read next: macros_memory.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from kdsl.codegen.cuda.writer import V, Writer, i8, i16, i32, i64

LETTERS = {8: "h", 16: "h", 32: "r", 64: "l"}  # of registers in inline assembly, by bits


def word_of(each: int, count: int) -> tuple[ir.IntType, int]:
    """The words in which `count` elements go at once."""
    total = each * count
    if each == 8:
        return i64, count
    return {1: (i8, 1), 2: (i16, 1)}.get(total) or (i32, total // 4)


def guarded_load(w: Writer, space: str, address: V, word: ir.IntType, n: int, inside: V, effect: bool) -> list[V]:
    """Words that are read where `inside` holds, else 0."""
    register = i16 if word == i8 else word
    letter = LETTERS[word.width]
    names = [f"${i}" for i in range(n)]
    zero = " ".join(f"mov.b{register.width} {name}, 0;" for name in names)
    vector, braces = (f".v{n}", "{" + ", ".join(names) + "}") if n > 1 else ("", names[0])
    kind = f"{'u' if word == i8 else 'b'}{word.width}"
    test = f".reg .pred inside; setp.ne.b32 inside, ${n + 1}, 0;"
    text = "{ " + f"{test} {zero} @inside ld.{space}{vector}.{kind} {braces}, [${n}];" + " }"
    where = "r" if address.type == i32 else "l"
    out = w.asm(text, [register] * n, [address, w.zext(inside, i32)], ",".join([f"=&{letter}"] * n + [where, "r"]), effect)
    values = out if n > 1 else [out]
    return [w.trunc(v, i8) for v in values] if word == i8 else values


def plain_load(w: Writer, space: int, address: V, word: ir.IntType, n: int, constant: bool) -> list[V]:
    """Words that are read; `constant`: nothing writes them as long as the kernel runs."""
    kind = ir.VectorType(word, n) if n > 1 else word
    x = w.load(w.inttoptr(address, ir.PointerType(kind, space)), align=n * word.width // 8)
    if constant:
        x.set_metadata("invariant.load", w.module.add_metadata([]))
    return w.elements(x)


def store_words(w: Writer, space: int, address: V, words: Sequence[V], inside: V | None) -> None:
    """Words are written, where `inside` holds if it is given."""
    n, word = len(words), words[0].type
    if inside is None:
        value = w.vector(words)
        w.store(value, w.inttoptr(address, ir.PointerType(value.type, space)), align=n * word.width // 8)
        return
    register = i16 if word == i8 else word
    values = [w.zext(v, i16) for v in words] if word == i8 else list(words)
    names = [f"${i}" for i in range(n)]
    vector, braces = (f".v{n}", "{" + ", ".join(names) + "}") if n > 1 else ("", names[0])
    kind = f"{'u' if word == i8 else 'b'}{word.width}"
    where = "r" if address.type == i32 else "l"
    test = f".reg .pred inside; setp.ne.b32 inside, ${n + 1}, 0;"
    place = "global" if space == 1 else "shared"
    text = "{ " + f"{test} @inside st.{place}{vector}.{kind} [${n}], {braces};" + " }"
    letters = ",".join([LETTERS[register.width]] * n + [where, "r"])
    w.asm(text, [], [*values, address, w.zext(inside, i32)], letters, True)
