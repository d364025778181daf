"""What a call is compiled for and by: its target, whether tuning comes first, the compiler.

In:  the target that a user names, the arguments of a call.  Out: a Target.
Read before: target.py, program.py. Read next: numbers.py.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kdsl.errors import DeviceError, TargetError
from kdsl.frontend.signature import Signature
from kdsl.runtime.cuda_arrays import DeviceTensor
from kdsl.runtime.cuda_driver import level, missing
from kdsl.specialisation.program import sizes_of
from kdsl.target import Target, default_target, parse_target, size_class


def compiler() -> Any:
    """pipeline.py, imported when something is compiled first: `import kdsl` costs little."""
    from kdsl import pipeline

    return pipeline


def target_of(name: str | None, tensors: Sequence[Any]) -> str:
    """The target of a call: the one that is named, else where its arguments lie, else the default."""
    tensor = next((x for x in tensors if isinstance(x, DeviceTensor)), None)
    if tensor is None:
        return name or default_target()
    if name is not None and name.partition(":")[0] != "cuda":
        raise DeviceError(f"an argument lies on cuda:{tensor.device}, and the kernel is for {name}")
    return name or f"cuda:{level(tensor.device)}"


def target_named(name: str) -> Target:
    """The Target that a user's text names; plain "cuda" is this machine's GPU, where it has one."""
    if name == "cuda" and missing() is None:
        name = f"cuda:{level()}"
    try:
        return parse_target(name)
    except ValueError as error:
        raise TargetError(str(error)) from None


def wants_tuning(tensors: Sequence[Any]) -> bool:
    """Whether what is compiled for these is to be tuned first: KDSL_TUNE=1 says so, where they are arrays and not types."""
    return os.environ.get("KDSL_TUNE") == "1" and all(isinstance(x, (np.ndarray, DeviceTensor)) for x in tensors)


def target_for(name: str, signature: Signature, tensors: Sequence[Any]) -> Target:
    """The Target of a call. A GPU's knows the classes of the named sizes that rows of the arguments have."""
    target = target_named(name)
    if target.kind == "cpu" or not signature.sizes:
        return target
    rows = {str(leaf.type.shape[-1]) for leaf in signature.leaves if leaf.type.ndim > 1}
    found = sizes_of([s for s in signature.sizes if s.name in rows], tensors)
    return replace(target, classes=tuple(size_class(n, v) for n, v in sorted(found.items()) if isinstance(v, int)))
