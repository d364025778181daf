"""The command `kdsl`: a run from text to sample, Ctrl-C and resumption, kernels shown, and mistakes said in one line."""

import json
import subprocess
import sys

import numpy as np
import pytest

import nn
from nn.command import main

TINY = ["--preset", "gpt-nano", "--block", "8", "--batch", "2", "--steps", "12"]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog. " * 40, encoding="utf-8")
    return ["--text", str(path)]


def test_train_then_generate(tmp_path, text, capsys):
    out = tmp_path / "run"
    assert main(["train", "gpt", *text, *TINY, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    for part in ("a sample before training", "a sample after training", "held-out loss", "a character bigram has"):
        assert part in said
    assert sorted(p.name for p in out.iterdir()) == ["checkpoint.safetensors", "losses.png", "run.json"]
    assert (out / "losses.png").read_bytes().startswith(b"\x89PNG")
    losses = nn.load(out / "checkpoint.safetensors")["losses"]
    assert len(losses) == 12 and np.isfinite(losses).all()
    assert main(["generate", "--out", str(out), "--prompt", "the ", "--tokens", "20", "--top-k", "3"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("the ") and len(said) == 4 + 20 + 1
    assert main(["generate", "--out", str(out), "--prompt", "the ", "--tokens", "20", "--top-k", "3"]) == 0
    assert capsys.readouterr().out == said


INTERRUPTED = """
import os, signal, sys
import nn
from nn.command import main

step = nn.Trainer.train_step

def interrupted(trainer):  # Ctrl-C comes in the middle of step 17
    if trainer.step == 17:
        os.kill(os.getpid(), signal.SIGINT)
    return step(trainer)

nn.Trainer.train_step = interrupted
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("model", ["gpt", "mamba", "mamba2"])
def test_an_interrupted_run_resumes_bit_for_bit(model, tmp_path, text):
    """Ctrl-C after some steps saves and says so in one line; the same command goes on, with the losses of a run in one piece."""
    train = ["train", model, *text, "--preset", f"{model}-nano", "--block", "8", "--batch", "2", "--steps", "40"]
    train += ["--dropout", "0.1"] if model == "gpt" else []
    whole, parts = (["--out", str(tmp_path / name)] for name in ("whole", "parts"))
    command = [sys.executable, "-m", "nn.command", *train]
    subprocess.run([*command, *whole], check=True, capture_output=True, timeout=600)
    run = subprocess.run([sys.executable, "-c", INTERRUPTED, *train, *parts], capture_output=True, text=True, timeout=600)
    assert run.returncode == 130, run.stderr
    assert run.stdout.splitlines()[-1].startswith("interrupted at step 18 of 40; saved in ")
    assert "the same command resumes" in run.stdout.splitlines()[-1]
    again = subprocess.run([*command, *parts], check=True, capture_output=True, text=True, timeout=600)
    assert "resuming at step 18" in again.stdout
    one, two = (nn.load(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "parts"))
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def test_a_folder_with_another_run_is_left_alone(tmp_path, text, capsys):
    out = ["--out", str(tmp_path / "run")]
    assert main(["train", *text, *TINY, *out]) == 0
    before = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    assert main(["train", *text, *TINY, "--lr", "0.1", *out]) == 2
    assert "--lr 0.002" in capsys.readouterr().err
    assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == before
    assert main(["train", *text, *TINY, "--lr", "0.1", "--fresh", *out]) == 0


KERNELS = """
import kdsl as kd

@kd.kernel
def double(x: kd.f32[4]):
    return x + x

@kd.kernel
def add(x, y):
    return x + y
"""


def test_show(tmp_path, capsys):
    file = tmp_path / "kernels.py"
    file.write_text(KERNELS)
    assert main(["show", f"{file}:double", "--stage", "traced"]) == 0
    assert capsys.readouterr().out == "double(x:f32[4])\n  %0:f32[4] = add x x\n  return %0\n"
    assert main(["show", f"{file}:add", "f32[2, 3]", "f32[3]"]) == 0
    said = capsys.readouterr().out
    for stage in ("traced", "simplified", "grouped", "lowered", "scheduled", "source", "assembly"):
        assert f"=== {stage} ===" in said
    assert main(["show", f"{file}:add", "f32[N,3]", "f32[3]", "--stage", "traced"]) == 0
    assert "f32[N, 3]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--text", "nowhere.txt"], "cannot read nowhere.txt: No such file"),
        (["train", "--text", "bytes"], "bytes is not UTF-8 text"),
        (["train", "--text", "short"], "the text is too short"),
        (
            ["generate", "--out", "nowhere"],
            "there is no trained model in nowhere: run `kdsl train --out nowhere` first",
        ),
        (["show", "k.py"], "write FILE:KERNEL"),
        (["show", "nowhere.py:f"], "there is no Python file 'nowhere.py'"),
        (["show", "k.py:triple"], "k.py has no kernel 'triple'; it has double, add"),
        (["show", "k.py:add", "f32[2]", "f99[3]"], "'f99[3]' is no type"),
        (["show", "k.py:add", "f32[2]", "f32[3]"], "cannot add f32[2] and f32[3]"),
        (["show", "k.py:add"], "add is called as add(x, y)"),
        (["show", "k.py:double", "--stage", "molten"], "no stage is called 'molten'; there are traced"),
        (["show", "broken.py:f"], "broken.py cannot be run: SyntaxError"),
    ],
)
def test_mistakes_are_said_in_words(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "short").write_text("too short")
    (tmp_path / "k.py").write_text(KERNELS)
    (tmp_path / "broken.py").write_text("def f(:")
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"kdsl {arguments[0]}: ") and message in said and "Traceback" not in said


def test_a_damaged_run_and_an_unknown_character(tmp_path, text, capsys):
    out = tmp_path / "run"
    assert main(["train", *text, *TINY, "--out", str(out)]) == 0
    assert main(["generate", "--out", str(out), "--prompt", "Ω"]) == 2
    assert "the text had no 'Ω'" in capsys.readouterr().err
    assert main(["generate", "--out", str(out), "--prompt", "the", "--temperature", "0"]) == 2
    (out / "run.json").write_text(json.dumps({"model": {}}))
    assert main(["generate", "--out", str(out)]) == 2
    assert "missing or damaged" in capsys.readouterr().err


def test_doctor(capsys):
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("kdsl ") and "llvmlite" in said and "threads" in said


def test_a_device_that_is_not_there(tmp_path, capsys):
    for device, said in (("tpu", "no device 'tpu'"), ("cuda:99", "")):
        assert main(["train", "--device", device, "--out", str(tmp_path / "run")]) == 2
        said_now = capsys.readouterr().err
        assert said_now.startswith(f"kdsl train: --device {device}: ") and said in said_now
    assert not (tmp_path / "run").exists()
