"""The command `kdsl`: train a GPT on text, continue a prompt, look at kernels, look at the machine.

    kdsl train [gpt] [--text FILE] [--steps N] …      kdsl generate [--prompt TEXT]
    kdsl show FILE:KERNEL [TYPE …] [--stage NAME]     kdsl doctor

In:  the command line.  Out: the exit status: 0, 2 for a mistake of the user's (said in one line), 130 after Ctrl-C.
Read before: gpt.py, data.py, trainer.py.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import platform
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import kdsl as kd
import nn
from nn.trainer import plot_losses

PROMPT = "def "


class Mistake(Exception):
    """What the user should change, in one line."""


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand; returns the process's exit status."""
    options = _parser().parse_args(argv)
    try:
        return {"train": _train, "generate": _generate, "show": _show, "doctor": _doctor}[options.command](options)
    except Mistake as mistake:
        print(f"kdsl {options.command}: {mistake}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"kdsl {options.command}: interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kdsl", description="kdsl: kernels from NumPy-style expressions, and models built on them"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train a GPT on text, all arithmetic in kernels that kdsl compiled")
    train.add_argument("model", nargs="?", default="gpt", choices=["gpt"])
    train.add_argument("--text", type=Path, help="a UTF-8 file (default: the Python standard library's own sources)")
    train.add_argument(
        "--out",
        type=Path,
        default=Path("runs/gpt"),
        help="folder for checkpoint, vocabulary and loss curve (default %(default)s)",
    )
    train.add_argument(
        "--preset",
        default="gpt-micro",
        choices=sorted(nn.gpt.PRESETS),
        help="layers, heads and width (default %(default)s: 4, 4, 128)",
    )
    train.add_argument("--block", type=_positive, default=64, help="characters a sample (default %(default)s)")
    train.add_argument("--batch", type=_positive, default=16, help="samples a step (default %(default)s)")
    train.add_argument("--steps", type=_positive, default=1500, help="updates (default %(default)s)")
    train.add_argument("--lr", type=float, default=2e-3, help="the highest learning rate (default %(default)s)")
    train.add_argument("--dropout", type=float, default=0.0, help="the share of values dropped (default %(default)s)")
    train.add_argument("--seed", type=int, default=1337, help="of the weights and batches (default %(default)s)")
    train.add_argument("--fresh", action="store_true", help="start anew even if the folder holds a checkpoint")
    generate = commands.add_parser("generate", help="continue a prompt with a trained model")
    generate.add_argument("--out", type=Path, default=Path("runs/gpt"), help="folder of the run (default %(default)s)")
    generate.add_argument("--prompt", default=PROMPT, help="how the text begins (default %(default)r)")
    generate.add_argument("--tokens", type=_positive, default=400, help="characters to write (default %(default)s)")
    generate.add_argument(
        "--temperature", type=float, default=0.8, help="less is likelier, more is bolder (default %(default)s)"
    )
    generate.add_argument("--top-k", type=_positive, help="draw from this many likeliest characters only")
    generate.add_argument("--seed", type=int, default=0)
    show = commands.add_parser("show", help="print the stages of a kernel in a Python file")
    show.add_argument("place", help="FILE:KERNEL")
    show.add_argument(
        "types",
        nargs="*",
        help="a type a parameter, such as 'f32[64,128]' (not needed where annotations fix the sizes)",
    )
    show.add_argument("--stage", help="only this stage")
    commands.add_parser("doctor", help="say what this machine offers and what is missing")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


# --- train ----------------------------------------------------------------------------------------------------------------------
def _train(options: Any) -> int:
    text = _text(options.text)
    data = nn.data.CharacterText.from_text(text)
    if len(data.held_out) < options.block + 2:
        raise Mistake(
            f"the text is too short: its held-out tenth has {len(data.held_out)} characters, a sample {options.block + 1}"
        )
    if not 0 <= options.dropout < 1 or not options.lr > 0:
        raise Mistake("--dropout is at least 0 and less than 1, --lr more than 0")
    nn.manual_seed(options.seed)
    layers, heads, width = nn.gpt.PRESETS[options.preset]
    shape = {
        "vocab_size": len(data.vocabulary), "block_size": options.block, "n_layer": layers, "n_head": heads, "n_embd": width,
        "embd_pdrop": options.dropout, "resid_pdrop": options.dropout, "attn_pdrop": options.dropout,
    }  # fmt: skip
    settings = {name: getattr(options, name) for name in ("preset", "block", "batch", "steps", "lr", "dropout", "seed")}
    settings["text"] = hashlib.sha256(text.encode()).hexdigest()
    about = {"model": shape, "vocabulary": data.vocabulary, "settings": settings}
    model = nn.GPT(nn.GPTConfig(**shape))
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
            f"--{name} {value}" if name != "text" else "another --text"
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
def _generate(options: Any) -> int:
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
    model = nn.GPT(nn.GPTConfig(**about["model"]))
    model.load_state_dict({k[6:]: v for k, v in nn.load(checkpoint).items() if k.startswith("model.")})
    nn.manual_seed(options.seed)
    print(_sample(model, data, options.prompt, options.tokens, options.temperature, options.top_k))
    return 0


def _sample(
    model: nn.GPT,
    data: nn.data.CharacterText,
    prompt: str,
    tokens: int,
    temperature: float = 0.8,
    top_k: int | None = None,
) -> str:
    ids = data.encode(prompt)[None, :]  # (1, T)
    return data.decode(model.generate(ids, tokens, temperature, do_sample=True, top_k=top_k)[0])


# --- show and doctor ------------------------------------------------------------------------------------------------------------
def _show(options: Any) -> int:
    file, _, name = options.place.rpartition(":")
    module = _module(Path(file)) if file else None
    if module is None:
        raise Mistake(f"{options.place!r} names no kernel in a file: write FILE:KERNEL")
    kernel = getattr(module, name, None)
    if not hasattr(kernel, "stages"):
        kernels = ", ".join(n for n, v in vars(module).items() if hasattr(v, "stages"))
        raise Mistake(f"{file} has no kernel {name!r}; it has {kernels or 'none'}")
    types = [_parse_type(t) for t in options.types]
    try:
        stages = kernel.stages(*types)
    except kd.KdslError as error:
        raise Mistake(error) from None
    if options.stage and options.stage not in stages:
        raise Mistake(f"no stage is called {options.stage!r}; there are {', '.join(stages)}")
    for stage, text in stages.items():
        if options.stage in (None, stage):
            print(f"=== {stage} ===\n{text}\n" if options.stage is None else text)
    return 0


def _module(path: Path) -> ModuleType:
    """The Python file as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise Mistake(f"there is no Python file {str(path)!r}")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise Mistake(f"{path} cannot be run: {type(error).__name__}: {error}") from None
    return module


def _parse_type(text: str) -> Any:
    """`f32[64,128]`, `f32[N,128]` or `f32`."""
    name, bracket, shape = text.replace(" ", "").partition("[")
    dtype = kd.as_dtype(name)
    if dtype is None or bool(bracket) != shape.endswith("]"):
        raise Mistake(f"{text!r} is no type: write dtype[size,…], such as f32[64,128]")
    sizes = tuple(int(n) if n.isdigit() else n for n in shape[:-1].split(",") if n)
    try:
        return dtype[sizes] if sizes else dtype
    except TypeError as error:
        raise Mistake(error) from None


def _doctor(options: Any) -> int:
    print(f"kdsl {kd.__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    for line in kd.doctor():
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
