"""Memory as text of a kernel's source: arrays, near memory and places in them, such as `by4(at(x, i, edge(axis1 + c)))`.

In:  views of the loop IR, the layout of the tile that is read or written.  Out: text; on the way the records of the arrays
(`definitions`), what their addresses must be multiples of (`alignments`), and what a read does to memory that threads share.
Near memory that copies run ahead in is a ring of tiles: `number` says which of them is meant just now.
Read before: addresses.py, lines.py. Read next: expressions.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kdsl.codegen.cuda.addresses import AXES, factor, run_length, show, stays_above_zero, walk
from kdsl.codegen.cuda.barriers import Access
from kdsl.codegen.cuda.choose_layouts import Layouts, Unsupported
from kdsl.codegen.cuda.layout import Layout
from kdsl.codegen.cuda.names import Names
from kdsl.codegen.cuda.records import BYTES
from kdsl.ir import loops as ir
from kdsl.ir.sizes import Extent


@dataclass
class Ring:
    """Near memory of a kernel: how many tiles it holds, and which of them a load means just now."""

    memory: ir.Near
    depth: int = 1
    number: str = "0"  # "" once nobody can tell
    step: Any = 0  # the same as a function of the stream's step
    swizzled: bool = False
    boxed: bool = False  # brought by the copy engine: mbarriers part who fills it from who reads it


class Views:
    """The memory of one kernel. `written`: the arrays that it stores to."""

    def __init__(self, layouts: Layouts, names: Names, written: set[str], aligned: Sequence[str] = ()) -> None:
        self.layouts, self.names, self.written = layouts, names, written
        self.aligned = aligned  # names that make an index begin a piece of 16 bytes
        self.steps: dict[str, int] = {}  # of the loops around: what a loop index is a multiple of
        self.natural: set[str] = set()  # names that are at least 0
        self.called: dict[str, str] = {}  # loop indices, Lets and carries
        self.rings: dict[ir.Near, Ring] = {}
        self.arrays: dict[ir.Memory, str] = {}
        self.definitions: dict[str, tuple[str, str]] = {}  # arrays: what they are, and how they are made
        self.alignments: dict[str, int] = {}

    def name(self, name: str) -> str:
        """What a loop index, a Let or a size is called."""
        return self.called.get(name) or self.names.of("size", name)

    def extent(self, e: Extent) -> str:
        """A size or an index as text."""
        return show(e, self.name)

    def is_natural(self, e: Extent) -> bool:
        """Whether an index is never negative."""
        return stays_above_zero(e, lambda n: n in self.natural)

    def loop(self, index: str, lo: Extent, tile: int) -> str:
        """Enter a loop: what its index is called, and what is known of it."""
        self.steps[index] = math.gcd(tile, factor(lo, self.steps)) or 1
        if self.is_natural(lo):
            self.natural.add(index)
        else:
            self.natural.discard(index)
        name = self.names.of("loop", index)
        self.called[index] = name
        return name

    def read(self, memory: ir.Memory) -> list[Access]:
        """What a read of this memory is among the accesses that barriers part."""
        if isinstance(memory, ir.Near):
            ring = self.rings[memory]
            return [] if ring.boxed else [("read", memory.name, ring.step, ring.depth)]
        root = ir.root(memory).name
        return [("read", f"global {root}", 0, 1)] if root in self.written else []

    def place(self, view: ir.View, shape: ir.TileShape, layout: Layout | None = None) -> str:
        """A view as text, noting how its memory must be aligned. The tile's layout says how many elements may go at once."""
        memory = view.memory
        axes = [f"#{k}" for k in range(len(shape))]
        if isinstance(memory, ir.Near) and not any(view.checks):
            if tuple(memory.shape) == shape and list(map(str, view.index)) == axes:
                return self.memory(memory)
            if tuple(memory.shape) == shape[::-1] and len(shape) == 2 and list(map(str, view.index)) == axes[::-1]:
                return f"transposed({self.memory(memory)})"
        found = run_length(memory, ir.strides(memory), view, shape, self.steps, self.aligned)
        run, hoped = (found.sure, False) if layout is None else found.held(layout)
        if isinstance(memory, ir.Near):
            run, hoped = found.sure if layout is None else layout.run(found.sure, found.axis), False
            run = min(run, 16 // BYTES[memory.dtype.name]) if self.rings[memory].swizzled else run
        index = []
        for e, check in zip(view.index, view.checks):
            text = self._index(e, shape)
            word = "edge" if self.is_natural(e) else "edges"
            index.append(f"{word}({text})" if check else text)
        if not isinstance(memory, ir.Near):
            root = ir.root(memory).name
            bytes_ = (1 if hoped else run) * BYTES[memory.dtype.name]
            self.alignments[root] = max(self.alignments.get(root, 1), bytes_)
        text = f"at({', '.join([self.memory(memory), *index])})"
        word = "upto" if hoped else "by"
        return f"{word}{run}({text})" if run > 1 else text

    def _index(self, e: Extent, shape: ir.TileShape) -> str:
        """One index: as it is where it walks along the tile's axes, else a tile of numbers."""
        if walk(e) is not None:
            return self.extent(e)
        layout = self.layouts.of(shape)

        def word(name: str) -> str:
            if not name.startswith("#"):
                return self.name(name)
            k = int(name[1:])
            part = self.layouts.part(layout, tuple(n if i == k else 1 for i, n in enumerate(shape)))
            own = self.layouts.tile("i64", tuple(n if i == k else 1 for i, n in enumerate(shape)), part)
            return f"index({own}, {k})"

        return _of_tiles(e, word)

    def memory(self, memory: ir.Memory) -> str:
        """The name of near memory, at the tile that is meant, or of an array."""
        if isinstance(memory, ir.Near):
            ring = self.rings[memory]
            if ring.number == "":
                raise Unsupported(f"near memory {memory.name} is read after the stream that fills it")
            return f"near({self.names.of('near', memory.name.upper())}, {ring.number})"
        if memory not in self.arrays:
            root = ir.root(memory)
            own = self.names.of("parameter", root.name)  # the array takes the name of its address, other shapes of it follow
            if root.name in {ir.root(m).name for m in self.arrays}:
                own = self.names.of("array", f"{own}_{len(self.arrays)}")
            record = self.names.of("record", own.upper())
            passed = [self.extent(n) for n in (*memory.shape, *memory.strides) if not isinstance(n, int)]
            extents, strides = (
                "(" + "".join(f"{n}, " if isinstance(n, int) else f'"{self.extent(n)}", ' for n in ns) + ")"
                for ns in (memory.shape, memory.strides)
            )
            written = ", written=True" if root.name in self.written else ""
            text = f'Array("{memory.dtype.name}", {extents}, {strides}{written})'
            text = text.replace(", )", ")" if len(memory.shape) > 1 else ",)")
            self.arrays[memory] = own
            address = self.names.of("parameter", root.name)
            self.definitions[record] = text, f"{own} = array({', '.join([record, address, *passed])})"
        return self.arrays[memory]


def _of_tiles(e: Extent, word: Callable[[str], str]) -> str:
    """An index that is no walk, over tiles of numbers."""
    if isinstance(e, int):
        return str(e)
    out = []
    for monomial, times in e.terms.items():
        atoms = []
        for a in monomial:
            if a[0] == "name":
                atoms.append(word(a[1]))
                continue
            x, y = (_of_tiles(part, word) for part in a[1:])
            tile = any(n in str(part) for part in a[1:] for n in AXES)
            choice = {"min": "minimum" if tile else "smaller", "max": "maximum" if tile else "larger"}.get(a[0])
            atoms.append(f"{choice}({x}, {y})" if choice else f"(({x}) {a[0]} ({y}))")
        out.append(" * ".join([str(times), *atoms] if times != 1 or not atoms else atoms))
    return " + ".join(out)
