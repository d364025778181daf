"""The element types: names, bytes, NumPy twins, classes, and promotion.

A leaf: imports nothing else from kdsl. Read next: ir/tensor.py.
A DType is written `f32`; `f32["N", 64]` is a tensor type (the language adds that to it, see `TensorType`).
"""

from __future__ import annotations

from dataclasses import dataclass

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

    def __repr__(self) -> str:
        return self.name

    def __hash__(self) -> int:
        return hash(self.name)


bool_ = DType("bool", np.dtype(np.bool_), "bool")
i8, i16, i32, i64 = (DType(f"i{n}", np.dtype(f"i{n // 8}"), "signed") for n in (8, 16, 32, 64))
u8, u16, u32, u64 = (DType(f"u{n}", np.dtype(f"u{n // 8}"), "unsigned") for n in (8, 16, 32, 64))
f16 = DType("f16", np.dtype(np.float16), "floating")
bf16 = DType("bf16", np.dtype(ml_dtypes.bfloat16), "floating")
f32 = DType("f32", np.dtype(np.float32), "floating")
f64 = DType("f64", np.dtype(np.float64), "floating")

ALL = (bool_, i8, i16, i32, i64, u8, u16, u32, u64, f16, bf16, f32, f64)
BY_NAME = {d.name: d for d in ALL}
BY_NUMPY = {d.numpy: d for d in ALL}
STANDARD_NAMES = {  # the array API standard's names
    "bool": bool_, "int8": i8, "int16": i16, "int32": i32, "int64": i64, "uint8": u8, "uint16": u16, "uint32": u32,
    "uint64": u64, "float16": f16, "bfloat16": bf16, "float32": f32, "float64": f64,
}  # fmt: skip


def as_dtype(spec: object) -> DType | None:
    """The DType that `spec` (a DType, a NumPy dtype or scalar type, a Python type or a name) means, or None."""
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
