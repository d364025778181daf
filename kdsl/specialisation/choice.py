"""What a call is compiled as: its target, its named sizes that are numbers, and the key under which the program is kept.

In:  a call, the program it was traced to.  Out: a Choice. A kernel, its vjp and its pullback choose alike.
Read before: targets.py, numbers.py. Read next: kernel.py, gradients/vjp.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kdsl.frontend.signature import Call
from kdsl.frontend.trace import Traced
from kdsl.ir.tensor import Function
from kdsl.specialisation.numbers import Numbers, folded_names, numbered
from kdsl.specialisation.targets import target_for, target_of
from kdsl.target import Target


@dataclass(frozen=True, eq=False)
class Choice:
    """What decides the program of a call, besides what is derived from it."""

    traced: Traced
    target: Target
    numbers: Numbers
    key: tuple[Any, ...]

    @property
    def function(self) -> Function:
        """The program to compile."""
        return numbered(self.traced, self.numbers)

    @property
    def exact(self) -> bool:
        """Whether other values of the named sizes may have another program."""
        return bool(folded_names(self.traced)) and not self.numbers


def choose(name: str | None, call: Call, traced: Traced, numbers: Numbers, tensors: Sequence[Any]) -> Choice:
    """The choice for a call on the target that is named, or where `tensors` lie."""
    signature, named = call.signature, target_of(name, tensors)
    target = target_for(named, signature, call.tensors)
    return Choice(traced, target, numbers, (signature.key, signature.strides, call.wrap, named, target.classes, numbers))
