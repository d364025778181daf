"""Runs of a model on text: train one character by character into a folder, continue a prompt with what the folder holds.

In:  the options of `kdsl train` and `kdsl generate`.  Out: the exit status; checkpoint.safetensors, run.json and losses.png.
Read before: data.py, trainer.py, gpt.py, mamba.py. Read next: command.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import kdsl as kd
import nn
from nn.trainer import plot_losses

PROMPT = "def "


class Mistake(Exception):
    """What the user should change, in one line."""


@dataclass(frozen=True)
class Kind:
    """A kind of model: its presets and the one taken first, its config's arguments from the options, and how it is made."""

    presets: dict[str, tuple[int, ...]]
    preset: str
    shape: Callable[[Any, int], dict[str, Any]]
    make: Callable[[dict[str, Any]], Any]


def _gpt(options: Any, vocabulary: int) -> dict[str, Any]:
    layers, heads, width = nn.gpt.PRESETS[options.preset]
    return {
        "vocab_size": vocabulary, "block_size": options.block, "n_layer": layers, "n_head": heads, "n_embd": width,
        "embd_pdrop": options.dropout, "resid_pdrop": options.dropout, "attn_pdrop": options.dropout,
    }  # fmt: skip


def _mamba(options: Any, vocabulary: int) -> dict[str, Any]:
    layers, width = MODELS[options.model].presets[options.preset]
    return {"vocab_size": vocabulary, "n_layer": layers, "d_model": width}


MODELS = {
    "gpt": Kind(nn.gpt.PRESETS, "gpt-micro", _gpt, lambda shape: nn.GPT(nn.GPTConfig(**shape))),
    "mamba": Kind(nn.mamba.PRESETS, "mamba-micro", _mamba, lambda shape: nn.Mamba(nn.MambaConfig(**shape))),
    "mamba2": Kind(nn.mamba2.PRESETS, "mamba2-micro", _mamba, lambda shape: nn.Mamba2(nn.Mamba2Config(**shape))),
}


