"""Which layout each tile of a kernel has, and what tiles are called in its source.

Every shape has a layout of its own: of what a Dot adds up the accumulator's (patches without tensor cores), parts of it for
rows and columns; any other shape is blocked, with the same threads along each axis in the whole kernel, so that rows and
columns of different tiles lie in the same threads and folds and broadcasts need no conversion. Where they still differ,
expressions.py goes through near memory.
Warps come from the kernel's schedule ("warps": (down, across)); so may how a warp's lanes lie ("lanes").
In:  a kernel of the loop IR.  Out: Layouts. Read before: layout.py, ir/loops.py. Read next: views.py.
"""

from __future__ import annotations

import math

from kdsl.codegen.cuda.addresses import factor, run_length
from kdsl.codegen.cuda.layout import Layout, accumulator, blocked, operand_a, patches, strips
from kdsl.codegen.cuda.names import Names
from kdsl.codegen.cuda.records import BYTES, HALVES
from kdsl.ir import loops as ir


class Unsupported(NotImplementedError):
    """What the CUDA emitter does not write: the planner or a schedule should have done otherwise."""


def all_tiles(kernel: ir.Kernel) -> list[ir.Tile]:
    """Every tile expression of a kernel, once."""
    return list(ir.nodes(*(t for s in ir.walk(kernel.body) for t in ir.tiles_of(s))))


