"""Rows to come, asked for ahead: the processor's own prefetching ends at every page, and knows nothing of what will be written.

In:  the statements of a tile of a row, the name that counts the rows.  Out: a Prefetch for each array that they read or write
row after row: beyond the furthest row that they touch, since a window reads several.
Read before: one_row.py. Read next: scan_ahead.py, which does the same for the steps of a scan.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kdsl.ir import loops as ir
from kdsl.ir.sizes import Extent, ceildiv, names_in, size, substitute

ROW_BYTES = range(1024, 64 * 1024)  # of a row that is asked for: shorter ones follow each other closely enough
AHEAD = 2048  # bytes, or one row


def rows_to_come(
    statements: Iterable[ir.Statement], tiles: Iterable[ir.Tile], row: str, extent: Extent, shape: ir.TileShape
) -> list[ir.Prefetch]:
    """What to ask for while a tile of a row of `extent` elements is worked on; `tiles` are expressions beside the statements."""
    furthest: dict[tuple, tuple[int, ir.View]] = {}
    for view, read in _views(statements, tiles):
        memory = view.memory
        walks = [d for d, i in enumerate(view.index) if row in names_in(i)]
        length = extent * memory.dtype.bytes
        if read != shape or isinstance(memory, ir.Near) or len(walks) != 1:
            continue
        if isinstance(length, int) and length not in ROW_BYTES:
            continue
        (d,) = walks
        further = view.index[d] - size(row)
        if not isinstance(further, int):
            continue
        key = memory.name, d, memory.shape, *view.index[:d], *view.index[d + 1 :]
        rows = max(1, ceildiv(AHEAD, length)) if isinstance(length, int) else 1
        if key not in furthest or further > furthest[key][0]:
            then = substitute(view.index[d], {row: size(row) + rows})
            furthest[key] = further, ir.View(memory, (*view.index[:d], then, *view.index[d + 1 :]))
    return [ir.Prefetch(view, shape) for _, view in furthest.values()]


def _views(statements: Iterable[ir.Statement], tiles: Iterable[ir.Tile]) -> Iterator[tuple[ir.View, ir.TileShape]]:
    for s in statements:
        if isinstance(s, ir.Store):
            yield s.view, s.tile.shape
        for tile in ir.tiles_of(s):
            yield from ((load.view, load.shape) for load in ir.loads_in(tile))
    for tile in tiles:
        yield from ((load.view, load.shape) for load in ir.loads_in(tile))
