"""The element types: names, bytes, NumPy twins, classes, and promotion.

A leaf: imports nothing else from kdsl. Read next: ir/tensor.py.
A DType is written `f32`; `f32["N", 64]` is a type as users write it (TypeSpec): an annotation, or an argument ahead of time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np


@dataclass(frozen=True)
class DType:
    """One element type. `compute` is the type in which kernels compute with it (f32 for f16 and bf16)."""

    name: str
    numpy: np.dtype
    kind: str  # "bool", "signed", "unsigned" or "floating"

    @property
    def bytes(self) -> int:
        return self.numpy.itemsize

    @property
    def bits(self) -> int:
        return 1 if self.kind == "bool" else 8 * self.bytes

    @property
    def is_floating(self) -> bool:
        return self.kind == "floating"

    @property
    def is_integer(self) -> bool:
        return self.kind in ("signed", "unsigned")

    @property
    def compute(self) -> DType:
        return f32 if self.name in ("f16", "bf16") else self

    def admits(self, dtype: DType) -> bool:
        """As an annotation: whether a tensor may have this dtype."""
        return dtype is self

    def __getitem__(self, shape: Any) -> TypeSpec:
        return TypeSpec.of(self, shape)

    def __repr__(self) -> str:
        return self.name

    def __hash__(self) -> int:
        return hash(self.name)


@dataclass(frozen=True)
class DTypeClass:
    """In an annotation: any dtype of these kinds. kd.floating, kd.integer, kd.any."""

    name: str
    kinds: frozenset[str]

    def admits(self, dtype: DType) -> bool:
        return dtype.kind in self.kinds

    def __getitem__(self, shape: Any) -> TypeSpec:
        return TypeSpec.of(self, shape)

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True)
class TypeSpec:
    """A type as users write it: kd.f32[4096, 1024], kd.f32["N", 64], kd.floating[..., "D"].

    A number is a fixed size, a name one that is known at the call; `leading` allows any number of further axes in front.
    """

    dtype: DType | DTypeClass
    shape: tuple[int | str, ...]
    leading: bool = False

    @staticmethod
    def of(dtype: DType | DTypeClass, shape: Any) -> TypeSpec:
        axes = shape if isinstance(shape, tuple) else (shape,)
        leading = bool(axes) and axes[0] is Ellipsis
        axes = axes[1:] if leading else axes
        for n in axes:
            if not (isinstance(n, str) and n.isidentifier()) and not (isinstance(n, (int, np.integer)) and n >= 0):
                raise TypeError(f"{dtype}[…] takes sizes, names and a leading ..., not {n!r}")
        return TypeSpec(dtype, tuple(_axis_name(n) if isinstance(n, str) else int(n) for n in axes), leading)

    def __repr__(self) -> str:
        return f"{self.dtype}[{', '.join((['...'] if self.leading else []) + [repr(n) for n in self.shape])}]"


def _axis_name(name: str) -> str:
    """A user's name for a size; one that schedules give their loops is told apart by an underscore: "t" is t_ in all texts."""
    return name + "_" if LOOP_NAMES.fullmatch(name) else name


LOOP_NAMES = re.compile(r"t|p|rb|kb|one|(o|s|at|v|c)\d+|\w*_\d+")

bool_ = DType("bool", np.dtype(np.bool_), "bool")
i8, i16, i32, i64 = (DType(f"i{n}", np.dtype(f"i{n // 8}"), "signed") for n in (8, 16, 32, 64))
u8, u16, u32, u64 = (DType(f"u{n}", np.dtype(f"u{n // 8}"), "unsigned") for n in (8, 16, 32, 64))
f16 = DType("f16", np.dtype(np.float16), "floating")
bf16 = DType("bf16", np.dtype(ml_dtypes.bfloat16), "floating")
f32 = DType("f32", np.dtype(np.float32), "floating")
f64 = DType("f64", np.dtype(np.float64), "floating")

floating = DTypeClass("floating", frozenset({"floating"}))
integer = DTypeClass("integer", frozenset({"signed", "unsigned"}))
any_ = DTypeClass("any", frozenset({"bool", "signed", "unsigned", "floating"}))

ALL = (bool_, i8, i16, i32, i64, u8, u16, u32, u64, f16, bf16, f32, f64)
BY_NAME = {d.name: d for d in ALL}
BY_NUMPY = {d.numpy: d for d in ALL}
int8, int16, int32, int64, uint8, uint16, uint32, uint64 = i8, i16, i32, i64, u8, u16, u32, u64
float16, bfloat16, float32, float64 = f16, bf16, f32, f64
STANDARD_NAMES = {  # the array API standard's names
    "bool": bool_, "int8": i8, "int16": i16, "int32": i32, "int64": i64, "uint8": u8, "uint16": u16, "uint32": u32,
    "uint64": u64, "float16": f16, "bfloat16": bf16, "float32": f32, "float64": f64,
}  # fmt: skip


def as_dtype(spec: object) -> DType | None:
    """The DType that `spec` (a DType, a NumPy dtype or scalar type, a Python type or a name) means, or None.

    Example: `kd.as_dtype("f32")`
    """
    if isinstance(spec, DType):
        return spec
    if spec is bool:
        return bool_
    if spec is int:
        return i64
    if spec is float:
        return f32
    if isinstance(spec, str):
        return BY_NAME.get(spec) or STANDARD_NAMES.get(spec)
    try:
        return BY_NUMPY.get(np.dtype(spec).newbyteorder("="))  # type: ignore[call-overload]
    except TypeError:
        return None


def promote(a: DType, b: DType) -> DType | None:
    """The common type of two tensors' types; None where there is none (u64 with a signed integer).

    bool < integer < floating; an integer with a floating type gives the floating type; f16 with bf16 gives f32.
    """
    if a is b:
        return a
    order = {"bool": 0, "signed": 1, "unsigned": 1, "floating": 2}
    if order[a.kind] != order[b.kind]:
        return a if order[a.kind] > order[b.kind] else b
    if a.is_floating:
        return f32 if {a.name, b.name} == {"f16", "bf16"} else max(a, b, key=lambda d: d.bytes)
    if a.kind == b.kind:
        return max(a, b, key=lambda d: d.bytes)
    signed, unsigned = (a, b) if a.kind == "signed" else (b, a)
    if signed.bytes > unsigned.bytes:
        return signed
    return BY_NAME.get(f"i{16 * unsigned.bytes}")
