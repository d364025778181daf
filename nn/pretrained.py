"""Pretrained: models that read and write what Hugging Face's save_pretrained writes (config.json, model.safetensors).

In:  a folder.  Out: a model with the settings and weights in it; or the other way round.
A model says three things: its config from theirs, theirs from its own, and how a parameter is called there.
Read before: module.py, serialization.py. Read next: gpt.py, mamba.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

import kdsl as kd
from nn.devices import assign
from nn.module import Module
from nn.serialization import load, save

M = TypeVar("M", bound="Pretrained")


class Pretrained(Module):
    """A Module with `from_pretrained(folder)` and `save_pretrained(folder)`."""

    @classmethod
    def settings_from(cls, theirs: Mapping[str, Any]) -> Any:
        """Our config from the contents of their config.json; ValueError where a setting has no counterpart here."""
        raise NotImplementedError

    def settings_for(self) -> dict[str, Any]:
        """What their config.json says of this model."""
        raise NotImplementedError

    def their_name(self, name: str) -> tuple[str, bool]:
        """How they call our parameter, and whether they keep its transpose."""
        raise NotImplementedError

    def other_names(self, name: str) -> Iterable[str]:
        """Names under which older files keep what they call `name` now."""
        return ()

    @classmethod
    def from_pretrained(cls: type[M], folder: str | Path) -> M:
        """The model in a folder that save_pretrained wrote, ours or Hugging Face's, with every setting from there.

        Weights of any floating dtype become f32.
        """
        folder = Path(folder)
        settings = json.loads((folder / "config.json").read_text())
        model = cls(cls.settings_from(settings))  # type: ignore[call-arg]
        arrays = _arrays(folder)
        for name, p in model.named_parameters():
            theirs, transposed = model.their_name(name)
            found = next((n for n in (theirs, *model.other_names(theirs)) if n in arrays), None)
            if found is None:
                raise KeyError(f"{folder} has no array {theirs} (our {name})")
            array = arrays[found].T if transposed else arrays[found]
            if array.shape != p.shape:
                raise ValueError(f"{found} has shape {arrays[found].shape}, and our {name} {p.shape}")
            assign(p.data, array if array.dtype == np.float32 else kd.astype(array, kd.f32))
        return model

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config.json and model.safetensors so that Hugging Face's from_pretrained reads them."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        named = ((self.their_name(name), p.numpy()) for name, p in self.named_parameters())
        arrays = {theirs: data.T if transposed else data for (theirs, transposed), data in named}
        save(arrays, folder / "model.safetensors", {"format": "pt"})
        (folder / "config.json").write_text(json.dumps(self.settings_for(), indent=2) + "\n")


def _arrays(folder: Path) -> dict[str, np.ndarray]:
    """All arrays of a folder, which may be spread over several files."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return load(folder / "model.safetensors")
    files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    return {name: array for file in files for name, array in load(folder / file).items()}


def refuse_settings(theirs: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """ValueError for a setting that our model does not have at another value than the expected one."""
    for name, value in expected.items():
        if theirs.get(name, value) != value:
            raise ValueError(f"config.json says {name} = {theirs[name]!r}; this model knows {value!r} only")
