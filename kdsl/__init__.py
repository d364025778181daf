"""kdsl: write array kernels in NumPy's words; fused code for forward and backward is derived.

    import kdsl as kd

    @kd.kernel
    def softmax(x):
        e = kd.exp(x - kd.max(x, axis=-1, keepdims=True))
        return e / kd.sum(e, axis=-1, keepdims=True)

    y = softmax(x)                  compiled for this machine, one fused kernel
    dx, = softmax.vjp(x, dy)        the backward kernel: derived, fused, compiled too

The names below are promised; nothing else is. Read next: kernel.py, pipeline.py.
"""

from kdsl.dtypes import (
    as_dtype, bf16, bfloat16, bool_ as bool, f16, f32, f64, float16, float32, float64, floating, i8, i16, i32, i64, int8, int16, int32,
    int64, integer, u8, u16, u32, u64, uint8, uint16, uint32, uint64,
)  # fmt: skip
from kdsl.errors import (
    ArgumentError, AxisError, CompileError, ConstantError, ControlFlowError, DeviceError, DtypeError, GradientError,
    InternalError, KdslError, OutOfRangeError, ResultError, ShapeError, SpecialisationWarning, TargetError, VerifyError,
)  # fmt: skip
from kdsl.frontend.annotations import any_ as any
from kdsl.inspection.doctor import doctor
from kdsl.kernel import Kernel, grad, kernel, value_and_grad
from kdsl.runtime.arrays import Array, asarray
from kdsl.runtime.cpu import compilations
from kdsl.language import random
from kdsl.language.arithmetic import (
    abs, add, astype, ceil, clip, copysign, divide, floor, floor_divide, maximum, minimum, multiply, negative,
    nextafter, positive, pow, reciprocal, remainder, round, sign, square, stop_gradient, subtract, trunc,
)  # fmt: skip
from kdsl.language.creation import (
    arange, empty, empty_like, eye, full, full_like, linspace, meshgrid, ones, ones_like, tril, triu, zeros, zeros_like,
)  # fmt: skip
from kdsl.language.exponential import (
    acos, acosh, asin, asinh, atan, atan2, atanh, cos, cosh, erf, exp, exp2, expm1, hypot, log, log10, log1p, log2,
    logaddexp, rsqrt, sigmoid, sin, sinh, sqrt, tan, tanh,
)  # fmt: skip
from kdsl.language.indexing import scatter_add, take, take_along_axis
from kdsl.language.linalg import einsum, matmul, matrix_transpose, tensordot, vecdot
from kdsl.language.logic import (
    bitwise_and, bitwise_invert, bitwise_left_shift, bitwise_or, bitwise_right_shift, bitwise_xor, equal, greater,
    greater_equal, isfinite, isinf, isnan, less, less_equal, logical_and, logical_not, logical_or, logical_xor,
    not_equal, signbit, where,
)  # fmt: skip
from kdsl.language.manipulation import (
    broadcast_arrays, broadcast_shapes, broadcast_to, expand_dims, flip, moveaxis, permute_dims, repeat, reshape, roll,
    squeeze, tile,
)  # fmt: skip
from kdsl.language.pieces import concat, pad, sliding_window, split, stack, unstack
from kdsl.language.reductions import all, count_nonzero, logsumexp, max, mean, min, prod, std, sum, var
from kdsl.language.searching import argmax, argmin, searchsorted
from kdsl.language.types import can_cast, e, finfo, iinfo, inf, isdtype, nan, newaxis, pi, result_type

__version__ = "0.1.0"

__all__ = [
    "ArgumentError", "Array", "AxisError", "CompileError", "ConstantError", "ControlFlowError", "DeviceError",
    "DtypeError", "GradientError", "InternalError", "KdslError", "Kernel", "OutOfRangeError", "ResultError",
    "ShapeError", "SpecialisationWarning", "TargetError", "VerifyError", "__version__", "abs", "acos", "acosh", "add",
    "all", "any", "arange", "argmax", "argmin", "as_dtype", "asarray", "asin", "asinh", "astype", "atan", "atan2",
    "atanh", "bf16", "bfloat16", "bitwise_and", "bitwise_invert", "bitwise_left_shift", "bitwise_or",
    "bitwise_right_shift", "bitwise_xor", "bool", "broadcast_arrays", "broadcast_shapes", "broadcast_to", "can_cast",
    "ceil", "clip", "compilations", "concat", "copysign", "cos", "cosh", "count_nonzero", "divide", "doctor", "e",
    "einsum", "empty", "empty_like", "equal", "erf", "exp", "exp2", "expand_dims", "expm1", "eye", "f16", "f32", "f64",
    "finfo", "flip", "float16", "float32", "float64", "floating", "floor", "floor_divide", "full", "full_like", "grad",
    "greater", "greater_equal", "hypot", "i16", "i32", "i64", "i8", "iinfo", "inf", "int16", "int32", "int64", "int8",
    "integer", "isdtype", "isfinite", "isinf", "isnan", "kernel", "less", "less_equal", "linspace", "log", "log10",
    "log1p", "log2", "logaddexp", "logical_and", "logical_not", "logical_or", "logical_xor", "logsumexp", "matmul",
    "matrix_transpose", "max", "maximum", "mean", "meshgrid", "min", "minimum", "moveaxis", "multiply", "nan",
    "negative", "newaxis", "nextafter", "not_equal", "ones", "ones_like", "pad", "permute_dims", "pi", "positive",
    "pow", "prod", "random", "reciprocal", "remainder", "repeat", "reshape", "result_type", "roll", "round", "rsqrt",
    "scatter_add", "searchsorted", "sigmoid", "sign", "signbit", "sin", "sinh", "sliding_window", "split", "sqrt",
    "square", "squeeze", "stack", "std", "stop_gradient", "subtract", "sum", "take", "take_along_axis", "tan", "tanh",
    "tensordot", "tile", "tril", "triu", "trunc", "u16", "u32", "u64", "u8", "uint16", "uint32", "uint64", "uint8",
    "unstack", "value_and_grad", "var", "vecdot", "where", "zeros", "zeros_like",
]  # fmt: skip
