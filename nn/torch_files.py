"""What torch.save wrote, read without torch: the arrays of a pytorch_model.bin.

In:  a file.  Out: NumPy arrays by name. The file is a zip of one pickle and of the elements of each storage; the pickle may call
only what rebuilds tensors and dicts, so that a file of unknown origin runs no code. Read next: pretrained.py.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

import kdsl as kd

_STORAGES = {
    "FloatStorage": kd.f32, "DoubleStorage": kd.f64, "HalfStorage": kd.f16, "BFloat16Storage": kd.bf16,
    "LongStorage": kd.i64, "IntStorage": kd.i32, "ShortStorage": kd.i16, "CharStorage": kd.i8, "ByteStorage": kd.u8,
    "BoolStorage": kd.bool,
}  # fmt: skip


def load_torch(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a dict of tensors that torch.save wrote. ValueError for anything else.

    Example: `load_torch("pytorch_model.bin")["lm_head.weight"]`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            root = next((n.removesuffix("data.pkl") for n in names if n.endswith("/data.pkl") or n == "data.pkl"), None)
            if root is None:
                raise ValueError(f"{path} is a zip file, but none of torch.save's")
            order = archive.read(f"{root}byteorder") if f"{root}byteorder" in names else b"little"
            with archive.open(f"{root}data.pkl") as file:
                found = _Reader(file, archive, f"{root}data/", "<" if order == b"little" else ">").load()
    except zipfile.BadZipFile:
        message = f"{path} is none of torch.save's files, or one of before torch 1.6: save it anew as safetensors"
        raise ValueError(message) from None
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} holds more than tensors: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(a, np.ndarray) for a in found.values()):
        raise ValueError(f"{path} holds no dict of tensors")
    return dict(found)


class _Reader(pickle.Unpickler):
    """Knows the names that a dict of tensors is made of, and no others."""

    def __init__(self, file: Any, archive: zipfile.ZipFile, folder: str, order: str) -> None:
        super().__init__(file)
        self.archive, self.folder, self.order = archive, folder, order
        self.storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return name
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch._utils", "_rebuild_parameter"): lambda data, requires_grad, hooks: data,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return known[module, name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        """A storage: ("storage", its class, its name in the archive, device, number of elements)."""
        _, kind, key, _, _ = pid
        if key not in self.storages:
            dtype = _STORAGES[kind].numpy
            data = self.archive.read(self.folder + key)
            if self.order == ">":
                data = np.frombuffer(data, f">u{dtype.itemsize}").astype(f"u{dtype.itemsize}").tobytes()
            self.storages[key] = np.frombuffer(data, dtype)
        return self.storages[key]


def _tensor(storage: np.ndarray, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *rest: Any) -> np.ndarray:
    """A view of a storage, strides counted in elements."""
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if 0 in shape:
        return np.zeros(shape, storage.dtype)
    if offset < 0 or min(strides, default=0) < 0 or last >= storage.size:
        raise pickle.UnpicklingError("a tensor reaches beyond its storage")
    steps = tuple(s * storage.itemsize for s in strides)
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps)
