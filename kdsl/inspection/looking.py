"""What there is to look at in a kernel, a vjp or a pullback: stages, sources, assembly, explanations.

In:  types, arrays or static values, as in a call.  Out: texts, and Explanation (inspection/explain.py).
Nothing runs. The types may be left out where annotations fix all sizes.
Read before: pipeline.py. Read next: inspection/explain.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class Looking:
    """Mixed into everything that can be compiled. `looked_at` compiles for the given types and hands back the programs."""

    label: str

    def looked_at(self, types: Sequence[Any], statics: Mapping[str, Any], target: str | None) -> list[Any]:
        raise NotImplementedError
