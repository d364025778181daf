"""save and load: named arrays in a safetensors file, written in one step so that a crash leaves the old file.

Read next: trainer.py.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file


def save(arrays: dict[str, Any], path: str | Path, metadata: dict[str, str] | None = None) -> None:
    """Write named arrays (or Tensors) to `path`, all of it or nothing.

    Example: `nn.save({"w": np.ones(3, "f4")}, path)`.
    """
    path = Path(path)
    plain = {name: np.array(a, order="C") for name, a in arrays.items()}
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    save_file(plain, temporary, metadata)
    os.replace(temporary, path)


def load(path: str | Path) -> dict[str, np.ndarray]:
    """The named arrays of a file that `save` wrote.

    Example: `nn.save({"w": np.ones(3, "f4")}, path); nn.load(path)["w"]`.
    """
    return load_file(path)
