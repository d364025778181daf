"""A scheduled kernel of the loop IR to numba.cuda source: its records, its head, what a block does.

In:  a kernel whose tiles have sizes for a GPU (powers of two) and whose schedule says how many warps it has.
Out: Emitter(kernel): its source, near memory and threads. One block runs one iteration of all Parallel loops, or several in turn.
Read before: statements.py, grid.py. Read next: kernels.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from kdsl.codegen.cuda.addresses import group
from kdsl.codegen.cuda.bulk import Bringer
from kdsl.codegen.cuda.choose_layouts import Layouts, Unsupported, all_tiles
from kdsl.codegen.cuda.expressions import Expressions
from kdsl.codegen.cuda.grid import in_turns, places
from kdsl.codegen.cuda.kernel_memory import indexing_names, operands, written_arrays
from kdsl.codegen.cuda.lines import Block, Line, indented, needs_barriers, with_barriers
from kdsl.codegen.cuda.names import Names
from kdsl.codegen.cuda.records import BYTES
from kdsl.codegen.cuda.statements import Statements
from kdsl.codegen.cuda.views import Ring, Views
from kdsl.ir import loops as ir
from kdsl.ir.boxes import PIECE, Boxes
from kdsl.ir.sizes import Extent, ceildiv, minimum


class Emitter:
    """One kernel. `source` is its text; `near_bytes` and `blocks` what a launch needs."""

    def __init__(self, kernel: ir.Kernel) -> None:
        self.kernel, self.names = kernel, Names()
        self.grid = ir.grid(kernel)
        for b in kernel.buffers:
            self.names.of("parameter", b.name)
        for s in kernel.sizes:
            self.names.of("size", s)
        self.name = self.names.of("kernel", kernel.name)
        self.layouts = Layouts(kernel, self.names)
        self.views = Views(self.layouts, self.names, written_arrays(kernel), kernel.schedule.get("aligned", ()))
        self.views.steps |= kernel.schedule.get("multiples", {})
        self.views.natural |= set(kernel.sizes)
        self.tiles = Expressions(self.views, self.layouts, self.names, indexing_names(kernel))
        self.near_bytes, self.blocks = 0, iterations(kernel)
        self.bringer = Bringer(kernel, self.names, self.layouts.threads // 32) if kernel.schedule.get("bringing") else None
        self.statements = Statements(kernel, self.tiles, self.views, self.layouts, self.names, self.bringer)
        self._rings()
        self.source = self._source()

    @property
    def threads(self) -> int:
        """Of a block: those that compute, and the warp that brings tiles."""
        return self.layouts.threads + (32 if self.bringer else 0)

    @property
    def maps(self) -> list[tuple[str, Boxes]]:
        """The tensor maps that are passed behind the sizes, by their names."""
        return list(self.bringer.maps.values()) if self.bringer else []

    def alignment(self, buffer: ir.Buffer) -> int:
        """What a buffer's address must be a multiple of."""
        boxed = PIECE if any(b.memory.name == buffer.name for _, b in self.maps) else 1
        return max(self.views.alignments.get(buffer.name, 1), buffer.dtype.bytes, boxed)

    def _source(self) -> str:
        above = [s for s in self.kernel.body if not isinstance(s, ir.Parallel)]
        if self.grid and not all(isinstance(s, ir.Let) for s in above):
            raise Unsupported(f"{self.kernel.name} has statements beside its parallel loops")
        body: list[Line | Block] = []
        if self.grid:
            body += self.statements.lines(above)
        body += self._body(self.grid[-1].body if self.grid else self.kernel.body)
        code = with_barriers(body)
        parameters = [self.names.of("parameter", b.name) for b in self.kernel.buffers]
        arrays = [line for _, line in self.views.definitions.values()]
        arrays.sort(key=lambda line: line.split()[0] in parameters)  # an array takes the name of its address: those last
        names = [*parameters, *(self.names.of("size", s) for s in self.kernel.sizes), *(name for name, _ in self.maps)]
        head = f"def {self.name}({', '.join(names)}):"
        return "\n".join([*self._header(), "", head, *indented([*arrays, *(code or ["pass"])])])

    def _body(self, inner: Sequence[ir.Statement]) -> list[Line | Block]:
        """What a block does for its iteration of the parallel loops, or for several in turn."""

        def here(number: str) -> Line:
            return Line(places(self.grid, self.views.loop, self.views.extent, self.names, number) if self.grid else [])

        first, body = here("block()"), self.statements.lines(inner)
        if self.bringer is None:
            return [first, *body]
        bring = self.bringer.statements(inner, self.views.loop, self.views.extent)
        if not self.in_turns(body):
            return [first, *self.bringer.parted(bring, body)]
        number, count = self.names.of("number", "number"), self.views.extent(iterations(self.kernel))
        bring, body = ([here(number), *x] for x in (bring, body))
        self.blocks = minimum(self.blocks, self.kernel.schedule["resident"])
        return self.bringer.parted(in_turns(number, count, bring), in_turns(number, count, body))

    def in_turns(self, body: Sequence[Line | Block]) -> bool:
        """Whether a block may run several iterations: all its warps go on by themselves, no barrier is for all of them."""
        return not needs_barriers(body) and not any(map(self.layouts.crosses_warps, all_tiles(self.kernel)))

    def _header(self) -> list[str]:
        """What the kernel is, and the records that it names."""
        counts = [ceildiv(p.hi - p.lo, p.tile) for p in self.grid]
        blocks = " * ".join(group(self.views.extent(n)) for n in counts) or "1"
        if self.blocks != iterations(self.kernel):
            blocks = f"{blocks} tiles, {self.views.extent(self.blocks)}"
        place = self.kernel.location
        out = ["", *([f"# {place.file}:{place.line}"] if place else [])]
        out += [f"{name} = {text}" for name, text in self.layouts.definitions.values()]
        start = 0
        for ring in self.views.rings.values():
            m = ring.memory
            name, how = self.names.of("near", m.name.upper()), "boxed" if ring.boxed else "swizzled" if ring.swizzled else ""
            how = f", {how}=True" if how else ""
            shape = tuple(map(int, m.shape))  # type: ignore[arg-type]
            out.append(f'{name} = Near("{m.dtype.name}", {shape}, {ring.depth}, {start}, {self.layouts.threads}{how})')
            start += _bytes(m) * ring.depth
        if self.bringer:
            sent, start = self.bringer.sent_records(start)
            out += [*sent, self.bringer.record(start)]
            start += 16 * self.bringer.depth
        end = start
        for (dtype, shape), name in self.tiles.exchanges.items():
            out.append(f'{name} = Near("{dtype}", {shape}, 1, {start}, {self.layouts.threads})')
            end = max(end, start + -(-math.prod(shape) * BYTES[dtype] // 16) * 16)
        self.near_bytes = end
        out[0] = f"# {self.kernel.name} (numba.cuda): {blocks} blocks of {self.threads} threads, {end} bytes of near memory"
        return out + [f"{name} = {text}" for name, (text, _) in self.views.definitions.items()]

    def _rings(self) -> None:
        """Near memory: how many tiles each holds, and how their elements lie."""
        swizzled = operands(self.kernel)
        boxed = {c.near for c in self.bringer.copies} if self.bringer else set()
        for s in ir.walk(self.kernel.body):
            if isinstance(s, ir.Near):
                self.views.rings[s] = ring = Ring(s)
                ring.boxed = s in boxed
                ring.swizzled = not ring.boxed and s in swizzled and len(s.shape) == 2 and _rows16(s)
            elif isinstance(s, ir.Copy):
                self.views.rings[s.near].depth = max(self.views.rings[s.near].depth, s.depth)


def iterations(kernel: ir.Kernel) -> Extent:
    """How many iterations its parallel loops have together."""
    return math.prod((ceildiv(p.hi - p.lo, p.tile) for p in ir.grid(kernel)), start=1)


def _bytes(m: ir.Near) -> int:
    return -(-math.prod(map(int, m.shape)) * BYTES[m.dtype.name] // 16) * 16  # type: ignore[arg-type]


def _rows16(m: ir.Near) -> bool:
    return int(m.shape[-1]) * BYTES[m.dtype.name] % 16 == 0  # type: ignore[arg-type]
