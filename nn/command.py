"""The `kdsl` command: train a model on text, continue it, look at a kernel's stages, check the machine.

    kdsl train [gpt] [--text FILE] [--steps N] …      kdsl generate [--prompt TEXT]
    kdsl show FILE:KERNEL [TYPE …] [--stage NAME]     kdsl doctor
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np

import kdsl as kd
import nn
from nn.trainer import plot_losses


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand; returns the process's exit status."""
    parser = argparse.ArgumentParser(prog="kdsl", description="kdsl: kernels from NumPy-style expressions, and models built on them")
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train a GPT on text, all arithmetic in kernels that kdsl compiled")
    train.add_argument("model", nargs="?", default="gpt", choices=["gpt"])
    train.add_argument("--text", type=Path, help="a UTF-8 file (default: the Python standard library's own sources)")
    train.add_argument("--out", type=Path, default=Path("runs/gpt"), help="folder for checkpoint, vocabulary and loss curve (default %(default)s)")
    train.add_argument("--preset", default="gpt-micro", choices=sorted(nn.gpt.PRESETS), help="layers, heads and width (default %(default)s: 4, 4, 128)")
    train.add_argument("--block", type=int, default=64, help="characters a sample (default %(default)s)")
    train.add_argument("--batch", type=int, default=16, help="samples a step (default %(default)s)")
    train.add_argument("--steps", type=int, default=1500, help="updates (default %(default)s)")
    train.add_argument("--lr", type=float, default=2e-3)
    train.add_argument("--dropout", type=float, default=0.0)
    train.add_argument("--seed", type=int, default=1337)
    train.add_argument("--fresh", action="store_true", help="start anew even if the folder holds a checkpoint")
    generate = commands.add_parser("generate", help="continue a prompt with a trained model")
    generate.add_argument("--out", type=Path, default=Path("runs/gpt"), help="folder of the run (default %(default)s)")
    generate.add_argument("--prompt", default="def ")
    generate.add_argument("--tokens", type=int, default=400)
    generate.add_argument("--temperature", type=float, default=0.8)
    generate.add_argument("--top-k", type=int, default=None)
    generate.add_argument("--seed", type=int, default=0)
    show = commands.add_parser("show", help="print the stages of a kernel in a Python file")
    show.add_argument("place", help="FILE:KERNEL")
    show.add_argument("types", nargs="*", help="a type a parameter, such as 'f32[64,128]' (not needed where annotations fix the sizes)")
    show.add_argument("--stage", help="only this stage")
    commands.add_parser("doctor", help="say what this machine offers and what is missing")
    options = parser.parse_args(argv)
    return {"train": _train, "generate": _generate, "show": _show, "doctor": _doctor}[options.command](options)


def _load_run(folder: Path) -> tuple[nn.GPT, list[str]]:
    about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return nn.GPT(nn.GPTConfig(**about["model"])), about["vocabulary"]


