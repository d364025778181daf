"""All that one kernel has been compiled for, and a warning when that is very much.

In:  a key and what was made for it.  Out: the same, kept; a SpecialisationWarning that names what keeps changing.
Read before: program.py, numbers.py. Read next: kernel.py.
"""

from __future__ import annotations

import threading
import warnings
from typing import Any

from kdsl.errors import SpecialisationWarning
from kdsl.frontend.signature import Signature
from kdsl.ir.location import user_stacklevel
from kdsl.specialisation.numbers import MOST_NUMBER, Numbers

MANY = 16


class Specialisations:
    """All that one kernel has been compiled for."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.known: dict[Any, Any] = {}
        self.signatures: list[Signature] = []
        self.numbers: set[Numbers] = set()
        self.warned = False
        self.lock = threading.RLock()

    def put(self, key: Any, made: Any, signature: Signature) -> Any:
        """Keep what was made for this key; say so once when there are very many."""
        self.known[key] = made
        self.signatures.append(signature)
        if len(self.signatures) > MANY:
            self._warn(f"{len(self.signatures)} kinds of arguments", _what_changes(self.signatures))
        return made

    def note(self, numbers: Numbers) -> Numbers:
        """Say so too when named sizes have had very many values that programs are made for."""
        if numbers and numbers not in self.numbers:
            self.numbers.add(numbers)
            if len(self.numbers) > MANY:
                names = [dict(n) for n in self.numbers]
                name = max(sorted({k for n in names for k in n}), key=lambda k: len({n.get(k) for n in names}))
                way_out = f"a scan's step folds it, and has a program for each {name} up to {MOST_NUMBER}; pad it to a few sizes"
                self._warn(f"{len(self.numbers)} values of its sizes", f"the named size {name} keeps changing; {way_out}")
        return numbers

    def _warn(self, what: str, why: str) -> None:
        if not self.warned:
            self.warned = True
            text = f"{self.label} has been compiled for {what}: {why}"
            warnings.warn(text, SpecialisationWarning, stacklevel=user_stacklevel())


def _what_changes(signatures: list[Signature]) -> str:
    """The argument or axis that differs most from call to call, and what to do about it."""
    seen: dict[tuple[str, str], set[Any]] = {}
    for s in signatures:
        for name, tree in (*zip(s.names, s.args), *s.kwargs.items()):
            seen.setdefault(
                (f"the static value of {name}", "annotate it with a 0-d type (kd.f32) to trace it"), set()
            ).add(tree)
        for leaf in s.leaves:
            seen.setdefault((f"the dtype of {leaf.path}", "annotate it with one dtype"), set()).add(
                leaf.type.dtype
            )
            seen.setdefault(
                (f"the number of axes of {leaf.path}", "give it always the same number"), set()
            ).add(leaf.type.ndim)
            for axis, n in enumerate(leaf.type.shape):
                way_out = 'give the axis a name in the annotation (kd.f32["N"]) to compile once for all sizes'
                seen.setdefault((f"axis {axis} of {leaf.path}", way_out), set()).add(n)
    (what, way_out) = max(seen, key=lambda k: len(seen[k]))
    return f"{what} keeps changing; {way_out}"
