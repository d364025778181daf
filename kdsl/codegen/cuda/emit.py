"""Scheduled loop IR to numba.cuda source: one macro call or operator for each statement, barriers derived.

In:  a kernel whose tiles have sizes for a GPU (powers of two) and whose schedule says how many warps it has.
Out: Emitter(kernel): its source, near memory and threads. One block runs one iteration of all Parallel loops.
A Copy of depth d in a Stream runs d - 1 tiles ahead: the first ones are started before the loop. The user's line stands above
the statements that it became.
Read before: choose_layouts.py, expressions.py, barriers.py. Read next: kernels.py.
"""

from __future__ import annotations

import linecache
import math
from collections.abc import Callable, Sequence
from itertools import combinations

from kdsl.codegen.cuda.addresses import factor, group, one_thread_each, stays_above_zero, walk
from kdsl.codegen.cuda.barriers import Access, Item, Loop, Path, place_barriers
from kdsl.codegen.cuda.bulk import Bringer
from kdsl.codegen.cuda.choose_layouts import Layouts, Unsupported, all_tiles
from kdsl.codegen.cuda.expressions import Block, Expressions, Line, Ring
from kdsl.codegen.cuda.grid import in_turns, places
from kdsl.codegen.cuda.names import Names
from kdsl.codegen.cuda.records import BYTES
from kdsl.ir import loops as ir
from kdsl.ir.boxes import PIECE, Boxes
from kdsl.ir.sizes import Extent, ceildiv, minimum, names_in, size, substitute
from kdsl.ir.tensor import Location


