"""Linear maps and embeddings.

Letters: I and O input and output width, V vocabulary, C width. Read before: activations.py. Read next: windows.py.
"""

from __future__ import annotations

import kdsl as kd
from nn.functional.activations import NAMED
from nn.functional.function import function
from nn.functional.random import dropout


@function("... I", "O I", "O")
def linear(x, w, b=None):
    """x @ w.T + b, with w of shape (O, I) as torch stores it."""
    y = x @ w.T
    return y if b is None else y + b


@function("... I", "O I", "O")
def linear_activation(x, w, b, *, activation="gelu_new"):
    """activation(x @ w.T + b) in one kernel; `activation` is a name of activations.NAMED."""
    return NAMED[activation](x @ w.T + b)


@function("... I", "O I", "O", "... O", None, None)
def linear_residual(x, w, b, r, key=None, step=None, *, p=0.0):
    """r + dropout(x @ w.T + b) in one kernel: what ends a branch of a residual network.

    Shapes    x (..., I), w (O, I), b (O,), r (..., O) -> (..., O); key and step as in `dropout`, needed where p > 0
    """
    y = x @ w.T + b
    return r + (dropout.function(y, key, step, p=p) if p else y)


@function("...", "V C")
def embedding(ids, table):
    """table[ids]: a row of the table for each id."""
    return kd.take(table, ids, axis=0)
