"""What a Map of the loop IR means: the elementwise ops as ir/meaning.py defines them, and the few that only kernels have.

In:  an op's name, NumPy tiles, the dtype of the result.  Out: a NumPy tile.
`KERNEL_OPS` are the names that no tensor program holds; loop_verify.py gives their types.
Read before: ir/meaning.py. Read next: ir/interpreter.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

import kdsl.dtypes as dt
from kdsl.dtypes import DType
from kdsl.ir import numbers
from kdsl.ir.meaning import MEANING
from kdsl.ir.meaning_elementwise import Context
from kdsl.ir.ops import ELEMENTWISE, Op
from kdsl.ir.tensor import Equation, TensorType, Value

_CONTEXT = Context({}, exact=False)
ELEMENTWISE_NAMES = {op.value: op for op in ELEMENTWISE}


def _philox(key0: np.ndarray, key1: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Word number % 4 of the Philox block with counter number // 4."""
    flat = number.astype(np.uint64).ravel()
    block = flat >> np.uint64(2)
    counters = np.zeros((flat.size, 4), np.uint32)
    counters[:, 0], counters[:, 1] = block & np.uint64(0xFFFFFFFF), block >> np.uint64(32)
    words = numbers.philox(np.array([key0.item(), key1.item()], np.uint32), counters)
    return words[np.arange(flat.size), (flat & np.uint64(3)).astype(int)].reshape(number.shape)


KERNEL_OPS: dict[str, Callable[..., np.ndarray]] = {
    "fma": lambda a, b, c: a * b + c,
    "round_f16": lambda x: numbers.round_to(x, dt.f16),
    "round_bf16": lambda x: numbers.round_to(x, dt.bf16),
    "philox": _philox,
}


@lru_cache
def _equation(op: Op, operands: tuple[DType, ...], result: DType) -> Equation:
    values = tuple(Value(TensorType(d, ())) for d in operands)
    return Equation(Value(TensorType(result, ())), op, values, {"dtype": result})


def map_values(op: str, operands: Sequence[np.ndarray], dtype: DType) -> np.ndarray:
    """The op on tiles, which broadcast as NumPy does."""
    if op in KERNEL_OPS:
        return np.asarray(KERNEL_OPS[op](*operands))
    equation = _equation(ELEMENTWISE_NAMES[op], tuple(dt.BY_NUMPY[o.dtype] for o in operands), dtype)
    out = np.asarray(MEANING[equation.op](_CONTEXT, equation, *operands))
    return out.astype(dtype.numpy, copy=False)
