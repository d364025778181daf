"""What a program computes, as one short text: programs with equal fingerprints may share their code.

In:  a Function.  Out: a digest, the same in every process, of types, operations, operands and attributes; of names, places and
rules for derivatives nothing.  1, 1.0 and True are kept apart, and so are 0.0 and -0.0 and the signs of NaNs.
Read before: ir/tensor.py. Read next: kept.py.
"""

from __future__ import annotations

import hashlib
import struct
from enum import Enum
from typing import Any

import numpy as np

from kdsl.dtypes import DType
from kdsl.ir.sizes import Size
from kdsl.ir.tensor import Function, TensorType, Value


def fingerprint(function: Function) -> str:
    """The digest of a program."""
    return hashlib.sha256(repr(_program(function, {})).encode()).hexdigest()


def plain(value: Any) -> Any:
    """An attribute, a literal or an extent as nested tuples of texts and numbers, which `repr` tells apart."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, Size):
        return "size", *sorted(((plain(m), f) for m, f in value.terms.items()), key=repr)
    if isinstance(value, (tuple, list)):
        return tuple([plain(v) for v in value])
    if isinstance(value, DType):
        return "dtype", value.name
    if isinstance(value, np.ndarray):
        return "array", value.dtype.name, value.shape, hashlib.sha256(value.tobytes()).hexdigest()
    if isinstance(value, np.generic):
        return "scalar", value.dtype.name, value.tobytes()
    if isinstance(value, float):
        return value if value == value else ("nan", struct.pack(">d", value))
    if isinstance(value, Enum):
        return type(value).__name__, value.value
    if isinstance(value, TensorType):
        return "type", value.dtype.name, plain(value.shape)
    raise TypeError(f"a {type(value).__name__} in a program: {value!r}")


def _program(function: Function, known: dict[Function, Any]) -> Any:
    """A program as nested tuples; `known` are the functions that were met before: each is written once."""
    number: dict[Value, int] = {p: i for i, p in enumerate(function.parameters)}
    lines = []
    for e in function.equations:
        operands = [("value", number[o]) if isinstance(o, Value) else plain(o) for o in e.operands]
        attributes = []
        for key in sorted(e.attributes):
            value = e.attributes[key]
            if isinstance(value, Function):
                if value not in known:
                    attributes.append((key, _program(value, known)))
                    known[value] = len(known)
                else:
                    attributes.append((key, known[value]))
            elif key != "rule":
                attributes.append((key, plain(value)))
        lines.append((e.op.value, operands, attributes, plain(e.result.type)))
        number[e.result] = len(number)
    return [plain(p.type) for p in function.parameters], lines, [number[r] for r in function.results]
