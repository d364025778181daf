"""One compiled program behind a kernel: made for certain types, run on any arguments that have them.

In:  a tensor Function with what each call must bind and check.  Out: Specialisation.run(tensors) -> results in their structure.
Read before: frontend/signature.py, pipeline.py. Read next: targets.py, programs.py, short_way.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsl.errors import InternalError, ResultError
from kdsl.frontend.signature import SizeSource
from kdsl.frontend.trace import Traced
from kdsl.frontend.trees import Tree, flatten, unflatten
from kdsl.interop.arguments import as_view, is_array, on_device
from kdsl.ir.sizes import evaluate
from kdsl.runtime.cuda_arrays import DeviceTensor

if TYPE_CHECKING:
    from kdsl.pipeline import Compiled


@dataclass(eq=False)
class Specialisation:
    """A compiled program with the structure of its results and what must hold at each call."""

    compiled: Compiled | None
    traced: Traced
    tree: Tree
    sizes: tuple[SizeSource, ...]
    wrap: Callable[[np.ndarray], Any] | None = (
        None  # makes the callers' kind of array of a result; None: NumPy's own
    )
    exact: bool = False  # other values of the named sizes may have another program

    @property
    def program(self) -> Compiled:
        """The compiled program, where there is one."""
        assert self.compiled is not None
        return self.compiled

    def bind(self, tensors: Sequence[Any]) -> dict[str, int]:
        """The named sizes of a call, checked."""
        sizes = sizes_of(self.sizes, tensors)
        for name, most, each in self.program.target.classes if self.compiled else ():
            n = sizes[name]
            if n % each or n > (most or n):
                raise InternalError(f"{name} = {n} is given to a program for multiples of {each} up to {most}")
        for check in self.traced.checks:
            left, right = evaluate(check.left, sizes), evaluate(check.right, sizes)
            if not (left == right if check.relation == "==" else left >= right):
                raise check.mistake
        return sizes

    def run(
        self, tensors: Sequence[Any], out: Sequence[Any] | None = None, sizes: Mapping[str, int] | None = None
    ) -> list[Any]:
        """The results as a flat list; `sizes` where `bind` has been called already."""
        return self.program.run(tensors, out, self.bind(tensors) if sizes is None else sizes)

    def call(self, tensors: Sequence[Any], out: Any = None, sizes: Mapping[str, int] | None = None) -> Any:
        """The results in the structure that the kernel returns; `out` has that structure too."""
        if out is None:
            return self.structured(self.run(tensors, None, sizes))
        self.run(tensors, self._places(out), sizes)
        return out

    def structured(self, flat: Sequence[Any]) -> Any:
        """Flat results in the structure that the kernel returns, as arrays of the caller's kind."""
        if flat and isinstance(flat[0], DeviceTensor):
            return unflatten(self.tree, map(on_device, flat))
        return unflatten(self.tree, iter(flat if self.wrap is None else map(self.wrap, flat)))

    def _places(self, out: Any) -> list[Any]:
        leaves: list[tuple[str, Any]] = []
        tree = flatten(out, is_array, "out", leaves)
        if _shape_of_tree(tree) != _shape_of_tree(self.tree):
            raise ResultError(f"out= has the structure {tree}, but the results have {self.tree}")
        return [as_view(x) for _, x in leaves]


def sizes_of(sources: Sequence[SizeSource], tensors: Sequence[Any]) -> dict[str, int]:
    """The named sizes that the tensors of a call tell."""
    out = {}
    for s in sources:
        x = tensors[s.leaf]
        out[s.name] = x.strides[s.axis] // x.itemsize if s.of_stride else x.shape[s.axis]
    return out


def _shape_of_tree(tree: Tree) -> Any:
    """A structure in which tuples and lists are one."""
    kind = "sequence" if isinstance(tree.kind, type) and issubclass(tree.kind, (tuple, list)) else tree.kind
    return kind, tree.keys, tree.value, tuple(map(_shape_of_tree, tree.children))
