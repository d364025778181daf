"""The record of a compilation: every stage's output by name, verified before the next stage sees it.

In:  the stages as functions.  Out: Record: what `stages()`, the goldens, the tour and crash reports read. A mistake in a stage is
an InternalError that saves the stages before it.
Read before: docs/decisions/stages.md. Read next: pipeline.py.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

from kdsl.errors import InternalError, KdslError
from kdsl.ir.frame import Grouping
from kdsl.ir.frame_printer import show_frames, show_grouping
from kdsl.ir.loop_printer import show_loops
from kdsl.ir.loop_verify import verify_loops
from kdsl.ir.loops import Program
from kdsl.ir.printer import show
from kdsl.ir.sizes import Extent
from kdsl.ir.tensor import Function
from kdsl.ir.verify import verify
from kdsl.runtime import cache
from kdsl.target import Target

Strides = Sequence[Any]  # for each parameter None (C-contiguous) or its strides in elements
COMPILING = threading.RLock()  # one thread compiles at a time


class Record(dict[str, Any]):
    """Every stage's output by name, in order, each checked before it is handed on; made when it is first asked for.

    `stages` runs the first ones, up to the tensor program for the machine; `rest` those from there to its machine code. `facts`
    hold at every call (ir/tensor.py)."""

    def __init__(
        self,
        name: str,
        facts: Sequence[Extent],
        stages: Callable[[Record], Function],
        strides: Strides = (),
        target: Target | None = None,
        rest: Callable[[Record], str] | None = None,
    ) -> None:
        super().__init__()
        self.name, self.facts, self.stages = name, tuple(facts), stages
        self.strides, self.target, self.rest = tuple(strides), target, rest
        self._program: Function | None = None

    @property
    def program(self) -> Function:
        """The tensor program for the machine."""
        if self._program is None:
            with self:
                self._program = self.stages(self)
        return self._program

    def complete(self) -> None:
        """Run the stages that have not run."""
        with COMPILING, self:
            if "source" not in self and self.rest:
                self.rest(self)

    def __missing__(self, stage: str) -> Any:
        if "source" in self or self.rest is None:
            raise KeyError(stage)
        self.complete()
        return self[stage]

    def __call__(self, stage: str, program: Any) -> Any:
        self[stage] = program
        if isinstance(program, Function):
            verify(program)
        elif isinstance(program, Program):
            verify_loops(program)
        return program

    def texts(self) -> dict[str, str]:
        """The stages so far as texts."""
        out = {}
        for stage, program in self.items():
            out[stage] = _text(program)
            if isinstance(program, Grouping):
                out["lowered"] = show_frames(program)
        return out

    def __enter__(self) -> Record:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        """Anything but a user's mistake is a mistake in kdsl: save the stages so far and say where they are."""
        if isinstance(error, Exception) and not isinstance(error, (KdslError, MemoryError, RecursionError)):
            last = next(reversed(self), "none")
            raise InternalError(
                f"kdsl failed after the stage {last!r} of {self.name}: {type(error).__name__}: {error}",
                facts=(
                    "this is a mistake in kdsl, not in your kernel",
                    self._save(error),
                ),
            ) from error

    def _save(self, error: Exception) -> str:
        texts = {**self.texts(), "error": f"{type(error).__name__}: {error}"}
        folder = (
            cache.folder() / "failures" / hashlib.sha256("".join(texts.values()).encode()).hexdigest()[:12]
        )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for i, (stage, text) in enumerate(texts.items()):
                (folder / f"{i}-{stage}.txt").write_text(text, encoding="utf-8")
        except OSError as refused:
            return f"the stages it got to could not be saved in {folder}: {refused.strerror}"
        return f"the stages it got to are in {folder}"


def _text(program: Any) -> str:
    if isinstance(program, Function):
        return show(program)
    if isinstance(program, Program):
        return show_loops(program)
    if isinstance(program, Grouping):
        return show_grouping(program)
    return str(program)
