"""Pretrained: models that read and write what Hugging Face's save_pretrained writes (config.json, model.safetensors).

In:  a folder.  Out: a model with the settings and weights in it; or the other way round.
A model says three things: its config from theirs, theirs from its own, and how a parameter is called there. An array that is
missing or left over is a mistake: numbers that nobody reads would be silently wrong ones.
Read before: module.py, serialization.py. Read next: gpt.py, mamba.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from nn.devices import assign
from nn.module import Module, Parameter
from nn.serialization import load, save
from nn.torch_files import load_torch

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

    def is_no_weight(self, name: str) -> bool:
        """Whether an array of theirs holds what follows from the settings, such as a mask."""
        return False

    @classmethod
    def from_pretrained(cls: type[M], folder: str | Path) -> M:
        """The model in a folder that save_pretrained wrote, ours or Hugging Face's, with every setting from there.

        Weights of any floating dtype become f32. They lie in model.safetensors or pytorch_model.bin, in one part or several.
        Raises: FileNotFoundError, KeyError for an array that is missing, ValueError for one that the model does not have or
        that has another shape, and for a setting that it does not know.
        Example: `nn.Mamba.from_pretrained("mamba-130m-hf")`.
        """
        folder = Path(folder)
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        model = cls(cls.settings_from(settings))  # type: ignore[call-arg]
        arrays = _arrays(folder)
        for name, p in model.named_parameters():
            theirs, transposed = model.their_name(name)
            found = next((n for n in model._called(name) if n in arrays), None)
            if found is None:
                raise KeyError(f"{folder} has no array {theirs} (our {name})")
            array = arrays[found].T if transposed else arrays[found]
            if array.shape != p.shape:
                raise ValueError(f"{found} has shape {arrays[found].shape}, and our {name} {p.shape}")
            assign(p.data, array)
        known = {n for name in model._all_names() for n in model._called(name)}
        unknown = sorted(n for n in arrays if n not in known and not model.is_no_weight(n))
        if unknown:
            raise ValueError(f"{folder} has arrays that this model lacks: {', '.join(unknown[:5])}{' …' * (len(unknown) > 5)}")
        return model

    def _called(self, name: str) -> tuple[str, ...]:
        """What files call our parameter."""
        theirs, _ = self.their_name(name)
        return theirs, *self.other_names(theirs)

    def _all_names(self) -> Iterable[str]:
        """Every name of every parameter: a shared one has several, and a file may hold it under each."""
        for path, module in self.named_modules():
            yield from (f"{path}.{n}" if path else n for n, v in vars(module).items() if isinstance(v, Parameter))

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
    for name, read in (("model.safetensors", load), ("pytorch_model.bin", load_torch)):
        index = folder / f"{name}.index.json"
        if index.exists():
            files = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            return {key: array for file in files for key, array in read(folder / file).items()}
        if (folder / name).exists():
            return read(folder / name)
    raise FileNotFoundError(f"{folder} has neither model.safetensors nor pytorch_model.bin")


def refuse_settings(theirs: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """ValueError for a setting that our model does not have at another value than the expected one."""
    for name, value in expected.items():
        if theirs.get(name, value) != value:
            raise ValueError(f"config.json says {name} = {theirs[name]!r}; this model knows {value!r} only")