def _train(options: Any) -> int:
    text = options.text.read_text(encoding="utf-8") if options.text else nn.data.standard_library_text()
    data = nn.data.CharacterText.from_text(text)
    if len(data.held_out) < options.block + 2:
        print(f"the text is too short: its held-out tenth has {len(data.held_out)} characters, a sample {options.block + 1}", file=sys.stderr)
        return 2
    nn.manual_seed(options.seed)
    layers, heads, width = nn.gpt.PRESETS[options.preset]
    shape = {
        "vocab_size": len(data.vocabulary), "block_size": options.block, "n_layer": layers, "n_head": heads, "n_embd": width,
        "embd_pdrop": options.dropout, "resid_pdrop": options.dropout, "attn_pdrop": options.dropout,
    }  # fmt: skip
    model = nn.GPT(nn.GPTConfig(**shape))
    size = sum(p.numel() for p in model.parameters())
    source = options.text or "the Python standard library"
    print(f"{options.preset}: {size:,} parameters, {len(data.vocabulary)} characters; {len(text):,} characters of {source}")
    options.out.mkdir(parents=True, exist_ok=True)
    checkpoint = options.out / "checkpoint.safetensors"
    if options.fresh:
        checkpoint.unlink(missing_ok=True)
    about = {"model": shape, "vocabulary": data.vocabulary}
    trainer = nn.Trainer(
        model,
        lambda step: data.batch(step, options.batch, options.block, options.seed),
        nn.TrainerConfig(steps=options.steps, lr=options.lr, warmup=min(100, options.steps // 10), evaluate_every=max(1, options.steps // 15)),
        options.out,
        lambda step: data.batch(step, options.batch, options.block, options.seed + 1, "held_out"),
    )
    if checkpoint.exists():
        before = json.loads((options.out / "run.json").read_text(encoding="utf-8"))
        if before != about:
            print(f"{options.out} holds a run of another model or text; use --fresh to start anew or --out for another folder", file=sys.stderr)
            return 2
        trainer.resume()
        print(f"resuming at step {trainer.step}")
    else:
        (options.out / "run.json").write_text(json.dumps(about), encoding="utf-8")
        print(f"--- a sample before training ---\n{_sample(model, data.vocabulary, 'def ', 120)}\n---")
    if not trainer.run():
        print(f"interrupted at step {trainer.step} of {options.steps}; saved in {options.out}: the same command resumes")
        return 130
    held_out, bigram = trainer.evaluate(), data.bigram_loss()
    plot_losses(trainer.losses, trainer.held_out_losses, options.out / "losses.png", ("character bigram", bigram))
    print(f"held-out loss {held_out:.3f} nats a character; a character bigram has {bigram:.3f}")
    print(f"--- a sample after training ---\n{_sample(model, data.vocabulary, 'def ', 400)}\n---")
    print(f"checkpoint {checkpoint}, loss curve {options.out / 'losses.png'}")
    return 0


def _sample(model: nn.GPT, vocabulary: list[str], prompt: str, tokens: int, temperature: float = 0.8, top_k: int | None = None) -> str:
    data = nn.data.CharacterText(vocabulary, np.zeros(0), np.zeros(0))
    out = model.generate(data.encode(prompt)[None, :], tokens, temperature, do_sample=True, top_k=top_k)
    return data.decode(out[0])


def _generate(options: Any) -> int:
    if not (options.out / "checkpoint.safetensors").exists():
        print(f"there is no trained model in {options.out}: run `kdsl train --out {options.out}` first", file=sys.stderr)
        return 2
    model, vocabulary = _load_run(options.out)
    arrays = nn.load(options.out / "checkpoint.safetensors")
    model.load_state_dict({k[6:]: v for k, v in arrays.items() if k.startswith("model.")})
    nn.manual_seed(options.seed)
    print(_sample(model, vocabulary, options.prompt, options.tokens, options.temperature, options.top_k))
    return 0


def _show(options: Any) -> int:
    file, _, name = options.place.rpartition(":")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file) if file and Path(file).exists() else None
    if spec is None or spec.loader is None:
        print(f"there is no file {file!r}: write FILE:KERNEL", file=sys.stderr)
        return 2
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(Path(file).resolve().parent))
    spec.loader.exec_module(module)
    kernel = getattr(module, name, None)
    if not hasattr(kernel, "stages"):
        kernels = ", ".join(n for n, v in vars(module).items() if hasattr(v, "stages"))
        print(f"{file} has no kernel {name!r}; it has {kernels or 'none'}", file=sys.stderr)
        return 2
    stages = kernel.stages(*(_parse_type(t) for t in options.types))
    if options.stage and options.stage not in stages:
        print(f"no stage is called {options.stage!r}; there are {', '.join(stages)}", file=sys.stderr)
        return 2
    for stage, text in stages.items():
        if options.stage in (None, stage):
            print(f"=== {stage} ===\n{text}\n" if options.stage is None else text)
    return 0


def _parse_type(text: str) -> Any:
    dtype, _, shape = text.partition("[")
    found = kd.as_dtype(dtype)
    if found is None:
        raise SystemExit(f"{text!r} is no type: write dtype[size, …], such as f32[64,128]")
    sizes = tuple(int(n) for n in shape.rstrip("]").split(",") if n.strip())
    return found[sizes] if sizes else found


def _doctor(options: Any) -> int:
    print(f"kdsl {kd.__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    for line in kd.doctor():
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
