"""The part of a module that runs its kernels one after the other: `@program`, `@arena` and `@shapes`.

In:  a Program and the names its kernels were emitted under.  Out: LLVM text that goes into the same module.

    define i64 @arena(ptr %sizes)                     bytes of temporaries
    define void @shapes(ptr %sizes, ptr %out)         the extents of all results, one result after the other
    define void @program(ptr %pointers, ptr %sizes, ptr %arena, ptr %launch)

Temporaries share one arena: a place is used again once the last kernel that reads it has run. Places of fixed size are packed
now; places whose size depends on named sizes follow behind them and are laid out by the code. A kernel that runs for less than
about 20 microseconds is called directly, a longer one goes to the thread pool; with named sizes the code decides.
Read before: docs/decisions/stages.md, ir/loops.py. Read next: codegen/llvm/module.py, runtime/pool.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from kdsl.ir.loops import Buffer, Kernel, Program, grid
from kdsl.ir.sizes import Atom, Extent, ceildiv, maximum
from kdsl.target import Target

ALIGNMENT = 64
# Behind a place of a page or more: equal elements of arrays as long as a power of two shall not lie 4096 bytes apart, where they
# share one set of the near cache, and where a load waits for a store that it only seems to overlap.
PAGE, APART = 4096, 9 * ALIGNMENT
# What one core does in 20 microseconds: 12 bytes or 25 operations in a nanosecond.
SERIAL_BYTES = 240_000
SERIAL_OPERATIONS = 500_000


def emit_driver(program: Program, kernel_names: Mapping[Kernel, str], target: Target) -> str:
    """The text of `@arena`, `@shapes` and `@program`."""
    fixed, flexible = _places(program)
    arena = _Code(program.sizes)
    offsets, total = _layout(arena, fixed, flexible)
    results = sorted((b for b in program.buffers if b.role == "result"), key=lambda b: b.number)
    shapes = _Code(program.sizes)
    for i, extent in enumerate(n for b in results for n in b.shape):
        shapes.store("%out", i, "i64", shapes.extent(extent))
    run = _Code(program.sizes)
    offsets, _ = _layout(run, fixed, flexible)
    outside = [b for b in program.buffers if b.role != "temporary"]
    pointers = {b: run.load("%pointers", i, "ptr") for i, b in enumerate(outside)}
    for buffer, offset in offsets.items():
        pointers[buffer] = run.let("ptr", f"getelementptr i8, ptr %arena, i64 {offset}")
    words = max((len(k.buffers) + len(k.sizes) for k in program.kernels), default=0)
    if words:
        run.lines.insert(0, f"  %args = alloca [{words} x i64], align 16")
    for kernel in program.kernels:
        _call(run, kernel, kernel_names[kernel], pointers)
    return "\n".join(
        [
            "define i64 @arena(ptr %sizes) {\nentry:", *arena.lines, f"  ret i64 {total}", "}\n",
            "define void @shapes(ptr %sizes, ptr %out) {\nentry:", *shapes.lines, "  ret void", "}\n",
            "define void @program(ptr noalias %pointers, ptr noalias %sizes, ptr %arena, ptr %launch) {\nentry:",
            *run.lines, "  ret void", "}\n",
        ]
    )  # fmt: skip


# --- one kernel ---------------------------------------------------------------------------------------------------------------
def _call(code: _Code, kernel: Kernel, name: str, pointers: Mapping[Buffer, str]) -> None:
    """Fill the table of arguments, count the blocks, call or launch. No block: no call."""
    blocks: Extent = 1
    for loop in grid(kernel):
        blocks = blocks * maximum(ceildiv(loop.hi - loop.lo, loop.tile), 0)
    if blocks == 0:
        return
    for i, buffer in enumerate(kernel.buffers):
        code.store("%args", i, "ptr", pointers[buffer])
    for i, size in enumerate(kernel.sizes):
        code.store("%args", len(kernel.buffers) + i, "i64", code.size(size))
    count = code.extent(blocks)
    serial = f"  call void @{name}(ptr %args, i64 0, i64 {count})"
    parallel = f"  call void %launch(ptr @{name}, ptr %args, i64 {count})"
    large = _is_large(kernel, blocks)
    if isinstance(large, bool):
        code.lines.append(parallel if large else serial)
        return
    conditions = [code.let("i1", f"icmp sge i64 {code.extent(have)}, {limit}") for have, limit in large]
    is_large = conditions[0]
    for other in conditions[1:]:
        is_large = code.let("i1", f"or i1 {is_large}, {other}")
    here = code.label()
    code.lines += [
        f"  br i1 {is_large}, label %share{here}, label %alone{here}",
        f"share{here}:", parallel, f"  br label %next{here}",
        f"alone{here}:", serial, f"  br label %next{here}",
        f"next{here}:",
    ]  # fmt: skip


def _is_large(kernel: Kernel, blocks: Extent) -> bool | list[tuple[Extent, int]]:
    """Whether the kernel is worth sharing, or the comparisons (any of them) that tell when the sizes are known."""
    if blocks == 1:
        return False
    moved = kernel.bytes
    if moved == 0:
        for buffer in kernel.buffers:
            moved = moved + _bytes(buffer)
    open_questions: list[tuple[Extent, int]] = []
    for have, limit in ((moved, SERIAL_BYTES), (kernel.operations, SERIAL_OPERATIONS)):
        if isinstance(have, int):
            if have >= limit:
                return True
        else:
            open_questions.append((have, limit))
    return open_questions or False


# --- the arena ------------------------------------------------------------------------------------------------------------------
def _bytes(buffer: Buffer) -> Extent:
    out: Extent = buffer.dtype.bytes
    for n in buffer.shape:
        out = out * n
    return out


def _places(program: Program) -> tuple[dict[Buffer, tuple[int, int]], list[tuple[Extent, list[Buffer]]]]:
    """Where temporaries lie: {buffer: (offset, bytes)} for those of fixed size, [(bytes, buffers)] for the others' places."""
    first: dict[Buffer, int] = {}
    last: dict[Buffer, int] = {}
    for time, kernel in enumerate(program.kernels):
        for buffer in kernel.buffers:
            first.setdefault(buffer, time)
            last[buffer] = time
    temporaries = [b for b in program.buffers if b.role == "temporary" and b in first]

    def meet(a: Buffer, b: Buffer) -> bool:
        return first[a] <= last[b] and first[b] <= last[a]

    fixed: dict[Buffer, tuple[int, int]] = {}
    known = [(_padded(_bytes(b)), b) for b in temporaries if isinstance(_bytes(b), int)]
    for need, buffer in sorted(known, key=lambda pair: -pair[0]):  # large ones first: the small ones fill the gaps
        taken = sorted(place for other, place in fixed.items() if meet(buffer, other))
        offset = 0
        for start, length in taken:
            if offset + need <= start:
                break
            offset = max(offset, start + length)
        fixed[buffer] = (offset, need)
    flexible: list[tuple[Extent, list[Buffer]]] = []
    for buffer in temporaries:
        size = _bytes(buffer)
        if isinstance(size, int):
            continue
        free = [i for i, (_, others) in enumerate(flexible) if not any(meet(buffer, o) for o in others)]
        place = next((i for i in free if flexible[i][0] == size), free[0] if free else None)
        if place is None:
            flexible.append((size, [buffer]))
        else:
            flexible[place] = (maximum(flexible[place][0], size), [*flexible[place][1], buffer])
    return fixed, flexible


