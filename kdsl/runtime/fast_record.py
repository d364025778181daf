"""The record of one kind of call, a table of 8-byte words that native code reads, and the numbers both sides know.

    0 the next record      1 arguments          2 their table        3 sizes           4 results        5 their table
    6 constants            7 their table        8 @program           9 @arena         10 @shapes       11 exact sizes or null
    12 give up the GIL     13 finish: 0 the only result, 1 a tuple, else a callable   14 index checks  15 their table
    16 keyword arguments   17 their names       18 objects in all    19 objects handed on   20 their numbers
    21 sizes handed on     22 their numbers     23 results that may lie over an argument    24 their table

    object (first the positional arguments, then the keyword ones, then the elements of containers among all of them), 8 words:
        ARRAY              dtype object, slot, ndim, axes, flags that must be set, item bytes, compare strides
        SAME               the object itself
        FLOAT, DOUBLE      -, slot: a Python float that the program takes as f32 or f64
        EQUAL              an equal object, -, -, its type
        BITS               the bits of a Python float
        TUPLE, LIST, DICT  the type, -, length, keys of a dict, number of the first element among the objects
        SIZE               -, number of the size: a Python int that is the value of a named size
    axes: for each axis extent or -1 - size number, stride in bytes or NAMED_STRIDE + size number
    result: dtype object, slot, ndim, item bytes, visible           check: slot of least, slot of largest, extent, bytes
    constant: slot, address, bytes                                  over an argument: number of the result, slot of the argument

`slot` is the position in the table of pointers that @program takes.
Read before: docs/decisions/stages.md. Read next: runtime/fast.py (makes records), runtime/fast_text.py (reads them).
"""

from __future__ import annotations

import re

ARRAY, SAME, FLOAT, DOUBLE, EQUAL, BITS, TUPLE, LIST, DICT, SIZE = range(10)
ROOM = 1024  # objects, results, sizes, axes of results, pointers
NAMED_STRIDE = 1 << 61
UNKNOWN = -(1 << 63)  # a size that no argument has told yet
# Fields of PyArrayObject beyond those every object has.
FLAGS, OWNER = 64, 88
ITEMS = 24  # where a tuple has its elements, and a list the address of its own


def words_written(text: str) -> str:
    """LLVM text with `%x = WORD type table number` written out: load a word of a table."""
    word = r"\1.word = getelementptr i64, ptr \3, i64 \4\n  \1 = load \2, ptr \1.word, align 8"
    return re.sub(r"(%[\w.]+) = WORD (\w+) ([%@][\w.]+) (\d+)", word, text)
