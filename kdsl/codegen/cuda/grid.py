"""Which iteration of the parallel loops a block runs, or which ones in turn.

In:  the Parallel loops of a kernel, how a loop is entered, how a number is written.  Out: lines of source.
Iterations count as one number, the innermost loop fastest: `places` takes it apart. A block runs the iteration of its own
number; a block that brings tiles goes on to others (`in_turns`), so that the next one's tiles come while this one's results go.
Read before: choose_layouts.py. Read next: bulk.py, emit.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kdsl.codegen.cuda.addresses import group
from kdsl.codegen.cuda.lines import Block, Line
from kdsl.codegen.cuda.names import Names
from kdsl.ir import loops as ir
from kdsl.ir.sizes import Extent, ceildiv, names_in

Enter = Callable[[str, Extent, int], str]  # index, start, step: what the index is called
Text = Callable[[Extent], str]


def places(grid: Sequence[ir.Parallel], enter: Enter, text: Text, names: Names, number: str = "block()") -> list[str]:
    """The loops' indices from the number of an iteration."""
    called = [enter(p.index, p.lo, p.tile) for p in grid]  # the outermost first: the others may start where it stands
    out, starts, rest = [], [], number
    if len(grid) > 1:
        rest = names.of("block", "b")
        out.append(f"{rest} = {number}")
    for p, index in zip(reversed(grid), reversed(called), strict=True):
        count = group(text(ceildiv(p.hi - p.lo, p.tile)))
        own = rest if p is grid[0] else f"{rest} % {count}"
        times = own if p.tile == 1 else f"{own} * {p.tile}"
        later = bool(names_in(p.lo) & {q.index for q in grid})
        out.append(f"{index} = {times}" + ("" if later or p.lo == 0 else f" + {text(p.lo)}"))
        if later:
            starts.insert(0, f"{index} = {index} + {text(p.lo)}")
        if p is not grid[0]:
            out.append(f"{rest} = {rest} // {count}")
    return out + starts


def in_turns(number: str, count: str, body: Sequence[Line | Block]) -> list[Line | Block]:
    """The statements for this block's iteration, and then for those that so many blocks further on would run."""
    again = Line([f"{number} = {number} + blocks()"])
    return [Line([f"{number} = block()"]), Block(f"while {number} < {count}:", [*body, again])]
