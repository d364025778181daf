"""Tensor IR -> tensor IR: fewer equations, each value once, broadcasting last, constants outside of sums.

In:  a Function.  Out: a Function with the same parameters and results (in the sense of the contract's section 5).

    x / broadcast(s)                    ->  x * broadcast(1/s)
    sum(e * broadcast(1/s))             ->  sum(e) * 1/s
    dot(e * broadcast(1/s), v)          ->  dot(e, v) * broadcast(1/s)       softmax @ v divides at the end
    sum(broadcast(a) * broadcast(b))    ->  dot(a, b)
    tanh(u) + 1                         ->  sigmoid(u * 2) * 2

One walk: the program is replayed through a Builder whose rules look at each new equation (transforms/rewrite.py).
Importing the rule files registers them; rules of one op are tried in the order of the imports and then of the file.
Read next: transforms/simplify_elementwise.py, transforms/differentiate.py.
"""

from __future__ import annotations

from kdsl.ir.tensor import Function
from kdsl.transforms import (  # noqa: F401
    simplify_dots,
    simplify_elementwise,
    simplify_movement,
    simplify_scans,
    simplify_sums,
    simplify_windows,
)
from kdsl.transforms.associative_scans import associative_scans
from kdsl.transforms.fuse_scans import fuse_scans
from kdsl.transforms.prune import prune
from kdsl.transforms.rewrite import RULES, Simplifier, rewrite
from kdsl.transforms.turned_scans import turn_scans

__all__ = ["RULES", "Simplifier", "simplify"]


def simplify(function: Function) -> Function:
    """The program rewritten, shared and pruned; parameters stay as they are."""
    return fuse_scans(turn_scans(prune(rewrite(associative_scans(function), Simplifier()))))
