"""The command `kdsl`: train a model on text, continue a prompt, look at kernels, look at the machine.

    kdsl train [gpt | mamba | mamba2] [--text FILE] [--steps N] …      kdsl generate [--prompt TEXT]
    kdsl show FILE:KERNEL [TYPE …] [--stage NAME]     kdsl doctor

In:  the command line.  Out: the exit status: 0, 2 for a mistake of the user's (said in one line), 130 after Ctrl-C.
Read before: text_runs.py.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import kdsl as kd
from nn.text_runs import MODELS, PROMPT, Mistake, generate, train


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand; returns the process's exit status."""
    options = _parser().parse_args(argv)
    try:
        return {"train": train, "generate": generate, "show": _show, "doctor": _doctor}[options.command](options)
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
    train = commands.add_parser("train", help="train a model on text, all arithmetic in kernels that kdsl compiled")
    train.add_argument("model", nargs="?", default="gpt", choices=list(MODELS))
    train.add_argument("--text", type=Path, help="a UTF-8 file (default: the Python standard library's own sources)")
    train.add_argument(
        "--out",
        type=Path,
        help="folder for checkpoint, vocabulary and loss curve (default runs/ and the model's name)",
    )
    train.add_argument(
        "--preset",
        help="layers and width: "
        + "; ".join(f"{name}: {', '.join(m.presets)}" for name, m in MODELS.items())
        + " (default: the micro one, 4 layers, 128 wide)",
    )
    train.add_argument("--block", type=_positive, default=64, help="characters a sample (default %(default)s)")
    train.add_argument("--batch", type=_positive, default=16, help="samples a step (default %(default)s)")
    train.add_argument("--steps", type=_positive, default=1500, help="updates (default %(default)s)")
    train.add_argument("--lr", type=float, default=2e-3, help="the highest learning rate (default %(default)s)")
    train.add_argument("--dropout", type=float, default=0.0, help="the share of values dropped (default %(default)s)")
    train.add_argument("--seed", type=int, default=1337, help="of the weights and batches (default %(default)s)")
    train.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 … (default %(default)s)")
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
    generate.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 … (default %(default)s)")
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
