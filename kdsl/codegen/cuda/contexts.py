"""numba-cuda with as much of Python as generated sources say, and without a driver.

In:  the compute capability to compile for.  Out: a context in which `cuda.compile` does so.
numba-cuda's own contexts load NumPy's functions, libdevice, fp8 and more before the first kernel, and take longer for it
than for the kernel.
Read before: compile.py. Read next: seam.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Union

from numba.cuda import dispatcher
from numba.cuda.core.compiler_lock import global_compiler_lock
from numba.cuda.cudadecl import registry as typing_registry
from numba.cuda.cudaimpl import registry as lowering_registry
from numba.cuda.descriptor import cuda_target
from numba.cuda.target import CUDATargetContext, CUDATypingContext

_contexts: Any = None


class _Typing(CUDATypingContext):  # type: ignore[misc]
    """Types of what generated sources say: macros, and Python's numbers, tuples and loops."""

    def _load_builtins(self) -> None:
        from numba.cuda.typing import builtins, templates

        self.install_registry(builtins.registry)
        self.install_registry(templates.builtin_registry)

    def load_additional_registries(self) -> None:
        self.install_registry(typing_registry)


class _Lowering(CUDATargetContext):  # type: ignore[misc]
    """The code of the same."""

    def load_additional_registries(self) -> None:
        from numba.cuda.core import optional
        from numba.cuda.cpython import builtins, iterators, numbers, rangeobj, tupleobj

        for module in (optional, builtins, iterators, numbers, rangeobj, tupleobj):
            self.install_registry(module.registry)
        self.install_registry(lowering_registry)


@contextmanager
def own_contexts(capability: tuple[Union[int, str], ...]) -> Iterator[None]:
    """numba-cuda as kernels are compiled by it: without NumPy's functions, which take longer to load than a kernel takes to
    compile, and without a driver. Afterwards it is as it was, for whoever compiles kernels of their own."""
    global _contexts
    with global_compiler_lock:
        theirs = cuda_target._typingctx, cuda_target._targetctx, dispatcher.get_current_device
        if _contexts is None:
            typing = _Typing()
            _contexts = typing, _Lowering(typing)
        cuda_target._typingctx, cuda_target._targetctx = _contexts
        dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)
        try:
            yield
        finally:
            cuda_target._typingctx, cuda_target._targetctx, dispatcher.get_current_device = theirs
