"""language/: what a user may write. One definition with a docstring for each function; kdsl/__init__.py lists them.

In:  tensors, weak Python numbers, sizes.  Out: equations of the tensor IR, appended to the program that is being traced.

    dispatch.py        where a call goes: into the trace, or on arrays to a kernel of its own
    sizes.py           what x.shape holds: integers and named sizes
    tracer.py          the tensor inside a kernel: operators, methods, Python's and NumPy's protocols
    operands.py        weak numbers, common dtypes, common shapes, axes
    logic.py  arithmetic.py  exponential.py  reductions.py  searching.py
    manipulation.py  pieces.py  creation.py  linalg.py  indexing.py  random.py  scans.py
    types.py           questions about dtypes
    numpy_names.py     np.exp(x) means kd.exp(x)

Read before: ir/. Read next: frontend/.
"""

from __future__ import annotations

from kdsl.language import (  # each registers its functions
    arithmetic,
    creation,
    exponential,
    indexing,
    linalg,
    logic,
    manipulation,
    pieces,
    random,
    reductions,
    scans,
    searching,
    sorting,
)  # fmt: skip
from kdsl.language.dispatch import FUNCTIONS, Check, Trace, current, set_eager, tracing
from kdsl.language.manipulation import broadcast_shapes
from kdsl.language.sizes import NamedSize
from kdsl.language.tracer import Tracer
from kdsl.language.types import can_cast, e, finfo, iinfo, inf, isdtype, nan, newaxis, pi, result_type

PUBLIC = {
    **{name: function for name, function in FUNCTIONS.items() if "." not in name and name != "getitem"},
    "broadcast_shapes": broadcast_shapes,
    "can_cast": can_cast,
    "finfo": finfo,
    "iinfo": iinfo,
    "isdtype": isdtype,
    "result_type": result_type,
    "random": random,
    "e": e,
    "inf": inf,
    "nan": nan,
    "newaxis": newaxis,
    "pi": pi,
}

__all__ = [
    "FUNCTIONS", "PUBLIC", "Check", "NamedSize", "Trace", "Tracer", "arithmetic", "creation", "current", "exponential",
    "indexing", "linalg", "logic", "manipulation", "pieces", "random", "reductions", "scans", "searching", "set_eager",
    "sorting", "tracing",
]  # fmt: skip