class Emitter:
    def __init__(self, kernel: ir.Kernel) -> None:
        self.kernel, self.names = kernel, Names()
        self.grid = ir.grid(kernel)
        for b in kernel.buffers:
            self.names.of("parameter", b.name)
        for s in kernel.sizes:
            self.names.of("size", s)
        self.name = self.names.of("kernel", kernel.name)
        self.layouts = Layouts(kernel, self.names)
        self.shared = _shared(kernel)
        written = {_root(s.view.memory) for s in ir.walk(kernel.body) if isinstance(s, ir.Store)}
        aligned = kernel.schedule.get("aligned", ())
        self.tiles = Expressions(self.layouts, self.names, written, _indexing(kernel), aligned)
        self.tiles.steps |= kernel.schedule.get("multiples", {})
        self.tiles.natural |= set(kernel.sizes)
        self.near_bytes, self.blocks = 0, iterations(kernel)
        self.bringer = Bringer(kernel, self.names, self.layouts.threads // 32) if kernel.schedule.get("bringing") else None
        self._rings()
        self.near: list[str] = []
        self.location = ("", 0)  # of the statement before
        self.text = self._source()

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
        return max(self.tiles.alignments.get(buffer.name, 1), buffer.dtype.bytes, boxed)

    def source(self) -> str:
        return self.text

    # --- the kernel -----------------------------------------------------------------------------------------------------------
    def _source(self) -> str:
        above = [s for s in self.kernel.body if not isinstance(s, ir.Parallel)]
        if self.grid and not all(isinstance(s, ir.Let) for s in above):
            raise Unsupported(f"{self.kernel.name} has statements beside its parallel loops")
        body: list[Line | Block] = []
        if self.grid:
            self.statements(above, body)
        body += self._body(self.grid[-1].body if self.grid else self.kernel.body)
        barriers = place_barriers([_accesses(x) for x in body])
        code = _write(body, barriers)
        parameters = [self.names.of("parameter", b.name) for b in self.kernel.buffers]
        arrays = [line for _, line in self.tiles.definitions.values()]
        arrays.sort(key=lambda line: line.split()[0] in parameters)  # an array takes the name of its address: those last
        names = [*parameters, *(self.names.of("size", s) for s in self.kernel.sizes), *(name for name, _ in self.maps)]
        head = f"def {self.name}({', '.join(names)}):"
        return "\n".join([*self._header(), "", head, *_indent([*arrays, *(code or ["pass"])])])

    def _body(self, inner: Sequence[ir.Statement]) -> list[Line | Block]:
        """What a block does for its iteration of the parallel loops, or for several in turn."""

        def here(number: str) -> Line:
            return Line(places(self.grid, self.loop, self.tiles.extent, self.names, number) if self.grid else [])

        first, body = here("block()"), []
        self.statements(inner, body)
        if self.bringer is None:
            return [first, *body]
        bring = self.bringer.statements(inner, self.loop, self.tiles.extent)
        if not self.in_turns(body):
            return [first, *self.bringer.parted(bring, body)]
        number, count = self.names.of("number", "number"), self.tiles.extent(iterations(self.kernel))
        bring, body = ([here(number), *x] for x in (bring, body))
        self.blocks = minimum(self.blocks, self.kernel.schedule["resident"])
        return self.bringer.parted(in_turns(number, count, bring), in_turns(number, count, body))

    def in_turns(self, body: Sequence[Line | Block]) -> bool:
        """Whether a block may run several iterations: all its warps go on by themselves, no barrier is for all of them."""
        alone = not place_barriers([_accesses(x) for x in body])
        return alone and not any(map(self.crosses_warps, all_tiles(self.kernel)))

    def loop(self, index: str, lo: Extent, tile: int) -> str:
        """Enter a loop: what its index is called, and what is known of it."""
        steps = self.tiles.steps
        steps[index] = math.gcd(tile, factor(lo, steps)) or 1
        if stays_above_zero(lo, lambda n: n in self.tiles.natural):
            self.tiles.natural.add(index)
        else:
            self.tiles.natural.discard(index)
        name = self.names.of("loop", index)
        self.tiles.called[index] = name
        return name

    def _header(self) -> list[str]:
        """What the kernel is, and the records that it names."""
        counts = [ceildiv(p.hi - p.lo, p.tile) for p in self.grid]
        blocks = " * ".join(group(self.tiles.extent(n)) for n in counts) or "1"
        if self.blocks != iterations(self.kernel):
            blocks = f"{blocks} tiles, {self.tiles.extent(self.blocks)}"
        place = self.kernel.location
        out = ["", *([f"# {place.file}:{place.line}"] if place else [])]
        out += [f"{name} = {text}" for name, text in self.layouts.definitions.values()]
        start = 0
        for ring in self.tiles.rings.values():
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
        return out + [f"{name} = {text}" for name, (text, _) in self.tiles.definitions.items()]

    def _rings(self) -> None:
        tiles = all_tiles(self.kernel)
        operands = {
            x.view.memory
            for t in tiles
            if isinstance(t, ir.Dot)
            for x in (t.a, t.b, *(_named(self.kernel, o) for o in (t.a, t.b)))
            if isinstance(x, ir.Load)
        }
        for s in ir.walk(self.kernel.body):
            if isinstance(s, ir.Near):
                self.tiles.rings[s] = ring = Ring(s)
                ring.boxed = self.bringer is not None and s in {c.near for c in self.bringer.copies}
                ring.swizzled = not ring.boxed and s in operands and len(s.shape) == 2 and _rows16(s)
            elif isinstance(s, ir.Copy):
                self.tiles.rings[s.near].depth = max(self.tiles.rings[s.near].depth, s.depth)

    # --- statements -------------------------------------------------------------------------------------------------------------
    def statements(self, statements: Sequence[ir.Statement], out: list[Line | Block]) -> None:
        for s in statements:
            self.comment(getattr(s, "location", None), out)
            if isinstance(s, ir.Let):
                self.let(s, out)
            elif isinstance(s, ir.Store):
                shared = _root(s.view.memory) in self.shared
                send = None
                if self.bringer and not shared:
                    send = self.bringer.sends(s, self.tiles.layout(s.tile), self.tiles.extent)
                if send is not None:
                    out += self.tiles.line(s.tile, send)
                    continue
                self.write("store", s.view, s.tile, f"global {_root(s.view.memory)}" if shared else None, out)
            elif isinstance(s, ir.Put):
                if self.tiles.rings[s.near].depth != 1:
                    raise Unsupported(f"near memory {s.near.name} is filled by copies and by tiles")
                self.write("put", s.view, s.tile, s.near.name, out)
            elif isinstance(s, ir.Copy):
                out.append(self.copies([s], "0", 0, {}))
            elif isinstance(s, ir.Stream):
                self.stream(s, out)
            elif isinstance(s, ir.If):
                self.condition(s, out)
            elif not isinstance(s, (ir.Near, ir.Prefetch)):
                raise Unsupported(f"a {type(s).__name__} in a CUDA kernel")

    def write(self, word: str, view: ir.View, tile: ir.Tile, ring: str | None, out: list[Line | Block]) -> None:
        """A store or a put, into a ring that threads share. What reads the memory that it writes is computed before, by all."""
        fixed = {p.index for p in self.grid} | set(self.kernel.sizes)
        kind = f"own {id(view)}" if one_thread_each(view, tuple(tile.shape), self.tiles.steps, fixed) else "write"
        written: list[Access] = [(kind, ring, 0, 1)] if ring is not None else []
        at = self.tiles.place(view, tuple(tile.shape), self.tiles.layout(tile))
        lines = self.tiles.line(tile, lambda x: f"{word}({at}, {x})")
        if any(read[:2] == ("read", w[1]) for line in lines for read in line.accesses for w in written):
            name = self.names.of("value", f"value_{len(self.names.taken)}")
            lines = self.tiles.line(tile, lambda x: f"{name} = {x}")
            lines.append(Line([f"{word}({at}, {name})"]))
        lines[-1].accesses += written
        out += lines

    def comment(self, place: Location | None, out: list[Line | Block]) -> None:
        """The user's line, above the first statement of several that it became."""
        if place is None or (place.file, place.line) == self.location:
            return
        self.location = place.file, place.line
        line = linecache.getline(place.file, place.line).strip()
        if line:
            out.append(Line([f"# {line}"]))

    def let(self, s: ir.Let, out: list[Line | Block]) -> None:
        name = self.names.of("let", s.name)
        self.tiles.called[s.name] = name
        integer = s.tile.shape == () and s.tile.dtype.kind in ("signed", "unsigned")
        if isinstance(s.tile, ir.Scalar):
            self.tiles.sizes.add(s.name)
            if stays_above_zero(s.tile.value, lambda n: n in self.tiles.natural):
                self.tiles.natural.add(s.name)
            out.append(Line([f"{name} = size({self.tiles.extent(s.tile.value)})"]))
            return
        layout = self.tiles.layout(s.tile)
        if integer and s.name in self.tiles.indexing:
            out += self.tiles.line(s.tile, lambda x: f"{name} = uniform({x})", layout)
            self.tiles.sizes.add(s.name)
            return
        if s.name in self.layouts.left and isinstance(s.tile, ir.Load):
            layout = self.layouts.operand(tuple(s.tile.shape))
            self.tiles.reads, self.tiles.before = [], []
            self.tiles.read(s.tile.view.memory)
            at = self.tiles.place(s.tile.view, tuple(s.tile.shape))
            tile = self.layouts.tile(self.layouts.left[s.name], tuple(s.tile.shape), layout)
            out.append(Line([f"{name} = take({tile}, {at})"], self.tiles.reads))
        else:
            out += self.tiles.line(s.tile, lambda x: f"{name} = {x}", layout)
        self.tiles.held[s.name] = layout

    def condition(self, s: ir.If, out: list[Line | Block]) -> None:
        lines = self.tiles.line(s.condition, lambda x: x)
        *before, test = lines
        sizes = isinstance(s.condition, ir.Map) and all(map(self.tiles.is_number, s.condition.operands))
        if sizes and isinstance(s.condition, ir.Map) and s.condition.op in ("lt", "le", "gt", "ge", "eq", "ne"):
            operands = [self.tiles.operand_text(o, self.layouts.of(())) for o in s.condition.operands]
            head, _ = self.tiles.infix(s.condition, operands)
        else:
            head = f"holds({test.text[0]})"
        out += [*before, Line([], test.accesses)]
        body: list[Line | Block] = []
        self.statements(s.body, body)
        out.append(Block(f"if {head}:", body or [Line(["pass"])], once=True))

    def copies(self, copies: Sequence[ir.Copy], number: str, at: object, values: dict[str, Extent]) -> Line:
        """Start copies, as one group."""
        text, accesses = [], []
        for c in copies:
            index = tuple(substitute(e, values) if values else e for e in c.view.index)
            view = ir.View(c.view.memory, index, c.view.checks, c.view.fill)
            place = self.tiles.place(view, tuple(c.shape))
            run = int(place[2 : place.index("(")]) if place.startswith("by") else 1
            whole = tuple(c.shape) == tuple(c.near.shape) and list(map(str, c.index)) == [f"#{k}" for k in range(len(c.shape))]
            if run * BYTES[c.near.dtype.name] != 16 or not whole or c.view.fill != 0 or c.near.dtype != c.view.memory.dtype:
                raise Unsupported(
                    f"a copy from {c.view.memory.name} goes in pieces of 16 bytes, a whole tile at a time, with fill 0"
                )
            text.append(f"copy(near({self.names.of('near', c.near.name.upper())}, {number}), {place})")
            accesses.append(("copy", c.near.name, at, self.tiles.rings[c.near].depth))
        return Line([*text, "commit()"], accesses)  # type: ignore[arg-type]

    def stream(self, s: ir.Stream, out: list[Line | Block]) -> None:
        back = s.order == "backward"
        brought = self.bringer is not None and s is self.bringer.stream
        ahead = [c for c in s.body if isinstance(c, ir.Copy) and c.depth > 1 and not brought]
        depth = max((c.depth for c in ahead), default=1)
        if any(c.depth != depth for c in ahead):
            raise Unsupported(f"the copies of stream {s.index} have several depths")
        for c in s.carries:
            layout = self.layouts.of(tuple(c.init.shape))
            self.tiles.called[c.name] = name = self.names.of("carry", c.name)
            out += self.tiles.line(c.init, lambda x, name=name: f"{name} = {x}", layout)  # type: ignore[misc]
            self.tiles.held[c.name] = layout
        first = s.lo + (ceildiv(s.hi - s.lo, s.tile) - 1) * s.tile if back else s.lo
        i = self.loop(s.index, s.lo, s.tile)
        end, sign = self.names.of("end", f"{i}_end"), "-" if back else "+"
        step = -s.tile if back else s.tile
        out.append(Line([f"{i}, {end} = size({self.tiles.extent(first)}), size({self.tiles.extent(s.lo if back else s.hi)})"]))
        body: list[Line | Block] = []
        count = self.names.of("count", f"{i}_count") if ahead else ""
        for n in range(depth - 1):
            start = self.copies(ahead, str(n), n, {s.index: first + n * step})
            if not (isinstance(s.lo, int) and isinstance(s.hi, int) and s.lo + n * s.tile < s.hi):  # there may be no such tile
                *starts, commit = start.text
                ahead_by = f" {'-' if back else '+'} {n * s.tile}" if n else ""
                inside = f"{i}{ahead_by} {'>=' if back else '<'} {end}"
                start.text = [f"if {inside}:", *_indent(starts), commit]
            out.append(start)
        if ahead:
            out.append(Line([f"{count} = size(0)"]))
            later = {s.index: size(s.index) + (depth - 1) * step}
            more = self.copies(ahead, f"{count} + {depth - 1}", _later(depth - 1), later)
            *starts, commit = more.text
            inside = f"{i} - {-(depth - 1) * step} >= {end}" if back else f"{i} + {(depth - 1) * step} < {end}"
            body.append(Line([f"if {inside}:", *_indent(starts), commit], more.accesses))
            for c in ahead:
                ring = self.tiles.rings[c.near]
                ring.number, ring.step = count, _later(0)
        if brought:
            body.append(Line([f"landed({self.bringer.gates}, {self.bringer.count})"]))
            for c in self.bringer.copies:
                self.tiles.rings[c.near].number = self.bringer.count
        if any(self.crosses_warps(t) for inner in (*ir.walk(s.body), s) for t in ir.tiles_of(inner)):
            body.append(Line(["barrier()"]))  # folds across warps use scratch of their own, step after step
        self.statements([b for b in s.body if b not in ahead and not (brought and isinstance(b, ir.Copy))], body)
        nexts = []
        for c in s.carries:
            name = self.tiles.called[c.name]
            if isinstance(c.next, ir.Name) and self.tiles.held.get(c.next.name) == self.tiles.held[c.name]:
                nexts.append(self.tiles.called[c.next.name])
                continue
            nexts.append(self.names.of("next", f"{name}_next"))
            body += self.tiles.line(c.next, lambda x: f"{nexts[-1]} = {x}", self.tiles.held[c.name])
        if brought:
            leave = f"leave({self.bringer.gates}, {self.bringer.count})"
            body.append(Line([leave, f"{self.bringer.count} = {self.bringer.count} + 1"]))
        if s.carries:
            body.append(Line([f"{', '.join(self.tiles.called[c.name] for c in s.carries)} = {', '.join(nexts)}"]))
        body.append(Line([f"{i} = {i} {sign} {s.tile}"] + ([f"{count} = {count} + 1"] if ahead else [])))
        for c in [*ahead, *(self.bringer.copies if brought else ())]:
            self.tiles.rings[c.near].number = ""
        sure = isinstance(s.lo, int) and isinstance(s.hi, int) and s.lo < s.hi
        out.append(Block(f"while {i} {'>=' if back else '<'} {end}:", body, depth, sure=sure))

    def crosses_warps(self, tile: ir.Tile) -> bool:
        """Whether a fold in this expression goes through scratch memory of its own."""
        if isinstance(tile, (ir.Fold, ir.Prefix)) and self.layouts.of(tuple(tile.tile.shape)).crosses_warps(tile.axis):
            return True
        return any(map(self.crosses_warps, ir.children(tile)))


def iterations(kernel: ir.Kernel) -> Extent:
    """How many iterations its parallel loops have together."""
    return math.prod((ceildiv(p.hi - p.lo, p.tile) for p in ir.grid(kernel)), start=1)


def _read_memories(kernel: ir.Kernel) -> list[ir.Memory]:
    out: list[ir.Memory] = []
    for t in all_tiles(kernel):
        if isinstance(t, ir.Load):
            out.append(t.view.memory)
        elif isinstance(t, ir.Gather):
            out.append(t.memory)
    return out + [s.view.memory for s in ir.walk(kernel.body) if isinstance(s, ir.Copy)]


def _shared(kernel: ir.Kernel) -> set[str]:
    """The arrays where a thread may meet what another one wrote: read again, written by several statements, or at loaded indices.

    A single store writes each element from one thread, whatever loops are around it."""
    stores = [s for s in ir.walk(kernel.body) if isinstance(s, ir.Store)]
    loaded = {s.name for s in ir.walk(kernel.body) if isinstance(s, ir.Let) and not isinstance(s.tile, ir.Scalar)}
    places = {p.index for p in ir.grid(kernel)} | set(kernel.sizes)
    pairs = [(a, b) for a, b in combinations(stores, 2) if _root(a.view.memory) == _root(b.view.memory)]
    met = {_root(a.view.memory) for a, b in pairs if not _apart(a, b, places)}
    scattered = {_root(s.view.memory) for s in stores if any(names_in(e) & loaded for e in s.view.index)}
    return {_root(m) for m in _read_memories(kernel)} | met | scattered


def _apart(a: ir.Store, b: ir.Store, fixed: set[str]) -> bool:
    """Whether two stores of a block never meet: along an axis, where `fixed` names alone say where, one ends before the other."""
    for x, y in zip(a.view.index, b.view.index):
        steps = walk(x)
        if a.view.memory is b.view.memory and steps is not None and len(steps[0]) == 1 and names_in(steps[1]) <= fixed:
            ((axis, step),) = steps[0].items()
            if step == 1 and isinstance(x - y, int) and abs(x - y) >= max(a.tile.shape[axis], b.tile.shape[axis]):
                return True
    return False


def _root(memory: ir.Memory) -> str:
    return memory.buffer.name if isinstance(memory, ir.Reshaped) else memory.name


def _indexing(kernel: ir.Kernel) -> set[str]:
    """The names that stand in indices, bounds and sizes."""
    out: set[str] = set()

    def view(v: ir.View) -> None:
        for e in (*v.index, *v.memory.shape):
            out.update(names_in(e))

    for s in ir.walk(kernel.body):
        if isinstance(s, (ir.Parallel, ir.Stream)):
            out.update(names_in(s.lo) | names_in(s.hi))
        elif isinstance(s, (ir.Store, ir.Copy)):
            view(s.view)
        if isinstance(s, ir.Put):
            view(s.view)
    for t in all_tiles(kernel):
        if isinstance(t, ir.Load):
            view(t.view)
        elif isinstance(t, ir.Scalar):
            out.update(names_in(t.value))
    return out


def _named(kernel: ir.Kernel, t: ir.Tile) -> ir.Tile:
    """What a Let of this name holds."""
    if isinstance(t, ir.Name):
        for s in ir.walk(kernel.body):
            if isinstance(s, ir.Let) and s.name == t.name:
                return s.tile
    return t


def _bytes(m: ir.Near) -> int:
    return -(-math.prod(map(int, m.shape)) * BYTES[m.dtype.name] // 16) * 16  # type: ignore[arg-type]


def _rows16(m: ir.Near) -> bool:
    return int(m.shape[-1]) * BYTES[m.dtype.name] % 16 == 0  # type: ignore[arg-type]


def _later(n: int) -> Callable[[int], int]:
    return lambda step: step + n


def _accesses(x: Line | Block) -> Item:
    return Loop(tuple(map(_accesses, x.body)), x.depth, x.once, x.sure) if isinstance(x, Block) else x.accesses


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
