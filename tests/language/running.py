"""Run a body on tracers and evaluate what it traced with the NumPy meaning of the IR: no front end, no compiler."""

import numpy as np

import kdsl.dtypes as dt
from kdsl.ir.meaning import evaluate
from kdsl.ir.rules import Builder
from kdsl.ir.sizes import size
from kdsl.ir.tensor import Function, TensorType, Value
from kdsl.ir.verify import verify
from kdsl.language import Tracer, tracing
from kdsl.language.operands import value


def trace(body, *arrays, shapes=None):
    """(Function, checks) of a body on tracers like `arrays`; `shapes` names sizes: one tuple per array, names being texts."""
    builder = Builder()
    parameters = []
    for i, a in enumerate(arrays):
        a = np.asarray(a)
        shape = a.shape if shapes is None else tuple(size(n) if isinstance(n, str) else n for n in shapes[i])
        parameters.append(Value(TensorType(dt.as_dtype(a.dtype), shape), "xyzuvw"[i]))
    with tracing(builder) as running:
        out = body(*(Tracer(builder, p) for p in parameters))
        results = tuple(value(r) for r in (out if isinstance(out, (tuple, list)) else (out,)))
    function = Function("body", tuple(parameters), tuple(builder.equations), results)
    verify(function)
    return function, running.checks


def run(body, *arrays, shapes=None):
    """The results of a body for arrays; a single one is not wrapped."""
    function, _ = trace(body, *arrays, shapes=shapes)
    results = evaluate(function, *arrays)
    return results[0] if len(results) == 1 else results