class Layouts:
    def __init__(self, kernel: ir.Kernel, names: Names) -> None:
        self.names = names
        self.warps: tuple[int, int] = kernel.schedule.get("warps", (4, 1))
        self.threads = 32 * self.warps[0] * self.warps[1]
        tiles = all_tiles(kernel)
        shapes = {tuple(t.shape) for t in tiles} | {tuple(s.shape) for s in ir.walk(kernel.body) if isinstance(s, ir.Copy)}
        lets = {s.name: s.tile for s in ir.walk(kernel.body) if isinstance(s, ir.Let)}
        dots = [t for t in tiles if isinstance(t, ir.Dot)]
        cores = {t: half for t in dots if (half := on_tensor_cores(t, lets))}
        self.cores = {*cores}
        self.dots = sorted({tuple(t.shape) for t in dots})
        self.panels = sorted({tuple(t.shape) for t in tiles if isinstance(t, ir.Slice) and self._of_columns(t)})
        self.patch = None if cores or not dots else 16 // max(4, *(t.dtype.bytes for t in dots))
        self.left = {t.a.name: half for t, half in cores.items() if isinstance(t.a, ir.Name)}  # Lets that are their left operands
        main = max(shapes or {()}, key=lambda s: (math.prod(s), len(s), s))
        vector = 16 // max(2, min((BYTES[b.dtype.name] for b in kernel.buffers if b.shape), default=4))
        self.vector = max(1, min(vector, math.prod(main) // self.threads, widest(kernel)))
        self.down: int = kernel.schedule.get("down", 1)
        if self.down > 1:  # squares of elements
            self.vector = self.down
        self.along = self._threads_along(main)
        self.lanes: tuple[int, int] | None = kernel.schedule.get("lanes")  # of a warp, where a schedule says it
        self.texts: dict[Layout, str] = {}
        self.definitions: dict[tuple[str, ir.TileShape, Layout], tuple[str, str]] = {}

    def _of_columns(self, t: ir.Slice) -> bool:
        """Whether this is a part of the columns of what a product adds up, which every warp has whole."""
        of_product = tuple(t.tile.shape) in self.dots and self.warps[1] == 1
        return of_product and t.shape[0] == t.tile.shape[0] and t.shape[1] % 8 == 0

    def _threads_along(self, shape: ir.TileShape) -> tuple[int, ...]:
        """Threads along each axis: across the last one a warp's row, then down the rows; what is left goes across again."""
        if not shape:
            return (self.threads,)
        *rows, columns = shape
        rows[-1:] = [max(1, n // self.down) for n in rows[-1:]]
        most = max(1, columns // self.vector)
        across = min(most, 32 * self.warps[1])
        if math.prod(rows) < self.threads // across:
            across = min(most, self.threads // math.prod(rows)) if math.prod(rows) <= self.threads else across
        left, out = self.threads // across, []
        for extent in reversed(rows):
            here = min(left, extent)
            out.insert(0, here)
            left //= here
        return (*out, across) if left == 1 else (left, *out, across)

    def of(self, shape: ir.TileShape) -> Layout:
        """The layout that a tile of this shape has by default."""
        if any(n & (n - 1) for n in shape):
            raise Unsupported(f"a tile of shape {shape}: extents of CUDA tiles are powers of two")
        for whole in (*self.dots, *self.panels):
            if len(shape) == 2 and all(a in (1, b) for a, b in zip(shape, whole)):
                layout, text = accumulator(*whole, self.warps), f"accumulator({whole[0]}, {whole[1]}, {self.warps})"
                if self.patch:
                    layout = patches(*whole, self.warps, self.patch)
                    text = f"patches({whole[0]}, {whole[1]}, {self.warps}, {self.patch})"
                if shape != whole:
                    layout, text = layout.part(shape), f"{text}.part({shape})"
                break
        else:
            layout = blocked(shape, self.along, self.vector, self.down)
            text = f"blocked({shape}, {self.along}, {self.vector}{f', {self.down}' if self.down > 1 else ''})"
            if self.lanes:
                layout = strips(shape, self.lanes, self.warps[1], self.down)
                text = f"strips({shape}, {self.lanes}, {self.warps[1]}, {self.down})"
        self.texts.setdefault(layout, text)
        return layout

    def crosses_warps(self, tile: ir.Tile) -> bool:
        """Whether a fold in this expression goes through scratch memory of its own."""
        if isinstance(tile, (ir.Fold, ir.Prefix)):
            each = tile.tile.shape[tile.axis] // (tile.parts if isinstance(tile, ir.Fold) else 1)
            if self.of(tuple(tile.tile.shape)).crosses_warps(tile.axis, each):
                return True
        return any(map(self.crosses_warps, ir.children(tile)))

    def operand(self, shape: ir.TileShape) -> Layout:
        """The left operand of a dot on tensor cores."""
        layout = operand_a(shape[0], shape[1], self.warps)
        self.texts.setdefault(layout, f"operand_a({shape[0]}, {shape[1]}, {self.warps})")
        return layout

    def part(self, layout: Layout, shape: ir.TileShape) -> Layout:
        """What the threads hold of a tile that broadcasts to one of this layout."""
        out = layout.part(shape)
        self.texts.setdefault(out, f"{self.texts[layout]}.part({shape})")
        return out

    def grouped(self, layout: Layout, axis: int, extent: int, parts: int) -> Layout:
        """What the threads hold of a fold within parts of an axis."""
        out = layout.grouped(axis, extent, parts)
        self.texts.setdefault(out, f"{self.texts[layout]}.grouped({axis}, {extent}, {parts})")
        return out

    def permuted(self, layout: Layout, axes: tuple[int, ...]) -> Layout:
        out = layout.permute(axes)
        self.texts.setdefault(out, f"{self.texts[layout]}.permute({axes})")
        return out

    def tile(self, dtype: str, shape: ir.TileShape, layout: Layout) -> str:
        """The name of the tile type."""
        key = dtype, tuple(shape), layout
        if key not in self.definitions:
            word = "LEFT" if dtype in HALVES else dtype.upper()
            name = self.names.of(f"tile {len(self.definitions)}", "_".join([word, "x".join(map(str, shape))]).rstrip("_"))
            self.definitions[key] = name, f'Tile("{dtype}", {tuple(shape)}, {self.texts[layout]})'
        return self.definitions[key][0]


def widest(kernel: ir.Kernel) -> int:
    """The most elements that one access of the kernel may take: no thread holds more side by side, or the threads of a warp,
    each with accesses of its own, would meet every piece of memory several times."""
    steps: dict[str, int] = dict(kernel.schedule.get("multiples", {}))
    for s in ir.walk(kernel.body):
        if isinstance(s, (ir.Parallel, ir.Stream)):
            steps[s.index] = math.gcd(s.tile, factor(s.lo, steps)) or 1
    views = [(t.view, tuple(t.shape)) for t in all_tiles(kernel) if isinstance(t, ir.Load)]
    views += [(s.view, tuple(s.tile.shape)) for s in ir.walk(kernel.body) if isinstance(s, ir.Store)]
    aligned = kernel.schedule.get("aligned", ())
    views = [(v, shape) for v, shape in views if not isinstance(v.memory, ir.Near)]
    most = max((math.prod(shape) for _, shape in views), default=0)  # what is small beside the largest tile does not count
    runs = [
        run_length(v.memory, v.memory.strides, v, shape, steps, aligned)
        for v, shape in views
        if math.prod(shape) == most
    ]
    return max((max(r.sure, r.hoped) for r in runs), default=16)


def on_tensor_cores(t: ir.Dot, lets: dict[str, ir.Tile]) -> str | None:
    """The dtype of a product's operands where both are f16 or both bf16: in near memory, or rounded. None for any other."""

    def half(x: ir.Tile) -> str:
        if isinstance(x, ir.Name):
            x = lets.get(x.name, x)
        if isinstance(x, ir.Load) and isinstance(x.view.memory, ir.Near):
            return x.view.memory.dtype.name
        return x.op.removeprefix("round_") if isinstance(x, ir.Map) else ""

    a, b = half(t.a), half(t.b)
    return a if a == b and a in HALVES else None
