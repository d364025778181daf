"""Named sizes for whose values there is a program of its own.

In:  the arguments of a call, the program it was traced to.  Out: Numbers, and the program with them in place of names.
A few elements that a scan's step folds lie in registers where their number is known, so the name of such an axis is compiled as
a number (transforms/numbers.py).
Read before: program.py, targets.py. Read next: programs.py.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from kdsl.frontend.signature import Signature
from kdsl.frontend.trace import Traced
from kdsl.ir.ops import Op
from kdsl.ir.tensor import Function
from kdsl.specialisation.program import sizes_of
from kdsl.specialisation.targets import compiler

MOST_NUMBER = 64  # elements of a named axis that a scan's step folds: so many lie in registers
Numbers = tuple[tuple[str, int], ...]  # named sizes of a call for whose values there is a program of its own


def numbers_of(traced: Traced, signature: Signature, tensors: Sequence[Any]) -> Numbers:
    """The named sizes that this call's program takes as numbers: the few elements that a scan's step folds."""
    names = folded_names(traced) if signature.sizes else ()
    if not names:
        return ()
    found = sizes_of([s for s in signature.sizes if s.name in names and not s.of_stride], tensors)
    return tuple((n, v) for n, v in sorted(found.items()) if isinstance(v, int) and 0 < v <= MOST_NUMBER)


def folded_names(traced: Traced) -> frozenset[str]:
    """The names whose values may be taken as numbers, found once."""
    found = _names.get(traced)
    if found is None:
        scans = any(e.op is Op.SCAN for e in traced.function.equations)
        found = _names[traced] = compiler().folded_names(traced.function) if scans else frozenset()
    return found


_names: weakref.WeakKeyDictionary[Traced, frozenset[str]] = weakref.WeakKeyDictionary()


def numbered(traced: Traced, numbers: Numbers) -> Function:
    """The traced program with numbers in place of these names."""
    return compiler().with_numbers(traced.function, dict(numbers)) if numbers else traced.function
