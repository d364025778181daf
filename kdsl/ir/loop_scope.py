"""What is known at a place of a kernel, and whether an expression that stands there is right.

In:  a kernel; names and loops as they come.  Out: Scope: LoopError for a name, a view or a tile that breaks an invariant.
Read before: ir/loops.py, ir/ranges.py, ir/loop_types.py. Read next: ir/loop_verify.py.
"""

from __future__ import annotations

from kdsl.dtypes import DType
from kdsl.ir import loops as ir
from kdsl.ir.interpreter_memory import LoopError
from kdsl.ir.loop_types import check_types
from kdsl.ir.ranges import Ranges
from kdsl.ir.sizes import Extent, names_in

Type = tuple[ir.TileShape, DType]


class Scope:
    """The names, ranges and memory of one kernel as a walk over it finds them."""

    def __init__(self, kernel: ir.Kernel, written: set[ir.Buffer], facts: tuple[Extent, ...] = ()) -> None:
        self.kernel, self.written = kernel, written
        self.sizes = frozenset(kernel.sizes)
        self.ranges = Ranges(self.sizes, facts)
        self.types: dict[str, Type] = {}  # Lets and carries in scope
        self.taken: set[str] = set()  # every name ever defined
        self.near: dict[ir.Near, bool] = {}  # near memory in scope, and whether it has been written
        self.parallel: list[str] = []
        self.depends: dict[str, set[str]] = {}  # the Parallel indices on which a name depends
        self.unreachable = False

    def require(self, holds: bool, message: str) -> None:
        if not holds:
            raise LoopError(f"{self.kernel.name}: {message}")

    # --- names -----------------------------------------------------------------------------------------------------------
    def define(self, name: str) -> None:
        self.require(name not in self.taken, f"{name} is defined twice")
        self.require(name.replace(".", "_").isidentifier(), f"{name!r} is no name")
        self.require(name not in self.sizes, f"{name} is a size and defined again")
        self.taken.add(name)

    def define_index(self, name: str) -> None:
        """A loop index; loops that stand side by side may share one."""
        self.require(name not in self.ranges.bounds and name not in self.types, f"{name} is defined twice")
        self.define(name)
        self.taken.discard(name)

    def index(self, *extents: Extent) -> None:
        """Every name of an index expression is a size, a loop index around it or an integer Let above it."""
        for extent in extents:
            for name in names_in(extent):
                loop = name in self.ranges.bounds or name in self.sizes
                shape, dtype = self.types.get(name, ((1,), None))
                self.require(
                    loop or (shape == () and dtype is not None and dtype.is_integer),
                    f"the index {extent} has {name}, which is none here",
                )

    def dependence(self, extent: Extent) -> set[str]:
        return set().union(*(self.depends.get(n, set()) for n in names_in(extent)))

    # --- memory ----------------------------------------------------------------------------------------------------------
    def view(self, view: ir.View, shape: ir.TileShape, prove: bool = True) -> set[int]:
        """Check a view of a tile of this shape; the tile axes that its index mentions."""
        memory = view.memory
        if isinstance(memory, ir.Near):
            self.require(memory in self.near, f"near memory {memory.name} is used outside its block")
        else:
            buffer = ir.root(memory)
            self.require(buffer in self.kernel.buffers, f"{memory.name} is not among the kernel's buffers")
        self.require(
            len(view.index) == len(memory.shape),
            f"a view of {memory.name} has {len(view.index)} indices for {len(memory.shape)} axes",
        )
        self.require(
            len(view.checks) == len(view.index), f"a view of {memory.name} has {len(view.checks)} checks"
        )
        self.require(
            all(isinstance(n, int) and n > 0 for n in shape), f"a tile of {memory.name} has the shape {shape}"
        )
        axes = {int(n[1:]) for e in view.index for n in names_in(e) if n.startswith("#")}
        self.require(
            all(a < len(shape) for a in axes),
            f"a view of {memory.name} counts along axis {max(axes, default=0)} of {shape}",
        )
        for a in axes:
            self.ranges.add(f"#{a}", 0, shape[a] - 1)
        self.index(*view.index)
        for number, (e, n, check) in enumerate(zip(view.index, memory.shape, view.checks, strict=True)):
            if prove and not check and not self.unreachable and not self.ranges.inside(e, n):
                known = ", ".join(f"{x} {self.bounds_text(x)}" for x in sorted(_all_names(e, self.ranges)))
                raise LoopError(
                    f"{self.kernel.name}: index {e} of {memory.name}'s axis {number} of {n} "
                    f"is unchecked and not proved inside ({known})"
                )
        for a in axes:
            del self.ranges.bounds[f"#{a}"]
        return axes

    def bounds_text(self, name: str) -> str:
        bounds = self.ranges.bounds.get(name)
        return f"in {bounds[0]} … {bounds[1]}" if bounds else "a size" if name in self.sizes else "unknown"

    def reads(self, view: ir.View, shape: ir.TileShape) -> None:
        self.view(view, shape)
        self.known(view.memory)

    def known(self, memory: ir.Memory) -> None:
        if isinstance(memory, ir.Near):
            self.require(
                self.near.get(memory, False),
                f"near memory {memory.name} is read before anything is put there",
            )
        else:
            buffer = ir.root(memory)
            self.require(buffer in self.written, f"{memory.name} is read before anything is stored there")

    def writes(self, view: ir.View, shape: ir.TileShape) -> None:
        axes = self.view(view, shape)
        lost = [i for i, n in enumerate(shape) if n > 1 and i not in axes]
        self.require(not lost, f"axes {lost} of a tile of {shape} have no place in {view.memory.name}")
        if isinstance(view.memory, ir.Near):
            self.near[view.memory] = True
            return
        buffer = ir.root(view.memory)
        self.require(buffer.role in ("result", "temporary"), f"the {buffer.role} {buffer.name} is stored to")
        self.written.add(buffer)

    # --- tiles -----------------------------------------------------------------------------------------------------------
    def tiles(self, *tiles: ir.Tile) -> None:
        for tile in ir.nodes(*tiles):
            wrong = check_types(tile)
            self.require(wrong is None, str(wrong))
            if isinstance(tile, ir.Name):
                own = self.types.get(tile.name)
                self.require(own is not None, f"{tile.name} is used where it is not defined")
                self.require(
                    own == (tuple(tile.shape), tile.dtype), f"{tile.name} is {own}, used as {type_of(tile)}"
                )
            elif isinstance(tile, ir.Load):
                self.reads(tile.view, tile.shape)
            elif isinstance(tile, ir.Gather):
                self.known(tile.memory)
            elif isinstance(tile, ir.Scalar):
                self.index(tile.value)


def _all_names(extent: Extent, ranges: Ranges) -> set[str]:
    out = set(names_in(extent))
    for name in list(out):
        for bound in ranges.bounds.get(name, ()):
            out |= names_in(bound)
    return out


def type_of(tile: ir.Tile) -> str:
    """Its type as text."""
    return f"{tile.dtype.name}{list(tile.shape)}"
