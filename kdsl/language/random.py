"""Random numbers without state: a key goes in, the same numbers come out, on every target and for every schedule.

In:  a key, u32[2].  Out: Philox4x32-10: element i in C order is word i % 4 of counter i // 4 under the key.
bits, uniform and bernoulli are equal bit for bit everywhere; normal is an inverse distribution function of one uniform
number per element. Source: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (2011); Wichura, AS 241 (1988).
Read before: creation.py. Read next: numpy_names.py.
"""

from __future__ import annotations

from typing import Any

import kdsl.dtypes as dt
from kdsl.dtypes import DType
from kdsl.errors import ArgumentError, DtypeError, ShapeError
from kdsl.ir.ops import Op
from kdsl.ir.sizes import Size
from kdsl.ir.tensor import Shape, Value
from kdsl.language.arithmetic import astype
from kdsl.language.creation import checked_shape
from kdsl.language.dispatch import public
from kdsl.language.exponential import log, sqrt
from kdsl.language.logic import where
from kdsl.language.operands import cast, emit, known, traced, value, wanted_dtype
from kdsl.language.pieces import stack
from kdsl.language.tracer import Tracer

_SPLIT, _FOLD = 0x9E3779B9, 0xBB67AE85  # split and fold_in draw under the key with these bits turned over


@public
def key(seed: dt.integer, /) -> Tracer:  # type: ignore[valid-type]  # so that no seed is compiled in
    """The key, u32[2], of an integer seed: its lower and upper 32 bits. Example: `kd.random.key(0)`."""
    number = known(seed)
    if isinstance(number, (bool, float)):
        raise DtypeError(f"a seed is an integer, not {number!r}")
    if not isinstance(number, Value):
        number %= 1 << 64
        words = [emit(Op.FULL, value=w, shape=(1,), dtype=dt.u32) for w in (number & 0xFFFFFFFF, number >> 32)]
        return traced(emit(Op.CONCAT, *words, axis=0))
    if number.shape or not number.dtype.is_integer:
        raise DtypeError(f"a seed is one integer, not {number.type}", label=str(number.type))
    low, high = _words(traced(number))
    return stack([low, high])


def _words(number: Tracer) -> tuple[Tracer, Tracer]:
    """The lower and upper 32 bits of an integer."""
    if number.dtype is not dt.u64:
        number = astype(number, dt.i64)
    return astype(number & 0xFFFFFFFF, dt.u32), astype((number >> 32) & 0xFFFFFFFF, dt.u32)


def _key(x: Any) -> Value:
    v = value(x)
    if v.dtype is not dt.u32 or v.shape != (2,):
        raise DtypeError(f"a key is u32[2], not {v.type}", label=str(v.type), hint="kd.random.key(seed) makes one")
    return v


def _turned(k: Value, tag: int) -> Value:
    """The key of another stream."""
    return emit(Op.XOR, k, tag)


def _drawn(k: Value, shape: Shape) -> Value:
    return emit(Op.RANDOM_BITS, k, shape=shape)


@public
def bits(key: Any, shape: Any = (), *, dtype: Any = dt.u32) -> Tracer:
    """Random bits, u32 or u64. Example: `kd.random.bits(key, (4,))`."""
    wanted = wanted_dtype(dtype)
    if wanted not in (dt.u32, dt.u64):
        raise DtypeError(f"random bits are u32 or u64, not {wanted}")
    return traced(_bits(_key(key), checked_shape(shape), wanted))


def _bits(k: Value, shape: Shape, dtype: DType) -> Value:
    """u32: one word for each element; u64: words 2i (low) and 2i + 1 (high)."""
    if dtype is dt.u32:
        return _drawn(k, shape)
    words = cast(_drawn(k, (*shape, 2)), dt.u64)
    low, high = (_last(words, i) for i in (0, 1))
    return emit(Op.OR, low, emit(Op.SHL, high, 32))


def _last(v: Value, i: int) -> Value:
    """Element i of the last axis."""
    n = len(v.shape) - 1
    one = emit(Op.SLICE, v, starts=(0,) * n + (i,), sizes=(*v.shape[:-1], 1), steps=(1,) * (n + 1))
    return emit(Op.RESHAPE, one, shape=v.shape[:-1])


@public
def split(key: Any, n: int = 2, /) -> Tracer:
    """n keys, u32[n, 2], independent of each other and of what is drawn under `key`. Example: `a, b = kd.random.split(key)`."""
    (count,) = checked_shape(n)
    return traced(_drawn(_turned(_key(key), _SPLIT), (count, 2)))


@public
def fold_in(key: Any, i: dt.integer, /) -> Tracer:  # type: ignore[valid-type]
    """A key for the integer i: different for every key and i. Example: `kd.random.fold_in(key, step)`."""
    number = value(i)
    if number.shape or not number.dtype.is_integer:
        raise DtypeError(f"fold_in needs one integer, not {number.type}", label=str(number.type))
    mixed = _drawn(_turned(_key(key), _FOLD), (2,))  # whitened first: key ^ i alone would meet another key ^ j
    return traced(_drawn((traced(mixed) ^ stack(_words(traced(number)))).value, (2,)))


def _float(dtype: Any) -> DType:
    wanted = wanted_dtype(dtype)
    if not wanted.is_floating:
        raise DtypeError(f"random numbers of this kind are floating, not {wanted}", hint="kd.random.randint gives integers")
    return wanted


_DIGITS = {"f16": 11, "bf16": 8, "f32": 24, "f64": 53}  # binary digits that each type keeps


