"""The closed vocabulary of the tensor IR. Every table of the compiler is keyed by Op, and a test holds each table total.

Elementwise operands all have the result's shape, or are Literals (Python bool, int or float); broadcasting is an equation
of its own. Reductions drop their axes. What an op's attributes are stands beside it; what it means is ir/meaning.py; what
type its result has is ir/rules.py. Read next: ir/tensor.py.
"""

from __future__ import annotations

from enum import Enum


class Op(Enum):
    # --- elementwise, one operand; the result has the operand's dtype unless a comment says otherwise -------------------
    NEG = "neg"
    ABS = "abs"
    SIGN = "sign"
    EXP = "exp"
    EXP2 = "exp2"
    EXPM1 = "expm1"
    LOG = "log"
    LOG2 = "log2"
    LOG10 = "log10"
    LOG1P = "log1p"
    SQRT = "sqrt"
    RSQRT = "rsqrt"
    SIN = "sin"
    COS = "cos"
    TAN = "tan"
    ASIN = "asin"
    ACOS = "acos"
    ATAN = "atan"
    SINH = "sinh"
    COSH = "cosh"
    TANH = "tanh"
    ASINH = "asinh"
    ACOSH = "acosh"
    ATANH = "atanh"
    SIGMOID = "sigmoid"
    ERF = "erf"
    FLOOR = "floor"
    CEIL = "ceil"
    ROUND = "round"  # half to even
    TRUNC = "trunc"
    IS_NAN = "is_nan"  # -> bool
    IS_INF = "is_inf"  # -> bool
    SIGN_BIT = "sign_bit"  # -> bool
    NOT = "not"  # bitwise on integers, logical on bool
    CAST = "cast"  # dtype
    BITCAST = "bitcast"  # dtype of the same width
    STOP_GRADIENT = "stop_gradient"
    # --- elementwise, two operands of one dtype ------------------------------------------------------------------------
    ADD = "add"
    SUB = "sub"
    MUL = "mul"
    DIV = "div"  # floating only
    FLOOR_DIV = "floor_div"
    MOD = "mod"  # sign of the divisor
    POW = "pow"
    ATAN2 = "atan2"
    COPYSIGN = "copysign"
    NEXTAFTER = "nextafter"
    MAXIMUM = "maximum"  # NaN if either is
    MINIMUM = "minimum"
    MULHI = "mulhi"  # u32: the upper half of the 64-bit product
    AND = "and"  # bitwise on integers, logical on bool
    OR = "or"
    XOR = "xor"
    SHL = "shl"
    SHR = "shr"  # arithmetic on signed integers
    EQ = "eq"  # comparisons -> bool
    NE = "ne"
    LT = "lt"
    LE = "le"
    GT = "gt"
    GE = "ge"
    # --- elementwise, three operands -----------------------------------------------------------------------------------
    WHERE = "where"  # bool condition, then two of one dtype
    # --- sources -------------------------------------------------------------------------------------------------------
    FULL = "full"  # value (Python scalar), shape, dtype
    IOTA = "iota"  # shape, axis, dtype: 0, 1, 2 … along axis
    CONSTANT = "constant"  # array: a NumPy array caught in a closure
    SIZE = "size"  # value (an Extent): a named size as a 0-d i64 tensor
    RANDOM_BITS = "random_bits"  # operand: key u32[2]; shape -> u32: Philox4x32-10, element i is word i % 4 of counter i // 4
    # --- movement ------------------------------------------------------------------------------------------------------
    BROADCAST = "broadcast"  # shape, axes: operand axis i lies on result axis axes[i] (increasing); size 1 repeats
    PERMUTE = "permute"  # axes: result axis i is operand axis axes[i]
    RESHAPE = "reshape"  # shape
    SLICE = "slice"  # starts, sizes, steps of any sign (one per axis): element i of an axis is operand element start + i*step
    PAD = "pad"  # low, high, interior (one per axis), value (Python scalar): interior many between neighbours
    CONCAT = "concat"  # axis; any number of operands
    WINDOW = "window"  # axis, size, stride, dilation: [.., n, ..] -> [.., m, .., size]: windows last
    # --- reductions: drop `axes` (a tuple, sorted) ---------------------------------------------------------------------
    SUM = "sum"
    PROD = "prod"
    MAX = "max"
    MIN = "min"
    ANY = "any"  # bool -> bool
    ALL = "all"
    ARGMAX = "argmax"  # one axis -> i64, the first among equals, the first NaN if there is one
    ARGMIN = "argmin"
    # --- contraction ---------------------------------------------------------------------------------------------------
    DOT = "dot"  # left, right, out: tuples of letters; every letter of one operand that out lacks is summed
    # --- indexing: index tensors are i32 or i64, negative counts from the end --------------------------------------------
    TAKE = "take"  # x, index; axis: result = x.shape[:axis] + index.shape + x.shape[axis+1:]
    TAKE_ALONG = "take_along"  # x, index of x's rank; axis: other axes run together
    SCATTER_ADD = "scatter_add"  # x, index, updates; axis: x with updates (shape of TAKE's result) added at the index
    SCATTER_ALONG = "scatter_along"  # x, index, updates (index's shape); axis: the TAKE_ALONG twin
    SORT = "sort"  # axis, descending, stable
    ARGSORT = "argsort"  # axis, descending, stable -> i64
    SEARCHSORTED = "searchsorted"  # x1 (1-d sorted), x2; side -> i64
    # --- structure -----------------------------------------------------------------------------------------------------
    CALL = "call"  # function (a Function), rule (the user's vjp rule or None), index: result number `index` of the call
    SCAN = "scan"  # a step along an axis, from carry to carry: result number `index` of it; ir/scans.py has the attributes
    BARRIER = "barrier"  # identity that no pass looks through: holds a value where the residuals of a pullback are cut

    def __repr__(self) -> str:
        return self.name


UNARY = frozenset(list(Op)[: list(Op).index(Op.ADD)])
BINARY = frozenset(list(Op)[list(Op).index(Op.ADD) : list(Op).index(Op.WHERE)])
ELEMENTWISE = UNARY | BINARY | {Op.WHERE}
COMPARISONS = frozenset({Op.EQ, Op.NE, Op.LT, Op.LE, Op.GT, Op.GE})
TO_BOOL = COMPARISONS | {Op.IS_NAN, Op.IS_INF, Op.SIGN_BIT}
SOURCES = frozenset({Op.FULL, Op.IOTA, Op.CONSTANT, Op.SIZE, Op.RANDOM_BITS})
MOVEMENT = frozenset({Op.BROADCAST, Op.PERMUTE, Op.RESHAPE, Op.SLICE, Op.PAD, Op.CONCAT, Op.WINDOW})
REDUCTIONS = frozenset({Op.SUM, Op.PROD, Op.MAX, Op.MIN, Op.ANY, Op.ALL, Op.ARGMAX, Op.ARGMIN})
COMMUTATIVE = frozenset({Op.ADD, Op.MUL, Op.MAXIMUM, Op.MINIMUM, Op.AND, Op.OR, Op.XOR, Op.EQ, Op.NE, Op.MULHI})
COMPOSITE = frozenset({Op.SIGMOID, Op.SINH, Op.COSH, Op.ASINH, Op.ACOSH, Op.ATANH})  # transforms/expand.py writes them out
# what is left after expand: planners and emitters know no others
CORE = frozenset(Op) - COMPOSITE - {Op.CALL, Op.STOP_GRADIENT, Op.BARRIER, Op.SEARCHSORTED}