# --- train ----------------------------------------------------------------------------------------------------------------------
def train(options: Any) -> int:
    text = _text(options.text)
    data = nn.data.CharacterText.from_text(text)
    if len(data.held_out) < options.block + 2:
        raise Mistake(
            f"the text is too short: its held-out tenth has {len(data.held_out)} characters, a sample {options.block + 1}"
        )
    if not 0 <= options.dropout < 1 or not options.lr > 0:
        raise Mistake("--dropout is at least 0 and less than 1, --lr more than 0")
    kind = MODELS[options.model]
    options.preset = options.preset or kind.preset
    options.out = options.out or Path("runs") / options.model
    if options.preset not in kind.presets:
        raise Mistake(f"no {options.model} is called {options.preset!r}; there are {', '.join(kind.presets)}")
    if options.dropout and options.model != "gpt":
        raise Mistake(f"a {options.model} has no dropout")
    nn.manual_seed(options.seed)
    shape = kind.shape(options, len(data.vocabulary))
    names = ("model", "preset", "block", "batch", "steps", "lr", "dropout", "seed")
    settings = {name: getattr(options, name) for name in names}
    settings["text"] = hashlib.sha256(text.encode()).hexdigest()
    about = {"model": shape, "vocabulary": data.vocabulary, "settings": settings}
    model = _on(kind.make(shape), options.device)
    trainer = nn.Trainer(
        model,
        lambda step: data.batch(step, options.batch, options.block, options.seed),
        nn.TrainerConfig(
            steps=options.steps,
            lr=options.lr,
            warmup=min(100, options.steps // 10),
            evaluate_every=max(1, options.steps // 15),
        ),
        options.out,
        lambda step: data.batch(step, options.batch, options.block, options.seed + 1, "held_out"),
    )
    size = sum(p.numel() for p in model.parameters())
    source = options.text or "the Python standard library"
    print(
        f"{options.preset}: {size:,} parameters, {len(data.vocabulary)} characters; {len(text):,} characters of {source}"
    )
    if _begin(options, about):
        trainer.resume()
        print(f"resuming at step {trainer.step} of {options.steps}")
    else:
        print(f"--- a sample before training ---\n{_sample(model, data, PROMPT, 120)}\n---", flush=True)
    if not trainer.run():
        print(
            f"interrupted at step {trainer.step} of {options.steps}; saved in {options.out}: the same command resumes"
        )
        return 130
    held_out, bigram = trainer.evaluate(64), data.bigram_loss()
    plot_losses(
        trainer.losses, trainer.held_out_losses, options.out / "losses.png", ("character bigram, held out", bigram)
    )
    print(f"held-out loss {held_out:.3f} nats a character; a character bigram has {bigram:.3f}")
    print(f"--- a sample after training ---\n{_sample(model, data, PROMPT, 400)}\n---")
    print(f"checkpoint {options.out / 'checkpoint.safetensors'}, loss curve {options.out / 'losses.png'}")
    return 0


def _on(model: Any, device: str) -> Any:
    """The model on the device; where it lies changes no number that matters, so that a run may be resumed on another."""
    try:
        return model.to(device)
    except kd.KdslError as error:
        raise Mistake(f"--device {device}: {error.message}") from None


def _text(path: Path | None) -> str:
    if path is None:
        return nn.data.standard_library_text()
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise Mistake(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise Mistake(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None


def _begin(options: Any, about: dict[str, Any]) -> bool:
    """Make the run's folder; True if it holds a checkpoint of this very run, to be resumed."""
    checkpoint, described = options.out / "checkpoint.safetensors", options.out / "run.json"
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Mistake(f"cannot make the folder {options.out}: {error.strerror}") from None
    if options.fresh:
        checkpoint.unlink(missing_ok=True)
    if checkpoint.exists():
        before = _described(options.out)["settings"]
        other = [
            {"text": "another --text", "model": f"a {value}"}.get(name, f"--{name} {value}")
            for name, value in before.items()
            if about["settings"][name] != value
        ]
        if other:
            raise Mistake(
                f"{options.out} holds a run with {', '.join(other)}: say the same to resume it, "
                "--fresh to start anew, or another --out"
            )
        return True
    described.write_text(json.dumps(about), encoding="utf-8")
    return False


def _described(folder: Path) -> Any:
    """What run.json says about the run in a folder."""
    try:
        about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        return {key: about[key] for key in ("model", "vocabulary", "settings")}
    except (OSError, ValueError, KeyError):
        raise Mistake(
            f"{folder / 'run.json'} is missing or damaged: train anew with --fresh, or name another --out"
        ) from None


# --- generate -------------------------------------------------------------------------------------------------------------------
def generate(options: Any) -> int:
    checkpoint = options.out / "checkpoint.safetensors"
    if not checkpoint.exists():
        raise Mistake(f"there is no trained model in {options.out}: run `kdsl train --out {options.out}` first")
    about = _described(options.out)
    data = nn.data.CharacterText(about["vocabulary"], np.zeros(0, np.int64), np.zeros(0, np.int64))
    unknown = sorted(set(options.prompt) - set(about["vocabulary"]))
    if not options.prompt or unknown:
        raise Mistake(f"the text had no {', '.join(map(repr, unknown))}" if unknown else "the prompt is empty")
    if not options.temperature > 0:
        raise Mistake("--temperature is more than 0; --top-k 1 takes the likeliest character each time")
    model = _on(MODELS[about["settings"].get("model", "gpt")].make(about["model"]), options.device)
    model.load_state_dict({k[6:]: v for k, v in nn.load(checkpoint).items() if k.startswith("model.")})
    nn.manual_seed(options.seed)
    print(_sample(model, data, options.prompt, options.tokens, options.temperature, options.top_k))
    return 0


def _sample(
    model: Any,
    data: nn.data.CharacterText,
    prompt: str,
    tokens: int,
    temperature: float = 0.8,
    top_k: int | None = None,
) -> str:
    ids = data.encode(prompt)[None, :]  # (1, T)
    return data.decode(model.generate(ids, tokens, temperature, do_sample=True, top_k=top_k)[0])