@public
def uniform(key: Any, shape: Any = (), dtype: Any = dt.f32) -> Tracer:
    """Numbers in [0, 1), multiples of 2**-24 (f64: 2**-53, f16: 2**-11, bf16: 2**-8). Example: `kd.random.uniform(key, (4,))`."""
    wanted = _float(dtype)
    return traced(_uniform(_key(key), checked_shape(shape), wanted))


def _uniform(k: Value, shape: Shape, dtype: DType, centred: bool = False) -> Value:
    """The upper bits as a fraction; `centred` moves it by half a step into (0, 1)."""
    digits = _DIGITS[dtype.name] - centred  # one digit less leaves room for the half
    word = dt.u64 if dtype is dt.f64 else dt.u32
    whole = cast(emit(Op.SHR, _bits(k, shape, word), word.bits - digits), dtype)
    if centred:
        whole = emit(Op.ADD, whole, 0.5)
    return emit(Op.MUL, whole, 0.5**digits)


@public
def bernoulli(key: Any, p: Any = 0.5, shape: Any = None) -> Tracer:
    """True with probability p: uniform < p. The shape is p's unless given. Example: `kd.random.bernoulli(key, 0.1, (4,))`."""
    chance = known(p)
    if shape is None:
        shape = chance.shape if isinstance(chance, Value) else ()
    dtype = chance.dtype if isinstance(chance, Value) and chance.dtype is dt.f64 else dt.f32
    drawn = traced(_uniform(_key(key), checked_shape(shape), dtype))
    out = drawn < (traced(chance) if isinstance(chance, Value) else float(chance))
    if out.value.shape != drawn.value.shape:
        raise ShapeError(f"p does not broadcast to the shape {shape}", label=str(out.value.type))
    return out


@public
def randint(key: Any, shape: Any, low: int, high: int, dtype: Any = dt.i64) -> Tracer:
    """Integers in low … high - 1, at most 2**32 of them: low + floor(bits * (high - low) / 2**32).

    Example: `kd.random.randint(key, (4,), 0, 10)`.
    """
    wanted = wanted_dtype(dtype)
    if not wanted.is_integer:
        raise DtypeError(f"randint gives integers, not {wanted}", hint="kd.random.uniform gives floating numbers")
    if isinstance(low, Tracer) or isinstance(high, Tracer) or isinstance(low, Size) or isinstance(high, Size):
        raise ArgumentError("the bounds of randint are Python integers")
    span = int(high) - int(low)
    if not 1 <= span <= 1 << 32:
        raise ArgumentError(f"randint needs low < high, at most 2**32 apart, not {low} and {high}")
    drawn = _drawn(_key(key), checked_shape(shape))
    if span < 1 << 32:
        drawn = emit(Op.MULHI, drawn, span)
    wide = cast(drawn, dt.u64 if wanted is dt.u64 else dt.i64)
    return astype(traced(wide) + int(low), wanted)


@public
def normal(key: Any, shape: Any = (), dtype: Any = dt.f32) -> Tracer:
    """Numbers of mean 0 and variance 1: the inverse normal distribution of (uniform + half a step).

    Example: `kd.random.normal(key, (4,))`.
    """
    wanted = _float(dtype)
    within = wanted.compute
    number = _inverse_normal(traced(_uniform(_key(key), checked_shape(shape), within, centred=True)))
    return traced(cast(number.value, wanted))


# AS 241, PPND16: numerators and denominators, the highest power first; the middle, the tails, the far tails
_MIDDLE = (
    (2.50908092873012267270e3, 3.34305755835881281050e4, 6.72657709270087008530e4, 4.59219539315498714570e4,
     1.37316937655094611250e4, 1.97159095030655144270e3, 1.33141667891784377450e2, 3.38713287279636660800e0),
    (5.22649527885285456100e3, 2.87290857357219426740e4, 3.93078958000927106100e4, 2.12137943015865958670e4,
     5.39419602142475110770e3, 6.87187007492057908300e2, 4.23133307016009112520e1, 1.0),
)  # fmt: skip
_TAIL = (
    (7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258e0,
     3.64784832476320460504e0, 5.76949722146069140550e0, 4.63033784615654529590e0, 1.42343711074968357734e0),
    (1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1,
     6.89767334985100004550e-1, 1.67638483018380384940e0, 2.05319162663775882187e0, 1.0),
)  # fmt: skip
_FAR = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3, 2.65321895265761230930e-2,
     2.96560571828504891230e-1, 1.78482653991729133580e0, 5.46378491116411436990e0, 6.65790464350110377720e0),
    (2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5, 7.86869131145613259100e-4,
     1.48753612908506148525e-2, 1.36929880922735805310e-1, 5.99832206555887937690e-1, 1.0),
)  # fmt: skip


def _inverse_normal(p: Tracer) -> Tracer:
    """The x below which a normal number lies with probability p, 0 < p < 1."""
    q = p - 0.5
    middle = (q <= 0.425) & (q >= -0.425)
    centre = _ratio(_MIDDLE, 0.180625 - q * q) * q
    r = sqrt(-log(where(q < 0, p, 1 - p)))
    tail = where(r <= 5.0, _ratio(_TAIL, r - 1.6), _ratio(_FAR, r - 5.0)) if p.dtype is dt.f64 else _ratio(_TAIL, r - 1.6)
    return where(middle, centre, where(q < 0, -tail, tail))


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], r: Tracer) -> Tracer:
    above, below = (_polynomial(c, r) for c in coefficients)
    return above / below


def _polynomial(coefficients: tuple[float, ...], r: Tracer) -> Tracer:
    out: Any = coefficients[0]
    for c in coefficients[1:]:
        out = out * r + c
    return out


