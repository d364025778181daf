"""Runs a loop IR program tile by tile in NumPy, for any target, and checks what its verifier cannot.

In:  a Program, its argument arrays, values of named sizes that no argument's shape tells.  Out: the result arrays.
Checked as it runs: every unchecked index is inside, every element read was written, no two iterations of a Parallel meet
in one element, every element of a result is written. A mistake is a LoopError that names the memory and the place.
f16 and bf16 exist in memory only: tiles of them are f32. Sums are added in NumPy's order, not the target's.
Read before: ir/loops.py, ir/interpreter_memory.py. Read next: ir/loop_printer.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

import kdsl.dtypes as dt
from kdsl.dtypes import DType
from kdsl.ir import loops as ir
from kdsl.ir.interpreter_maps import map_values
from kdsl.ir.interpreter_memory import LoopError, Storage
from kdsl.ir.sizes import Extent, Size, row_major

Values = dict[str, Any]  # names of sizes, loop indices, Lets and carries


def interpret(
    program: ir.Program, *arrays: Any, sizes: Mapping[str, int] | None = None
) -> tuple[np.ndarray, ...]:
    """The results of `program` on these arguments, as new arrays in the order of their numbers."""
    arguments = sorted((b for b in program.buffers if b.role == "argument"), key=lambda b: b.number)
    if len(arrays) != len(arguments):
        raise LoopError(f"{program.name} takes {len(arguments)} arguments, not {len(arrays)}")
    known: Values = dict(sizes or {})
    for buffer, array in zip(arguments, map(np.asarray, arrays), strict=True):
        _bind(known, buffer, array)
    memory: dict[ir.Buffer, Storage] = {}
    for buffer in program.buffers:
        shape, strides = _numbers(buffer.shape, known), _numbers(buffer.strides, known)
        given = {"argument": arrays, "constant": program.constants}.get(buffer.role)
        memory[buffer] = storage = Storage(buffer.name, buffer.dtype, shape, strides, given is not None)
        if given is not None and 0 not in shape:
            storage.array(shape, strides)[...] = np.asarray(given[buffer.number])
    with np.errstate(all="ignore"):
        for kernel in program.kernels:
            _Run(kernel, memory, known).run()
    results = sorted((b for b in program.buffers if b.role == "result"), key=lambda b: b.number)
    for buffer in results:
        if not memory[buffer].written.all():
            raise LoopError(
                f"{buffer.name}: {np.count_nonzero(~memory[buffer].written)} elements of the result are never written"
            )
    return tuple(
        memory[b].array(_numbers(b.shape, known), _numbers(b.strides, known)).copy() for b in results
    )


def _bind(known: Values, buffer: ir.Buffer, array: np.ndarray) -> None:
    """Take the values of named sizes and named strides from an argument, and check what is fixed."""
    if array.dtype != buffer.dtype.numpy or array.ndim != len(buffer.shape):
        raise LoopError(
            f"{buffer.name} is {buffer.dtype.name} with {len(buffer.shape)} axes, not {array.dtype} with {array.ndim}"
        )
    strides = tuple(s // array.itemsize for s in array.strides)
    for extent, n in (
        *zip(buffer.shape, array.shape, strict=True),
        *zip(buffer.strides, strides, strict=True),
    ):
        if (
            isinstance(extent, Size)
            and len(extent.terms) == 1
            and str(extent).replace(".", "").isidentifier()
        ):
            known.setdefault(str(extent), n)
    if _numbers(buffer.shape, known) != array.shape:
        raise LoopError(f"{buffer.name} has shape {buffer.shape}, not {array.shape}")


def _numbers(extents: tuple[Extent, ...], known: Values) -> tuple[int, ...]:
    return tuple(expression(e)(known) for e in extents)


@lru_cache(maxsize=4096)
def expression(extent: Extent) -> Callable[[Values], Any]:
    """An index expression as a Python function of the values of its names (integers or integer arrays)."""
    if isinstance(extent, int):
        return lambda names: extent

    def text(e: Extent) -> str:
        if isinstance(e, int):
            return f"({e})"
        return "(" + " + ".join("*".join([str(f), *map(atom, m)]) for m, f in e.terms.items()) + ")"

    def atom(a: tuple) -> str:
        if a[0] == "name":
            return f"names[{a[1]!r}]"
        if a[0] in ("min", "max"):
            return f"{a[0]}imum({text(a[1])}, {text(a[2])})"
        return f"({text(a[1])} {a[0]} {text(a[2])})"

    return eval(f"lambda names: {text(extent)}", {"minimum": np.minimum, "maximum": np.maximum})


class _Run:
    """One kernel."""

    def __init__(self, kernel: ir.Kernel, memory: dict[ir.Buffer, Storage], sizes: Values) -> None:
        self.kernel, self.memory, self.iteration = kernel, memory, 0
        self.values: Values = dict(sizes)
        self.near: dict[str, tuple[ir.Near, Storage]] = {}
        self.counter = itertools.count()

    def run(self) -> None:
        written = {ir.root(s.view.memory) for s in ir.walk(self.kernel.body) if isinstance(s, ir.Store)}
        for buffer in self.kernel.buffers:
            self.memory[buffer].watch(buffer in written)
        self.body(self.kernel.body)

    def body(self, statements: tuple[ir.Statement, ...]) -> None:
        for statement in statements:
            getattr(self, "do_" + type(statement).__name__)(statement)

    # --- statements ---------------------------------------------------------------------------------------------------
    def do_Parallel(self, loop: ir.Parallel) -> None:
        for i in range(int(self.at(loop.lo)), int(self.at(loop.hi)), loop.tile):
            self.values[loop.index], self.iteration, self.near = i, next(self.counter), {}
            self.body(loop.body)

    def do_Stream(self, loop: ir.Stream) -> None:
        steps = range(int(self.at(loop.lo)), int(self.at(loop.hi)), loop.tile)
        carried = [self.tile(c.init) for c in loop.carries]
        for i in reversed(steps) if loop.order == "backward" else steps:
            self.values[loop.index] = i
            self.values.update(zip((c.name for c in loop.carries), carried, strict=True))
            self.body(loop.body)
            carried = [self.tile(c.next) for c in loop.carries]
        self.values.update(zip((c.name for c in loop.carries), carried, strict=True))

    def do_If(self, statement: ir.If) -> None:
        if bool(self.tile(statement.condition).reshape(())):
            self.body(statement.body)

    def do_Let(self, statement: ir.Let) -> None:
        self.values[statement.name] = self.tile(statement.tile)

    def do_Near(self, near: ir.Near) -> None:
        shape = _numbers(near.shape, self.values)
        self.near[near.name] = near, Storage(near.name, near.dtype, shape, row_major(shape), False)

    def do_Copy(self, copy: ir.Copy) -> None:
        self.write(ir.View(copy.near, copy.index), self.load(copy.view, copy.shape))

    def do_Put(self, put: ir.Put) -> None:
        self.write(put.view, self.tile(put.tile))

    def do_Store(self, store: ir.Store) -> None:
        self.write(store.view, self.tile(store.tile))

    def do_Prefetch(self, statement: ir.Prefetch) -> None:
        pass

    # --- memory -------------------------------------------------------------------------------------------------------
    def at(self, extent: Extent) -> Any:
        return extent if isinstance(extent, int) else expression(extent)(self.values)

    def storage(self, memory: ir.Memory) -> tuple[Storage, tuple[int, ...], tuple[int, ...]]:
        """Where it lies, its shape and its strides in elements."""
        if isinstance(memory, ir.Near):
            if memory.name not in self.near:
                raise LoopError(f"near memory {memory.name} is used outside its block")
            shape = _numbers(memory.shape, self.values)
            return self.near[memory.name][1], shape, row_major(shape)
        return (
            self.memory[ir.root(memory)],
            _numbers(memory.shape, self.values),
            _numbers(memory.strides, self.values),
        )

    def places(self, view: ir.View, shape: ir.TileShape) -> tuple[Storage, Any, Any]:
        """(storage, flat position of each element of the tile, which elements are inside)."""
        for i, n in enumerate(shape):
            self.values[f"#{i}"] = np.arange(n).reshape([n if j == i else 1 for j in range(len(shape))])
        return self.flat(view.memory, [self.at(e) for e in view.index], view.checks)

    def flat(self, memory: ir.Memory, index: list[Any], checks: tuple[bool, ...]) -> tuple[Storage, Any, Any]:
        storage, extents, strides = self.storage(memory)
        if len(index) != len(extents):
            raise LoopError(f"{storage.name} has {len(extents)} axes, the view has {len(index)}")
        position: Any = 0
        inside: Any = True
        for number, (i, n, stride, check) in enumerate(zip(index, extents, strides, checks, strict=True)):
            good = (np.asarray(i) >= 0) & (np.asarray(i) < n)
            if check:
                inside = inside & good
            elif not good.all():
                raise LoopError(
                    f"{self.kernel.name}: index {_span(i)} of {storage.name} leaves its axis {number} of {n}, unchecked"
                )
            position = position + i * stride
        return storage, position, inside

    def read(self, storage: Storage, at: Any, inside: Any, shape: ir.TileShape, fill: Any) -> np.ndarray:
        at, inside = np.broadcast_to(at, shape), np.broadcast_to(inside, shape)
        dtype = storage.dtype.compute.numpy
        if inside.all():
            return storage.read(at, self.iteration).astype(dtype)
        out = np.full(shape, fill, dtype)
        out[inside] = storage.read(at[inside], self.iteration).astype(dtype)
        return out

    def load(self, view: ir.View, shape: ir.TileShape) -> np.ndarray:
        storage, at, inside = self.places(view, shape)
        return self.read(storage, at, inside, shape, view.fill)

    def write(self, view: ir.View, values: np.ndarray) -> None:
        storage, at, inside = self.places(view, values.shape)
        at, inside = np.broadcast_to(at, values.shape), np.broadcast_to(inside, values.shape)
        storage.write(at[inside], round_to(values[inside], storage.dtype), self.iteration)

    # --- tiles --------------------------------------------------------------------------------------------------------
    def tile(self, tile: ir.Tile) -> np.ndarray:
        out = getattr(self, "tile_" + type(tile).__name__)(tile)
        if out.shape != tuple(tile.shape) or out.dtype != tile.dtype.numpy:
            raise LoopError(
                f"{type(tile).__name__} gives {out.dtype}{list(out.shape)}, its type says {tile.dtype.name}{list(tile.shape)}"
            )
        return out

    def tile_Load(self, tile: ir.Load) -> np.ndarray:
        return self.load(tile.view, tile.shape)

    def tile_Constant(self, tile: ir.Constant) -> np.ndarray:
        return np.full(tile.shape, tile.value, tile.dtype.numpy)

    def tile_Scalar(self, tile: ir.Scalar) -> np.ndarray:
        return np.asarray(self.at(tile.value)).astype(tile.dtype.numpy)

    def tile_Index(self, tile: ir.Index) -> np.ndarray:
        n = tile.shape[tile.axis]
        return np.arange(n, dtype=tile.dtype.numpy).reshape(
            [n if i == tile.axis else 1 for i in range(len(tile.shape))]
        )

    def tile_Name(self, tile: ir.Name) -> np.ndarray:
        if tile.name not in self.values:
            raise LoopError(f"{tile.name} is used before it is defined")
        return np.asarray(self.values[tile.name])

    def tile_Map(self, tile: ir.Map) -> np.ndarray:
        return map_values(tile.op, [self.tile(o) for o in tile.operands], tile.dtype)

    def tile_Fold(self, tile: ir.Fold) -> np.ndarray:
        values, k = self.tile(tile.tile), tile.axis
        parted = values.reshape(*values.shape[:k], tile.parts, -1, *values.shape[k + 1 :])
        return _FOLDS[tile.monoid].reduce(parted, axis=k + 1, dtype=tile.dtype.numpy)

    def tile_Prefix(self, tile: ir.Prefix) -> np.ndarray:
        return _FOLDS[tile.monoid].accumulate(self.tile(tile.tile), axis=tile.axis, dtype=tile.dtype.numpy)

    def tile_Dot(self, tile: ir.Dot) -> np.ndarray:
        return self.tile(tile.accumulator) + self.tile(tile.a) @ self.tile(tile.b)

    def tile_Permute(self, tile: ir.Permute) -> np.ndarray:
        return self.tile(tile.tile).transpose(tile.axes)

    def tile_Slice(self, tile: ir.Slice) -> np.ndarray:
        return self.tile(tile.tile)[
            tuple(slice(s, s + n) for s, n in zip(tile.start, tile.shape, strict=True))
        ]

    def tile_Broadcast(self, tile: ir.Broadcast) -> np.ndarray:
        return np.broadcast_to(self.tile(tile.tile), tile.shape)

    def tile_Gather(self, tile: ir.Gather) -> np.ndarray:
        index = [self.tile(i).astype(np.int64) for i in tile.indices]
        mask = True if tile.mask is None else self.tile(tile.mask)
        if tile.mask is not None:
            index = [np.where(mask, i, 0) for i in index]
        empty = tile.mask is not None and not np.any(mask)
        if empty:
            return np.full(tile.shape, tile.fill, tile.dtype.numpy)
        storage, at, _ = self.flat(tile.memory, index, (False,) * len(index))
        return self.read(storage, at, mask, tile.shape, tile.fill)

    def tile_Convert(self, tile: ir.Convert) -> np.ndarray:
        return self.tile(tile.tile)


_FOLDS: dict[str, np.ufunc] = {
    "sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum, "any": np.logical_or, "all": np.logical_and,
}  # fmt: skip


def round_to(values: np.ndarray, dtype: DType) -> np.ndarray:
    """Values of a computing type as they lie in memory."""
    if dtype is dt.f16 or dtype is dt.bf16 or values.dtype == dtype.numpy:
        return values.astype(dtype.numpy)
    raise LoopError(f"{values.dtype} values go to memory of {dtype.name}: a cast is missing")


def _span(i: Any) -> str:
    i = np.asarray(i)
    return str(i) if i.ndim == 0 else f"{i.min()} … {i.max()}"
