"""Scheduled loop IR to numba.cuda source: one macro call or operator for each statement, barriers derived.

In:  a Program whose tiles have sizes for a GPU (powers of two) and whose kernels' schedules say how many warps they have.
Out: Emitter(kernel): its source, near memory and threads.
What the first version does not write is refused with an Unsupported that says what; numbers are 32-bit inside a kernel.
A Copy of depth d in a Stream runs d - 1 tiles ahead: the first ones are started before the loop.
Read before: choose_layouts.py, addresses.py, barriers.py. Read next: seam.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kdsl.codegen.cuda.addresses import place, show
from kdsl.codegen.cuda.barriers import Access, Item, Loop, Path, place_barriers
from kdsl.codegen.cuda.choose_layouts import Layouts, Unsupported, all_tiles
from kdsl.codegen.cuda.expressions import Expressions
from kdsl.codegen.cuda.records import BYTES
from kdsl.ir import loops as ir
from kdsl.ir.sizes import Extent, ceildiv, size, substitute


@dataclass
class Line:
    """Lines of source that stand together, and what they do to near memory."""

    text: list[str]
    accesses: list[Access] = field(default_factory=list)


@dataclass
class Block:
    """A while loop."""

    head: str
    body: list[Line | Block]
    depth: int


class Emitter:
    def __init__(self, kernel: ir.Kernel) -> None:
        self.kernel, self.layouts = kernel, Layouts(kernel)
        self.grid = ir.grid(kernel)
        if len(self.grid) > 3:
            raise Unsupported(f"{kernel.name} has {len(self.grid)} parallel loops; a grid has three axes")
        self.rings: dict[ir.Near, int] = {}  # near memory and its depth
        for s in ir.walk(kernel.body):
            if isinstance(s, ir.Near):
                self.rings[s] = 1
            elif isinstance(s, ir.Copy):
                self.rings[s.near] = max(self.rings[s.near], s.depth)
        written = {s.view.memory.name for s in ir.walk(kernel.body) if isinstance(s, ir.Store)}
        self.steps = {
            s.index: s.tile for s in ir.walk(kernel.body) if isinstance(s, (ir.Parallel, ir.Stream))
        }
        self.tiles = Expressions(self.layouts, self.steps, written, all_tiles(kernel))
        self.near_bytes = sum(
            d * math.prod(map(int, r.shape)) * r.dtype.bytes for r, d in self.rings.items()
        )

    def alignment(self, buffer: ir.Buffer) -> int:
        """What a buffer's address must be a multiple of."""
        return 16

    def source(self) -> str:
        loop_body: tuple[ir.Statement, ...] = self.grid[-1].body if self.grid else self.kernel.body
        if any(not isinstance(s, ir.Parallel) for s in self.kernel.body):
            raise Unsupported(f"{self.kernel.name} has statements above its parallel loops")
        body: list[Line | Block] = []
        for i, p in enumerate(self.grid):
            start = "" if p.lo == 0 else f" + {show(p.lo)}"
            times = "" if p.tile == 1 else f" * {p.tile}"
            body.append(Line([f"{p.index} = block({len(self.grid) - 1 - i}){times}{start}"]))
        self.statements(loop_body, body)
        barriers = place_barriers([_accesses(x) for x in body])
        names = [b.name for b in self.kernel.buffers] + [s.replace(".", "_") for s in self.kernel.sizes]
        text = [f"def {self.kernel.name}({', '.join(names)}):", *_indent(_write(body, barriers))]
        return "\n".join(self.header() + text)

    def header(self) -> list[str]:
        """What the kernel is, and the records that it names."""
        extents = [ceildiv(p.hi - p.lo, p.tile) for p in reversed(self.grid)]
        near, start = [], "0"
        total = 0
        for ring, depth in self.rings.items():
            if ring.dtype.name not in BYTES or len(ring.shape) != 2:
                raise Unsupported(f"near memory {ring.name} is {ring.dtype.name}{list(ring.shape)}")
            name = ring.name.upper()
            near.append(
                f'{name} = Near("{ring.dtype.name}", {ring.shape}, {depth}, {start}, {self.layouts.threads})'
            )
            start = f"{name}.end"
            total += depth * math.prod(map(int, ring.shape)) * BYTES[ring.dtype.name]
        place_ = self.kernel.location
        where = [f"# {place_.file}:{place_.line}"] if place_ else []
        grid = ", ".join(map(show, extents)) or "1"
        threads = self.layouts.threads
        head = [
            f"# {self.kernel.name}: grid ({grid}), {threads} threads, {total} bytes of near memory",
            *where,
        ]
        tiles = [f"{name} = {text}" for name, text in self.layouts.definitions.items()]
        return head + tiles + near + [f"{name} = {text}" for name, text in self.tiles.arrays.items()] + [""]

    # --- statements ------------------------------------------------------------------------------------
    def statements(self, statements: Sequence[ir.Statement], out: list[Line | Block]) -> None:
        for s in statements:
            if isinstance(s, ir.Let):
                out.append(self.line(f"{s.name} = ", s.tile, name=s.name))
            elif isinstance(s, ir.Store):
                at = place(s.view, s.tile.shape, self.steps)
                self.tiles.use(at)
                out.append(self.line(f"store({at.view}, {at.row}, {at.column}, ", s.tile, ")"))
            elif isinstance(s, ir.Put):
                whole = tuple(s.tile.shape) == tuple(s.near.shape) and tuple(map(str, s.index)) == (
                    "#0",
                    "#1",
                )
                if self.rings[s.near] != 1 or not whole:
                    raise Unsupported(f"a put into part of near memory {s.near.name}")
                out.append(self.line(f"put(near({s.near.name.upper()}, 0), ", s.tile, ")"))
                out[-1].accesses.append(("write", s.near.name, 0, self.rings[s.near]))  # type: ignore[union-attr]
            elif isinstance(s, ir.Copy):
                out.append(self.copies([s], "0", 0, {}))
            elif isinstance(s, ir.Stream):
                self.stream(s, out)
            elif not isinstance(s, (ir.Near, ir.Prefetch)):
                raise Unsupported(f"a {type(s).__name__} in a CUDA kernel")

    def line(self, before: str, tile: ir.Tile, after: str = "", name: str = "") -> Line:
        text, reads = self.tiles.text(tile, name)
        return Line(
            [before + text + after], [("read", n, number, self.rings[ring]) for ring, n, number in reads]
        )

    def copies(self, copies: Sequence[ir.Copy], number: str, at: object, values: dict[str, Extent]) -> Line:
        """Start copies, as one group."""
        text, accesses = [], []
        for c in copies:
            view = ir.View(
                c.view.memory, tuple(_moved(e, values) for e in c.view.index), c.view.checks, c.view.fill
            )
            there = place(view, c.shape, self.steps)
            self.tiles.use(there)
            if (
                there.vector * BYTES[c.near.dtype.name] != 16
                or tuple(c.shape) != tuple(c.near.shape)
                or c.view.fill != 0
            ):
                raise Unsupported(
                    f"a copy from {c.view.memory.name} goes in pieces of 16 bytes, a whole tile at a time, with fill 0"
                )
            text.append(
                f"copy(near({c.near.name.upper()}, {number}), {there.view}, {there.row}, {there.column})"
            )
            accesses.append(("copy", c.near.name, at, self.rings[c.near]))
        return Line([*text, "commit()"], accesses)  # type: ignore[arg-type]

    def stream(self, s: ir.Stream, out: list[Line | Block]) -> None:
        if s.order == "backward":
            raise Unsupported("a backward stream")
        ahead = [c for c in s.body if isinstance(c, ir.Copy) and c.depth > 1]
        depth = max((c.depth for c in ahead), default=1)
        if any(c.depth != depth for c in ahead):
            raise Unsupported(f"the copies of stream {s.index} have several depths")
        out += [self.line(f"{c.name} = ", c.init) for c in s.carries]
        out.append(Line([f"{s.index}, {s.index}_end = size({show(s.lo)}), size({show(s.hi)})"]))
        body: list[Line | Block] = []
        if ahead:
            count = f"{s.index}_count"
            for n in range(depth - 1):
                out.append(self.copies(ahead, str(n), n, {s.index: s.lo + n * s.tile}))
            out.append(Line([f"{count} = size(0)"]))
            more = self.copies(
                ahead, f"{count} + {depth - 1}", _later(depth - 1), {s.index: _next(s, depth - 1)}
            )
            *starts, commit = more.text
            guarded = [
                f"if {s.index} + {(depth - 1) * s.tile} < {s.index}_end:",
                *("    " + t for t in starts),
            ]
            body.append(Line([*guarded, commit], more.accesses))
            self.tiles.numbers.update((c.near, (count, _later(0))) for c in ahead)
        tiles = [t for inner in (*ir.walk(s.body), s) for t in ir.tiles_of(inner)]
        if any(map(self.crosses_warps, tiles)):
            body.append(Line(["barrier()"]))  # folds across warps use scratch of their own, step after step
        self.statements([b for b in s.body if b not in ahead], body)
        names = []
        for c in s.carries:
            names.append(c.next.name if isinstance(c.next, ir.Name) else f"{c.name}_next")
            if not isinstance(c.next, ir.Name):
                body.append(self.line(f"{c.name}_next = ", c.next))
        if s.carries:
            body.append(Line([f"{', '.join(c.name for c in s.carries)} = {', '.join(names)}"]))
        body.append(
            Line(
                [f"{s.index} = {s.index} + {s.tile}"]
                + ([f"{s.index}_count = {s.index}_count + 1"] if ahead else [])
            )
        )
        self.tiles.numbers.update((c.near, ("", 0)) for c in ahead)
        out.append(Block(f"while {s.index} < {s.index}_end:", body, depth))

    def crosses_warps(self, tile: ir.Tile) -> bool:
        """Whether a fold in this expression goes through scratch memory of its own."""
        if isinstance(tile, ir.Fold) and not self.tiles.stays_in_warp(tile):
            return True
        return any(map(self.crosses_warps, ir.children(tile)))


def _later(n: int) -> Callable[[int], int]:
    return lambda step: step + n


def _next(s: ir.Stream, steps: int) -> Extent:
    return size(s.index) + steps * s.tile


def _moved(e: Extent, values: dict[str, Extent]) -> Extent:
    return substitute(e, values) if values else e


def _accesses(x: Line | Block) -> Item:
    return Loop(tuple(map(_accesses, x.body)), x.depth) if isinstance(x, Block) else x.accesses


def _write(body: Sequence[Line | Block], barriers: dict[Path, int | None], path: Path = ()) -> list[str]:
    out: list[str] = []
    for i, x in enumerate(body):
        if (*path, i) in barriers:
            left = barriers[(*path, i)]
            out += ([f"wait({left})"] if left is not None else []) + ["barrier()"]
        out += [x.head, *_indent(_write(x.body, barriers, (*path, i)))] if isinstance(x, Block) else x.text
    return out


def _indent(lines: Sequence[str]) -> list[str]:
    return ["    " + line for line in lines]
