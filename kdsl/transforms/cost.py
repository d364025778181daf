"""What work costs: numbers for keeping or recomputing a value, and for merging or not.

In:  ops, types, a target.  Out: costs in vector additions per element, bytes, microseconds.
Read next: plan_rows.py, group.py.
"""

from __future__ import annotations

from kdsl.ir.frame import Plan
from kdsl.ir.ops import MOVEMENT, Op
from kdsl.ir.sizes import Extent, names_in, substitute
from kdsl.ir.tensor import Equation, TensorType
from kdsl.target import Target

HEAVY = 6  # recomputing a value this dear (in vector additions) costs more than a store and a load near the core
NEAR_BYTES = 256 * 1024  # of row memory that stay near the core
CACHE_BYTES = 16 * 1024 * 1024  # that all blocks of a GPU may walk over again and again, in the cache that they share
DOT_RATE = 0.1  # a multiplication or addition of a contraction takes this much of an elementary operation's time
TYPICAL = 64  # what a named size is taken to be where only an estimate is wanted

_DEAR = {
    Op.EXP: 12, Op.EXP2: 11, Op.EXPM1: 16, Op.LOG: 14, Op.LOG2: 14, Op.LOG10: 15, Op.LOG1P: 16, Op.SQRT: 6, Op.RSQRT: 8,
    Op.SIN: 20, Op.COS: 20, Op.TAN: 26, Op.ASIN: 20, Op.ACOS: 20, Op.ATAN: 18, Op.SINH: 20, Op.COSH: 20, Op.TANH: 16,
    Op.ASINH: 24, Op.ACOSH: 24, Op.ATANH: 24, Op.SIGMOID: 16, Op.ERF: 18, Op.DIV: 6, Op.FLOOR_DIV: 12, Op.MOD: 12,
    Op.POW: 30, Op.ATAN2: 26, Op.RANDOM_BITS: 40, Op.TAKE: 8, Op.TAKE_ALONG: 8, Op.NEXTAFTER: 8, Op.SEARCHSORTED: 60,
}  # fmt: skip
_FREE = MOVEMENT | {Op.FULL, Op.IOTA, Op.CONSTANT, Op.SIZE, Op.STOP_GRADIENT, Op.BARRIER, Op.BITCAST}


def cost_of(op: Op) -> int:
    """The cost of one element, in vector additions."""
    return 0 if op in _FREE else _DEAR.get(op, 1)


def estimate(n: Extent) -> int:
    """A number for an extent: named sizes count as TYPICAL."""
    if isinstance(n, int):
        return n
    got = substitute(n, dict.fromkeys(names_in(n), TYPICAL))
    assert isinstance(got, int)
    return max(got, 0)


def bytes_of(t: TensorType) -> int:
    """About how many bytes an array has."""
    return estimate(t.count) * t.dtype.bytes


def work_of(equation: Equation) -> int:
    """About how many elementary operations an equation does: one per element it makes, or reads to fold."""
    if equation.op is Op.DOT:
        extents: dict[str, Extent] = {}
        for letters, v in zip((equation.attributes["left"], equation.attributes["right"]), equation.values, strict=True):
            extents.update(zip(letters, v.shape, strict=True))
        out = 2
        for n in extents.values():
            out *= estimate(n)
        return out
    count = estimate(equation.result.type.count)
    if equation.values and equation.op not in MOVEMENT:
        count = max(count, estimate(equation.values[0].type.count))
    return count * cost_of(equation.op)


def time_of(plan: Plan, target: Target) -> float:
    """Modelled microseconds of a kernel."""
    return modelled_time(estimate(plan.bytes), plan.work, plan.parallel, target)


def modelled_time(moved: float, work: float, parallel: int, target: Target) -> float:
    """Memory or arithmetic, whichever takes longer, and a launch."""
    return target.launch_us + max(moved / target.bytes_per_us, work / target.operations_per_us) / min(parallel, target.units)