def _padded(n: Extent) -> int:
    assert isinstance(n, int)
    return -(-max(n, 1) // ALIGNMENT) * ALIGNMENT + (APART if n >= PAGE else 0)


def _layout(
    code: _Code, fixed: Mapping[Buffer, tuple[int, int]], flexible: list[tuple[Extent, list[Buffer]]]
) -> tuple[dict[Buffer, str], str]:
    """The offset of every temporary, and the size of the arena, as LLVM operands."""
    offsets = {buffer: str(offset) for buffer, (offset, _) in fixed.items()}
    end = str(max((offset + length for offset, length in fixed.values()), default=0))
    for need, buffers in flexible:
        offsets.update(dict.fromkeys(buffers, end))
        padded = code.let("i64", f"add i64 {code.extent(need)}, {ALIGNMENT - 1 + APART}")
        whole = code.let("i64", f"and i64 {padded}, {-ALIGNMENT}")
        end = code.let("i64", f"add i64 {end}, {whole}")
    return offsets, end


# --- straight-line LLVM text ---------------------------------------------------------------------------------------------------
class _Code:
    """Instructions of one function, and the extents that it has already computed (branches come after all of them)."""

    def __init__(self, sizes: tuple[str, ...]) -> None:
        self.lines: list[str] = []
        self.position = {name: i for i, name in enumerate(sizes)}
        self.known_extents: dict[Extent | Atom, str] = {}
        self._count = 0

    def label(self) -> int:
        self._count += 1
        return self._count

    def let(self, kind: str, instruction: str) -> str:
        name = f"%{kind}.{self.label()}"
        self.lines.append(f"  {name} = {instruction}")
        return name

    def load(self, table: str, word: int, kind: str) -> str:
        where = self.let("at", f"getelementptr i64, ptr {table}, i64 {word}")
        return self.let(kind, f"load {kind}, ptr {where}, align 8")

    def store(self, table: str, word: int, kind: str, value: str) -> None:
        where = self.let("at", f"getelementptr i64, ptr {table}, i64 {word}")
        self.lines.append(f"  store {kind} {value}, ptr {where}, align 8")

    def size(self, name: str) -> str:
        return self._atom(("name", name))

    def extent(self, x: Extent) -> str:
        """The value of an expression in named sizes, computed."""
        if isinstance(x, int):
            return str(x)
        if x not in self.known_extents:
            total = ""
            for monomial, factor in x.terms.items():
                product = str(factor)
                for atom in monomial:
                    value = self._atom(atom)
                    product = value if product == "1" else self.let("i64", f"mul i64 {product}, {value}")
                total = self.let("i64", f"add i64 {total}, {product}") if total else product
            self.known_extents[x] = total
        return self.known_extents[x]

    def _atom(self, atom: Atom) -> str:
        if atom not in self.known_extents:
            kind = atom[0]
            if kind == "name":
                value = self.load("%sizes", self.position[atom[1]], "i64")
            elif kind in ("min", "max"):
                a, b = self.extent(atom[1]), self.extent(atom[2])
                less = self.let("i1", f"icmp s{'lt' if kind == 'min' else 'gt'} i64 {a}, {b}")
                value = self.let("i64", f"select i1 {less}, i64 {a}, i64 {b}")
            else:
                value = self._divide(kind, self.extent(atom[1]), self.extent(atom[2]))
            self.known_extents[atom] = value
        return self.known_extents[atom]

    def _divide(self, kind: str, a: str, b: str) -> str:
        """Floor division or remainder; a division by 0 counts as one by 1 and so never stops the machine."""
        zero = self.let("i1", f"icmp eq i64 {b}, 0")
        divisor = self.let("i64", f"select i1 {zero}, i64 1, i64 {b}")
        rest = self.let("i64", f"srem i64 {a}, {divisor}")
        signs = self.let("i64", f"xor i64 {rest}, {divisor}")
        differ = self.let("i1", f"icmp slt i64 {signs}, 0")
        inexact = self.let("i1", f"icmp ne i64 {rest}, 0")
        below = self.let("i1", f"and i1 {differ}, {inexact}")
        if kind == "%":
            moved = self.let("i64", f"add i64 {rest}, {divisor}")
            return self.let("i64", f"select i1 {below}, i64 {moved}, i64 {rest}")
        quotient = self.let("i64", f"sdiv i64 {a}, {divisor}")
        one = self.let("i64", f"zext i1 {below} to i64")
        return self.let("i64", f"sub i64 {quotient}, {one}")
