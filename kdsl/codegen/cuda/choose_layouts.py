"""Which layout each tile of a kernel has: the layout pass of the first version.

A kernel has one whole layout for each tile shape: the accumulator's where the kernel has a Dot, else blocked rows. A row or
column of a shape has that shape's layout with the other axis dropped, so that folds and broadcasts need no conversion.
Warps come from the kernel's schedule ("warps": (down, across)).
In:  a kernel of the loop IR.  Out: Layouts, which names tiles and writes their definitions.
Read before: layout.py, ir/loops.py. Read next: emit.py.
"""

from __future__ import annotations

from kdsl.ir import loops as ir


class Unsupported(NotImplementedError):
    """What the CUDA emitter does not write yet."""


def all_tiles(kernel: ir.Kernel) -> list[ir.Tile]:
    """Every tile expression of a kernel, once."""
    stack = [t for s in ir.walk(kernel.body) for t in ir.tiles_of(s)]
    out: dict[int, ir.Tile] = {}
    while stack:
        tile = stack.pop()
        if id(tile) not in out:
            out[id(tile)] = tile
            stack += ir.children(tile)
    return list(out.values())


class Layouts:
    def __init__(self, kernel: ir.Kernel) -> None:
        self.warps: tuple[int, int] = kernel.schedule.get("warps", (4, 1))
        self.threads = 32 * self.warps[0] * self.warps[1]
        tiles = all_tiles(kernel)
        self.has_dot = any(isinstance(t, ir.Dot) for t in tiles)
        if self.has_dot:
            self.whole = {t.shape for t in tiles if isinstance(t, ir.Dot)}
        else:
            shapes = {t.shape for t in tiles if len(t.shape) == 2}
            high = {s for s in shapes if s[0] > 1 and s[1] > 1}
            self.whole = high or {s for s in shapes if s[1] > 1}
        self.definitions: dict[str, str] = {}

    def tile(self, shape: ir.TileShape, dtype: str = "f32") -> str:
        """The name of the tile type of this shape."""
        if len(shape) != 2 or any(n & (n - 1) for n in shape):
            raise Unsupported(f"a tile of shape {shape}: CUDA tiles have two axes, powers of two")
        name = f"{dtype.upper()}_{shape[0]}x{shape[1]}"
        if name not in self.definitions:
            self.definitions[name] = self._definition(shape, dtype)
        return name

    def operand(self, shape: ir.TileShape) -> str:
        """The name of the left operand of a dot with this shape."""
        name = f"LEFT_{shape[0]}x{shape[1]}"
        self.definitions[name] = f'Tile("bf16", {shape}, operand_a({shape[0]}, {shape[1]}, {self.warps}))'
        return name

    def _definition(self, shape: ir.TileShape, dtype: str) -> str:
        if shape in self.whole:
            return f'Tile("{dtype}", {shape}, {self._layout(shape)})'
        rows, columns = shape
        candidates = {self._layout(s) for s in self.whole}
        for s in sorted(self.whole):
            if columns == 1 and rows == s[0] and s[1] > 1:
                return self.tile(s, dtype) + ".drop(1)"
            if rows == 1 and columns == s[1] and s[0] > 1:
                return self.tile(s, dtype) + ".drop(0)"
        if shape == (1, 1) and len(candidates) == 1:
            (s,) = self.whole
            return self.tile(s, dtype) + (".drop(1)" if s[0] == 1 else ".drop(0).drop(1)")
        raise Unsupported(f"a tile of shape {shape} is no part of {sorted(self.whole)}")

    def _layout(self, shape: ir.TileShape) -> str:
        if self.has_dot:
            return f"accumulator({shape[0]}, {shape[1]}, {self.warps})"
        return f"blocked({shape[0]}, {shape[1]}, {self.warps[0] * self.warps[1]}, {min(4, shape[1])})"
